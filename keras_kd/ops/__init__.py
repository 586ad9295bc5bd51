"""The distillation losses as functions on tensors: fused native kernels, or plain TensorFlow."""

from keras_kd.ops import numpy
from keras_kd.ops.dense import combined_loss, hard_and_soft_loss, soft_target_loss
from keras_kd.ops.dispatch import KernelWarning, kernel_status, use_kernel
from keras_kd.ops.linear import LinearLosses, linear_soft_target_loss
from keras_kd.ops.linear_head import LinearHead
from keras_kd.ops.sparse_logits import sparse_soft_target_loss

__all__ = [
    "KernelWarning",
    "LinearHead",
    "LinearLosses",
    "combined_loss",
    "hard_and_soft_loss",
    "kernel_status",
    "linear_soft_target_loss",
    "numpy",
    "soft_target_loss",
    "sparse_soft_target_loss",
    "use_kernel",
]

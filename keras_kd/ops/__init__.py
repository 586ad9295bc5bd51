"""The distillation losses as functions on tensors: fused native kernels, or plain TensorFlow."""

from keras_kd.ops.hard_and_soft import combined_loss, hard_and_soft_loss
from keras_kd.ops.kernel_choice import KernelWarning, kernel_status, use_kernel
from keras_kd.ops.soft_targets import soft_target_loss
from keras_kd.ops.sparse_targets import sparse_soft_target_loss

__all__ = [
    "KernelWarning",
    "combined_loss",
    "hard_and_soft_loss",
    "kernel_status",
    "soft_target_loss",
    "sparse_soft_target_loss",
    "use_kernel",
]

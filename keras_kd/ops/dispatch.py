"""Sends a problem to the implementation for the place it runs in.

| where | computes |
|---|---|
| eager, CPU | the operation (`native.py`) |
| graph, CPU | the operation |
| graph, inside XLA on a CPU | XLA FFI (`xla.py`) |
| inside XLA on a GPU | XLA FFI, if `libkeras_kd_cuda.so` can run there |
| a GPU outside XLA | plain TensorFlow (`reference.py`), or XLA FFI: KERAS_KD_GPU |
| no library, or `use_kernel("tensorflow")` | plain TensorFlow |

`sparse_soft_target_loss` has no kernel for GPUs: plain TensorFlow computes it there, and, because
which device XLA will compile for is not known when the graph is built, inside XLA where a GPU is.

Whether XLA will compile a graph is not known when the graph is built. DeviceIndex tells at run
time: in an XLA computation it is the constant that selects `default`, and the other branches are
pruned before anything tries to compile them. Measured: about 23 us a call.
"""

import dataclasses

import tensorflow as tf

from keras_kd.ops import gradients, kernel_choice, native, reference, sparse_reference, xla


def compute(problem):
    """`reference.compute` of an `arguments.Problem`, by the fastest implementation here."""
    problem = _constants(problem)
    on_cpu = native.compute if kernel_choice.native_is_used() else reference.compute_checked
    compiled_on_gpu = kernel_choice.gpu_kernel_is_used()
    on_gpu = xla.compute_compiled if compiled_on_gpu else reference.compute_checked
    return _by_place(
        problem.student,
        lambda: on_cpu(problem),
        lambda: on_gpu(problem),
        lambda: (xla.compute if kernel_choice.xla_is_used() else reference.compute)(problem),
    )


def compute_sparse(problem):
    """`sparse_reference.compute` of an `arguments.SparseProblem`, by the fastest here."""
    problem = _constants(problem)
    plain, checked = sparse_reference.compute, sparse_reference.compute_checked
    on_cpu = native.compute_sparse if kernel_choice.native_is_used() else checked
    return _by_place(
        problem.student,
        lambda: on_cpu(problem),
        lambda: checked(problem),
        lambda: (xla.compute_sparse if kernel_choice.cpu_xla_is_used() else plain)(problem),
    )


def scale(gradient, upstream, dtype):
    """`gradient * upstream[..., None]`, cast to the student's dtype."""
    on_cpu = native.scale if kernel_choice.native_is_used() else reference.scale
    args = (tf.stop_gradient(gradient), tf.stop_gradient(upstream), dtype)
    # Inside XLA plain TensorFlow is right: the multiplication is fused with what consumes it.
    return _by_place(
        gradient,
        lambda: on_cpu(*args),
        lambda: reference.scale(*args),
        lambda: reference.scale(*args),
    )


def _constants(problem):
    # A persistent tape differentiates the branches of a switch_case while they are built, before
    # custom_gradient replaces their gradient; the operations have none of their own.
    tensors = {
        field.name: tf.stop_gradient(value)
        for field in dataclasses.fields(problem)
        if tf.is_tensor(value := getattr(problem, field.name))
    }
    return dataclasses.replace(problem, **tensors)


def _by_place(tensor, cpu, gpu, compiled):
    if not gradients.are_needed():  # nothing will run: any tells the shapes
        return cpu()
    if tf.executing_eagerly():
        return gpu() if "GPU" in tensor.device else cpu()
    place = tf.raw_ops.DeviceIndex(device_names=["CPU", "GPU"])
    found = tf.switch_case(place, {0: cpu, 1: gpu}, default=compiled)
    # A function that is differentiated twice asks for the gradient of whatever its backward pass
    # takes of this, before custom_gradient could say that there is none.
    return tf.nest.map_structure(tf.stop_gradient, found)

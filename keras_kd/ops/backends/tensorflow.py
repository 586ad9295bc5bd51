"""The kernels as TensorFlow operations (CPU, eager and graph), from `libkeras_kd_tf.so`."""

import ctypes
import functools
import os
from typing import Any

import tensorflow as tf

from keras_kd.ops import arguments
from keras_kd.ops.arguments import Problem, SparseProblem
from keras_kd.ops.backends import shared_library


@functools.cache
def load() -> Any:
    """Loads the operations once, with as many threads as TensorFlow was set to use.

    Returns:
        The module of generated operation wrappers.

    Raises:
        LibraryError: The library is missing, broken, or of another version.
        ValueError: `KERAS_KD_NUM_THREADS` is not a number of threads.
    """
    threads = shared_library.threads_of_environment()
    core = shared_library.load()
    path = shared_library.TENSORFLOW_PATH
    if not path.exists():
        raise shared_library.LibraryError(
            f"{path.name} is not in the package. {shared_library.REMEDY}"
        )
    try:
        operations = tf.load_op_library(os.fspath(path))
        found = ctypes.CDLL(os.fspath(path)).keras_kd_tf_abi_version()
    except (OSError, AttributeError, tf.errors.OpError) as error:
        raise shared_library.LibraryError(
            f"{path.name} cannot be used with TensorFlow {tf.__version__}: {error}. "
            f"{shared_library.REMEDY}"
        ) from error
    if found != shared_library.ABI_VERSION:
        raise shared_library.LibraryError(
            f"{path.name} speaks interface version {found}; expected {shared_library.ABI_VERSION}. "
            f"{shared_library.REMEDY}"
        )
    if threads == 0 and not shared_library.threads_are_chosen():
        # 0 means one per processor, to TensorFlow and to the kernels alike.
        core.keras_kd_set_num_threads(tf.config.threading.get_intra_op_parallelism_threads())
    return operations


def compute(problem: Problem) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """`reference.compute` by the kernel, which checks labels and temperature."""
    operations, common = load(), _attributes(problem)
    if problem.labels is None:
        soft, gradient = operations.keras_kd_soft_target_loss(
            student=problem.student,
            teacher=problem.teacher,
            temperature=problem.temperature,
            soft_weight=or_ones(problem.soft_weight),
            **common,
        )
        hard = tf.zeros_like(soft)
    else:
        hard, soft, gradient = operations.keras_kd_hard_and_soft_loss(
            student=problem.student,
            teacher=problem.teacher,
            labels=problem.labels,
            temperature=problem.temperature,
            hard_weight=or_ones(problem.hard_weight),
            soft_weight=or_ones(problem.soft_weight),
            **common,
        )
    _set_shape(gradient, problem)
    return hard, soft, gradient


def compute_sparse(problem: SparseProblem) -> tuple[tf.Tensor, tf.Tensor]:
    """`reference.compute_sparse` by the kernel, which checks indices and temperature."""
    soft, gradient = load().keras_kd_sparse_soft_target_loss(
        student=problem.student,
        teacher=problem.teacher,
        indices=problem.indices,
        tail=problem.tail,
        temperature=problem.temperature,
        soft_weight=or_ones(problem.soft_weight),
        **_attributes(problem),
    )
    _set_shape(gradient, problem)
    return soft, gradient


def _attributes(problem: Problem) -> dict[str, Any]:
    return {
        "divergence": arguments.DIVERGENCES[problem.divergence].code,
        "mixing_weight": problem.mixing_weight,
        "with_gradient": problem.with_gradient,
        "Tgradient": problem.gradient_dtype,
    }


def _set_shape(gradient: tf.Tensor, problem: Problem) -> None:
    # It depends on an attribute, which shape inference in C cannot read.
    gradient.set_shape(problem.student.shape if problem.with_gradient else [0])


def or_ones(weight: tf.Tensor | None) -> tf.Tensor:
    """The weight as the kernels take it: an empty one counts as 1."""
    return tf.zeros([0]) if weight is None else weight


def scale(gradient: tf.Tensor, upstream: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """`reference.scale`; in place where TensorFlow allows it."""
    return load().keras_kd_scale_gradient(gradient=gradient, upstream=upstream, Tscaled=dtype)

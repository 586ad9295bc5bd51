"""The arguments of the operations: divergences, `T^2`, checks, and the `Problem` they make."""

import dataclasses
import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_kd._utils import validation


@dataclasses.dataclass(frozen=True)
class Divergence:
    """What Python knows of a divergence; its formula is in `reference.py`.

    Attributes:
        code: Its number in `enum class Divergence` of `csrc/problem.h`.
        is_mixture: Whether it compares with a mixture, so that `mixing_weight` matters.
    """

    code: int
    is_mixture: bool = False


# The divergences by name. A new one needs an entry here, its formula in `reference.py` and in the
# docstring of `dense.soft_target_loss`; below Python a value of the enum and its name in
# `csrc/problem.h`, the terms of a class and a case of the switch for CPUs
# (`csrc/cpu/divergence_rule.h`, `dense_rows.h`) and for GPUs (`csrc/cuda/row_math.cuh`,
# `launch.cuh`); and its truth in float64 in `tests/reference.py` and `csrc/tests/row_truth.h`.
DIVERGENCES = {
    "forward_kl": Divergence(0),
    "reverse_kl": Divergence(1),
    "jsd": Divergence(2, is_mixture=True),
}
REDUCTIONS = (None, "sum", "mean")
LOGIT_DTYPES = ("float32", "bfloat16", "float16")
LABEL_DTYPES = ("int32", "int64")


@dataclasses.dataclass(frozen=True)
class Problem:
    """What one call computes; `csrc/problem.h` is the same thing below Python.

    Attributes:
        student: Logits, `[..., num_classes]`.
        teacher: Logits of the same shape.
        temperature: Float32 scalar.
        labels: Integers `[...]`, or `None` for no hard loss.
        hard_weight: Float32 `[...]` or scalar, or `None` for 1.
        soft_weight: Float32 `[...]` or scalar, or `None` for 1.
        divergence: A name in `DIVERGENCES`.
        mixing_weight: The teacher's weight in the mixture of `"jsd"`.
        with_gradient: Whether the gradient is computed along with the losses.
    """

    student: Any
    teacher: Any
    temperature: Any
    labels: Any = None
    hard_weight: Any = None
    soft_weight: Any = None
    divergence: str = "forward_kl"
    mixing_weight: float = 0.5
    with_gradient: bool = True

    @property
    def gradient_dtype(self) -> tf.DType:
        """The dtype in which the gradient is kept until it is scaled."""
        # A float16 gradient waits in float32 until its upstream factor is known: T (q - p) of
        # 32000 classes lies below float16's normal range, and loss scaling comes only later.
        return tf.float32 if self.student.dtype == tf.float16 else self.student.dtype


@dataclasses.dataclass(frozen=True, kw_only=True)
class SparseProblem(Problem):
    """A problem whose `teacher` holds the logits of some classes, `[..., k]`, and no labels.

    Attributes:
        indices: The classes, int32 or int64 `[..., k]`.
        tail: Float32 `[...]`: log of the sum of `exp(logit / temperature)` over the others.
    """

    indices: Any
    tail: Any


def as_tensor(value: Any) -> tf.Tensor:
    """A tensor of a variable of Keras or TensorFlow, in the dtype that Keras casts it to here."""
    return tf.convert_to_tensor(keras.ops.convert_to_tensor(value))


def temperature_squared(temperature: Any) -> Any:
    """`T^2`: each soft loss is multiplied by it once, so that gradients do not shrink with `T`.

    Who softens logits itself and takes a divergence at temperature 1 multiplies with this. The
    kernels do the same in `csrc/cpu/dense_rows.h`, `csrc/cpu/short_rows.h` and `csrc/cuda/row.cuh`.
    """
    return temperature * temperature


def convert_logits(student_logits: Any, teacher_logits: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns both as tensors, or raises what is wrong with them."""
    student = _convert_floating("student_logits", student_logits)
    teacher = _convert_floating("teacher_logits", teacher_logits)
    ranks = student.shape.rank, teacher.shape.rank
    if None in ranks:
        raise ValueError(
            "The rank of the logits must be known when the graph is built. Received: "
            f"student_logits.shape={student.shape}, teacher_logits.shape={teacher.shape}"
        )
    if ranks[0] < 1 or ranks[0] != ranks[1]:
        raise ValueError(
            "`student_logits` and `teacher_logits` must have the same rank, at least 1: "
            f"[..., num_classes]. Received: student_logits.shape={student.shape}, "
            f"teacher_logits.shape={teacher.shape}. Reshape the teacher's in a function as the "
            "teacher: lambda x: keras.ops.reshape(teacher(x), shape)."
        )
    _check_same_shape(student.shape, teacher.shape)
    return student, teacher


def _convert_floating(name: str, value: Any) -> tf.Tensor:
    tensor = tf.convert_to_tensor(value)
    if tensor.dtype == tf.float64:
        tensor = tf.cast(tensor, tf.float32)
    if tensor.dtype.name not in LOGIT_DTYPES:
        raise ValueError(
            f"Invalid dtype for argument `{name}`. Expected logits, one of {LOGIT_DTYPES}. "
            f"Received: {name}.dtype={tensor.dtype.name}"
        )
    return tensor


def _check_same_shape(student: tf.TensorShape, teacher: tf.TensorShape) -> None:
    if student.is_compatible_with(teacher):
        return
    if student[-1] != teacher[-1] and None not in (student[-1], teacher[-1]):
        raise ValueError(
            "Student and teacher have different numbers of classes: the last dimension of "
            f"`student_logits` is {student[-1]}, of `teacher_logits` {teacher[-1]}. Give the "
            "student the teacher's classes, or select the common ones from both before the loss."
        )
    raise ValueError(
        "`student_logits` and `teacher_logits` must have the same shape. Received: "
        f"student_logits.shape={student}, teacher_logits.shape={teacher}. Bring the teacher's "
        "positions to the student's in a function as the teacher, such as "
        "lambda x: keras.ops.image.resize(teacher(x), size)."
    )


def convert_sparse_teacher(
    student_logits: Any, teacher_logits: Any, teacher_indices: Any, teacher_tail: Any
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns all four as tensors, or raises what is wrong with them."""
    student = _convert_floating("student_logits", student_logits)
    teacher = _convert_floating("teacher_logits", teacher_logits)
    indices = _convert_integers("teacher_indices", teacher_indices)
    tail = tf.cast(keras.ops.convert_to_tensor(teacher_tail), tf.float32)
    _check_sparse_shapes(student.shape, teacher.shape, indices.shape, tail.shape)
    return student, teacher, indices, tail


def _check_sparse_shapes(
    student: tf.TensorShape,
    teacher: tf.TensorShape,
    indices: tf.TensorShape,
    tail: tf.TensorShape,
) -> None:
    received = (
        f"Received: student_logits.shape={student}, teacher_logits.shape={teacher}, "
        f"teacher_indices.shape={indices}, teacher_tail.shape={tail}"
    )
    if None in (student.rank, teacher.rank, indices.rank, tail.rank):
        raise ValueError(f"The ranks must be known when the graph is built. {received}")
    if (
        min(student.rank, teacher.rank) < 1
        or not teacher.is_compatible_with(indices)
        or not student[:-1].is_compatible_with(teacher[:-1])
        or not student[:-1].is_compatible_with(tail)
    ):
        raise ValueError(
            "`student_logits` must have the shape [..., num_classes], `teacher_logits` and "
            "`teacher_indices` the shape [..., k] with the same leading dimensions, and "
            f"`teacher_tail` the shape of those, [...]. {received}"
        )
    kept, classes = teacher[-1], student[-1]
    if kept == 0 or (None not in (kept, classes) and kept > classes):
        raise ValueError(
            "`teacher_logits` must hold at least one and at most num_classes logits a row. "
            f"{received}"
        )


def convert_temperature(value: Any) -> tf.Tensor:
    """Returns a float32 scalar; a Python number is checked here, a tensor by the kernel."""
    is_tensor = keras.ops.is_tensor(value) or isinstance(value, (keras.Variable, tf.Variable))
    is_number = isinstance(value, (int, float, np.number, np.ndarray))
    if isinstance(value, (list, tuple)):
        raise validation.invalid("temperature", "a scalar", value)
    if isinstance(value, bool) or not (is_number or is_tensor):
        raise validation.invalid("temperature", "a positive, finite number", repr(value))
    if isinstance(value, (int, float, np.number)):
        if not (value > 0 and math.isfinite(value)):
            raise validation.invalid("temperature", "a positive, finite number", value)
        return tf.constant(float(value), tf.float32)
    # A variable is read here: custom_gradient wants to know of those it finds inside.
    tensor = tf.identity(tf.cast(keras.ops.convert_to_tensor(value), tf.float32))
    if tensor.shape.rank not in (0, None):
        raise validation.invalid("temperature", "a scalar", f"a tensor of shape {tensor.shape}")
    return tensor


def check_divergence(name: str, mixing_weight: float) -> tuple[str, float]:
    """Returns both, or raises what is wrong with them."""
    if name not in DIVERGENCES:
        raise validation.invalid("divergence", f"one of {tuple(DIVERGENCES)}", name)
    if not isinstance(mixing_weight, (int, float)) or not 0 < mixing_weight < 1:
        raise validation.invalid(
            "mixing_weight", "a number between 0 and 1, both excluded", mixing_weight
        )
    return name, float(mixing_weight)


def convert_labels(value: Any, student: tf.Tensor) -> tf.Tensor:
    """Returns int32 or int64 labels of the logits' leading shape."""
    tensor = _convert_integers("labels", value)
    if not tensor.shape.is_compatible_with(student.shape[:-1]):
        raise ValueError(
            "`labels` must have the shape of the logits without the classes, "
            f"{student.shape[:-1]}. Received: labels.shape={tensor.shape}"
        )
    return tensor


def _convert_integers(name: str, value: Any) -> tf.Tensor:
    tensor = tf.convert_to_tensor(value)
    if tensor.dtype.name in LABEL_DTYPES:
        return tensor
    if not tensor.dtype.is_integer:
        raise ValueError(
            f"Invalid dtype for argument `{name}`. Expected class indices, one of "
            f"{LABEL_DTYPES}. Received: {name}.dtype={tensor.dtype.name}"
        )
    return tf.cast(tensor, tf.int64)


def convert_weight(name: str, value: Any, student: tf.Tensor) -> tf.Tensor | None:
    """Returns float32 of the logits' leading shape or a scalar, or `None`."""
    if value is None:
        return None
    tensor = tf.cast(keras.ops.convert_to_tensor(value), tf.float32)
    rows = student.shape[:-1]
    if not _broadcasts(tensor.shape, rows):
        raise validation.invalid(
            name, f"something that broadcasts to {rows}", f"shape {tensor.shape}"
        )
    return tensor if tensor.shape.rank == 0 else tf.broadcast_to(tensor, tf.shape(student)[:-1])


def _broadcasts(shape: tf.TensorShape, rows: tf.TensorShape) -> bool:
    if shape.rank is None or shape.rank > rows.rank:
        return False
    ends = rows[rows.rank - shape.rank :]
    return all(dim in (1, None) or end in (dim, None) for dim, end in zip(shape, ends, strict=True))


def apply_weight(loss: tf.Tensor, weight: tf.Tensor | None) -> tf.Tensor:
    """The loss times its weight, which may be `None` for 1."""
    return loss if weight is None else loss * weight


def weight_of_reduction(
    reduction: str | None, row_weight: tf.Tensor | None, student: tf.Tensor
) -> tf.Tensor | None:
    """The weight, of the rows or a scalar, whose weighted sum is the reduced loss."""
    if reduction not in REDUCTIONS:
        raise validation.invalid("reduction", f"one of {REDUCTIONS}", reduction)
    if reduction != "mean":
        return row_weight
    rows = tf.reduce_prod(tf.shape(student)[:-1])
    share = tf.math.reciprocal_no_nan(tf.cast(rows, tf.float32))
    return apply_weight(share, row_weight)

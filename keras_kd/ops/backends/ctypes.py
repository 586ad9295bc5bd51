"""The CPU kernels on NumPy arrays: no TensorFlow, no gradient tape.

The same code that the TensorFlow operations call, for tests, other frameworks and inspection.
Arrays may have any leading dimensions, strides and alignment; float32, float16 and bfloat16
(`ml_dtypes.bfloat16`) are computed in float32.

```python
import numpy as np
from keras_kd.ops.backends import ctypes as native

student, teacher = np.random.normal(size=(2, 8, 100)).astype("float32")
loss, gradient = native.soft_target_loss(student, teacher, temperature=4.0, gradient=True)
assert loss.shape == (8,) and gradient.shape == (8, 100)
```
"""

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_kd.ops.arguments import DIVERGENCES
from keras_kd.ops.backends import shared_library

_DTYPES = ("float32", "float16", "bfloat16")
_MESSAGE_BYTES = 512


def soft_target_loss(
    student: Any,
    teacher: Any,
    temperature: float = 1.0,
    divergence: str = "forward_kl",
    mixing_weight: float = 0.5,
    sample_weight: Any = None,
    gradient: bool = False,
) -> Any:
    """`keras_kd.ops.soft_target_loss` on arrays.

    Args:
        student: Logits, `[..., num_classes]`.
        teacher: Logits of the same shape; its dtype may differ.
        temperature: Positive number.
        divergence: See `keras_kd.ops.soft_target_loss`.
        mixing_weight: Weight of the teacher in the mixture of `"jsd"`.
        sample_weight: Broadcastable to `[...]`; rows of weight zero are skipped.
        gradient: Whether to return the gradient as well.

    Returns:
        The loss `[...]` in float32, times `sample_weight`; with `gradient=True` a pair of it and
        the gradient of its sum with respect to `student`, in the student's dtype.
    """
    weights = (None, sample_weight)
    args = (temperature, divergence, mixing_weight, weights, gradient)
    _, soft, slope = _run(student, teacher, None, *args)
    soft = _apply_weight(soft, sample_weight)
    return (soft, slope) if gradient else soft


def sparse_soft_target_loss(
    student: Any,
    teacher: Any,
    indices: Any,
    tail: Any,
    temperature: float = 1.0,
    divergence: str = "forward_kl",
    mixing_weight: float = 0.5,
    sample_weight: Any = None,
    gradient: bool = False,
) -> Any:
    """`keras_kd.ops.sparse_soft_target_loss` on arrays.

    Args:
        student: Logits, `[..., num_classes]`.
        teacher: Logits of the kept classes, `[..., k]`; its dtype may differ.
        indices: Integers `[..., k]`: the kept classes, distinct in each row.
        tail: `[...]`: log of the sum of `exp(logit / temperature)` over the other classes.
        temperature: Positive number.
        divergence: See `keras_kd.ops.soft_target_loss`.
        mixing_weight: Weight of the teacher in the mixture of `"jsd"`.
        sample_weight: Broadcastable to `[...]`; rows of weight zero are skipped.
        gradient: Whether to return the gradient as well.

    Returns:
        See `soft_target_loss`.
    """
    student, teacher = _check_logits("student", student), _check_logits("teacher", teacher)
    shape = student.shape[:-1]
    if teacher.shape[:-1] != shape:
        raise ValueError(
            "`student` and `teacher` must have the same shape but for the classes. "
            f"Received: {student.shape} and {teacher.shape}"
        )
    indices = _check_integers("indices", indices, teacher.shape)
    tail = np.asarray(tail, "float32", order="C")
    if tail.shape != shape:
        raise ValueError(f"`tail` must have shape {shape}. Received: shape {tail.shape}")
    weight = _check_weights(sample_weight, shape)
    soft, slope = np.empty(shape, "float32"), np.empty_like(student, order="C")
    dense = _problem(
        student,
        teacher,
        soft,
        slope if gradient else None,
        temperature=temperature,
        divergence=_divergence_code(divergence),
        mixing_weight=mixing_weight,
        soft_weight=_address(weight),
    )
    problem = shared_library.SparseProblem(
        dense=dense,
        kept=teacher.shape[-1],
        indices=_address(indices),
        indices_are_int64=indices.dtype == "int64",
        tail=_address(tail),
    )
    _call(shared_library.load().keras_kd_sparse_losses, problem)
    soft = _apply_weight(soft, sample_weight)
    return (soft, slope) if gradient else soft


def hard_and_soft_loss(
    student: Any,
    teacher: Any,
    labels: Any,
    temperature: float = 1.0,
    divergence: str = "forward_kl",
    mixing_weight: float = 0.5,
    hard_weight: Any = None,
    soft_weight: Any = None,
    gradient: bool = False,
) -> Any:
    """`keras_kd.ops.combined_loss` on arrays.

    Args:
        student: Logits, `[..., num_classes]`.
        teacher: Logits of the same shape; its dtype may differ.
        labels: Integers, `[...]`, each at least 0 and below `num_classes`.
        temperature: Positive number.
        divergence: See `keras_kd.ops.soft_target_loss`.
        mixing_weight: Weight of the teacher in the mixture of `"jsd"`.
        hard_weight: Broadcastable to `[...]`; where zero the label is ignored.
        soft_weight: Broadcastable to `[...]`; where zero the teacher is ignored.
        gradient: Whether to return the gradient as well.

    Returns:
        The hard and the soft loss `[...]` in float32, without the weights (zero where a weight is
        zero); with `gradient=True` also the gradient of
        `sum(hard_weight * hard + soft_weight * soft)` with respect to `student`.
    """
    weights = (hard_weight, soft_weight)
    args = (temperature, divergence, mixing_weight, weights, gradient)
    hard, soft, slope = _run(student, teacher, labels, *args)
    return (hard, soft, slope) if gradient else (hard, soft)


def _check_logits(name: str, array: Any) -> np.ndarray:
    array = np.asarray(array)
    if array.dtype.name not in _DTYPES:
        raise ValueError(
            f"Invalid dtype for argument `{name}`. Expected one of {_DTYPES}. "
            f"Received: {array.dtype.name}"
        )
    if array.ndim < 1:
        raise ValueError(f"`{name}` must have at least one dimension, the classes.")
    return np.ascontiguousarray(array) if not _is_plain(array) else array


def _is_plain(array: np.ndarray) -> bool:
    # C order is enough: the kernels read any alignment of the element.
    return array.flags.c_contiguous


def _check_weights(weight: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    if weight is None:
        return None
    return np.ascontiguousarray(np.broadcast_to(np.asarray(weight, "float32"), shape))


def _check_integers(name: str, array: Any, shape: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(array)
    if array.dtype.kind not in "iu":
        raise ValueError(
            f"Invalid dtype for argument `{name}`. Expected integers. Received: {array.dtype.name}"
        )
    if array.shape != shape:
        raise ValueError(f"`{name}` must have shape {shape}. Received: shape {array.shape}")
    return np.ascontiguousarray(array, "int32" if array.dtype == "int32" else "int64")


def _address(array: np.ndarray | None) -> int | None:
    return None if array is None else array.ctypes.data


def _divergence_code(name: str) -> int:
    if name not in DIVERGENCES:
        raise ValueError(
            "Invalid value for argument `divergence`. Expected one of "
            f"{tuple(DIVERGENCES)}. Received: divergence={name}"
        )
    return DIVERGENCES[name].code


def _problem(
    student: np.ndarray,
    teacher: np.ndarray,
    soft: np.ndarray,
    slope: np.ndarray | None,
    **fields: Any,
) -> shared_library.Problem:
    """A `shared_library.Problem` on arrays, which must outlive it."""
    return shared_library.Problem(
        rows=soft.size,
        classes=student.shape[-1],
        student=_address(student),
        teacher=_address(teacher),
        student_type=_DTYPES.index(student.dtype.name),
        teacher_type=_DTYPES.index(teacher.dtype.name),
        soft=_address(soft),
        gradient=_address(slope),
        gradient_type=_DTYPES.index(student.dtype.name),
        **fields,
    )


def _call(function: Callable, problem: Any) -> None:
    message = ctypes.create_string_buffer(_MESSAGE_BYTES)
    if function(ctypes.byref(problem), message, _MESSAGE_BYTES):
        raise ValueError(message.value.decode())


def _run(
    student: Any,
    teacher: Any,
    labels: Any,
    temperature: float,
    divergence: str,
    mixing_weight: float,
    weights: tuple[Any, Any],
    gradient: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    student, teacher = _check_logits("student", student), _check_logits("teacher", teacher)
    if student.shape != teacher.shape:
        raise ValueError(
            "`student` and `teacher` must have the same shape. "
            f"Received: {student.shape} and {teacher.shape}"
        )
    shape = student.shape[:-1]
    labels = None if labels is None else _check_integers("labels", labels, shape)
    hard_weight, soft_weight = (_check_weights(weight, shape) for weight in weights)
    soft, hard = np.empty(shape, "float32"), np.empty(shape, "float32")
    slope = np.empty_like(student, order="C") if gradient else None
    problem = _problem(
        student,
        teacher,
        soft,
        slope,
        temperature=temperature,
        divergence=_divergence_code(divergence),
        mixing_weight=mixing_weight,
        labels=_address(labels),
        labels_are_int64=labels is not None and labels.dtype == "int64",
        soft_weight=_address(soft_weight),
        hard_weight=_address(hard_weight),
        hard=_address(hard),
    )
    _call(shared_library.load().keras_kd_losses, problem)
    return hard, soft, slope


def _apply_weight(soft: np.ndarray, sample_weight: Any) -> np.ndarray:
    if sample_weight is None:
        return soft
    weight = np.broadcast_to(np.asarray(sample_weight, "float32"), soft.shape)
    return np.where(weight == 0, np.float32(0), soft * weight)


def triad(a: np.ndarray, b: np.ndarray, out: np.ndarray, factor: float = 3.0) -> None:
    """`out = a + factor * b` on the kernels' threads: the memory yardstick of the benchmarks."""
    for array in (a, b, out):
        if array.dtype != np.float32 or not array.flags.c_contiguous or array.size != out.size:
            raise ValueError("triad takes three C-ordered float32 arrays of one size.")
    shared_library.load().keras_kd_triad(_address(a), _address(b), factor, _address(out), out.size)


def build_info() -> dict[str, Any]:
    """A dict: version, compiler, architecture, instruction sets built, ABI version."""
    return shared_library.build_info()


def instruction_sets() -> list[str]:
    """Names of the instruction sets this processor can execute, narrowest first."""
    return shared_library.load().keras_kd_instruction_sets().decode().split(",")


def instruction_set() -> str:
    """The name of the instruction set in use."""
    return shared_library.load().keras_kd_instruction_set().decode()


def set_instruction_set(name: str) -> None:
    """Chooses an instruction set by name, or the widest with `"auto"`."""
    if shared_library.load().keras_kd_set_instruction_set(name.encode()) != 0:
        raise ValueError(
            f"Invalid value for argument `name`. Expected one of {['auto', *instruction_sets()]}. "
            f"Received: name={name}"
        )


def num_threads() -> int:
    """How many threads a kernel may use, the caller's included."""
    return shared_library.load().keras_kd_num_threads()


def set_num_threads(threads: int) -> None:
    """Sets how many threads a kernel may use; 0 restores the default."""
    if threads < 0:
        raise ValueError(f"`threads` must not be negative. Received: threads={threads}")
    shared_library.load().keras_kd_set_num_threads(threads)

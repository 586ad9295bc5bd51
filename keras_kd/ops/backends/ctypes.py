"""The CPU kernels on NumPy arrays through ctypes: what `ops.numpy` uses where no module is.

`csrc/python` has the same functions in C++ for each Python whose headers were there, with the same
checks, messages and bits; `tests/ops/both_bindings.py` holds the two against each other. Arrays may
have any leading dimensions, strides and alignment; float32, float16 and bfloat16
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
    """See `keras_kd.ops.numpy.soft_target_loss`."""
    student, teacher = _check_logits("student", student), _check_logits("teacher", teacher)
    _check_same_shape(student, teacher)
    shape = student.shape[:-1]
    weight = _check_weights("sample_weight", sample_weight, shape)
    soft = np.empty(shape, "float32")
    problem = _problem(student, teacher, soft, temperature, divergence, mixing_weight, weight)
    slope = _empty_gradient(student, gradient)
    problem.gradient = _address(slope)
    _call(shared_library.load().keras_kd_losses, problem)
    soft = _apply_weight(soft, weight)
    return soft if slope is None else (soft, slope)


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
    """See `keras_kd.ops.numpy.sparse_soft_target_loss`."""
    student, teacher = _check_logits("student", student), _check_logits("teacher", teacher)
    shape = student.shape[:-1]
    if teacher.shape[:-1] != shape:
        raise ValueError(
            "`student` and `teacher` must have the same shape but for the classes. "
            f"Received: {student.shape} and {teacher.shape}"
        )
    indices = _check_integers("indices", indices, teacher.shape)
    tail = _plain(np.asarray(tail, "float32"), "float32")
    _check_shape("tail", tail, shape)
    weight = _check_weights("sample_weight", sample_weight, shape)
    soft = np.empty(shape, "float32")
    problem = shared_library.SparseProblem(
        dense=_problem(student, teacher, soft, temperature, divergence, mixing_weight, weight),
        kept=teacher.shape[-1],
        indices=_address(indices),
        indices_are_int64=indices.dtype == "int64",
        tail=_address(tail),
    )
    slope = _empty_gradient(student, gradient)
    problem.dense.gradient = _address(slope)
    _call(shared_library.load().keras_kd_sparse_losses, problem)
    soft = _apply_weight(soft, weight)
    return soft if slope is None else (soft, slope)


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
    """See `keras_kd.ops.numpy.hard_and_soft_loss`."""
    student, teacher = _check_logits("student", student), _check_logits("teacher", teacher)
    _check_same_shape(student, teacher)
    shape = student.shape[:-1]
    labels = _check_integers("labels", labels, shape)
    of_hard = _check_weights("hard_weight", hard_weight, shape)
    of_soft = _check_weights("soft_weight", soft_weight, shape)
    hard, soft = np.empty(shape, "float32"), np.empty(shape, "float32")
    problem = _problem(student, teacher, soft, temperature, divergence, mixing_weight, of_soft)
    problem.labels = _address(labels)
    problem.labels_are_int64 = labels.dtype == "int64"
    problem.hard_weight = _address(of_hard)
    problem.hard = _address(hard)
    slope = _empty_gradient(student, gradient)
    problem.gradient = _address(slope)
    _call(shared_library.load().keras_kd_losses, problem)
    return (hard, soft) if slope is None else (hard, soft, slope)


def _check_logits(name: str, array: Any) -> np.ndarray:
    array = np.asarray(array)
    if array.dtype.name not in _DTYPES:
        raise ValueError(
            f"Invalid dtype for argument `{name}`. Expected one of {_DTYPES}. "
            f"Received: {array.dtype.name}"
        )
    if array.ndim < 1:
        raise ValueError(f"`{name}` must have at least one dimension, the classes.")
    return _plain(array, array.dtype)


def _plain(array: np.ndarray, dtype: Any) -> np.ndarray:
    """As the kernels read it: C order, aligned to its element (not so in a packed record)."""
    dtype = np.dtype(dtype)
    if array.flags.c_contiguous and array.flags.aligned and dtype.isnative and array.dtype == dtype:
        return array  # np.require would say the same, 10 us later
    return np.require(array, dtype.newbyteorder("="), ["C", "A"])


def _check_weights(name: str, weight: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    if weight is None:
        return None
    weight = np.asarray(weight, "float32")
    ends = shape[len(shape) - weight.ndim :]
    if weight.ndim > len(shape) or any(
        size not in (1, end) for size, end in zip(weight.shape, ends, strict=True)
    ):
        raise ValueError(
            f"`{name}` must broadcast to shape {shape}. Received: shape {weight.shape}"
        )
    return _plain(np.broadcast_to(weight, shape), "float32")


def _check_shape(name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(f"`{name}` must have shape {shape}. Received: shape {array.shape}")


def _check_integers(name: str, array: Any, shape: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(array)
    if array.dtype.kind not in "iu":
        raise ValueError(
            f"Invalid dtype for argument `{name}`. Expected integers. Received: {array.dtype.name}"
        )
    _check_shape(name, array, shape)
    return _plain(array, "int32" if array.dtype == "int32" else "int64")


def _check_same_shape(student: np.ndarray, teacher: np.ndarray) -> None:
    if student.shape != teacher.shape:
        raise ValueError(
            "`student` and `teacher` must have the same shape. "
            f"Received: {student.shape} and {teacher.shape}"
        )


def _number(name: str, value: Any) -> float:
    try:
        return ctypes.c_float(value).value
    except TypeError:
        raise ValueError(
            f"Invalid value for argument `{name}`. Expected a number. Received: {name}={value!r}"
        ) from None


def _address(array: np.ndarray | None) -> int | None:
    return None if array is None else array.ctypes.data


def _divergence_code(name: Any) -> int:
    if not isinstance(name, str) or name not in DIVERGENCES:
        raise ValueError(
            "Invalid value for argument `divergence`. Expected one of "
            f"{tuple(DIVERGENCES)}. Received: divergence={name}"
        )
    return DIVERGENCES[name].code


def _problem(
    student: np.ndarray,
    teacher: np.ndarray,
    soft: np.ndarray,
    temperature: Any,
    divergence: Any,
    mixing_weight: Any,
    soft_weight: np.ndarray | None,
) -> shared_library.Problem:
    """A `shared_library.Problem` on arrays, which must outlive it."""
    return shared_library.Problem(
        rows=soft.size,
        classes=student.shape[-1],
        student=_address(student),
        teacher=_address(teacher),
        student_type=_DTYPES.index(student.dtype.name),
        teacher_type=_DTYPES.index(teacher.dtype.name),
        temperature=_number("temperature", temperature),
        divergence=_divergence_code(divergence),
        mixing_weight=_number("mixing_weight", mixing_weight),
        soft_weight=_address(soft_weight),
        soft=_address(soft),
        gradient_type=_DTYPES.index(student.dtype.name),
    )


def _empty_gradient(student: np.ndarray, is_wanted: Any) -> np.ndarray | None:
    return np.empty_like(student, order="C", subok=False) if is_wanted else None


def _call(function: Callable, problem: Any) -> None:
    message = ctypes.create_string_buffer(_MESSAGE_BYTES)
    if function(ctypes.byref(problem), message, _MESSAGE_BYTES):
        raise ValueError(message.value.decode())


def _apply_weight(soft: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
    """In place, so that a loss of no dimensions stays an array."""
    if weight is not None:
        with np.errstate(all="ignore"):  # the module is silent, too, where a product is too large
            np.multiply(soft, weight, out=soft)
        soft[weight == 0] = 0.0
    return soft


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

"""The losses on NumPy arrays: the fused CPU kernels, without TensorFlow operations or a session.

For other frameworks, for evaluation and for tests: whatever NumPy reads is taken (arrays of any
strides, memory maps, PyTorch's CPU tensors), and arrays come back. float32, float16 and bfloat16
(`ml_dtypes.bfloat16`) are computed in float32; nothing is copied but what does not lie in C order.
Several Python threads compute at once: the interpreter's lock is released.

The functions are C++ where this Python has the module `keras_kd._kernels`, and go through ctypes
where it has none: `binding()` says which, and `python -m keras_kd doctor` why. The numbers are the
same bits. The environment variable KERAS_KD_BINDING ("pybind11" or "ctypes") chooses one.

They are the native kernels or nothing: without the library there is an error, not plain NumPy.
"""

import functools
import operator
import os
from typing import Any

from keras_kd.ops.backends import ctypes, extension, shared_library

__all__ = [
    "binding",
    "hard_and_soft_loss",
    "num_threads",
    "set_num_threads",
    "soft_target_loss",
    "sparse_soft_target_loss",
]

VARIABLE = "KERAS_KD_BINDING"
BINDINGS = ("auto", "pybind11", "ctypes")


def soft_target_loss(
    student: Any,
    teacher: Any,
    temperature: float = 1.0,
    divergence: str = "forward_kl",
    mixing_weight: float = 0.5,
    sample_weight: Any = None,
    gradient: bool = False,
) -> Any:
    """Per-sample distance of softened student and teacher predictions, and its gradient.

    With `p = softmax(teacher / T)` and `q = softmax(student / T)`:

    - `"forward_kl"`: `T^2 KL(p || q) = T^2 sum p log(p / q)`
    - `"reverse_kl"`: `T^2 KL(q || p)`
    - `"jsd"`: `T^2 (w KL(p || m) + (1 - w) KL(q || m))`, `m = w p + (1 - w) q`

    It is `keras_kd.ops.soft_target_loss` on arrays.

    Args:
        student: Logits, `[..., num_classes]`, in float32, float16 or bfloat16.
        teacher: Logits of the same shape; its dtype may differ.
        temperature: Positive number `T`.
        divergence: `"forward_kl"`, `"reverse_kl"` or `"jsd"`.
        mixing_weight: The teacher's weight `w` in the mixture of `"jsd"`.
        sample_weight: Weights that broadcast to `[...]`. A row of weight zero is skipped: its loss
            and gradient are zero, whatever its logits are.
        gradient: Whether to return the gradient as well.

    Returns:
        The loss `[...]` in float32, times `sample_weight`; with `gradient=True` a pair of it and
        the gradient of its sum with respect to `student`, in the student's shape and dtype.

    Raises:
        ValueError: A shape, a dtype or a value is wrong; the message names it.
        RuntimeError: The native library is missing or broken; the message names the remedy.

    Example:

    ```python
    import numpy as np
    import keras_kd as kd

    student, teacher = np.random.normal(size=(2, 8, 100)).astype("float32")
    loss, gradient = kd.ops.numpy.soft_target_loss(student, teacher, 4.0, gradient=True)
    assert loss.shape == (8,) and gradient.shape == (8, 100)
    ```

    Reference:
        [Hinton et al., 2015](https://arxiv.org/abs/1503.02531),
        [Agarwal et al., 2024](https://arxiv.org/abs/2306.13649) (reverse KL and JSD)
    """
    return _functions().soft_target_loss(
        student, teacher, temperature, divergence, mixing_weight, sample_weight, gradient
    )


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
    """`soft_target_loss` where only the largest of the teacher's logits were kept.

    The divergence is that of `k + 1` classes: the kept ones, and one that pools all others, whose
    logits are `T log(sum of exp(s_j / T))` over them for the student and `T tail` for the teacher.
    It is `keras_kd.ops.sparse_soft_target_loss` on arrays.

    Args:
        student: Logits, `[..., num_classes]`, in float32, float16 or bfloat16.
        teacher: Logits of the kept classes, `[..., k]`; its dtype may differ.
        indices: Integers `[..., k]`: the kept classes, distinct in each row, in any order.
        tail: `[...]`: log of the sum of `exp(logit / temperature)` over the other classes; minus
            infinity where there are none.
        temperature: Positive number `T`.
        divergence: `"forward_kl"`, `"reverse_kl"` or `"jsd"`.
        mixing_weight: The teacher's weight in the mixture of `"jsd"`.
        sample_weight: Weights that broadcast to `[...]`; rows of weight zero are skipped.
        gradient: Whether to return the gradient as well.

    Returns:
        The loss `[...]` in float32, times `sample_weight`; with `gradient=True` a pair of it and
        the gradient of its sum with respect to `student`, in the student's shape and dtype.

    Raises:
        ValueError: A shape, a dtype or a value is wrong; the message names it.
        RuntimeError: The native library is missing or broken; the message names the remedy.

    Example:

    ```python
    import numpy as np
    import keras_kd as kd

    student, teacher = np.random.normal(size=(2, 8, 100)).astype("float32")
    order = np.argsort(-teacher, axis=-1)
    indices, others = order[:, :5], order[:, 5:]
    kept = np.take_along_axis(teacher, indices, axis=-1)
    rest = np.take_along_axis(teacher, others, axis=-1)
    tail = np.logaddexp.reduce(rest / 4.0, axis=-1)
    loss = kd.ops.numpy.sparse_soft_target_loss(student, kept, indices, tail, temperature=4.0)
    assert loss.shape == (8,)
    ```

    Reference:
        [Hinton et al., 2015](https://arxiv.org/abs/1503.02531)
    """
    return _functions().sparse_soft_target_loss(
        student,
        teacher,
        indices,
        tail,
        temperature,
        divergence,
        mixing_weight,
        sample_weight,
        gradient,
    )


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
    """Cross-entropy with labels and soft-target loss in one pass, and the gradient of their sum.

    `hard = -log softmax(student)[label]`, at temperature 1, and `soft` is `soft_target_loss`; the
    gradient is that of `sum(hard_weight * hard + soft_weight * soft)`, the sum of
    `keras_kd.ops.combined_loss`.

    Args:
        student: Logits, `[..., num_classes]`, in float32, float16 or bfloat16.
        teacher: Logits of the same shape; its dtype may differ.
        labels: Integers `[...]`, each at least 0 and below `num_classes`.
        temperature: Positive number `T`.
        divergence: `"forward_kl"`, `"reverse_kl"` or `"jsd"`.
        mixing_weight: The teacher's weight in the mixture of `"jsd"`.
        hard_weight: Weights that broadcast to `[...]`; where zero the label is ignored.
        soft_weight: Weights that broadcast to `[...]`; where zero the teacher is ignored.
        gradient: Whether to return the gradient as well.

    Returns:
        The hard and the soft loss, both `[...]` in float32 and without the weights (zero where a
        row's weights are zero); with `gradient=True` also the gradient with respect to `student`,
        in its shape and dtype.

    Raises:
        ValueError: A shape, a dtype or a value is wrong, a label is out of range; the message names
            it.
        RuntimeError: The native library is missing or broken; the message names the remedy.

    Example:

    ```python
    import numpy as np
    import keras_kd as kd

    student, teacher = np.random.normal(size=(2, 8, 100)).astype("float32")
    labels = np.arange(8)
    hard, soft, gradient = kd.ops.numpy.hard_and_soft_loss(
        student, teacher, labels, temperature=4.0, hard_weight=0.1, soft_weight=0.9, gradient=True
    )
    assert hard.shape == soft.shape == (8,) and gradient.shape == (8, 100)
    ```

    Reference:
        [Hinton et al., 2015](https://arxiv.org/abs/1503.02531)
    """
    return _functions().hard_and_soft_loss(
        student,
        teacher,
        labels,
        temperature,
        divergence,
        mixing_weight,
        hard_weight,
        soft_weight,
        gradient,
    )


def binding() -> str:
    """How the functions of this module reach the kernels.

    Returns:
        `"pybind11"`: the module `keras_kd._kernels`. `"ctypes"`: this Python has no such module, or
        KERAS_KD_BINDING asks for ctypes.

    Raises:
        ValueError: KERAS_KD_BINDING has an invalid value.
        RuntimeError: The native library is missing or broken, or KERAS_KD_BINDING asks for a
            module that is not there.
    """
    return "ctypes" if _functions() is ctypes else "pybind11"


def num_threads() -> int:
    """How many threads a call may use, the caller's included.

    Returns:
        The number that KERAS_KD_NUM_THREADS or `set_num_threads` gave, else that of the processors
        this process may run on. It holds for the TensorFlow operations too.
    """
    return shared_library.load().keras_kd_num_threads()


def set_num_threads(threads: int) -> None:
    """Sets how many threads a call may use, of the TensorFlow operations too.

    Without it TensorFlow's own number, `tf.config.threading`, holds from the first operation on.

    Args:
        threads: A number, the caller's thread included; 0 restores the default.

    Returns:
        Nothing.

    Raises:
        ValueError: `threads` is negative, or larger than 2147483647.

    Example:

    ```python
    import keras_kd as kd

    kd.ops.numpy.set_num_threads(1)
    assert kd.ops.numpy.num_threads() == 1
    kd.ops.numpy.set_num_threads(0)
    ```
    """
    wanted = operator.index(threads)
    if not 0 <= wanted < 2**31:
        raise ValueError(
            "Invalid value for argument `threads`. Expected a number of threads, or 0 for the "
            f"default. Received: threads={wanted}"
        )
    shared_library.choose_threads(wanted)


@functools.cache
def _functions() -> Any:
    """The module `_kernels`, or `ctypes`: chosen at the first call, for as long as the process."""
    wanted = os.environ.get(VARIABLE, BINDINGS[0])
    if wanted not in BINDINGS:
        raise ValueError(
            f"Invalid value for environment variable {VARIABLE}. Expected one of {BINDINGS}. "
            f"Received: {wanted!r}"
        )
    shared_library.load()
    if wanted == "ctypes":
        return ctypes
    if wanted == "pybind11":
        try:
            return extension.load()
        except shared_library.LibraryError as error:
            raise shared_library.LibraryError(
                f"{VARIABLE}=pybind11 cannot be had. {error}"
            ) from error
    return ctypes if extension.unavailable() else extension.load()

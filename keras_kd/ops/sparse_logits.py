"""Sparse teachers: their largest logits, the other classes pooled, and their soft-target loss."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_kd.ops import arguments, dispatch
from keras_kd.ops.dense import differentiable_loss

# At which temperatures the log-sum-exp of the remaining classes is kept. Between them it is
# interpolated: the relative error of their sum is below 2e-3 (measured on normal and heavy-tailed
# logits, 100 to 32000 classes, T >= 0.5).
TEMPERATURES = (0.5, 2**-0.5, 1.0, 2**0.5, 2.0, 8**0.5, 4.0, 32**0.5, 8.0, 128**0.5, 16.0, np.inf)
# The same as 1 / T, ascending, because the logarithm of the mass is a smooth function of it.
_INVERSE = np.array(sorted(1.0 / temperature for temperature in TEMPERATURES), "float32")
# A logit this far below the largest of the rest counts as having no probability: at T = 16 its
# share is below e^-40, which float32 loses. Masks (-1e9) thus do not bend what lies beyond T = 16.
FLOOR = -40.0 * 16.0
# About how many logits are processed at once: with all that is made of them they stay in a
# processor's cache. One row of a vocabulary takes a fifth less time than eight.
_BLOCK = 1 << 15
# The largest are looked for among the groups of this many logits with the largest maxima.
_GROUP = 16


@dataclasses.dataclass
class SparseLogits:
    """A teacher's largest logits one by one, and the log-sum-exp of its other classes.

    Attributes:
        logits: The `k` largest logits minus the largest, `[..., k]`.
        indices: Their classes, `[..., k]`, int32.
        levels: `log sum exp(z / T)` over the other classes, `z` minus the largest too, at each
            of `TEMPERATURES`, the highest first: `[..., len(TEMPERATURES)]`, float32.
        slopes: Its slope by `1 / T`, of the same shape.
    """

    logits: Any
    indices: Any
    levels: Any
    slopes: Any

    def detached(self) -> "SparseLogits":
        """The same without a gradient."""
        return SparseLogits(**{name: tf.stop_gradient(value) for name, value in vars(self).items()})

    def rest(self, temperature: tf.Tensor) -> tf.Tensor:
        """`log sum exp(z / T)` over the classes that are not kept, `[...]`.

        A cubic in `1 / T` through the levels and slopes on both sides. NaN below the smallest of
        `TEMPERATURES`, where nothing is known.

        Args:
            temperature: `T`, a float32 scalar.
        """
        inverse = 1.0 / tf.cast(temperature, tf.float32)
        last = len(_INVERSE) - 2
        i = tf.minimum(tf.reduce_sum(tf.cast(inverse >= _INVERSE, tf.int32)) - 1, last)
        width = tf.gather(_INVERSE, i + 1) - tf.gather(_INVERSE, i)
        u = (inverse - tf.gather(_INVERSE, i)) / width
        left, right = (tf.gather(self.levels, i + side, axis=-1) for side in (0, 1))
        rise, fall = (width * tf.gather(self.slopes, i + side, axis=-1) for side in (0, 1))
        v = 1.0 - u
        level = (1.0 + 2.0 * u) * v * v * left + u * u * (3.0 - 2.0 * u) * right
        level += u * v * (v * rise - u * fall)
        # The curve is convex: it lies above its tangents and below its chord.
        level = tf.maximum(level, tf.maximum(left + u * rise, right - v * fall))
        level = tf.minimum(level, v * left + u * right)
        level = tf.where(tf.math.is_inf(left), left, level)  # no other class has any mass
        return tf.where(u <= 1.0, level, np.nan)


def keep_largest(logits: tf.Tensor, k: int, from_logits: bool = True) -> SparseLogits:
    """The `k` largest logits and the log-sum-exp of the remaining classes.

    Args:
        logits: `[..., classes]`.
        k: How many are kept, at most the number of classes.
        from_logits: `False`: they are probabilities; their logarithms are kept.

    Returns:
        `SparseLogits` in float32. Logits of -inf are classes without probability. A row with NaN
        has NaN among its logits or levels.
    """
    types = (tf.float32, tf.int32, tf.float32, tf.float32)
    widths = (k, k, len(_INVERSE), len(_INVERSE))
    keep = functools.partial(_keep_largest_of_rows, k=k)
    return SparseLogits(*by_blocks(keep, logits, types, widths, from_logits))


def by_blocks(
    of_rows: Callable[[tf.Tensor], Sequence[tf.Tensor]],
    logits: tf.Tensor,
    types: Sequence[tf.DType],
    widths: Sequence[int],
    from_logits: bool = True,
) -> list[tf.Tensor]:
    """What a function makes of rows of logits, some rows at a time.

    A language model's logits are never copied as a whole, in any dtype.

    Args:
        of_rows: From float32 logits `[rows, classes]` to tensors `[rows, width]`.
        logits: `[..., classes]`.
        types: The types of those tensors.
        widths: Their widths.
        from_logits: `False`: the function gets the logarithms of `logits`.

    Returns:
        Tensors `[..., width]`.
    """
    classes = logits.shape[-1]
    flat = tf.reshape(logits, [-1, classes])
    size = max(1, _BLOCK // classes)
    count = tf.maximum(1, -(-tf.shape(flat)[0] // size))
    arrays = [tf.TensorArray(dtype, count, infer_shape=False) for dtype in types]

    def step(i: tf.Tensor, arrays: list[tf.TensorArray]) -> tuple[tf.Tensor, list[tf.TensorArray]]:
        block = tf.cast(flat[i * size : (i + 1) * size], tf.float32)
        parts = of_rows(block if from_logits else tf.math.log(block))
        return i + 1, [array.write(i, part) for array, part in zip(arrays, parts, strict=True)]

    _, arrays = tf.while_loop(lambda i, _: i < count, step, (0, arrays), parallel_iterations=2)
    return [at_positions(x.concat(), w, logits) for x, w in zip(arrays, widths, strict=True)]


def at_positions(rows: tf.Tensor, width: int, of: tf.Tensor) -> tf.Tensor:
    """`[rows, width]` as `[..., width]`, with the positions of a tensor `[..., any]`."""
    shape = tf.concat([tf.shape(of)[:-1], [width]], axis=0)
    return tf.ensure_shape(tf.reshape(rows, shape), [*of.shape[:-1], width])


def _keep_largest_of_rows(
    logits: tf.Tensor, k: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """The fields of `SparseLogits` for logits `[rows, classes]`."""
    values, indices = top_k(logits, k)
    kept = _positions(indices)
    rest = tf.tensor_scatter_nd_update(logits, kept, tf.fill(tf.shape(kept)[:1], -np.inf))
    top = tf.reduce_max(rest, axis=-1, keepdims=True)
    exists = tf.math.is_finite(top) | tf.math.is_nan(top)
    # With the largest of the rest at 0 each sum has a term of 1: nothing underflows as a whole.
    centered = tf.maximum(rest - tf.where(exists, top, 0.0), FLOOR)
    totals, slopes = _sums(centered)
    shift = tf.where(exists, top - values[:, :1], 0.0)
    levels = tf.where(exists, tf.math.log(totals) + shift * _INVERSE, -np.inf)
    slopes = tf.where(exists, slopes / totals + shift, 0.0)
    return values - values[:, :1], indices, levels, slopes


def top_k(logits: tf.Tensor, k: int) -> tuple[tf.Tensor, tf.Tensor]:
    """`tf.math.top_k` of rows, several times as fast where there are many classes.

    The k largest are in the k groups with the largest maxima: in others each is below k maxima.
    """
    groups = -(-logits.shape[-1] // _GROUP)
    if 8 * k > groups:
        return tf.math.top_k(logits, k)
    missing = groups * _GROUP - logits.shape[-1]
    if missing:  # the first of equal logits are kept, so that these never are
        logits = tf.pad(logits, [[0, 0], [0, missing]], constant_values=-np.inf)
    grouped = tf.reshape(logits, [-1, groups, _GROUP])
    _, chosen = tf.math.top_k(tf.reduce_max(grouped, axis=-1), k, sorted=False)
    chosen = tf.sort(chosen, axis=-1)  # of equal logits the first ones are kept
    within = tf.reshape(tf.gather(grouped, chosen, batch_dims=1), [-1, k * _GROUP])
    values, at = tf.math.top_k(within, k)
    return values, tf.gather(chosen, at // _GROUP, batch_dims=1) * _GROUP + at % _GROUP


def _positions(indices: tf.Tensor) -> tf.Tensor:
    rows, k = tf.shape(indices)[0], tf.shape(indices)[1]
    return tf.stack([tf.repeat(tf.range(rows), k), tf.reshape(indices, [-1])], axis=-1)


def _sums(centered: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The sums of `exp(z / T)` and of `z exp(z / T)`, each `[rows, len(TEMPERATURES)]`.

    The temperatures halve in two series, from 16 and from 16 / sqrt(2) on. Half the temperature is
    the square of the exponential: of eleven two are computed as such.
    """
    exists = tf.cast(centered > FLOOR, tf.float32)
    finite = len(_INVERSE) - 1
    masses = [exists] + [tf.exp(centered * inverse) for inverse in _INVERSE[1:3]]
    while len(masses) <= finite:
        masses.append(tf.square(masses[-2]))
    totals = [tf.reduce_sum(mass, axis=-1) for mass in masses]
    slopes = [tf.reduce_sum(mass * centered, axis=-1) for mass in masses]
    return tf.stack(totals, axis=-1), tf.stack(slopes, axis=-1)


@tf.autograph.experimental.do_not_convert
def sparse_soft_target_loss(
    student_logits: Any,
    teacher_logits: Any,
    teacher_indices: Any,
    teacher_tail: Any,
    temperature: Any = 1.0,
    divergence: str = "forward_kl",
    *,
    mixing_weight: float = 0.5,
    sample_weight: Any = None,
    reduction: str | None = None,
    differentiable: bool = True,
) -> tf.Tensor:
    """`soft_target_loss` for a sparse teacher: its k largest logits, and the other classes pooled.

    For teachers whose outputs were stored: 64 logits and int32 indices take 0.6 % of 32000 classes
    in bfloat16. The divergence is that of `k + 1` classes: the kept ones `K`, and all others pooled
    into one, whose logits are

    - `T log sum_{j not in K} exp(student_logits_j / T)` for the student,
    - `T teacher_tail` for the teacher.

    It is never larger than the divergence of all classes, and equal to it where student and teacher
    distribute the rest alike. The gradient of a kept class is that of the pooled problem, for the
    forward KL divergence exactly the full one, `T (q_k - p_k)`; that of another class is the pooled
    class's, times the class's share of the student's probability there: how the rest is distributed
    is left to the student. Loss and gradient come out of one sweep over the student's logits.

    Args:
        student_logits: Unnormalized log-probabilities, shape `[..., num_classes]`, float32,
            bfloat16 or float16 (float64 is cast to float32).
        teacher_logits: The kept classes' logits up to a constant per sample, shape `[..., k]` with
            k from 1 to num_classes; any of those dtypes. No gradient flows to it.
        teacher_indices: Which classes those are: integers of the same shape, distinct in each
            sample, at least 0 and below num_classes, in any order.
        teacher_tail: Shape `[...]`, taken as float32: natural logarithm of the sum of
            `exp(logit / T)` over the teacher's other classes, where `logit` has the same constant
            as `teacher_logits`, and `T` is `temperature`. -inf: they have no probability. Ignored
            where all classes are kept.
        temperature: `T`, a positive number or a scalar tensor or variable; no gradient flows to
            it. The tail belongs to one temperature.
        divergence: `"forward_kl"`, `"reverse_kl"` or `"jsd"`; see `soft_target_loss`.
        mixing_weight: `w`, the teacher's weight in the mixture of `"jsd"`, between 0 and 1.
        sample_weight: Broadcastable to `[...]`; multiplies the loss. Samples of weight zero are
            skipped: their loss and gradient are zero whatever they hold, bad indices included.
        reduction: `None`, `"sum"` or `"mean"`; see `soft_target_loss`.
        differentiable: `False` computes the loss only.

    Returns:
        The loss, float32, shape `[...]`, or a scalar where it is reduced.

    Raises:
        ValueError: Shapes, dtypes, temperature or divergence are not as described.
        tf.errors.InvalidArgumentError: An index is out of range, or occurs twice in a sample; the
            message names it and its row. Plain TensorFlow inside XLA cannot raise, and makes that
            sample NaN.

    Example:

    ```python
    import tensorflow as tf
    import keras_kd as kd

    student, teacher = tf.random.normal([2, 8, 100])
    logits, indices = tf.math.top_k(teacher, k=5)  # to be stored, with the tail
    others = tf.tensor_scatter_nd_update(
        teacher,
        tf.stack([tf.repeat(tf.range(8)[:, None], 5, axis=1), indices], axis=-1),
        tf.fill([8, 5], -float("inf")),
    )
    tail = tf.reduce_logsumexp(others / 4.0, axis=-1)
    loss = kd.ops.sparse_soft_target_loss(student, logits, indices, tail, temperature=4.0)
    assert tf.reduce_all(loss <= kd.ops.soft_target_loss(student, teacher, 4.0) + 1e-4)
    ```

    Reference: Anshumann et al., "Sparse Logit Sampling: Accelerating Knowledge Distillation in
    LLMs", https://arxiv.org/abs/2503.16870 (what is lost by keeping only the largest)
    """
    student, teacher, indices, tail = arguments.convert_sparse_teacher(
        student_logits, teacher_logits, teacher_indices, teacher_tail
    )
    divergence, mixing_weight = arguments.check_divergence(divergence, mixing_weight)
    temperature = arguments.convert_temperature(temperature)
    weight = arguments.convert_weight("sample_weight", sample_weight, student)
    weight = arguments.weight_of_reduction(reduction, weight, student)

    tensors = {
        "student": student,
        "teacher": teacher,
        "indices": indices,
        "tail": tail,
        "temperature": temperature,
        "soft_weight": weight,
    }
    return differentiable_loss(
        "sparse_soft_target_loss",
        _compute_sparse,
        tensors,
        reduction=reduction,
        divergence=divergence,
        mixing_weight=mixing_weight,
        with_gradient=bool(differentiable),
    )


def _compute_sparse(**fields: Any) -> tuple[tf.Tensor, tf.Tensor]:
    return dispatch.compute_sparse(arguments.SparseProblem(**fields))

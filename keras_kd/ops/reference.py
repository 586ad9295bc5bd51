"""The kernels' specification in plain TensorFlow: the fallback, and what kernels must reproduce.

With `p = softmax(teacher / T)`, `q = softmax(student / T)` and `d = log p - log q`:

| divergence | loss / T^2 | gradient / T |
|---|---|---|
| `forward_kl` | `KL(p, q) = sum p (d + expm1(-d))` | `q - p` |
| `reverse_kl` | `R = sum q (-d + expm1(d))` | `q (-d - R)` |
| `jsd` | `w A + (1 - w) B` | `(1 - w) q (log(q / m) - B)` |

where `m = w p + (1 - w) q`, `A = KL(p, m)`, `B = KL(q, m)`. `sum p (d + expm1(-d))` is the KL
divergence because probabilities sum to one; unlike `sum p d` none of its terms is a difference of
large numbers, so it is right when student and teacher nearly agree, where training ends.

The loss of a sparse teacher (`compute_sparse`) is the dense one of `k + 1` classes: those that the
teacher kept, and all others pooled. The pooled class's logit, `T log sum exp(s_j / T)`, is taken
with the largest of the others, so that it is right however little they have. Another class's slope
is its share of the pooled one's.
"""

import tensorflow as tf

from keras_kd.ops import arguments
from keras_kd.ops.arguments import Problem, SparseProblem

# Below this |d| the series of d + expm1(-d) is used; above, the direct form has no cancellation.
_SMALL = 0.5
# Rows with larger logits are centered first: differences may overflow.
_HUGE = 65536.0
# A sparse row whose largest logit is at least this many temperatures loses it as an offset.
_FAR_OFFSET = 64.0
# This many temperatures below 0, and so at least 64 below the largest logit, the teacher's pooled
# class has no probability, and the rounding of its logit does not count: a logit of -1e9, where all
# other classes are masked, loses 32, which made a loss of 10 one of 76.
_NO_MASS = 2 * _FAR_OFFSET


def compute(problem: Problem) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Computes the losses and the gradient.

    Args:
        problem: An `arguments.Problem`.

    Returns:
        `(hard, soft, gradient)`: the losses `[...]` in float32 without their weights (`hard` is
        zeros without labels) and the gradient of `sum(hard_weight hard + soft_weight soft)`
        (empty without `with_gradient`). Rows of weight zero are exactly zero.
    """
    temperature = problem.temperature
    student, teacher = (
        Softmax(problem.student, temperature),
        Softmax(problem.teacher, temperature),
    )
    divergence, slope = _DIVERGENCES[problem.divergence](
        teacher, student, _log_ratio(teacher, student, temperature), problem.mixing_weight
    )
    soft = arguments.temperature_squared(temperature) * divergence
    soft = _zero_where_weightless(problem.soft_weight, soft)
    gradient = _scale_slope(problem.soft_weight, temperature * slope)
    hard = tf.zeros_like(soft)
    if problem.labels is not None:
        hard, hard_slope = _cross_entropy(problem, student)
        hard = _zero_where_weightless(problem.hard_weight, hard)
        gradient += _scale_slope(problem.hard_weight, hard_slope)
    if not problem.with_gradient:
        gradient = tf.zeros([0])
    return hard, soft, tf.cast(gradient, problem.gradient_dtype)


class Softmax:
    """Softmax of one model's logits at a temperature, and its parts."""

    def __init__(self, logits: tf.Tensor, temperature: tf.Tensor) -> None:
        self.logits = tf.cast(logits, tf.float32)
        self.largest = tf.reduce_max(self.logits, axis=-1, keepdims=True)
        self.centered = self.logits - self.largest
        exponentials = tf.exp(self.centered / temperature)
        self.sum = tf.reduce_sum(exponentials, axis=-1, keepdims=True)
        self.probabilities = exponentials / self.sum


def _log_ratio(teacher: Softmax, student: Softmax, temperature: tf.Tensor) -> tf.Tensor:
    """log p - log q, from the logits' differences without their rounding.

    Where the models nearly agree apart from an offset, the rounding of `t - s` would be all that
    is left.
    """
    high, low = _exact_difference(teacher.logits, student.logits)
    offset, offset_low = _exact_difference(teacher.largest, student.largest)
    close = (high - offset) + (low - offset_low)
    huge = (tf.abs(teacher.largest) > _HUGE) | (tf.abs(student.largest) > _HUGE)
    difference = tf.where(huge, teacher.centered - student.centered, close)
    return difference / temperature + tf.math.log(student.sum / teacher.sum)


def _exact_difference(t: tf.Tensor, s: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """`t - s` as an unevaluated sum of two floats (Knuth), the second zero beside infinities."""
    high = t - s
    s_part = high - t
    low = (t - (high - s_part)) - (s + s_part)
    return high, tf.where(tf.math.is_nan(low), tf.zeros_like(low), low)


def _small_kl_term(d: tf.Tensor) -> tf.Tensor:
    """d + expm1(-d) for small |d|."""
    terms = 1 / 2 + d * (-1 / 6 + d * (1 / 24 + d * (-1 / 120 + d * (1 / 720 - d / 5040))))
    return d * d * terms


def _kl_terms(a: tf.Tensor, b: tf.Tensor, d: tf.Tensor) -> tf.Tensor:
    """Each class's share of KL(a, b), d = log a - log b; zero where both are zero."""
    far = (b - a) + tf.where(a > 0, a * d, tf.zeros_like(a))
    return tf.where(tf.abs(d) < _SMALL, a * _small_kl_term(d), far)


def _sum_classes(terms: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(terms, axis=-1)


def _centered_slope(q: tf.Tensor, score: tf.Tensor, mean: tf.Tensor) -> tf.Tensor:
    """The gradient q (score - mean), zero where there is no probability."""
    return tf.where(q == 0, tf.zeros_like(q), q * (score - mean[..., None]))


def _forward_kl(
    teacher: Softmax, student: Softmax, d: tf.Tensor, mixing_weight: float
) -> tuple[tf.Tensor, tf.Tensor]:
    del mixing_weight
    p, q = teacher.probabilities, student.probabilities
    return _sum_classes(_kl_terms(p, q, d)), q - p


def _reverse_kl(
    teacher: Softmax, student: Softmax, d: tf.Tensor, mixing_weight: float
) -> tuple[tf.Tensor, tf.Tensor]:
    del mixing_weight
    p, q = teacher.probabilities, student.probabilities
    divergence = _sum_classes(_kl_terms(q, p, -d))
    return divergence, _centered_slope(q, -d, divergence)


def _entropy_terms(x: tf.Tensor) -> tf.Tensor:
    """(1 + x) log(1 + x) - x, by its series near zero."""
    series = tf.zeros_like(x)
    for power in range(7, -1, -1):
        series = series * x + (-1.0) ** power / ((power + 1) * (power + 2))
    far = tf.math.multiply_no_nan(tf.math.log(tf.maximum(1 + x, 1e-37)), tf.maximum(1 + x, 0)) - x
    return tf.where(tf.abs(x) < 0.1, x * x * series, far)


def _jensen_shannon(
    teacher: Softmax, student: Softmax, d: tf.Tensor, w: float
) -> tuple[tf.Tensor, tf.Tensor]:
    p, q = teacher.probabilities, student.probabilities
    # p - q from d where they are close, where the subtraction would cancel.
    difference = tf.where(tf.abs(d) < _SMALL, p * (d - _small_kl_term(d)), p - q)
    m = w * p + (1 - w) * q
    share = tf.where(m == 0, tf.zeros_like(m), difference / m)
    x, y = (1 - w) * share, -w * share
    from_teacher = _sum_classes(m * _entropy_terms(x))
    from_student = _sum_classes(m * _entropy_terms(y))
    score = tf.math.log(tf.maximum(1 + y, 1e-37))
    slope = (1 - w) * _centered_slope(q, score, from_student)
    return w * from_teacher + (1 - w) * from_student, slope


# By the names of `arguments.DIVERGENCES`: the loss without `T^2`, and its slope without `T`.
_DIVERGENCES = {"forward_kl": _forward_kl, "reverse_kl": _reverse_kl, "jsd": _jensen_shannon}


def _cross_entropy(problem: Problem, student: Softmax) -> tuple[tf.Tensor, tf.Tensor]:
    """Cross-entropy at T = 1 and its gradient; NaN where a label is out of range."""
    classes = tf.shape(problem.student)[-1]
    labels = tf.cast(problem.labels, tf.int64)
    inside = (labels >= 0) & (labels < tf.cast(classes, tf.int64))
    one_hot = tf.one_hot(labels, classes)
    exponentials = tf.exp(student.centered)
    total = tf.reduce_sum(exponentials, axis=-1, keepdims=True)
    picked = tf.reduce_sum(
        tf.where(one_hot > 0, student.centered, tf.zeros_like(student.centered)), axis=-1
    )
    loss = tf.math.log(total[..., 0]) - picked
    nan = tf.constant(float("nan"))
    slope = tf.where(inside[..., None], exponentials / total - one_hot, nan)
    return tf.where(inside, loss, nan), slope


def _zero_where_weightless(weight: tf.Tensor | None, loss: tf.Tensor) -> tf.Tensor:
    """The loss without its weight, but zero in rows of weight zero."""
    return loss if weight is None else tf.where(weight == 0, tf.zeros_like(loss), loss)


def _scale_slope(weight: tf.Tensor | None, slope: tf.Tensor) -> tf.Tensor:
    """The gradient times its weight; zero in rows of weight zero, whatever it holds."""
    if weight is None:
        return slope
    weight = weight[..., None]
    return tf.where(weight == 0, tf.zeros_like(slope), weight * slope)


def _check_labels(problem: Problem) -> tf.Operation | None:
    """An assertion that names the first label out of range; not for XLA, which has no strings."""
    classes = tf.shape(problem.student, out_type=tf.int64)[-1]
    labels = tf.cast(problem.labels, tf.int64)
    wrong = _ignore_weightless(problem.hard_weight, (labels < 0) | (labels >= classes))
    return _assert_none(
        wrong[..., None],
        labels[..., None],
        "Label {} at row {} is out of range: expected 0 <= label < {}, the number of classes.",
        classes,
    )


def _ignore_weightless(weight: tf.Tensor | None, wrong: tf.Tensor) -> tf.Tensor:
    """Rows that are wrong, except those of weight zero, which are never read."""
    return wrong if weight is None else wrong & (weight != 0)


def _assert_none(
    wrong: tf.Tensor, values: tf.Tensor, message: str, *more: tf.Tensor
) -> tf.Operation | None:
    """An assertion that no entry of `wrong` `[..., n]` is true.

    The message is filled with the first wrong one of the `values`, `[..., n]`, its row and `more`.
    """
    n = tf.shape(wrong, out_type=tf.int64)[-1]
    flat = tf.reshape(wrong, [-1])
    places = tf.range(tf.size(flat, tf.int64))
    first = tf.reduce_min(tf.where(flat, places, tf.int64.max))
    value = tf.reduce_sum(tf.where(places == first, tf.reshape(values, [-1]), 0))
    row = first // tf.maximum(n, 1)
    return tf.debugging.Assert(
        ~tf.reduce_any(wrong), [tf.strings.format(message, (value, row, *more))]
    )


def _check_temperature(problem: Problem) -> tf.Operation | None:
    """An assertion that the temperature tensor is positive and finite."""
    value = problem.temperature
    message = tf.strings.format(
        "Invalid value for argument `temperature`. Expected a positive, finite number. "
        "Received: temperature={}",
        value,
    )
    return tf.debugging.Assert((value > 0) & tf.math.is_finite(value), [message])


def compute_checked(problem: Problem) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """`compute`, after the checks that need the values of the tensors."""
    checks = [_check_temperature(problem)]
    if problem.labels is not None:
        checks.append(_check_labels(problem))
    with tf.control_dependencies([check for check in checks if check is not None]):
        return tuple(tf.identity(output) for output in compute(problem))


def scale(gradient: tf.Tensor, upstream: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """`gradient * upstream[..., None]` in the student's dtype, multiplied in float32."""
    scaled = tf.cast(gradient, tf.float32) * tf.cast(upstream, tf.float32)[..., None]
    return tf.cast(scaled, dtype)


def compute_sparse(problem: SparseProblem) -> tuple[tf.Tensor, tf.Tensor]:
    """Computes the loss and the gradient.

    Args:
        problem: An `arguments.SparseProblem`.

    Returns:
        `(soft, gradient)`, as `reference.compute` returns them. A row whose indices are out of
        range or not distinct is NaN.
    """
    indices, good = _usable_indices(problem)
    kept, rest, share = _pool_student(problem, indices)
    student, rest = _center_sparse(problem, kept, rest)
    teacher, tail = _center_sparse(problem, problem.teacher, _teacher_tail(problem))
    _, soft, slope = compute(
        arguments.Problem(
            student,
            teacher,
            problem.temperature,
            divergence=problem.divergence,
            mixing_weight=problem.mixing_weight,
        )
    )
    has_mass = tail > -_NO_MASS * _wide_temperature(problem)
    lost = _rounding_error(rest) - tf.where(has_mass, _rounding_error(tail), 0.0)
    soft = _correct_rounding(soft, slope[..., -1], lost[..., 0])
    soft = _zero_where_weightless(problem.soft_weight, tf.where(good, soft, float("nan")))
    if not problem.with_gradient:
        return soft, tf.zeros([0], problem.gradient_dtype)
    gradient = _scatter(slope[..., -1:] * share, indices, slope[..., :-1])
    gradient = tf.where(good[..., None], gradient, float("nan"))
    gradient = _scale_slope(problem.soft_weight, gradient)
    return soft, tf.cast(gradient, problem.gradient_dtype)


def _usable_indices(problem: SparseProblem) -> tuple[tf.Tensor, tf.Tensor]:
    """Indices that can be used, int32, and the rows where they are the given ones."""
    inside = _inside(problem)
    indices = tf.cast(tf.where(inside, problem.indices, 0), tf.int32)
    ordered = tf.sort(indices, axis=-1)
    distinct = tf.reduce_all(ordered[..., 1:] != ordered[..., :-1], axis=-1)
    return indices, tf.reduce_all(inside, axis=-1) & distinct


def _inside(problem: SparseProblem) -> tf.Tensor:
    classes = tf.shape(problem.student, problem.indices.dtype)[-1]
    return (problem.indices >= 0) & (problem.indices < classes)


def _pool_student(
    problem: SparseProblem, indices: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The kept logits, the pooled logit in float64 and each class's share of the pooled one."""
    kept = tf.gather(problem.student, indices, axis=-1, batch_dims=indices.shape.rank - 1)
    nothing = tf.fill(tf.shape(indices), -float("inf"))
    others = Softmax(
        _scatter(tf.cast(problem.student, tf.float32), indices, nothing), problem.temperature
    )
    empty = tf.reduce_all(tf.math.is_inf(others.logits) & (others.logits < 0), -1, keepdims=True)
    wide = tf.cast(others.largest, tf.float64)
    logit = wide + _wide_temperature(problem) * tf.math.log(tf.cast(others.sum, tf.float64))
    share = tf.where(empty, tf.zeros_like(others.logits), others.probabilities)
    return kept, tf.where(empty, tf.constant(-float("inf"), tf.float64), logit), share


def _teacher_tail(problem: SparseProblem) -> tf.Tensor:
    """The teacher's pooled logit in float64; -inf where no class is left to pool."""
    none_left = tf.shape(problem.teacher)[-1] == tf.shape(problem.student)[-1]
    tail = tf.where(none_left, -float("inf"), problem.tail)
    return (_wide_temperature(problem) * tf.cast(tail, tf.float64))[..., None]


def _center_sparse(
    problem: SparseProblem, kept: tf.Tensor, pooled: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """The coarse row in float32 and its pooled logit in float64, without a large common offset.

    Rounding the pooled logit with an offset of 10,000 would cost 5e-4. Centering rounds only logits
    that are not within half and twice the largest: 32 temperatures below it, exp(-32).
    """
    wide = tf.cast(kept, tf.float64)
    largest = tf.maximum(tf.reduce_max(wide, axis=-1, keepdims=True), pooled)
    is_far = tf.abs(largest) > _FAR_OFFSET * _wide_temperature(problem)
    offset = tf.where(is_far & tf.math.is_finite(largest), largest, 0.0)
    pooled -= offset
    return tf.concat([_round(wide - offset), _round(pooled)], axis=-1), pooled


def _wide_temperature(problem: SparseProblem) -> tf.Tensor:
    return tf.cast(problem.temperature, tf.float64)


def _scatter(values: tf.Tensor, indices: tf.Tensor, updates: tf.Tensor) -> tf.Tensor:
    """`values` `[..., num_classes]` with `updates` `[..., k]` at `indices` of the last axis."""
    shape, classes, kept = tf.shape(values), tf.shape(values)[-1], tf.shape(indices)[-1]
    rows = tf.reduce_prod(shape[:-1])
    numbers = tf.repeat(tf.range(rows), kept)
    places = tf.stack([numbers, tf.reshape(indices, [-1])], axis=-1)
    flat = tf.reshape(values, tf.stack([rows, classes]))
    flat = tf.tensor_scatter_nd_update(flat, places, tf.reshape(updates, [-1]))
    return tf.ensure_shape(tf.reshape(flat, shape), values.shape)


def _round(value: tf.Tensor) -> tf.Tensor:
    return tf.cast(value, tf.float32)


def _rounding_error(value: tf.Tensor) -> tf.Tensor:
    """What rounding to float32 took; nothing from an infinite number."""
    lost = tf.cast(value - tf.cast(_round(value), tf.float64), tf.float32)
    return tf.where(tf.math.is_nan(lost), tf.zeros_like(lost), lost)


def _correct_rounding(loss: tf.Tensor, slope: tf.Tensor, lost: tf.Tensor) -> tf.Tensor:
    """The loss to the first order without the rounding of the pooled logits.

    At a logit of -12 that is 5e-7, and a loss of 1e-6 would be off by 3e-4 of itself. To round the
    teacher's is, to the first order, to round the student's the other way, where the teacher gives
    the class a probability (`_NO_MASS`).
    """
    return tf.where(loss < float("inf"), tf.maximum(loss + slope * lost, 0.0), loss)


def _check_indices(problem: SparseProblem) -> list[tf.Operation | None]:
    """Assertions that name the first bad index and its row; not for XLA, which has no strings."""
    given = tf.cast(problem.indices, tf.int64)
    classes = tf.shape(problem.student, out_type=tf.int64)[-1]
    outside = ~_inside(problem)
    # Those outside are reported by the first check.
    ordered = tf.sort(tf.where(outside, tf.constant(-1, tf.int64), given), axis=-1)
    twice = (ordered[..., 1:] == ordered[..., :-1]) & (ordered[..., 1:] >= 0)
    weight = None if problem.soft_weight is None else problem.soft_weight[..., None]
    return [
        _assert_none(
            _ignore_weightless(weight, outside),
            given,
            "Index {} at row {} is out of range: expected 0 <= index < {}, the number of classes.",
            classes,
        ),
        _assert_none(
            _ignore_weightless(weight, twice),
            ordered[..., 1:],
            "Index {} at row {} is there twice: expected distinct indices in each row of "
            "teacher_indices.",
        ),
    ]


def compute_sparse_checked(problem: SparseProblem) -> tuple[tf.Tensor, tf.Tensor]:
    """`compute_sparse`, after the checks that need the values of the tensors."""
    checks = [_check_temperature(problem), *_check_indices(problem)]
    with tf.control_dependencies([check for check in checks if check is not None]):
        return tuple(tf.identity(output) for output in compute_sparse(problem))

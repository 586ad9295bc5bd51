"""`sparse_soft_target_loss` in plain TensorFlow, on the specification of the dense loss.

The loss is the dense one of `k + 1` classes: those that the teacher kept, and all others pooled.
The pooled class's logit, `T log sum exp(s_j / T)`, is taken with the largest of the others, so that
it is right however little they have. Another class's slope is its share of the pooled one's.
"""

import tensorflow as tf

from keras_kd.ops import arguments, reference

# From so many temperatures on the row's largest logit is subtracted.
_FAR_OFFSET = 64.0
# So many temperatures below 0, and 64 at least below the largest logit, the teacher's rest has no
# probability, and rounding its logit does not count: one of -1e9, of a rest that is masked, loses
# 32, which made a loss of 10 one of 76.
_NO_MASS = 2 * _FAR_OFFSET


def compute(problem):
    """Computes the loss and the gradient.

    Args:
        problem: An `arguments.SparseProblem`.

    Returns:
        `(soft, gradient)`, as `reference.compute` returns them. A row whose indices are out of
        range or not distinct is NaN.
    """
    indices, good = _indices(problem)
    kept, rest, share = _student(problem, indices)
    student, rest = _centred(problem, kept, rest)
    teacher, tail = _centred(problem, problem.teacher, _tail(problem))
    _, soft, slope = reference.compute(
        arguments.Problem(
            student,
            teacher,
            problem.temperature,
            divergence=problem.divergence,
            mixing_weight=problem.mixing_weight,
        )
    )
    has_mass = tail > -_NO_MASS * _wide_temperature(problem)
    lost = _lost(rest) - tf.where(has_mass, _lost(tail), 0.0)
    soft = _corrected(soft, slope[..., -1], lost[..., 0])
    soft = reference.where_weighted(problem.soft_weight, tf.where(good, soft, float("nan")))
    if not problem.with_gradient:
        return soft, tf.zeros([0], problem.gradient_dtype)
    gradient = _scatter(slope[..., -1:] * share, indices, slope[..., :-1])
    gradient = tf.where(good[..., None], gradient, float("nan"))
    gradient = reference.weighted(problem.soft_weight, gradient)
    return soft, tf.cast(gradient, problem.gradient_dtype)


def _indices(problem):
    """Indices that can be used, int32, and the rows where they are the given ones."""
    inside = _inside(problem)
    indices = tf.cast(tf.where(inside, problem.indices, 0), tf.int32)
    ordered = tf.sort(indices, axis=-1)
    distinct = tf.reduce_all(ordered[..., 1:] != ordered[..., :-1], axis=-1)
    return indices, tf.reduce_all(inside, axis=-1) & distinct


def _inside(problem):
    classes = tf.shape(problem.student, problem.indices.dtype)[-1]
    return (problem.indices >= 0) & (problem.indices < classes)


def _student(problem, indices):
    """The kept logits, the pooled logit in float64 and each class's share of the pooled one."""
    kept = tf.gather(problem.student, indices, axis=-1, batch_dims=indices.shape.rank - 1)
    nothing = tf.fill(tf.shape(indices), -float("inf"))
    others = reference.Softmax(
        _scatter(tf.cast(problem.student, tf.float32), indices, nothing), problem.temperature
    )
    empty = tf.reduce_all(tf.math.is_inf(others.logits) & (others.logits < 0), -1, keepdims=True)
    wide = tf.cast(others.largest, tf.float64)
    logit = wide + _wide_temperature(problem) * tf.math.log(tf.cast(others.sum, tf.float64))
    share = tf.where(empty, tf.zeros_like(others.logits), others.probabilities)
    return kept, tf.where(empty, tf.constant(-float("inf"), tf.float64), logit), share


def _tail(problem):
    """The teacher's pooled logit in float64; -inf where no class is left to pool."""
    none_left = tf.shape(problem.teacher)[-1] == tf.shape(problem.student)[-1]
    tail = tf.where(none_left, -float("inf"), problem.tail)
    return (_wide_temperature(problem) * tf.cast(tail, tf.float64))[..., None]


def _centred(problem, kept, pooled):
    """The coarse row in float32 and its pooled logit in float64, without a large common offset.

    Rounding the pooled logit with an offset of 10,000 would cost 5e-4. What centring rounds, logits
    that are not within half and twice the largest, are then 32 temperatures below it: exp(-32).
    """
    wide = tf.cast(kept, tf.float64)
    largest = tf.maximum(tf.reduce_max(wide, axis=-1, keepdims=True), pooled)
    is_far = tf.abs(largest) > _FAR_OFFSET * _wide_temperature(problem)
    offset = tf.where(is_far & tf.math.is_finite(largest), largest, 0.0)
    pooled -= offset
    return tf.concat([_rounded(wide - offset), _rounded(pooled)], axis=-1), pooled


def _wide_temperature(problem):
    return tf.cast(problem.temperature, tf.float64)


def _scatter(values, indices, updates):
    """`values` `[..., num_classes]` with `updates` `[..., k]` at `indices` of the last axis."""
    shape, classes, kept = tf.shape(values), tf.shape(values)[-1], tf.shape(indices)[-1]
    rows = tf.reduce_prod(shape[:-1])
    numbers = tf.repeat(tf.range(rows), kept)
    places = tf.stack([numbers, tf.reshape(indices, [-1])], axis=-1)
    flat = tf.reshape(values, tf.stack([rows, classes]))
    flat = tf.tensor_scatter_nd_update(flat, places, tf.reshape(updates, [-1]))
    return tf.ensure_shape(tf.reshape(flat, shape), values.shape)


def _rounded(value):
    return tf.cast(value, tf.float32)


def _lost(value):
    """What rounding to float32 took; nothing from an infinite number."""
    lost = tf.cast(value - tf.cast(_rounded(value), tf.float64), tf.float32)
    return tf.where(tf.math.is_nan(lost), tf.zeros_like(lost), lost)


def _corrected(loss, slope, lost):
    """The loss to the first order without the rounding of the pooled logits.

    At a logit of -12 that is 5e-7, and a loss of 1e-6 would be off by 3e-4 of itself. To round the
    teacher's is, to the first order, to round the student's the other way, where the teacher gives
    the class a probability (`_NO_MASS`).
    """
    return tf.where(loss < float("inf"), tf.maximum(loss + slope * lost, 0.0), loss)


def check_indices(problem):
    """Assertions that name the first bad index and its row; not for XLA, which has no strings."""
    given = tf.cast(problem.indices, tf.int64)
    classes = tf.shape(problem.student, out_type=tf.int64)[-1]
    outside = ~_inside(problem)
    # Those outside are refused already.
    ordered = tf.sort(tf.where(outside, tf.constant(-1, tf.int64), given), axis=-1)
    twice = (ordered[..., 1:] == ordered[..., :-1]) & (ordered[..., 1:] >= 0)
    weight = None if problem.soft_weight is None else problem.soft_weight[..., None]
    return [
        reference.refuse(
            reference.unless_weightless(weight, outside),
            given,
            "Index {} at row {} is out of range: expected 0 <= index < {}, the number of classes.",
            classes,
        ),
        reference.refuse(
            reference.unless_weightless(weight, twice),
            ordered[..., 1:],
            "Index {} at row {} is there twice: expected distinct indices in each row of "
            "teacher_indices.",
        ),
    ]


def compute_checked(problem):
    """`compute`, after the checks that only the data allow."""
    checks = [reference.check_temperature(problem), *check_indices(problem)]
    with tf.control_dependencies([check for check in checks if check is not None]):
        return tuple(tf.identity(output) for output in compute(problem))

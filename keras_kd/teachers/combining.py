"""How an ensemble's members become one answer: functions of their logits.

Each takes a list of logits `[..., classes]` (float32, temperatures applied), the members' weights
(which sum to 1), their masks of classes (a list of boolean arrays, or `None`) and the labels
(`[...]`, or `None`), and returns logits.
"""

import numpy as np
import tensorflow as tf


def mean_logits(logits, weights, masks, labels):
    """`sum_i w_i z_i`; with masks of log-probabilities among each member's own classes."""
    del labels
    if masks is None:
        return tf.add_n([weight * each for weight, each in zip(weights, logits, strict=True)])
    # Logits of different members share no origin; those of a class would be averaged over some of
    # them only. Logarithms of probabilities do.
    known = [tf.nn.log_softmax(_masked(*pair)) for pair in zip(logits, masks, strict=True)]
    total = sum(
        weight * tf.where(mask, each, 0.0)
        for weight, each, mask in zip(weights, known, masks, strict=True)
    )
    return total / _weight_by_class(weights, masks)


def mean_probabilities(logits, weights, masks, labels):
    """`log sum_i w_i p_i`; with masks a class is averaged over the members that know it."""
    del labels
    probabilities = _probabilities(logits, masks)
    total = sum(weight * each for weight, each in zip(weights, probabilities, strict=True))
    return _log(total if masks is None else total / _weight_by_class(weights, masks))


def confidence(logits, weights, masks, labels):
    """`log sum_i c_i p_i`, `c_i` in proportion to `w_i max p_i`."""
    del labels
    probabilities = tf.stack(_probabilities(logits, masks))  # [members, ..., classes]
    shares = tf.reduce_max(probabilities, axis=-1, keepdims=True) * _by_member(weights, logits)
    if masks is None:
        return _log(tf.reduce_sum(shares * probabilities, 0) / tf.reduce_sum(shares, 0))
    known = tf.cast(_by_member(np.stack(masks), logits), tf.float32)
    total = tf.reduce_sum(shares * probabilities, 0)
    return _log(tf.math.divide_no_nan(total, tf.reduce_sum(shares * known, 0)))


def per_sample_best(logits, weights, masks, labels):
    """`log p_b` of the member that gives the label most, or is surest where there is no label."""
    probabilities = tf.stack(_probabilities(logits, masks))
    surest = tf.reduce_max(probabilities, axis=-1)
    score = surest
    if labels is not None:
        classes = probabilities.shape[-1]
        of_label = tf.reduce_sum(probabilities * tf.one_hot(labels, classes), axis=-1)
        of_label *= _by_member(weights, logits)[..., 0]
        is_class = (labels >= 0) & (labels < classes)
        score = tf.where(is_class, of_label, surest)
    best = tf.one_hot(tf.argmax(score, axis=0), len(logits), axis=0)
    # Selected, not summed with zeros: a member may be infinitely sure.
    chosen = tf.where(best[..., None] > 0, probabilities, 0.0)
    return _log(tf.reduce_sum(chosen, axis=0))


WAYS = {
    "mean_logits": mean_logits,
    "mean_probabilities": mean_probabilities,
    "confidence": confidence,
    "per_sample_best": per_sample_best,
}


def _masked(logits, mask):
    return tf.where(mask, logits, -np.inf)


def _probabilities(logits, masks):
    if masks is not None:
        logits = [_masked(*pair) for pair in zip(logits, masks, strict=True)]
    return [tf.nn.softmax(each) for each in logits]


def _weight_by_class(weights, masks):
    """The weight of those that know each class, `[classes]`."""
    return np.sum([w * np.float32(m) for w, m in zip(weights, masks, strict=True)], axis=0)


def _by_member(values, logits):
    """Values `[members]` or `[members, classes]`, to multiply `[members, ..., classes]`."""
    values = np.asarray(values)
    rank = logits[0].shape.rank
    last = values.shape[1:] or (1,)
    return values.reshape((len(values), *[1] * (rank - 1), *last))


def _log(probabilities):
    """Logarithm whose value at 0 is -inf, a class of no probability to the kernels."""
    return tf.math.log(probabilities)

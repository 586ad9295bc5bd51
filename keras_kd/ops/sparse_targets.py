"""`sparse_soft_target_loss`: soft targets of a teacher whose largest logits alone are known."""

import tensorflow as tf

from keras_kd.ops import arguments, dispatch
from keras_kd.ops.row_loss import row_loss


@tf.autograph.experimental.do_not_convert
def sparse_soft_target_loss(
    student_logits,
    teacher_logits,
    teacher_indices,
    teacher_tail,
    temperature=1.0,
    divergence="forward_kl",
    *,
    mixing_weight=0.5,
    sample_weight=None,
    reduction=None,
    differentiable=True,
):
    """`soft_target_loss` for a teacher of which the k largest logits and the rest's mass are known.

    For teachers whose outputs were stored: of 32000 classes in bfloat16, 64 logits and int32
    indices a row are 0.6 %. The divergence is that of `k + 1` classes: the kept ones `K`, and all
    others pooled into one, whose
    logits are

    - of the student `T log sum_{j not in K} exp(student_logits_j / T)`,
    - of the teacher `T teacher_tail`.

    It is never larger than the divergence of all classes, and equal to it where student and teacher
    share out the rest alike. The gradient of a kept class is that of the pooled problem, for the
    forward KL divergence exactly the full one, `T (q_k - p_k)`; that of another class is the pooled
    class's, times the class's share of the student's probability there: nothing is asked of how the
    rest is shared out. Loss and gradient come out of one sweep over the student's logits.

    Args:
        student_logits: Unnormalised log-probabilities, shape `[..., num_classes]`, float32,
            bfloat16 or float16 (float64 is cast to float32).
        teacher_logits: The kept classes' logits up to a constant a row, shape `[..., k]` with k
            from 1 to num_classes; any of those dtypes. No gradient flows to it.
        teacher_indices: Which classes those are: integers of the same shape, distinct in each row,
            at least 0 and below num_classes, in any order.
        teacher_tail: Shape `[...]`, taken as float32: natural logarithm of the sum of
            `exp(logit / T)` over the teacher's other classes, where `logit` has the same constant
            as `teacher_logits`, and `T` is `temperature`. -inf: they have no probability. Ignored
            where all classes are kept.
        temperature: `T`, a positive number or a scalar tensor or variable; no gradient flows to
            it. The tail belongs to one temperature.
        divergence: `"forward_kl"`, `"reverse_kl"` or `"jsd"`; see `soft_target_loss`.
        mixing_weight: `w`, the teacher's weight in the mixture of `"jsd"`, between 0 and 1.
        sample_weight: Broadcastable to `[...]`; multiplies the loss. Rows of weight zero are
            skipped: their loss and gradient are zero whatever they hold, bad indices included.
        reduction: `None`, `"sum"` or `"mean"`, as of `soft_target_loss`.
        differentiable: `False` computes the loss only.

    Returns:
        The loss, float32, shape `[...]`, or a scalar where it is reduced.

    Raises:
        ValueError: Shapes, dtypes, temperature or divergence are not as described.
        tf.errors.InvalidArgumentError: An index is out of range, or is there twice in a row; the
            message names it and its row. Plain TensorFlow inside XLA, which cannot raise, makes
            that row NaN.

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
    LLMs", https://arxiv.org/abs/2503.16870 (on what is lost by keeping the largest alone)
    """
    student, teacher, indices, tail = arguments.sparse_teacher(
        student_logits, teacher_logits, teacher_indices, teacher_tail
    )
    divergence, mixing_weight = arguments.divergence(divergence, mixing_weight)
    temperature = arguments.temperature(temperature)
    weight = arguments.weight("sample_weight", sample_weight, student)
    weight = arguments.reduced(reduction, weight, student)

    tensors = {
        "student": student,
        "teacher": teacher,
        "indices": indices,
        "tail": tail,
        "temperature": temperature,
        "soft_weight": weight,
    }
    return row_loss(
        "sparse_soft_target_loss",
        _solve,
        tensors,
        reduction=reduction,
        divergence=divergence,
        mixing_weight=mixing_weight,
        with_gradient=bool(differentiable),
    )


def _solve(**fields):
    return dispatch.compute_sparse(arguments.SparseProblem(**fields))

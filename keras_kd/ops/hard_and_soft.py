"""Hard (cross-entropy) and soft (distillation) loss from one sweep over the logits."""

import tensorflow as tf

from keras_kd.ops import arguments, dispatch
from keras_kd.ops.gradients import custom_gradient, once_traced
from keras_kd.ops.second_order import first_order_only


@tf.autograph.experimental.do_not_convert
def hard_and_soft_loss(
    student_logits,
    teacher_logits,
    labels,
    temperature=1.0,
    divergence="forward_kl",
    *,
    mixing_weight=0.5,
    sample_weight=None,
    ignore_label=None,
):
    """Sparse cross-entropy and soft-target loss per row, from one pass over the logits.

    `hard = -log softmax(student_logits)[label]` and `soft = soft_target_loss(...)`. Both are
    differentiable, each with its own upstream gradient; where the weights of the two are known
    beforehand, `combined_loss` is cheaper.

    Args:
        student_logits: `[..., num_classes]`, float32, bfloat16 or float16.
        teacher_logits: Of the same shape; no gradient flows to it.
        labels: Class indices, int32 or int64, shape `[...]`.
        temperature: `T` of the soft loss; the hard loss is at 1.
        divergence: `"forward_kl"`, `"reverse_kl"` or `"jsd"`.
        mixing_weight: The teacher's weight in the mixture of `"jsd"`.
        sample_weight: Broadcastable to `[...]`; multiplies both losses.
        ignore_label: Rows with this label (padding) are skipped: zero in both losses.

    Returns:
        `(hard, soft)`, float32, each of shape `[...]`.

    Raises:
        ValueError: Shapes, dtypes, temperature or divergence are not as described.
        tf.errors.InvalidArgumentError: A label is out of range; the message names it and its row.

    Example:

    ```python
    import tensorflow as tf
    import keras_kd as kd

    student, teacher = tf.random.normal([2, 8, 10])
    labels = tf.random.uniform([8], maxval=10, dtype=tf.int32)
    hard, soft = kd.ops.hard_and_soft_loss(student, teacher, labels, temperature=4.0)
    loss = tf.reduce_mean(0.5 * hard + 0.5 * soft)
    ```
    """
    student, teacher = arguments.logits(student_logits, teacher_logits)
    labels = arguments.labels(labels, student)
    divergence, mixing_weight = arguments.divergence(divergence, mixing_weight)
    temperature = arguments.temperature(temperature)
    weight = arguments.weight("sample_weight", sample_weight, student)
    if ignore_label is not None:
        kept = tf.cast(labels != tf.cast(ignore_label, labels.dtype), tf.float32)
        weight = kept if weight is None else weight * kept

    tensors = {
        "student": student,
        "teacher": teacher,
        "temperature": temperature,
        "labels": labels,
        "weight": weight,
    }
    return once_traced(_hard_and_soft, tensors, divergence=divergence, mixing_weight=mixing_weight)


def _hard_and_soft(tensors, divergence, mixing_weight):
    weight = tensors["weight"]

    def problem(student, teacher, hard_weight, soft_weight, with_gradient):
        return arguments.Problem(
            student,
            teacher,
            tensors["temperature"],
            labels=tensors["labels"],
            hard_weight=hard_weight,
            soft_weight=soft_weight,
            divergence=divergence,
            mixing_weight=mixing_weight,
            with_gradient=with_gradient,
        )

    @custom_gradient
    def losses_of(student, teacher):
        hard, soft, _ = dispatch.compute(problem(student, teacher, weight, weight, False))

        def backward(hard_upstream, soft_upstream):
            def gradient_of(hard_upstream, soft_upstream):
                weights = [hard_upstream, soft_upstream]
                if weight is not None:
                    weights = [weight * upstream for upstream in weights]
                gradient = dispatch.compute(problem(student, teacher, *weights, True))[2]
                return tf.cast(gradient, student.dtype)

            return first_order_only(gradient_of, student)(hard_upstream, soft_upstream), None

        return (arguments.weighted(hard, weight), arguments.weighted(soft, weight)), backward

    return losses_of(tensors["student"], tensors["teacher"])


@tf.autograph.experimental.do_not_convert
def combined_loss(
    student_logits,
    teacher_logits,
    labels,
    hard_weight,
    soft_weight,
    temperature=1.0,
    divergence="forward_kl",
    *,
    mixing_weight=0.5,
    differentiable=True,
):
    """`hard_weight * hard + soft_weight * soft` per row: losses and gradient in one sweep.

    Args:
        student_logits: `[..., num_classes]`, float32, bfloat16 or float16.
        teacher_logits: Of the same shape; no gradient flows to it.
        labels: Class indices, int32 or int64, shape `[...]`; not looked at where `hard_weight`
            is zero.
        hard_weight: Broadcastable to `[...]`.
        soft_weight: Broadcastable to `[...]`; where it is zero the teacher is not looked at. Rows
            where both are zero are skipped.
        temperature: `T` of the soft loss; the hard loss is at 1.
        divergence: `"forward_kl"`, `"reverse_kl"` or `"jsd"`.
        mixing_weight: The teacher's weight in the mixture of `"jsd"`.
        differentiable: As of `soft_target_loss`.

    Returns:
        `(total, hard, soft)`, float32, each of shape `[...]`. Gradients flow from `total` only;
        `hard` and `soft` are the losses without their weights, to be shown (zero in rows where
        their weight is zero).

    Raises:
        ValueError: Shapes, dtypes, temperature or divergence are not as described.
        tf.errors.InvalidArgumentError: A label is out of range; the message names it and its row.

    Example:

    ```python
    import tensorflow as tf
    import keras_kd as kd

    student, teacher = tf.random.normal([2, 8, 10])
    labels = tf.random.uniform([8], maxval=10, dtype=tf.int32)
    weights = 0.1 / 8, 0.9 / 8
    total, hard, soft = kd.ops.combined_loss(student, teacher, labels, *weights, temperature=4.0)
    loss = tf.reduce_sum(total)
    ```
    """
    student, teacher = arguments.logits(student_logits, teacher_logits)
    labels = arguments.labels(labels, student)
    divergence, mixing_weight = arguments.divergence(divergence, mixing_weight)
    temperature = arguments.temperature(temperature)
    hard_weight = arguments.weight("hard_weight", hard_weight, student)
    soft_weight = arguments.weight("soft_weight", soft_weight, student)

    tensors = {
        "student": student,
        "teacher": teacher,
        "temperature": temperature,
        "labels": labels,
        "hard_weight": hard_weight,
        "soft_weight": soft_weight,
    }
    total, hard, soft = once_traced(
        _combined,
        tensors,
        divergence=divergence,
        mixing_weight=mixing_weight,
        with_gradient=bool(differentiable),
    )
    return total, tf.stop_gradient(hard), tf.stop_gradient(soft)


def _combined(tensors, **settings):
    hard_weight, soft_weight = tensors["hard_weight"], tensors["soft_weight"]

    @custom_gradient
    def losses_of(student, teacher):
        fields = {**tensors, "student": student, "teacher": teacher}
        hard, soft, gradient = dispatch.compute(arguments.Problem(**fields, **settings))

        def backward(total_upstream, *of_parts):
            del of_parts  # zero: the caller wraps the parts in stop_gradient
            if not settings["with_gradient"]:
                raise ValueError(
                    "combined_loss was called with differentiable=False; no gradient was "
                    "computed. Call it with differentiable=True."
                )
            scale = first_order_only(lambda *args: dispatch.scale(*args, student.dtype), student)
            return scale(gradient, total_upstream), None

        return (
            arguments.weighted(hard, hard_weight) + arguments.weighted(soft, soft_weight),
            hard,
            soft,
        ), backward

    return losses_of(tensors["student"], tensors["teacher"])

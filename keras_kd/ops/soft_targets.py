"""`soft_target_loss`: temperature-softened divergence between teacher and student."""

import tensorflow as tf

from keras_kd.ops import arguments, dispatch
from keras_kd.ops.row_loss import row_loss


@tf.autograph.experimental.do_not_convert
def soft_target_loss(
    student_logits,
    teacher_logits,
    temperature=1.0,
    divergence="forward_kl",
    *,
    mixing_weight=0.5,
    sample_weight=None,
    reduction=None,
    differentiable=True,
):
    """Divergence between the softened distributions of teacher and student, per row.

    With `p = softmax(teacher_logits / T)` and `q = softmax(student_logits / T)`:

    - `"forward_kl"`: `T^2 KL(p || q) = T^2 sum p log(p / q)`
    - `"reverse_kl"`: `T^2 KL(q || p)`
    - `"jsd"`: `T^2 (w KL(p || m) + (1 - w) KL(q || m))`, `m = w p + (1 - w) q`

    in natural units, classes summed, rows not reduced. The factor `T^2` keeps the size of the
    gradient independent of the temperature (Hinton et al., 2015). Nothing is clipped: a logit of
    -inf is a probability of zero, NaN stays NaN. Loss and gradient come out of one sweep.

    Args:
        student_logits: Unnormalised log-probabilities, shape `[..., num_classes]`, float32,
            bfloat16 or float16 (float64 is cast to float32).
        teacher_logits: As `student_logits`, of the same shape; its dtype may differ. No gradient
            flows to it.
        temperature: `T`, a positive number or a scalar tensor or variable; no gradient flows to
            it.
        divergence: `"forward_kl"`, `"reverse_kl"` or `"jsd"`.
        mixing_weight: `w`, the teacher's weight in the mixture of `"jsd"`, between 0 and 1.
        sample_weight: Broadcastable to `[...]`; multiplies the loss. Rows of weight zero are
            skipped: they cost nothing, and their loss and gradient are zero whatever their logits.
        reduction: `None` for a loss a row; `"sum"`; or `"mean"`, the sum divided by the number of
            rows (not by the weights, as Keras' `"sum_over_batch_size"`). To reduce here is faster
            than to reduce the rows afterwards: the gradient is written once, already scaled,
            where a mean behind the loss costs one more pass over it.
        differentiable: `False` computes the loss only: a third less memory traffic where no
            gradient is taken. A gradient asked for is then an error.

    Returns:
        The loss, float32, shape `[...]`, or a scalar where it is reduced.

    Raises:
        ValueError: Shapes, dtypes, temperature or divergence are not as described.

    Example:

    ```python
    import tensorflow as tf
    import keras_kd as kd

    student, teacher = tf.random.normal([2, 8, 10])
    with tf.GradientTape() as tape:
        tape.watch(student)
        loss = kd.ops.soft_target_loss(student, teacher, temperature=4.0, reduction="mean")
    gradient = tape.gradient(loss, student)
    ```

    Reference: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network",
    https://arxiv.org/abs/1503.02531
    """
    student, teacher = arguments.logits(student_logits, teacher_logits)
    divergence, mixing_weight = arguments.divergence(divergence, mixing_weight)
    temperature = arguments.temperature(temperature)
    weight = arguments.weight("sample_weight", sample_weight, student)
    weight = arguments.reduced(reduction, weight, student)

    tensors = {
        "student": student,
        "teacher": teacher,
        "temperature": temperature,
        "soft_weight": weight,
    }
    return row_loss(
        "soft_target_loss",
        _solve,
        tensors,
        reduction=reduction,
        divergence=divergence,
        mixing_weight=mixing_weight,
        with_gradient=bool(differentiable),
    )


def _solve(**fields):
    _, soft, gradient = dispatch.compute(arguments.Problem(**fields))
    return soft, gradient

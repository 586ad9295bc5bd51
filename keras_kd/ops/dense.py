"""Losses on all logits: `soft_target_loss`, `hard_and_soft_loss`, and their gradients."""

import tensorflow as tf

from keras_kd.ops import arguments, dispatch
from keras_kd.ops.dispatch import custom_gradient, once_traced

# A loss a row whose gradient comes out of the same sweep.


# Of these a caller may want gradients; only the student's is not `None`.
_LOGITS = ("student", "teacher", "indices", "tail")


def row_loss(name, solve, tensors, **settings):
    """Makes the computed rows' losses differentiable, weighted and reduced.

    Args:
        name: Of the function that the user called.
        solve: A function of a module, from the fields of a problem to its losses `[...]` without
            weights, and the gradient of their weighted sum with respect to the student.
        tensors: The fields that are tensors; `soft_weight` as `arguments.reduced` returns it.
        **settings: The others; `reduction`: `None`, `"sum"` or `"mean"`.

    Returns:
        The losses, or their sum.
    """
    return once_traced(_row_loss, tensors, name=name, solve=solve, **settings)


def _row_loss(tensors, name, solve, reduction, **settings):
    logits = {field: tensors[field] for field in _LOGITS if field in tensors}

    @custom_gradient
    def loss_of(*given):
        student = given[0]
        fields = {**tensors, **dict(zip(logits, given, strict=True))}
        loss, gradient = solve(**fields, **settings)

        def backward(upstream):
            if not settings["with_gradient"]:
                raise ValueError(
                    f"{name} was called with differentiable=False; no gradient was "
                    "computed. Call it with differentiable=True."
                )
            scale = first_order_only(lambda *args: dispatch.scale(*args, student.dtype), student)
            return (scale(gradient, upstream), *[None] * (len(given) - 1))

        return _reduced(loss, tensors["soft_weight"], reduction), backward

    return loss_of(*logits.values())


def _reduced(loss, weight, reduction):
    if reduction is None:
        return arguments.weighted(loss, weight)
    if weight is None or weight.shape.rank == 0:
        return arguments.weighted(tf.reduce_sum(loss), weight)
    return tf.reduce_sum(loss * weight)


# A clear error where a second derivative is asked for.


def first_order_only(function, of):
    """Wraps a gradient so that differentiating it again raises instead of giving nothing.

    Args:
        function: Computes the gradient.
        of: The tensor it is the gradient of. A tape asks only for derivatives of what depends on
            the tensors it watches, so the result is tied to this one, except in the gradient of a
            tf.cond: its graph may not take tensors from the graph of the branch's own branches.

    Returns:
        `function`, with the same arguments.
    """
    tied = [of] if tf.executing_eagerly() or _is_of_this_graph(of) else []

    @tf.custom_gradient
    def once(*args):
        def twice(*upstream):
            del upstream
            raise NotImplementedError(
                "Second-order gradients of the distillation loss are not implemented. Take them "
                "of a loss written in plain TensorFlow, or stop the gradient before it."
            )

        return function(*args[: len(args) - len(tied)]), twice

    return lambda *args: once(*args, *tied)


def _is_of_this_graph(tensor):
    return tensor.graph is tf.compat.v1.get_default_graph()


# `soft_target_loss`: temperature-softened divergence between teacher and student.


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


# Hard (cross-entropy) and soft (distillation) loss from one sweep over the logits.


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

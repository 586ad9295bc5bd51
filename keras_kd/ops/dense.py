"""Losses on all logits: `soft_target_loss`, `hard_and_soft_loss`, and their gradients."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_kd.ops import arguments, dispatch
from keras_kd.ops.dispatch import custom_gradient, trace_once

# A caller may ask for the gradients of these; only the student's is not `None`.
_LOGITS = ("student", "teacher", "indices", "tail")


@tf.autograph.experimental.do_not_convert
def soft_target_loss(
    student_logits: Any,
    teacher_logits: Any,
    temperature: Any = 1.0,
    divergence: str = "forward_kl",
    *,
    mixing_weight: float = 0.5,
    sample_weight: Any = None,
    reduction: str | None = None,
    differentiable: bool = True,
) -> tf.Tensor:
    """Divergence between the softened distributions of teacher and student, per sample.

    With `p = softmax(teacher_logits / T)` and `q = softmax(student_logits / T)`:

    - `"forward_kl"`: `T^2 KL(p || q) = T^2 sum p log(p / q)`
    - `"reverse_kl"`: `T^2 KL(q || p)`
    - `"jsd"`: `T^2 (w KL(p || m) + (1 - w) KL(q || m))`, `m = w p + (1 - w) q`

    in nats, summed over the classes, not reduced over the samples. The factor `T^2` keeps the size
    of the gradient independent of the temperature (Hinton et al., 2015). Nothing is clipped: a
    logit of -inf is a probability of zero, NaN stays NaN. Loss and gradient come out of one sweep.

    Args:
        student_logits: Unnormalized log-probabilities, shape `[..., num_classes]`, float32,
            bfloat16 or float16 (float64 is cast to float32).
        teacher_logits: As `student_logits`, of the same shape; its dtype may differ. No gradient
            flows to it.
        temperature: `T`, a positive number or a scalar tensor or variable; no gradient flows to
            it.
        divergence: One of the names above.
        mixing_weight: `w`, the teacher's weight in the mixture of `"jsd"`, between 0 and 1.
        sample_weight: Broadcastable to `[...]`; multiplies the loss. Samples of weight zero are
            skipped: they cost nothing, and their loss and gradient are zero whatever their logits.
        reduction: `None` for a per-sample loss; `"sum"`; or `"mean"`, the sum divided by the number
            of samples (not by the weights, as in Keras' `"sum_over_batch_size"`). Reducing here is
            faster than reducing afterwards: the gradient is written once, already scaled, whereas a
            mean applied to the result costs one more pass over it.
        differentiable: `False` computes the loss only: a third less memory traffic where no
            gradient is taken. Taking a gradient is then an error.

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
    student, teacher = arguments.convert_logits(student_logits, teacher_logits)
    divergence, mixing_weight = arguments.check_divergence(divergence, mixing_weight)
    temperature = arguments.convert_temperature(temperature)
    weight = arguments.convert_weight("sample_weight", sample_weight, student)
    weight = arguments.weight_of_reduction(reduction, weight, student)

    tensors = {
        "student": student,
        "teacher": teacher,
        "temperature": temperature,
        "soft_weight": weight,
    }
    return differentiable_loss(
        "soft_target_loss",
        _compute_soft,
        tensors,
        reduction=reduction,
        divergence=divergence,
        mixing_weight=mixing_weight,
        with_gradient=bool(differentiable),
    )


def _compute_soft(**fields: Any) -> tuple[tf.Tensor, tf.Tensor]:
    _, soft, gradient = dispatch.compute(arguments.Problem(**fields))
    return soft, gradient


@tf.autograph.experimental.do_not_convert
def hard_and_soft_loss(
    student_logits: Any,
    teacher_logits: Any,
    labels: Any,
    temperature: Any = 1.0,
    divergence: str = "forward_kl",
    *,
    mixing_weight: float = 0.5,
    sample_weight: Any = None,
    ignore_label: int | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Sparse cross-entropy and soft-target loss per sample, from one pass over the logits.

    `hard = -log softmax(student_logits)[label]` and `soft = soft_target_loss(...)`. Both are
    differentiable, each with its own upstream gradient. `combined_loss` is cheaper where the
    weights of the two are known beforehand.

    Args:
        student_logits: `[..., num_classes]`, float32, bfloat16 or float16.
        teacher_logits: Of the same shape; no gradient flows to it.
        labels: Class indices, int32 or int64, shape `[...]`.
        temperature: `T` of the soft loss; the hard loss is at 1.
        divergence: See `soft_target_loss`.
        mixing_weight: The teacher's weight in the mixture of `"jsd"`.
        sample_weight: Broadcastable to `[...]`; multiplies both losses.
        ignore_label: Samples with this label (padding) are skipped: zero in both losses.

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
    student, teacher = arguments.convert_logits(student_logits, teacher_logits)
    labels = arguments.convert_labels(labels, student)
    divergence, mixing_weight = arguments.check_divergence(divergence, mixing_weight)
    temperature = arguments.convert_temperature(temperature)
    weight = arguments.convert_weight("sample_weight", sample_weight, student)
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
    return trace_once(_hard_and_soft, tensors, divergence=divergence, mixing_weight=mixing_weight)


def _hard_and_soft(
    tensors: dict[str, Any], divergence: str, mixing_weight: float
) -> tuple[tf.Tensor, tf.Tensor]:
    weight = tensors["weight"]

    def problem(
        student: tf.Tensor,
        teacher: tf.Tensor,
        hard_weight: Any,
        soft_weight: Any,
        with_gradient: bool,
    ) -> arguments.Problem:
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
    def losses_of(student: tf.Tensor, teacher: tf.Tensor) -> tuple[Any, Callable]:
        hard, soft, _ = dispatch.compute(problem(student, teacher, weight, weight, False))

        def backward(hard_upstream: tf.Tensor, soft_upstream: tf.Tensor) -> tuple[tf.Tensor, None]:
            def gradient_of(hard_upstream: tf.Tensor, soft_upstream: tf.Tensor) -> tf.Tensor:
                if weight is not None:
                    hard_upstream = weight * hard_upstream
                    soft_upstream = weight * soft_upstream
                computed = problem(student, teacher, hard_upstream, soft_upstream, True)
                gradient = dispatch.compute(computed)[2]
                return tf.cast(gradient, student.dtype)

            return first_order_only(gradient_of, student)(hard_upstream, soft_upstream), None

        losses = arguments.apply_weight(hard, weight), arguments.apply_weight(soft, weight)
        return losses, backward

    return losses_of(tensors["student"], tensors["teacher"])


@tf.autograph.experimental.do_not_convert
def combined_loss(
    student_logits: Any,
    teacher_logits: Any,
    labels: Any,
    hard_weight: Any,
    soft_weight: Any,
    temperature: Any = 1.0,
    divergence: str = "forward_kl",
    *,
    mixing_weight: float = 0.5,
    differentiable: bool = True,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """`hard_weight * hard + soft_weight * soft` per sample: losses and gradient in one sweep.

    Args:
        student_logits: `[..., num_classes]`, float32, bfloat16 or float16.
        teacher_logits: Of the same shape; no gradient flows to it.
        labels: Class indices, int32 or int64, shape `[...]`; ignored where `hard_weight` is zero.
        hard_weight: Broadcastable to `[...]`.
        soft_weight: Broadcastable to `[...]`; where it is zero the teacher is ignored. Samples
            where both are zero are skipped.
        temperature: `T` of the soft loss; the hard loss is at 1.
        divergence: See `soft_target_loss`.
        mixing_weight: The teacher's weight in the mixture of `"jsd"`.
        differentiable: See `soft_target_loss`.

    Returns:
        `(total, hard, soft)`, float32, each of shape `[...]`. Gradients flow from `total` only;
        `hard` and `soft` are the losses without their weights, for reporting (zero where their
        weight is zero).

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
    student, teacher = arguments.convert_logits(student_logits, teacher_logits)
    labels = arguments.convert_labels(labels, student)
    divergence, mixing_weight = arguments.check_divergence(divergence, mixing_weight)
    temperature = arguments.convert_temperature(temperature)
    hard_weight = arguments.convert_weight("hard_weight", hard_weight, student)
    soft_weight = arguments.convert_weight("soft_weight", soft_weight, student)

    tensors = {
        "student": student,
        "teacher": teacher,
        "temperature": temperature,
        "labels": labels,
        "hard_weight": hard_weight,
        "soft_weight": soft_weight,
    }
    total, hard, soft = trace_once(
        _combined,
        tensors,
        divergence=divergence,
        mixing_weight=mixing_weight,
        with_gradient=bool(differentiable),
    )
    return total, tf.stop_gradient(hard), tf.stop_gradient(soft)


def _combined(tensors: dict[str, Any], **settings: Any) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    hard_weight, soft_weight = tensors["hard_weight"], tensors["soft_weight"]

    @custom_gradient
    def losses_of(student: tf.Tensor, teacher: tf.Tensor) -> tuple[Any, Callable]:
        fields = {**tensors, "student": student, "teacher": teacher}
        hard, soft, gradient = dispatch.compute(arguments.Problem(**fields, **settings))

        def backward(total_upstream: tf.Tensor, *of_parts: tf.Tensor) -> tuple[tf.Tensor, None]:
            del of_parts  # zero: the caller wraps the parts in stop_gradient
            if not settings["with_gradient"]:
                raise not_differentiable("combined_loss")
            return _scale_once(gradient, total_upstream, student), None

        return (
            arguments.apply_weight(hard, hard_weight) + arguments.apply_weight(soft, soft_weight),
            hard,
            soft,
        ), backward

    return losses_of(tensors["student"], tensors["teacher"])


# How a loss is made differentiable: its gradient comes out of the sweep that computed it.


def differentiable_loss(
    name: str, solve: Callable, tensors: dict[str, Any], **settings: Any
) -> tf.Tensor:
    """Makes a computed loss differentiable, weighted and reduced.

    Args:
        name: Of the function that the user called.
        solve: A function of a module, from the fields of a problem to its losses `[...]` without
            weights, and the gradient of their weighted sum with respect to the student.
        tensors: The fields that are tensors; `soft_weight` as `arguments.weight_of_reduction`
            returns it.
        **settings: The others; `reduction`: `None`, `"sum"` or `"mean"`.

    Returns:
        The losses, or their sum.
    """
    return trace_once(_differentiable_loss, tensors, name=name, solve=solve, **settings)


def _differentiable_loss(
    tensors: dict[str, Any], name: str, solve: Callable, reduction: str | None, **settings: Any
) -> tf.Tensor:
    logits = {field: tensors[field] for field in _LOGITS if field in tensors}

    @custom_gradient
    def loss_of(*given: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        student = given[0]
        fields = {**tensors, **dict(zip(logits, given, strict=True))}
        loss, gradient = solve(**fields, **settings)

        def backward(upstream: tf.Tensor) -> tuple[Any, ...]:
            if not settings["with_gradient"]:
                raise not_differentiable(name)
            return (_scale_once(gradient, upstream, student), *[None] * (len(given) - 1))

        return _reduce(loss, tensors["soft_weight"], reduction), backward

    return loss_of(*logits.values())


def not_differentiable(name: str) -> ValueError:
    """The error for a gradient of what was called with `differentiable=False`."""
    return ValueError(
        f"{name} was called with differentiable=False; no gradient was computed. Call it with "
        "differentiable=True."
    )


def _reduce(loss: tf.Tensor, weight: tf.Tensor | None, reduction: str | None) -> tf.Tensor:
    if reduction is None:
        return arguments.apply_weight(loss, weight)
    if weight is None or weight.shape.rank == 0:
        return arguments.apply_weight(tf.reduce_sum(loss), weight)
    return tf.reduce_sum(loss * weight)


def _scale_once(gradient: tf.Tensor, upstream: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
    """The gradient times what comes from above, which cannot be differentiated again."""
    dtype = student.dtype
    return first_order_only(lambda *args: dispatch.scale(args[0], args[1], dtype), student)(
        gradient, upstream
    )


def first_order_only(function: Callable, of: tf.Tensor) -> Callable:
    """Wraps a gradient so that differentiating it again raises instead of returning `None`.

    Args:
        function: Computes the gradient.
        of: The tensor it is the gradient of. A tape only differentiates what depends on the tensors
            it watches, so the result is tied to this one, except in the gradient of a tf.cond: its
            graph may not take tensors from the graph of the branch's own branches.

    Returns:
        `function`, with the same arguments.
    """
    tied = [of] if tf.executing_eagerly() or _is_in_current_graph(of) else []

    @tf.custom_gradient
    def once(*args: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        def twice(*upstream: tf.Tensor) -> Any:
            del upstream
            raise NotImplementedError(
                "Second-order gradients of the distillation loss are not implemented. Use a loss "
                "written in plain TensorFlow, or stop the gradient before it."
            )

        return function(*args[: len(args) - len(tied)]), twice

    return lambda *args: once(*args, *tied)


def _is_in_current_graph(tensor: tf.Tensor) -> bool:
    return tensor.graph is tf.compat.v1.get_default_graph()

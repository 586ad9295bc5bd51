"""`linear_soft_target_loss`: head, cross-entropy and divergence in chunks; logits never exist.

The logits of 2,048 tokens over 128,000 words take 1 GB in float32, and a distillation step holds
those of student and teacher and a gradient. Here a chunk of positions goes through both heads, the
kernel computes losses and gradient of its logits, and the gradient goes back through the student's
head at once, in the forward pass. What is kept is as large as the hidden states and the head.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from keras_kd._utils import validation
from keras_kd.ops import arguments, dense, dispatch
from keras_kd.ops.dispatch import custom_gradient, trace_once
from keras_kd.ops.linear_chunk import Chunk, counting_first
from keras_kd.ops.linear_head import HeadShape, LinearHead
from keras_kd.ops.sparse_logits import SparseLogits

VOCABULARIES = ("same", "common")
# Megabytes of logits at once where nothing is said, and how many positions at least: for each chunk
# both kernels are read, and fewer positions multiply slower. See benchmarks/language.py.
MEMORY_MB, LEAST_ROWS = 64, 128
# Copies of a chunk's logits that live at once: both models' and the gradient.
_COPIES = 3
# The arguments that have a gradient, in this order.
_DIFFERENTIABLE = ("hidden", "kernel", "bias")


class LinearLosses(NamedTuple):
    """What `linear_soft_target_loss` returns.

    Args:
        loss: `hard_weight * hard + soft_weight * soft`, float32, reduced as was asked; the only
            one that gradients flow from.
        hard: Cross-entropy of each position, float32 `[...]`; 0 where its weight is 0.
        soft: Divergence of each position, float32 `[...]`; 0 where its weight is 0.
        is_correct: Whether the student's most likely word is the label, bool `[...]`; `False`
            where a position does not count, or there are no labels.

    Example:

    ```python
    import tensorflow as tf
    import keras_kd as kd

    head = kd.ops.LinearHead(tf.random.normal([8, 1000]))
    hidden, labels = tf.random.normal([2, 6, 8]), tf.zeros([2, 6], tf.int32)
    losses = kd.ops.linear_soft_target_loss(hidden, head, labels=labels, hard_weight=1.0)
    accuracy = tf.reduce_mean(tf.cast(losses.is_correct, tf.float32))
    ```
    """

    loss: tf.Tensor
    hard: tf.Tensor
    soft: tf.Tensor
    is_correct: tf.Tensor


@tf.autograph.experimental.do_not_convert
def linear_soft_target_loss(
    student_hidden: Any,
    student_head: LinearHead,
    teacher_hidden: Any = None,
    teacher_head: LinearHead | None = None,
    labels: Any = None,
    *,
    hard_weight: Any = 0.0,
    soft_weight: Any = 1.0,
    temperature: Any = 1.0,
    divergence: str = "forward_kl",
    mixing_weight: float = 0.5,
    ignore_label: int | None = None,
    vocabulary: str = "same",
    memory_mb: float | str = "auto",
    reduction: str | None = "mean",
    differentiable: bool = True,
) -> LinearLosses:
    """`combined_loss` of language models without their logits: from hidden states and heads.

    With `s = student_head(student_hidden)` and `t = teacher_head(teacher_hidden)`:

    `hard_weight * -log softmax(s)[label] + soft_weight * T^2 KL(softmax(t / T) || softmax(s / T))`

    computed for some positions at a time. Positions whose weights are zero, and those whose label
    is `ignore_label`, are left out before any product. Gradients flow to `student_hidden` and to
    the kernel and bias of `student_head`; they are computed in the forward pass, with two products
    a chunk, and kept in float32 until all chunks are summed up.

    Args:
        student_hidden: Hidden states, `[..., width]`, float32, bfloat16 or float16.
        student_head: A `LinearHead`.
        teacher_hidden: `[..., teacher width]`, with the same leading dimensions. Without
            `teacher_head`: the teacher's logits, `[..., vocabulary]` or a `SparseLogits`. `None`:
            no teacher, cross-entropy only.
        teacher_head: A `LinearHead`, or `None`.
        labels: Word indices, int32 or int64 `[...]`, or `None`.
        hard_weight: Broadcastable to `[...]`: the factor of the cross-entropy.
        soft_weight: Broadcastable to `[...]`: the factor of the divergence.
        temperature: `T` of the divergence; the cross-entropy is at 1.
        divergence: See `soft_target_loss`.
        mixing_weight: The teacher's weight in the mixture of `"jsd"`.
        ignore_label: Positions with this label count nowhere: neither in a loss, nor in the mean.
        vocabulary: `"same"`: both heads must have as many words. `"common"`: the divergence is
            that between the distributions over the first words that both have (vocabularies padded
            to 151,936 and 152,064 rows); the cross-entropy is over all of the student's.
        memory_mb: Megabytes that the logits of a chunk may take, at least one position's. `"auto"`:
            64, or what 128 positions take.
        reduction: `"mean"`: the weighted sum divided by the number of positions (without those of
            `ignore_label`); `"sum"`; or `None`, one loss a position: then the logits are computed
            once more in the backward pass, because what each is multiplied with is not known
            before, and a step takes up to twice as long.
        differentiable: `False` computes the losses only.

    Returns:
        `LinearLosses`: `(loss, hard, soft, is_correct)`.

    Raises:
        ValueError: Shapes, dtypes, vocabularies or options are not as described.
        tf.errors.InvalidArgumentError: A label is out of range; the message names it and its row
            in the chunk.

    Example:

    ```python
    import tensorflow as tf
    import keras_kd as kd

    student, teacher = tf.random.normal([2, 6, 8]), tf.random.normal([2, 6, 16])
    heads = [kd.ops.LinearHead(tf.random.normal([n, 1000])) for n in (8, 16)]
    labels = tf.random.uniform([2, 6], maxval=1000, dtype=tf.int32)
    with tf.GradientTape() as tape:
        tape.watch(student)
        losses = kd.ops.linear_soft_target_loss(
            student, heads[0], teacher, heads[1], labels, hard_weight=0.5, soft_weight=0.5
        )
    gradient = tape.gradient(losses.loss, student)
    ```

    References:
        Hsu et al., "Liger Kernel: Efficient Triton Kernels for LLM Training",
        https://arxiv.org/abs/2410.10989 (the gradient in the forward pass)
        Wijmans et al., "Cut Your Losses in Large-Vocabulary Language Models",
        https://arxiv.org/abs/2411.09009
    """
    divergence, mixing_weight = arguments.check_divergence(divergence, mixing_weight)
    temperature = arguments.convert_temperature(temperature)
    validation.one_of("vocabulary", vocabulary, VOCABULARIES)
    if reduction not in arguments.REDUCTIONS:
        raise validation.invalid("reduction", f"one of {arguments.REDUCTIONS}", reduction)
    hidden = _hidden("student_hidden", student_hidden, "student_head", student_head)
    teacher, teacher_shape, words = _teacher(teacher_hidden, teacher_head, temperature)
    _check_vocabularies(student_head.vocabulary, words, vocabulary)
    _check_positions(hidden.shape, teacher)
    positions = tf.shape(hidden)[:-1]
    # In their rows: a scalar becomes one for each.
    rows = tf.reduce_prod(positions)
    weights = [
        _row_weight(name, value, hidden)
        for name, value in (("hard_weight", hard_weight), ("soft_weight", soft_weight))
    ]
    count = tf.cast(rows, tf.float32)
    flat_labels = None
    if labels is not None:
        flat_labels = tf.reshape(arguments.convert_labels(labels, hidden), [-1])
        if ignore_label is not None:
            ignored = tf.cast(validation.integer("ignore_label", ignore_label, -(2**31)), tf.int64)
            counts = tf.cast(tf.cast(flat_labels, tf.int64) != ignored, tf.float32)
            weights = [weight * counts for weight in weights]
            count = tf.reduce_sum(counts)
    elif ignore_label is not None:
        raise ValueError(f"ignore_label={ignore_label} needs `labels`. Pass them, or a weight.")
    if labels is None:
        weights[0] = tf.zeros_like(weights[0])
    if teacher_hidden is None:
        weights[1] = tf.zeros_like(weights[1])
    if reduction == "mean":
        share = tf.math.reciprocal_no_nan(count)
        scaled = [weight * share for weight in weights]
    else:
        scaled = weights
    head = student_head.shape_of(hidden.dtype)
    tensors = {
        "hidden": tf.reshape(hidden, [-1, head.width]),
        "kernel": arguments.as_tensor(student_head.kernel),
        "bias": None if student_head.bias is None else arguments.as_tensor(student_head.bias),
        "labels": flat_labels,
        "hard_weight": scaled[0],
        "soft_weight": scaled[1],
        "temperature": temperature,
        **{name: _flat(name, value) for name, value in teacher.items()},
    }
    loss, hard, soft, is_correct = trace_once(
        _losses,
        tensors,
        head=head,
        teacher_head=teacher_shape,
        chunk=chunk_rows(memory_mb, max(head.vocabulary, words or 0), tensors["hidden"].shape[0]),
        divergence=divergence,
        mixing_weight=mixing_weight,
        is_reduced=reduction is not None,
        with_gradient=bool(differentiable),
    )
    if reduction is None:
        loss = tf.reshape(loss, positions)
        loss.set_shape(hidden.shape[:-1])
    parts = [tf.reshape(part, positions) for part in (hard, soft, is_correct)]
    for part in parts:
        part.set_shape(hidden.shape[:-1])
    hard, soft, is_correct = map(tf.stop_gradient, parts)
    return LinearLosses(loss, hard, soft, is_correct > 0)


def chunk_rows(memory_mb: float | str, words: int, rows: int | None = None) -> int:
    """How many positions go through the heads at once.

    Args:
        memory_mb: See `linear_soft_target_loss`.
        words: The larger vocabulary.
        rows: All positions, where their number is known.

    Returns:
        At least 1, at most all of them.
    """
    is_auto = memory_mb == "auto"
    budget = MEMORY_MB if is_auto else validation.positive("memory_mb", memory_mb)
    fitting = int(budget * 2**20 // (_COPIES * 4 * words))
    fitting = max(fitting, LEAST_ROWS) if is_auto else fitting
    # A power of two where there are many: products of odd sizes are slower.
    chunk = max(1, fitting) if fitting < 16 else 1 << (fitting.bit_length() - 1)
    return chunk if rows is None else max(1, min(chunk, rows))


# The arguments.


def _hidden(name: str, value: Any, head_name: str, head: Any) -> tf.Tensor:
    if not isinstance(head, LinearHead):
        raise validation.invalid(head_name, "a keras_kd.ops.LinearHead", type(head).__name__)
    hidden = tf.convert_to_tensor(value)
    if hidden.dtype == tf.float64:
        hidden = tf.cast(hidden, tf.float32)
    if hidden.dtype.name not in arguments.LOGIT_DTYPES:
        raise validation.invalid(
            name, f"hidden states, one of {arguments.LOGIT_DTYPES}", hidden.dtype.name
        )
    if hidden.shape.rank is None or hidden.shape.rank < 1 or hidden.shape[-1] != head.width:
        raise ValueError(
            f"`{name}` must end in the width of `{head_name}`, whose kernel is "
            f"{tuple(head.kernel.shape)}: [..., {head.width}]. Received: {name}.shape="
            f"{hidden.shape}. A kernel [vocabulary, width] needs LinearHead(is_tied=True)."
        )
    return hidden


def _teacher(
    value: Any, head: LinearHead | None, temperature: tf.Tensor
) -> tuple[dict[str, Any], HeadShape | None, int | None]:
    """The teacher's tensors by name, what its head is, and the number of its words."""
    if value is None:
        if head is not None:
            raise ValueError("`teacher_head` was given without `teacher_hidden`. Pass both.")
        return {}, None, None
    if head is not None:
        hidden = _hidden("teacher_hidden", value, "teacher_head", head)
        found = {"teacher": hidden, "teacher_kernel": arguments.as_tensor(head.kernel)}
        if head.bias is not None:
            found["teacher_bias"] = arguments.as_tensor(head.bias)
        return found, head.shape_of(hidden.dtype), head.vocabulary
    if isinstance(value, SparseLogits):
        tail = tf.cast(value.rest(temperature), tf.float32)
        return {"teacher": value.logits, "indices": value.indices, "tail": tail}, None, None
    logits = tf.convert_to_tensor(value)
    if logits.dtype.name not in arguments.LOGIT_DTYPES:
        raise validation.invalid(
            "teacher_hidden", f"logits, one of {arguments.LOGIT_DTYPES}", logits.dtype.name
        )
    return {"teacher": logits}, None, logits.shape[-1]


def _check_vocabularies(student: int, teacher: int | None, vocabulary: str) -> None:
    if teacher is not None and vocabulary == "same" and student != teacher:
        raise ValueError(
            f"The student has {student:,} words, the teacher {teacher:,}. Where the first "
            f"{min(student, teacher):,} are the same words, and the rest is padding, pass "
            'vocabulary="common". Vocabularies of different tokenizers cannot be compared word by '
            "word: use keras_kd.losses.UniversalLogits, or map the teacher's words."
        )


def _check_positions(student: tf.TensorShape, teacher: dict[str, Any]) -> None:
    if teacher and not student[:-1].is_compatible_with(teacher["teacher"].shape[:-1]):
        raise ValueError(
            "Student and teacher must have the same positions before their last axis. Received: "
            f"student_hidden.shape={student}, teacher_hidden.shape={teacher['teacher'].shape}. "
            "Texts of different tokenizers have different lengths: learn from texts that the "
            "teacher wrote (keras_kd.language.label)."
        )


def _row_weight(name: str, value: Any, hidden: tf.Tensor) -> tf.Tensor:
    weight = arguments.convert_weight(name, value, hidden)
    weight = tf.ones(()) if weight is None else weight
    return tf.reshape(tf.broadcast_to(weight, tf.shape(hidden)[:-1]), [-1])


_BY_ROW = {"teacher": 1, "indices": 1, "tail": 0}


def _flat(name: str, value: tf.Tensor) -> tf.Tensor:
    """What has an entry for each position, in rows."""
    if name not in _BY_ROW:
        return value
    return tf.reshape(value, [-1, value.shape[-1]] if _BY_ROW[name] else [-1])


# The loss, and its gradient.


def _losses(
    tensors: dict[str, Any], is_reduced: bool, with_gradient: bool, **settings: Any
) -> tuple[tf.Tensor, ...]:
    names = [name for name in _DIFFERENTIABLE if tensors[name] is not None]

    def sweep(fields: dict[str, Any], with_gradient: bool) -> "_Found":
        fields = {k: None if v is None else tf.stop_gradient(v) for k, v in fields.items()}
        return dispatch.with_kernels(
            fields["hidden"], lambda kernels: _sweep(kernels, fields, with_gradient, **settings)
        )

    @custom_gradient
    def losses_of(*given: tf.Tensor) -> tuple[tuple, Callable]:
        fields = {**tensors, **dict(zip(names, given, strict=True))}
        early = is_reduced and with_gradient and dispatch.gradients_are_needed()
        found = sweep(fields, early)
        rows = fields["hard_weight"] * found.hard + fields["soft_weight"] * found.soft
        loss = tf.reduce_sum(rows) if is_reduced else rows

        def backward(upstream: tf.Tensor, *of_parts: tf.Tensor) -> tuple:
            del of_parts  # zero: the caller wraps the parts in stop_gradient
            if not with_gradient:
                raise dense.not_differentiable("linear_soft_target_loss")

            def gradients_of(upstream: tf.Tensor) -> tuple:
                if is_reduced:
                    parts = _scaled(found.gradients, upstream)
                else:
                    both = ("hard_weight", "soft_weight")
                    weights = {name: fields[name] * upstream for name in both}
                    parts = sweep({**fields, **weights}, True).gradients
                return tuple(tf.cast(p, g.dtype) for p, g in zip(parts, given, strict=True))

            return dense.first_order_only(gradients_of, given[0])(upstream)

        return (loss, found.hard, found.soft, found.is_correct), backward

    return losses_of(*(tensors[name] for name in names))


def _scaled(parts: list[tf.Tensor], factor: tf.Tensor) -> list[tf.Tensor]:
    """Tensors times a scalar, which is 1 where the loss is the whole of what is differentiated.

    Then nothing is multiplied: the copy of a head's gradient can be the peak of a step's memory.
    """

    def scaled() -> list[tf.Tensor]:
        return [part * factor for part in parts]

    def by_place(kernels: dispatch.Kernels) -> list[tf.Tensor]:
        if not kernels.adds_in_place:  # XLA multiplies where the product is read
            return scaled()
        return tf.cond(factor == 1.0, lambda: [tf.identity(part) for part in parts], scaled)

    return dispatch.with_kernels(factor, by_place)


class _Found(NamedTuple):
    """Of all chunks.

    Attributes:
        hard: `[rows]`.
        soft: `[rows]`.
        is_correct: `[rows]`, 1 or 0.
        gradients: Of the weighted sum by hidden states, kernel and bias, as far as they are there.
    """

    hard: tf.Tensor
    soft: tf.Tensor
    is_correct: tf.Tensor
    gradients: list


def _sweep(
    kernels: dispatch.Kernels,
    fields: dict[str, Any],
    with_gradient: bool,
    head: HeadShape,
    teacher_head: HeadShape | None,
    chunk: int,
    divergence: str,
    mixing_weight: float,
) -> _Found:
    """Goes through the positions that count, `chunk` at a time.

    They come first in an order, and the loop ends with the last of them: shapes do not depend on
    values, so that XLA compiles it too.
    """
    hidden, bias = fields["hidden"], fields["bias"]
    rows = tf.shape(hidden)[0]
    chunks = -(-rows // chunk)
    order, place, kept = counting_first(fields["hard_weight"], fields["soft_weight"])
    order = tf.pad(order, [[0, chunks * chunk - rows]])
    is_row = tf.range(chunks * chunk) < kept
    kernel = tf.cast(fields["kernel"], head.dtype)
    kernel_back = tf.cast(fields["kernel"], head.backward_dtype) if with_gradient else None
    teacher_kernel = None
    if teacher_head is not None:
        teacher_kernel = tf.cast(fields["teacher_kernel"], teacher_head.dtype)

    def array(width: int) -> tf.TensorArray:
        return tf.TensorArray(tf.float32, chunks, element_shape=(chunk, width))

    losses = array(3)
    of_hidden = [array(head.width)] if with_gradient else []
    sums = [head.zero_gradient(kernels.adds_in_place)] if with_gradient else []
    if with_gradient and bias is not None:
        sums.append(tf.zeros((head.vocabulary,)))

    def step(i: tf.Tensor, losses: Any, of_hidden: list, sums: list) -> tuple:
        # `slice`, whose size is known to XLA: one of an index has the size of the whole there.
        picked, is_there = (tf.slice(each, [i * chunk], [chunk]) for each in (order, is_row))
        part = Chunk(kernels, fields, picked, tf.cast(is_there, tf.float32))
        # What fills the last chunk may hold NaN: zero times that would reach the sums.
        student = tf.where(is_there[:, None], part.take("hidden"), 0.0)
        logits = head.logits(student, kernel, bias)
        teacher = part.teacher
        if teacher_head is not None:
            teacher = teacher_head.logits(teacher, teacher_kernel, fields.get("teacher_bias"))
        hard, soft, gradient = part.losses(
            logits, teacher, divergence, mixing_weight, with_gradient
        )
        is_correct = tf.cast(part.is_correct(logits), tf.float32)
        losses = losses.write(i, tf.stack([hard, soft, is_correct], axis=1))
        if with_gradient:
            gradient = head.before_cap(logits, gradient)
            gradient = tf.cast(gradient, head.backward_dtype)
            back = head.gradient_of_hidden(gradient, kernel_back)
            of_hidden = [of_hidden[0].write(i, tf.cast(back, tf.float32))]
            of_kernel, *of_bias = sums
            of_kernel = head.add_gradient_of_kernel(
                of_kernel, gradient, student, kernels.adds_in_place
            )
            if bias is not None:
                of_bias = [of_bias[0] + tf.reduce_sum(tf.cast(gradient, tf.float32), axis=0)]
            sums = [of_kernel, *of_bias]
        return i + 1, losses, of_hidden, sums

    last = -(-kept // chunk)
    _, losses, of_hidden, sums = tf.while_loop(
        lambda i, *_: i < last,
        step,
        (0, losses, of_hidden, sums),
        parallel_iterations=1,
    )

    def by_row(found: tf.TensorArray, width: int) -> tf.Tensor:
        return tf.gather(tf.reshape(found.stack(), [-1, width]), place)

    hard, soft, is_correct = tf.unstack(by_row(losses, 3), axis=1)
    gradients = [*(by_row(each, head.width) for each in of_hidden), *sums]
    return _Found(hard, soft, is_correct, gradients)

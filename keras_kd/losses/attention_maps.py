"""`AttentionMaps`: match the teacher's attention maps (TinyBERT, MobileBERT)."""

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from keras_kd import ops
from keras_kd._utils import validation
from keras_kd.losses import base
from keras_kd.losses import projector as projectors
from keras_kd.taps import tap


@keras.saving.register_keras_serializable(package="keras_kd")
class AttentionMaps(base.DistillationLoss):
    """Compares how much each position attends to each other one, in two attention layers.

    `"mse"`: `l = (A^t_hij - A^s_hij)^2` for each head and pair of positions, `A` before softmax
    (TinyBERT) or after it. `"kl"`: `l = KL(A^t_hi || A^s_hi)` for each head and query, of the
    scores after softmax (MobileBERT), by the fused kernel.

    Pairs of positions (queries for `"kl"`) that the student's attention mask excludes do not count,
    nor do those with a position that `mask_input` marks as padding. Weights of tokens apply to the
    queries. Where the numbers of heads differ, and the larger is a multiple of the smaller, the
    larger's neighboring heads are averaged in groups, so that the numbers agree; otherwise all
    heads of each model are averaged to one.

    Args:
        teacher_layer: The attention layer, by name, path, object or function, or a `Tap` of its
            attention.
        student_layer: The same for the student.
        loss: `"mse"` or `"kl"`.
        kind: `"attention_logits"`: before softmax, `"attention_scores"`: after it. Default: what
            the formulas of `loss` above state.
        weight: See `DistillationLoss`.
        name: See `DistillationLoss`.
        **kwargs: `output` and `mask_input`, see `DistillationLoss`: the mask applies to the
            queries and, where there are as many, to the keys.

    Call arguments: `teacher_outputs` and `student_outputs`, `[batch, heads, queries, keys]` or,
    for one head, `[batch, queries, keys]`. Returns `[batch, heads, queries, keys]` or `[batch,
    heads, queries]`, float32.

    Raises:
        ValueError: An argument is wrong; when the distiller is built: there is no such layer, it
            computes no such attention, or the lengths differ.

    Example:

    ```python
    import numpy as np
    import keras_kd as kd

    loss = kd.losses.AttentionMaps("encoder_11/attention", "encoder_3/attention")
    teacher = np.random.normal(size=(2, 12, 5, 5)).astype("float32")
    student = np.random.normal(size=(2, 4, 5, 5)).astype("float32")
    assert loss(teacher, student).shape == (2, 4, 5, 5)
    ```

    References: Jiao et al., "TinyBERT", https://arxiv.org/abs/1909.10351; Sun et al.,
    "MobileBERT", https://arxiv.org/abs/2004.02984
    """

    def __init__(
        self,
        teacher_layer: Any,
        student_layer: Any,
        loss: Any = "mse",
        kind: Any = None,
        weight: float = 1.0,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        validation.one_of("loss", loss, ("mse", "kl"))
        kind = (
            kind
            if kind is not None
            else ("attention_logits" if loss == "mse" else "attention_scores")
        )
        if kind not in ("attention_logits", "attention_scores") or (
            loss == "kl" and kind != "attention_scores"
        ):
            raise ValueError(
                "Invalid value for argument `kind`. Expected 'attention_logits' or, as loss='kl' "
                f"needs, 'attention_scores'. Received: kind={kind!r}, loss={loss!r}"
            )
        super().__init__(
            weight=weight,
            teacher_layer=_attention_of("teacher_layer", teacher_layer, kind),
            student_layer=_attention_of("student_layer", student_layer, kind),
            name=name,
            **kwargs,
        )
        self.loss, self.kind = loss, kind

    def build(self, teacher_outputs_shape: Any, student_outputs_shape: Any) -> None:
        shapes = tuple(teacher_outputs_shape), tuple(student_outputs_shape)
        valid = all(len(shape) in (3, 4) for shape in shapes)
        if not valid or not projectors.shapes_agree(shapes[0][-2:], shapes[1][-2:]):
            raise ValueError(
                f"Distillation loss {self.name!r} expects attention of shape [batch, heads, "
                f"queries, keys] over the same positions. Received: teacher {shapes[0]}, student "
                f"{shapes[1]}. Give both models the same tokens."
            )
        super().build(shapes)

    def call(self, teacher_outputs: Any, student_outputs: Any) -> Any:
        teacher, student = _same_heads(_heads(teacher_outputs), _heads(student_outputs))
        if self.loss == "mse":
            return keras.ops.square(teacher - student)
        return ops.soft_target_loss(_log(student), _log(teacher))

    def weighted(
        self,
        teacher_outputs: Any,
        student_outputs: Any,
        row_weight: Any,
        mask: Any = None,
        **context: Any,
    ) -> tuple[Any, Any]:
        if mask is not None:
            mask = _heads(mask if len(mask.shape) > 2 else _of_both(mask))
            # A query counts if it may attend to anything.
            mask = keras.ops.any(mask, axis=-1) if self.loss == "kl" else mask
        if row_weight is not None and len(row_weight.shape) > 1:
            queries = student_outputs.shape[-2]
            if len(row_weight.shape) == 2 and row_weight.shape[1] in (queries, None):
                row_weight = keras.ops.expand_dims(row_weight, 1)  # the same in each head
            else:  # of other positions
                row_weight = base.mean_weight(row_weight)
        return super().weighted(teacher_outputs, student_outputs, row_weight, mask, **context)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config["loss"], config["kind"] = self.loss, self.kind
        return config


def _attention_of(role, layer, kind):
    layer = tap.check_layer(role, layer)
    if isinstance(layer, tap.Tap) and layer.kind != "output":
        return layer
    return tap.Tap(layer, kind) if isinstance(layer, str) else dataclasses.replace(layer, kind=kind)


def _heads(attention):
    return attention if len(attention.shape) == 4 else keras.ops.expand_dims(attention, 1)


def _of_both(tokens):
    """`[batch, queries, keys]`: where both are tokens that count, `[batch, time]`."""
    return keras.ops.logical_and(tokens[:, :, None], tokens[:, None, :])


def _same_heads(teacher, student):
    counts = teacher.shape[1], student.shape[1]
    least = min(counts)
    groups = least if max(counts) % least == 0 else 1
    return _grouped(teacher, groups), _grouped(student, groups)


def _grouped(attention, groups):
    """The mean over each group of neighboring heads."""
    batch, heads, queries, keys = keras.ops.shape(attention)
    if heads == groups:
        return attention
    shape = (batch, groups, heads // groups, queries, keys)
    return keras.ops.mean(keras.ops.reshape(attention, shape), axis=2)


def _log(scores):
    """Logarithms whose softmax, which the kernel computes, is the scores; 0 where all are 0."""
    positive = scores > 0
    logarithms = tf.math.log(tf.where(positive, scores, tf.ones_like(scores)))
    nothing = tf.logical_not(tf.reduce_any(positive, axis=-1, keepdims=True))
    return tf.where(positive | nothing, logarithms, -float("inf"))

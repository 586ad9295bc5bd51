"""`SequenceRelations`: match how positions relate to each other in attention (MiniLM)."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import keras

from keras_kd import ops
from keras_kd._utils import validation
from keras_kd._utils.validation import invalid
from keras_kd.losses import base
from keras_kd.losses import projector as projectors
from keras_kd.taps import tap


@keras.saving.register_keras_serializable(package="keras_kd")
class SequenceRelations(base.DistillationLoss):
    """Compares how queries, keys and values of one attention layer relate to each other (MiniLM).

    `l_i = sum_r w_r / H sum_h KL(softmax_j(A^t_rhij) || softmax_j(A^s_rhij))` for each position
    `i`, with `A_rhij = x_hi . x_hj / sqrt(size)`. `r` are the relations: `x` are the queries, the
    keys or the values of all heads side by side, split again into `H` relation heads of `size`
    each. So neither the widths nor the numbers of heads of the two models need to agree, there is
    no projector, and one pair of layers is enough: the paper takes the student's last one, and of
    a large teacher one some layers before its last. The divergence is that of the fused kernel.

    Padded positions, which the Keras mask of what the student's layer projects or `mask_input`
    tells, count nowhere: not as positions `i`, nor among the positions `j`.

    Queries, keys and values are those that `keras_kd.taps.Tap(layer, "queries")` reads: before
    rotary embeddings.

    The first MiniLM compares attention itself and the relation of values. Both are losses of their
    own; the sum is the paper's:

    ```python
    import keras_kd as kd

    layers = "backbone/transformer_layer_11", "backbone/transformer_layer_5"
    attention = [f"{layer}/self_attention_layer" for layer in layers]
    losses = [
        kd.losses.AttentionMaps(*attention, loss="kl"),
        kd.losses.SequenceRelations(*attention, relations=["values"]),
    ]
    ```

    Args:
        teacher_layer: The attention layer, or a layer around one, by name, path, object or
            function, or a `Tap` that chooses a call. Each relation makes its own tap of it.
        student_layer: The same for the student.
        relations: Which: a list of `"queries"`, `"keys"` and `"values"`.
        relation_heads: `H`, which divides the widths, heads times size, of both models. 12 to 64
            in the paper: more than the models have heads is better. Default: the teacher's heads.
        relation_weights: `w_r`, numbers of at least 0, one for each relation. Default: 1.
        weight: See `DistillationLoss`.
        name: See `DistillationLoss`.
        **kwargs: `output` and `mask_input`, see `DistillationLoss`.

    Call arguments: `teacher_outputs` and `student_outputs`, lists with a tensor for each relation,
    `[batch, time, heads, size]` or `[batch, time, width]`, and `positions`: which of them count,
    boolean `[batch, time]`, or `None` for all. Returns `[batch, time]`, float32.

    Raises:
        ValueError: An argument is wrong; when the distiller is built: there is no such layer, its
            projections are not found, the lengths differ, or `relation_heads` does not divide a
            width.

    Example:

    ```python
    import numpy as np
    import keras_kd as kd

    loss = kd.losses.SequenceRelations("encoder_11/attention", "encoder_3/attention")
    teacher = [np.random.normal(size=(2, 5, 12, 64)).astype("float32") for _ in range(3)]
    student = [np.random.normal(size=(2, 5, 4, 48)).astype("float32") for _ in range(3)]
    assert loss(teacher, student).shape == (2, 5)
    ```

    References: Wang et al., "MiniLMv2", https://arxiv.org/abs/2012.15828; "MiniLM",
    https://arxiv.org/abs/2002.10957
    """

    def __init__(
        self,
        teacher_layer: Any,
        student_layer: Any,
        relations: Sequence[str] = tap.PROJECTIONS,
        relation_heads: int | None = None,
        relation_weights: Sequence[float] | None = None,
        weight: float = 1.0,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        relations = _checked_relations(relations)
        super().__init__(
            weight=weight,
            teacher_layer=_taps_of("teacher_layer", teacher_layer, relations),
            student_layer=_taps_of("student_layer", student_layer, relations),
            name=name,
            **kwargs,
        )
        self.relations = relations
        self.relation_heads = validation.integer("relation_heads", relation_heads, 1, optional=True)
        self.relation_weights = _checked_weights(relation_weights, relations)
        self._heads: tuple[int, ...] = ()

    @property
    def reading(self) -> Any:
        return dataclasses.replace(super().reading, is_sequence=True)

    def build(self, teacher_outputs_shape: Any, student_outputs_shape: Any) -> None:
        teacher = [tuple(shape) for shape in teacher_outputs_shape]
        student = [tuple(shape) for shape in student_outputs_shape]
        self._check_shapes(teacher, student)
        self._heads = tuple(
            self._heads_of(*each) for each in zip(self.relations, teacher, student, strict=True)
        )
        super().build((teacher, student))

    def call(self, teacher_outputs: Any, student_outputs: Any, positions: Any = None) -> Any:
        values = [
            weight * _divergence(teacher, student, heads, positions)
            for weight, heads, teacher, student in zip(
                self.relation_weights, self._heads, teacher_outputs, student_outputs, strict=True
            )
        ]
        return sum(values[1:], values[0])

    def weighted(
        self,
        teacher_outputs: Any,
        student_outputs: Any,
        row_weight: Any,
        mask: Any = None,
        **context: Any,
    ) -> tuple[Any, Any]:
        if mask is not None and not projectors.shapes_agree(
            mask.shape, student_outputs[0].shape[:2]
        ):
            raise ValueError(
                f"Distillation loss {self.name!r} reads positions of shape "
                f"{tuple(student_outputs[0].shape[:2])}, [batch, time]. Received: a mask of shape "
                f"{tuple(mask.shape)}. Name the input that marks the padding of these positions in "
                "`mask_input`."
            )
        return super().weighted(
            teacher_outputs, student_outputs, row_weight, mask, positions=mask, **context
        )

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        for role in ("teacher_layer", "student_layer"):
            config[role] = _serialized(getattr(self, role)[0])
        config["relations"] = list(self.relations)
        config["relation_heads"] = self.relation_heads
        config["relation_weights"] = list(self.relation_weights)
        return config

    def _check_shapes(self, teacher, student):
        count = len(self.relations)
        shapes = [*teacher, *student]
        is_known = all(len(x) in (3, 4) and None not in x[2:] for x in shapes)
        is_one = is_known and all(
            projectors.shapes_agree(x[1:2], y[1:2]) for x in shapes for y in shapes
        )
        if not is_one or len(teacher) != count or len(student) != count:
            raise ValueError(
                f"Distillation loss {self.name!r} expects {', '.join(self.relations)} of shape "
                "[batch, time, heads, size] or [batch, time, width], all over the same positions. "
                f"Received: teacher {teacher}, student {student}. Give both models the same "
                "tokens; of attention to another sequence compare the queries alone, or the keys "
                "and values."
            )

    def _heads_of(self, relation, teacher, student):
        """The relation heads of a relation."""
        heads = self.relation_heads
        if heads is None and len(teacher) == 4:
            heads = teacher[2]
        widths = [math.prod(shape[2:]) for shape in (teacher, student)]
        if heads is not None and not any(width % heads for width in widths):
            return heads
        common = math.gcd(*widths)
        able = [n for n in range(1, common + 1) if common % n == 0]
        why = (
            "how many heads the teacher has is not known"
            if heads is None
            else f"{heads} relation heads do not divide both"
        )
        raise ValueError(
            f"Distillation loss {self.name!r} splits the {relation} of the teacher, {widths[0]} "
            f"wide, and of the student, {widths[1]} wide, into relation heads: {why}. Pass one of "
            f"{able} as `relation_heads`. Received: relation_heads={self.relation_heads}"
        )


def _checked_relations(relations):
    listed = list(relations) if isinstance(relations, (list, tuple)) else []
    fits = all(isinstance(each, str) and each in tap.PROJECTIONS for each in listed)
    if not listed or not fits or len(set(listed)) != len(listed):
        raise invalid("relations", f"a list of some of {tap.PROJECTIONS}", repr(relations))
    return tuple(listed)


def _checked_weights(weights, relations):
    if weights is None:
        return (1.0,) * len(relations)
    if not isinstance(weights, (list, tuple)) or len(weights) != len(relations):
        raise invalid(
            "relation_weights",
            f"a list of {len(relations)} numbers, one for each of {relations}",
            repr(weights),
        )
    return tuple(validation.non_negative("relation_weights", weight) for weight in weights)


def _taps_of(role, layer, relations):
    layer = tap.check_layer(role, layer)
    layer = layer if isinstance(layer, tap.Tap) else tap.Tap(layer)
    if layer.kind != "output":
        raise invalid(
            role,
            "an attention layer; each of `relations` makes its own tap of it",
            f"{layer!r}, which reads {layer.kind}",
        )
    return tuple(dataclasses.replace(layer, kind=relation) for relation in relations)


def _serialized(layer):
    """The attention layer of a tap, as it was given."""
    layer = dataclasses.replace(layer, kind="output")
    if layer == tap.Tap(layer.layer) and isinstance(layer.layer, str):
        return layer.layer
    return keras.saving.serialize_keras_object(layer)


def _divergence(teacher, student, heads, positions):
    """`[batch, time]`: the mean over the heads of the divergence of each position's relations."""
    logits = [_relation(states, heads) for states in (teacher, student)]
    if positions is not None:
        # A row without any position that counts is left out afterwards; it must be finite.
        nothing = keras.ops.logical_not(keras.ops.any(positions, axis=-1, keepdims=True))
        keys = keras.ops.logical_or(positions, nothing)[:, None, None, :]
        logits = [keras.ops.where(keys, each, -float("inf")) for each in logits]
    return keras.ops.mean(ops.soft_target_loss(logits[1], logits[0]), axis=1)


def _relation(states, heads):
    """`[batch, heads, time, time]`: the scaled products of each two positions."""
    batch, time = keras.ops.shape(states)[:2]
    size = math.prod(states.shape[2:]) // heads
    states = keras.ops.transpose(
        keras.ops.reshape(states, (batch, time, heads, size)), (0, 2, 1, 3)
    )
    return keras.ops.matmul(states, keras.ops.transpose(states, (0, 1, 3, 2))) / math.sqrt(size)

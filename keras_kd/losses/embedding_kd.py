"""`EmbeddingKD`: match the teacher's embedding of a sentence, pooled without padding."""

import functools
from typing import Any

import keras

from keras_kd._utils import validation
from keras_kd.losses import base, relations
from keras_kd.losses import projector as projectors
from keras_kd.taps import recorder

_POOLINGS = ("mean", "cls", "max")


@keras.saving.register_keras_serializable(package="keras_kd")
class EmbeddingKD(base.DistillationLoss):
    """Distance between the embeddings of two sentence encoders.

    `l = d(e^t, e^s W)` for each sample, where `e` is pooled over the positions that count: `"mse"`:
    `mean_c (e^t_c - e^s_c)^2`, `"cosine"`: `1 - e^t . e^s / (|e^t| |e^s|)`. `W` is a trained dense
    layer, left out where the widths agree. It does not join the student: one of another width has
    embeddings of its own, in which neighbors are alike to the teacher's; to give the teacher's
    very embeddings it must have a layer of their width.

    Padding does not count: in the student by the Keras mask of what is read, or by `mask_input`; in
    the teacher by its own Keras mask, else by the student's mask, whose positions must then be the
    same. A sample of padding alone is left out.

    Args:
        teacher_layer: See `DistillationLoss`. Without layers the models' outputs are compared.
        student_layer: The same for the student.
        pooling: How features with positions, `[batch, time, width]`, become one embedding:
            `"mean"`, `"max"`, or `"cls"`, the first position that counts. Features `[batch, width]`
            of one of the models are its embedding. `None`: those of both are.
        loss: `d`: `"mse"` or `"cosine"`.
        normalize: Whether both embeddings are first brought to length 1; `"cosine"` does so anyway.
        projector: See `FeatureHint`; for `[batch, width]`, after pooling.
        weight: See `DistillationLoss`.
        name: See `DistillationLoss`.
        **kwargs: `output`, `teacher_output` and `mask_input`, see `DistillationLoss`.

    Call arguments: `teacher_outputs` and `student_outputs`, `[batch, time, width]` or `[batch,
    width]`, and `teacher_positions` and `student_positions`: which positions count, boolean
    `[batch, time]`, or `None` for all. Returns `[batch]`, float32.

    Raises:
        ValueError: An argument is wrong; when the distiller is built: there is no such layer, the
            features have other shapes, nothing is there to be pooled, or no projector bridges the
            widths; the mask fits no features.

    Example:

    ```python
    import numpy as np
    import keras_kd as kd

    loss = kd.losses.EmbeddingKD("backbone/encoder_11", "backbone/encoder_2", loss="cosine")
    teacher = np.random.normal(size=(4, 7, 16)).astype("float32")
    student = np.random.normal(size=(4, 7, 8)).astype("float32")
    assert loss(teacher, student).shape == (4,)
    ```

    Reference: Reimers and Gurevych, "Making Monolingual Sentence Embeddings Multilingual using
    Knowledge Distillation", https://arxiv.org/abs/2004.09813
    """

    def __init__(
        self,
        teacher_layer: Any = None,
        student_layer: Any = None,
        pooling: str | None = "mean",
        loss: str = "mse",
        normalize: bool = False,
        projector: Any = "auto",
        weight: float = 1.0,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            weight=weight,
            teacher_layer=teacher_layer,
            student_layer=student_layer,
            name=name,
            **kwargs,
        )
        if pooling is not None and pooling not in _POOLINGS:
            raise validation.invalid("pooling", f"one of {_POOLINGS}, or None", repr(pooling))
        self.pooling = pooling
        if pooling is None:
            base.refuse_mask(self, "has pooling=None and compares what is pooled already")
        self.loss = validation.one_of("loss", loss, ("mse", "cosine"))
        self.normalize = validation.boolean("normalize", normalize)
        if normalize and loss == "cosine":
            raise ValueError(
                "The cosine does not depend on the lengths of embeddings: loss='cosine' takes no "
                "`normalize`. Received: normalize=True. Leave it out."
            )
        self.projector = projectors.check(projector)
        self.projection_layers = [projector] if projectors.is_layer(projector) else []

    def build(self, teacher_outputs_shape: Any, student_outputs_shape: Any) -> None:
        shapes = tuple(teacher_outputs_shape), tuple(student_outputs_shape)
        self._check_shapes(*shapes)
        teacher, student = ((shape[0], shape[-1]) for shape in shapes)
        if self.projector in ("auto", "linear"):
            self.projection_layers = projectors.make_projector(
                student, teacher, self.projector == "linear"
            )
        projected = projectors.build(self.projection_layers, student)
        if not projectors.shapes_agree(projected[1:], teacher[1:]):
            raise ValueError(
                f"Distillation loss {self.name!r}: the student's embedding has shape {projected} "
                f"after the projector, the teacher's {teacher}. Pass projector='auto', or a layer "
                "that gives the teacher's width."
            )
        super().build(shapes)

    def call(
        self,
        teacher_outputs: Any,
        student_outputs: Any,
        teacher_positions: Any = None,
        student_positions: Any = None,
        training: bool | None = None,
    ) -> Any:
        teacher = _pooled(teacher_outputs, self.pooling, teacher_positions)
        student = _pooled(student_outputs, self.pooling, student_positions)
        student = projectors.apply(self.projection_layers, student, training)
        student = keras.ops.cast(student, "float32")
        if self.normalize:
            teacher, student = map(relations.unit, (teacher, student))
        return relations.DISTANCES[self.loss](teacher, student)

    def weighted(
        self,
        teacher_outputs: Any,
        student_outputs: Any,
        row_weight: Any,
        mask: Any = None,
        **context: Any,
    ) -> tuple[Any, Any]:
        positions = {
            "teacher_positions": self._positions_of_teacher(teacher_outputs, mask),
            "student_positions": self._positions("student", student_outputs, mask),
        }
        # Samples that have any position.
        found = [keras.ops.any(x, axis=1) for x in positions.values() if x is not None]
        is_of_time = row_weight is not None and len(row_weight.shape) > 1
        return super().weighted(
            teacher_outputs,
            student_outputs,
            base.mean_weight(row_weight) if is_of_time else row_weight,
            functools.reduce(keras.ops.logical_and, found) if found else None,
            **positions,
            **context,
        )

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        projector = self.projector
        config["projector"] = (
            keras.saving.serialize_keras_object(projector)
            if projectors.is_layer(projector)
            else projector
        )
        config["pooling"], config["loss"] = self.pooling, self.loss
        config["normalize"] = self.normalize
        return config

    def _check_shapes(self, teacher, student):
        ranks = [len(shape) for shape in (teacher, student)]
        expected = "[batch, width]" if self.pooling is None else "[batch, time, width]"
        if self.pooling is not None and set(ranks) <= {2, 3} and 3 in ranks:
            return
        if self.pooling is None and ranks == [2, 2]:
            return
        remedy = (
            f"Pass one of {_POOLINGS} as `pooling`."
            if self.pooling is None
            else "Pass pooling=None for embeddings that are pooled already."
        )
        raise ValueError(
            f"Distillation loss {self.name!r} with pooling={self.pooling!r} expects features of "
            f"shape {expected}. Received: teacher {teacher}, student {student}. {remedy}"
        )

    def _positions_of_teacher(self, features, mask):
        own = recorder.mask_of(features)
        return self._positions("teacher", features, mask if own is None else own)

    def _positions(self, role, features, mask):
        """The mask of features with positions, `[batch, time]`."""
        if mask is None or self.pooling is None or len(features.shape) != 3:
            return None
        if not projectors.shapes_agree(mask.shape, features.shape[:2]):
            raise ValueError(
                f"Distillation loss {self.name!r} pools the {role}'s features of shape "
                f"{tuple(features.shape)} without their padding. Received: a mask of shape "
                f"{tuple(mask.shape)}. Give both models the same positions, or a {role} that pools "
                "them itself and is read there."
            )
        return mask


def _pooled(features, pooling, positions):
    """`[batch, width]`, of the positions that count; zeros where none does."""
    if len(features.shape) == 2:
        return features
    if positions is None:
        if pooling == "cls":
            return features[:, 0]
        return (keras.ops.mean if pooling == "mean" else keras.ops.max)(features, axis=1)
    counts = keras.ops.expand_dims(positions, -1)
    if pooling == "max":
        largest = keras.ops.max(keras.ops.where(counts, features, -float("inf")), axis=1)
        return keras.ops.where(keras.ops.any(counts, axis=1), largest, 0.0)
    if pooling == "cls":
        first = keras.ops.argmax(keras.ops.cast(positions, "int32"), axis=1)
        first = keras.ops.one_hot(first, keras.ops.shape(positions)[1], dtype="bool")
        counts = keras.ops.logical_and(counts, keras.ops.expand_dims(first, -1))
    total = keras.ops.sum(keras.ops.where(counts, features, 0.0), axis=1)
    number = keras.ops.sum(keras.ops.cast(counts, "float32"), axis=1)
    return total / keras.ops.maximum(number, 1.0)

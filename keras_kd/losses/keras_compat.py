"""Losses of `keras.distillation`, used unchanged, computed right.

`keras.distillation.LogitsDistillation` with `loss="kl_divergence"`, its default, feeds raw logits
to a function that expects probabilities and clips them; only an instance of `KLDivergence` gets
softmax and T^2, and is clipped at 1e-7 still. Here every spelling of a KL divergence or a
categorical cross-entropy is taken for what it means: between the softened distributions, from
logits, times T^2. All other losses get what Keras gives them, the logits divided by T.
"""

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from keras_kd import ops
from keras_kd.losses import base, shapes
from keras_kd.losses.activation import check_logits
from keras_kd.losses.base import check_temperature
from keras_kd.losses.reading import LOGITS
from keras_kd.models import matching
from keras_kd.ops.arguments import temperature_squared

_KL = ("kl_divergence", "kldivergence", "kullback_leibler_divergence")
_CROSS_ENTROPY = ("categorical_crossentropy", "categoricalcrossentropy")
# Between distributions over classes.
_OF_CLASSES = (*_KL, *_CROSS_ENTROPY)


def is_keras_distillation_loss(loss: Any) -> bool:
    """Whether `loss` is an object of `keras.distillation`."""
    return isinstance(loss, keras.distillation.DistillationLoss)


@keras.saving.register_keras_serializable(package="keras_kd")
class KerasDistillation(base.DistillationLoss):
    """Wraps a loss object of `keras.distillation`.

    Args:
        loss: A `keras.distillation.LogitsDistillation`, `FeatureDistillation`, or any object with
            their interface.
        weight: See `DistillationLoss`.
        name: See `DistillationLoss`.
    """

    def __new__(cls, loss, *args, **kwargs):
        # Such that `isinstance` finds what the user gave.
        for kind, wrapper in _WRAPPERS.items():
            if cls is KerasDistillation and isinstance(loss, kind):
                return super().__new__(wrapper, loss, *args, **kwargs)
        return super().__new__(cls, loss, *args, **kwargs)

    def __init__(
        self, loss: Any, weight: float = 1.0, name: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(
            weight=weight,
            teacher_layer=getattr(loss, "teacher_layer_name", None),
            student_layer=getattr(loss, "student_layer_name", None),
            name=name or matching.keras_name(type(loss).__name__),
            **kwargs,
        )
        self.loss = loss
        self.temperature_variable = None
        if isinstance(loss, keras.distillation.LogitsDistillation):
            self.temperature_variable = self.add_scalar("temperature", loss.temperature)
        self.built = True

    @property
    def temperature(self) -> Any:
        """The temperature, live; only of a `LogitsDistillation`."""
        if self.temperature_variable is None:
            raise AttributeError(f"{type(self.loss).__name__} has no temperature.")
        return base.read_number(self.temperature_variable)

    @temperature.setter
    def temperature(self, value: Any) -> None:
        if self.temperature_variable is None:
            raise AttributeError(f"{type(self.loss).__name__} has no temperature.")
        base.assign_number(self.temperature_variable, check_temperature(value))

    @property
    def reading(self) -> Any:
        """Logits, where the loss is between distributions over the classes of one output."""
        read = super().reading
        if self.temperature_variable is None or len(self._of_classes()) != 1:
            return read
        return dataclasses.replace(read, teacher_values=LOGITS, student_values=LOGITS)

    @property
    def reads_structure(self) -> bool:
        """The loss gets the models' whole outputs, unless it is that of one of them."""
        return self.output_key is None

    def build(self, *shapes: Any) -> None:
        del shapes
        self.built = True

    def call(self, teacher_outputs: Any, student_outputs: Any) -> Any:
        if self._is_custom():
            return self._custom(teacher_outputs, student_outputs)
        self.loss.validate_outputs(teacher_outputs, student_outputs)
        if not keras.tree.is_nested(self.loss.loss):
            # One loss keeps its positions, so that a mask finds them.
            return self._one(self.loss.loss, teacher_outputs, student_outputs)
        parts = keras.tree.map_structure(
            self._one, self.loss.loss, teacher_outputs, student_outputs
        )
        return sum(_per_sample(part) for part in keras.tree.flatten(parts) if part is not None)

    def compute_loss(self, teacher_outputs: Any, student_outputs: Any, **kwargs: Any) -> Any:
        """As of the wrapped loss: a scalar, as Keras computes it."""
        return self.loss.compute_loss(teacher_outputs, student_outputs, **kwargs)

    def validate_outputs(self, teacher_outputs: Any, student_outputs: Any) -> None:
        """As of the wrapped loss."""
        self.loss.validate_outputs(teacher_outputs, student_outputs)

    def validate_model_compatibility(self, teacher: Any, student: Any) -> None:
        """As of the wrapped loss."""
        self.loss.validate_model_compatibility(teacher, student)

    def _is_custom(self):
        """Whether the loss computes something of its own: also a subclass that overrides."""
        known = (keras.distillation.LogitsDistillation, keras.distillation.FeatureDistillation)
        return type(self.loss).compute_loss not in [each.compute_loss for each in known]

    def _custom(self, teacher_outputs, student_outputs):
        # A subclass of the user's: a scalar by contract, given to every row.
        value = self.loss.compute_loss(teacher_outputs, student_outputs)
        if len(value.shape) > 0:
            raise ValueError(
                f"{type(self.loss).__name__}.compute_loss must return a scalar. Received: shape "
                f"{tuple(value.shape)}"
            )
        batch = keras.ops.shape(keras.tree.flatten(student_outputs)[0])[:1]
        return keras.ops.broadcast_to(value, batch)

    def weighted(
        self,
        teacher_outputs: Any,
        student_outputs: Any,
        row_weight: Any,
        mask: Any = None,
        **context: Any,
    ) -> tuple[Any, Any]:
        if row_weight is not None and self._is_custom():
            raise ValueError(
                f"{type(self.loss).__name__} returns one number for the batch, so sample_weight "
                "and class_weight cannot reach its rows. Make it a subclass of "
                "keras_kd.losses.DistillationLoss whose call returns one value for each row."
            )
        return super().weighted(teacher_outputs, student_outputs, row_weight, mask, **context)

    def _one(self, loss, teacher, student):
        if loss is None:
            return None
        if self.temperature_variable is None:
            return base.unreduced(loss, teacher, student)
        kind = _kind(loss)
        if kind in _OF_CLASSES:
            shapes.check_classes(self, student)
        if kind in _KL:
            return ops.soft_target_loss(student, teacher, self.temperature_variable)
        scale = keras.ops.convert_to_tensor(self.temperature_variable)
        teacher, student = (
            tf.cast(teacher, tf.float32) / scale,
            tf.cast(student, tf.float32) / scale,
        )
        if kind in _CROSS_ENTROPY:
            targets = tf.nn.softmax(teacher)
            smoothing = getattr(loss, "label_smoothing", 0.0)
            targets = (1 - smoothing) * targets + smoothing / tf.cast(
                tf.shape(teacher)[-1], tf.float32
            )
            cross_entropy = tf.nn.softmax_cross_entropy_with_logits(targets, student)
            return temperature_squared(scale) * cross_entropy
        return base.unreduced(loss, teacher, student)

    def validate(self, teacher: Any, student: Any) -> None:
        if not isinstance(self.loss, keras.distillation.FeatureDistillation):
            # Of that one Keras refuses inner layers of nested and subclassed models; taps do not.
            self.loss.validate_model_compatibility(teacher, student)
        if self.temperature_variable is None:
            return
        for key in self._of_classes():
            for role, model in (("teacher", teacher), ("student", student)):
                check_logits(role, model, key, "SoftTargets")

    def _of_classes(self):
        """The outputs that a loss between distributions reads; `None` for all, or the only one."""
        given = self.loss.loss
        if not keras.tree.is_nested(given):
            return [self.output_key] if _kind(given) in _OF_CLASSES else []
        items = given.items() if isinstance(given, dict) else enumerate(given)
        return [key for key, loss in items if _kind(loss) in _OF_CLASSES]

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        for key in ("teacher_layer", "student_layer"):
            del config[key]
        del config["teacher_output"]  # the loss reads whole structures
        config["loss"] = keras.saving.serialize_keras_object(self.loss)
        if self.temperature_variable is not None:
            config["temperature"] = float(self.temperature)  # which may have changed since
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        config = dict(config)
        config["loss"] = keras.saving.deserialize_keras_object(config["loss"])
        temperature = config.pop("temperature", None)
        made = cls(**config)
        if temperature is not None:
            made.temperature = temperature
        return made


@keras.saving.register_keras_serializable(package="keras_kd")
class _Logits(KerasDistillation, keras.distillation.LogitsDistillation):
    """A `KerasDistillation` of a `LogitsDistillation`, which it is an instance of."""


@keras.saving.register_keras_serializable(package="keras_kd")
class _Features(KerasDistillation, keras.distillation.FeatureDistillation):
    """A `KerasDistillation` of a `FeatureDistillation`, which it is an instance of."""


_WRAPPERS = {
    keras.distillation.LogitsDistillation: _Logits,
    keras.distillation.FeatureDistillation: _Features,
}


def _kind(loss):
    """The name of a loss of Keras itself; of a user's, who may have called it the same, none."""
    made = loss if hasattr(loss, "__name__") else type(loss)
    is_of_keras = (made.__module__ or "").partition(".")[0] == "keras"
    return made.__name__.lower() if is_of_keras else ""


def _per_sample(values):
    axes = list(range(1, len(values.shape)))
    return keras.ops.mean(values, axis=axes) if axes else values

"""Shapes that losses read: logits, sequences, labels in any form, features of images."""

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from keras_kd._utils import validation
from keras_kd.losses import activation, base, reading
from keras_kd.losses import projector as projectors
from keras_kd.ops import arguments

# Softmax over one class is 1, whatever the logit: such a loss would silently be 0.
ONE_VALUE = (
    "Softmax over a single output is always 1: use keras_kd.losses.SigmoidKD where it is the logit "
    "of yes or no, RegressionKD where it is a number"
)
# The smallest normal float32: the logarithm of anything smaller is replaced by its logarithm.
TINY = 1.17549435e-38


class LogitsLoss(base.DistillationLoss):
    """Base class of the losses on logits; they take models that return probabilities, too.

    With probabilities `p` the loss works on `log p` (for a yes or no on `log p - log(1 - p)`): the
    logits of the same distribution.

    Args:
        from_logits: Whether the models return logits. `False`: probabilities; they end in softmax
            (in sigmoid for a yes or no).
        teacher_from_logits: The same for the teacher alone, such as a file that ends in softmax.
            Default: `from_logits`.
        **kwargs: See `DistillationLoss`; `temperature`, a positive number, of losses that have one.
    """

    temperature = base.live_temperature()
    # Whether the loss has a temperature, which `TemperatureSchedule` steers.
    has_temperature = False
    # Whether a sample is a distribution over its classes; else each value is a yes or no.
    is_of_classes = True
    # Whether logits of -inf, classes without probability, are kept; else they become log `TINY`.
    takes_infinite = False

    def __init__(
        self,
        *,
        from_logits: bool = True,
        teacher_from_logits: bool | None = None,
        **kwargs: Any,
    ) -> None:
        # Taken only where there is one: of the others the base class refuses it.
        temperature: Any = kwargs.pop("temperature") if self.has_temperature else None
        super().__init__(**kwargs)
        self.temperature_variable = None
        if self.has_temperature:
            temperature = base.check_temperature(temperature)
            self.temperature_variable = self.add_scalar("temperature", temperature)
        self.from_logits = validation.boolean("from_logits", from_logits)
        self.teacher_from_logits = teacher_from_logits
        if teacher_from_logits is not None:
            self.teacher_from_logits = validation.boolean(
                "teacher_from_logits", teacher_from_logits
            )

    @property
    def are_teachers_logits(self) -> bool:
        """Whether the teacher's values are logits."""
        return self.from_logits if self.teacher_from_logits is None else self.teacher_from_logits

    @property
    def reading(self) -> Any:
        kinds = (
            (reading.PROBABILITIES, reading.LOGITS)
            if self.is_of_classes
            else (reading.EACH_PROBABILITY, reading.EACH_LOGIT)
        )
        return dataclasses.replace(
            super().reading,
            teacher_values=kinds[self.are_teachers_logits],
            student_values=kinds[self.from_logits],
        )

    def logits(self, teacher_outputs: Any, student_outputs: Any) -> Any:
        """Both as logits, computed from probabilities where the models return those."""
        return (
            teacher_outputs if self.are_teachers_logits else self.to_logits(teacher_outputs),
            student_outputs if self.from_logits else self.to_logits(student_outputs),
        )

    def to_logits(self, probabilities: Any) -> Any:
        """The logits of probabilities."""
        if self.is_of_classes:
            return log(probabilities, -float("inf") if self.takes_infinite else None)
        return log(probabilities) - log(1.0 - tf.cast(probabilities, tf.float32))

    def validate(self, teacher: Any, student: Any) -> None:
        activation.check_values(self, teacher, student)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        if self.has_temperature:
            config["temperature"] = float(self.temperature)
        config["from_logits"] = self.from_logits
        config["teacher_from_logits"] = self.teacher_from_logits
        return config


def check_divergence(divergence: str, mixing_weight: float) -> tuple[str, float]:
    """Returns both, or raises what is wrong with them; a weight of no mixture is refused."""
    divergence, mixing_weight = arguments.check_divergence(divergence, mixing_weight)
    if not arguments.DIVERGENCES[divergence].is_mixture and mixing_weight != 0.5:
        raise ValueError(
            "`mixing_weight` is the teacher's weight in the mixture of divergence='jsd'; "
            f"{divergence!r} has none. Received: mixing_weight={mixing_weight}. Leave it out."
        )
    return divergence, mixing_weight


def log(probabilities: Any, of_zero: Any = None) -> Any:
    """The logarithm of probabilities, without a gradient where it would be infinite.

    Args:
        probabilities: A tensor.
        of_zero: The logarithm of 0; default: that of `TINY`, -87.3.
    """
    # Softmax's backward pass would make NaN of 0 * inf.
    probabilities = tf.cast(probabilities, tf.float32)
    positive = probabilities >= TINY
    logarithm = tf.math.log(tf.where(positive, probabilities, TINY))
    if of_zero is None:
        return logarithm
    return tf.where(probabilities > 0, logarithm, of_zero)


def check_shapes(
    loss: Any, teacher_shape: Any, student_shape: Any, least: int = 1, what: str = "logits"
) -> None:
    """Raises unless both are `[batch, ..., classes]` of one shape, with `least` classes or more."""
    teacher_shape, student_shape = tuple(teacher_shape), tuple(student_shape)
    fits = len(teacher_shape) >= 2 and projectors.shapes_agree(teacher_shape[1:], student_shape[1:])
    if not fits or (student_shape[-1] or least) < least:
        last = "classes" if what == "logits" else "values"
        raise ValueError(
            f"Distillation loss {loss.name!r} expects {what} of one shape, [batch, ..., {last}]"
            f"{f' with at least {least} classes' if least > 1 else ''}. "
            f"Received: teacher {teacher_shape}, student {student_shape}."
            f"{remedy_for_shapes(teacher_shape, student_shape)}"
        )


def remedy_for_shapes(teacher_shape: Any, student_shape: Any) -> str:
    """What to do where teacher and student give different shapes; begins with a space.

    Args:
        teacher_shape: With the batch.
        student_shape: With the batch.
    """
    teacher, student = tuple(teacher_shape), tuple(student_shape)
    if student[-1:] == (1,):
        return f" {ONE_VALUE}."
    if len(teacher) != len(student):
        return (
            " Give the teacher the student's shape in a function: `lambda x: reshape(teacher(x))`."
        )
    if len(teacher) > 2 and not projectors.shapes_agree(teacher[1:-1], student[1:-1]):
        return (
            " Bring the teacher's positions to the student's in a function as the teacher, such as "
            "`lambda x: keras.ops.image.resize(teacher(x), size)` for images."
        )
    return ""


def check_classes(loss: Any, student_outputs: Any) -> None:
    """Raises if the student gives one value per sample where a distribution is compared."""
    if student_outputs.shape[-1] == 1:
        raise ValueError(
            f"Distillation loss {loss.name!r} compares distributions over classes; the student's "
            f"output has shape {tuple(student_outputs.shape)}. {ONE_VALUE}."
        )


def check_sequences(loss: Any, teacher_shape: Any, student_shape: Any) -> None:
    """Raises unless both are `[batch, time, width]`."""
    if {len(teacher_shape), len(student_shape)} != {3}:
        raise ValueError(
            f"Distillation loss {loss.name!r} compares sequences and expects features of shape "
            f"[batch, time, width]. Received: teacher {tuple(teacher_shape)}, student "
            f"{tuple(student_shape)}."
        )


# Labels in the forms in which data has them.


def class_indices(labels: Any, logits: Any) -> Any:
    """The class of each sample: `[batch, ...]`, int32.

    Args:
        labels: Class indices `[batch, ...]` or `[batch, ..., 1]`, or a probability for each class,
            `[batch, ..., classes]`, whose largest counts; a row of zeros has no class: -1.
        logits: `[batch, ..., classes]`.

    Raises:
        ValueError: The labels have another shape.
    """
    rank, count = len(logits.shape), logits.shape[-1]
    labels = keras.ops.convert_to_tensor(labels)
    if len(labels.shape) == rank - 1:
        return keras.ops.cast(labels, "int32")
    if len(labels.shape) == rank and labels.shape[-1] == 1 and count != 1:
        return keras.ops.cast(keras.ops.squeeze(labels, -1), "int32")
    if len(labels.shape) == rank and labels.shape[-1] == count:
        largest = keras.ops.cast(keras.ops.argmax(labels, axis=-1), "int32")
        return keras.ops.where(keras.ops.any(labels != 0, axis=-1), largest, -1)
    raise ValueError(
        f"Expected labels as class indices of shape {tuple(logits.shape[:-1])} or one number for "
        f"each class, of shape {tuple(logits.shape)}. Received: shape {tuple(labels.shape)}."
    )


# Features of images: `[batch, height, width, channels]`.


# Why a loss takes no `mask_input`.
WHOLE_IMAGES = "compares whole images and has no positions of a sequence that could be padding"


def check_images(loss: Any, teacher_shape: Any, student_shape: Any) -> None:
    """Raises unless both are `[batch, height, width, channels]`."""
    data_format = keras.config.image_data_format()
    if data_format != "channels_last" or {len(teacher_shape), len(student_shape)} != {4}:
        raise ValueError(
            f"Distillation loss {loss.name!r} compares images and expects features of shape "
            "[batch, height, width, channels], channels last. Received: teacher "
            f"{tuple(teacher_shape)}, student {tuple(student_shape)}, "
            f"image_data_format={data_format!r}."
        )


def channel_maps(features: Any) -> Any:
    """`[batch, height, width, channels]` as `[batch, channels, positions]`."""
    batch, height, width, channels = keras.ops.shape(features)
    positions = keras.ops.reshape(features, (batch, height * width, channels))
    return keras.ops.transpose(positions, (0, 2, 1))

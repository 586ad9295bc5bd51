"""`CurriculumTemperature`: an adversarially learned temperature (CTKD)."""

import math
from typing import Any

import keras
import tensorflow as tf

from keras_kd import ops
from keras_kd._utils import validation
from keras_kd.losses import base, shapes
from keras_kd.ops.arguments import temperature_squared

_WIDTH = 128  # of the hidden layer


@keras.saving.register_keras_serializable(package="keras_kd")
class CurriculumTemperature(shapes.LogitsLoss):
    """Soft targets whose temperature is trained to make the student's loss large.

    `l = T^2 KL(softmax(teacher / T) || softmax(student / T))` with `T = lowest + (highest -
    lowest) sigmoid(a)`. The student's weights go down the gradient of `l`, `a` goes up, `reversal`
    times as fast: the task gets harder as the student learns. `reversal` is live; the paper raises
    it from 0 to 1 along a cosine over the first 10 epochs:

    `kd.callbacks.LossWeightSchedule("curriculum_temperature.reversal", 0.0, 1.0, "cosine",
    length=10)`

    With `per_row=True` each row has a temperature: `a` is then what a trained network of one
    hidden layer makes of the row's teacher's and student's logits (through which no gradient goes
    to the student). The temperature's own gradient is exact; loss and the student's gradient are
    the fused kernel's.

    Args:
        lowest: Smallest temperature, positive.
        highest: Largest temperature.
        initial: The first temperature, between both (of `per_row`: before the network learns).
        per_row: Whether each row has a temperature of its own.
        hidden_width: Units of the hidden layer, for `per_row`.
        reversal: How strongly the temperature works against the student, at least 0. At 0 it stays.
        **kwargs: `from_logits` and `teacher_from_logits`, see `SoftTargets`; `weight`, `output`,
            `name` and the others of `DistillationLoss`.

    Call arguments: `teacher_outputs` and `student_outputs`, logits `[batch, ..., classes]`.
    Returns `[batch, ...]`, float32.

    Raises:
        ValueError: An argument is out of its range; when the distiller is built: a model ends in
            softmax, or the shapes differ.

    Example:

    ```python
    import numpy as np
    import keras_kd as kd

    loss = kd.losses.CurriculumTemperature(lowest=1.0, highest=21.0, initial=4.0)
    teacher, student = np.random.normal(size=(2, 8, 10)).astype("float32")
    assert loss(teacher, student).shape == (8,)
    assert abs(loss.learned_temperature - 4.0) < 1e-5
    ```

    Reference: Li et al., "Curriculum Temperature for Knowledge Distillation",
    https://arxiv.org/abs/2211.16231
    """

    def __init__(
        self,
        lowest: float = 1.0,
        highest: float = 21.0,
        initial: float = 4.0,
        per_row: bool = False,
        hidden_width: Any = _WIDTH,
        reversal: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        lowest, highest = (
            validation.positive("lowest", lowest),
            validation.positive("highest", highest),
        )
        initial = validation.positive("initial", initial)
        if not lowest < initial < highest:
            raise ValueError(
                "Expected 0 < lowest < initial < highest. Received: "
                f"lowest={lowest}, initial={initial}, highest={highest}"
            )
        self.lowest, self.highest, self.initial = lowest, highest, initial
        self.per_row = validation.boolean("per_row", per_row)
        self.hidden_width = validation.integer("hidden_width", hidden_width, 1)
        if not self.per_row and self.hidden_width != _WIDTH:
            raise ValueError(
                "`hidden_width` belongs to the network of per_row=True. Received: "
                f"hidden_width={hidden_width}. Leave it out, or pass per_row=True."
            )
        self.reversal_variable = self.add_scalar(
            "reversal", validation.non_negative("reversal", reversal)
        )
        self.network: Any = self._network() if per_row else None

    def build(self, teacher_outputs_shape: Any, student_outputs_shape: Any) -> None:
        shapes.check_shapes(self, teacher_outputs_shape, student_outputs_shape, least=2)
        if self.per_row:
            hidden, last = self.network
            hidden.build((None, 2 * student_outputs_shape[-1]))
            last.build((None, self.hidden_width))
        else:
            self.raw_temperature = self.add_weight(
                name="raw_temperature",
                shape=(),
                initializer=keras.initializers.Constant(self._start()),
            )
        super().build((teacher_outputs_shape, student_outputs_shape))

    def call(self, teacher_outputs: Any, student_outputs: Any) -> Any:
        teacher_outputs, student_outputs = self.logits(teacher_outputs, student_outputs)
        temperature = self._temperature(self._reversed(self._raw(teacher_outputs, student_outputs)))
        temperature += tf.zeros_like(student_outputs[..., 0])  # one for each row
        fixed = tf.stop_gradient(temperature)
        scale = tf.expand_dims(fixed, -1)
        # The kernel's temperature is one number: rows with their own are scaled before.
        loss = ops.soft_target_loss(student_outputs / scale, teacher_outputs / scale)
        loss = temperature_squared(fixed) * loss
        slope = tf.stop_gradient(_slope(teacher_outputs, student_outputs, fixed))
        return loss + slope * (temperature - fixed)  # adds 0, with the temperature's gradient

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "lowest": self.lowest,
            "highest": self.highest,
            "initial": self.initial,
            "per_row": self.per_row,
            "hidden_width": self.hidden_width,
            "reversal": float(self.reversal),
        }

    @property
    def reversal(self) -> Any:
        """How strongly the temperature works against the student; assign to change it."""
        return base.read_number(self.reversal_variable)

    @reversal.setter
    def reversal(self, value: Any) -> None:
        base.assign_number(self.reversal_variable, validation.non_negative("reversal", value))

    @property
    def learned_temperature(self) -> float:
        """The temperature of all rows, as it is now; not to be set."""
        if self.per_row:
            raise AttributeError("With per_row=True each row has a temperature of its own.")
        return self._temperature(float(self.raw_temperature.numpy())).numpy().item()

    def _start(self):
        share = (self.initial - self.lowest) / (self.highest - self.lowest)
        return math.log(share / (1.0 - share))

    def _network(self):
        hidden = keras.layers.Dense(self.hidden_width, activation="relu", dtype="float32")
        start = keras.initializers.Constant(self._start())
        last = keras.layers.Dense(
            1, kernel_initializer="zeros", bias_initializer=start, dtype="float32"
        )
        return [hidden, last]

    def _raw(self, teacher_outputs, student_outputs):
        if not self.per_row:
            return keras.ops.convert_to_tensor(self.raw_temperature)
        x = tf.stop_gradient(tf.concat([teacher_outputs, student_outputs], axis=-1))
        x = tf.where(tf.math.is_finite(x), x, tf.zeros_like(x))
        for layer in self.network:
            x = layer(x)
        return tf.squeeze(x, -1)

    def _reversed(self, raw):
        factor = keras.ops.convert_to_tensor(self.reversal_variable)
        return (1.0 + factor) * tf.stop_gradient(raw) - factor * raw

    def _temperature(self, raw):
        return self.lowest + (self.highest - self.lowest) * tf.sigmoid(raw)


def _slope(teacher, student, temperature):
    """`d/dT T^2 KL`: `2 T KL - sum (q - p) s - sum p (log p - log q - KL) t`, for each row."""
    scale = tf.expand_dims(temperature, -1)
    log_p, log_q = tf.nn.log_softmax(teacher / scale), tf.nn.log_softmax(student / scale)
    p, q = tf.exp(log_p), tf.exp(log_q)
    ratio = tf.where(p > 0, log_p - log_q, tf.zeros_like(p))
    divergence = tf.reduce_sum(p * ratio, axis=-1, keepdims=True)
    # A logit of -inf has probability 0 at every temperature.
    t, s = (tf.where(tf.math.is_finite(x), x, tf.zeros_like(x)) for x in (teacher, student))
    moved = tf.reduce_sum((q - p) * s + p * (ratio - divergence) * t, axis=-1)
    return 2.0 * temperature * tf.squeeze(divergence, -1) - moved

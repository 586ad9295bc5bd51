"""Fake quantization: weights and activations rounded as a file rounds them.

Weights are symmetric around 0 and have one scale for each output channel:

    scale = max |w| / (2^(bits-1) - 1)        over the axes of the kernel but its output channels
    w_q   = scale * round(w / scale)

BatchNormalization that follows is folded into the kernel when a file is made: each output channel
is multiplied by a number, its scale with it, and the integers stay the same (but for the sign). To
round the kernel before the folding is thus to round it after, and no folded copy is trained.

Activations have one range per tensor; see `ActivationRange`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from keras_kd import models
from keras_kd._utils import validation
from keras_kd.models import paths


@dataclasses.dataclass(frozen=True)
class Scheme:
    """What is rounded, and to how many bits.

    Attributes:
        name: Its name.
        weight_bits: Bits of the kernels of convolutions and dense layers, per output channel.
        depthwise_bits: Bits of depthwise kernels; LiteRT has no 4-bit kernels for them.
        activation_bits: Bits of activations and of variables that are held as such, one range per
            tensor; `None`: they stay float.
    """

    name: str
    weight_bits: int
    depthwise_bits: int
    activation_bits: int | None


SCHEMES = {
    "int8": Scheme("int8", 8, 8, 8),
    "int4": Scheme("int4", 4, 8, None),
}


def scheme_named(scheme: Any) -> Scheme:
    """The scheme of a name.

    Raises:
        ValueError: There is none of that name.
    """
    return SCHEMES[validation.one_of("scheme", scheme, SCHEMES)]


# ai-edge-quantizer's smallest bound, so that a channel of zeros has a scale.
_SMALLEST = 1e-9
# Keras merges adapters when it saves weights.
_MERGE = """
def plain(layer):
    config = layer.get_config()
    return type(layer).from_config({k: v for k, v in config.items() if "lora" not in k})

merged = keras.models.clone_model(student, clone_function=plain, recursive=True)
student.save_weights("merged.weights.h5")
merged.load_weights("merged.weights.h5")
"""


@dataclasses.dataclass(frozen=True)
class RoundedWeight:
    """A variable that is rounded.

    Attributes:
        layer: The path of its layer.
        variable: The `keras.Variable`.
        axes: The axes over which a scale is shared.
        bits: How many bits an integer has.
    """

    layer: str
    variable: Any
    axes: tuple[int, ...]
    bits: int

    def on_grid(self) -> tf.Tensor:
        """Its values on their grid, see `rounded`."""
        return rounded(keras.ops.convert_to_tensor(self.variable), self.axes, self.bits)

    def integers(self) -> np.ndarray:
        """Its integers, see `integers`."""
        return integers(self.variable, self.axes, self.bits)


def refuse_lora(student: keras.Model) -> None:
    """Raises `ValueError` if layers have adapters of LoRA.

    Their kernel is a sum, and the file holds the result: to round its parts is not to round it.
    """
    adapted = [path for path, _, layer in paths.walk(student) if has_lora(layer)]
    if adapted:
        raise ValueError(
            f"Layers {adapted[:5]} of {student.name!r} have LoRA enabled, whose kernel a file "
            "holds as one sum, and rounds that. Merge it into the kernels, train them, and enable "
            "no "
            f"LoRA:\n{_MERGE}"
        )


def has_lora(layer: Any) -> bool:
    """Whether a layer has an adapter of LoRA."""
    return bool(getattr(layer, "lora_enabled", False))


def plan_weights(
    student: keras.Model, scheme: Scheme, leave: Sequence[str] = ()
) -> list[RoundedWeight]:
    """The weights of a student that are rounded.

    Args:
        student: A built Keras model.
        scheme: A `Scheme`.
        leave: Paths of layers to leave in float while the student trains.

    Raises:
        ValueError: It is not known how a file rounds the weights of a layer, a layer has LoRA, or
            `leave` names a layer that the student does not have.
    """
    refuse_lora(student)
    _check_left(student, leave)
    found, seen = [], set()
    for path, _, layer in paths.walk(student):
        if not isinstance(layer, layers.Layer) or id(layer) in seen:
            continue
        seen.add(id(layer))
        if _is_left(path, leave):
            continue
        rounded = _of_layer(layer, scheme)
        if rounded is None:
            raise ValueError(
                f"Layer {path!r} of type {type(layer).__name__} has kernels, and it is not known "
                "how a file would round them, so it cannot be trained for that. Leave it in float "
                f"while training (the file rounds it afterwards): leave=[{path!r}]."
            )
        found += [RoundedWeight(path, *each) for each in rounded]
    return found


def weights_left(student: keras.Model, leave: Sequence[str]) -> list[Any]:
    """The variables of the layers that are left in float."""
    found = (layer for path, _, layer in paths.walk(student) if _is_left(path, leave))
    return [v for layer in found if isinstance(layer, layers.Layer) for v in layer.weights]


def _check_left(student, leave):
    """Raises unless `leave` lists paths of layers of the student."""
    if isinstance(leave, str):
        raise validation.invalid("leave", "a list of paths of layers", repr(leave))
    known = [path for path, _, _ in paths.walk(student)]
    for each in leave:
        if each not in known:
            raise paths.no_layer(student, each, known)


def _is_left(path, leave):
    return any(path == each or path.startswith(each + "/") for each in leave)


def _of_layer(layer, scheme):
    """`(variable, axes, bits)` of each weight to round; `None` for an unknown layer."""
    bits, depthwise = scheme.weight_bits, scheme.depthwise_bits
    if isinstance(layer, layers.EinsumDense):
        return [(layer.kernel, models.summed_axes(layer.equation), bits)]
    if isinstance(layer, models.DEPTHWISE):
        return [(layer.kernel, _all_but(layer.kernel, 2), depthwise)]
    if isinstance(layer, models.SEPARABLE):
        first, second = layer.depthwise_kernel, layer.pointwise_kernel
        return [(first, _all_but(first, 2), depthwise), (second, _all_but(second, 1), bits)]
    if isinstance(layer, models.TRANSPOSED):
        rank = len(layer.kernel.shape)
        axes = tuple(axis for axis in range(rank) if axis != rank - 2)
        return [(layer.kernel, axes, depthwise)]
    if isinstance(layer, (layers.Dense, *models.CONVOLUTIONS)):
        return [(layer.kernel, _all_but(layer.kernel, 1), bits)]
    if isinstance(layer, models.RECURRENT_CELLS):
        kernels = (layer.kernel, layer.recurrent_kernel)
        return [(kernel, _all_but(kernel, 1), bits) for kernel in kernels]
    return None if _has_unknown_kernels(layer) else []


def _has_unknown_kernels(layer):
    """Whether a layer has kernels of its own, not of layers in it."""
    own = (weight for weight in paths.own_weights(layer) if weight.trainable)
    return any("kernel" in weight.name for weight in own)


def _all_but(variable, kept):
    """The axes of a kernel but its last `kept`."""
    return tuple(range(len(variable.shape) - kept))


def scales(values: tf.Tensor, axes: Sequence[int], bits: int) -> tf.Tensor:
    """The scale of each channel, in the shape of `values` with 1 along `axes`."""
    largest = tf.reduce_max(tf.abs(values), axis=axes, keepdims=True)
    return tf.maximum(largest, _SMALLEST) / (2 ** (bits - 1) - 1)


def rounded(values: tf.Tensor, axes: Sequence[int], bits: int) -> tf.Tensor:
    """`values` on their grid; the gradient passes as if they were not rounded (straight through).

    Args:
        values: A float tensor.
        axes: The axes over which a scale is shared.
        bits: How many bits an integer has.
    """
    scale = scales(values, axes, bits)
    return values + tf.stop_gradient(tf.round(values / scale) * scale - values)


def integers(values: Any, axes: Sequence[int], bits: int) -> np.ndarray:
    """The integers of `values`, int8 whatever the number of bits, as NumPy."""
    values = tf.convert_to_tensor(values)
    return np.asarray(tf.round(values / scales(values, axes, bits))).astype(np.int8)


def by_channel(integers: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    """Integers as `[size, channels]`, where a channel has one scale."""
    kept = [axis for axis in range(integers.ndim) if axis not in axes]
    moved = np.transpose(integers, [*axes, *kept])
    return moved.reshape(int(np.prod(moved.shape[: len(axes)])), -1)


# Activations.


# The narrowest range; ai-edge-quantizer's bound is 1e-9, which float32 loses.
_NARROWEST = 1e-6


class ActivationRange(keras.layers.Layer):
    """The range of one activation, and its rounding to 8 bits.

        scale = (high - low) / 255,  zero = round(-128 - low / scale)     low <= 0 <= high
        y     = scale * (clip(round(x / scale) + zero, -128, 127) - zero)

    The gradient passes where `x` is inside of the range. In training the range follows the batches
    by an exponential moving average until it is frozen.

    Args:
        low: The least value.
        high: The largest.
        is_fixed: Whether the file has this very range whatever the data, as for a softmax.
        name: The layer's name.
    """

    def __init__(
        self, low: float, high: float, is_fixed: bool = False, name: str | None = None, **kwargs
    ):
        super().__init__(name=name, trainable=False, **kwargs)
        self.supports_masking = True  # attention takes its mask from the tensor that it is given
        self.is_fixed = bool(is_fixed)
        self._initial = float(low), float(high)
        self.range = self.add_weight(
            shape=(2,),
            initializer=keras.initializers.Constant(list(self._initial)),
            trainable=False,
            aggregation="mean",
            name="range",
        )
        self.built = True

    def call(self, inputs, rate=None):
        """Rounds `inputs`.

        Args:
            inputs: A float tensor.
            rate: How far the range moves to this batch's, 0 to 1, a scalar tensor; `None`: it
                stays.
        """
        if rate is not None and not self.is_fixed:
            found = tf.stack([tf.reduce_min(inputs), tf.reduce_max(inputs)])
            now = keras.ops.convert_to_tensor(self.range)
            moved = now + rate * (tf.cast(found, now.dtype) - now)
            self.range.assign(tf.where(tf.math.is_finite(moved), moved, now))
        return rounded_activation(inputs, keras.ops.convert_to_tensor(self.range))

    def bounds(self) -> tuple[float, float]:
        """`(low, high)` as numbers."""
        low, high = (float(value) for value in np.asarray(self.range))
        return low, high

    def get_config(self):
        low, high = self._initial
        return {**super().get_config(), "low": low, "high": high, "is_fixed": self.is_fixed}


def rounded_activation(values: tf.Tensor, bounds: Any) -> tf.Tensor:
    """`values` on the grid of 256 numbers of a range `[low, high]`."""
    low = tf.minimum(bounds[0], 0.0)
    high = tf.maximum(tf.maximum(bounds[1], 0.0), low + _NARROWEST)
    return tf.quantization.fake_quant_with_min_max_vars(values, low, high, num_bits=8)


def parameters(low: float, high: float) -> tuple[float, int]:
    """The `(scale, zero point)` that ai-edge-quantizer gives a range."""
    least, largest = np.float32(min(low, 0.0)), np.float32(max(high, 0.0))
    scale = np.maximum(largest - least, np.float32(1e-9)) / np.float32(255)
    return float(scale), int(np.rint(-128 - least / scale))


def bounds_of(scale: float, zero: int) -> tuple[float, float]:
    """The range of a `(scale, zero point)`."""
    return float((-128 - zero) * scale), float((127 - zero) * scale)

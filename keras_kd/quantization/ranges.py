"""`ActivationRange`: rounds one activation to integers as a file does, and watches its range."""

import keras
import numpy as np
import tensorflow as tf

# A range narrower than that is no range; ai-edge-quantizer's bound is 1e-9, which float32 loses.
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
        is_fixed: Whether the file has this very range whatever the data, as of a softmax.
        name: The layer's name.
    """

    def __init__(self, low, high, is_fixed=False, name=None, **kwargs):
        super().__init__(name=name, trainable=False, **kwargs)
        self.supports_masking = True  # attention takes its mask off the tensor that it is given
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
        return rounded(inputs, keras.ops.convert_to_tensor(self.range))

    def bounds(self):
        """`(low, high)` as numbers."""
        low, high = (float(value) for value in np.asarray(self.range))
        return low, high

    def get_config(self):
        low, high = self._initial
        return {**super().get_config(), "low": low, "high": high, "is_fixed": self.is_fixed}


def rounded(values, bounds):
    """`values` on the grid of 256 numbers of a range `[low, high]`."""
    low = tf.minimum(bounds[0], 0.0)
    high = tf.maximum(tf.maximum(bounds[1], 0.0), low + _NARROWEST)
    return tf.quantization.fake_quant_with_min_max_vars(values, low, high, num_bits=8)


def parameters(low, high):
    """The `(scale, zero point)` that ai-edge-quantizer gives a range."""
    low, high = np.float32(min(low, 0.0)), np.float32(max(high, 0.0))
    scale = np.maximum(high - low, np.float32(1e-9)) / np.float32(255)
    return float(scale), int(np.rint(-128 - low / scale))


def bounds_of(scale, zero):
    """The range of a `(scale, zero point)`."""
    return float((-128 - zero) * scale), float((127 - zero) * scale)

"""Schemes: how many bits weights and activations have."""

import dataclasses

from keras_kd import checks


@dataclasses.dataclass(frozen=True)
class Scheme:
    """What is rounded, and to how many bits.

    Attributes:
        name: As users call it.
        weight_bits: Bits of the kernels of convolutions and dense layers, per output channel.
        depthwise_bits: Bits of depthwise kernels, for which there are no 4-bit kernels in LiteRT.
        activation_bits: Bits of activations and of variables that are held as such, one range a
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


def named(scheme):
    """The scheme of a name.

    Raises:
        ValueError: There is none.
    """
    return SCHEMES[checks.one_of("scheme", scheme, SCHEMES)]

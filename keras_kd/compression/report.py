"""`sparsity_of`: how many weights of a model are zero."""

import dataclasses

import keras
import numpy as np

from keras_kd.compression import masks
from keras_kd.compression.kernels import kernels_of


@dataclasses.dataclass(frozen=True)
class Sparsity:
    """How many weights of a model's kernels are zero. `str` makes a table of it.

    Args:
        total: The share of all of them.
        kernels: A dict from the kernels' paths to the share of each.
        two_of_four: Whether of each four in a row along the inputs at least two are zero, in every
            kernel but embeddings.

    Example:

    ```python
    import keras_kd as kd

    print(kd.compression.Sparsity(0.5, {"dense/kernel": 0.5}, two_of_four=False))
    ```
    """

    total: float
    kernels: dict
    two_of_four: bool

    def __str__(self):
        width = max(map(len, self.kernels))
        lines = [f"{path:<{width}} {share:7.2%}" for path, share in self.kernels.items()]
        pattern = "yes" if self.two_of_four else "no"
        return "\n".join([*lines, f"{'all':<{width}} {self.total:7.2%}", f"2:4 {pattern}"])


def sparsity_of(model, layers=None):
    """How many weights of a model's kernels are zero.

    Args:
        model: A built `keras.Model`.
        layers: As of `Sparsify`.

    Returns:
        A `Sparsity`.

    Raises:
        ValueError: The model has no kernels, or no such layer.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_kd as kd

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.array([[1.0], [0.0], [2.0], [0.0]])])
    sparsity = kd.compression.sparsity_of(model)
    assert sparsity.total == 0.5 and sparsity.two_of_four
    ```
    """
    kernels = kernels_of(model, layers)
    values = [keras.ops.convert_to_numpy(kernel.variable) for kernel in kernels]
    zeros = [int(np.sum(value == 0)) for value in values]
    pattern = [
        masks.is_two_of_four(value, kernel.input_axis)
        for kernel, value in zip(kernels, values, strict=True)
        if kernel.input_axis is not None
    ]
    return Sparsity(
        sum(zeros) / sum(value.size for value in values),
        {k.path: n / v.size for k, n, v in zip(kernels, zeros, values, strict=True)},
        bool(pattern) and all(pattern),
    )

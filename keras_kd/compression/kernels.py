"""Which weights of a model are pruned and clustered: those that are most of it."""

import dataclasses

import keras

from keras_kd import kernel_layers
from keras_kd.ops.arguments import invalid
from keras_kd.taps import paths


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A weight that is pruned or clustered.

    Args:
        path: The layer's path in the model, and the weight's name.
        variable: The Keras variable.
        input_axis: The axis over which its products are summed up, the last of them where there
            are several; `None` for a table that is looked up.
    """

    path: str
    variable: object
    input_axis: int | None


def kernels_of(model, layers=None):
    """The kernels of a model that are trained.

    Kernels of dense, convolutional and recurrent layers and of attention, pointwise kernels of
    separable convolutions, and embeddings, as tensorflow-model-optimization has it. Not biases,
    normalization and depthwise kernels, which are few.

    Args:
        model: A built `keras.Model`.
        layers: Names (or paths) of layers; only what is in these. Default: all.

    Raises:
        ValueError: The model is not built, has no such layer, or nothing to prune in it.
    """
    if not isinstance(model, keras.Model):
        raise invalid("student", "a keras.Model", repr(model))
    if not model.built:
        raise ValueError(
            f"Model {model.name!r} has no weights yet. Call it on a batch, or give it an Input."
        )
    trained = {id(variable) for variable in model.trainable_variables}
    names = checked_names(layers)
    chosen = [model] if names is None else [_layer(model, name) for name in names]
    found = {}
    for root in chosen:
        for path, layer in [(root.name, root), *((p, x) for p, _, x in paths.walk(root))]:
            for name, axis in _weights(layer):
                variable = getattr(layer, name)
                if id(variable) in trained:
                    kernel = Kernel(f"{path}/{name}", variable, axis)
                    found.setdefault(id(variable), kernel)
    if not found:
        raise ValueError(
            f"Model {model.name!r} has no kernel that is trained"
            f"{'' if layers is None else f' in the layers {layers}'}: nothing can be pruned or "
            "clustered."
        )
    return list(found.values())


def checked_names(layers):
    """Returns a list of names of layers, or `None`; raises where it is neither."""
    if layers is None:
        return None
    is_list = isinstance(layers, (list, tuple)) and len(layers) > 0
    if not is_list or not all(isinstance(name, str) for name in layers):
        raise invalid("layers", "a list of names of layers, or None for all", repr(layers))
    return list(layers)


def _layer(model, name):
    return paths.find_layer(model, name)


def _weights(layer):
    """`(name, input axis)` of the kernels of a layer itself."""
    if not getattr(layer, "built", False):  # one that was never called has none
        return []
    if isinstance(layer, keras.layers.Dense):
        return [("kernel", 0)]
    if isinstance(layer, keras.layers.EinsumDense):
        return [("kernel", max(kernel_layers.summed_axes(layer.equation)))]
    if isinstance(layer, kernel_layers.TRANSPOSED):
        return [("kernel", -1)]
    if isinstance(layer, kernel_layers.CONVOLUTIONS):
        return [("kernel", -2)]
    if isinstance(layer, kernel_layers.SEPARABLE):
        return [("pointwise_kernel", -2)]
    if isinstance(layer, keras.layers.Embedding):
        return [("embeddings", None)]
    if isinstance(layer, kernel_layers.RECURRENT_CELLS):
        return [("kernel", 0), ("recurrent_kernel", 0)]
    return []

"""What pruning and clustering share: `kernels_of`, the weights, and `CompressionCallback`."""

import dataclasses
from typing import Any

import keras

from keras_kd import models
from keras_kd._utils.validation import invalid
from keras_kd.models import paths


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A weight that is pruned or clustered.

    Args:
        path: The layer's path in the model, and the weight's name.
        variable: The Keras variable.
        input_axis: The axis over which its products are summed, the last one where there are
            several; `None` for an embedding.
    """

    path: str
    variable: Any
    input_axis: int | None


def kernels_of(model: keras.Model, layers: Any = None) -> list[Kernel]:
    """The kernels of a model that are trained.

    Kernels of dense, convolutional, recurrent and attention layers, pointwise kernels of separable
    convolutions, and embeddings, as in tensorflow-model-optimization. Biases, normalization and
    depthwise kernels are few and stay.

    Args:
        model: A built `keras.Model`.
        layers: Names (or paths) of layers; only what they contain. Default: all.

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
    names = check_names(layers)
    chosen = [model] if names is None else [paths.find_layer(model, name) for name in names]
    found: dict[int, Kernel] = {}
    for root in chosen:
        for path, layer in [(root.name, root), *((p, x) for p, _, x in paths.walk(root))]:
            for name, axis in _kernel_axes(layer):
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


def check_names(layers: Any) -> list[str] | None:
    """Returns a list of names of layers, or `None`; raises where it is neither."""
    if layers is None:
        return None
    is_list = isinstance(layers, (list, tuple)) and len(layers) > 0
    if not is_list or not all(isinstance(name, str) for name in layers):
        raise invalid("layers", "a list of names of layers, or None for all", repr(layers))
    return list(layers)


def _kernel_axes(layer):
    """`(name, input axis)` of the kernels of a layer itself."""
    if not getattr(layer, "built", False):  # one that was never called has none
        return []
    if isinstance(layer, keras.layers.Dense):
        return [("kernel", 0)]
    if isinstance(layer, keras.layers.EinsumDense):
        return [("kernel", max(models.summed_axes(layer.equation)))]
    if isinstance(layer, models.TRANSPOSED):
        return [("kernel", -1)]
    if isinstance(layer, models.CONVOLUTIONS):
        return [("kernel", -2)]
    if isinstance(layer, models.SEPARABLE):
        return [("pointwise_kernel", -2)]
    if isinstance(layer, keras.layers.Embedding):
        return [("embeddings", None)]
    if isinstance(layer, models.RECURRENT_CELLS):
        return [("kernel", 0), ("recurrent_kernel", 0)]
    return []


class CompressionCallback(keras.callbacks.Callback):
    """Base class of `Sparsify` and `Cluster`: finds the kernels, and counts the steps of `fit`.

    Args:
        student: The model to change, which `fit` must train; `None`: the distiller's student, or
            the model itself.
        layers: See `kernels_of`.
    """

    def __init__(self, student: Any = None, layers: Any = None) -> None:
        super().__init__()
        if not (student is None or isinstance(student, keras.Model)):
            raise invalid("student", "a keras.Model, or None for the one of fit", repr(student))
        self.student, self.layers = student, check_names(layers)
        self.kernels: list[Kernel] = []
        self.step = 0
        self._has_begun = False

    def prepare(self, distiller: Any, callbacks: list[Any]) -> None:
        """Checks the callbacks beside it; called by the `fit` of a distiller."""
        del distiller
        same = [
            each
            for each in callbacks
            if isinstance(each, CompressionCallback) and each.student is self.student
        ]
        if len(same) > 1:
            kinds = " and ".join(type(each).__name__ for each in same)
            raise ValueError(
                f"{kinds} would undo each other's work in one fit. Use one fit after the other: "
                "Sparsify, then Cluster(preserve_sparsity=True)."
            )

    def begin(self, is_resumed: bool) -> None:
        """Called before the first step, after other callbacks have restored what they saved."""
        raise NotImplementedError

    def after_steps(self, before: int) -> None:
        """Called after one or several steps; `before` is the number of steps before them."""
        raise NotImplementedError

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.kernels = kernels_of(self._model_to_change(), self.layers)
        self._has_begun = False

    def _model_to_change(self):
        trained = {id(variable) for variable in self.model.trainable_variables}
        inner = getattr(self.model, "student", None)
        model = self.student
        if model is None:
            model = inner if isinstance(inner, keras.Model) else self.model
        if not any(id(variable) in trained for variable in model.trainable_variables):
            raise ValueError(
                f"{type(self).__name__} was made for the model {model.name!r}, and this fit "
                "trains none of its weights. Make one for the student of this distiller."
            )
        return model

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        steps = self.params.get("steps")
        if steps is not None:
            self.step = epoch * steps
        elif not self._has_begun:
            if epoch > 0:
                raise ValueError(
                    f"{type(self).__name__} does not know how many steps the epochs before epoch "
                    f"{epoch} had. Pass steps_per_epoch to fit."
                )
            self.step = 0
        self._first = self.step
        if not self._has_begun:
            self._has_begun = True
            self.begin(is_resumed=self.step > 0)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        before, self.step = self.step, self._first + batch + 1
        self.after_steps(before)

    def total_steps(self) -> int | None:
        """Steps of the whole `fit`; `None` if that is not known."""
        steps, epochs = self.params.get("steps"), self.params.get("epochs")
        return None if steps is None or epochs is None else steps * epochs

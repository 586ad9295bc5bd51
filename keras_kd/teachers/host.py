"""`HostTeacher`: a teacher that runs outside of TensorFlow, on NumPy arrays."""

import hashlib
import pathlib
import threading

import keras
import numpy as np
import tensorflow as tf

from keras_kd import models
from keras_kd.teachers import protocol

# Sizes that stand for unknown dimensions of the inputs when the outputs' shapes are found out.
_PROBE_SIZES = (8, 16)


class HostTeacher(protocol.Teacher):
    """Base class of teachers of other runtimes.

    `Distiller.fit` asks such a teacher while the data is prepared, off the training thread and
    ahead of the step, so that the two overlap; the batch then carries its outputs. Where the data
    does not come through `fit` it is asked in the step. It runs also while `beta` is 0.
    Subclasses implement `predict`.

    Args:
        preprocess: As of `Teacher`, in TensorFlow operations.
        name: As of `Teacher`.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_kd as kd

    class Fixed(kd.teachers.HostTeacher):
        def predict(self, inputs, layers=()):
            return np.tile(np.float32([0.0, 1.0]), (len(inputs), 1)), {}

    student = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)])
    distiller = kd.Distiller(Fixed(), student)
    ```
    """

    runs_on_host = True

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # The pipeline of one epoch may still ask when that of the next begins, on another thread;
        # hooks and interpreters of a runtime serve one question at a time.
        self._turn = models.Untracked(threading.Lock())

    def predict(self, inputs, layers=()):
        """What the teacher says of a batch.

        Args:
            inputs: The batch's inputs, NumPy arrays in their structure.
            layers: Names of the layers to read, as `resolve` gives them.

        Returns:
            `(outputs, {layer: value})`: NumPy arrays, or structures of them, float32.
        """
        raise NotImplementedError

    def call(self, inputs):
        return self._asked(inputs, [])[0]

    def predict_batch(self, batch):
        return self.call(self.prepared(batch.inputs))

    def resolve(self, layer):
        raise ValueError(
            f"A distillation loss reads the teacher's layer {str(layer)!r}, but a "
            f"{type(self).__name__} has outputs only."
        )

    def with_taps(self, layers):
        return lambda batch: self._asked(self.prepared(batch.inputs), list(layers))

    # `predict` is another runtime's code, which AutoGraph would rewrite and warn of.
    @tf.autograph.experimental.do_not_convert
    def _asked(self, inputs, layers):
        """`predict` as a TensorFlow operation."""
        inputs = keras.tree.map_structure(tf.convert_to_tensor, inputs)
        flat_inputs = keras.tree.flatten(inputs)
        if tf.executing_eagerly() and not any(map(tf.is_symbolic_tensor, flat_inputs)):
            result = self._said(keras.tree.map_structure(lambda x: x.numpy(), inputs), layers)
            return keras.tree.map_structure(tf.convert_to_tensor, result)
        spec = self._spec(inputs, layers)
        flat_spec = keras.tree.flatten(spec)

        def predict(*flat):
            result = self._said(keras.tree.pack_sequence_as(inputs, list(flat)), layers)
            found = keras.tree.flatten(result)
            for array, each in zip(found, flat_spec, strict=True):
                each.check(array, self.name)
            return found

        flat = tf.numpy_function(predict, flat_inputs, [tf.float32] * len(flat_spec), False)
        flat = flat if isinstance(flat, (list, tuple)) else [flat]  # TensorFlow unpacks one
        for tensor, shape in zip(flat, flat_spec, strict=True):
            tensor.set_shape(shape.shape)
        return keras.tree.pack_sequence_as(spec, flat)

    def _said(self, inputs, layers):
        with self._turn.value:
            result = self.predict(inputs, layers)
        return keras.tree.map_structure(lambda x: np.asarray(x, np.float32), result)

    def _spec(self, inputs, layers):
        """The outputs' shapes, a `Shape` for each, from what the teacher says of zeros."""
        with self._turn.value:
            found = [
                keras.tree.map_structure(
                    lambda x: Shape(np.shape(x)), self.predict(_zeros(inputs, size), layers)
                )
                for size in _PROBE_SIZES
            ]
        return keras.tree.map_structure(_common, *found)


class Shape:
    """The shape of an array; a leaf, not a structure, to `keras.tree`.

    Args:
        shape: Its dimensions, `None` for one that is not known.
    """

    def __init__(self, shape):
        self.shape = tuple(shape)

    def check(self, array, who):
        """Raises where an array has another shape: the student's graph was made for this one."""
        if not tf.TensorShape(self.shape).is_compatible_with(array.shape):
            raise ValueError(
                f"{who} gave an output of shape {array.shape}, where it gave {self.shape} for "
                "inputs of zeros. The shape of an output must follow from that of the inputs."
            )


def _common(one, other):
    same = zip(one.shape[1:], other.shape[1:], strict=True)
    return Shape((None, *(a if a == b else None for a, b in same)))


def _zeros(inputs, size):
    def zeros(tensor):
        shape = [size if dim is None else dim for dim in tensor.shape[1:]]
        # A scalar has no axis of rows.
        return np.zeros((2, *shape) if tensor.shape.rank else (), tensor.dtype.as_numpy_dtype)

    return keras.tree.map_structure(zeros, inputs)


def of_files(paths, more=()):
    """The digest of the contents of files, and of more bytes."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(pathlib.Path(path).read_bytes())
    for part in more:
        digest.update(part)
    return digest.hexdigest()


def pick(outputs, key, who):
    """One output of a dict of them: that of a name, or the only one.

    Raises:
        ValueError: There are several and none is chosen, or not that one.
    """
    if key is None and len(outputs) == 1:
        return next(iter(outputs.values()))
    if key not in outputs:
        raise ValueError(
            f"{who} has the outputs {list(outputs)}. Choose one of them with `output`. "
            f"Received: output={key!r}"
        )
    return outputs[key]

"""`HostTeacher`: a teacher that runs outside of TensorFlow, on NumPy arrays."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_kd import models
from keras_kd.teachers import protocol

# Sizes that stand for unknown dimensions of the inputs when the outputs' shapes are probed.
_PROBE_SIZES = (8, 16)


class HostTeacher(protocol.Teacher):
    """Base class of teachers of other runtimes.

    `Distiller.fit` runs such a teacher while the data is prepared, off the training thread and
    ahead of the step, so that the two overlap; its outputs are attached to the batch. Where the
    data does not come through `fit` it runs in the step. It runs also while `beta` is 0.
    Subclasses implement `predict`. Batches are asked for one at a time, unless the class, or the
    instance before its `__init__`, sets `parallel_batches` to how many `predict` may run at once.

    Args:
        preprocess: See `Teacher`; in TensorFlow operations.
        name: See `Teacher`.

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

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The pipeline of one epoch may still run the teacher when that of the next begins, on
        # another thread; hooks and interpreters of a runtime serve one batch at a time.
        slots = threading.BoundedSemaphore(self.parallel_batches)
        self.prediction_slots = models.Untracked(slots)
        self._failure: models.Untracked = models.Untracked(None)

    @property
    def failure(self) -> Exception | None:
        return self._failure.value

    def predict(self, inputs: Any, layers: Any = ()) -> tuple[Any, dict]:
        """The teacher's outputs for a batch.

        Args:
            inputs: The batch's inputs, NumPy arrays in their structure.
            layers: Names of the layers to read, as `resolve` returns them.

        Returns:
            `(outputs, {layer: value})`: NumPy arrays, or structures of them, float32.
        """
        raise NotImplementedError

    def call(self, inputs: Any) -> Any:
        return self._predict_op(inputs, [])[0]

    def predict_batch(self, batch: protocol.TeacherInputs) -> Any:
        return self.call(self.prepared(batch.inputs))

    def resolve(self, layer: Any) -> Any:
        raise ValueError(
            f"A distillation loss reads the teacher's layer {str(layer)!r}, but a "
            f"{type(self).__name__} has outputs only."
        )

    def with_taps(self, layers: list) -> protocol.Forward:
        return lambda batch: self._predict_op(self.prepared(batch.inputs), list(layers))

    def output_shapes(self, inputs: Any, layers: list) -> Any:
        """The shapes of `predict`'s result, each a `Shape`, from runs on zeros."""
        with self.prediction_slots.value:
            shapes = [
                keras.tree.map_structure(
                    lambda x: Shape(np.shape(x)), self.predict(_zeros(inputs, size), layers)
                )
                for size in _PROBE_SIZES
            ]
        return keras.tree.map_structure(_common_shape, *shapes)

    # `predict` is another runtime's code, which AutoGraph would rewrite and warn of.
    @tf.autograph.experimental.do_not_convert
    def _predict_op(self, inputs: Any, layers: list) -> tuple[Any, dict]:
        """`predict` as a TensorFlow operation."""
        inputs = keras.tree.map_structure(tf.convert_to_tensor, inputs)
        flat_inputs = keras.tree.flatten(inputs)
        if tf.executing_eagerly() and not any(map(tf.is_symbolic_tensor, flat_inputs)):
            arrays = keras.tree.map_structure(lambda x: x.numpy(), inputs)
            result = self._predict_arrays(arrays, layers)
            return keras.tree.map_structure(tf.convert_to_tensor, result)
        shapes = self.output_shapes(inputs, layers)
        flat_shapes = keras.tree.flatten(shapes)

        def predict(*flat: np.ndarray) -> list[np.ndarray]:
            arrays = keras.tree.pack_sequence_as(inputs, list(flat))
            try:
                flat_result = keras.tree.flatten(self._predict_arrays(arrays, layers))
                for array, shape in zip(flat_result, flat_shapes, strict=True):
                    shape.check(array, self.name)
            except Exception as error:
                self._failure.value = error
                raise
            return flat_result

        flat = tf.numpy_function(predict, flat_inputs, [tf.float32] * len(flat_shapes), False)
        flat = flat if isinstance(flat, (list, tuple)) else [flat]  # TensorFlow unpacks one
        for tensor, shape in zip(flat, flat_shapes, strict=True):
            tensor.set_shape(shape.shape)
        return keras.tree.pack_sequence_as(shapes, flat)

    def _predict_arrays(self, inputs: Any, layers: list) -> Any:
        """`predict` for as many batches at once as it takes, in float32."""
        with self.prediction_slots.value:
            result = self.predict(inputs, layers)
        return keras.tree.map_structure(lambda x: np.asarray(x, np.float32), result)


@contextlib.contextmanager
def own_errors(teacher: protocol.Teacher) -> Iterator[None]:
    """Raises what a teacher raised on the host as it was, not as TensorFlow reports it.

    Args:
        teacher: The teacher.
    """
    try:
        yield
    except tf.errors.OpError as error:
        failure = teacher.failure
        # Of an earlier call it would be another text.
        if failure is None or str(failure).partition("\n")[0] not in error.message:
            raise
        raise failure from error


class Shape:
    """The shape of an array; a leaf, not a structure, to `keras.tree`.

    Args:
        shape: Its dimensions, `None` where one is not known.
    """

    def __init__(self, shape: Any) -> None:
        self.shape = tuple(shape)

    def check(self, array: np.ndarray, who: str) -> None:
        """Raises where an array has another shape: the student's graph was made for this one."""
        if not tf.TensorShape(self.shape).is_compatible_with(array.shape):
            raise ValueError(
                f"{who} gave an output of shape {array.shape}, where it gave {self.shape} for "
                "inputs of zeros. The shape of an output must follow from that of the inputs."
            )


def _common_shape(one: Shape, other: Shape) -> Shape:
    same = zip(one.shape[1:], other.shape[1:], strict=True)
    return Shape((None, *(a if a == b else None for a, b in same)))


def _zeros(inputs: Any, size: int) -> Any:
    def zeros(tensor: tf.Tensor) -> np.ndarray:
        shape = [size if dim is None else dim for dim in tensor.shape[1:]]
        # A scalar has no batch axis.
        return np.zeros((2, *shape) if tensor.shape.rank else (), tensor.dtype.as_numpy_dtype)

    return keras.tree.map_structure(zeros, inputs)

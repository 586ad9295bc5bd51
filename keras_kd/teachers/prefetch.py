"""Asks a teacher while the data is prepared, ahead of the training step and off its thread."""

import time

import keras
import numpy as np
import tensorflow as tf

from keras_kd._utils import validation
from keras_kd._utils.batches import WrappedBatches
from keras_kd.teachers import protocol

# Batches that wait for the step: enough to hide the teacher, few enough to hold in memory.
_WAITING = 4


def with_teacher(distiller, data, delivered=None):
    """The data of a `fit` or `evaluate` whose batches carry what the teacher says.

    Args:
        distiller: A `Distiller` with a teacher that runs on the host.
        data: A `tf.data.Dataset`, a `keras.utils.PyDataset` or a generator of batches. Anything
            else comes back as it is: its teacher is asked in the step.
        delivered: A function that is called when a batch of a dataset is handed to its step, such
            as `waiting.Waiting.delivered`.

    Returns:
        Data of the same kind.
    """
    if isinstance(data, tf.data.Dataset):
        if protocol.carries(protocol.inputs_of(data.element_spec)):
            return data
        asked = data.map(lambda *parts: _carrying(distiller, protocol.element_of(parts)))
        asked = asked.prefetch(_WAITING)
        # Behind the queue, where a batch passes when the step asks for it, if it is there by then.
        return asked if delivered is None else asked.map(lambda *parts: _told(parts, delivered))
    if isinstance(data, keras.utils.PyDataset):
        return _AskedBatches(distiller, data)
    if hasattr(data, "__next__"):
        return (_asked(distiller, batch) for batch in data)
    return data


def dataset_of(x, y, sample_weight, batch_size, shuffle):
    """Arrays as a `tf.data.Dataset` of batches, in the order in which `fit` would take them.

    Args:
        x: An array, or a structure of arrays.
        y: Labels, a structure of them, or `None`.
        sample_weight: As `y`.
        batch_size: Rows of a batch, or `None` for Keras' default, 32.
        shuffle: Whether each epoch has an order of its own.
    """
    parts = (x,) if y is None else (x, y) if sample_weight is None else (x, y, sample_weight)
    # TensorFlow would make one tensor of a list of arrays, and Keras gives float32 for float64.
    parts = tuple(keras.tree.lists_to_tuples(x) if is_arrays(x) else x for x in parts)
    arrays = keras.tree.map_structure(_as_keras_gives, parts)
    _check_rows(dict(zip(("x", "y", "sample_weight"), arrays, strict=False)))
    rows = len(keras.tree.flatten(arrays)[0])
    dataset = tf.data.Dataset.from_tensor_slices(arrays if len(parts) > 1 else arrays[0])
    if shuffle:
        dataset = dataset.shuffle(max(rows, 1))
    return dataset.batch(batch_size or 32)


def _check_rows(parts):
    """Raises unless all arrays have as many rows."""
    sizes = {name: list(_rows(value)) for name, value in parts.items()}
    if len({size for each in sizes.values() for size in each}) > 1:
        told = ", ".join(
            f"{name}: {each[0] if len(set(each)) == 1 else each}" for name, each in sizes.items()
        )
        raise ValueError(
            "x, y and sample_weight must have the same number of rows, one for each sample. "
            f"Received rows of {told}."
        )


def _rows(value):
    """How many rows each array has; a list becomes one array."""
    if isinstance(value, (dict, tuple)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _rows(each)
    elif isinstance(value, list) or np.ndim(value):
        yield len(value)


def _as_keras_gives(value):
    array = np.asarray(value)
    return array.astype(keras.config.floatx()) if array.dtype == np.float64 else array


def is_arrays(x):
    """Whether `fit` would take `x` for arrays in memory."""
    leaves = keras.tree.flatten(x)
    return bool(leaves) and all(isinstance(leaf, (np.ndarray, tf.Tensor)) for leaf in leaves)


def _carrying(distiller, element):
    y = element[1] if isinstance(element, tuple) and len(element) > 1 else None
    asked = distiller.with_teacher_outputs(protocol.inputs_of(element), y)
    return protocol.with_inputs(element, asked)


def _told(parts, delivered):
    """An element as it is, of which `delivered` hears."""
    element = protocol.element_of(parts)
    flat = tf.nest.flatten(element, expand_composites=True)
    with tf.control_dependencies(flat):
        heard = tf.numpy_function(lambda: delivered() is None, [], tf.bool)
    with tf.control_dependencies([heard]):
        return tf.nest.map_structure(tf.identity, element, expand_composites=True)


def _asked(distiller, batch):
    """A batch of NumPy arrays or tensors, as one of NumPy arrays."""
    batch = tuple(batch) if isinstance(batch, list) else batch
    return keras.tree.map_structure(np.asarray, _carrying(distiller, batch))


class _AskedBatches(WrappedBatches):
    """A `PyDataset` whose batches carry what the teacher says; Keras' workers ask it.

    Args:
        distiller: The `Distiller`.
        batches: The `PyDataset`.
    """

    def __init__(self, distiller, batches):
        super().__init__(batches)
        # Threads: another process would have neither TensorFlow's state nor the teacher.
        self.workers, self.use_multiprocessing = max(batches.workers, 1), False
        self._distiller = distiller

    def __getitem__(self, index):
        return _asked(self._distiller, self.batches[index])


# `Waiting`: says when `fit` mostly waits for its teacher.


# Steps and seconds of waiting before anything is said: a short fit is over sooner than a cache is
# written. The first steps are left out, in which functions are traced.
_STEPS, _SECONDS, _LEFT_OUT = 20, 10.0, 2
# From this share of waiting on, training from a cache takes less than half of the time.
_SHARE = 0.5


class TeacherWaitWarning(UserWarning):
    """`fit` waits for its teacher for most of the time."""


class Waiting(keras.callbacks.Callback):
    """Measures how long the steps of the first epoch wait for batches that a teacher answers.

    A step has waited from the end of the one before it until its batch is delivered, of which
    `ahead.with_teacher(distiller, dataset, waiting.delivered)` tells. What `keras_kd.cache_teacher`
    would save is told once.

    Args:
        clock: A function that gives seconds.
    """

    def __init__(self, clock=time.perf_counter):
        super().__init__()
        self._clock = clock
        self._delivered = None  # since the last step: when the first batch was
        self._begin, self._free = None, None
        self._waited, self._is_done = 0.0, False

    def delivered(self):
        """A batch is handed to its step."""
        if self._delivered is None:
            self._delivered = self._clock()

    def on_train_batch_end(self, batch, logs=None):
        if self._is_done:
            return
        now, steps = self._clock(), batch + 1
        if steps <= _LEFT_OUT or self._begin is None:
            self._begin = now
        elif self._delivered is not None:
            self._waited += max(self._delivered - self._free, 0.0)
        self._free, self._delivered = now, None
        if steps >= _LEFT_OUT + _STEPS and self._waited >= _SECONDS:
            self._tell(now - self._begin)

    def on_epoch_end(self, epoch, logs=None):
        self._is_done = True

    def _tell(self, passed):
        share = self._waited / passed
        if share < _SHARE:
            return
        self._is_done = True
        validation.warn(
            f"keras_kd: fit waits for the teacher for {share:.0%} of the time ({self._waited:.0f} "
            f"of {passed:.0f} seconds). Ask it once, and train from what it said in about "
            f"{1 - share:.0%} of the time: keras_kd.cache_teacher(teacher, dataset, path), then "
            "Distiller(keras_kd.teachers.Cached(path), student).fit(keras_kd.load_cache(path, "
            "dataset)).",
            TeacherWaitWarning,
        )

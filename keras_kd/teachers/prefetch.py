"""Runs a teacher in the data pipeline, ahead of the training step and off its thread."""

import os
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_kd._utils import validation
from keras_kd._utils.batches import WrappedBatches
from keras_kd.teachers import protocol

# Batches that wait for the step: enough to hide the teacher, few enough to hold in memory.
_WAITING = 4


def with_teacher(distiller: Any, data: Any, delivered: Callable[[], None] | None = None) -> Any:
    """The data of a `fit` or `evaluate` with the teacher's outputs attached to each batch.

    Args:
        distiller: A `Distiller` with a teacher that runs on the host.
        data: A `tf.data.Dataset`, a `keras.utils.PyDataset` or a generator of batches. Anything
            else is returned as it is: there the teacher runs in the step.
        delivered: A function that is called when a batch of a dataset is handed to its step, such
            as `Waiting.delivered`.

    Returns:
        Data of the same kind.
    """
    if isinstance(data, tf.data.Dataset):
        if protocol.has_attached(protocol.inputs_of(data.element_spec)):
            return data
        attached = _map(
            data,
            lambda *parts: _attach_outputs(distiller, protocol.element_of(parts)),
            distiller.source.parallel_batches,
        ).prefetch(_WAITING)
        if delivered is None:
            return attached
        # Behind the queue: a batch passes here when the step fetches it, or once it is ready.
        return attached.map(lambda *parts: _report_delivery(parts, delivered))
    if isinstance(data, keras.utils.PyDataset):
        return _BatchesWithTeacher(distiller, data)
    if hasattr(data, "__next__"):
        return (_attach_arrays(distiller, batch) for batch in data)
    return data


def _map(data: tf.data.Dataset, function: Callable, parallel: int) -> tf.data.Dataset:
    """The dataset with a function of each element, run for several at once, in order."""
    if parallel == 1:
        return data.map(function)
    mapped = data.map(function, num_parallel_calls=parallel, deterministic=True)
    # TensorFlow's own threads are as many as the machine has cores: teachers that wait for an
    # answer would hold them all, and the training step with them.
    options = tf.data.Options()
    size = data.options().threading.private_threadpool_size or os.cpu_count() or 1
    options.threading.private_threadpool_size = size + parallel
    return mapped.with_options(options)


def _attach_outputs(distiller: Any, element: Any) -> Any:
    """The element of a dataset with the teacher's outputs."""
    y = element[1] if isinstance(element, tuple) and len(element) > 1 else None
    inputs = distiller.with_teacher_outputs(protocol.inputs_of(element), y)
    return protocol.with_inputs(element, inputs)


def _attach_arrays(distiller: Any, batch: Any) -> Any:
    """A batch of NumPy arrays or tensors with the teacher's outputs, as NumPy arrays."""
    batch = tuple(batch) if isinstance(batch, list) else batch
    return keras.tree.map_structure(np.asarray, _attach_outputs(distiller, batch))


def _report_delivery(parts: tuple, delivered: Callable[[], None]) -> Any:
    """The element as it is; `delivered` is called when it passes."""
    element = protocol.element_of(parts)
    flat = tf.nest.flatten(element, expand_composites=True)

    def call() -> np.bool_:
        delivered()
        return np.bool_(True)

    with tf.control_dependencies(flat):
        called = tf.numpy_function(call, [], tf.bool)
    with tf.control_dependencies([called]):
        return tf.nest.map_structure(tf.identity, element, expand_composites=True)


class _BatchesWithTeacher(WrappedBatches):
    """A `PyDataset` with the teacher's outputs in each batch; it runs in Keras' workers.

    Args:
        distiller: The `Distiller`.
        batches: The `PyDataset`.
    """

    def __init__(self, distiller: Any, batches: keras.utils.PyDataset) -> None:
        super().__init__(batches)
        # Threads: another process would have neither TensorFlow's state nor the teacher.
        self.workers, self.use_multiprocessing = max(batches.workers, 1), False
        self._distiller = distiller

    def __getitem__(self, index: int) -> Any:
        return _attach_arrays(self._distiller, self.batches[index])


# Warns when `fit` mostly waits for its teacher.


# Steps and seconds of waiting before the warning: a short fit is over sooner than a cache is
# written. The first steps are left out, in which functions are traced.
_STEPS, _SECONDS, _LEFT_OUT = 20, 10.0, 2
# From this share of waiting on, training from a cache takes less than half of the time.
_SHARE = 0.5


class TeacherWaitWarning(UserWarning):
    """`fit` waits for its teacher for most of the time."""


class Waiting(keras.callbacks.Callback):
    """Measures how long the steps of the first epoch wait for batches from the teacher.

    A step has waited from the end of the one before it until its batch is delivered, as reported
    through `with_teacher(distiller, dataset, waiting.delivered)`. It warns once, and says what
    `keras_kd.cache_teacher` would save.

    Args:
        clock: A function that returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        super().__init__()
        self._clock = clock
        self._delivered: float | None = None  # when the first batch since the last step was
        self._begin, self._free = 0.0, 0.0
        self._has_begun = self._is_done = False
        self._waited = 0.0

    def delivered(self) -> None:
        """A batch is handed to its step."""
        if self._delivered is None:
            self._delivered = self._clock()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._is_done:
            return
        now, steps = self._clock(), batch + 1
        if steps <= _LEFT_OUT or not self._has_begun:
            self._begin, self._has_begun = now, True
        elif self._delivered is not None:
            self._waited += max(self._delivered - self._free, 0.0)
        self._free, self._delivered = now, None
        if steps >= _LEFT_OUT + _STEPS and self._waited >= _SECONDS:
            self._warn(now - self._begin)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._is_done = True

    def _warn(self, passed: float) -> None:
        share = self._waited / passed
        if share < _SHARE:
            return
        self._is_done = True
        validation.warn(
            f"keras_kd: fit waits for the teacher for {share:.0%} of the time ({self._waited:.0f} "
            f"of {passed:.0f} seconds). Run it once, and train from its stored outputs in about "
            f"{1 - share:.0%} of the time: keras_kd.cache_teacher(teacher, dataset, path), then "
            "Distiller(keras_kd.teachers.Cached(path), student).fit(keras_kd.load_cache(path, "
            "dataset)).",
            TeacherWaitWarning,
        )

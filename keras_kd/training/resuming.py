"""`Progress`: how far a `fit` is, so that one that was ended goes on at that very batch.

Keras' `BackupAndRestore` writes the weights, and then, in another file, the epoch. Of a run that
was ended between the two, or within an epoch, these do not belong together. Here the file of the
weights itself records after which batch it was written. The batches of the epoch that they have
seen are drawn and left out, so the weights at the end are those of a run that was not ended.
"""

import contextlib
import json
import os
import types

import keras
import numpy as np
import tensorflow as tf

from keras_kd._utils import files
from keras_kd.training import distribution, fit, labels, shared_backups

_POSITION, _METRIC = "position", "position_metric_"
_METADATA, _WEIGHTS = "training_metadata.json", "latest.weights.h5"


class Progress:
    """Of the `fit` of one model: the epoch, and its batches that were trained on.

    Args:
        model: The model that is trained, `Resumable`.
    """

    def __init__(self, model):
        self._model = model
        self._reset()

    def _reset(self):
        self._backups: list = []
        self._shared: shared_backups.SharedBackups | None = None
        self._restored: _Restored | None = None
        self._epoch: int | None = None
        self._batches = self._drawn = 0
        self._iterator, self._left_out, self._before_epoch = None, 0, 0
        self._metrics: dict = {}
        self._keeps_iterator = self._has_begun = False

    @contextlib.contextmanager
    def of_fit(self, given):
        """While it is open `fit` runs.

        Args:
            given: The arguments of `fit` by name; a callback is added to them.
        """
        callbacks = fit.callback_list(given)
        self._reset()
        kinds = keras.callbacks.BackupAndRestore
        self._backups = [each for each in callbacks if isinstance(each, kinds)]
        self._keeps_iterator = given.get("steps_per_epoch") and not _is_finite(given.get("x"))
        strategy, session = self._model.distribute_strategy, contextlib.ExitStack()
        if distribution.are_several_workers(strategy):
            self._shared = shared_backups.SharedBackups(strategy, self._backups)
            session.enter_context(self._shared.during_fit())
        if self._shared is None or self._shared.writes:
            for each in self._backups:
                _remove_orphan(each.backup_dir)
        epochs = _Epochs(self)
        # First, so that those which save know of an epoch's end that it is one.
        given_as_list = given.get("callbacks")
        if isinstance(given_as_list, keras.callbacks.CallbackList):
            given_as_list.callbacks.insert(0, epochs)
        else:
            given["callbacks"] = [epochs, *callbacks]
        try:
            with session:
                yield
        finally:
            if isinstance(given_as_list, keras.callbacks.CallbackList):
                given_as_list.callbacks.remove(epochs)
            self._reset()

    def begin(self):
        """Training begins; nothing is restored yet."""
        if self._shared is not None:
            self._shared.begin()

    def end(self):
        """Training has ended; backups are about to be removed."""
        if self._shared is not None:
            self._shared.end()

    def is_others(self, filepath):
        """Whether another worker writes this file, for all of them."""
        return self._shared is not None and self._shared.is_others(filepath)

    def begin_epoch(self, epoch):
        """The epoch begins, or goes on where the weights that were restored are of."""
        restored, self._restored = self._restored, None
        if self._shared is not None and not self._has_begun:
            self._shared.check_same(epoch, restored.batches if restored else 0)
        self._has_begun, self._backups = True, []
        self._epoch, self._batches, self._left_out = epoch, 0, 0
        if restored is None or restored.epoch != epoch:
            return
        self._batches = self._left_out = restored.batches
        self._drawn, self._before_epoch = restored.drawn, restored.drawn - restored.batches
        self._metrics = restored.metrics

    def end_epoch(self):
        """What is saved from here on has seen all of the epoch."""
        self._epoch, self._batches, self._left_out = (self._epoch or 0) + 1, 0, 0
        if not self._keeps_iterator:  # the next epoch has one of its own
            self._drawn, self._iterator = 0, None

    @property
    def is_within_epoch(self):
        """Whether the weights have seen batches of the epoch that begins, before it was ended."""
        return self._left_out > 0

    def train(self, function, iterator):
        """Trains on the next batches of an iterator, or leaves them out; returns the logs."""
        # Batches of `train_on_batch` come out of a generator; those of `fit` never do.
        if self._epoch is None or isinstance(iterator, types.GeneratorType):
            return function(iterator)
        if self._left_out or self._before_epoch:
            is_left_out = self._left_out > 0
            logs = self._leave_out(iterator)
            if is_left_out:
                return logs
        count = self._model.steps_per_execution
        logs = function(iterator)
        self._batches += count
        if iterator is not self._iterator:
            self._iterator, self._drawn = iterator, 0
        self._drawn += count
        return logs

    def _leave_out(self, iterator):
        self._iterator = iterator
        for _ in range(self._before_epoch):
            next(iterator)
        self._before_epoch = 0
        data = None
        for _ in range(min(self._left_out, self._model.steps_per_execution)):
            try:
                data = next(iterator)
            except StopIteration:  # the last execution of an epoch may have had fewer
                if data is None:
                    raise
                break
        if data is None:
            return None
        self._left_out = max(self._left_out - self._model.steps_per_execution, 0)
        self._restore_metrics(data)
        return self._model.get_metrics_result()

    def _restore_metrics(self, data):
        """Gives the metrics what they had seen of the epoch."""
        model, saved = self._model, self._metrics
        if not saved:
            return
        self._metrics = {}
        with model.distribute_strategy.scope():
            if labels.has_unbuilt_metrics(model.with_metrics()):
                local = model.distribute_strategy.experimental_local_results
                model.build_metrics(keras.tree.map_structure(lambda each: local(each)[0], data))
            for key, variable in _variables(model):
                if key in saved and saved[key].shape == tuple(variable.shape):
                    variable.assign(saved[key])

    def save(self, store):
        """Puts into what a model saves where it is; nothing, while no `fit` runs."""
        model = self._model
        if self._epoch is None or not isinstance(model.train_function, Counted):
            return
        store[_POSITION] = np.array([self._epoch, self._batches, self._drawn], "int64")
        if self._batches:
            for key, variable in _variables(model):
                store[_METRIC + key] = keras.ops.convert_to_numpy(variable)

    def load(self, store):
        """Takes out of what a model saved where it was; it counts for a `fit` that restores."""
        keys = list(store.keys())
        if _POSITION not in keys or not self._backups:
            return
        metrics = {
            key.removeprefix(_METRIC): store[key][...] for key in keys if key.startswith(_METRIC)
        }
        epoch, batches, drawn = map(int, store[_POSITION][...])
        self._restored = _Restored(epoch, batches, drawn, metrics)

    def restored(self, path):
        """Weights were loaded: Keras learns the epoch of a backup, and all else is forgotten.

        Args:
            path: The file.

        Raises:
            ValueError: So many steps at once cannot go on there.
        """
        folder = os.path.dirname(str(path))
        if self._restored is None or not any(
            _same(folder, backup.backup_dir) for backup in self._backups
        ):
            self._restored = None
            return
        epoch, batches = self._restored.epoch, self._restored.batches
        steps = self._model.steps_per_execution
        if batches % steps:
            raise ValueError(
                f"The backup in {folder!r} was written after batch {batches} of epoch {epoch}, "
                f"where steps_per_execution={steps} never stops. Compile with a value that "
                f"divides {batches}, such as steps_per_execution=1."
            )
        _write(os.path.join(folder, _METADATA), json.dumps({"epoch": epoch, "batch": batches}))


class _Restored:
    """Where the weights of a file are of."""

    def __init__(self, epoch, batches, drawn, metrics):
        self.epoch, self.batches, self.drawn, self.metrics = epoch, batches, drawn, metrics


class Counted:
    """A train function of Keras, whose calls a `Progress` counts.

    Not a callback of each batch: Keras would wait for the logs of every step.
    """

    def __init__(self, progress, function):
        self._progress, self._function = progress, function

    def __call__(self, iterator):
        return self._progress.train(self._function, iterator)


class _Epochs(keras.callbacks.Callback):
    def __init__(self, progress):
        super().__init__()
        self._progress = progress

    def on_train_begin(self, logs=None):
        self._progress.begin()

    def on_epoch_begin(self, epoch, logs=None):
        self._progress.begin_epoch(epoch)

    def on_epoch_end(self, epoch, logs=None):
        self._progress.end_epoch()

    def on_train_end(self, logs=None):
        self._progress.end()


def _variables(model):
    """`(key, variable)` of the metrics of a model, by their places."""
    metrics = [metric for each in model.with_metrics() for metric in each.metrics]
    for i, metric in enumerate(metrics):
        for j, variable in enumerate(metric.variables):
            yield f"{i}_{j}", variable


def _is_finite(x):
    """Whether Keras knows how many batches there are, and takes a new iterator after the last."""
    if isinstance(x, tf.data.Dataset):
        return int(x.cardinality()) >= 0
    if isinstance(x, keras.utils.PyDataset):
        return x.num_batches is not None
    return not hasattr(x, "__next__")


def _same(folder, other):
    if "://" in folder or "://" in str(other):
        return folder.rstrip("/") == str(other).rstrip("/")
    return os.path.realpath(folder) == os.path.realpath(other)


def _remove_orphan(folder):
    """Removes the epoch of weights that are gone.

    Keras writes the weights first. It removes the folder when `fit` has ended: of one that was
    ended during that the epoch may be left, and another run would begin with the last.
    """
    metadata = os.path.join(folder, _METADATA)
    if tf.io.gfile.exists(metadata) and not tf.io.gfile.exists(os.path.join(folder, _WEIGHTS)):
        tf.io.gfile.remove(metadata)


def _write(path, text):
    if "://" in path:  # whole files only are seen there
        with tf.io.gfile.GFile(path, "w") as file:
            file.write(text)
        return
    with files.replace_atomically(path) as partial:
        partial.write_text(text, encoding="utf-8")

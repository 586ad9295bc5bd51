"""`AskingAhead`: data whose batches carry what a teacher of another runtime says."""

import contextlib
import re

import keras
import tensorflow as tf

from keras_kd import fit_arguments
from keras_kd.cache.format import CacheError
from keras_kd.teachers import ahead
from keras_kd.teachers.waiting import Waiting


class AskingAhead:
    """Mixin of the distiller: `fit` and `evaluate` prepare the data of teachers on the host."""

    def fit(self, *args, **kwargs):
        """As `keras.Model.fit`."""
        with _plainly_told():
            return self._fit_ahead(*args, **kwargs)

    def _fit_ahead(self, *args, **kwargs):
        if not self._source.model.runs_on_host:
            return super().fit(*args, **kwargs)
        given = fit_arguments.named(keras.Model.fit, args, kwargs)
        given.update(_split(given))
        waiting = Waiting()
        given.update(self._asked_ahead(given, given.get("shuffle", True), waiting.delivered))
        if isinstance(given["x"], tf.data.Dataset):
            given["shuffle"] = False  # it is, or was meant not to be
            fit_arguments.join(given, [waiting])
        if self._runs_teacher_in_evaluate() and given.get("validation_data") is not None:
            given["validation_data"] = self._asked_validation(given)
        return super().fit(**given)

    def evaluate(self, *args, **kwargs):
        """As `keras.Model.evaluate`."""
        with _plainly_told():
            return self._evaluate_ahead(*args, **kwargs)

    def _evaluate_ahead(self, *args, **kwargs):
        if not (self._source.model.runs_on_host and self._runs_teacher_in_evaluate()):
            return super().evaluate(*args, **kwargs)
        given = fit_arguments.named(keras.Model.evaluate, args, kwargs)
        given.update(self._asked_ahead(given, shuffle=False))
        return super().evaluate(**given)

    def _asked_ahead(self, given, shuffle, delivered=None):
        x = given.get("x")
        if not ahead.is_arrays(x):
            return {"x": ahead.with_teacher(self, x, delivered)}
        data = ahead.dataset_of(
            x, given.get("y"), given.get("sample_weight"), given.get("batch_size"), shuffle
        )
        asked = ahead.with_teacher(self, data, delivered)
        return {"x": asked, "y": None, "sample_weight": None, "batch_size": None}

    def _asked_validation(self, given):
        data = given["validation_data"]
        if not isinstance(data, (list, tuple)):
            return ahead.with_teacher(self, data)
        x, y, weight = keras.utils.unpack_x_y_sample_weight(tuple(data))
        size = given.get("validation_batch_size") or given.get("batch_size")
        return ahead.with_teacher(self, ahead.dataset_of(x, y, weight, size, shuffle=False))


@contextlib.contextmanager
def _plainly_told():
    """What the data pipeline found wrong with a cache, without TensorFlow's words around it."""
    try:
        yield
    except tf.errors.OpError as error:
        found = re.search(r"keras_kd: ([^\n]*?)(\] *\[|\]?\n|\]?$)", error.message)
        if found is None:
            raise
        raise CacheError(found.group(1)[:1].upper() + found.group(1)[1:]) from error


def _split(given):
    """Takes the last part of the arrays for validation, as Keras does with `validation_split`."""
    share = given.pop("validation_split", 0.0)
    if not share:
        return {}
    if not ahead.is_arrays(given.get("x")) or not 0 < share < 1:
        raise ValueError(
            "`validation_split` needs data in arrays, and a number between 0 and 1. Received: "
            f"validation_split={share!r}, x of type {type(given.get('x')).__name__}. Pass "
            "`validation_data`."
        )
    names = ("x", "y", "sample_weight")
    parts = {name: given[name] for name in names if given.get(name) is not None}
    rows = len(keras.tree.flatten(parts["x"])[0])
    at = int(rows * (1.0 - share))
    first = {name: keras.tree.map_structure(lambda v: v[:at], v) for name, v in parts.items()}
    last = {name: keras.tree.map_structure(lambda v: v[at:], v) for name, v in parts.items()}
    return {**first, "validation_data": tuple(last.values())}

"""Teachers that run outside of TensorFlow: their outputs come with the batches of the data."""

import contextlib
import re
from typing import Any

import keras
import tensorflow as tf

from keras_kd._utils import batches
from keras_kd.teachers import host, prefetch
from keras_kd.teachers.cache.format import CacheError
from keras_kd.teachers.prefetch import Waiting


def prepare_fit(distiller: Any, call: Any) -> None:
    """The data of a `fit`, and that of its validation where that runs the teacher.

    Args:
        distiller: A `Distiller` with a teacher that runs on the host.
        call: The `fit.FitCall`; changed.
    """
    given, waiting = call.arguments, Waiting()
    given.update(_split(given))
    shuffle = given.get("shuffle", True)
    given.update(_with_teacher(distiller, given, shuffle, waiting.delivered))
    if isinstance(given["x"], tf.data.Dataset):
        given["shuffle"] = False  # it is, or was meant not to be
        call.add_callbacks([waiting])
    if distiller.evaluation.runs_teacher and given.get("validation_data") is not None:
        given["validation_data"] = _validation_data(distiller, given)


def prepare_evaluate(distiller: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments of an `evaluate` that runs the teacher."""
    return {**arguments, **_with_teacher(distiller, arguments, shuffle=False)}


def _with_teacher(distiller, given, shuffle, delivered=None):
    x = given.get("x")
    if not batches.is_arrays(x):
        return {"x": prefetch.with_teacher(distiller, x, delivered)}
    data = batches.dataset_of(
        x, given.get("y"), given.get("sample_weight"), given.get("batch_size"), shuffle
    )
    asked = prefetch.with_teacher(distiller, data, delivered)
    return {"x": asked, "y": None, "sample_weight": None, "batch_size": None}


def _validation_data(distiller, given):
    data = given["validation_data"]
    if not isinstance(data, (list, tuple)):
        return prefetch.with_teacher(distiller, data)
    x, y, weight = keras.utils.unpack_x_y_sample_weight(tuple(data))
    size = given.get("validation_batch_size") or given.get("batch_size")
    return prefetch.with_teacher(distiller, batches.dataset_of(x, y, weight, size, shuffle=False))


@contextlib.contextmanager
def data_errors(teacher):
    """What the pipeline found wrong with a cache or a teacher, without TensorFlow's words."""
    try:
        with host.own_errors(teacher):
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
    if not batches.is_arrays(given.get("x")) or not 0 < share < 1:
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

"""What of teacher, student and data does not fit, told before either of them runs."""

import keras
import numpy as np
import tensorflow as tf

from keras_kd import symbolic_pass
from keras_kd.diagnosis import batches, measure, rows


def check(models, name, data):
    """Raises for inputs, outputs and labels that cannot be those of a diagnosis.

    Args:
        models: `measure.Models`.
        name: The argument's name, for messages.
        data: As of `keras_kd.diagnose`, checked by `batches.check`.
    """
    inputs, found = symbolic_pass.specs_of(data), {}
    for role in ("teacher", "student"):
        model = getattr(models, role)
        asks_others = role == "teacher" and models.preprocess is not None
        if model is None or asks_others:
            continue
        outputs = symbolic_pass.check(name, inputs, f"the {role}", model)
        if outputs is not None:
            rows.flat_outputs(role, keras.tree.map_structure(_one_row, outputs))
            found[role] = outputs
    shape = found["teacher"].shape[1:] if "teacher" in found else (None,)
    if not isinstance(data, tf.data.Dataset):
        _check_labels(name, data, None if None in shape else tuple(shape))


def _one_row(spec):
    return np.zeros([1, *(size or 1 for size in spec.shape[1:])])


def _check_labels(name, data, shape):
    """Raises where arrays have no label that can be looked at."""
    _, y, weights = keras.utils.unpack_x_y_sample_weight(data)
    if y is None:
        raise ValueError(f"`{name}` has no labels: (inputs, None). Pass (inputs, labels).")
    if shape is None:
        return
    y = keras.tree.map_structure(np.asarray, y)
    shape = (len(keras.tree.flatten(y)[0]), *shape)
    labels, _ = measure.labels_of(name, y, shape)
    counted = batches.row_weights(name, weights, shape) > 0
    if not (counted & (labels >= 0) & (labels < shape[-1])).any():
        raise measure.nothing(name)

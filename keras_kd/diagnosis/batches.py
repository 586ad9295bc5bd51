"""The data of a diagnosis as batches of inputs, labels and weights."""

import keras
import numpy as np
import tensorflow as tf

from keras_kd import checks

# Large enough for a model to run well, small enough for its activations.
BATCH_SIZE = 256


def check(name, data):
    """Raises unless `data` is a finite, batched dataset or a tuple of arrays, with labels."""
    if isinstance(data, tf.data.Dataset):
        _check_dataset(name, data)
    elif isinstance(data, tuple) and len(data) in (2, 3):
        _check_arrays(name, data)
    else:
        raise _unusable(name, f"{type(data).__name__}")


def _unusable(name, received):
    return ValueError(
        f"`{name}` must be a tf.data.Dataset of batches (x, y) or (x, y, sample_weight), or a "
        f"tuple of such arrays. Received: {received}."
    )


def _check_dataset(name, data):
    spec = data.element_spec
    if not isinstance(spec, tuple) or len(spec) not in (2, 3):
        raise _unusable(name, f"a dataset of {spec}")
    if any(getattr(each, "shape", None) == () for each in keras.tree.flatten(spec)):
        raise ValueError(f"`{name}` is a dataset of single rows. Call .batch({BATCH_SIZE}) on it.")
    if checks.never_ends(data):
        raise ValueError(f"`{name}` never ends. Limit it: .take(number_of_batches).")
    if data.cardinality() == 0:
        raise ValueError(f"`{name}` is empty: a dataset of 0 batches. Expected one at least.")


def _check_arrays(name, data):
    if data[0] is None:
        raise ValueError(f"`{name}` has no inputs: (None, labels). Pass (inputs, labels).")
    for each in keras.tree.flatten(data):
        if each is not None and np.ndim(each) == 0:
            raise ValueError(
                f"`{name}` holds {checks.briefly(each)} of type {type(each).__name__} where an "
                "array is expected. Make arrays of lists: np.asarray(x)."
            )
    lengths = {(*np.shape(each), 0)[0] for each in keras.tree.flatten(data) if each is not None}
    if len(lengths) != 1 or lengths == {0}:
        raise ValueError(
            f"The arrays of `{name}` must have one length, above 0. "
            f"Received: {sorted(lengths)} rows."
        )
    for weights in keras.tree.flatten(data[2:]):
        check_weights(name, weights)


def check_weights(name, weights):
    """Raises unless sample weights are finite numbers of at least 0; `None` is none."""
    weights = np.asarray(0 if weights is None else weights)
    if weights.dtype.kind not in "biuf" or not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError(f"The sample weights of `{name}` must be finite and at least 0.")


def of(data):
    """Yields `(x, y, sample_weight)` of each batch; `x` as tensors, the others as NumPy arrays."""
    for batch in data if isinstance(data, tf.data.Dataset) else _slices(data):
        x, y, weight = keras.utils.unpack_x_y_sample_weight(batch)
        yield keras.tree.map_structure(_tensor, x), y, weight


def count(data, batch_size=BATCH_SIZE):
    """How many batches checked data has, or `None` where only a pass would tell."""
    if isinstance(data, tf.data.Dataset):
        known = int(data.cardinality())
        return known if known >= 0 else None
    return -(-len(keras.tree.flatten(data)[0]) // batch_size)


def _slices(data):
    arrays = keras.tree.map_structure(lambda x: x if x is None else np.asarray(x), data)
    rows = len(keras.tree.flatten(arrays)[0])
    for start in range(0, rows, BATCH_SIZE):
        part = slice(start, start + BATCH_SIZE)
        yield keras.tree.map_structure(lambda x, part=part: x if x is None else x[part], arrays)


def _tensor(x):
    x = tf.convert_to_tensor(x)
    # As `fit` does with arrays: NumPy's own type is float64.
    return tf.cast(x, keras.config.floatx()) if x.dtype == tf.float64 else x


def row_weights(name, sample_weight, shape):
    """Weights of the rows, float64 `[rows]`, of outputs of a shape.

    Raises:
        ValueError: They do not fit, or are no finite numbers of at least 0.
    """
    if sample_weight is None:
        return np.ones(int(np.prod(shape[:-1])))
    weights = np.asarray(sample_weight, np.float64)
    if weights.ndim == len(shape) and weights.shape[-1] == 1:
        weights = weights[..., 0]
    if weights.shape != tuple(shape[: weights.ndim]) or not 1 <= weights.ndim < len(shape):
        raise ValueError(
            f"The sample weights of `{name}` have shape {tuple(weights.shape)}, which does not fit "
            f"outputs of shape {tuple(shape)}. Expected [batch], or one for each position."
        )
    check_weights(name, weights)
    weights = weights.reshape(weights.shape + (1,) * (len(shape) - 1 - weights.ndim))
    return np.broadcast_to(weights, shape[:-1]).reshape(-1)

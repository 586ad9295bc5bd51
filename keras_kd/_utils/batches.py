"""Data as batches of inputs, labels and weights: checked, read and watched in one place."""

import keras
import numpy as np
import tensorflow as tf

from keras_kd._utils import validation

# The data of a diagnosis as batches of inputs, labels and weights.


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
    if validation.never_ends(data):
        raise ValueError(f"`{name}` never ends. Limit it: .take(number_of_batches).")
    if data.cardinality() == 0:
        raise ValueError(f"`{name}` is empty: a dataset of 0 batches. Expected one at least.")


def _check_arrays(name, data):
    if data[0] is None:
        raise ValueError(f"`{name}` has no inputs: (None, labels). Pass (inputs, labels).")
    for each in keras.tree.flatten(data):
        if each is not None and np.ndim(each) == 0:
            raise ValueError(
                f"`{name}` holds {validation.briefly(each)} of type {type(each).__name__} where an "
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


# Outputs and labels of a batch as rows of float64 logits and class indices.


# A probability of 0, or a logit of -inf, counts as the least that float32 can hold, exp(-104):
# whatever was below it has been lost.
LOWEST = -104.0


def flat_outputs(role, outputs):
    """Outputs `[..., classes]` as float64 `[rows, classes]`.

    Raises:
        ValueError: There are several outputs, or fewer than two classes.
    """
    if isinstance(outputs, (dict, list, tuple)):
        raise ValueError(
            f"The {role} has {len(outputs)} outputs in a {type(outputs).__name__}; classifiers "
            "with one output [..., classes] can be diagnosed. Make a model of one of them: "
            "keras.Model(model.inputs, output)."
        )
    array = np.asarray(outputs)
    if array.ndim < 2 or array.shape[-1] < 2:
        raise ValueError(
            f"The {role} gives outputs of shape {tuple(array.shape)}. Classifiers with outputs "
            "[batch, ..., classes] and at least two classes can be diagnosed; regression and "
            "single sigmoid outputs cannot."
        )
    return array.reshape(-1, array.shape[-1]).astype(np.float64)


def class_indices(labels, shape):
    """Labels as class indices.

    Args:
        labels: Class indices `[batch, ...]` or `[batch, ..., 1]`, or a probability for each class,
            `[batch, ..., classes]`, of which the largest counts.
        shape: Of the model's outputs.

    Returns:
        `(indices, classes)`: int64 `[rows]`, negative for rows without a label, and how many
        classes the labels name where they have a number for each, else `None`. `None` in place of
        both where they are no labels of one class a row.
    """
    labels = np.asarray(labels)
    if labels.ndim == len(shape) and labels.shape[-1] == 1:
        labels = labels[..., 0]
    if not (np.issubdtype(labels.dtype, np.number) and np.isrealobj(labels)):
        return None
    if labels.shape == tuple(shape[:-1]):
        whole = np.isfinite(labels) & (np.floor(labels) == labels)
        return (labels.reshape(-1).astype(np.int64), None) if whole.all() else None
    if labels.ndim != len(shape) or labels.shape[:-1] != tuple(shape[:-1]):
        return None
    # A hundredth: label smoothing in half precision.
    if (labels < 0).any() or (abs(labels.sum(axis=-1, dtype=np.float64) - 1) > 0.01).any():
        return None
    return labels.argmax(axis=-1).reshape(-1), labels.shape[-1]


def are_finite(values):
    """Which rows `[rows]` have a distribution: no NaN, no +inf, and not only -inf."""
    return ~(np.isnan(values).any(-1) | np.isposinf(values).any(-1) | np.isneginf(values).all(-1))


def to_logits(values, from_logits):
    """Finite logits `[rows, classes]`, the largest of each row 0, of finite rows."""
    if not from_logits:
        positive = values > 0
        values = np.where(positive, np.log(np.where(positive, values, 1.0)), -np.inf)
    largest = values.max(axis=-1, keepdims=True)
    # Of a row of numbers that are no probabilities none may be left.
    shifted = values - np.where(np.isfinite(largest), largest, 0.0)
    return np.where(np.isneginf(shifted), LOWEST, shifted)


# `PyDataset`s around the user's, and generators likewise: a batch is drawn once, and looked at.


class WrappedBatches(keras.utils.PyDataset):
    """Gives what another `PyDataset` gives.

    Args:
        batches: The `PyDataset`.
    """

    def __init__(self, batches):
        super().__init__(
            workers=batches.workers,
            use_multiprocessing=batches.use_multiprocessing,
            max_queue_size=batches.max_queue_size,
        )
        self.batches = batches

    @property
    def num_batches(self):
        return self.batches.num_batches

    def __getitem__(self, index):
        return self.batches[index]

    def on_epoch_begin(self):
        self.batches.on_epoch_begin()

    def on_epoch_end(self):
        self.batches.on_epoch_end()


class PeekedBatches(WrappedBatches):
    """A `PyDataset` whose first batch was looked at: Keras gets that very batch.

    A batch that is drawn twice may be two: data that is augmented at random, or counted.

    Args:
        batches: The `PyDataset`; not empty.
    """

    def __init__(self, batches):
        super().__init__(batches)
        self.first = self._kept = batches[0]

    def __getitem__(self, index):
        if index != 0 or self._kept is None:
            return self.batches[index]
        kept, self._kept = self._kept, None
        return kept


class WatchedBatches(WrappedBatches):
    """A `PyDataset` that shows the first batch that passes; in worker processes none passes here.

    Args:
        batches: The `PyDataset`.
        show: A function of the batch.
    """

    def __init__(self, batches, show):
        super().__init__(batches)
        self._show = None if batches.use_multiprocessing else show

    def __getitem__(self, index):
        batch = self.batches[index]
        show, self._show = self._show, None
        if show is not None:
            show(batch)
        return batch


def watched_generator(generator, show):
    """A generator that shows its first batch when it is drawn."""
    is_first = True
    for batch in generator:
        if is_first:
            show(batch)
            is_first = False
        yield batch

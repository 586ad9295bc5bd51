"""Data as batches: checked, counted, read, and the first one looked at before training."""

import types
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_kd._utils import validation
from keras_kd._utils.validation import invalid

# Large enough for a model to run well, small enough for its activations.
BATCH_SIZE = 256


# Checks, before anything is read.


def check_data(name: str, data: Any) -> None:
    """Raises unless `data` is a finite, batched dataset or a tuple of arrays, with labels.

    Args:
        name: The argument that holds it.
        data: `(x, y)` or `(x, y, sample_weight)`, or a `tf.data.Dataset` of such batches.
    """
    if isinstance(data, tf.data.Dataset):
        _check_dataset(name, data)
    elif isinstance(data, tuple) and len(data) in (2, 3):
        _check_arrays(name, data)
    else:
        raise _unusable(name, f"{type(data).__name__}")


def _unusable(name: str, received: str) -> ValueError:
    return ValueError(
        f"`{name}` must be a tf.data.Dataset of batches (x, y) or (x, y, sample_weight), or a "
        f"tuple of such arrays. Received: {received}."
    )


def _check_dataset(name: str, data: tf.data.Dataset) -> None:
    spec = data.element_spec
    if not isinstance(spec, tuple) or len(spec) not in (2, 3):
        raise _unusable(name, f"a dataset of {spec}")
    if any(getattr(each, "shape", None) == () for each in keras.tree.flatten(spec)):
        raise ValueError(
            f"`{name}` is a dataset of single samples. Call .batch({BATCH_SIZE}) on it."
        )
    if never_ends(data):
        raise ValueError(f"`{name}` never ends. Limit it: .take(number_of_batches).")
    if data.cardinality() == 0:
        raise ValueError(f"`{name}` is empty: a dataset of 0 batches. Expected at least one.")


def _check_arrays(name: str, data: tuple) -> None:
    if data[0] is None:
        raise ValueError(f"`{name}` has no inputs: (None, labels). Pass (inputs, labels).")
    arrays = [each for each in keras.tree.flatten(data) if each is not None]
    for each in arrays:
        if np.ndim(each) == 0:
            raise ValueError(
                f"`{name}` holds {validation.briefly(each)} of type {type(each).__name__} where an "
                "array is expected. Make arrays of lists: np.asarray(x)."
            )
    lengths = {np.shape(each)[0] for each in arrays}
    if len(lengths) != 1 or lengths == {0}:
        raise ValueError(
            f"The arrays of `{name}` must have one length, above 0. "
            f"Received: {sorted(lengths)} samples."
        )
    for weights in keras.tree.flatten(data[2:]):
        check_weights(name, weights)


def check_weights(name: str, weights: Any) -> None:
    """Raises unless sample weights are finite numbers of at least 0, or `None`."""
    weights = np.asarray(0 if weights is None else weights)
    if weights.dtype.kind not in "biuf" or not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError(f"The sample weights of `{name}` must be finite and at least 0.")


def never_ends(data: Any) -> bool:
    """Whether a `tf.data.Dataset` or a `PyDataset` is known to be endless."""
    if isinstance(data, tf.data.Dataset):
        return int(data.cardinality()) == tf.data.INFINITE_CARDINALITY
    return isinstance(data, keras.utils.PyDataset) and data.num_batches is None


def batched(name: str, value: Any) -> tf.data.Dataset:
    """Returns a `tf.data.Dataset` of batches of dense tensors, or raises.

    Args:
        name: The argument that holds it.
        value: What was passed.
    """
    if not isinstance(value, tf.data.Dataset):
        raise invalid(
            name,
            "a batched tf.data.Dataset, such as "
            "tf.data.Dataset.from_tensor_slices((x, y)).batch(32)",
            validation.briefly(value),
        )
    _check_tensors(name, value)
    parts = tf.nest.flatten(value.element_spec)
    if any(len(part.shape) == 0 for part in parts if hasattr(part, "shape")):
        raise invalid(
            name,
            f"a batched dataset: call {name}.batch(batch_size) first",
            f"a dataset of single samples, {value.element_spec}",
        )
    return value


def _check_tensors(name: str, dataset: tf.data.Dataset) -> None:
    """Raises where parts of the elements are not dense, or of unknown rank."""
    for part in tf.nest.flatten(dataset.element_spec):
        if isinstance(part, (tf.RaggedTensorSpec, tf.SparseTensorSpec)):
            raise invalid(
                name,
                "a dataset of dense tensors: make them with tf.RaggedTensor.to_tensor() or "
                f"tf.sparse.to_dense in {name}.map",
                part,
            )
        if hasattr(part, "shape") and part.shape.rank is None:
            raise invalid(
                name,
                "a dataset whose tensors have a known rank: set it with tf.ensure_shape in "
                f"{name}.map, or in the output_signature of from_generator",
                part,
            )


# Reading: data that `check` has passed.


def iterate(data: Any) -> Iterator[tuple]:
    """Yields `(x, y, sample_weight)` of each batch; `x` as tensors, the others as NumPy arrays."""
    for batch in data if isinstance(data, tf.data.Dataset) else _slices(data):
        x, y, weight = keras.utils.unpack_x_y_sample_weight(batch)
        yield keras.tree.map_structure(_tensor, x), y, weight


def inputs_in(
    data: Any, size: int, expected: str, are_inputs: Callable[[Any], bool]
) -> Iterator[Any]:
    """Yields the inputs in each batch of the argument `data`; labels are passed over.

    Args:
        data: Inputs, `(inputs, labels)`, or a batched `tf.data.Dataset` of such.
        size: Rows of a batch of arrays.
        expected: What `data` must be, for the message.
        are_inputs: Whether arrays, not those of a dataset, are inputs.

    Raises:
        ValueError: They are none, or a dataset never ends.
    """
    if isinstance(data, tf.data.Dataset):
        if never_ends(data):
            raise ValueError("`data` never ends. Limit it: .take(number_of_batches).")
        for batch in data:
            yield keras.utils.unpack_x_y_sample_weight(batch)[0]
        return
    inputs = data[0] if isinstance(data, tuple) else data
    if not are_inputs(inputs):
        raise invalid("data", expected, validation.briefly(data))
    rows = len(keras.tree.flatten(inputs)[0])
    for i in range(0, rows, size):
        yield keras.tree.map_structure(lambda x, i=i: x[i : i + size], inputs)


def update_digest(digest: Any, batch: Any) -> None:
    """Adds types, shapes and contents of a batch to a digest of `hashlib`.

    Args:
        digest: Such as `hashlib.sha256()`.
        batch: A structure of arrays or tensors.
    """
    for part in map(np.asarray, tf.nest.flatten(batch)):
        # Texts are objects, whose bytes would be addresses.
        plain = part if part.dtype.kind != "O" else np.array(part.tolist(), dtype="S")
        digest.update(repr((plain.dtype.str, plain.shape)).encode())
        digest.update(np.ascontiguousarray(plain).tobytes())


def count_batches(data: Any, batch_size: int = BATCH_SIZE) -> int | None:
    """How many batches the data has, or `None` where only reading it tells."""
    if isinstance(data, tf.data.Dataset):
        known = int(data.cardinality())
        return known if known >= 0 else None
    return -(-len(keras.tree.flatten(data)[0]) // batch_size)


def _slices(data: tuple) -> Iterator[tuple]:
    arrays = keras.tree.map_structure(lambda x: x if x is None else np.asarray(x), data)
    samples = len(keras.tree.flatten(arrays)[0])
    for start in range(0, samples, BATCH_SIZE):
        part = slice(start, start + BATCH_SIZE)
        yield keras.tree.map_structure(lambda x, part=part: x if x is None else x[part], arrays)


def _tensor(x: Any) -> tf.Tensor:
    x = tf.convert_to_tensor(x)
    # As `fit` does with arrays: NumPy's own type is float64.
    return tf.cast(x, keras.config.floatx()) if x.dtype == tf.float64 else x


def position_weights(name: str, sample_weight: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Sample weights for outputs of a shape, float64 `[rows]`; `rows` are all its positions.

    Raises:
        ValueError: They do not fit, or are not finite numbers of at least 0.
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


# Data of a `fit`: arrays, datasets, `PyDataset`s, generators.


def is_arrays(x: Any) -> bool:
    """Whether `fit` would take `x` for arrays in memory."""
    leaves = keras.tree.flatten(x)
    return bool(leaves) and all(isinstance(leaf, (np.ndarray, tf.Tensor)) for leaf in leaves)


def dataset_of(
    x: Any, y: Any, sample_weight: Any, batch_size: int | None, shuffle: bool
) -> tf.data.Dataset:
    """Arrays as a `tf.data.Dataset` of batches, in the order in which `fit` would take them.

    Args:
        x: An array, or a structure of arrays.
        y: Labels, a structure of them, or `None`.
        sample_weight: As `y`.
        batch_size: Samples in a batch, or `None` for Keras' default, 32.
        shuffle: Whether each epoch has an order of its own.
    """
    parts = (x,) if y is None else (x, y) if sample_weight is None else (x, y, sample_weight)
    # TensorFlow would make one tensor of a list of arrays, and Keras casts float64 to float32.
    parts = tuple(keras.tree.lists_to_tuples(x) if is_arrays(x) else x for x in parts)
    arrays = keras.tree.map_structure(_as_keras_casts, parts)
    _check_lengths(dict(zip(("x", "y", "sample_weight"), arrays, strict=False)))
    samples = len(keras.tree.flatten(arrays)[0])
    dataset = tf.data.Dataset.from_tensor_slices(arrays if len(parts) > 1 else arrays[0])
    if shuffle:
        dataset = dataset.shuffle(max(samples, 1))
    return dataset.batch(batch_size or 32)


def _check_lengths(parts: dict[str, Any]) -> None:
    """Raises unless all arrays have the same number of samples."""
    sizes = {name: list(_lengths(value)) for name, value in parts.items()}
    if len({size for each in sizes.values() for size in each}) > 1:
        listed = ", ".join(
            f"{name}: {each[0] if len(set(each)) == 1 else each}" for name, each in sizes.items()
        )
        raise ValueError(
            "x, y and sample_weight must have the same number of samples, in their first "
            f"dimension. Received numbers of samples: {listed}."
        )


def _lengths(value: Any) -> Iterator[int]:
    """The length of each array; a list becomes one array."""
    if isinstance(value, (dict, tuple)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _lengths(each)
    elif isinstance(value, list) or np.ndim(value):
        yield len(value)


def _as_keras_casts(value: Any) -> np.ndarray:
    array = np.asarray(value)
    return array.astype(keras.config.floatx()) if array.dtype == np.float64 else array


def batch_rows(x: Any, batch_size: int | None) -> int | None:
    """How many samples the largest batches have; `None` where the data does not tell.

    Args:
        x: As for `fit`: arrays, or a dataset.
        batch_size: As for `fit`.
    """
    spec = getattr(x, "element_spec", None)
    first = keras.tree.flatten(x if spec is None else spec)[0]
    shape = getattr(first, "shape", None)
    if shape is None or len(shape) == 0:
        return batch_size
    return shape[0] if spec is not None else min(shape[0], batch_size or 32)


def peek(x: Any) -> tuple[Any, Any]:
    """Looks at the first batch where it can be drawn once only: of generators and `PyDataset`s.

    Returns:
        `(the first batch, the same data)`. The data still begins with that very batch: drawn twice
        it may be two, where data is augmented at random or counted. The batch is `None` for arrays
        and datasets, and where there is none.
    """
    if isinstance(x, types.GeneratorType):
        batch = next(x, None)
        return batch, _put_back(batch, x)
    if isinstance(x, keras.utils.PyDataset) and x.num_batches != 0:
        peeked = PeekedBatches(x)
        return peeked.first, peeked
    return None, x


def _put_back(batch: Any, generator: Iterator) -> Iterator:
    if batch is not None:
        yield batch
    # Not `yield from`, which would close the user's generator with this one.
    for each in generator:  # noqa: UP028
        yield each


def has_labels(x: Any, y: Any = None, first: Any = None) -> bool | None:
    """Whether the data of a `fit` has labels; `None`: only its batches tell.

    Args:
        x: As for `fit`.
        y: As for `fit`.
        first: Its first batch, if `peek` has drawn one.
    """
    if y is not None:
        return True
    if first is not None:
        return _has_labels(first)
    if isinstance(getattr(x, "element_spec", None), (tuple, list, dict, tf.TypeSpec)):
        return _has_labels(x.element_spec)
    if isinstance(x, PeekedBatches):
        return _has_labels(x.first)
    if isinstance(x, keras.utils.PyDataset):
        return _has_labels(x[0]) if x.num_batches != 0 else None
    return False if is_arrays(x) else None


def _has_labels(batch: Any) -> bool:
    return keras.utils.unpack_x_y_sample_weight(batch)[1] is not None


# `PyDataset`s and generators around the user's.


class WrappedBatches(keras.utils.PyDataset):
    """Gives what another `PyDataset` gives.

    Args:
        batches: The `PyDataset`.
    """

    def __init__(self, batches: keras.utils.PyDataset) -> None:
        super().__init__(
            workers=batches.workers,
            use_multiprocessing=batches.use_multiprocessing,
            max_queue_size=batches.max_queue_size,
        )
        self.batches = batches

    @property
    def num_batches(self) -> int | None:
        return self.batches.num_batches

    def __getitem__(self, index: int) -> Any:
        return self.batches[index]

    def on_epoch_begin(self) -> None:
        self.batches.on_epoch_begin()

    def on_epoch_end(self) -> None:
        self.batches.on_epoch_end()


class PeekedBatches(WrappedBatches):
    """A `PyDataset` whose first batch was looked at: Keras gets that very batch.

    Args:
        batches: The `PyDataset`; not empty.

    Attributes:
        first: The first batch.
    """

    def __init__(self, batches: keras.utils.PyDataset) -> None:
        super().__init__(batches)
        self.first = self._unused = batches[0]

    def __getitem__(self, index: int) -> Any:
        if index != 0 or self._unused is None:
            return self.batches[index]
        first, self._unused = self._unused, None
        return first


class WatchedBatches(WrappedBatches):
    """A `PyDataset` that shows the first batch that passes; in worker processes none passes here.

    Args:
        batches: The `PyDataset`.
        show: A function of the batch.
    """

    def __init__(self, batches: keras.utils.PyDataset, show: Callable[[Any], None]) -> None:
        super().__init__(batches)
        self._show = None if batches.use_multiprocessing else show

    def __getitem__(self, index: int) -> Any:
        batch = self.batches[index]
        show, self._show = self._show, None
        if show is not None:
            show(batch)
        return batch


def watched_generator(generator: Iterator, show: Callable[[Any], None]) -> Iterator:
    """A generator that shows its first batch when it is drawn."""
    is_first = True
    for batch in generator:
        if is_first:
            show(batch)
            is_first = False
        yield batch

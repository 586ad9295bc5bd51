"""Samples that a file is calibrated on and compared with: read, checked, or made up."""

import collections.abc
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_kd import models
from keras_kd._utils.batches import never_ends
from keras_kd.export import rewrites
from keras_kd.export.student import ExportableModel
from keras_kd.models import paths
from keras_kd.taps import recorder
from keras_kd.taps.tap import Tap
from keras_kd.teachers import protocol

# More samples hardly widen the ranges, and each is one run of the interpreter.
MAX_SAMPLES = 1000
# Data of unknown length that gives more is taken for endless, where all of it is to be read.
_ENDLESS = 1_000_000
# Ragged and sparse tensors are batches too, although one can iterate over them.
_BATCHES = (list, tuple, dict, str, bytes, tf.RaggedTensor, tf.SparseTensor)


@dataclasses.dataclass(frozen=True, eq=False)
class Samples:
    """Inputs of a model, and their labels.

    Attributes:
        arrays: An array `[samples, ...]` for each input.
        labels: An array `[samples, ...]`, or a dict or list with one for each output, or `None`.
        are_given: Whether they are data of the user, not made up.
        labels_must_fit: Whether labels that do not fit the outputs are an error.
    """

    arrays: list[np.ndarray]
    labels: Any = None
    are_given: bool = True
    labels_must_fit: bool = True

    @property
    def count(self) -> int:
        """The number of samples."""
        return len(self.arrays[0])

    def with_optional_labels(self) -> "Samples":
        """The same with labels that are left out where they do not fit the outputs."""
        return dataclasses.replace(self, labels_must_fit=False)

    def filled(self, batch_size: int | None) -> "Samples":
        """The same in whole batches of a size, see `fill_batches`; `None`: unchanged."""
        labels = None if self.labels is None else fill_batches(self.labels, batch_size)
        return dataclasses.replace(
            self, arrays=fill_batches(self.arrays, batch_size), labels=labels
        )


def read_samples(
    data: Any,
    exportable: ExportableModel,
    what: str = "representative_data",
    max_samples: int | None = MAX_SAMPLES,
) -> Samples:
    """The samples of data, as arrays that fit the model.

    Args:
        data: A batched `tf.data.Dataset` or a `keras.utils.PyDataset` of inputs or
            `(inputs, labels[, weights])`; arrays of inputs; a tuple `(inputs, labels[, weights])`
            of arrays; or an iterator of batches (a generator), or a function that returns one, as
            TensorFlow's converter takes.
        exportable: The model that they are for.
        what: The argument's name, for messages.
        max_samples: The largest number of samples to read; `None`: all of them.

    Raises:
        ValueError: The data is empty or does not fit the model: structure, shape, dtype, NaN,
            indices beyond an embedding.
    """
    return read_with_inputs(data, exportable, what, max_samples)[1]


def read_with_inputs(
    data: Any,
    exportable: ExportableModel,
    what: str = "representative_data",
    max_samples: int | None = MAX_SAMPLES,
) -> tuple[ExportableModel, Samples]:
    """As `read_samples`; a model that does not know its inputs gets those of the first batch.

    Returns:
        `(exportable, samples)`.
    """
    batches = [_parts(element, what) for element in _batches(data, what, max_samples)]
    if not batches:
        raise ValueError(f"`{what}` is empty: there are no samples to look at.")
    if not exportable.knows_inputs:
        exportable = exportable.with_inputs_like(batches[0][0])
    flat = [_in_order(inputs, exportable, what) for inputs, _ in batches]
    arrays = [
        _column([each[i] for each in flat], spec, what)[:max_samples]
        for i, spec in enumerate(exportable.inputs)
    ]
    sizes = {len(array) for array in arrays}
    if len(sizes) > 1:
        raise ValueError(f"`{what}`: the inputs differ in samples: {sorted(sizes)}.")
    _check_indices(exportable, arrays, what)
    labels = _concatenated_labels([labels for _, labels in batches], max_samples, what)
    return exportable, Samples(arrays, labels)


def _concatenated_labels(labels, max_samples, what):
    """The labels of all batches in one structure, or `None`."""
    if any(each is None for each in labels):
        return None
    try:
        return keras.tree.map_structure(
            lambda *parts: np.concatenate([np.atleast_1d(x) for x in parts])[:max_samples], *labels
        )
    except ValueError as error:
        raise ValueError(
            f"`{what}`: the labels of its batches cannot be concatenated: {error}. Pad them to one "
            "shape, or leave them out: dataset.map(lambda x, *_: x)."
        ) from error


def _batches(data, what, max_samples):
    if data is None:
        raise missing_data(what)
    count, end = 0, _ENDLESS if max_samples is None else max_samples
    for element in _batches_of(data, what):
        yield element
        first = tuple(np.shape(next(iter(keras.tree.flatten(element)), 0)))
        count += max(first[0], 1) if first else 1
        if count < end:
            continue
        if max_samples is None:
            how = f"gave {count:,} samples without an end"
            raise _endless(what, how, "itertools.islice(data, 8)")
        return


def missing_data(what: str = "representative_data") -> ValueError:
    """The error for data that is needed and was not passed."""
    return ValueError(
        f"`{what}` is missing: integer activations need data to find their ranges. Pass some "
        "hundred samples of the training data, such as train.take(8)."
    )


def _batches_of(data, what):
    """An iterable of the batches of data."""
    is_function = callable(data) and not isinstance(data, keras.utils.PyDataset)
    data = data() if is_function else data
    if isinstance(data, tf.data.Dataset):
        if never_ends(data):
            raise _endless(what, "is endless (it repeats)", "dataset.take(8)")
        return data
    if isinstance(data, keras.utils.PyDataset):
        if never_ends(data):
            raise _endless(what, "is endless (it has no length)", "(data[i] for i in range(8))")
        return (data[i] for i in range(data.num_batches))
    if is_function and not isinstance(data, collections.abc.Iterable):
        raise ValueError(
            f"`{what}` is a function that returned a {type(data).__name__}. Expected an iterator "
            "of batches, such as lambda: iter([x]) returns."
        )
    is_batch = isinstance(data, _BATCHES) or hasattr(data, "__array__")
    is_source = isinstance(data, collections.abc.Iterable) and (is_function or not is_batch)
    return data if is_source else [data]


def _endless(what, how, part):
    return ValueError(f"`{what}` {how}. Pass a part of it: {part}.")


def _parts(element, what):
    """The inputs as arrays in their structure, and the labels of a batch."""
    is_labeled = isinstance(element, tuple) and len(element) in (2, 3)
    inputs, _ = protocol.detach_outputs(protocol.inputs_of(element) if is_labeled else element)
    if any(isinstance(x, (tf.RaggedTensor, tf.SparseTensor)) for x in keras.tree.flatten(element)):
        raise ValueError(f"`{what}` has ragged or sparse tensors. Pass dense ones.")
    inputs = keras.tree.map_structure(np.asarray, inputs)
    return inputs, _labels_of(element[1]) if is_labeled else None


def _labels_of(given):
    """Labels as arrays in their structure, without `None`s in a dict; one alone as it is."""
    flat = keras.tree.flatten(given)
    if isinstance(given, (list, tuple)) and not any(np.ndim(x) for x in flat):
        return np.asarray(given)  # numbers of a list, not outputs
    if isinstance(given, dict):
        given = {key: value for key, value in given.items() if value is not None}
    known = [value for value in flat if value is not None]
    if len(known) < 2:
        return np.asarray(known[0]) if known and not isinstance(given, dict) else _arrays(given)
    return None if any(x is None for x in keras.tree.flatten(given)) else _arrays(given)


def _arrays(structure):
    found = keras.tree.map_structure(np.asarray, structure)
    return found if len(keras.tree.flatten(found)) else None


def _in_order(inputs, exportable, what):
    """The inputs of a batch, flat, in the order of the model's."""
    if isinstance(inputs, (list, tuple)) and len(inputs) == 1:
        inputs = inputs[0]
    if isinstance(inputs, (list, tuple)) and not len(inputs):
        raise ValueError(f"`{what}` is empty: there are no samples to look at.")
    flat, keys = keras.tree.flatten(inputs), [each.key for each in exportable.inputs]
    if isinstance(inputs, dict):
        given = dict(zip(models.names_in(inputs), flat, strict=True))
        # A file has other names where an input's have hyphens.
        for names in (keys, [each.keras_name for each in exportable.inputs]):
            if sorted(given) == sorted(names):
                return [given[name] for name in names]
        raise ValueError(
            f"`{what}` gives the inputs {sorted(given)} in a dict; model {exportable.name!r} takes "
            f"{keys}."
        )
    if len(flat) != len(keys):
        raise ValueError(
            f"`{what}` gives {len(flat)} inputs a batch; model {exportable.name!r} takes "
            f"{len(keys)}: {keys}. Labels go into a tuple (inputs, labels)."
        )
    return flat


def _column(parts, spec, what):
    """One input of all batches, in the model's dtype."""
    expected, name = spec.shape, spec.key
    for part in parts:
        fits = len(part.shape) == len(expected) and all(
            e is None or e == r for e, r in zip(expected[1:], part.shape[1:], strict=True)
        )
        if not fits:
            raise ValueError(
                f"`{what}`: input {name!r} must have the shape {expected} (samples first). "
                f"Received a batch of shape {part.shape}. A dataset must be batched."
            )
    shapes = {part.shape[1:] for part in parts}
    if len(shapes) > 1:
        raise ValueError(
            f"`{what}`: batches of input {name!r} have different shapes {sorted(shapes)}. Pad them "
            "to one."
        )
    column = np.concatenate(parts)
    wants_float = np.issubdtype(tf.as_dtype(spec.dtype).as_numpy_dtype, np.floating)
    is_integer = column.dtype.kind in "iub"
    if not (np.issubdtype(column.dtype, np.floating) if wants_float else is_integer):
        raise ValueError(
            f"`{what}`: input {name!r} is {spec.dtype}. Received {column.dtype}. Cast and scale it "
            "as in training."
        )
    if wants_float and not np.isfinite(column).all():
        raise ValueError(f"`{what}`: input {name!r} holds NaN or infinity.")
    return column.astype(spec.dtype)


def _check_indices(exportable, arrays, what):
    for each, array in zip(exportable.inputs, arrays, strict=True):
        limit = each.vocabulary
        if limit is not None and array.size and not 0 <= array.min() <= array.max() < limit:
            raise ValueError(
                f"`{what}`: input {each.key!r} goes from {array.min()} to {array.max()}, "
                f"beyond the embedding that reads it, which has the rows 0 to {limit - 1}."
            )
    rewrites.check_indices(exportable, arrays, what)


# Samples that nobody gave.


_MADE_UP = 16
_RANDOM = 32
# Open sizes (time steps) of random samples.
_OPEN_SIZE = 8


def made_up_samples(exportable: ExportableModel, seed: int = 0) -> Samples:
    """Samples for any model: floats from 0 to 1; integers are 0 or 1, which any table has."""
    rng = np.random.default_rng(seed)
    arrays = []
    for spec in exportable.inputs:
        shape = (_MADE_UP, *(size or 1 for size in spec.shape[1:]))
        if spec.is_integer or spec.dtype == "bool":
            arrays.append(rng.integers(0, 2, shape).astype(spec.dtype))
        else:
            arrays.append(rng.uniform(0, 1, shape).astype(spec.dtype))
    return Samples(arrays, are_given=False)


def random_samples(exportable: ExportableModel, seed: int = 0) -> Samples:
    """Samples that vary: normal floats, integers over the whole range that embeddings take.

    Raises:
        ValueError: The range of an integer input is not known.
    """
    rng = np.random.default_rng(seed)
    arrays = [_random(rng, exportable, *each) for each in enumerate(exportable.inputs)]
    return Samples(arrays, are_given=False)


def _random(rng, exportable, i, spec):
    shape = [_RANDOM, *(_OPEN_SIZE if size is None else size for size in spec.shape[1:])]
    if spec.dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    limit = spec.vocabulary or (256 if spec.dtype == "uint8" else None)
    if limit is not None:
        return rng.integers(0, limit, shape).astype(spec.dtype)
    if not spec.is_integer:
        return rng.normal(size=shape).astype(spec.dtype)
    raise ValueError(
        f"Input {i} of {exportable.name!r} takes integers, and no Embedding right after it shows "
        "their range. Pass some inputs: to_onnx(..., data=inputs)."
    )


# Batches of one size, for files with a fixed batch.


def fill_batches(structure: Any, batch_size: int | None) -> Any:
    """Arrays whose first samples are repeated until they fill batches of a size.

    Args:
        structure: A structure of arrays `[samples, ...]`.
        batch_size: The size; `None`: any, the arrays stay as they are.
    """
    count = len(keras.tree.flatten(structure)[0])
    if batch_size is None or count % batch_size == 0:
        return structure
    order = np.arange(-(-count // batch_size) * batch_size) % count
    return keras.tree.map_structure(lambda x: x[order], structure)


def batches(arrays: Sequence[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    """Yields arrays `[samples, ...]` in batches of one size; the first samples fill the last."""
    arrays = fill_batches(list(arrays), size)
    for start in range(0, len(arrays[0]), size):
        yield [array[start : start + size] for array in arrays]


# Whether the ranges of representative data are those of the data in use.


# Measured on a CNN: one sample gave a worst difference of 0.57 in its outputs, ten gave 0.04.
MIN_SAMPLES = 10
# A sample that is farther from 0 than half of the others by this factor takes 5 of 8 bits.
_OUTLIER = 32
# Samples that are run at once to see the inputs of the first BatchNormalization.
_AT_ONCE = 256


def check_ranges(
    arrays: Sequence[np.ndarray],
    exportable: ExportableModel,
    reference: Sequence[np.ndarray] | None = None,
) -> None:
    """Raises if the ranges found from arrays would ruin the file.

    Args:
        arrays: Representative data, one for each input.
        exportable: The model; its BatchNormalization layers know what they saw in training.
        reference: Arrays of other data of the same kind, such as a test set, or `None`.

    Raises:
        ValueError: There are too few samples, all are equal, or they are unlike those of training.
    """
    if len(arrays[0]) < MIN_SAMPLES:
        raise ValueError(
            f"`representative_data` has {len(arrays[0])} samples; fewer than {MIN_SAMPLES} do not "
            "show the ranges of the activations. Pass some hundred."
        )
    for i, (spec, array) in enumerate(zip(exportable.inputs, arrays, strict=True)):
        if not np.issubdtype(array.dtype, np.floating):
            continue
        if array.size > 1 and np.ptp(array) == 0:
            raise ValueError(
                f"`representative_data`: input {spec.key!r} is {array.flat[0]} everywhere: nothing "
                "can be learned from it about the ranges."
            )
        if reference is not None:
            _check_scale(spec.key, array, reference[i])
    _check_statistics(arrays, exportable)


def _check_scale(name, array, reference):
    ours, theirs = np.std(array), np.std(reference)
    if theirs > 0 and not 1 / 8 < ours / theirs < 8:
        raise ValueError(
            f"`representative_data`: input {name!r} has a standard deviation of {ours:.3g}, but "
            f"`data` has {theirs:.3g}. "
            + (outliers([array]) or "Both must be prepared as in training (0 to 255, or 0 to 1?).")
        )


def _check_statistics(arrays, exportable):
    """Compares the inputs of the first BatchNormalization with those that it saw in training."""
    found = next(
        (
            (path, layer)
            for path, _, layer in paths.walk(exportable.model)
            if type(layer).__name__ == "BatchNormalization" and getattr(layer, "built", False)
        ),
        None,
    )
    if found is None:
        return
    path, layer = found
    taps = recorder.Taps(exportable.model, [Tap(path, kind="input", call=0)])
    _, values = taps.run(lambda: exportable.run([a[:_AT_ONCE] for a in arrays]))
    value = np.asarray(next(iter(values.values())), np.float64)
    axes = tuple(i for i in range(value.ndim) if i != layer.axis % value.ndim)
    mean, variance = np.asarray(layer.moving_mean), np.asarray(layer.moving_variance)
    spread = value.var(axes)
    varies = spread > 0  # a rare word may be in none of these samples
    if not varies.any():
        return
    distance = np.sqrt(((value.mean(axes) - mean) ** 2 + spread) / (variance + 1e-12))[varies]
    typical = float(np.median(distance))
    if not 1 / 30 < typical < 30:  # 0 to 255 in place of 0 to 1 is 255 times
        raise ValueError(
            f"`representative_data` is not like the training data: what reaches layer {path!r} has "
            f"{typical:.3g} times the spread that it had in training. Prepare it as in training "
            "(0 to 255, or 0 to 1?). If the model was never trained, train it first."
        )


def outliers(arrays: Sequence[np.ndarray] | None) -> str:
    """A sentence on the sample of representative data that is most unlike the others, or `""`."""
    found = [_outlier(array) for array in arrays or [] if array.dtype.kind == "f" and array.size]
    times, number, largest, others = max(found, default=(0.0, 0, 0.0, 0))
    if times < _OUTLIER:
        return ""
    also = f" ({others} others are like it)" if others else ""
    return (
        f"Sample {number} of `representative_data` goes to {largest:.3g}, {times:.3g} times as far "
        f"as half of the samples{also}: leave it out if it is unusual, because the ranges of all "
        "integers follow it."
    )


def _outlier(array):
    """`(its distance over that of half of the samples, its number, its largest value, others)`."""
    sizes = np.abs(array.reshape(len(array), -1)).max(axis=1)
    number, usual = int(np.argmax(sizes)), max(float(np.median(sizes)), 1e-12)
    others = int(np.sum(sizes > _OUTLIER * usual)) - 1
    return float(sizes[number] / usual), number, float(sizes[number]), others

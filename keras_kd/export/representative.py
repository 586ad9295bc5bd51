"""Rows that a user gives to calibrate or compare with, in any form, held against the model."""

import collections.abc

import keras
import numpy as np
import tensorflow as tf

from keras_kd import models
from keras_kd._utils.batches import never_ends
from keras_kd.export import rewrites, source
from keras_kd.models import paths
from keras_kd.taps import recorder
from keras_kd.taps.tap import Tap
from keras_kd.teachers import protocol

# More rows move the ranges no further, and each is one run of the interpreter.
MAX_ROWS = 1000
# More of what does not tell its end are taken for endless, where all rows are to be read.
_ENDLESS = 1_000_000
# Ragged and sparse tensors are batches too, though one can go through their rows.
_BATCHES = (list, tuple, dict, str, bytes, tf.RaggedTensor, tf.SparseTensor)


def read(data, student, what="representative_data", max_rows=MAX_ROWS):
    """The inputs and labels that data gives, as arrays.

    Args:
        data: A batched `tf.data.Dataset` or a `keras.utils.PyDataset` of inputs or
            `(inputs, labels[, weights])`; arrays of inputs; a tuple `(inputs, labels[, weights])`
            of arrays; or an iterator of batches (a generator), or a function that returns one, as
            TensorFlow's converter takes.
        student: The model they are for.
        what: The argument's name, for messages.
        max_rows: At most so many rows are read; `None`: all of them.

    Returns:
        `(inputs, labels)`: a list of arrays `[rows, ...]`, one for each input, and the labels as
        an array, or in their structure where there are several; `None`: there are none.

    Raises:
        ValueError: There is nothing in it, or it does not fit the student: structure, shape, dtype,
            NaN, indices beyond an embedding.
    """
    inputs, labels = in_structure(data, student, what, max_rows)
    return keras.tree.flatten(inputs), labels


def in_structure(data, student, what="representative_data", max_rows=MAX_ROWS):
    """As `read`, with the inputs in a structure.

    Returns:
        `(inputs, labels)`: the inputs in the structure of the student's, or in their own where the
        student does not know its inputs.
    """
    batches = [_parts(element, what) for element in _batches(data, what, max_rows)]
    if not batches:
        raise ValueError(f"`{what}` is empty: there are no rows to look at.")
    expected = models.input_specs(student)
    if expected is None:
        expected = keras.tree.map_structure(_spec_of, batches[0][0])
    names = names_of(student, expected)
    flat = [_in_order(inputs, expected, names, student, what) for inputs, _ in batches]
    arrays = [
        _column([each[i] for each in flat], spec, names[i], what)[:max_rows]
        for i, spec in enumerate(keras.tree.flatten(expected))
    ]
    rows = {len(array) for array in arrays}
    if len(rows) > 1:
        raise ValueError(f"`{what}`: the inputs differ in rows: {sorted(rows)}.")
    _check_indices(student, arrays, names, what)
    labels = _joined([labels for _, labels in batches], max_rows, what)
    return keras.tree.pack_sequence_as(expected, arrays), labels


def _joined(labels, max_rows, what):
    """The labels of all batches in one structure."""
    if any(each is None for each in labels):
        return None
    try:
        return keras.tree.map_structure(
            lambda *parts: np.concatenate([np.atleast_1d(x) for x in parts])[:max_rows], *labels
        )
    except ValueError as error:
        raise ValueError(
            f"`{what}`: the labels of its batches cannot be joined: {error}. Pad them to one "
            "shape, or leave them out: dataset.map(lambda x, *_: x)."
        ) from error


def _batches(data, what, max_rows):
    if data is None:
        raise ValueError(
            f"`{what}` is missing: integer activations need data to find their ranges. Pass some "
            "hundred rows of the training data, such as train.take(8)."
        )
    rows, end = 0, _ENDLESS if max_rows is None else max_rows
    for element in _source(data, what):
        yield element
        first = tuple(np.shape(next(iter(keras.tree.flatten(element)), 0)))
        rows += max(first[0], 1) if first else 1
        if rows < end:
            continue
        if max_rows is None:
            raise _endless(what, f"gave {rows:,} rows without an end", "itertools.islice(data, 8)")
        return


def _source(data, what):
    """What gives the batches."""
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
            "of batches, such as of lambda: iter([x])."
        )
    is_batch = isinstance(data, _BATCHES) or hasattr(data, "__array__")
    is_source = isinstance(data, collections.abc.Iterable) and (is_function or not is_batch)
    return data if is_source else [data]


def _endless(what, how, part):
    return ValueError(f"`{what}` {how}. Pass a part of it: {part}.")


def _parts(element, what):
    """The inputs as arrays in their structure, and the labels of a batch."""
    is_labelled = isinstance(element, tuple) and len(element) in (2, 3)
    inputs, _ = protocol.split(protocol.inputs_of(element) if is_labelled else element)
    if any(isinstance(x, (tf.RaggedTensor, tf.SparseTensor)) for x in keras.tree.flatten(element)):
        raise ValueError(f"`{what}` has ragged or sparse tensors. Pass dense ones.")
    inputs = keras.tree.map_structure(np.asarray, inputs)
    return inputs, _labels_of(element[1]) if is_labelled else None


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


def _spec_of(array):
    dtype = "float32" if array.dtype == np.float64 else str(array.dtype)
    return keras.KerasTensor((None, *array.shape[1:]), dtype)


def names_of(student, expected):
    """A name for each input: a key of their dict (a path of keys), or the input's own."""
    if isinstance(expected, dict):
        return models.names_in(expected)
    if models.input_specs(student) is not None:
        return source.input_names(student)
    return [f"input_{i}" for i in range(len(keras.tree.flatten(expected)))]


def _in_order(inputs, expected, names, student, what):
    """The inputs of a batch, flat, in the order of the student's."""
    if isinstance(inputs, (list, tuple)) and len(inputs) == 1:
        inputs = inputs[0]
    if isinstance(inputs, (list, tuple)) and not len(inputs):
        raise ValueError(f"`{what}` is empty: there are no rows to look at.")
    flat = keras.tree.flatten(inputs)
    if isinstance(inputs, dict):
        given = dict(zip(models.names_in(inputs), flat, strict=True))
        # A file has other names where an input's have hyphens.
        own = [str(x.name) for x in getattr(student, "inputs", None) or []]
        for called in (names, own):
            if sorted(given) == sorted(called):
                return [given[name] for name in called]
        raise ValueError(
            f"`{what}` gives the inputs {sorted(given)} in a dict; model {student.name!r} takes "
            f"{names}."
        )
    if len(flat) != len(names):
        raise ValueError(
            f"`{what}` gives {len(flat)} inputs a batch; model {student.name!r} takes "
            f"{len(names)}: {names}. Labels go into a tuple (inputs, labels)."
        )
    return flat


def _column(parts, spec, name, what):
    """One input of all batches, in the model's dtype."""
    expected = tuple(spec.shape)
    for part in parts:
        fits = len(part.shape) == len(expected) and all(
            e is None or e == r for e, r in zip(expected[1:], part.shape[1:], strict=True)
        )
        if not fits:
            raise ValueError(
                f"`{what}`: input {name!r} must have the shape {expected} (rows first). Received a "
                f"batch of shape {part.shape}. A dataset must be batched."
            )
    shapes = {part.shape[1:] for part in parts}
    if len(shapes) > 1:
        raise ValueError(
            f"`{what}`: batches of input {name!r} have different shapes {sorted(shapes)}. Pad them "
            "to one."
        )
    column = np.concatenate(parts)
    wants_float = np.issubdtype(tf.as_dtype(spec.dtype).as_numpy_dtype, np.floating)
    is_whole = column.dtype.kind in "iub"
    if not (np.issubdtype(column.dtype, np.floating) if wants_float else is_whole):
        raise ValueError(
            f"`{what}`: input {name!r} is {spec.dtype}. Received {column.dtype}. Cast and scale it "
            "as in training."
        )
    if wants_float and not np.isfinite(column).all():
        raise ValueError(f"`{what}`: input {name!r} holds NaN or infinity.")
    return column.astype(spec.dtype)


def _check_indices(student, arrays, names, what):
    for i, limit in source.vocabularies(student).items():
        if arrays[i].size and not 0 <= arrays[i].min() <= arrays[i].max() < limit:
            raise ValueError(
                f"`{what}`: input {names[i]!r} goes from {arrays[i].min()} to {arrays[i].max()}, "
                f"beyond the embedding that reads it, which has the rows 0 to {limit - 1}."
            )
    if models.input_specs(student) is not None:
        rewrites.check_indices(student, arrays, names, what)


# Whether representative data would give the activations the ranges that they have in use.


# Measured on a CNN: one row gave a worst difference of 0.57 in its outputs, ten gave 0.04.
MIN_ROWS = 10
# A row that is farther from 0 than half of the rows by this factor takes 5 of 8 bits from them.
_OUTLIER = 32
# Rows that are run at once to see what reaches the first BatchNormalization.
_LOOKED_AT = 256


def check(arrays, student, reference=None, names=None):
    """Raises if the ranges found from arrays would ruin the file.

    Args:
        arrays: One for each input.
        student: The model, whose BatchNormalization layers know what they saw in training.
        reference: Arrays of other data of the same kind, such as of a test set, or `None`.
        names: What the inputs are called, for a model that does not know its inputs.

    Raises:
        ValueError: There are too few rows, all are equal, or they are unlike those of training.
    """
    names = names or source.input_names(student)
    if len(arrays[0]) < MIN_ROWS:
        raise ValueError(
            f"`representative_data` has {len(arrays[0])} rows; fewer than {MIN_ROWS} do not show "
            "the ranges of the activations. Pass some hundred."
        )
    for i, (name, array) in enumerate(zip(names, arrays, strict=True)):
        if not np.issubdtype(array.dtype, np.floating):
            continue
        if array.size > 1 and np.ptp(array) == 0:
            raise ValueError(
                f"`representative_data`: input {name!r} is {array.flat[0]} everywhere: nothing can "
                "be learnt from it about the ranges."
            )
        if reference is not None:
            _check_scale(name, array, reference[i])
    _check_statistics(arrays, student)


def _check_scale(name, array, reference):
    ours, theirs = np.std(array), np.std(reference)
    if theirs > 0 and not 1 / 8 < ours / theirs < 8:
        raise ValueError(
            f"`representative_data`: input {name!r} has a standard deviation of {ours:.3g}, but "
            f"`data` has {theirs:.3g}. "
            + (outliers([array]) or "Both must be prepared as in training (0 to 255, or 0 to 1?).")
        )


def _check_statistics(arrays, student):
    """Compares what the first BatchNormalization gets with what it saw in training."""
    found = next(
        (
            (path, layer)
            for path, _, layer in paths.walk(student)
            if type(layer).__name__ == "BatchNormalization" and getattr(layer, "built", False)
        ),
        None,
    )
    if found is None or models.input_specs(student) is None:
        return
    path, layer = found
    taps = recorder.Taps(student, [Tap(path, kind="input", call=0)])
    _, values = taps.run(lambda: source.run(student, [a[:_LOOKED_AT] for a in arrays]))
    value = np.asarray(next(iter(values.values())), np.float64)
    axes = tuple(i for i in range(value.ndim) if i != layer.axis % value.ndim)
    mean, variance = np.asarray(layer.moving_mean), np.asarray(layer.moving_variance)
    spread = value.var(axes)
    varies = spread > 0  # a rare word may be in none of these rows
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


def outliers(arrays):
    """A sentence on the rows of representative data that are most unlike the others, or `""`."""
    found = [_outlier(array) for array in arrays or [] if array.dtype.kind == "f" and array.size]
    times, row, largest, others = max(found, default=(0.0, 0, 0.0, 0))
    if times < _OUTLIER:
        return ""
    also = f" ({others} others are like it)" if others else ""
    return (
        f"Row {row} of `representative_data` goes to {largest:.3g}, {times:.3g} times as far as "
        f"half of the rows{also}: leave it out if it is no usual row, because the ranges of all "
        "integers follow it."
    )


def _outlier(array):
    """`(how many times it is farther than half of the rows, its number, its largest, others)`."""
    sizes = np.abs(array.reshape(len(array), -1)).max(axis=1)
    row, usual = int(np.argmax(sizes)), max(float(np.median(sizes)), 1e-12)
    others = int(np.sum(sizes > _OUTLIER * usual)) - 1
    return float(sizes[row] / usual), row, float(sizes[row]), others


# Inputs to compare with that nobody gave.


_MADE_ROWS = 32
# Unknown dimensions (time steps) of made inputs.
_MADE_SIZE = 8


def made_for(model, seed=0):
    """Random inputs for a model: normal numbers, whole numbers that its embeddings take.

    Raises:
        ValueError: It has whole numbers as inputs whose range nothing tells.
    """
    rng = np.random.default_rng(seed)
    flat = keras.tree.flatten(models.input_specs(model))
    limits = source.vocabularies(model)

    def made(i, spec):
        shape = [_MADE_ROWS, *(_MADE_SIZE if size is None else size for size in spec.shape[1:])]
        if spec.dtype == "bool":
            return rng.integers(0, 2, shape).astype(bool)
        limit = limits.get(i, 256 if spec.dtype == "uint8" else None)
        if limit is not None:
            return rng.integers(0, limit, shape).astype(spec.dtype)
        if "int" not in spec.dtype:
            return rng.normal(size=shape).astype(spec.dtype)
        raise ValueError(
            f"Input {i} of {model.name!r} takes whole numbers, and no Embedding right after it "
            "tells which. Pass some inputs: to_onnx(..., data=inputs)."
        )

    values = [made(i, spec) for i, spec in enumerate(flat)]
    return keras.tree.pack_sequence_as(models.input_specs(model), values)

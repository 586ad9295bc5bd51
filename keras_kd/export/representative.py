"""Rows that a user gives to calibrate or compare with, in any form, held against the model."""

import keras
import numpy as np
import tensorflow as tf

from keras_kd import models
from keras_kd.export import students
from keras_kd.teachers import carried

# More rows move the ranges no further, and each is one run of the interpreter.
MAX_ROWS = 1000


def read(data, student, what="representative_data", max_rows=MAX_ROWS):
    """The inputs and labels that data gives, as arrays.

    Args:
        data: A batched `tf.data.Dataset` of inputs or `(inputs, labels[, weights])`; arrays of
            inputs; a tuple `(inputs, labels[, weights])` of arrays; or a function that returns an
            iterator of batches, as TensorFlow's converter takes.
        student: The model they are for.
        what: The argument's name, for messages.
        max_rows: At most so many rows are read; `None`: all of them.

    Returns:
        `(inputs, labels)`: a list of arrays `[rows, ...]`, one for each input, and the labels as
        an array, or `None` where there are none or more than one.

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
    labels = [labels for _, labels in batches]
    is_labelled = all(each is not None for each in labels)
    joined = np.concatenate(labels)[:max_rows] if is_labelled else None
    return keras.tree.pack_sequence_as(expected, arrays), joined


def _batches(data, what, max_rows):
    if data is None:
        raise ValueError(
            f"`{what}` is missing: integer activations need data to find their ranges. Pass some "
            "hundred rows of the training data, such as train.take(8)."
        )
    if isinstance(data, tf.data.Dataset):
        if data.cardinality() == tf.data.INFINITE_CARDINALITY:
            raise ValueError(
                f"`{what}` is endless (it repeats). Pass a part of it: dataset.take(8)."
            )
        source = data
    elif callable(data):
        source = data()
    else:
        source = [data]
    rows = 0
    for element in source:
        yield element
        first = keras.tree.flatten(element)[0]
        rows += np.shape(first)[0] if np.ndim(first) else 0
        if max_rows is not None and rows >= max_rows:
            return


def _parts(element, what):
    """The inputs as arrays in their structure, and the labels of a batch."""
    is_labelled = isinstance(element, tuple) and len(element) in (2, 3)
    inputs, _ = carried.split(carried.inputs_of(element) if is_labelled else element)
    if any(isinstance(x, (tf.RaggedTensor, tf.SparseTensor)) for x in keras.tree.flatten(element)):
        raise ValueError(f"`{what}` has ragged or sparse tensors. Pass dense ones.")
    given = keras.tree.flatten(element[1]) if is_labelled else []
    labels = [value for value in given if value is not None]
    inputs = keras.tree.map_structure(np.asarray, inputs)
    return inputs, np.asarray(labels[0]) if len(labels) == 1 else None


def _spec_of(array):
    dtype = "float32" if array.dtype == np.float64 else str(array.dtype)
    return keras.KerasTensor((None, *array.shape[1:]), dtype)


def names_of(student, expected):
    """A name for each input: a key of their dict, or the input's own."""
    if isinstance(expected, dict):
        return [str(key) for key in sorted(expected)]
    if models.input_specs(student) is not None:
        return students.input_names(student)
    return [f"input_{i}" for i in range(len(keras.tree.flatten(expected)))]


def _in_order(inputs, expected, names, student, what):
    """The inputs of a batch, flat, in the order of the student's."""
    if isinstance(inputs, (list, tuple)) and len(inputs) == 1:
        inputs = inputs[0]
    if isinstance(inputs, dict):
        own = [str(x.name) for x in getattr(student, "inputs", None) or []]
        if sorted(inputs) == sorted(own):  # a file has other names where these have hyphens
            names = own
        if sorted(inputs) != sorted(names):
            raise ValueError(
                f"`{what}` gives the inputs {sorted(inputs)} in a dict; model {student.name!r} "
                f"takes {names}."
            )
        return [inputs[name] for name in names]
    flat = keras.tree.flatten(inputs)
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
    for i, limit in students.vocabularies(student).items():
        if arrays[i].size and not 0 <= arrays[i].min() <= arrays[i].max() < limit:
            raise ValueError(
                f"`{what}`: input {names[i]!r} goes from {arrays[i].min()} to {arrays[i].max()}, "
                f"beyond the embedding that reads it, which has the rows 0 to {limit - 1}."
            )

"""Representative data: what calibrates the ranges of activations, checked before it is used."""

import numpy as np
import tensorflow as tf

from keras_kd.export import students
from keras_kd.taps import listening, paths
from keras_kd.taps.tap import Tap

# Measured on a CNN: one row gave a worst difference of 0.57 in its outputs, ten gave 0.04.
MIN_ROWS = 10
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
        ValueError: There is nothing in it, or it does not fit the student.
    """
    batches = [_parts(element) for element in _batches(data, what, max_rows)]
    if not batches:
        raise ValueError(f"`{what}` is empty: there are no rows to look at.")
    specs = students.flat_inputs(student)
    names = students.input_names(student)
    for inputs, _ in batches:
        if len(inputs) != len(specs):
            raise ValueError(
                f"`{what}` gives {len(inputs)} inputs a batch; model {student.name!r} takes "
                f"{len(specs)}: {names}."
            )
    arrays = [
        _column([inputs[i] for inputs, _ in batches], spec, name, what)[:max_rows]
        for i, (spec, name) in enumerate(zip(specs, names, strict=True))
    ]
    rows = {len(array) for array in arrays}
    if len(rows) > 1:
        raise ValueError(f"`{what}`: the inputs differ in rows: {sorted(rows)}.")
    labels = [labels for _, labels in batches]
    if any(each is None for each in labels):
        return arrays, None
    return arrays, np.concatenate(labels)[:max_rows]


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
        first = tf.nest.flatten(element)[0]
        rows += first.shape[0] or 0 if len(first.shape) else 0
        if max_rows is not None and rows >= max_rows:
            return


def _parts(element):
    """The inputs, flat and as arrays, and the labels of a batch."""
    inputs, labels = element, None
    if isinstance(element, tuple) and len(element) in (2, 3):
        inputs, labels = element[0], element[1]
    flat = [np.asarray(value) for value in tf.nest.flatten(inputs)]
    several = labels is None or len(tf.nest.flatten(labels)) != 1
    return flat, None if several else np.asarray(tf.nest.flatten(labels)[0])


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
    try:
        column = np.concatenate(parts)
    except ValueError as error:
        raise ValueError(
            f"`{what}`: batches of input {name!r} have different shapes "
            f"{sorted({part.shape[1:] for part in parts})}: a file has one. Pad them."
        ) from error
    wants_float = np.issubdtype(tf.as_dtype(spec.dtype).as_numpy_dtype, np.floating)
    if wants_float != np.issubdtype(column.dtype, np.floating):
        raise ValueError(
            f"`{what}`: input {name!r} is {spec.dtype}. Received {column.dtype}. Cast and scale it "
            "as in training."
        )
    if wants_float and not np.isfinite(column).all():
        raise ValueError(f"`{what}`: input {name!r} holds NaN or infinity.")
    return column.astype(spec.dtype)


def check_for_calibration(arrays, student, reference=None):
    """Raises if the ranges found from arrays would ruin the file.

    Args:
        arrays: One for each input.
        student: The model, whose BatchNormalization layers know what they saw in training.
        reference: Arrays of other data of the same kind, such as of a test set, or `None`.
    """
    names = students.input_names(student)
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
            f"`data` has {theirs:.3g}. Both must be prepared as in training (0 to 255, or 0 to 1?)."
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
    if found is None:
        return
    path, layer = found
    taps = listening.Taps(student, [Tap(path, kind="input", call=0)])
    _, values = taps.run(lambda: students.run(student, [a[:64] for a in arrays]))
    value = np.asarray(next(iter(values.values())), np.float64)
    axes = tuple(i for i in range(value.ndim) if i != layer.axis % value.ndim)
    mean, variance = np.asarray(layer.moving_mean), np.asarray(layer.moving_variance)
    distance = np.sqrt(((value.mean(axes) - mean) ** 2 + value.var(axes)) / (variance + 1e-12))
    typical = float(np.median(distance))
    if not 1 / 30 < typical < 30:  # 0 to 255 in place of 0 to 1 is 255 times
        raise ValueError(
            f"`representative_data` is not like the training data: what reaches layer {path!r} has "
            f"{typical:.3g} times the spread that it had in training. Prepare it as in training "
            "(0 to 255, or 0 to 1?). If the model was never trained, train it first."
        )

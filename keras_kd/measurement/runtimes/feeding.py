"""From the user's arrays to the batches that a file takes."""

import os

import numpy as np

from keras_kd import checks
from keras_kd.ops.arguments import invalid


def existing(path, ending):
    """The path as text; raises unless it is a file."""
    path = checks.path("path", path, f"a {ending} file")
    if not os.path.isfile(path):
        raise ValueError(f"There is no file {path!r}. Expected the path of a {ending} file.")
    return path


def positive(name, value, least=1):
    """A whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise invalid(name, f"a whole number of at least {least}", repr(value))
    return int(value)


def in_order(inputs, infos):
    """The arrays of a batch in the order of the file's inputs.

    Args:
        inputs: A dict by name, a list in the file's order, or one array.
        infos: A `TensorInfo` for each input.

    Raises:
        ValueError: They are not the file's inputs, or differ in their rows.
    """
    names = [info.name for info in infos]
    if isinstance(inputs, dict):
        if set(inputs) != set(names):
            raise ValueError(f"The file takes the inputs {names}. Received: {sorted(inputs)}")
        found = [inputs[name] for name in names]
    else:
        found = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    if len(found) != len(names):
        raise ValueError(
            f"The file takes {len(names)} inputs; the batch has {len(found)}. They are {names}."
        )
    arrays = [np.asarray(each) for each in found]
    for info, array in zip(infos, arrays, strict=True):
        check_fit(info, array.shape)
    rows = {array.shape[0] for array in arrays}
    if len(rows) != 1 or rows == {0}:
        raise ValueError(
            f"The inputs must have one number of rows, above 0. Received: {sorted(rows)}"
        )
    return arrays


def check_fit(info, shape):
    """Raises `ValueError` unless an array of a shape can be an input."""
    if not info.shape:
        raise ValueError(
            f"Input {info.name!r} of the file is a scalar, which no batch has. Give it to the "
            f"file: constants={{{info.name!r}: ...}}"
        )
    if info.fits(shape):
        return
    raise ValueError(
        f"Input {info.name!r} of the file has shape {info.shape}. Received an array of shape "
        f"{tuple(shape)}{_hint(info, tuple(shape))}"
    )


def _hint(info, shape):
    """What to do about images whose channels are elsewhere."""
    if len(shape) != 4:
        return ""
    rows, one, two, three = shape
    if info.fits((rows, three, one, two)):
        return (
            ": images in Keras' order, for a file that has channels first. Pass "
            "channels_first=True, or preprocess=lambda x: tf.transpose(x, [0, 3, 1, 2]), to its "
            "teacher; for keras_kd.measure open it with keras_kd.measurement.runtimes: "
            "OnnxFile(path, channels_first=True)."
        )
    if info.fits((rows, two, three, one)):
        return (
            ": images with channels first, for a file that has them last (or "
            "was opened with channels_first=True, which takes Keras' order). Pass "
            "preprocess=lambda x: tf.transpose(x, [0, 2, 3, 1])."
        )
    return ""


def batches(arrays, size, is_fixed):
    """Yields `(arrays, rows)`: parts of `size` rows, and how many of them are the user's.

    Where the file takes no other number of rows the last part is filled up with its last row.
    """
    rows = len(arrays[0])
    for start in range(0, rows, size):
        parts = [array[start : start + size] for array in arrays]
        kept = len(parts[0])
        if is_fixed and kept < size:
            filled = np.minimum(np.arange(size), kept - 1)
            parts = [part[filled] for part in parts]
        yield parts, kept

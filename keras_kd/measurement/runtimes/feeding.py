"""From the user's arrays to the batches that a file takes."""

import os

import numpy as np

from keras_kd.ops.arguments import invalid


def existing(path, ending):
    """The path as text; raises unless it is a file."""
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise ValueError(f"There is no file {path!r}. Expected the path of a {ending} file.")
    return path


def positive(name, value):
    """A whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise invalid(name, "a whole number of at least 1", repr(value))
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
        if not info.fits(array.shape):
            raise ValueError(
                f"Input {info.name!r} of the file has shape {info.shape}. "
                f"Received an array of shape {array.shape}"
            )
    rows = {array.shape[0] for array in arrays if array.ndim}
    if len(rows) != 1 or rows == {0}:
        raise ValueError(
            f"The inputs must have one number of rows, above 0. Received: {sorted(rows)}"
        )
    return arrays


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

"""Batches of one size, of which files with a fixed number of rows need whole ones."""

import keras
import numpy as np


def filled_up(inputs, batch_size):
    """Inputs whose first rows come again until they fill batches of a size; `None`: as they are."""
    rows = len(keras.tree.flatten(inputs)[0])
    if batch_size is None or rows % batch_size == 0:
        return inputs
    order = np.arange(-(-rows // batch_size) * batch_size) % rows
    return keras.tree.map_structure(lambda x: x[order], inputs)


def batches(arrays, size):
    """Yields arrays `[rows, ...]` in batches of one size."""
    arrays = filled_up(arrays, size)
    for start in range(0, len(arrays[0]), size):
        yield [array[start : start + size] for array in arrays]

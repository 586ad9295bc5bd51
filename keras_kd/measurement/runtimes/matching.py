"""Which of the data's inputs is which of a file's."""

import itertools

import keras
import numpy as np

# So many inputs have 720 orders, which are tried.
_MOST_INPUTS = 6


def by_name(inputs, infos):
    """The inputs of a batch as `{name: array}` of the file.

    A file has an order of its own, in which the model's is lost. Arrays without names are taken
    where only one order of them fits the shapes and types.

    Args:
        inputs: Arrays in the structure of the data.
        infos: A `TensorInfo` for each input of the file.

    Raises:
        ValueError: Several orders fit, or none.
    """
    if isinstance(inputs, dict) and len(infos) > 1:
        return inputs
    flat = keras.tree.flatten(inputs)
    return {infos[0].name: flat[0]} if len(infos) == len(flat) == 1 else _ordered(flat, infos)


def _ordered(flat, infos):
    described = [f"{info.name} {info.shape} {info.dtype}" for info in infos]
    if len(flat) != len(infos):
        raise ValueError(
            f"The file takes {len(infos)} inputs; the batch has {len(flat)}. They are {described}."
        )
    arrays = [np.asarray(x) for x in flat]
    orders = itertools.permutations(arrays) if len(arrays) <= _MOST_INPUTS else []
    fitting = [order for order in orders if all(map(_fits, infos, order))]
    if len(fitting) != 1:
        raise ValueError(
            f"Which of the data's inputs is which of the file's, {described}, cannot be told from "
            "their shapes and types. Let the data give a dict by these names."
        )
    return {info.name: x for info, x in zip(infos, fitting[0], strict=True)}


def _fits(info, array):
    is_ids = np.dtype(info.dtype).kind in "iub"
    is_same = info.scale is not None or is_ids == (array.dtype.kind in "iub")
    return info.fits(array.shape) and is_same

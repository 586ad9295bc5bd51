"""Which of the data's inputs is which of a file's."""

import itertools

import keras
import numpy as np

# So many inputs have 720 orders, which are tried.
_MOST_INPUTS = 6


def by_name(inputs, infos):
    """The inputs of a batch as `{name: array}` of the file.

    Of a dict those of the file's names are taken; the only input may have another name. A file has
    an order of its own, in which the model's is lost: arrays without names are taken where only one
    order of them fits the shapes and types.

    Args:
        inputs: Arrays in the structure of the data, or what has `shape` and `dtype` as they have.
        infos: A `TensorInfo` for each input of the file that comes from the data.

    Raises:
        ValueError: Names are missing; several orders fit, or none.
    """
    names = [info.name for info in infos]
    if isinstance(inputs, dict) and set(names) <= set(inputs):
        return {name: inputs[name] for name in names}
    flat = keras.tree.flatten(inputs)
    if len(infos) == len(flat) == 1:
        return {names[0]: flat[0]}
    if isinstance(inputs, dict):
        raise ValueError(
            f"The file takes the inputs {names}; the batch has {sorted(inputs)}. {_remedy(names)}"
        )
    return _ordered(flat, infos)


def _remedy(names):
    listed = ", ".join(f"{name!r}: ..." for name in names)
    return (
        f"Let the data give {{{listed}}}, or, of a teacher, rename them with "
        f"preprocess=lambda inputs: {{{listed}}}; what the data does not have goes into "
        "`constants`, of the teacher or of the file: keras_kd.measurement.runtimes."
    )


def _ordered(flat, infos):
    described = [f"{info.name} {info.shape} {info.dtype}" for info in infos]
    names = [info.name for info in infos]
    if len(flat) != len(infos):
        raise ValueError(
            f"The file takes {len(infos)} inputs; the batch has {len(flat)}. They are {described}. "
            f"{_remedy(names)}"
        )
    arrays = [x if hasattr(x, "shape") and hasattr(x, "dtype") else np.asarray(x) for x in flat]
    orders = itertools.permutations(arrays) if len(arrays) <= _MOST_INPUTS else []
    fitting = [order for order in orders if all(map(_fits, infos, order))]
    if len(fitting) != 1:
        raise ValueError(
            f"Which of the data's inputs is which of the file's, {described}, cannot be told from "
            f"their shapes and types. {_remedy(names)}"
        )
    return {info.name: x for info, x in zip(infos, fitting[0], strict=True)}


def _fits(info, array):
    is_ids = np.dtype(info.dtype).kind in "iub"
    is_same = info.scale is not None or is_ids == (np.dtype(array.dtype).kind in "iub")
    return is_same and (array.shape is None or info.fits(tuple(array.shape)))

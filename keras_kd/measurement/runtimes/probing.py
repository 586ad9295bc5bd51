"""The shapes of what a file gives, before any data is there."""

import dataclasses

import numpy as np

from keras_kd.measurement.runtimes import feeding, matching

# Sizes that stand for those that neither the data nor the file tells: networks that halve an image
# five times take multiples of 32.
_SIZES = (32, 64)


@dataclasses.dataclass(frozen=True)
class Described:
    """What is known of an array of the data.

    Args:
        shape: Its dimensions, `None` where one is not known; or `None`.
        dtype: Its NumPy type.
    """

    shape: tuple | None
    dtype: np.dtype


def output_shapes(file, inputs, names):
    """The shapes of outputs, `None` for the rows and for what only a batch will tell.

    Where the file does not tell them it is run on zeros of the data's sizes.

    Args:
        file: A `ModelFile`.
        inputs: A `Described` for each array of a batch, in their structure.
        names: Of the outputs.

    Raises:
        ValueError: The inputs are not the file's, or it cannot be run at their sizes.
    """
    given = matching.by_name(inputs, file.inputs)
    for info in file.inputs:
        if given[info.name].shape is not None:
            feeding.check_fit(info, given[info.name].shape)
    declared = {info.name: info.shape for info in file.outputs}
    said = [(None, *declared[name][1:]) for name in names]
    is_told = all(declared[name] and None not in declared[name][1:] for name in names)
    if is_told and not any(None in info.shape[1:] for info in file.inputs):
        return said
    sizes = {info.name: _sizes(info, given[info.name].shape) for info in file.inputs}
    is_known = not any(None in each for each in sizes.values())
    try:
        found = [_run(file, sizes, names, size) for size in (_SIZES[:1] if is_known else _SIZES)]
    except ValueError:
        # Of sizes that are a guess, a failure tells nothing.
        if is_known or any(not declared[name] for name in names):
            raise
        return said
    return [_common(each) for each in zip(*found, strict=True)]


def _sizes(info, shape):
    """Those of an input after the rows, as the data or the file tells them."""
    known = [None] * len(info.shape) if shape is None else shape
    return [a if a is not None else b for a, b in zip(known, info.shape, strict=True)][1:]


def _run(file, sizes, names, size):
    zeros = {
        name: np.zeros((1, *(size if each is None else each for each in known)), np.float32)
        for name, known in sizes.items()
    }
    return [array.shape for array in file.run(zeros, outputs=names)]


def _common(shapes):
    first, last = shapes[0], shapes[-1]
    return (None, *(a if a == b else None for a, b in zip(first[1:], last[1:], strict=True)))

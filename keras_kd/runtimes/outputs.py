"""Outputs of a file: which of them teach, what they are called, and their shapes before a run."""

import dataclasses
import re
from typing import Any

import numpy as np

from keras_kd.runtimes import tensors
from keras_kd.runtimes.base import ModelFile

# What exporters call outputs that nobody named, by a counter of their own.
_COUNTED = re.compile(
    r"((output|out|Identity|(Stateful)?PartitionedCall)(_\d+)?|\d+)(:\d+)?", re.ASCII
)


class FileOutputs:
    """The outputs of a file; one of them teaches, or all do.

    Args:
        names: Their names, in the file's order.
        output: The name or the index of the one that teaches; `None`: all, where there are several
            as a list.
        who: The teacher's name, for messages.

    Attributes:
        names: All names.
        chosen: The names of those that teach.
        is_list: Whether a list of them is what teaches.

    Raises:
        ValueError: There is no such output.
    """

    def __init__(self, names: list[str], output: str | int | None, who: str):
        self.names = list(names)
        self.chosen = self.names if output is None else [self._found(output, who)]
        self.is_list = len(self.chosen) > 1

    def _found(self, output, who):
        is_index = isinstance(output, int) and not isinstance(output, bool)
        if is_index and 0 <= output < len(self.names):
            return self.names[output]
        if not isinstance(output, str) or output not in self.names:
            raise ValueError(
                f"{who} has the outputs {self.names}. `output` must be the name or the index of "
                "one of them, or None: then all of them teach, as a list. "
                f"Received: output={output!r}"
            )
        return output

    @property
    def given_names(self) -> list[str] | None:
        """The names of those that teach; `None` where an exporter numbered them."""
        is_counted = any(_COUNTED.fullmatch(name) for name in self.chosen)
        return None if is_counted else list(self.chosen)

    def name_of(self, output: str | int | None) -> str | None:
        """The name of an output that teaches, by what a loss calls it; `None`: there is none."""
        if output is None or not self.is_list:
            return self.chosen[0]
        if isinstance(output, int):
            return self.chosen[output] if -len(self.chosen) <= output < len(self.chosen) else None
        return output if output in self.chosen else None

    def resolve(self, layer: str) -> str:
        """The name of an output that is tapped.

        Raises:
            ValueError: There is none of that name.
        """
        if layer not in self.names:
            raise ValueError(
                f"The file has no output {str(layer)!r} that could be tapped. It has "
                f"{self.names}; inner values must be outputs of the file."
            )
        return layer

    def split(self, by_name: dict[str, Any], layers: Any) -> tuple[Any, dict[str, Any]]:
        """`(outputs, {layer: value})` as a teacher gives them, of values by name."""
        flat = [by_name[name] for name in self.chosen]
        return (flat if self.is_list else flat[0]), {layer: by_name[layer] for layer in layers}

    def wanted(self, layers: Any) -> list[str]:
        """The names of the outputs that must be computed, each once."""
        return list(dict.fromkeys([*self.chosen, *layers]))


def sort_names(names: Any) -> list[str]:
    """Names in order; `x_10` comes after `x_2`."""
    return sorted(
        names,
        key=lambda name: [
            (part.isdigit(), int(part) if part.isdigit() else part)
            for part in re.split(r"(\d+)", name)
            if part
        ],
    )


# The shapes of outputs, before any data is there.

# Sizes that stand for those that neither the data nor the file has: networks that halve an image
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


def output_shapes(file: ModelFile, inputs: Any, names: list[str]) -> list[tuple]:
    """The shapes of outputs, `None` for the batch size and for what only a batch will show.

    Where the file does not have them it is run on zeros of the data's sizes.

    Args:
        file: The file.
        inputs: A `Described` for each array of a batch, in their structure.
        names: Names of the outputs.

    Raises:
        ValueError: The inputs are not the file's, or it cannot be run at their sizes.
    """
    given = tensors.match_inputs(inputs, file.inputs)
    for info in file.inputs:
        if given[info.name].shape is not None:
            tensors.check_fit(info, given[info.name].shape)
    declared = {info.name: info.shape for info in file.outputs}
    shapes = [(None, *declared[name][1:]) for name in names]
    is_complete = all(declared[name] and None not in declared[name][1:] for name in names)
    if is_complete and not any(None in info.shape[1:] for info in file.inputs):
        return shapes
    sizes = {info.name: _sizes(info, given[info.name].shape) for info in file.inputs}
    is_known = not any(None in each for each in sizes.values())
    try:
        found = [_run(file, sizes, names, size) for size in (_SIZES[:1] if is_known else _SIZES)]
    except ValueError:
        # A failure at sizes that are a guess means nothing.
        if is_known or any(not declared[name] for name in names):
            raise
        return shapes
    return [_common(each) for each in zip(*found, strict=True)]


def _sizes(info, shape):
    """The sizes of an input after the batch size, of the data or else of the file."""
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

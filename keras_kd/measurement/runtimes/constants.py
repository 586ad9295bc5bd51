"""`Constant`: an input of a file that the data does not have, such as a sample rate or a state."""

import dataclasses
import itertools
import re

import numpy as np

from keras_kd.measurement.runtimes.tensors import TensorInfo

# What exporters call dimensions that nobody named: these say nothing of which are equal.
_COUNTED = re.compile(r"unk__\d+|\?|p2o\.DynamicDimension\.\d+")


@dataclasses.dataclass(frozen=True)
class Constant:
    """A value for an input of a file.

    Where the file leaves a size open and the value has 1 there, it is repeated: as often as the
    data has it, if an input of the data has a size of that name, and for each row, if the size has
    no name. Of several without a name it is the first.

    Args:
        info: The input.
        value: An array of its type and rank.
        rows: The dimension that is repeated for each row, or `None`.
    """

    info: TensorInfo
    value: np.ndarray
    rows: int | None

    def of(self, rows, sizes):
        """The value for a batch.

        Args:
            rows: Of the batch.
            sizes: `{name of a dimension: size}` of the data.
        """
        shape = list(self.value.shape)
        for axis, symbol in enumerate(self.info.symbols):
            if shape[axis] == 1 and self.info.shape[axis] is None and symbol in sizes:
                shape[axis] = sizes[symbol]
        if self.rows is not None:
            shape[self.rows] = rows
        return np.ascontiguousarray(np.broadcast_to(self.value, shape))


def held(given, infos):
    """A `Constant` for each value that was given.

    Args:
        given: `{name of an input: value}`, or `None`.
        infos: A `TensorInfo` for each input of the file.

    Raises:
        ValueError: They are not the file's inputs, or do not fit; none is left for the data.
    """
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise ValueError(
            "Invalid value for argument `constants`. Expected a dict from names of inputs to "
            f"values. Received: {given!r}"
        )
    names = [info.name for info in infos]
    unknown = [name for name in given if name not in names]
    if unknown:
        raise ValueError(
            f"Invalid value for argument `constants`. The file has the inputs {names}, and none "
            f"called {unknown[0]!r}."
        )
    if len(given) == len(names):
        raise ValueError(
            f"Invalid value for argument `constants`. The file takes the inputs {names}; one of "
            "them at least must come from the data."
        )
    batch = {info.symbols[0] for info in infos if info.name not in given and info.symbols}
    known = {s for info in infos if info.name not in given for s in info.symbols if _is_name(s)}
    return {
        info.name: _constant(info, given[info.name], batch, known)
        for info in infos
        if info.name in given
    }


def sizes_of(infos, arrays):
    """`{name of a dimension: its size}` of a batch."""
    return {
        symbol: size
        for info, array in zip(infos, arrays, strict=True)
        for symbol, size in zip(info.symbols, array.shape, strict=False)
        if _is_name(symbol)
    }


def _constant(info, value, batch, known):
    try:
        value = info.encoded(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Invalid value for argument `constants`: {error}") from error
    if value.ndim == 0:
        value = value.reshape((1,) * len(info.shape))
    sizes = list(itertools.zip_longest(value.shape, info.shape, fillvalue=-1))
    if any(want is not None and have not in (want, 1) for have, want in sizes):
        raise ValueError(
            f"Invalid value for argument `constants`. Input {info.name!r} of the file has shape "
            f"{info.shape}. Received a value of shape {value.shape}"
        )
    shape = [have if want is None else want for have, want in sizes]
    return Constant(info, np.broadcast_to(value, shape), _axis_of_rows(info, shape, batch, known))


def _axis_of_rows(info, shape, batch, known):
    """The dimension that is as long as the batch; `None`: no size is, or its name tells."""
    open_axes = [axis for axis, size in enumerate(info.shape) if size is None]
    symbols = dict(enumerate(info.symbols))
    if any(symbols.get(axis) in known & batch for axis in open_axes):
        return None
    nameless = [a for a in open_axes if shape[a] == 1 and not _is_name(symbols.get(a))]
    return nameless[0] if nameless else None


def _is_name(symbol):
    return symbol is not None and _COUNTED.fullmatch(symbol) is None

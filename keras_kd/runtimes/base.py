"""`ModelFile`: runs a file over arrays; what every runtime shares."""

import dataclasses
import itertools
import os
import re

import numpy as np

from keras_kd._utils import validation
from keras_kd._utils.validation import invalid
from keras_kd.runtimes import tensors
from keras_kd.runtimes.tensors import TensorInfo

# `ModelFile`: what files of any format have in common.


# Rows at once where the file takes any number: activations stay small.
BATCH_SIZE = 256


class RowsError(ValueError):
    """A file gave another number of rows than it was given."""


class ModelFile:
    """Base class of `TFLiteFile` and `OnnxFile`.

    Subclasses open the file, call `describe`, and implement `set_inputs`, `invoke` and `results`;
    `failures` are what their runtime raises, after which `renew` makes it fit to run again.

    Attributes:
        inputs: A `TensorInfo` for each input that comes from the data, in the file's order.
        outputs: Likewise for each output that is asked for.
        constants: The `constants.Constant` of the other inputs, by name.
    """

    runtime = ""
    runtime_name = ""
    failures: tuple = ()

    def __init__(self, path, ending, threads, channels_first=False, least_threads=1):
        self.path = tensors.existing(path, ending)
        self.threads = tensors.positive("threads", threads, least_threads)
        self.channels_first = validation.boolean("channels_first", channels_first)
        self.inputs: list = []
        self.outputs: list = []
        self.constants: dict = {}
        self._breaks_promise = False

    def describe(self, inputs, outputs, given_constants, asked_outputs):
        """Says what the file takes and gives.

        Args:
            inputs: A `TensorInfo` for each input, in the file's order.
            outputs: Likewise.
            given_constants: `{name of an input: value}`, or `None`.
            asked_outputs: Names of the outputs that are run for, or `None` for all.
        """
        self.all_inputs = inputs
        self.constants = held(given_constants, inputs)
        self._taken = [info for info in inputs if info.name not in self.constants]
        names = [info.name for info in outputs]
        is_list = asked_outputs is None or isinstance(asked_outputs, (list, tuple, set, frozenset))
        wrong = not is_list or [name for name in asked_outputs or () if name not in names]
        if wrong or (asked_outputs is not None and not asked_outputs):
            raise invalid("outputs", f"names of some of the file's {names}", repr(asked_outputs))
        asked = [x for x in outputs if asked_outputs is None or x.name in asked_outputs]
        self.inputs, self.outputs = self._seen(self._taken), self._seen(asked)

    def _seen(self, infos):
        return [info.turned() for info in infos] if self.channels_first else list(infos)

    @property
    def name(self):
        """The file's name, without its folder."""
        return os.path.basename(self.path)

    @property
    def fixed_rows(self):
        """The only number of rows that the file takes at once; `None`: any."""
        sizes = {info.shape[0] for info in self.inputs if info.shape}
        return None if sizes <= {None} else max(size or 1 for size in sizes)

    def set_inputs(self, arrays):
        """Hands over one batch, arrays of the file's own types in the order of `inputs`."""
        raise NotImplementedError

    def invoke(self, outputs=None):
        """Runs the file on the batch that it was handed.

        Args:
            outputs: Names of the outputs that are wanted; default: those of `outputs`.
        """
        raise NotImplementedError

    def results(self):
        """The wanted outputs of the last run as they are."""
        raise NotImplementedError

    def last_activation(self, output):
        """`"softmax"`, `"sigmoid"`, or `None`, for the name of an output."""
        raise NotImplementedError

    @property
    def files(self):
        """All files that it consists of."""
        return [self.path]

    def renew(self):
        """Makes the runtime fit to run again after a failure."""

    def failure(self, error):
        """What is raised for a failure of the runtime."""
        return ValueError(f"{self.runtime_name} cannot run {self.name}: {error}")

    def encoded(self, inputs):
        """Inputs as of `run` in the order, types and layout of the file."""
        given = tensors.in_order(inputs, self.inputs)
        arrays = [info.encoded(array) for info, array in zip(self.inputs, given, strict=True)]
        if not self.channels_first:
            return arrays
        return [np.ascontiguousarray(tensors.channels_first(array)) for array in arrays]

    def with_constants(self, arrays):
        """A batch as of `set_inputs` with the constants: `{name: array}` in the file's order."""
        sizes = sizes_of(self._taken, arrays)
        rows, given = len(arrays[0]), iter(arrays)
        return {
            info.name: self.constants[info.name].of(rows, sizes)
            if info.name in self.constants
            else next(given)
            for info in self.all_inputs
        }

    def one_batch(self, inputs):
        """The least that the file can be run on: the first row, or as many as it always takes.

        Args:
            inputs: As of `run`.

        Returns:
            Arrays for `set_inputs`.
        """
        arrays, size = self.encoded(inputs), self.fixed_rows or 1
        return next(tensors.batches([x[:size] for x in arrays], size, is_fixed=True))[0]

    def decoded(self, outputs, infos=None):
        """Outputs of the file as real numbers."""
        infos = self.outputs if infos is None else infos
        return [info.decoded(x) for info, x in zip(infos, outputs, strict=True)]

    def raw(self, inputs, batch_size, outputs):
        """`(infos, arrays)`: the file's own outputs, where the runtime takes them.

        Args:
            inputs: As of `run`.
            batch_size: Likewise.
            outputs: Likewise.
        """
        by_name = {info.name: info for info in self.outputs}
        infos = self.outputs if outputs is None else [by_name[name] for name in outputs]
        arrays = self.encoded(inputs)
        found = self._run(arrays, tensors.positive("batch_size", batch_size), infos)
        if self.channels_first:
            found = [tensors.channels_last(x) for x in found]
        return infos, found

    def _run(self, arrays, size, infos):
        fixed = 1 if self._breaks_promise else self.fixed_rows
        if fixed is not None:
            return self._in_fixed_batches(arrays, fixed, infos)
        try:
            return self.in_batches(arrays, size, False, infos)
        except (*self.failures, RowsError) as error:
            self.renew()
            if len(arrays[0]) == 1:
                raise self._told(error) from error
        # Files exist that promise to take any number of rows, and reshape to one inside.
        found = self._in_fixed_batches(arrays, 1, infos)
        self._breaks_promise = True
        return found

    def _in_fixed_batches(self, arrays, size, infos):
        try:
            return self.in_batches(arrays, size, True, infos)
        except (*self.failures, RowsError) as error:
            self.renew()
            raise self._told(error) from error

    def _told(self, error):
        return error if isinstance(error, RowsError) else self.failure(error)

    def in_batches(self, arrays, size, is_fixed, infos=None):
        """The file's own outputs for arrays of its own types, `size` rows at once."""
        infos = self.outputs if infos is None else infos
        names, parts = [info.name for info in infos], []
        for batch, kept in tensors.batches(arrays, size, is_fixed):
            self.set_inputs(batch)
            self.invoke(names)
            found = self.results()
            self._check_rows(infos, found, len(batch[0]))
            parts.append([x[:kept] for x in found])
        return [np.concatenate(each) for each in zip(*parts, strict=True)]

    def _check_rows(self, infos, found, rows):
        takes_any = self.fixed_rows is None
        for info, array in zip(infos, found, strict=True):
            # A size that is always the same may be that of this batch by chance.
            by_chance = takes_any and info.shape and (info.shape[0] or 1) > 1
            if array.ndim == 0 or len(array) != rows or by_chance:
                raise RowsError(
                    f"Output {info.name!r} of {self.name} has shape {array.shape} for {rows} rows "
                    "of input. Expected as many rows. Leave it out: choose another with `output`, "
                    "or open the file with `outputs`."
                )


# `Constant`: an input of a file that the data does not have, such as a sample rate or a state.


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


# The shapes of what a file gives, before any data is there.


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
    given = tensors.by_name(inputs, file.inputs)
    for info in file.inputs:
        if given[info.name].shape is not None:
            tensors.check_fit(info, given[info.name].shape)
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

"""`ModelFile`: what a runtime must give to run a model file over arrays."""

import dataclasses
import itertools
import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_kd._utils import validation
from keras_kd._utils.validation import invalid
from keras_kd.runtimes import tensors
from keras_kd.runtimes.tensors import TensorInfo

# Samples at once where the file takes any number: activations stay small.
BATCH_SIZE = 256


class BatchSizeError(ValueError):
    """A file returned another number of samples than it was given."""


class ModelFile:
    """Base class of runtimes: a model file that is run over arrays.

    A runtime is one subclass and one call of `keras_kd.runtimes.register`. `keras_kd.measure`,
    `keras_kd.report` and the teachers of files use nothing but what is listed here.

    It must

    - set `kind` (of `Measurement.kind`), `runtime` (of `Measurement.latency`) and `runtime_name`
      (for messages);
    - call `describe` in `__init__`, with a `TensorInfo` for each input and output;
    - implement `set_inputs`, `invoke` and `results`: a batch in, a run, its outputs. `invoke` alone
      is timed.

    It may

    - set `failures`, what the runtime raises where it cannot run a batch, and `renew` it after one;
    - implement `last_activation`, which distinguishes logits from probabilities;
    - implement `count_parameters` and `count_costs` (multiply-adds, memory of activations): without
      them these figures are left out of a measurement, with a note;
    - override `files`, where the model consists of several.

    Args:
        path: The file.
        extension: Its extension, for messages.
        threads: Threads of the runtime.
        channels_first: Whether the file has images as `[batch, channels, height, width]`: inputs
            and outputs of rank 4 are then transposed from and to Keras' order.
        least_threads: The least number of threads; 0 where that leaves the choice to the runtime.

    Attributes:
        inputs: A `TensorInfo` for each input that comes from the data, in the file's order.
        outputs: A `TensorInfo` for each output that is computed, in the file's order.
        constants: The `Constant` of the other inputs, by name.

    Example:

    ```python
    import numpy as np
    from keras_kd import runtimes

    class LinearFile(runtimes.ModelFile):
        kind, runtime, runtime_name = "npz", "numpy", "NumPy"

        def __init__(self, path, threads=1, *, constants=None, outputs=None, channels_first=False):
            super().__init__(path, ".npz", threads, channels_first)
            with np.load(self.path) as arrays:
                self.kernel = arrays["kernel"]
            sizes = self.kernel.shape
            x = runtimes.TensorInfo("x", (None, sizes[0]), "float32")
            logits = runtimes.TensorInfo("logits", (None, sizes[1]), "float32")
            self.describe([x], [logits], constants, outputs)

        def set_inputs(self, arrays):
            self.x = self.with_constants(arrays)["x"]

        def invoke(self, outputs=None):
            self.logits = self.x @ self.kernel

        def results(self):
            return [self.logits]

    # runtimes.register(".npz", LinearFile): then kd.measure("linear.npz", data) works
    ```
    """

    #: What `Measurement.kind` calls such files.
    kind = ""
    #: What `Measurement.latency` calls the runtime.
    runtime = ""
    #: What messages call the runtime.
    runtime_name = ""
    #: What the runtime raises when it cannot run a batch.
    failures: tuple[type[BaseException], ...] = ()

    def __init__(
        self,
        path: str | os.PathLike,
        extension: str,
        threads: int,
        channels_first: bool = False,
        least_threads: int = 1,
    ):
        self.path: str = tensors.require_file(path, extension)
        self.threads: int = tensors.positive("threads", threads, least_threads)
        self.channels_first = validation.boolean("channels_first", channels_first)
        self.inputs: list[TensorInfo] = []
        self.outputs: list[TensorInfo] = []
        self.constants: dict[str, Constant] = {}
        self._all_inputs: list[TensorInfo] = []
        self._data_inputs: list[TensorInfo] = []
        self._needs_single_samples = False

    def describe(
        self,
        inputs: list[TensorInfo],
        outputs: list[TensorInfo],
        constants: dict[str, Any] | None,
        chosen: Sequence[str] | None,
    ) -> None:
        """Sets `inputs`, `outputs` and `constants`.

        Args:
            inputs: A `TensorInfo` for each input, in the file's order.
            outputs: A `TensorInfo` for each output, in the file's order.
            constants: `{name of an input: value}`, or `None`.
            chosen: Names of the outputs that are computed, or `None` for all.
        """
        self._all_inputs = inputs
        self.constants = bind_constants(constants, inputs)
        self._data_inputs = [info for info in inputs if info.name not in self.constants]
        names = [info.name for info in outputs]
        is_list = chosen is None or isinstance(chosen, (list, tuple, set, frozenset))
        wrong = not is_list or [name for name in chosen or () if name not in names]
        if wrong or (chosen is not None and not chosen):
            raise invalid("outputs", f"names of some of the file's {names}", repr(chosen))
        computed = [info for info in outputs if chosen is None or info.name in chosen]
        self.inputs = self._in_keras_order(self._data_inputs)
        self.outputs = self._in_keras_order(computed)

    def set_inputs(self, arrays: list[np.ndarray]) -> None:
        """Takes one batch: arrays of the file's own types, in the order of `inputs`."""
        raise NotImplementedError

    def invoke(self, outputs: Sequence[str] | None = None) -> None:
        """Runs the file on the batch that it was given.

        Args:
            outputs: Names of the outputs that are wanted. Default: those of `outputs`.
        """
        raise NotImplementedError

    def results(self) -> list[np.ndarray]:
        """The wanted outputs of the last run, in the file's own types."""
        raise NotImplementedError

    def renew(self) -> None:
        """Makes the runtime fit to run again after a failure."""

    def failure(self, error: Exception | str) -> ValueError:
        """The error to raise for a failure of the runtime."""
        return ValueError(f"{self.runtime_name} cannot run {self.name}: {error}")

    def last_activation(self, output: str) -> str | None:
        """The activation that makes an output.

        Args:
            output: The name of the output.

        Returns:
            `"softmax"`, `"sigmoid"`, or `None` for neither, and where it is not known.
        """
        del output
        return None

    def count_parameters(self) -> int | None:
        """How many real numbers the file holds, whatever their type; `None`: not known.

        Raises:
            ImportError: A package that reads the file is missing.
        """
        return None

    def count_costs(self, inputs: Any) -> tuple[dict[str, Any], list[str]]:
        """What one sample costs.

        Args:
            inputs: Inputs of one sample, in a form that `run` takes.

        Returns:
            `(figures, notes)`: `macs` and `peak_activation_bytes` where they are known, and a
            sentence for each that is not.
        """
        del inputs
        extension = os.path.splitext(self.path)[1]
        return {}, [f"macs, peak_activation_bytes: not counted for {extension} files."]

    @property
    def name(self) -> str:
        """The file's name, without its folder."""
        return os.path.basename(self.path)

    @property
    def files(self) -> list[str]:
        """The paths of all files that the model consists of."""
        return [self.path]

    @property
    def fixed_rows(self) -> int | None:
        """The only batch size that the file takes; `None`: any."""
        sizes = {info.shape[0] for info in self.inputs if info.shape}
        return None if sizes <= {None} else max(size or 1 for size in sizes)

    def run(
        self,
        inputs: Any,
        batch_size: int = BATCH_SIZE,
        *,
        outputs: Sequence[str] | None = None,
    ) -> list[np.ndarray]:
        """Runs the file over arrays.

        Args:
            inputs: A dict of arrays by name, a list of them in the order of `inputs`, or one
                array, `[samples, ...]`.
            batch_size: Samples at once. A file with a fixed batch size is given that many.
            outputs: Names of the outputs that are wanted. Default: those of `outputs`.

        Returns:
            A list of arrays `[samples, ...]` in the order of the outputs, float32.

        Raises:
            ValueError: The inputs are not the file's, the runtime fails, or an output does not
                have one entry for each sample.
        """
        infos, found = self.raw(inputs, batch_size, outputs)
        return self.decoded(found, infos)

    def raw(
        self, inputs: Any, batch_size: int, outputs: Sequence[str] | None
    ) -> tuple[list[TensorInfo], list[np.ndarray]]:
        """`(infos, arrays)`: outputs in the file's own types; the arguments are those of `run`."""
        by_name = {info.name: info for info in self.outputs}
        infos = self.outputs if outputs is None else [by_name[name] for name in outputs]
        arrays = self.encoded(inputs)
        found = self._run(arrays, tensors.positive("batch_size", batch_size), infos)
        if self.channels_first:
            found = [tensors.channels_last(array) for array in found]
        return infos, found

    def encoded(self, inputs: Any) -> list[np.ndarray]:
        """Inputs, in a form that `run` takes, in the order, types and layout of the file."""
        given = tensors.order_inputs(inputs, self.inputs)
        arrays = [info.encoded(array) for info, array in zip(self.inputs, given, strict=True)]
        if not self.channels_first:
            return arrays
        return [np.ascontiguousarray(tensors.channels_first(array)) for array in arrays]

    def decoded(
        self, outputs: list[np.ndarray], infos: list[TensorInfo] | None = None
    ) -> list[np.ndarray]:
        """Outputs of the file as real numbers, float32."""
        infos = self.outputs if infos is None else infos
        return [info.decoded(array) for info, array in zip(infos, outputs, strict=True)]

    def with_constants(self, arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
        """A batch for `set_inputs` with the constants: `{name: array}` in the file's order."""
        sizes = sizes_of(self._data_inputs, arrays)
        rows, given = len(arrays[0]), iter(arrays)
        return {
            info.name: self.constants[info.name].of(rows, sizes)
            if info.name in self.constants
            else next(given)
            for info in self._all_inputs
        }

    def one_batch(self, inputs: Any) -> list[np.ndarray]:
        """The least that the file can be run on: one sample, or its fixed batch size.

        Args:
            inputs: In a form that `run` takes.

        Returns:
            Arrays for `set_inputs`.
        """
        arrays, size = self.encoded(inputs), self.fixed_rows or 1
        return next(tensors.batches([x[:size] for x in arrays], size, is_fixed=True))[0]

    @property
    def _expected_failures(self) -> tuple[type[BaseException], ...]:
        return (*self.failures, BatchSizeError)

    def _in_keras_order(self, infos):
        return [info.to_channels_last() for info in infos] if self.channels_first else list(infos)

    def _run(self, arrays, size, infos):
        fixed = 1 if self._needs_single_samples else self.fixed_rows
        if fixed is not None:
            return self._run_fixed(arrays, fixed, infos)
        try:
            return self._run_batches(arrays, size, infos, is_fixed=False)
        except self._expected_failures as error:
            self.renew()
            if len(arrays[0]) == 1:
                raise self._as_value_error(error) from error
        # Some files declare any batch size, and reshape to a single sample inside.
        found = self._run_fixed(arrays, 1, infos)
        self._needs_single_samples = True
        return found

    def _run_fixed(self, arrays, size, infos):
        try:
            return self._run_batches(arrays, size, infos, is_fixed=True)
        except self._expected_failures as error:
            self.renew()
            raise self._as_value_error(error) from error

    def _run_batches(self, arrays, size, infos, is_fixed):
        names, parts = [info.name for info in infos], []
        for batch, kept in tensors.batches(arrays, size, is_fixed):
            self.set_inputs(batch)
            self.invoke(names)
            found = self.results()
            self._check_batch_size(infos, found, len(batch[0]))
            parts.append([array[:kept] for array in found])
        return [np.concatenate(each) for each in zip(*parts, strict=True)]

    def _check_batch_size(self, infos, found, rows):
        takes_any = self.fixed_rows is None
        for info, array in zip(infos, found, strict=True):
            # A size that is always the same may be that of this batch by chance.
            by_chance = takes_any and info.shape and (info.shape[0] or 1) > 1
            if array.ndim == 0 or len(array) != rows or by_chance:
                raise BatchSizeError(
                    f"Output {info.name!r} of {self.name} has shape {array.shape} for {rows} "
                    "samples of input. Expected as many samples. Leave it out: choose another with "
                    "`output`, or open the file with `outputs`."
                )

    def _as_value_error(self, error):
        return error if isinstance(error, BatchSizeError) else self.failure(error)


# Inputs that the data does not have, such as a sample rate or a state.

# What exporters call dimensions that nobody named: equal names do not mean equal sizes.
_COUNTED = re.compile(r"unk__\d+|\?|p2o\.DynamicDimension\.\d+")


@dataclasses.dataclass(frozen=True)
class Constant:
    """A value for an input of a file.

    Where the file leaves a size open and the value has 1 there, the value is repeated: to the size
    of the same name in the data, or, if the size has no name, to the batch size. Of several
    dimensions without a name the first one is repeated.

    Args:
        info: The input.
        value: An array of its type and rank.
        rows: The dimension that is repeated to the batch size, or `None`.
    """

    info: TensorInfo
    value: np.ndarray
    rows: int | None

    def of(self, rows: int, sizes: dict[str, int]) -> np.ndarray:
        """The value for a batch.

        Args:
            rows: The batch size.
            sizes: `{name of a dimension: size}` of the data.
        """
        shape = list(self.value.shape)
        for axis, symbol in enumerate(self.info.symbols):
            if shape[axis] == 1 and self.info.shape[axis] is None and symbol in sizes:
                shape[axis] = sizes[symbol]
        if self.rows is not None:
            shape[self.rows] = rows
        return np.ascontiguousarray(np.broadcast_to(self.value, shape))


def bind_constants(given: dict[str, Any] | None, infos: list[TensorInfo]) -> dict[str, Constant]:
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


def sizes_of(infos: list[TensorInfo], arrays: list[np.ndarray]) -> dict[str, int]:
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
    """The dimension that is as long as the batch; `None`: there is none, or its name shows it."""
    open_axes = [axis for axis, size in enumerate(info.shape) if size is None]
    symbols = dict(enumerate(info.symbols))
    if any(symbols.get(axis) in known & batch for axis in open_axes):
        return None
    nameless = [a for a in open_axes if shape[a] == 1 and not _is_name(symbols.get(a))]
    return nameless[0] if nameless else None


def _is_name(symbol):
    return symbol is not None and _COUNTED.fullmatch(symbol) is None

"""`ModelFile`: what files of any format have in common."""

import os

import numpy as np

from keras_kd import checks
from keras_kd.measurement.runtimes import constants, feeding, tensors
from keras_kd.ops.arguments import invalid

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
        self.path = feeding.existing(path, ending)
        self.threads = feeding.positive("threads", threads, least_threads)
        self.channels_first = checks.boolean("channels_first", channels_first)
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
        self.constants = constants.held(given_constants, inputs)
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
        given = feeding.in_order(inputs, self.inputs)
        arrays = [info.encoded(array) for info, array in zip(self.inputs, given, strict=True)]
        if not self.channels_first:
            return arrays
        return [np.ascontiguousarray(tensors.channels_first(array)) for array in arrays]

    def with_constants(self, arrays):
        """A batch as of `set_inputs` with the constants: `{name: array}` in the file's order."""
        sizes = constants.sizes_of(self._taken, arrays)
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
        return next(feeding.batches([x[:size] for x in arrays], size, is_fixed=True))[0]

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
        found = self._run(arrays, feeding.positive("batch_size", batch_size), infos)
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
        for batch, kept in feeding.batches(arrays, size, is_fixed):
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

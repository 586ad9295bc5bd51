"""`ModelFile`: what files of any format have in common."""

import os

import numpy as np

from keras_kd.measurement.runtimes import feeding

# Rows at once where the file takes any number: activations stay small.
BATCH_SIZE = 256


class RowsError(ValueError):
    """A file gave another number of rows than it was given."""


class ModelFile:
    """Base class of `TFLiteFile` and `OnnxFile`.

    Subclasses set `inputs` and `outputs` and implement `set_inputs`, `invoke` and `results`.
    """

    runtime = ""

    def __init__(self, path, ending, threads):
        self.path = feeding.existing(path, ending)
        self.threads = feeding.positive("threads", threads)
        self.inputs: list = []
        self.outputs: list = []

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

    def invoke(self):
        """Runs the file on the batch that it was handed."""
        raise NotImplementedError

    def results(self):
        """The outputs of the last run as they are."""
        raise NotImplementedError

    def encoded(self, inputs):
        """Inputs as of `run` in the order, and in the types, of the file."""
        given = feeding.in_order(inputs, self.inputs)
        return [info.encoded(array) for info, array in zip(self.inputs, given, strict=True)]

    def one_batch(self, inputs):
        """The least that the file can be run on: the first row, or as many as it always takes.

        Args:
            inputs: As of `run`.

        Returns:
            Arrays for `set_inputs`.
        """
        arrays, size = self.encoded(inputs), self.fixed_rows or 1
        return next(feeding.batches([x[:size] for x in arrays], size, is_fixed=True))[0]

    def decoded(self, outputs):
        """Outputs of the file as real numbers."""
        return [info.decoded(x) for info, x in zip(self.outputs, outputs, strict=True)]

    def in_batches(self, arrays, size, is_fixed):
        """The file's own outputs for arrays of its own types, `size` rows at once."""
        parts = []
        for batch, kept in feeding.batches(arrays, size, is_fixed):
            self.set_inputs(batch)
            self.invoke()
            found = self.results()
            self._check_rows(found, len(batch[0]))
            parts.append([x[:kept] for x in found])
        return [np.concatenate(each) for each in zip(*parts, strict=True)]

    def _check_rows(self, found, rows):
        for info, array in zip(self.outputs, found, strict=True):
            if array.ndim == 0 or len(array) != rows:
                raise RowsError(
                    f"Output {info.name!r} of {self.name} has shape {array.shape} for {rows} rows "
                    "of input. Expected as many rows."
                )

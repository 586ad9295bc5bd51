"""`TFLiteFile`: a `.tflite` file that is run over arrays."""

import functools
import re

import numpy as np

from keras_kd.measurement.runtimes import base, feeding, tflite_format
from keras_kd.measurement.runtimes.tensors import TensorInfo
from keras_kd.teachers import host


class TFLiteFile(base.ModelFile):
    """A `.tflite` file, run by LiteRT with XNNPACK (`pip install 'keras-kd[litert]'`).

    Args:
        path: The file.
        threads: Threads of the interpreter.
        signature: The name of the signature to run, where the file has several.

    Attributes:
        inputs: A `TensorInfo` for each input, by the names of the signature, in their order
            (numbers in names count as numbers). A file without a signature has its own order.
        outputs: Likewise.
        model: The file as `ModelT` of `ai_edge_litert.schema_py_generated`.
        indices: The places of the inputs among the tensors of the main graph.
        operators: An `Operator` for each, in the order in which they run, graph by graph.
        signatures: `{name: {"inputs": names, "outputs": names}}`.

    Raises:
        ImportError: LiteRT is missing.
        ValueError: There is no such file, it is no TensorFlow Lite model, or LiteRT cannot run it.

    Example:

    ```python
    def logits(path, images):  # path: a .tflite file; images: [rows, height, width, channels]
        from keras_kd.measurement import runtimes

        return runtimes.TFLiteFile(path).run(images)[0]
    ```
    """

    runtime = "litert-xnnpack"

    def __init__(self, path, threads=1, signature=None):
        self._litert = host.needs("ai_edge_litert.interpreter", "A .tflite file", "litert")
        super().__init__(path, ".tflite", threads)
        tflite_format.check(self.path)
        self._is_allocated = False
        self._interpreter = self._opened()
        self._allocate()
        self._inputs, self._outputs = self._details(signature)
        self.inputs = [_info(name, detail) for name, detail in self._inputs.items()]
        self.outputs = [_info(name, detail) for name, detail in self._outputs.items()]
        self.indices = [detail["index"] for detail in self._inputs.values()]
        self._breaks_promise = False
        self._has_state = tflite_format.has_state(self.model)
        self._has_resources = tflite_format.has_resources(self.model)

    def _opened(self):
        try:
            return self._litert.Interpreter(model_path=self.path, num_threads=self.threads)
        except ValueError as error:
            raise ValueError(f"LiteRT cannot read {self.name}: {error}. Is it damaged?") from error

    def _allocate(self):
        """Tells now what cannot run, unless that depends on sizes that only the data tells."""
        if any(_is_open(detail) for detail in self._interpreter.get_input_details()):
            return
        try:
            self._interpreter.allocate_tensors()
        except RuntimeError as error:
            raise self._failure(error) from error
        self._is_allocated = True

    def _failure(self, error):
        custom = sorted({x.name for x in self.operators if x.name.startswith("CUSTOM")})
        listed = f" It has operators that are not built in: {custom}." if custom else ""
        return ValueError(f"LiteRT cannot run {self.name}: {error}{listed}")

    @functools.cached_property
    def model(self):
        return tflite_format.parsed(self.path)

    @functools.cached_property
    def operators(self):
        return tflite_format.operators(self.model)

    @functools.cached_property
    def signatures(self):
        return {
            name: {"inputs": _ordered(each["inputs"]), "outputs": _ordered(each["outputs"])}
            for name, each in tflite_format.signatures(self.model).items()
        }

    def _details(self, signature):
        """`{name: detail}` of inputs and of outputs."""
        given = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        found = tflite_format.signatures(self.model)
        if not found and signature is None:
            return tuple({x["name"]: x for x in details} for details in given)
        chosen = found.get(_chosen(signature, found))
        if chosen["graph"] != 0:
            raise ValueError(
                f"Signature {signature!r} is not the main graph of the file, which alone can be "
                "run. Convert it to a file of its own."
            )
        by_index = [{x["index"]: x for x in details} for details in given]
        return tuple(
            {name: details[chosen[side][name]] for name in _ordered(chosen[side])}
            for side, details in zip(("inputs", "outputs"), by_index, strict=True)
        )

    def run(self, inputs, batch_size=base.BATCH_SIZE, quantized=False):
        """What the file says of arrays.

        Args:
            inputs: A dict of arrays by name, a list of them in the order of `inputs`, or one
                array, `[rows, ...]`. Real numbers are quantized by the file's scales; integers of
                the very type that the file takes are taken to be quantized already.
            batch_size: Rows at once. A file with a fixed number of rows is given that many.
            quantized: Whether integer outputs are returned as they are.

        Returns:
            A list of arrays `[rows, ...]` in the order of `outputs`, float32 unless `quantized`.

        Raises:
            ValueError: The inputs are not the file's, or LiteRT fails.
        """
        found = self._outputs_of(self.encoded(inputs), feeding.positive("batch_size", batch_size))
        return found if quantized else self.decoded(found)

    def _outputs_of(self, arrays, size):
        fixed = 1 if self._breaks_promise else self.fixed_rows
        if fixed is not None:
            return self._in_fixed_batches(arrays, fixed)
        try:
            return self.in_batches(arrays, size, is_fixed=False)
        except (RuntimeError, base.RowsError):
            self._renew()
        # Files exist that promise to take any number of rows, and reshape to one inside.
        found = self._in_fixed_batches(arrays, 1)
        self._breaks_promise = True
        return found

    def _in_fixed_batches(self, arrays, size):
        try:
            return self.in_batches(arrays, size, is_fixed=True)
        except (RuntimeError, base.RowsError) as error:
            self._renew()
            raise self._failure(error) from error

    def _renew(self):
        # An interpreter that failed half-way through its tensors is not asked again.
        self._interpreter, self._is_allocated = self._opened(), False
        for detail in self._inputs.values():
            detail["shape"] = ()

    def set_inputs(self, arrays):
        if self._has_resources:  # which no call puts back
            self._renew()
        interpreter = self._interpreter
        for detail, array in zip(self._inputs.values(), arrays, strict=True):
            if tuple(detail["shape"]) != array.shape:
                interpreter.resize_tensor_input(detail["index"], array.shape)
                detail["shape"], self._is_allocated = array.shape, False
        if not self._is_allocated:
            interpreter.allocate_tensors()
            self._is_allocated = True
        for detail, array in zip(self._inputs.values(), arrays, strict=True):
            interpreter.set_tensor(detail["index"], array)

    def invoke(self):
        if self._has_state:  # the state of a recurrent layer must not pass to the next rows
            self._interpreter.reset_all_variables()
        self._interpreter.invoke()

    def results(self):
        return [self._interpreter.get_tensor(x["index"]) for x in self._outputs.values()]


def _is_open(detail):
    """Whether more of an input's dimensions than the rows may have any size."""
    return any(size < 0 for size in detail["shape_signature"][1:])


def _chosen(signature, found):
    if signature is None and len(found) == 1:
        return next(iter(found))
    if signature not in found:
        raise ValueError(
            f"The file has the signatures {sorted(found)}. Choose one with `signature`. "
            f"Received: signature={signature!r}"
        )
    return signature


def _ordered(names):
    """Names in order; `x_10` comes after `x_2`."""
    return sorted(
        names, key=lambda name: [(x.isdigit(), int(x) if x.isdigit() else x) for x in _split(name)]
    )


def _split(name):
    return [part for part in re.split(r"(\d+)", name) if part]


def _info(name, detail):
    scale, zero = detail["quantization"]
    sizes, free = detail["shape"], detail["shape_signature"]
    free = free if len(free) == len(sizes) else sizes
    return TensorInfo(
        name,
        tuple(None if size < 0 else int(size) for size in free),
        np.dtype(detail["dtype"]).name,
        float(scale) or None,
        int(zero),
    )

"""`TFLiteFile`: a `.tflite` file, run over arrays by LiteRT."""

import functools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_kd._utils import validation
from keras_kd.runtimes import base, tensors, tflite, tflite_costs
from keras_kd.runtimes.outputs import sort_names
from keras_kd.runtimes.tensors import Operator, TensorInfo


class TFLiteFile(base.ModelFile):
    """A `.tflite` file, run by LiteRT with XNNPACK (`pip install 'keras-kd[litert]'`).

    Args:
        path: The file.
        threads: Threads of the interpreter.
        signature: The name of the signature to run, where the file has several.
        constants: `{name of an input: value}` for inputs that the data does not have, such as a
            state of zeros. A size of 1 where the file leaves it open is repeated to the batch
            size.
        outputs: Names of the outputs that are computed. Default: all.
        channels_first: Whether the file has images as `[batch, channels, height, width]`: inputs
            and outputs of rank 4 are then transposed from and to Keras' order.

    Attributes:
        inputs: A `TensorInfo` for each input that comes from the data, by the names of the
            signature, in their order (numbers in names count as numbers). A file without a
            signature has its own order.
        outputs: A `TensorInfo` for each output that is computed.
        model: The file as `ModelT` of `ai_edge_litert.schema_py_generated`.
        indices: The indices of all inputs among the tensors of the main graph.
        operators: The `Operator`s, in the order in which they run, graph by graph.
        signatures: `{name: {"inputs": names, "outputs": names}}`.

    Raises:
        ImportError: LiteRT is missing.
        ValueError: There is no such file, it is not a TensorFlow Lite model, LiteRT cannot run it,
            or an argument does not fit.

    Example:

    ```python
    def logits(path, images):  # path: a .tflite file; images: [samples, height, width, channels]
        from keras_kd import runtimes

        return runtimes.TFLiteFile(path).run(images)[0]
    ```
    """

    kind = "tflite"
    runtime = "litert-xnnpack"
    runtime_name = "LiteRT"
    failures = (RuntimeError,)

    def __init__(
        self,
        path: str | os.PathLike,
        threads: int = 1,
        signature: str | None = None,
        *,
        constants: dict[str, Any] | None = None,
        outputs: Sequence[str] | None = None,
        channels_first: bool = False,
    ):
        self._litert = validation.needs("ai_edge_litert.interpreter", "A .tflite file", "litert")
        super().__init__(path, ".tflite", threads, channels_first)
        tflite.check_format(self.path)
        self._is_allocated = False
        self._interpreter = self._opened()
        self._allocate()
        self._inputs, self._outputs = self._details(signature)
        self.describe(
            [_info(name, detail) for name, detail in self._inputs.items()],
            [_info(name, detail) for name, detail in self._outputs.items()],
            constants,
            outputs,
        )
        self.indices = [detail["index"] for detail in self._inputs.values()]
        self._wanted: Sequence[str] = []
        self._has_state = tflite.has_state(self.model)
        self._has_resources = tflite.has_resources(self.model)

    def _opened(self):
        try:
            return self._litert.Interpreter(model_path=self.path, num_threads=self.threads)
        except ValueError as error:
            raise ValueError(f"LiteRT cannot read {self.name}: {error}. Is it damaged?") from error

    def _allocate(self):
        """Finds what cannot run, unless that depends on sizes that only the data has."""
        if any(_is_open(detail) for detail in self._interpreter.get_input_details()):
            return
        try:
            self._interpreter.allocate_tensors()
        except RuntimeError as error:
            raise self.failure(error) from error
        self._is_allocated = True

    def failure(self, error: Exception | str) -> ValueError:
        custom = sorted({x.name for x in self.operators if x.name.startswith("CUSTOM")})
        listed = f" It has operators that are not built in: {custom}." if custom else ""
        return super().failure(f"{error}{listed}")

    @functools.cached_property
    def model(self) -> Any:
        return tflite.parse_file(self.path)

    @functools.cached_property
    def operators(self) -> list[Operator]:
        return tflite.operators(self.model)

    @functools.cached_property
    def signatures(self) -> dict[str, dict[str, list[str]]]:
        return {
            name: {
                "inputs": sort_names(each["inputs"]),
                "outputs": sort_names(each["outputs"]),
            }
            for name, each in tflite.signatures(self.model).items()
        }

    def _details(self, signature):
        """`{name: detail}` of inputs and of outputs."""
        given = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        found = tflite.signatures(self.model)
        if not found and signature is None:
            return tuple({x["name"]: x for x in details} for details in given)
        chosen = found[_chosen(signature, found)]
        if chosen["graph"] != 0:
            raise ValueError(
                f"Signature {signature!r} is not the main graph of the file, the only one that "
                "can be run. Convert it to a file of its own."
            )
        by_index = [{x["index"]: x for x in details} for details in given]
        return tuple(
            {name: details[chosen[side][name]] for name in sort_names(chosen[side])}
            for side, details in zip(("inputs", "outputs"), by_index, strict=True)
        )

    def run(
        self,
        inputs: Any,
        batch_size: int = base.BATCH_SIZE,
        quantized: bool = False,
        outputs: Sequence[str] | None = None,
    ) -> list[np.ndarray]:
        """Runs the file over arrays.

        Args:
            inputs: A dict of arrays by name, a list of them in the order of `inputs`, or one
                array, `[samples, ...]`. Real numbers are quantized by the file's scales; integers
                of exactly the file's type are taken as quantized already.
            batch_size: Samples at once. A file with a fixed batch size is given that many.
            quantized: Whether integer outputs are returned as they are.
            outputs: Names of the outputs that are wanted. Default: those of `outputs`.

        Returns:
            A list of arrays `[samples, ...]` in the order of the outputs, float32 unless
            `quantized`.

        Raises:
            ValueError: The inputs are not the file's, LiteRT fails, or an output does not have one
                entry for each sample.
        """
        infos, found = self.raw(inputs, batch_size, outputs)
        return found if quantized else self.decoded(found, infos)

    def count_parameters(self) -> int:
        return tflite_costs.count_parameters(self.model)

    def count_costs(self, inputs: Any) -> tuple[dict[str, Any], list[str]]:
        arrays = self.one_batch(inputs)
        given = list(self.with_constants(arrays).values())
        try:
            shapes = tflite_costs.read_shapes(self.path, self.indices, given)
        except ValueError as error:
            return {}, [f"macs, peak_activation_bytes: left out. {error}"]
        return tflite_costs.count_costs(self.model, shapes, len(arrays[0]))

    def last_activation(self, output: str) -> str | None:
        steps = tflite.steps_by_tensor(self.model)
        return tensors.activation(steps, self._outputs[output]["index"])

    def renew(self) -> None:
        # An interpreter that failed half-way through its tensors is not used again.
        self._interpreter, self._is_allocated = self._opened(), False
        for detail in self._inputs.values():
            detail["shape"] = ()

    def set_inputs(self, arrays: list[np.ndarray]) -> None:
        if self._has_resources:  # no call resets them
            self.renew()
        interpreter, given = self._interpreter, self.with_constants(arrays)
        for name, detail in self._inputs.items():
            if tuple(detail["shape"]) != given[name].shape:
                interpreter.resize_tensor_input(detail["index"], given[name].shape)
                detail["shape"], self._is_allocated = given[name].shape, False
        if not self._is_allocated:
            interpreter.allocate_tensors()
            self._is_allocated = True
        for name, detail in self._inputs.items():
            interpreter.set_tensor(detail["index"], given[name])

    def invoke(self, outputs: Sequence[str] | None = None) -> None:
        self._wanted = [info.name for info in self.outputs] if outputs is None else outputs
        if self._has_state:  # of a recurrent layer; it must not pass to the next batch
            self._interpreter.reset_all_variables()
        self._interpreter.invoke()

    def results(self) -> list[np.ndarray]:
        return [self._interpreter.get_tensor(self._outputs[x]["index"]) for x in self._wanted]


def _is_open(detail):
    """Whether a dimension of an input beside the batch size may have any size."""
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

"""`TFLiteFile`: a `.tflite` file that is run over arrays."""

import functools
import pathlib

import numpy as np

from keras_kd._utils import validation
from keras_kd.runtimes import base, tensors
from keras_kd.runtimes.outputs import counted_in_order
from keras_kd.runtimes.tensors import Operator, TensorInfo


class TFLiteFile(base.ModelFile):
    """A `.tflite` file, run by LiteRT with XNNPACK (`pip install 'keras-kd[litert]'`).

    Args:
        path: The file.
        threads: Threads of the interpreter.
        signature: The name of the signature to run, where the file has several.
        constants: `{name of an input: value}` for inputs that the data does not have, such as a
            state of zeros. A size of 1 where the file leaves it open is repeated to the rows of
            the batch.
        outputs: Names of the outputs that are wanted; default: all.
        channels_first: Whether the file has images as `[rows, channels, height, width]`: inputs
            and outputs of rank 4 are then turned from and to Keras' order.

    Attributes:
        inputs: A `TensorInfo` for each input that comes from the data, by the names of the
            signature, in their order (numbers in names count as numbers). A file without a
            signature has its own order.
        outputs: Likewise.
        model: The file as `ModelT` of `ai_edge_litert.schema_py_generated`.
        indices: The places of all inputs among the tensors of the main graph.
        operators: An `Operator` for each, in the order in which they run, graph by graph.
        signatures: `{name: {"inputs": names, "outputs": names}}`.

    Raises:
        ImportError: LiteRT is missing.
        ValueError: There is no such file, it is no TensorFlow Lite model, LiteRT cannot run it, or
            an argument does not fit.

    Example:

    ```python
    def logits(path, images):  # path: a .tflite file; images: [rows, height, width, channels]
        from keras_kd.measurement import runtimes

        return runtimes.TFLiteFile(path).run(images)[0]
    ```
    """

    runtime = "litert-xnnpack"
    runtime_name = "LiteRT"
    failures = (RuntimeError,)

    def __init__(
        self,
        path,
        threads=1,
        signature=None,
        *,
        constants=None,
        outputs=None,
        channels_first=False,
    ):
        self._litert = validation.needs("ai_edge_litert.interpreter", "A .tflite file", "litert")
        super().__init__(path, ".tflite", threads, channels_first)
        check(self.path)
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
        self._asked: list = []
        self._has_state = has_state(self.model)
        self._has_resources = has_resources(self.model)

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
            raise self.failure(error) from error
        self._is_allocated = True

    def failure(self, error):
        custom = sorted({x.name for x in self.operators if x.name.startswith("CUSTOM")})
        listed = f" It has operators that are not built in: {custom}." if custom else ""
        return super().failure(f"{error}{listed}")

    @functools.cached_property
    def model(self):
        return parsed(self.path)

    @functools.cached_property
    def operators(self):
        return operators(self.model)

    @functools.cached_property
    def signatures(self):
        return {
            name: {
                "inputs": counted_in_order(each["inputs"]),
                "outputs": counted_in_order(each["outputs"]),
            }
            for name, each in signatures(self.model).items()
        }

    def _details(self, signature):
        """`{name: detail}` of inputs and of outputs."""
        given = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        found = signatures(self.model)
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
            {name: details[chosen[side][name]] for name in counted_in_order(chosen[side])}
            for side, details in zip(("inputs", "outputs"), by_index, strict=True)
        )

    def run(self, inputs, batch_size=base.BATCH_SIZE, quantized=False, outputs=None):
        """What the file says of arrays.

        Args:
            inputs: A dict of arrays by name, a list of them in the order of `inputs`, or one
                array, `[rows, ...]`. Real numbers are quantized by the file's scales; integers of
                the very type that the file takes are taken to be quantized already.
            batch_size: Rows at once. A file with a fixed number of rows is given that many.
            quantized: Whether integer outputs are returned as they are.
            outputs: Names of the outputs that are wanted; default: those of `outputs`.

        Returns:
            A list of arrays `[rows, ...]` in the order of the outputs, float32 unless `quantized`.

        Raises:
            ValueError: The inputs are not the file's, LiteRT fails, or an output has not a row for
                each of input.
        """
        infos, found = self.raw(inputs, batch_size, outputs)
        return found if quantized else self.decoded(found, infos)

    def last_activation(self, output):
        steps = steps_by_tensor(self.model)
        return tensors.activation(steps, self._outputs[output]["index"])

    def renew(self):
        # An interpreter that failed half-way through its tensors is not asked again.
        self._interpreter, self._is_allocated = self._opened(), False
        for detail in self._inputs.values():
            detail["shape"] = ()

    def set_inputs(self, arrays):
        if self._has_resources:  # which no call puts back
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

    def invoke(self, outputs=None):
        self._asked = [info.name for info in self.outputs] if outputs is None else outputs
        if self._has_state:  # the state of a recurrent layer must not pass to the next rows
            self._interpreter.reset_all_variables()
        self._interpreter.invoke()

    def results(self):
        return [self._interpreter.get_tensor(self._outputs[x]["index"]) for x in self._asked]


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


# Reads the graphs of a `.tflite` file: its operators, tensors and signatures.


def schema():
    """The module of LiteRT that reads the format."""
    return validation.needs("ai_edge_litert.schema_py_generated", "A .tflite file", "litert")


def check(path):
    """Raises `ValueError` unless the file says that it is a TensorFlow Lite model."""
    with open(path, "rb") as file:
        start = file.read(8)
    if start[4:] != b"TFL3":
        raise ValueError(
            f"{pathlib.Path(path).name} is no TensorFlow Lite model: its bytes 4 to 8 are "
            f"{start[4:]!r} where b'TFL3' is expected."
        )


def parsed(path):
    """The file as LiteRT's `ModelT`."""
    return of_bytes(pathlib.Path(path).read_bytes())


def of_bytes(content):
    """The bytes of a file as LiteRT's `ModelT`."""
    return schema().ModelT.InitFromPackedBuf(content, 0)


@functools.cache
def _names(enumeration):
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


def operator_name(model, operator):
    """The kind of an operator, such as `"CONV_2D"` or `"CUSTOM:FlexErf"`."""
    code = model.operatorCodes[operator.opcodeIndex]
    # Old files have only the deprecated code, new ones hold 127 there for all that came later.
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    name = _names(schema().BuiltinOperator).get(number, f"UNKNOWN_{number}")
    return f"CUSTOM:{text(code.customCode)}" if name == "CUSTOM" else name


def type_name(tensor):
    """NumPy's name of a tensor's type; `"int4"` and the like for types that NumPy lacks."""
    return _names(schema().TensorType)[tensor.type].lower()


def text(value):
    """A name as text, which the file holds as bytes."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")


def shape(tensor):
    """The dimensions of a tensor as the file tells them."""
    return () if tensor.shape is None else tuple(int(size) for size in tensor.shape)


def free_shape(tensor):
    """The dimensions of a tensor; `None` where the file allows any size."""
    if tensor.shapeSignature is None or len(tensor.shapeSignature) != len(shape(tensor)):
        return shape(tensor)
    return tuple(None if size < 0 else int(size) for size in tensor.shapeSignature)


def is_constant(model, tensor):
    """Whether the file holds the tensor's values."""
    buffer = model.buffers[tensor.buffer]
    # A file of more than 2 GB holds its values outside of the buffers.
    return (buffer.data is not None and len(buffer.data) > 0) or buffer.size > 0


def constants(model):
    """The tensors whose values the file holds, graph by graph."""
    tensors = (tensor for graph in model.subgraphs for tensor in graph.tensors)
    return [tensor for tensor in tensors if is_constant(model, tensor)]


def operators(model):
    """An `Operator` for each of the file, in the order in which they run, graph by graph."""
    return [
        Operator(
            operator_name(model, operator),
            tuple(None if i < 0 else type_name(graph.tensors[i]) for i in indices(operator.inputs)),
            tuple(type_name(graph.tensors[i]) for i in indices(operator.outputs)),
            _label(graph, operator),
            number,
        )
        for number, graph in enumerate(model.subgraphs)
        for operator in (graph.operators or [])
    ]


def indices(values):
    """Indices of tensors as whole numbers."""
    return [] if values is None else [int(value) for value in values]


def steps_by_tensor(model):
    """`{index of a tensor: the Step that makes it}` of the main graph."""
    return {
        index: tensors.Step(operator_name(model, operator), indices(operator.inputs))
        for operator in (model.subgraphs[0].operators or [])
        for index in indices(operator.outputs)
    }


def _label(graph, operator):
    outputs = indices(operator.outputs)
    return text(graph.tensors[outputs[0]].name) if outputs else ""


def signatures(model):
    """`{name: {"inputs": {name: tensor index}, "outputs": ..., "graph": index}}`."""
    return {
        text(each.signatureKey): {
            "inputs": {text(x.name): int(x.tensorIndex) for x in each.inputs or []},
            "outputs": {text(x.name): int(x.tensorIndex) for x in each.outputs or []},
            "graph": int(each.subgraphIndex),
        }
        for each in model.signatureDefs or []
    }


def has_state(model):
    """Whether tensors keep their values from one run to the next."""
    return any(x.isVariable for graph in model.subgraphs for x in graph.tensors)


def has_resources(model):
    """Whether variables do."""
    return any(operator.name == "VAR_HANDLE" for operator in operators(model))

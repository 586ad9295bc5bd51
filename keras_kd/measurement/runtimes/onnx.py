"""`OnnxFile`: an `.onnx` file that is run over arrays."""

import functools

from keras_kd.measurement.runtimes import base, feeding
from keras_kd.measurement.runtimes.tensors import Operator, TensorInfo
from keras_kd.teachers import host

_TYPES = {"float": "float32", "double": "float64"}


class OnnxFile(base.ModelFile):
    """An `.onnx` file, run by ONNX Runtime on the CPU (`pip install 'keras-kd[onnx]'`).

    Args:
        path: The file.
        threads: Threads inside of an operator.

    Attributes:
        inputs: A `TensorInfo` for each input, in the file's order.
        outputs: Likewise.
        operators: An `Operator` for each node of the main graph, in order; needs the package onnx.

    Raises:
        ImportError: ONNX Runtime is missing.
        ValueError: There is no such file, or ONNX Runtime cannot load it.

    Example:

    ```python
    def logits(path, images):  # path: an .onnx file; images: [rows, height, width, channels]
        from keras_kd.measurement import runtimes

        return runtimes.OnnxFile(path).run(images)[0]
    ```
    """

    runtime = "onnxruntime"

    def __init__(self, path, threads=1):
        runtime = host.needs("onnxruntime", "An .onnx file", "onnx")
        super().__init__(path, ".onnx", threads)
        self._session = self._loaded(runtime)
        self.inputs = [_info(x) for x in self._session.get_inputs()]
        self.outputs = [_info(x) for x in self._session.get_outputs()]
        self._feed: dict = {}
        self._found: list = []

    def _loaded(self, runtime):
        options = runtime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        try:
            return runtime.InferenceSession(self.path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's errors have no public base class
            raise ValueError(f"ONNX Runtime cannot load {self.name}: {error}") from error

    @functools.cached_property
    def model(self):
        """The file as `onnx.ModelProto`."""
        return host.needs("onnx", "Reading the graph of an .onnx file", "onnx").load(self.path)

    @functools.cached_property
    def operators(self):
        onnx = host.needs("onnx", "Reading the graph of an .onnx file", "onnx")
        types = _value_types(onnx, self.model)
        return [
            Operator(
                f"CUSTOM:{node.domain}.{node.op_type}" if node.domain else node.op_type,
                tuple(types.get(name) for name in node.input),
                tuple(types.get(name) for name in node.output),
                node.name or (node.output[0] if node.output else ""),
            )
            for node in self.model.graph.node
        ]

    def run(self, inputs, batch_size=base.BATCH_SIZE):
        """What the file says of arrays.

        Args:
            inputs: A dict of arrays by name, a list of them in the order of `inputs`, or one
                array, `[rows, ...]`.
            batch_size: Rows at once. A file with a fixed number of rows is given that many.

        Returns:
            A list of arrays `[rows, ...]` in the order of `outputs`, float32.

        Raises:
            ValueError: The inputs are not the file's, or an output has not a row for each of input.
        """
        size = self.fixed_rows or feeding.positive("batch_size", batch_size)
        is_fixed = self.fixed_rows is not None
        return self.decoded(self.in_batches(self.encoded(inputs), size, is_fixed))

    def set_inputs(self, arrays):
        self._feed = {info.name: x for info, x in zip(self.inputs, arrays, strict=True)}

    def invoke(self):
        self._found = self._session.run(None, self._feed)

    def results(self):
        return self._found


def _info(value):
    shape = tuple(size if isinstance(size, int) and size > 0 else None for size in value.shape)
    kind = value.type.removeprefix("tensor(").removesuffix(")")
    return TensorInfo(value.name, shape, _TYPES.get(kind, kind))


def _value_types(onnx, model):
    """`{name of a value: type}` for what the file tells or shape inference finds."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    name_of = onnx.helper.tensor_dtype_to_np_dtype
    values = [*graph.input, *graph.output, *graph.value_info]
    types = {
        x.name: x.type.tensor_type.elem_type
        for x in values
        if x.type.HasField("tensor_type") and x.type.tensor_type.elem_type
    }
    types |= {x.name: x.data_type for x in graph.initializer}
    return {name: name_of(kind).name for name, kind in types.items()}

"""`OnnxFile`: an `.onnx` file that is run over arrays."""

import functools
import os

from keras_kd.measurement.runtimes import base, last_operator, onnx_format
from keras_kd.measurement.runtimes.tensors import Operator, TensorInfo
from keras_kd.ops.arguments import invalid
from keras_kd.teachers import host

_TYPES = {"float": "float32", "double": "float64"}


class OnnxFile(base.ModelFile):
    """An `.onnx` file, run by ONNX Runtime (`pip install 'keras-kd[onnx]'`).

    Args:
        path: The file.
        threads: Threads inside of an operator; 0: ONNX Runtime's own choice.
        providers: ONNX Runtime's execution providers, by name or as `(name, options)`.
        constants: `{name of an input: value}` for inputs that the data does not have, such as a
            sample rate or a state of zeros. A size of 1 where the file leaves it open is repeated
            to the rows of the batch.
        outputs: Names of the outputs that are run for; default: all.
        channels_first: Whether the file has images as `[rows, channels, height, width]`: inputs
            and outputs of rank 4 are then turned from and to Keras' order.

    Attributes:
        inputs: A `TensorInfo` for each input that comes from the data, in the file's order.
        outputs: Likewise.
        model: The file as `onnx.ModelProto`, without data that lies in other files; needs the
            package onnx.
        operators: An `Operator` for each node of the main graph, in order; likewise.

    Raises:
        ImportError: ONNX Runtime is missing.
        ValueError: There is no such file, ONNX Runtime cannot load it, or an argument does not fit.

    Example:

    ```python
    def logits(path, images):  # path: an .onnx file; images: [rows, height, width, channels]
        from keras_kd.measurement import runtimes

        return runtimes.OnnxFile(path, channels_first=True).run(images)[0]
    ```
    """

    runtime = "onnxruntime"
    runtime_name = "ONNX Runtime"
    failures = (Exception,)  # ONNX Runtime's errors have no public base class

    def __init__(
        self,
        path,
        threads=1,
        *,
        providers=("CPUExecutionProvider",),
        constants=None,
        outputs=None,
        channels_first=False,
    ):
        runtime = host.needs("onnxruntime", "An .onnx file", "onnx")
        super().__init__(path, ".onnx", threads, channels_first, least_threads=0)
        self.providers = _providers(runtime, providers)
        self._session = self._loaded(runtime)
        self.describe(
            [_info(x) for x in self._session.get_inputs()],
            [_info(x) for x in self._session.get_outputs()],
            constants,
            outputs,
        )
        self._feed: dict = {}
        self._found: list = []

    def _loaded(self, runtime):
        options = runtime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        try:
            return runtime.InferenceSession(self.path, options, providers=self.providers)
        except Exception as error:  # ONNX Runtime's errors have no public base class
            raise ValueError(f"ONNX Runtime cannot load {self.name}: {error}") from error

    @functools.cached_property
    def model(self):
        return onnx_format.parsed(self.path)

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

    def run(self, inputs, batch_size=base.BATCH_SIZE, outputs=None):
        """What the file says of arrays.

        Args:
            inputs: A dict of arrays by name, a list of them in the order of `inputs`, or one
                array, `[rows, ...]`.
            batch_size: Rows at once. A file with a fixed number of rows is given that many.
            outputs: Names of the outputs that are wanted; default: those of `outputs`.

        Returns:
            A list of arrays `[rows, ...]` in the order of the outputs, float32.

        Raises:
            ValueError: The inputs are not the file's, ONNX Runtime fails, or an output has not a
                row for each of input.
        """
        infos, found = self.raw(inputs, batch_size, outputs)
        return self.decoded(found, infos)

    def last_activation(self, output):
        return self._activations.get(output)

    @functools.cached_property
    def _activations(self):
        try:
            # Not `self.model`, which would hold the weights a second time.
            steps = onnx_format.steps(onnx_format.parsed(self.path).graph)
        except ImportError:  # without the package onnx it is not known
            return {}
        return {info.name: last_operator.activation(steps, info.name) for info in self.outputs}

    @functools.cached_property
    def files(self):
        """The file, and those that hold its data; by the usual names without the package onnx."""
        try:
            return onnx_format.files(self.path)
        except ImportError:
            usual = [f"{self.path}.data", f"{self.path}_data"]
            return [self.path, *(each for each in usual if os.path.isfile(each))]

    def set_inputs(self, arrays):
        self._feed = self.with_constants(arrays)

    def invoke(self, outputs=None):
        names = [info.name for info in self.outputs] if outputs is None else outputs
        self._found = self._session.run(names, self._feed)

    def results(self):
        return self._found


def _providers(runtime, given):
    """Execution providers; raises where one is not there, which ONNX Runtime would pass over."""
    available = runtime.get_available_providers()
    given = [given] if isinstance(given, str) else list(given)
    # A configuration that was saved holds lists.
    found = [tuple(each) if isinstance(each, list) else each for each in given]
    names = [each[0] if isinstance(each, tuple) else each for each in found]
    if not names or any(name not in available for name in names):
        raise invalid("providers", f"some of {available}, which are installed", repr(given))
    return found


def _info(value):
    shape = tuple(size if isinstance(size, int) and size > 0 else None for size in value.shape)
    symbols = tuple(size if isinstance(size, str) and size else None for size in value.shape)
    kind = value.type.removeprefix("tensor(").removesuffix(")")
    return TensorInfo(value.name, shape, _TYPES.get(kind, kind), symbols=symbols)


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

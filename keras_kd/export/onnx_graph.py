"""From a Keras model to an ONNX graph."""

import collections
import contextlib
import logging
import re

import keras
import tensorflow as tf

from keras_kd.export import onnx_handlers, onnx_signature, plain_lookups
from keras_kd.export.errors import ExportError

# tf2onnx writes up to this one; what is newer, ONNX's own converter makes of it.
_NEWEST_OF_TF2ONNX = 18
BATCH = "batch"
# Keras' messages are bold for terminals.
_COLORS = re.compile(r"\x1b\[[\d;]*m")
_WITHOUT = (
    ", as in keras.Model(student.inputs, what goes into it), and do outside of the file what it "
    "does."
)
# What LiteRT has operators of, and tf2onnx has not.
_OF_LITERT = {"Bucketize"}


def graph_of(model, signature, opset):
    """The ONNX model that computes what a Keras model does in inference.

    Args:
        model: A `keras.Model` in float32.
        signature: The `Signature` of its inputs.
        opset: The version of ONNX's operators.

    Returns:
        An `onnx.ModelProto` with the inputs and outputs of the model, by their names.

    Raises:
        ExportError: It has operations that ONNX has not.
    """
    import onnx

    function, names = _traceable(model, signature)
    with quiet("tf2onnx", "tensorflow"):
        try:
            graph = _converted(function, signature, names, model.name, opset)
        except Exception as error:
            raise ExportError(
                f"tf2onnx cannot convert {model.name!r}: {type(error).__name__}: {error} Make the "
                f"student without the layer that it names{_WITHOUT}"
            ) from error
    _check_operators(graph, model)
    _name_dimensions(graph, function, names)
    if opset > _NEWEST_OF_TF2ONNX:
        graph = onnx.version_converter.convert_version(graph, opset)
    remove_unused_domains(graph)
    graph.ir_version = onnx.helper.find_min_ir_version_for(graph.opset_import)
    graph.doc_string = graph.graph.doc_string = ""
    graph.graph.name = model.name
    return graph


def _traceable(model, signature):
    """As `_traced`; what TensorFlow cannot trace is told as `ExportError`."""
    try:
        return _traced(model, signature)
    except (tf.errors.OpError, TypeError, ValueError, NotImplementedError) as error:
        sizes = {
            name: tuple(spec.shape)
            for name, spec in zip(signature.names, signature.specs, strict=True)
            if None in tuple(spec.shape)[1:]
        }
        remedy = "Look into the layer that it names."
        if sizes:
            remedy = (
                f"The inputs {sizes} have open sizes, which a layer has to know: make the same "
                "model with fixed ones, keras.Input((height, width, channels)), and give it the "
                "weights: copy.set_weights(student.get_weights())."
            )
        said = " ".join(_COLORS.sub("", str(error)).split())[:300]
        raise ExportError(
            f"TensorFlow cannot trace {model.name!r}: {type(error).__name__}: {said} {remedy}"
        ) from error


def _traced(model, signature):
    """The forward pass as a concrete function, and the names of its outputs."""
    outputs = None

    def forward(*flat):
        nonlocal outputs
        inputs = keras.tree.pack_sequence_as(signature.structure, list(flat))
        with plain_lookups.applied(model):
            outputs = model(inputs, training=False)
        # An output that is an input, or that is there twice, needs a name of its own.
        return [tf.identity(x) for x in keras.tree.flatten(outputs)]

    traced = tf.function(forward, input_signature=signature.specs, autograph=False)
    function = traced.get_concrete_function()
    return function, onnx_signature.output_names(model, outputs, signature.names)


def _converted(function, signature, names, title, opset):
    """`tf2onnx.convert.from_function`, but with names, and with captured constants as such."""
    import tf2onnx

    # The tensors that the function captures come after its arguments; to tf2onnx they would be
    # inputs that the caller has to give.
    inputs = [x.name for x in function.inputs[: len(signature.specs)]]
    outputs = [x.name for x in function.outputs]
    frozen = tf2onnx.tf_loader.from_function(function, inputs, outputs)
    _inline_what_xla_compiles(frozen)
    renamed = dict(zip(inputs + outputs, signature.names + names, strict=True))
    graph, _ = tf2onnx.convert.from_graph_def(
        frozen,
        name=title,
        input_names=inputs,
        output_names=outputs,
        opset=min(opset, _NEWEST_OF_TF2ONNX),
        custom_op_handlers=onnx_handlers.handlers(),
        tensors_to_rename=renamed,
    )
    return graph


def _inline_what_xla_compiles(graph):
    """Lets functions be inlined that are marked for XLA, such as Keras' grouped convolutions."""
    for node in graph.node:
        node.attr.pop("_XlaMustCompile", None)
    for function in graph.library.function:
        function.attr.pop("_XlaMustCompile", None)
        function.attr.pop("_noinline", None)


@contextlib.contextmanager
def quiet(*names):
    """Silences loggers that tell by a line what is then checked, or what no user can change."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def nodes(graph):
    """All nodes of a graph, those in the bodies of loops and branches included."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from nodes(attribute.g)


def _check_operators(graph, model):
    import onnx

    unknown = {
        node.op_type: node.name
        for node in nodes(graph.graph)
        if not onnx.defs.has(node.op_type, node.domain)
    }
    if unknown:
        listed = ", ".join(f"{kind} (at {where})" for kind, where in sorted(unknown.items()))
        other = " Or use kd.export.to_tflite, which has it." if set(unknown) <= _OF_LITERT else ""
        raise ExportError(
            f"{model.name!r} has operations that tf2onnx cannot write in ONNX: {listed}. Make the "
            f"student without these layers{_WITHOUT}{other}"
        )


def _name_dimensions(graph, function, names):
    """Calls the batch `batch`, and other open dimensions by their input or output."""
    for value in graph.graph.input:
        _name_open(value, has_batch=True)
    shapes = {name: x.shape for name, x in zip(names, function.outputs, strict=True)}
    for value in graph.graph.output:
        shape = shapes[value.name]
        _name_open(value, has_batch=shape.rank is not None and shape[:1].as_list() == [None])


def _name_open(value, has_batch):
    for i, size in enumerate(value.type.tensor_type.shape.dim):
        if size.WhichOneof("value") != "dim_value":
            size.dim_param = BATCH if i == 0 and has_batch else f"{value.name}_dim{i}"


def operators(graph):
    """How often each operator is in a model, loops included."""
    return dict(collections.Counter(node.op_type for node in nodes(graph.graph)))


def described(values):
    """Inputs or outputs of a graph as a dict from names to text: `float32[batch, 10]`."""
    import onnx

    found = {}
    for value in values:
        given = value.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(given.elem_type)
        sizes = [size.dim_param or str(size.dim_value) for size in given.shape.dim]
        found[value.name] = f"{dtype}[{', '.join(sizes)}]"
    return found


def set_properties(graph, properties):
    """Gives a model its metadata, and none but that."""
    import onnx

    onnx.helper.set_model_props(graph, properties)


def remove_unused_domains(graph):
    """Drops the sets of operators that a graph imports and does not use."""
    used = {node.domain for node in nodes(graph.graph)} | {""}
    kept = [each for each in graph.opset_import if each.domain in used]
    del graph.opset_import[:]
    graph.opset_import.extend(kept)

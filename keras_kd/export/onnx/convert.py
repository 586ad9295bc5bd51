"""From a Keras model to an ONNX graph."""

import collections
import contextlib
import dataclasses
import logging
import re

import keras
import numpy as np
import tensorflow as tf

from keras_kd import models
from keras_kd.export import rewrites
from keras_kd.export.source import ExportError

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
        with rewrites.with_plain_lookups(model):
            outputs = model(inputs, training=False)
        # An output that is an input, or that is there twice, needs a name of its own.
        return [tf.identity(x) for x in keras.tree.flatten(outputs)]

    traced = tf.function(forward, input_signature=signature.specs, autograph=False)
    function = traced.get_concrete_function()
    return function, output_names(model, outputs, signature.names)


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
        custom_op_handlers=handlers(),
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


# What goes into a model's ONNX graph and comes out: structure, shapes, names.


_MADE_UP = re.compile(r"(keras_tensor|input_layer)(_\d+)?")


@dataclasses.dataclass(frozen=True)
class Signature:
    """The inputs of a graph.

    Args:
        structure: The model's inputs, one in each place.
        names: Names of the inputs, flat.
        specs: A `tf.TensorSpec` for each.
    """

    structure: object
    names: list
    specs: list


def signature(model, example, batch_size):
    """The signature of a model.

    Args:
        model: A built `keras.Model`.
        example: Inputs as arrays or specs, in their structure, for a model that does not know the
            shapes of its own; else `None`.
        batch_size: Rows of each call; `None`: any number.

    Raises:
        ValueError: The shapes are not known, or an input is text.
    """
    structure = models.input_specs(model)
    if structure is None:
        structure = _from_example(model, example)
    flat = keras.tree.flatten(structure)
    names = _input_names(model, structure, flat)
    for name, x in zip(names, flat, strict=True):
        if x.dtype == "string":
            raise ValueError(
                f"Input {name!r} of {model.name!r} is text, which ONNX models cannot be given. "
                "Turn text into numbers outside of the student (TextVectorization, StringLookup)."
            )
    specs = [
        tf.TensorSpec((batch_size, *x.shape[1:]), x.dtype, name=_plain(name))
        for name, x in zip(names, flat, strict=True)
    ]
    return Signature(structure, names, specs)


def _from_example(model, example):
    if example is None:
        raise ValueError(
            f"The shapes of the inputs of {model.name!r}, a {type(model).__name__}, are not known: "
            "it is no Sequential or Functional model. Pass some inputs: to_onnx(..., data=inputs)."
        )
    return keras.tree.map_structure(
        lambda x: keras.KerasTensor((None, *x.shape[1:]), x.dtype), example
    )


def _input_names(model, structure, flat):
    """The keys of a dict, else the names that the user gave, else `input`."""
    if isinstance(structure, dict):
        return models.names_in(structure)
    own = [x.name for x in model.inputs] if getattr(model, "inputs", None) else [""] * len(flat)
    alone = len(own) == 1
    return _distinct(
        name if name and not _MADE_UP.fullmatch(name) else "input" if alone else f"input_{i}"
        for i, name in enumerate(own)
    )


def output_names(model, outputs, taken):
    """Names of a model's outputs.

    Args:
        model: The model.
        outputs: What it returned, in its structure.
        taken: Names that the inputs have.

    Returns:
        The keys of a dict, else the names of the layers, else `output`; flat, all distinct.
    """
    count = len(keras.tree.flatten(outputs))
    # Of a layer that is called twice both outputs have its name.
    own = models.output_names(model, outputs) or list(getattr(model, "output_names", None) or [])
    if len(own) != count:
        own = ["output"] if count == 1 else [f"output_{i}" for i in range(count)]
    return _distinct(own, taken)


def _distinct(names, taken=()):
    found = []
    for name in names:
        other, number = name, 1
        while other in found or other in taken:
            other, number = f"{name}_{number}", number + 1
        found.append(other)
    return found


def _plain(name):
    """A name that TensorFlow takes for an argument."""
    return re.sub(r"\W", "_", name)


# What tf2onnx gets wrong about TensorFlow's operations, put right by its own hooks.


def handlers():
    """As `custom_op_handlers` of tf2onnx: functions that rewrite a node of the graph.

    Of the first three tf2onnx knows nothing: it logs a line, and writes a file that no runtime
    loads. The exact gelu needs `Erfc`, celu `Expm1`.
    """
    written = {"Erfc": _erfc, "Expm1": _expm1, "Log1p": _log1p, "AddV2": _add}
    return {name: (function, []) for name, function in written.items()}


def _erfc(graph, node, name, args):
    """`erfc(x) = 1 - erf(x)`."""
    del name, args
    one = _one(graph, node)
    return _replaced(graph, node, ("Erf", node.input), ("Sub", [one, None]))


def _expm1(graph, node, name, args):
    """`expm1(x) = exp(x) - 1`."""
    del name, args
    one = _one(graph, node)
    return _replaced(graph, node, ("Exp", node.input), ("Sub", [None, one]))


def _log1p(graph, node, name, args):
    """`log1p(x) = log(1 + x)`."""
    del name, args
    one = _one(graph, node)
    return _replaced(graph, node, ("Add", [node.input[0], one]), ("Log", [None]))


def _one(graph, node):
    from tf2onnx import utils

    dtype = utils.map_onnx_to_numpy_type(graph.get_dtype(node.input[0]))
    return graph.make_const(utils.make_name("one"), np.ones((), dtype)).output[0]


def _replaced(graph, node, first, second):
    """Two nodes instead of one; `None` among the inputs of the second is the first's output."""
    kind = {"shapes": node.output_shapes, "dtypes": node.output_dtypes}
    name, outputs = node.name, list(node.output)
    operator, inputs = first[0], list(first[1])
    graph.remove_node(name)
    between = graph.make_node(operator, inputs, **kind).output[0]
    inputs = [between if x is None else x for x in second[1]]
    return graph.make_node(second[0], inputs, name=name, outputs=outputs, **kind)


def _add(graph, node, name, args):
    """An addition whose scalar constants have one axis.

    A convolution without bias plus a scalar, as in hard_sigmoid, ends tf2onnx's removal of
    transpositions with an exception that it only logs: 106 of them stay in a MobileNetV3.
    """
    del args
    from tf2onnx import utils

    node.type = "Add"
    for i, given in enumerate(node.inputs):
        # Inputs of a loop's body have no node.
        is_scalar = given is not None and given.is_const() and graph.get_shape(node.input[i]) == []
        if is_scalar and graph.get_shape(node.input[1 - i]):
            value = given.get_tensor_value(as_list=False).reshape(1)
            constant = graph.make_const(utils.make_name(name), value)
            graph.replace_input(node, node.input[i], constant.output[0], i)
    return node

"""Converts a Keras model to an ONNX graph: its signature, and the conversion by tf2onnx."""

import collections
import contextlib
import dataclasses
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_kd import models
from keras_kd.export import rewrites
from keras_kd.export.student import ExportableModel, ExportError

# tf2onnx writes up to this opset; ONNX's own converter writes newer ones from it.
_NEWEST_OF_TF2ONNX = 18
BATCH = "batch"
# Keras' messages are bold for terminals.
_COLORS = re.compile(r"\x1b\[[\d;]*m")
_WITHOUT = (
    ", as in keras.Model(student.inputs, what goes into it), and do outside of the file what it "
    "does."
)
# Operators that LiteRT has and tf2onnx lacks.
_OF_LITERT = {"Bucketize"}


@dataclasses.dataclass(frozen=True, eq=False)
class Signature:
    """The inputs and outputs of a graph.

    Attributes:
        inputs: The names of the inputs, flat.
        specs: A `tf.TensorSpec` for each.
        outputs: The names of the outputs, flat; empty until the student was run.
    """

    inputs: tuple[str, ...]
    specs: tuple[Any, ...]
    outputs: tuple[str, ...] = ()

    @property
    def has_open_batch(self) -> bool:
        """Whether files with this signature take any batch size."""
        return any(spec.shape[0] is None for spec in self.specs)

    def with_outputs(self, exportable: ExportableModel, outputs: Any) -> "Signature":
        """The same with names for the outputs that the student returned, in their structure.

        They are the keys of a dict, else the names of the layers, else `output`; all distinct.
        """
        model, count = exportable.model, len(keras.tree.flatten(outputs))
        # Both outputs of a layer that is called twice have its name.
        names = models.output_names(model, outputs) or list(getattr(model, "output_names", ()))
        if len(names) != count:
            names = ["output"] if count == 1 else [f"output_{i}" for i in range(count)]
        return dataclasses.replace(self, outputs=tuple(_distinct(names, self.inputs)))

    def feed(self, arrays: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Arrays, one for each input, under their names."""
        return dict(zip(self.inputs, arrays, strict=True))


# Names that Keras makes up.
_MADE_UP = re.compile(r"(keras_tensor|input_layer)(_\d+)?")


def signature_of(exportable: ExportableModel, batch_size: int | None) -> Signature:
    """The signature of a student, without its outputs.

    Raises:
        ValueError: The shapes are not known, or an input is text.
    """
    if not exportable.knows_inputs:
        raise ValueError(
            f"The shapes of the inputs of {exportable.name!r}, a "
            f"{type(exportable.model).__name__}, are not known: it is neither a Sequential nor a "
            "Functional model. Pass some inputs: to_onnx(..., data=inputs)."
        )
    names = _input_names(exportable)
    for name, each in zip(names, exportable.inputs, strict=True):
        if each.dtype == "string":
            raise ValueError(
                f"Input {name!r} of {exportable.name!r} is text, which ONNX models cannot take. "
                "Turn text into numbers outside of the student (TextVectorization, StringLookup)."
            )
    specs = (
        # TensorFlow takes the name for an argument's.
        tf.TensorSpec((batch_size, *each.shape[1:]), each.dtype, name=re.sub(r"\W", "_", name))
        for name, each in zip(names, exportable.inputs, strict=True)
    )
    return Signature(tuple(names), tuple(specs))


def _input_names(exportable):
    """The keys of a dict, else the names that the user gave, else `input`."""
    if isinstance(exportable.structure, dict):
        return [each.key for each in exportable.inputs]
    own = [each.keras_name for each in exportable.inputs]
    is_single = len(own) == 1
    return _distinct(
        name if name and not _MADE_UP.fullmatch(name) else "input" if is_single else f"input_{i}"
        for i, name in enumerate(own)
    )


def _distinct(names, taken=()):
    found: list[str] = []
    for name in names:
        other, number = name, 1
        while other in found or other in taken:
            other, number = f"{name}_{number}", number + 1
        found.append(other)
    return found


def graph_of(exportable: ExportableModel, signature: Signature, opset: int) -> Any:
    """The ONNX model that computes what a student does in inference.

    Args:
        exportable: The student.
        signature: Its `Signature`, with outputs.
        opset: The version of ONNX's operators.

    Returns:
        An `onnx.ModelProto` with the inputs and outputs of the signature.

    Raises:
        ExportError: It has operations that ONNX lacks.
    """
    import onnx

    name = exportable.name
    function = _traced(exportable, signature)
    with quiet("tf2onnx", "tensorflow"):
        try:
            graph = _converted(function, signature, name, opset)
        except Exception as error:
            raise ExportError(
                f"tf2onnx cannot convert {name!r}: {type(error).__name__}: {error} Make the "
                f"student without the layer that it names{_WITHOUT}"
            ) from error
    _check_operators(graph, name)
    _name_dimensions(graph, function, signature)
    if opset > _NEWEST_OF_TF2ONNX:
        graph = onnx.version_converter.convert_version(graph, opset)
    remove_unused_domains(graph)
    graph.ir_version = onnx.helper.find_min_ir_version_for(graph.opset_import)
    graph.doc_string = graph.graph.doc_string = ""
    graph.graph.name = name
    return graph


def _traced(exportable, signature):
    """The forward pass as a concrete function.

    Raises:
        ExportError: TensorFlow cannot trace it.
    """

    def forward(*flat):
        with rewrites.with_plain_lookups(exportable.model):
            outputs = exportable.run(flat)
        # An output that is an input, or that is there twice, needs a name of its own.
        return [tf.identity(x) for x in keras.tree.flatten(outputs)]

    traced = tf.function(forward, input_signature=list(signature.specs), autograph=False)
    try:
        return traced.get_concrete_function()
    except (tf.errors.OpError, TypeError, ValueError, NotImplementedError) as error:
        reason = " ".join(_COLORS.sub("", str(error)).split())[:300]
        raise ExportError(
            f"TensorFlow cannot trace {exportable.name!r}: {type(error).__name__}: {reason} "
            f"{_tracing_remedy(signature)}"
        ) from error


def _tracing_remedy(signature):
    open_sizes = {
        name: tuple(spec.shape)
        for name, spec in zip(signature.inputs, signature.specs, strict=True)
        if None in tuple(spec.shape)[1:]
    }
    if not open_sizes:
        return "Look into the layer that it names."
    return (
        f"The inputs {open_sizes} have open sizes, which a layer has to know: make the same "
        "model with fixed ones, keras.Input((height, width, channels)), and give it the "
        "weights: copy.set_weights(student.get_weights())."
    )


def _converted(function, signature, title, opset):
    """`tf2onnx.convert.from_function`, but with names, and with captured constants as such."""
    import tf2onnx

    # The tensors that the function captures come after its arguments; to tf2onnx they would be
    # inputs that the caller has to give.
    inputs = [x.name for x in function.inputs[: len(signature.specs)]]
    outputs = [x.name for x in function.outputs]
    frozen = tf2onnx.tf_loader.from_function(function, inputs, outputs)
    _inline_functions_of_xla(frozen)
    names = [*signature.inputs, *signature.outputs]
    graph, _ = tf2onnx.convert.from_graph_def(
        frozen,
        name=title,
        input_names=inputs,
        output_names=outputs,
        opset=min(opset, _NEWEST_OF_TF2ONNX),
        custom_op_handlers=_handlers(),
        tensors_to_rename=dict(zip(inputs + outputs, names, strict=True)),
    )
    return graph


def _inline_functions_of_xla(graph):
    """Lets functions be inlined that are marked for XLA, such as Keras' grouped convolutions."""
    for node in graph.node:
        node.attr.pop("_XlaMustCompile", None)
    for function in graph.library.function:
        function.attr.pop("_XlaMustCompile", None)
        function.attr.pop("_noinline", None)


@contextlib.contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Silences loggers whose messages are checked afterwards, or that no user can act on."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def nodes(graph: Any) -> Iterator[Any]:
    """All nodes of a graph, those in the bodies of loops and branches included."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from nodes(attribute.g)


def _check_operators(graph, name):
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
            f"{name!r} has operations that tf2onnx cannot write in ONNX: {listed}. Make the "
            f"student without these layers{_WITHOUT}{other}"
        )


def _name_dimensions(graph, function, signature):
    """Names the batch `batch`, and other open dimensions after their input or output."""
    for value in graph.graph.input:
        _name_open(value, has_batch=True)
    shapes = {name: x.shape for name, x in zip(signature.outputs, function.outputs, strict=True)}
    for value in graph.graph.output:
        shape = shapes[value.name]
        _name_open(value, has_batch=shape.rank is not None and shape[:1].as_list() == [None])


def _name_open(value, has_batch):
    for i, size in enumerate(value.type.tensor_type.shape.dim):
        if size.WhichOneof("value") != "dim_value":
            size.dim_param = BATCH if i == 0 and has_batch else f"{value.name}_dim{i}"


def count_operators(graph: Any) -> dict[str, int]:
    """`{operator: count}` of a model, loops included."""
    return dict(collections.Counter(node.op_type for node in nodes(graph.graph)))


def describe(values: Any) -> dict[str, str]:
    """Inputs or outputs of a graph as a dict from names to text: `float32[batch, 10]`."""
    import onnx

    found = {}
    for value in values:
        given = value.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(given.elem_type)
        sizes = [size.dim_param or str(size.dim_value) for size in given.shape.dim]
        found[value.name] = f"{dtype}[{', '.join(sizes)}]"
    return found


def set_properties(graph: Any, properties: Mapping[str, str]) -> None:
    """Sets the metadata of a model."""
    import onnx

    onnx.helper.set_model_props(graph, properties)


def remove_unused_domains(graph: Any) -> None:
    """Removes the sets of operators that a graph imports and does not use."""
    used = {node.domain for node in nodes(graph.graph)} | {""}
    kept = [each for each in graph.opset_import if each.domain in used]
    del graph.opset_import[:]
    graph.opset_import.extend(kept)


# TensorFlow operations that tf2onnx converts wrongly or not at all, by its own hooks.


def _handlers() -> dict[str, tuple[Callable, list]]:
    """The `custom_op_handlers` of tf2onnx: functions that rewrite a node of the graph.

    tf2onnx does not know the first three: it logs a line, and writes a file that no runtime loads.
    The exact gelu needs `Erfc`, celu `Expm1`.
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
    """Two nodes instead of one; `None` among the second's inputs is the first's output."""
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

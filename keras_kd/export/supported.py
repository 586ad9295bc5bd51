"""Checks of a student before any conversion: layers and inputs that a file cannot hold."""

from collections.abc import Iterator
from typing import Any

import keras
from keras import layers

from keras_kd import models
from keras_kd.export.student import ExportableModel
from keras_kd.models import paths

# Layers that look into hash tables, or hash text: neither LiteRT nor ONNX have such operators.
_LOOKUPS = (
    layers.Hashing,
    layers.HashedCrossing,
    layers.IntegerLookup,
    layers.StringLookup,
    layers.TextVectorization,
)
# Layers that read integers as such.
_READERS = (
    *("Embedding", "ReversibleEmbedding", "CategoryEncoding", "Discretization"),
    *("OneHot", "Take", "TakeAlongAxis", "MultiHot"),
)
_IN_BYTES = ("uint8", "int8")


def check_lookups(exportable: ExportableModel, purpose: str) -> None:
    """Raises if a layer of a student looks something up in a table of words or hashes.

    Args:
        exportable: The student.
        purpose: `"to_tflite"` or `"to_onnx"`.

    Raises:
        ValueError: One does; it is named.
    """
    for path, _, layer in paths.walk(exportable.model):
        if isinstance(layer, _LOOKUPS):
            kind = type(layer).__name__
            raise ValueError(
                f"{purpose}: layer {path!r} of model {exportable.name!r} is a {kind}, for which "
                "neither LiteRT nor ONNX have operators. Do that outside of the student: with "
                f"layer = student.get_layer({layer.name!r}), export keras.Model(layer.output, "
                "student.output), and feed it with layer(inputs), such as by dataset.map(lambda "
                "x, y: (layer(x), y))."
            )


def check_integer_activations(exportable: ExportableModel, quantization: Any) -> None:
    """Raises for what a file with integer activations cannot hold.

    Raises:
        ValueError: A recurrent layer runs in a loop, or an embedding reads real numbers.
    """
    _check_loops(exportable.model, quantization)
    for each in exportable.inputs:
        if each.vocabulary is not None and not each.is_integer:
            raise ValueError(
                f"quantization={quantization!r} is not possible for input {each.name!r} of type "
                f"{each.dtype}, which an Embedding reads: rounded to so few numbers it would "
                "be other rows of the table. Make the same model with keras.Input(..., "
                "dtype='int32') and load the weights."
            )


def _check_loops(student, quantization):
    loops = [
        path
        for path, _, layer in paths.walk(student)
        if isinstance(layer, keras.layers.RNN) and not layer.unroll
    ]
    if loops:
        raise ValueError(
            f"quantization={quantization!r} is not possible for the recurrent layers {loops}: they "
            "run in a loop that TensorFlow and ai-edge-quantizer cannot calibrate (TensorFlow "
            "crashes). Use quantization='dynamic', 'float16' or 'int4', or make the same model "
            "with unroll=True and load the weights."
        )


def check_integer_inputs(exportable: ExportableModel, quantization: Any) -> None:
    """Raises if an integer input is cast to float, for integer activations.

    The file would begin with a CAST to float, which is not an integer operator.

    Args:
        exportable: The student.
        quantization: The `quantization` of `to_tflite`.

    Raises:
        ValueError: One is; the message has the layer that casts it, and another way.
    """
    nested = [each for each in models.layers(exportable.model) if isinstance(each, keras.Model)]
    casts = [cast for each in (exportable.model, *nested) for cast in _casts(each)]
    if not casts:
        return
    tensor, layer = casts[0]
    dtype = str(tensor.dtype) if tensor.dtype in _IN_BYTES else "uint8"
    raise ValueError(
        f"quantization={quantization!r} is not possible for an input of type {tensor.dtype} that "
        f"layer {layer!r} turns into real numbers: the file would do so in float. Make the same "
        "model with keras.Input(..., dtype='float32'), load the weights, and pass "
        f"input_dtype={dtype!r} and representative data in float32: the file then takes integers "
        "all the same."
    )


def _casts(model: keras.Model) -> Iterator[tuple[Any, str]]:
    """`(symbolic input, name of the layer)` for each integer input that is cast to float."""
    for tensor in list(getattr(model, "inputs", None) or []):
        layer = _casting_layer(model, tensor) if _is_integer(tensor) else None
        if layer is not None:
            yield tensor, layer


def _is_integer(tensor):
    return "int" in str(tensor.dtype)


def _casting_layer(model, tensor):
    """The name of the Keras layer that makes floats of an integer tensor, or `None`."""
    operations = getattr(model, "operations", None) or model.layers
    for operation in operations:
        kind = type(operation)
        # What a user's own layer does with integers is not known: it may look them up.
        if kind.__module__.split(".")[0] != "keras" or kind.__name__ in _READERS:
            continue
        if isinstance(operation, (keras.Model, layers.InputLayer, layers.Wrapper, layers.RNN)):
            continue
        if all(each is not tensor for each in _flat(operation, "input")):
            continue
        for output in _flat(operation, "output"):
            if "float" in str(output.dtype):
                return operation.name
            found = _casting_layer(model, output) if _is_integer(output) else None
            if found is not None:
                return found
    return None


def _flat(operation, attribute):
    # A layer that is called more than once has no single input or output.
    try:
        return keras.tree.flatten(getattr(operation, attribute))
    except (AttributeError, ValueError):
        return []

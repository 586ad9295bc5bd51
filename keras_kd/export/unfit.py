"""What no file for devices can hold, told by the layer's name before anything is converted."""

import keras
from keras import layers

from keras_kd import models
from keras_kd.taps import paths

# They look into hash tables, or hash strings, for which neither LiteRT nor ONNX have operators.
_LOOKUPS = (
    layers.Hashing,
    layers.HashedCrossing,
    layers.IntegerLookup,
    layers.StringLookup,
    layers.TextVectorization,
)
# They read whole numbers as such.
_READERS = (
    *("Embedding", "ReversibleEmbedding", "CategoryEncoding", "Discretization"),
    *("OneHot", "Take", "TakeAlongAxis", "MultiHot"),
)
_IN_BYTES = ("uint8", "int8")


def check_lookups(student, purpose):
    """Raises if a layer of a student looks something up in a table of words or hashes.

    Args:
        student: A Keras model.
        purpose: `"to_tflite"` or `"to_onnx"`.

    Raises:
        ValueError: One does, with its name.
    """
    for path, _, layer in paths.walk(student):
        if isinstance(layer, _LOOKUPS):
            kind = type(layer).__name__
            raise ValueError(
                f"{purpose}: layer {path!r} of model {student.name!r} is a {kind}, for which "
                "neither LiteRT nor ONNX have operators. Do that outside of the student: with "
                f"layer = student.get_layer({layer.name!r}), export keras.Model(layer.output, "
                "student.output), and feed it with layer(inputs), such as by dataset.map(lambda "
                "x, y: (layer(x), y))."
            )


def check_whole_inputs(student, quantization):
    """Raises if an input of whole numbers is turned to real ones, for integer activations.

    The file would begin with a CAST to float, which is not integer.

    Args:
        student: A Keras model.
        quantization: As of `to_tflite`.

    Raises:
        ValueError: One is, with the layer's name and another way.
    """
    nested = [each for each in models.layers(student) if isinstance(each, keras.Model)]
    readers = [reader for each in (student, *nested) for reader in _casting(each)]
    if not readers:
        return
    tensor, reader = readers[0]
    dtype = str(tensor.dtype) if tensor.dtype in _IN_BYTES else "uint8"
    raise ValueError(
        f"quantization={quantization!r} is not possible for an input of type {tensor.dtype} that "
        f"layer {reader!r} turns into real numbers: the file would do so in float. Make the same "
        "model with keras.Input(..., dtype='float32'), load the weights, and pass "
        f"input_dtype={dtype!r} and representative data in float32: the file then takes whole "
        "numbers all the same."
    )


def _casting(model):
    """`(input, name of the layer)` for each input of whole numbers that becomes a real one."""
    for tensor in list(getattr(model, "inputs", None) or []):
        reader = _turns_to_float(model, tensor) if _is_whole(tensor) else None
        if reader is not None:
            yield tensor, reader


def _is_whole(tensor):
    return "int" in str(tensor.dtype)


def _turns_to_float(model, tensor):
    """The name of a layer of Keras that gives real numbers for whole ones, or `None`."""
    operations = getattr(model, "operations", None) or model.layers
    for operation in operations:
        kind = type(operation)
        # What a layer of the user's does with whole numbers is not known: it may look them up.
        if kind.__module__.split(".")[0] != "keras" or kind.__name__ in _READERS:
            continue
        if isinstance(operation, (keras.Model, layers.InputLayer, layers.Wrapper, layers.RNN)):
            continue
        if all(each is not tensor for each in _flat(operation, "input")):
            continue
        for output in _flat(operation, "output"):
            if "float" in str(output.dtype):
                return operation.name
            found = _turns_to_float(model, output) if _is_whole(output) else None
            if found is not None:
                return found
    return None


def _flat(operation, attribute):
    # A layer that is called more than once has no single input or output.
    try:
        return keras.tree.flatten(getattr(operation, attribute))
    except (AttributeError, ValueError):
        return []

"""What can be exported: a built, plain, float32 student whose input shapes are known."""

import re
from typing import Any, Protocol, runtime_checkable

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from keras_kd import models
from keras_kd.models import cloning, paths

# `ExportError`: a file that does not hold what was promised.


class ExportError(RuntimeError):
    """An export would not be, or do, what was asked for; nothing was written."""


class LeftInFloatError(ExportError):
    """A file has operators in float that were to be integers.

    Args:
        message: In words.
        operators: Their names.
    """

    def __init__(self, message, operators=()):
        super().__init__(message)
        self.operators = tuple(operators)


@runtime_checkable
class KnowsItsFile(Protocol):
    """A student that was trained with the numbers of its file: a `QuantizationAware`."""

    scheme: str

    def rounded_student(self) -> keras.Model: ...

    def integers_by_channel(self) -> dict[str, np.ndarray]: ...

    def integers_of_operands(self) -> dict[str, np.ndarray]: ...

    def parameters(self) -> dict[str, tuple]: ...

    def trained_ranges(self, student, content: bytes, arrays, calibrated) -> dict[str, Any]: ...


# Batches of one size, of which files with a fixed number of rows need whole ones.


def filled_up(inputs, batch_size):
    """Inputs whose first rows come again until they fill batches of a size; `None`: as they are."""
    rows = len(keras.tree.flatten(inputs)[0])
    if batch_size is None or rows % batch_size == 0:
        return inputs
    order = np.arange(-(-rows // batch_size) * batch_size) % rows
    return keras.tree.map_structure(lambda x: x[order], inputs)


def batches(arrays, size):
    """Yields arrays `[rows, ...]` in batches of one size."""
    arrays = filled_up(arrays, size)
    for start in range(0, len(arrays[0]), size):
        yield [array[start : start + size] for array in arrays]


# The student as every route takes it: built, a plain Keras model, float32.


_HALVES = ("float16", "bfloat16", "mixed_float16", "mixed_bfloat16")


def check(student):
    """Raises unless a student is a model that can be exported.

    Raises:
        ValueError: It is no Keras model, wrapped in a distiller, not built, or quantized by Keras.
    """
    if not isinstance(student, keras.Model):
        raise ValueError(
            "`student` must be a keras.Model. "
            f"Received: student={student!r} of type {type(student).__name__}"
        )
    inner = getattr(student, "student", None)
    if callable(getattr(student, "rounded_student", None)):
        raise ValueError(
            f"`student` is a {type(student).__name__}. Only kd.export.to_tflite writes files with "
            "its ranges. With its weights on their grid, and float activations, a plain model is "
            "student.rounded_student()."
        )
    if isinstance(inner, keras.Model):
        raise ValueError(
            f"`student` is a {type(student).__name__}. Pass the model that it trains: "
            "distiller.student."
        )
    if not student.built:
        raise ValueError(
            f"Student {student.name!r} has no weights yet. Call it on a batch, or give it an Input."
        )
    quantized = [x.name for x in models.layers(student) if _is_quantized(x)]
    if quantized:
        raise ValueError(
            f"Keras' model.quantize has changed layers of {student.name!r}: {quantized[:5]}. What "
            "it makes does not export. Load the student as it was before, and let the export "
            "quantize it: quantization='int8'."
        )


def _is_quantized(layer):
    return isinstance(layer.dtype_policy, keras.dtype_policies.QuantizedDTypePolicy)


def in_float32(student):
    """The student, or where it computes in half precision a copy of it that does not.

    Raises:
        ValueError: Keras cannot make a copy of it.
    """
    if not any(_is_half(layer) for layer in [student, *models.layers(student)]):
        return student
    try:
        copy = _copy_in_float32(student)
        cloning.give_weights(copy, student)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            f"Student {student.name!r} computes in half precision, and Keras cannot make it again "
            "in float32: its class, or a layer's, has no fitting get_config. Make it in float32 "
            "yourself, and give it the weights: copy.set_weights(student.get_weights())."
        ) from error
    return copy


def _is_half(layer):
    return layer.dtype_policy.name in _HALVES


def _copy_in_float32(student):
    if isinstance(student, keras.Sequential) or hasattr(student, "operations"):
        return keras.models.clone_model(student, clone_function=_layer_in_float32, recursive=True)
    copy = _layer_in_float32(student)
    if not copy.built:
        copy.build_from_config(student.get_build_config() or {})
    return copy


def _layer_in_float32(layer):
    return type(layer).from_config(_config_in_float32(layer.get_config()))


def _config_in_float32(config):
    if isinstance(config, (list, tuple)):
        return type(config)(_config_in_float32(each) for each in config)
    if not isinstance(config, dict):
        return config
    return {
        key: "float32" if key == "dtype" and _names_half(value) else _config_in_float32(value)
        for key, value in config.items()
    }


def _names_half(value):
    if isinstance(value, dict):
        value = value.get("config", {}).get("name")
    return value in _HALVES


_COUNTED = re.compile(r"(keras_tensor|input_layer|input)(_\d+)?")


def checked(student, purpose):
    """The student itself, or its copy in float32 where it computes in mixed precision.

    Args:
        student: A Keras model.
        purpose: What it is for, in words of the error messages, such as `"to_tflite"`.

    Raises:
        ValueError: It is no Keras model, wraps a student, was quantized by Keras, or has no known
            inputs.
    """
    check(student)
    if models.input_specs(student) is None:
        raise ValueError(
            f"{purpose}: model {student.name!r} ({type(student).__name__}) has no input signature, "
            "so its input shapes are not known. Make a functional model of it: inputs = "
            "keras.Input(shape); keras.Model(inputs, model(inputs))."
        )
    return in_float32(student)


def flat_inputs(student):
    """The symbolic inputs of a student in the order of its structure."""
    return keras.tree.flatten(models.input_specs(student))


def input_names(student):
    """A name for each input: letters, digits and underscores only, each once.

    Names that Keras counts up, such as `keras_tensor_10`, are others in a copy of the model. They
    are replaced, because tensors of a file are found again by their names.
    """
    names = []
    given = models.input_names(student) or [tensor.name for tensor in student.inputs]
    for i, name in enumerate(given):
        cleaned = "".join(c if c.isalnum() and c.isascii() else "_" for c in name or "")
        if not cleaned or _COUNTED.fullmatch(cleaned) or cleaned in names:
            cleaned = f"input_{i}"
        names.append(cleaned if cleaned[0].isalpha() else f"input_{cleaned}")
    return names


def output_names(student):
    """The names of the outputs in the order of their structure."""
    count = len(keras.tree.flatten(models.output_specs(student)))
    return models.output_names(student) or [f"output_{i}" for i in range(count)]


def vocabularies(model):
    """`{number of an input: rows of the embeddings right after it}`."""
    positions = {id(x): i for i, x in enumerate(getattr(model, "inputs", None) or [])}
    found: dict[int, int] = {}
    for layer in models.layers(model):
        if isinstance(layer, keras.layers.Embedding) and positions:
            position = positions.get(id(getattr(layer, "input", None)))
            if position is not None:
                found[position] = min(layer.input_dim, found.get(position, layer.input_dim))
    return found


def outputs_of(student, arrays, batch_size=64):
    """The student's outputs for arrays of inputs, each `[rows, ...]`, as a list of arrays."""
    structure = models.input_specs(student)
    given = [tf.convert_to_tensor(array) for array in arrays]
    specs = [tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype) for tensor in given]

    def forward(*inputs):
        found = student(keras.tree.pack_sequence_as(structure, list(inputs)), training=False)
        return keras.tree.flatten(found)

    # Not `predict`, of which TensorFlow warns where several students are exported: it takes them
    # for one that is traced again and again.
    traced = tf.function(forward, autograph=False).get_concrete_function(*specs)
    starts = range(0, len(given[0]), batch_size)
    batches = [traced(*(x[start : start + batch_size] for x in given)) for start in starts]
    return [np.concatenate(values) for values in zip(*batches, strict=True)]


def run(student, arrays):
    """The student's outputs in one pass, outside of `predict`, so that its layers can be tapped."""
    inputs = keras.tree.pack_sequence_as(models.input_specs(student), list(arrays))
    return student(inputs, training=False)


def check_for_integers(student, quantization):
    """Raises for what integer activations cannot hold.

    Raises:
        ValueError: A recurrent layer runs in a loop, or indices come as real numbers.
    """
    _check_loops(student, quantization)
    inputs, names = flat_inputs(student), input_names(student)
    for i in vocabularies(student):
        if "int" not in str(inputs[i].dtype):
            raise ValueError(
                f"quantization={quantization!r} is not possible for input {names[i]!r} of type "
                f"{inputs[i].dtype}, which an Embedding reads: rounded to so few numbers it would "
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


# What no file for devices can hold, told by the layer's name before anything is converted.


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

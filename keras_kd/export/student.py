"""The student of an export: `ExportableModel`, a plain float32 model inspected once.

`to_tflite`, `to_onnx`, `quantization_aware` and `tfmot.distill` make it first; everything behind
them takes it, and none of them inspects the model's inputs again.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import keras
import numpy as np
import tensorflow as tf

from keras_kd import models
from keras_kd.models import cloning


class ExportError(RuntimeError):
    """A file would not hold, or compute, what was requested; nothing was written."""


class LeftInFloatError(ExportError):
    """A file has float operators where it must have integer ones.

    Args:
        message: The message.
        operators: The names of these operators.
    """

    def __init__(self, message: str, operators: Sequence[str] = ()):
        super().__init__(message)
        self.operators = tuple(operators)


@runtime_checkable
class ExportSource(Protocol):
    """A student trained with the integers of its file, which it knows: `QuantizationAware`.

    The exporters know it by these members alone, and not its class, which is in a room above.
    """

    scheme: str

    def rounded_student(self) -> keras.Model:
        """A plain copy of the student, its weights on the grid of the file."""

    def trained_ranges(
        self,
        exportable: "ExportableModel",
        content: bytes,
        arrays: list[np.ndarray],
        calibrated: dict[str, tuple[float, float]],
    ) -> dict[str, tuple[float, float]]:
        """The trained ranges of a float file's tensors, `{tensor: (low, high)}`."""

    def integers_by_channel(self) -> dict[str, np.ndarray]:
        """The integers of weights with one scale per channel."""

    def integers_of_operands(self) -> dict[str, np.ndarray]:
        """The integers of variables with one scale."""

    def parameters(self) -> dict[str, tuple[float, int]]:
        """`{tensor: (scale, zero point)}` of the activations."""


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """One input of a model.

    Attributes:
        name: Its name in a file: ASCII letters, digits and underscores, unique in the model.
        key: Its name in the data: the path of its key in a dict of inputs, else `name`.
        keras_name: The name of its Keras tensor, `""` where it has none.
        shape: Its shape; the first size is the batch's, open sizes are `None`.
        dtype: Its type.
        vocabulary: The number of rows of the embeddings that read it, else `None`.
    """

    name: str
    key: str
    keras_name: str
    shape: tuple[int | None, ...]
    dtype: str
    vocabulary: int | None = None

    @property
    def is_integer(self) -> bool:
        return "int" in self.dtype


@dataclasses.dataclass(frozen=True, eq=False)
class ExportableModel:
    """A built, plain float32 model, with what the exporters need to know of it, read once.

    Attributes:
        model: The Keras model.
        name: Its name.
        inputs: An `InputSpec` for each input, in the order of the structure. Empty where the model
            does not know its inputs.
        structure: The structure of the inputs, a symbolic tensor in each place; `None` where the
            model does not know its inputs.
        output_names: The names of the outputs, in the order of their structure.
        output_shapes: The shapes of the outputs, or `None` where the model does not know them.
        source: The student that knows the integers of its file and made `model`, else `None`.
    """

    model: keras.Model
    name: str
    inputs: tuple[InputSpec, ...]
    structure: Any
    output_names: tuple[str, ...]
    output_shapes: tuple[tuple[int | None, ...], ...] | None
    source: ExportSource | None = None

    @classmethod
    def from_keras(
        cls, student: keras.Model, purpose: str, *, needs_inputs: bool = True
    ) -> "ExportableModel":
        """Checks a plain student and reads it.

        Args:
            student: A Keras model. One in half precision is copied in float32.
            purpose: The public function, for error messages, such as `"to_tflite"`.
            needs_inputs: Whether the model must know its inputs.

        Raises:
            ValueError: It is not a Keras model, is wrapped in a distiller, is not built, was
                quantized by Keras, cannot be copied, or does not know its inputs.
        """
        check_student(student)
        if needs_inputs and not getattr(student, "inputs", None):
            raise ValueError(
                f"{purpose}: model {student.name!r} ({type(student).__name__}) has no input "
                "signature, so its input shapes are not known. Make a functional model of it: "
                "inputs = keras.Input(shape); keras.Model(inputs, model(inputs))."
            )
        model = _in_float32(student)
        structure, inputs = read_inputs(model)
        outputs = keras.tree.flatten(models.output_specs(model))
        names = models.output_names(model) or [f"output_{i}" for i in range(len(outputs))]
        shapes = models.output_shapes(model)
        return cls(
            model,
            model.name,
            inputs,
            structure,
            tuple(names),
            None if shapes is None else tuple(shapes),
        )

    @classmethod
    def from_source(cls, source: ExportSource, purpose: str) -> "ExportableModel":
        """As `from_keras`, of a student that knows the integers of its file."""
        return dataclasses.replace(cls.from_keras(source.rounded_student(), purpose), source=source)

    @property
    def input_names(self) -> list[str]:
        """The names of the inputs in a file."""
        return [each.name for each in self.inputs]

    @property
    def knows_inputs(self) -> bool:
        return bool(self.inputs)

    @property
    def reference(self) -> keras.Model:
        """The model whose outputs the file must give: the source, which rounds as the file does."""
        return self.model if self.source is None else self.source

    def with_model(self, model: keras.Model) -> "ExportableModel":
        """The same of a copy of the model: its inputs and outputs are the same."""
        return dataclasses.replace(self, model=model, name=model.name)

    def with_inputs_like(self, example: Any) -> "ExportableModel":
        """The same of a model that does not know its inputs, with those of an example.

        Args:
            example: Arrays `[samples, ...]` in the structure of the model's inputs.
        """
        structure = keras.tree.map_structure(_spec_of_array, example)
        return dataclasses.replace(
            self, structure=structure, inputs=_specs(structure, _keys_of(structure), [], {})
        )

    def pack(self, arrays: Sequence[Any]) -> Any:
        """Arrays or tensors, one for each input, in the structure that the model takes."""
        return keras.tree.pack_sequence_as(self.structure, list(arrays))

    def feed(self, arrays: Sequence[Any]) -> dict[str, Any]:
        """Arrays, one for each input, under their names in a file."""
        return dict(zip(self.input_names, arrays, strict=True))

    def run(self, arrays: Sequence[Any]) -> Any:
        """The model's outputs in one eager pass, so that its layers can be tapped."""
        return self.model(self.pack(arrays), training=False)

    def predict(self, arrays: Sequence[np.ndarray], batch_size: int = 64) -> list[np.ndarray]:
        """The outputs that a file must give for arrays `[samples, ...]`, flat."""
        given = [tf.convert_to_tensor(array) for array in arrays]
        specs = [tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype) for tensor in given]

        def forward(*inputs):
            return keras.tree.flatten(self.reference(self.pack(inputs), training=False))

        # Not `Model.predict`: where several students are exported, TensorFlow takes them for one
        # that is retraced again and again, and warns.
        traced = tf.function(forward, autograph=False).get_concrete_function(*specs)
        starts = range(0, len(given[0]), batch_size)
        batches = [traced(*(x[start : start + batch_size] for x in given)) for start in starts]
        return [np.concatenate(values) for values in zip(*batches, strict=True)]


def check_student(student: Any) -> None:
    """Raises `ValueError` unless a student is a plain Keras model with weights."""
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
            f"Keras' model.quantize has changed layers of {student.name!r}: {quantized[:5]}, which "
            "cannot be exported. Load the student as it was before, and let the export quantize "
            "it: quantization='int8'."
        )


def _is_quantized(layer):
    return isinstance(layer.dtype_policy, keras.dtype_policies.QuantizedDTypePolicy)


# Inputs, and their names in files and data.


# Names that Keras counts up, such as `keras_tensor_10`: a copy of the model has others.
_COUNTED = re.compile(r"(keras_tensor|input_layer|input)(_\d+)?")


def read_inputs(model: keras.Model) -> tuple[Any, tuple[InputSpec, ...]]:
    """The structure of a model's inputs, and an `InputSpec` for each; `(None, ())` if unknown.

    The only function of the exporters that inspects a model's inputs.
    """
    structure = models.input_specs(model)
    if structure is None:
        return None, ()
    own = [str(tensor.name) for tensor in keras.tree.flatten(structure)]
    names = models.input_names(model) or own
    return structure, _specs(structure, names, own, _vocabularies(model))


def _specs(structure, names, own, vocabularies):
    """An `InputSpec` for each place of a structure of symbolic tensors."""
    is_dict = isinstance(structure, dict)
    cleaned = _file_names(names)
    return tuple(
        InputSpec(
            name=cleaned[i],
            key=names[i] if is_dict else cleaned[i],
            keras_name=own[i] if own else "",
            shape=tuple(tensor.shape),
            dtype=str(tensor.dtype),
            vocabulary=vocabularies.get(i),
        )
        for i, tensor in enumerate(keras.tree.flatten(structure))
    )


def _file_names(given):
    """Names of ASCII letters, digits and underscores, all different.

    Those that Keras counts up are replaced: tensors of a file are found by their names.
    """
    names: list[str] = []
    for i, name in enumerate(given):
        cleaned = "".join(c if c.isalnum() and c.isascii() else "_" for c in name or "")
        if not cleaned or _COUNTED.fullmatch(cleaned) or cleaned in names:
            cleaned = f"input_{i}"
        names.append(cleaned if cleaned[0].isalpha() else f"input_{cleaned}")
    return names


def _keys_of(structure):
    if isinstance(structure, dict):
        return models.names_in(structure)
    return [f"input_{i}" for i in range(len(keras.tree.flatten(structure)))]


def _spec_of_array(array):
    dtype = "float32" if array.dtype == np.float64 else str(array.dtype)
    return keras.KerasTensor((None, *array.shape[1:]), dtype)


def _vocabularies(model):
    """`{index of an input: rows of the embeddings that read it}`."""
    positions = {id(x): i for i, x in enumerate(getattr(model, "inputs", None) or [])}
    found: dict[int, int] = {}
    for layer in models.layers(model):
        if isinstance(layer, keras.layers.Embedding) and positions:
            position = positions.get(id(getattr(layer, "input", None)))
            if position is not None:
                found[position] = min(layer.input_dim, found.get(position, layer.input_dim))
    return found


# Copies in float32 of students in half precision.


_HALVES = ("float16", "bfloat16", "mixed_float16", "mixed_bfloat16")


def _in_float32(student):
    """The student, or its copy in float32 where it computes in half precision.

    Raises:
        ValueError: Keras cannot copy it.
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

"""Layout of an int8 file: which activations and variables it rounds, and which share a range."""

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from keras_kd.export import representative
from keras_kd.export.student import ExportableModel, ExportError
from keras_kd.export.tflite import conversion
from keras_kd.export.tflite.edge_quantizer import EdgeQuantizer
from keras_kd.models import paths
from keras_kd.quantization import fake_quant, points, trial
from keras_kd.quantization.points import Match, QuantizationPoint
from keras_kd.runtimes import tflite

# Samples that distinguish the file's tensors, and factors of one more: on the data alone a ReLU6
# that clips nothing equals its input.
_SAMPLES = 4
_FACTORS = (8.0, -8.0)
# The suffix that ai-edge-quantizer adds to the name of a tensor whose range it changes.
_REQUANTIZED = "_quantized"
# Samples that are run at once to see their ranges.
_AT_ONCE = 64


@dataclasses.dataclass(frozen=True)
class Rounding:
    """A point and the range that it is rounded to.

    Attributes:
        point: The `QuantizationPoint`.
        low: The least value that calibration saw (or that the file has fixed).
        high: The largest.
        is_fixed: Whether the file has this range whatever the data.
        owner: The tensor of the file whose range it has: pooling and reshapes keep that of their
            input, parts of a concatenation have that of the whole.
        factor: What this range is multiplied by in the file.
        is_owner: Whether the point's own tensor is the owner.
    """

    point: QuantizationPoint
    low: float
    high: float
    is_fixed: bool
    owner: str
    factor: float = 1.0
    is_owner: bool = False

    def get_config(self) -> dict[str, Any]:
        """The rounding as saved students hold it, where a point is called a site."""
        values = dataclasses.asdict(self)
        return {"site": values.pop("point"), **values}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Rounding":
        """The rounding of `get_config`, also of students saved by earlier versions."""
        values = dict(config)
        return cls(QuantizationPoint(**values.pop("site")), **values)


@dataclasses.dataclass(frozen=True)
class RoundedOperand:
    """A variable that a file holds as it does activations: 8 bits, one range, 0 inside of it.

    LayerNormalization's scale and offset, embeddings and learned positions are such variables.

    Attributes:
        layer: The path of its layer; empty for the model's own.
        index: Which of the layer's weights it is.
        variable: The `keras.Variable`.
    """

    layer: str
    index: int
    variable: Any

    def on_grid(self) -> tf.Tensor:
        """Its values on their grid; the gradient passes as if they were not rounded."""
        values = keras.ops.convert_to_tensor(self.variable)
        bounds = tf.reduce_min(values), tf.reduce_max(values)
        return values + tf.stop_gradient(fake_quant.rounded_activation(values, bounds) - values)

    def integers(self) -> np.ndarray:
        """Its integers, an int8 array."""
        values = np.asarray(keras.ops.convert_to_numpy(self.variable))
        scale, zero = fake_quant.parameters(values.min(), values.max())
        return np.clip(np.rint(values / scale) + zero, -128, 127).astype(np.int8)


def read_layout(
    exportable: ExportableModel, arrays: Sequence[np.ndarray], kernels: Sequence[Any] = ()
) -> tuple[list[Rounding], list[RoundedOperand]]:
    """What the int8 file of a student rounds besides the kernels, read from a trial file.

    Args:
        exportable: The student, in float.
        arrays: Representative data, an array `[samples, ...]` for each input.
        kernels: Variables that are rounded otherwise, or not.

    Returns:
        `(roundings, operands)`: the activations, in the order of the forward pass, and the
        variables, of a copy of the student.

    Raises:
        ValueError: A layer has no integer kernels, or Keras cannot copy the student.
        ExportError: It cannot be converted.
    """
    student, copy = exportable.model, trial.stand_in(exportable)
    with trial.naming_layers(copy.model):
        content = conversion.float_tflite(copy, for_integers=True)
    matches = match_tensors(copy, content, arrays)
    quantizer = EdgeQuantizer(content, "int8")
    calibrated = quantizer.calibrate(arrays, copy.input_names)
    quantized = quantizer.quantize(calibrated)
    trial.check_int8_file(copy.model, quantized, matches)
    real = activation_parameters(quantized)
    known = _last_of_each_point(matches, {name for name in real if name in calibrated})
    owners, of_constants = _owners(quantizer, calibrated), constant_parameters(quantized)
    roundings = [
        _rounding(matches[name], name, owners.get(name), calibrated, real)
        for name in known
        # Rows of a table are on the table's grid, and are rounded where the table is.
        if name in owners or real[name] not in of_constants
    ]
    left = {id(variable) for variable in kernels}
    pairs = zip(student.weights, copy.model.weights, strict=True)
    left = {id(copied) for variable, copied in pairs if id(variable) in left}
    operands = find_operands(copy.model, content, quantized, left)
    return _with_own_ranges(exportable, arrays, roundings), operands


def match_tensors(
    exportable: ExportableModel,
    content: bytes,
    arrays: Sequence[np.ndarray],
    only: Collection[QuantizationPoint] | None = None,
) -> dict[str, Match]:
    """As `points.match_tensors`, on samples that distinguish different points.

    Args:
        exportable: The student.
        content: The content of its float `.tflite` file.
        arrays: Representative data; only some of its samples are used.
        only: The points to look for, or `None` for all.
    """
    plain = [array[: _SAMPLES + len(_FACTORS)] for array in arrays]
    try:
        scaled = [_scaled(array) for array in plain]
        return points.match_tensors(exportable, content, scaled, only)
    except (tf.errors.InvalidArgumentError, ExportError):
        # Numbers that a layer takes for indices must stay what they are.
        return points.match_tensors(exportable, content, plain, only)


def trained_ranges(
    bounds: Mapping[QuantizationPoint, tuple[float, float]],
    exportable: ExportableModel,
    content: bytes,
    arrays: Sequence[np.ndarray],
    calibrated: Mapping[str, tuple[float, float]],
) -> dict[str, tuple[float, float]]:
    """The ranges with which a student was trained, `{tensor of a float file: (low, high)}`.

    By points of the model, not by names of tensors: those hold names that Keras counts up from
    model to model, and show which operators were merged, which depends on the weights.

    Args:
        bounds: The trained ranges, `{point: (low, high)}`.
        exportable: The model of the file, such as the student's `rounded_student()`.
        content: The content of the file.
        arrays: Representative data.
        calibrated: The ranges of the file's tensors over it, `{tensor: (low, high)}`.
    """
    owners = _owners(EdgeQuantizer(content, "int8"), calibrated)
    found: dict[str, tuple[float, float]] = {}
    for name, match in match_tensors(exportable, content, arrays, set(bounds)).items():
        owner = owners.get(name)
        if owner is not None and (owner not in found or owner == name):
            low, high = bounds[match.point]
            found[owner] = match.factor * low, match.factor * high
    return found


def _scaled(array):
    """Some samples, then the first one multiplied, where they are real numbers."""
    if array.dtype.kind != "f":
        return array
    return np.concatenate([array[:_SAMPLES], *(factor * array[:1] for factor in _FACTORS)])


def _with_own_ranges(exportable, arrays, roundings):
    """Roundings with the ranges of the student itself, not of its stand-in."""
    own = _point_ranges(exportable, arrays)
    by_owner = {each.owner: own.get(each.point) for each in roundings if each.is_owner}
    return [
        each if each.is_fixed or by_owner.get(each.owner) is None else _ranged(each, by_owner)
        for each in roundings
    ]


def _ranged(rounding, by_owner):
    low, high = by_owner[rounding.owner]
    return dataclasses.replace(rounding, low=low, high=high)


def _point_ranges(exportable, arrays):
    """`{point: (low, high)}` over data."""
    size = exportable.inputs[0].shape[0] or _AT_ONCE
    found: dict = {}
    for batch in representative.batches(arrays, min(size, len(arrays[0]))):
        for point, (low, high) in points.record_points(exportable, batch, _extremes).items():
            before = found.get(point, (low, high))
            found[point] = min(low, before[0]), max(high, before[1])
    return found


def _extremes(value):
    return float(tf.reduce_min(value)), float(tf.reduce_max(value))


def _owners(quantizer, calibrated):
    """`{tensor: the tensor whose range it has}`, without those whose range no data changes.

    The file is quantized with a different range for each tensor, and read for which has which.
    """
    marks = {name: (-1.0, 1.0 + 1e-3 * i) for i, name in enumerate(calibrated)}
    by_scale = {np.float32(fake_quant.parameters(*mark)[0]): name for name, mark in marks.items()}
    real = activation_parameters(quantizer.quantize(marks))
    found = {name: by_scale.get(np.float32(scale)) for name, (scale, _) in real.items()}
    # Rows of a table have the range of the table, and may be requantized to one of their own.
    owners = {name: found.get(name) or found.get(f"{name}{_REQUANTIZED}") for name in calibrated}
    return {name: owner for name, owner in owners.items() if owner is not None}


def _last_of_each_point(matches, known):
    """The last tensor of each point; a bias of 0 made others equal to it."""
    last = {match.point: name for name, match in matches.items() if name in known}
    return list(last.values())


def activation_parameters(content: bytes) -> dict[str, tuple[float, int]]:
    """`{tensor: (scale, zero point)}` of the int8 activations of a file."""
    from ai_edge_litert import interpreter as litert

    interpreter = litert.Interpreter(model_content=content)
    return {
        x["name"]: (float(x["quantization"][0]), int(x["quantization"][1]))
        for x in interpreter.get_tensor_details()
        if x["dtype"] == np.int8 and x["quantization"][0] > 0
    }


def _rounding(match, name, owner, calibrated, real):
    low, high = fake_quant.bounds_of(*real[name]) if owner is None else calibrated[owner]
    low, high = low / match.factor, high / match.factor
    return Rounding(
        match.point, low, high, owner is None, owner or name, match.factor, owner == name
    )


# Operands: the constants of the float file that are integers with one scale in the quantized one.


def operand_places(rounded: Sequence[Any]) -> list[list[Any]]:
    """`[layer, index]` of each `RoundedOperand` in a list; see `operands_at`."""
    return [[x.layer, x.index] for x in rounded if isinstance(x, RoundedOperand)]


def operands_at(student: keras.Model, places: Sequence[Sequence[Any]]) -> list[RoundedOperand]:
    """The `RoundedOperand`s at places `[layer, index]` of a student."""
    by_path = dict(_layers(student))
    return [RoundedOperand(path, i, by_path[path].weights[i]) for path, i in places]


def find_operands(
    student: keras.Model, content: bytes, quantized: bytes, leave: Collection[int] = ()
) -> list[RoundedOperand]:
    """The `RoundedOperand`s of a student.

    Args:
        student: A Keras model.
        content: The content of its float file.
        quantized: The content of its int8 file.
        leave: Identities (`id`) of variables that are rounded otherwise, or not.
    """
    constants = _constants_with_one_scale(content, quantized)
    seen, operands = set(leave), []
    for path, layer in _layers(student):
        own = {id(variable) for variable in paths.own_weights(layer)} - seen
        seen |= own
        for i, variable in enumerate(layer.weights):
            if id(variable) not in own:
                continue
            values = np.asarray(keras.ops.convert_to_numpy(variable)).ravel()
            if any(np.array_equal(values, each) for each in constants):
                operands.append(RoundedOperand(path, i, variable))
    return operands


def constant_parameters(quantized: bytes) -> set[tuple[float, int]]:
    """`{(scale, zero point)}` of the constants with one scale of an int8 file."""
    return {
        (float(tensor.quantization.scale[0]), int(tensor.quantization.zeroPoint[0]))
        for tensor in _with_one_scale(quantized)
    }


def _layers(student: keras.Model) -> Iterator[tuple[str, Any]]:
    """Yields `(path, layer)`, the student itself first."""
    yield "", student
    for path, _, layer in paths.walk(student):
        if isinstance(layer, layers.Layer):
            yield path, layer


def _constants_with_one_scale(content, quantized):
    """The float values of the constants that are int8 with one scale in the quantized file."""
    names = {tflite.decode_name(tensor.name) for tensor in _with_one_scale(quantized)}
    model = tflite.parse(content)
    return [
        np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.float32)
        for tensor in tflite.constants(model)
        if tflite.type_name(tensor) == "float32" and tflite.decode_name(tensor.name) in names
    ]


def _with_one_scale(quantized):
    return [
        tensor
        for tensor in tflite.constants(tflite.parse(quantized))
        if tflite.type_name(tensor) == "int8" and _has_one_scale(tensor.quantization)
    ]


def _has_one_scale(quantization):
    return (
        quantization is not None and quantization.scale is not None and len(quantization.scale) == 1
    )

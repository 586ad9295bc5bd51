"""Layout: which activations of a student its int8 file rounds, and which of them share a range."""

import dataclasses
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from keras_kd.export import source
from keras_kd.export.source import ExportError
from keras_kd.export.tflite import conversion, edge_quantizer
from keras_kd.models import paths
from keras_kd.quantization import exportable, fake_quant, points
from keras_kd.runtimes import tflite

# Rows on which the file's tensors are told from each other, and what one of them is multiplied by
# besides: on data as it is a ReLU6 that clips nothing equals what it is given.
_ROWS = 4
_FACTORS = (8.0, -8.0)
# What ai-edge-quantizer adds to the name of a tensor whose range it changes.
_BROUGHT = "_quantized"
# Rows that are run at once to see their ranges.
_AT_ONCE = 64


@dataclasses.dataclass(frozen=True)
class Rounding:
    """A site and the range it is rounded to.

    Attributes:
        site: The `Site`.
        low: The least value that calibration saw (or that the file has fixed).
        high: The largest.
        is_fixed: Whether the file has this range whatever the data.
        owner: The tensor of the file whose range it has: pooling and reshapes keep that of their
            input, what is concatenated has that of the whole.
        factor: What this range is multiplied by in the file.
        is_owner: Whether the site's own tensor is the owner.
    """

    site: points.Site
    low: float
    high: float
    is_fixed: bool
    owner: str
    factor: float
    is_owner: bool


def found(student, arrays, kernels=()):
    """What an int8 file rounds besides of the kernels.

    Args:
        student: A float Keras model.
        arrays: Representative data, an array `[rows, ...]` for each input.
        kernels: Variables that are rounded otherwise, or not.

    Returns:
        `(roundings, operands)`: the `Rounding`s of the activations, in the order of the forward
        pass, and the `RoundedOperand`s, of a copy of the student.

    Raises:
        ValueError: A layer has no integer kernels, or Keras cannot copy the student.
        ExportError: It cannot be converted.
    """
    copy = exportable.of(student)
    with exportable.told_by_layer(copy):
        content = conversion.float_tflite(copy, for_integers=True)
    match_of = matched(copy, content, arrays)
    quantizer = edge_quantizer.EdgeQuantizer(content, "int8")
    calibrated = quantizer.calibrate(arrays, source.input_names(copy))
    quantized = quantizer.quantize(calibrated)
    exportable.check(copy, quantized, match_of)
    real = parameters_of(quantized)
    known = _last_of_each_site(match_of, {name for name in real if name in calibrated})
    owners, of_constants = _owners(quantizer, calibrated), grids(quantized)
    roundings = [
        _rounding(match_of[name], name, owners.get(name), calibrated, real)
        for name in known
        # Rows of a table are on the table's grid, and are rounded where the table is.
        if name in owners or real[name] not in of_constants
    ]
    left = {id(variable) for variable in kernels}
    pairs = zip(student.weights, copy.weights, strict=True)
    left = {id(copied) for variable, copied in pairs if id(variable) in left}
    return _with_ranges_of(student, arrays, roundings), find_operands(
        copy, content, quantized, left
    )


def matched(student, content, arrays, only=None):
    """As `sites.matched`, on rows that tell different places apart.

    Args:
        student: The model.
        content: The bytes of its float `.tflite` file.
        arrays: Representative data, of which some rows are taken.
        only: As of `sites.matched`.
    """
    plain = [array[: _ROWS + len(_FACTORS)] for array in arrays]
    try:
        return points.matched(student, content, [_scaled(array) for array in plain], only)
    except (tf.errors.InvalidArgumentError, ExportError):
        # Numbers that something takes for indices must stay what they are.
        return points.matched(student, content, plain, only)


def trained_ranges(aware, student, content, arrays, calibrated):
    """The ranges that a student was trained with, `{tensor of a float file: (low, high)}`.

    By places of the model, not by names of tensors: those hold names that Keras counts up from
    model to model, and say which operators were merged, which depends on the weights.

    Args:
        aware: The `QuantizationAware` student.
        student: What the file was made of, such as its `rounded_student()`.
        content: The bytes of the file.
        arrays: Representative data.
        calibrated: The ranges of the file's tensors over it, `{tensor: (low, high)}`.
    """
    bounds = aware.bounds_of_sites()
    quantizer = edge_quantizer.EdgeQuantizer(content, "int8")
    owners = _owners(quantizer, calibrated)
    found: dict = {}
    for name, match in matched(student, content, arrays, set(bounds)).items():
        owner = owners.get(name)
        if owner is not None and (owner not in found or owner == name):
            found[owner] = tuple(match.factor * bound for bound in bounds[match.site])
    return found


def _scaled(array):
    """Rows of which the last are the first one, multiplied, where they are real numbers."""
    if array.dtype.kind != "f":
        return array
    return np.concatenate([array[:_ROWS], *(factor * array[:1] for factor in _FACTORS)])


def _with_ranges_of(student, arrays, roundings):
    """Roundings with the ranges that the student itself has, not its stand-in."""
    own = _ranges_of(student, arrays)
    by_owner = {each.owner: own.get(each.site) for each in roundings if each.is_owner}
    return [
        each if each.is_fixed or by_owner.get(each.owner) is None else _ranged(each, by_owner)
        for each in roundings
    ]


def _ranged(rounding, by_owner):
    low, high = by_owner[rounding.owner]
    return dataclasses.replace(rounding, low=low, high=high)


def _ranges_of(student, arrays):
    """`{site: (low, high)}` over data."""
    size = source.flat_inputs(student)[0].shape[0] or _AT_ONCE
    found: dict = {}
    for batch in source.batches(arrays, min(size, len(arrays[0]))):
        for site, (low, high) in points.seen(student, batch, _extremes).items():
            before = found.get(site, (low, high))
            found[site] = min(low, before[0]), max(high, before[1])
    return found


def _extremes(value):
    return float(tf.reduce_min(value)), float(tf.reduce_max(value))


def _owners(quantizer, calibrated):
    """`{tensor: the tensor whose range it has}`, without those whose range no data changes.

    The file is quantized with ranges that are no two alike, and is asked which tensor has which.
    """
    marks = {name: (-1.0, 1.0 + 1e-3 * i) for i, name in enumerate(calibrated)}
    by_scale = {np.float32(fake_quant.parameters(*mark)[0]): name for name, mark in marks.items()}
    real = parameters_of(quantizer.quantize(marks))
    found = {name: by_scale.get(np.float32(scale)) for name, (scale, _) in real.items()}
    # Rows of a table come in the range of the table, and may be brought to one of their own.
    owners = {name: found.get(name) or found.get(f"{name}{_BROUGHT}") for name in calibrated}
    return {name: owner for name, owner in owners.items() if owner is not None}


def _last_of_each_site(matched, known):
    """The tensors of which the layers' outputs are made; a bias of 0 made others equal to them."""
    last = {match.site: name for name, match in matched.items() if name in known}
    return list(last.values())


def parameters_of(content):
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
        match.site, low, high, owner is None, owner or name, match.factor, owner == name
    )


# Operands: variables by which a file adds or multiplies, and tables of which it takes rows.
#
# LayerNormalization's scale and offset, embeddings and learned positions are held as activations
# are: 8 bits, one range for the whole variable, 0 inside of it. Which variables a file holds so
# is asked of the file: the constants of the float file that are integers with one scale in the
# quantized one.


@dataclasses.dataclass(frozen=True)
class RoundedOperand:
    """A variable that is rounded as an activation is.

    Attributes:
        layer: The path of its layer; empty for the model's own.
        index: Which of the layer's weights it is.
        variable: The `keras.Variable`.
    """

    layer: str
    index: int
    variable: Any

    def on_grid(self):
        """Its values on their grid; the gradient passes as if they were not rounded."""
        values = keras.ops.convert_to_tensor(self.variable)
        bounds = tf.reduce_min(values), tf.reduce_max(values)
        return values + tf.stop_gradient(fake_quant.rounded_activation(values, bounds) - values)

    def integers(self):
        """Its integers, an int8 array."""
        values = np.asarray(keras.ops.convert_to_numpy(self.variable))
        scale, zero = fake_quant.parameters(values.min(), values.max())
        return np.clip(np.rint(values / scale) + zero, -128, 127).astype(np.int8)


def places(rounded):
    """`[layer, index]` of each `RoundedOperand` in a list, of which `at` makes them again."""
    return [[x.layer, x.index] for x in rounded if isinstance(x, RoundedOperand)]


def at(student, places):
    """The `RoundedOperand`s at places of a student, as `places` tells them."""
    by_path = dict(_layers(student))
    return [RoundedOperand(path, i, by_path[path].weights[i]) for path, i in places]


def find_operands(student, content, quantized, leave=()):
    """The `RoundedOperand`s of a student.

    Args:
        student: A Keras model.
        content: The bytes of its float file.
        quantized: The bytes of its int8 file.
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


def grids(quantized):
    """`{(scale, zero point)}` of the constants with one scale of an int8 file."""
    return {
        (float(tensor.quantization.scale[0]), int(tensor.quantization.zeroPoint[0]))
        for tensor in _with_one_scale(quantized)
    }


def _layers(student):
    """Yields `(path, layer)`, the student itself first."""
    yield "", student
    for path, _, layer in paths.walk(student):
        if isinstance(layer, layers.Layer):
            yield path, layer


def _constants_with_one_scale(content, quantized):
    """The float values of what the quantized file holds as int8 with one scale."""
    names = {tflite.text(tensor.name) for tensor in _with_one_scale(quantized)}
    model = tflite.of_bytes(content)
    return [
        np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.float32)
        for tensor in tflite.constants(model)
        if tflite.type_name(tensor) == "float32" and tflite.text(tensor.name) in names
    ]


def _with_one_scale(quantized):
    return [
        tensor
        for tensor in tflite.constants(tflite.of_bytes(quantized))
        if tflite.type_name(tensor) == "int8" and _has_one_scale(tensor.quantization)
    ]


def _has_one_scale(quantization):
    return (
        quantization is not None and quantization.scale is not None and len(quantization.scale) == 1
    )

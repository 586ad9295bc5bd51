"""Layout: which activations of a student its int8 file rounds, and which of them share a range."""

import dataclasses

import numpy as np
import tensorflow as tf

from keras_kd.export import conversion, edge_quantizer, students
from keras_kd.export.errors import ExportError
from keras_kd.quantization import operands, ranges, sites

# Rows on which the file's tensors are told from each other, and what one of them is multiplied by
# besides: on data as it is a ReLU6 that clips nothing equals what it is given.
_ROWS = 4
_FACTORS = (8.0, -8.0)
# What ai-edge-quantizer adds to the name of a tensor whose range it changes.
_BROUGHT = "_quantized"


@dataclasses.dataclass(frozen=True)
class Rounding:
    """A site and the range it is rounded to.

    Attributes:
        site: The `Site`.
        low: The least value that calibration saw (or that the file has fixed).
        high: The largest.
        is_fixed: Whether the file has this range whatever the data.
        owner: The tensor of the file whose range it has: pooling and reshapes keep that of their
            input.
        factor: What this range is multiplied by in the file.
    """

    site: sites.Site
    low: float
    high: float
    is_fixed: bool
    owner: str
    factor: float


def found(student, arrays, kernels=()):
    """What an int8 file rounds besides of the kernels.

    Args:
        student: A float Keras model.
        arrays: Representative data, an array `[rows, ...]` for each input.
        kernels: Variables that are rounded otherwise, or not.

    Returns:
        `(roundings, operands)`: the `Rounding`s of the activations, in the order of the forward
        pass, and the `RoundedOperand`s.
    """
    content = conversion.float_tflite(student, for_integers=True)
    matched = _matched(student, content, arrays)
    quantizer = edge_quantizer.EdgeQuantizer(content, "int8")
    calibrated = quantizer.calibrate(arrays, students.input_names(student))
    quantized = quantizer.quantize(calibrated)
    real = parameters_of(quantized)
    known = _last_of_each_site(matched, {name for name in real if name in calibrated})
    owners, of_constants = _owners(quantizer, calibrated), operands.grids(quantized)
    roundings = [
        _rounding(matched[name], name, owners.get(name), calibrated, real)
        for name in known
        # Rows of a table are on the table's grid, and are rounded where the table is.
        if name in owners or real[name] not in of_constants
    ]
    left = {id(variable) for variable in kernels}
    return roundings, operands.found(student, content, quantized, left)


def _matched(student, content, arrays):
    """The tensors of a float file by their sites, on rows that tell different places apart."""
    plain = [array[: _ROWS + len(_FACTORS)] for array in arrays]
    try:
        return sites.matched(student, content, [_scaled(array) for array in plain])
    except (tf.errors.InvalidArgumentError, ExportError):
        # Numbers that something takes for indices must stay what they are.
        return sites.matched(student, content, plain)


def _scaled(array):
    """Rows of which the last are the first one, multiplied, where they are real numbers."""
    if array.dtype.kind != "f":
        return array
    return np.concatenate([array[:_ROWS], *(factor * array[:1] for factor in _FACTORS)])


def _owners(quantizer, calibrated):
    """`{tensor: the tensor whose range it has}`, without those whose range no data changes.

    The file is quantized with ranges that are no two alike, and is asked which tensor has which.
    """
    marks = {name: (-1.0, 1.0 + 1e-3 * i) for i, name in enumerate(calibrated)}
    by_scale = {np.float32(ranges.parameters(*mark)[0]): name for name, mark in marks.items()}
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
    low, high = ranges.bounds_of(*real[name]) if owner is None else calibrated[owner]
    low, high = low / match.factor, high / match.factor
    return Rounding(match.site, low, high, owner is None, owner or name, match.factor)

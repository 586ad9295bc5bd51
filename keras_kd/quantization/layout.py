"""Layout: which activations of a student its int8 file rounds, and which of them share a range."""

import dataclasses

import numpy as np

from keras_kd.export import conversion, edge_quantizer, students
from keras_kd.quantization import ranges, sites

# Rows on which the file's tensors are told from each other.
_ROWS = 4


@dataclasses.dataclass(frozen=True)
class Rounding:
    """A site and the range it is rounded to.

    Attributes:
        site: The `Site`.
        tensor: The tensor of the file.
        low: The least value that calibration saw (or that the file has fixed).
        high: The largest.
        is_fixed: Whether the file has this range whatever the data.
        owner: The tensor whose range it has: pooling and reshapes keep that of their input.
    """

    site: sites.Site
    tensor: str
    low: float
    high: float
    is_fixed: bool
    owner: str


def found(student, arrays):
    """The `Rounding`s of a student, in the order of its forward pass.

    Args:
        student: A float Keras model.
        arrays: Representative data, an array `[rows, ...]` for each input.
    """
    content = conversion.float_tflite(student, for_integers=True)
    matched = sites.matched(student, content, [array[:_ROWS] for array in arrays])
    calibrated, real = of_file(content, arrays, students.input_names(student))
    known = _last_of_each_site(matched, {name for name in real if name in calibrated})
    own = {name: ranges.parameters(*calibrated[name]) for name in known}
    return [_rounding(name, matched[name], calibrated, real, own) for name in known]


def _last_of_each_site(matched, known):
    """The tensors of which the layers' outputs are made; a bias of 0 made others equal to them."""
    last = {site: name for name, site in matched.items() if name in known}
    return list(last.values())


def of_file(content, arrays, names):
    """`(ranges that calibration saw, (scale, zero) in the quantized file)`, by tensor."""
    quantizer = edge_quantizer.EdgeQuantizer(content, "int8")
    calibrated = quantizer.calibrate(arrays, names)
    return calibrated, parameters_of(quantizer.quantize(calibrated))


def parameters_of(content):
    """`{tensor: (scale, zero point)}` of the int8 activations of a file."""
    from ai_edge_litert import interpreter as litert

    interpreter = litert.Interpreter(model_content=content)
    return {
        x["name"]: (float(x["quantization"][0]), int(x["quantization"][1]))
        for x in interpreter.get_tensor_details()
        if x["dtype"] == np.int8 and x["quantization"][0] > 0
    }


def _rounding(name, site, calibrated, real, own):
    if _same(own[name], real[name]):
        return Rounding(site, name, *calibrated[name], False, name)
    for other, parameters in own.items():
        if _same(parameters, real[name]) and _same(parameters, real[other]):
            return Rounding(site, name, *calibrated[other], False, other)
    return Rounding(site, name, *ranges.bounds_of(*real[name]), True, name)


def _same(one, other):
    return one[1] == other[1] and abs(one[0] - other[0]) <= 1e-5 * other[0]

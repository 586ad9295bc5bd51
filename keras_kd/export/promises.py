"""What a file must hold to be what was asked for."""

import collections

import numpy as np

from keras_kd.export.errors import ExportError, LeftInFloatError

_FLOATS = {"float32", "float16", "bfloat16", "float64"}
# They turn integers to floats and back, and compute nothing.
_BORDERS = {"QUANTIZE", "DEQUANTIZE"}


def counts(file):
    """`{operator: count}` of a `TFLiteFile`, in the order in which they first appear."""
    return dict(collections.Counter(operator.name for operator in file.operators))


def float_operators(file):
    """Names of the operators that compute with floats."""
    return _names(in_float(file))


def _names(operators):
    return sorted({operator.name for operator in operators})


def in_float(file):
    """The operators that compute with floats."""
    return [
        operator
        for operator in file.operators
        if operator.name not in _BORDERS
        and _FLOATS.intersection([*operator.inputs, *operator.outputs])
    ]


def check(file, quantization, input_dtype, output_dtype):
    """Raises `ExportError` unless the file holds what was asked for.

    Args:
        file: A `TFLiteFile`.
        quantization: As of `to_tflite`.
        input_dtype: The type of inputs that are real numbers, or `None` for any.
        output_dtype: The type of outputs, or `None` for any.
    """
    flex = sorted(name for name in counts(file) if name.startswith("CUSTOM"))
    if flex:
        raise ExportError(f"The file needs operators that LiteRT does not have: {flex}.")
    if quantization in ("int8", "int16x8"):
        left = in_float(file)
        if left:
            raise LeftInFloatError(
                f"Operators {_names(left)} are left in float32, the first at "
                f"{left[0].label!r}, which a file of quantization={quantization!r} must "
                "not have. Have the student compute that in another way (a mask that is cast to "
                "float by pooling is one), or take quantization='dynamic'.",
                _names(left),
            )
    for what, infos, wanted in (
        ("input", file.inputs, input_dtype),
        ("output", file.outputs, output_dtype),
    ):
        for info in infos:
            is_number = info.scale is not None or info.dtype in _FLOATS
            if wanted is not None and is_number and info.dtype != wanted:
                raise ExportError(
                    f"The {what} {info.name!r} is {info.dtype}; {wanted} was asked for."
                )


def check_values(outputs, expected, names):
    """Raises `ExportError` where a file gives NaN, or the same for all rows, and the model not."""
    for name, found, wanted in zip(names, outputs, expected, strict=True):
        if not np.isfinite(found).all() and np.isfinite(wanted).all():
            raise ExportError(f"Output {name!r} of the file holds NaN or infinity.")
        if len(found) > 1 and np.ptp(found, axis=0).max() == 0 < np.ptp(wanted, axis=0).max():
            raise ExportError(
                f"Output {name!r} of the file is the same for all {len(found)} rows: the "
                "quantization has ruined the model."
            )

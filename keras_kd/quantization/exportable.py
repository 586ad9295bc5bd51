"""Whether a student has the file that it would be trained for: found out before it trains."""

import collections
import contextlib
import pathlib
import re
import tempfile

import numpy as np

from keras_kd._utils import validation
from keras_kd.export import comparison, source
from keras_kd.export.source import ExportError
from keras_kd.export.tflite import conversion, edge_quantizer, tensors
from keras_kd.models import cloning, paths
from keras_kd.runtimes import TFLiteFile

_LISTED = 5
_TRIED = 2
_CAST = (
    "Give it numbers of the type that it computes with: keras.Input(dtype='int32') for indices, "
    "'float32' for pixels (and input_dtype='uint8' when it is exported)"
)
_OTHER = (
    "Use another layer in its place: ReLU or LeakyReLU for an activation, LayerNormalization or "
    "BatchNormalization for a normalization"
)


@contextlib.contextmanager
def told_by_layer(student):
    """While open, the error of a conversion says first which layers of a student it names."""
    try:
        yield
    except ExportError as error:
        layers = _named_in(str(error.__cause__ or error), student)
        if not layers:
            raise
        raise ExportError(f"{_listed(layers)}: {error}") from error


def check(student, quantized, matched):
    """Raises unless an int8 file has integers only, and runs.

    Args:
        student: The model it was made of.
        quantized: Its bytes.
        matched: `{tensor: Match}` of its float file.

    Raises:
        ValueError: Layers compute in float; they are named.
        ExportError: LiteRT cannot run it.
    """
    left = collections.defaultdict(set)
    for operator in comparison.in_float(_opened(quantized)):
        left[_layer_of(operator.label, student, matched)].add(operator.name)
    if left:
        layers = [layer for layer in left if layer is not None]
        kinds = sorted(set().union(*left.values()))
        raise ValueError(
            f"{_listed(layers) if layers else f'Model {student.name!r}'}: an int8 file would hold "
            f"operators {kinds} in float32, because ai-edge-quantizer has no integers for them, so "
            f"it cannot be trained for such a file. {_CAST if 'CAST' in kinds else _OTHER}, or "
            "take scheme='int4', in which weights alone are rounded."
        )


def check_weights_only(student, arrays=None):
    """Raises where a student has no file of `"int4"`.

    Nothing is tried where `keras-kd[export]` is not installed: such a student can be trained
    without.

    Args:
        student: The model.
        arrays: Rows to run the file on, or `None`.

    Raises:
        ValueError: Keras cannot copy the student.
        ExportError: It cannot be converted, or LiteRT cannot run the file.
    """
    copy = of(student)
    try:
        edge_quantizer.needs()
        validation.needs("ai_edge_litert.interpreter", "A .tflite file", "export")
    except ImportError:
        return
    with told_by_layer(copy):
        content = conversion.float_tflite(copy)
    quantized = edge_quantizer.EdgeQuantizer(content, "int4").quantize()
    _opened(quantized)
    if arrays is not None:
        names = source.input_names(copy)
        list(tensors.KeptTensors(quantized, names).rows([x[:_TRIED] for x in arrays]))


def _opened(content):
    with tempfile.TemporaryDirectory(prefix="keras_kd_export_") as folder:
        path = pathlib.Path(folder) / "student.tflite"
        path.write_bytes(content)
        try:
            file = TFLiteFile(path)
            file.operators  # noqa: B018 - read while there is a file
        except ValueError as error:
            raise ExportError(f"The student's file would not run: {error}") from error
    return file


def _listed(layers):
    shown = ", ".join(f"{path!r} ({kind})" for path, kind in layers[:_LISTED])
    more = f" and {len(layers) - _LISTED} more" if len(layers) > _LISTED else ""
    return f"Layer{'s' if len(layers) > 1 else ''} {shown}{more}"


def _layer_of(label, student, matched):
    """`(path, class)` of the layer that makes a tensor, or `None` where no layer does."""
    if label in matched:
        path = matched[label].site.layer
        found = [layer for own, _, layer in paths.walk(student) if own == path]
        if found:
            return path, type(found[0]).__name__
    named = _named_in(label, student)
    return named[0] if named else None


def _named_in(text, student):
    """`[(path, class)]` of the innermost layers whose scopes a text names, as tensors have them.

    Scopes are names of layers, all with the same suffix (`model_1/dense_2_1/MatMul`), and a layer
    that is called again has a higher one, an operation in a function of its own none.
    """
    root = re.search(rf"(?<!\w){re.escape(student.name)}(_\d+)?/", text)
    for suffix in (re.escape((root and root[1]) or ""), r"(_\d+)?"):
        found = {}
        for path, names, layer in paths.walk(student):
            scope = "/".join(f"{re.escape(name)}{suffix}" for name in names.split("/"))
            if re.search(rf"(?<!\w){scope}/", text):
                found[path] = type(layer).__name__
        if found:
            around = {path for path in found for other in found if other.startswith(f"{path}/")}
            return [each for each in found.items() if each[0] not in around]
    return []


# A student's stand-in: a copy whose weights are as training leaves them, for a look at its file.
#
# A converter leaves out what a bias of zeros adds and a scale of ones multiplies by, as fresh
# layers have them. Once trained they are in the file, with tensors of their own: what is asked of
# the file of fresh weights does not hold for that of trained ones.


# Far from what rounding in float32 changes, and near to what was there.
_SPREAD = 0.05


def of(student):
    """A copy of a student in which no trainable weight is the same number everywhere.

    Raises:
        ValueError: Keras cannot copy it.
    """
    copy, rng = cloning.with_weights(student), np.random.default_rng(0)
    for ours, variable in zip(student.weights, copy.weights, strict=True):
        if not ours.trainable or "float" not in str(variable.dtype):
            continue
        values = np.asarray(variable.numpy(), np.float32)
        if values.size and np.ptp(values) == 0 and values.flat[0] in (0.0, 1.0, -1.0):
            variable.assign(values + _SPREAD * rng.uniform(0.5, 1.5, values.shape))
    return copy

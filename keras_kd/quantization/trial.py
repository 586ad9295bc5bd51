"""The trial file of a student, made before it trains: it must run, and hold integers only.

A converter omits a bias of zeros and a scale of ones, as fresh layers have them. Once trained they
are in the file, with tensors of their own: what holds for the file of fresh weights does not hold
for that of trained ones. So trial files are made of a stand-in, a copy whose weights are as
training leaves them.
"""

import collections
import contextlib
import pathlib
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence

import keras
import numpy as np

from keras_kd._utils import validation
from keras_kd.export.student import ExportableModel, ExportError
from keras_kd.export.tflite import conversion, edge_quantizer, verify
from keras_kd.models import cloning, paths
from keras_kd.quantization.points import Match
from keras_kd.runtimes import TFLiteFile

# Layers in an error message.
_LISTED = 5
# Samples on which a file is tried.
_TRIED = 2
# Far above the rounding of float32, and near to the weight that was there.
_SPREAD = 0.05
_CAST = (
    "Give it numbers of the type that it computes with: keras.Input(dtype='int32') for indices, "
    "'float32' for pixels (and input_dtype='uint8' when it is exported)"
)
_OTHER = (
    "Use another layer in its place: ReLU or LeakyReLU for an activation, LayerNormalization or "
    "BatchNormalization for a normalization"
)


def stand_in(exportable: ExportableModel) -> ExportableModel:
    """A copy of a student in which no trainable weight is the same number everywhere.

    Raises:
        ValueError: Keras cannot copy it.
    """
    copy, rng = cloning.with_weights(exportable.model), np.random.default_rng(0)
    for ours, variable in zip(exportable.model.weights, copy.weights, strict=True):
        if not ours.trainable or "float" not in str(variable.dtype):
            continue
        values = np.asarray(variable.numpy(), np.float32)
        if values.size and np.ptp(values) == 0 and values.flat[0] in (0.0, 1.0, -1.0):
            variable.assign(values + _SPREAD * rng.uniform(0.5, 1.5, values.shape))
    return exportable.with_model(copy)


@contextlib.contextmanager
def naming_layers(student: keras.Model) -> Iterator[None]:
    """While open, the error of a conversion begins with the layers that it is about."""
    try:
        yield
    except ExportError as error:
        layers = _layers_in(str(error.__cause__ or error), student)
        if not layers:
            raise
        raise ExportError(f"{_listed(layers)}: {error}") from error


def check_int8_file(student: keras.Model, quantized: bytes, matched: Mapping[str, Match]) -> None:
    """Raises unless an int8 file has integer operators only, and runs.

    Args:
        student: The model that it was made of.
        quantized: Its content.
        matched: `{tensor: Match}` of its float file.

    Raises:
        ValueError: Layers compute in float; they are named.
        ExportError: LiteRT cannot run it.
    """
    left = collections.defaultdict(set)
    for operator in verify.float_operators(_open(quantized)):
        left[_layer_of(operator.label, student, matched)].add(operator.name)
    if left:
        layers = [layer for layer in left if layer is not None]
        kinds = sorted(set().union(*left.values()))
        raise ValueError(
            f"{_listed(layers) if layers else f'Model {student.name!r}'}: an int8 file would hold "
            f"operators {kinds} in float32, because ai-edge-quantizer has no integer version of "
            f"them, so it cannot be trained for such a file. {_CAST if 'CAST' in kinds else _OTHER}"
            ", or take scheme='int4', which rounds weights alone."
        )


def check_int4_file(
    exportable: ExportableModel, arrays: Sequence[np.ndarray] | None = None
) -> None:
    """Raises if no `"int4"` file can be made of a student.

    Nothing is tried where `keras-kd[export]` is not installed: training does not need it.

    Args:
        exportable: The student.
        arrays: Samples to run the file on, or `None`.

    Raises:
        ValueError: Keras cannot copy the student.
        ExportError: It cannot be converted, or LiteRT cannot run the file.
    """
    copy = stand_in(exportable)
    try:
        edge_quantizer.require_edge_quantizer()
        validation.needs("ai_edge_litert.interpreter", "A .tflite file", "export")
    except ImportError:
        return
    with naming_layers(copy.model):
        content = conversion.float_tflite(copy)
    quantized = edge_quantizer.EdgeQuantizer(content, "int4").quantize()
    _open(quantized)
    if arrays is not None:
        recorder = edge_quantizer.TensorRecorder(quantized, copy.input_names)
        list(recorder.record([x[:_TRIED] for x in arrays]))


def _open(content):
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
    """`(path, class)` of the layer that makes a tensor, or `None`."""
    if label in matched:
        path = matched[label].point.layer
        found = [layer for own, _, layer in paths.walk(student) if own == path]
        if found:
            return path, type(found[0]).__name__
    scoped = _layers_in(label, student)
    return scoped[0] if scoped else None


def _layers_in(text, student):
    """`[(path, class)]` of the innermost layers whose scopes are in a text, such as tensor names.

    Scopes are names of layers, all with the same suffix (`model_1/dense_2_1/MatMul`). A layer that
    is called again has a higher one; an operation in a function of its own has none.
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

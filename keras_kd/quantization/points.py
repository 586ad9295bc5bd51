"""Quantization points: the values of a forward pass that a file holds as integers.

A file fuses layers: of Conv2D, BatchNormalization and ReLU only the last one's output exists in it.
The float file shows which do: it is run on some samples with all its tensors recorded, the model on
the same samples with all its layers tapped, and equal values are the same point. That needs neither
rules for architectures nor names.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_kd import models
from keras_kd.export import representative, rewrites
from keras_kd.export.student import ExportableModel
from keras_kd.export.tflite.edge_quantizer import TensorRecorder
from keras_kd.models import paths
from keras_kd.taps import recorder

# Kinds of points. Saved students hold these words.
INPUT = "input"
ENTERING = "entering"  # the input of a layer that is not the output of another one
BETWEEN = "between"  # between two steps of a layer that a file computes in several
OUTPUT = "output"
# The part of BETWEEN before an activation function.
_BEFORE_ACTIVATION = -1
# float32 sums in another order; measured up to 3e-6 of the largest value.
_TOLERANCE = 1e-4
_LARGEST = 1e15
# Fewer values may be proportional by chance.
_FEWEST = 16


@dataclasses.dataclass(frozen=True)
class QuantizationPoint:
    """A value of a forward pass.

    Attributes:
        layer: The path of a layer; of the model's inputs, the index of one as text.
        kind: `INPUT`, `ENTERING`, `BETWEEN` or `OUTPUT`.
        call: Which call of the layer, where it is shared.
        part: After which step, of `BETWEEN`.
    """

    layer: str
    kind: str = OUTPUT
    call: int = 0
    part: int = 0


@contextlib.contextmanager
def visiting(
    student: keras.Model,
    visit: Callable[[QuantizationPoint, Any], Any],
    only: Collection[str] | None = None,
) -> Iterator[None]:
    """While open, the value of each point passes through `visit(point, value)` in a forward pass.

    Args:
        student: A Keras model.
        visit: A function that returns the value to go on with.
        only: Paths of the layers to visit, or `None` for all.
    """
    with contextlib.ExitStack() as stack:
        seen = set()
        for path, _, layer in paths.walk(student):
            # Layers with steps compute in steps in any case: inner layers' values depend on it.
            is_left_out = only is not None and path not in only
            if id(layer) in seen or (is_left_out and rewrites.steps_of(layer, layer.call) is None):
                continue
            seen.add(id(layer))
            for attribute, wrap in _wraps(path, layer, visit):
                stack.enter_context(recorder.wrapped(layer, wrap, attribute))
        yield


def _wraps(path, layer, visit):
    """`[(attribute, wrap)]`: the functions of a layer around which its points are."""
    calls = _Calls(path, layer, visit)
    wraps = [("call", calls.around_call)]
    activation = getattr(layer, "activation", None)
    has_kernel = isinstance(layer, models.ALL)
    if has_kernel and callable(activation) and not isinstance(activation, keras.layers.Layer):
        wraps.append(("activation", calls.around_activation))
    return wraps


class _Calls:
    """The calls of one layer in one forward pass."""

    def __init__(self, path, layer, visit):
        self._path, self._layer, self._visit = path, layer, visit
        self._number = -1

    def around_call(self, call):
        steps = rewrites.steps_of(self._layer, call)

        def visiting(*args, **kwargs):
            self._number += 1
            args = (self._visited(ENTERING, args[0]), *args[1:]) if args else args
            if steps is None:
                result = call(*args, **kwargs)
            else:
                result = steps(self._between, *args, **kwargs)
            return self._visited(OUTPUT, result)

        return visiting

    def around_activation(self, activation):
        return lambda value: activation(self._between(_BEFORE_ACTIVATION, value))

    def _between(self, part, value):
        return self._visit(QuantizationPoint(self._path, BETWEEN, self._number, part), value)

    def _visited(self, kind, value):
        if not tf.is_tensor(value) or not value.dtype.is_floating:
            return value
        return self._visit(QuantizationPoint(self._path, kind, self._number), value)


@dataclasses.dataclass(frozen=True)
class Match:
    """The point of a tensor.

    Attributes:
        point: The `QuantizationPoint`.
        factor: What the point's values are multiplied by, where a file has multiplied the kernel
            before (as by the 1/sqrt(size) of attention).
    """

    point: QuantizationPoint
    factor: float = 1.0


def match_tensors(
    exportable: ExportableModel,
    content: bytes,
    arrays: Sequence[np.ndarray],
    only: Collection[QuantizationPoint] | None = None,
) -> dict[str, Match]:
    """The tensors of a float file that are points of its student.

    Args:
        exportable: The student.
        content: The content of its float `.tflite` file.
        arrays: Some samples for each input.
        only: The points to look for, or `None` for all.

    Returns:
        `{tensor name: Match}`; where several points have the values of one tensor, the closest, and
        of those as close the first.
    """
    file = TensorRecorder(content, exportable.input_names)
    of_model = _values_of_model(exportable, arrays, file.batch_size)
    if only is not None:
        of_model = {point: values for point, values in of_model.items() if point in only}
    of_file = _values_of_file(file, arrays)
    found = {}
    for name, values in of_file.items():
        candidates = {point: x for point, x in of_model.items() if x.shape == values.shape}
        match = _equal(values, candidates) or _proportional(values, candidates)
        if match is not None:
            found[name] = match
    return found


def _equal(values, candidates):
    distances = {point: _distance(values, expected) for point, expected in candidates.items()}
    distances = {point: each for point, each in distances.items() if each <= _TOLERANCE}
    return Match(min(distances, key=lambda point: distances[point])) if distances else None


def _distance(values, expected):
    """The largest difference of `[batches, size]`, relative to the largest value of its batch."""
    floor = 1.0  # values below it may differ by the tolerance itself
    scale = np.maximum(floor, np.abs(expected).max(axis=1, keepdims=True))
    return float((np.abs(values - expected) / scale).max())


def _proportional(values, candidates):
    if values.size < _FEWEST:
        return None
    varying = {point: each for point, each in candidates.items() if np.ptp(each) > 0}
    for point, expected in varying.items():
        power = float(np.vdot(expected, expected))
        factor = float(np.vdot(expected, values)) / power if power > 0 else 0.0
        largest = np.abs(values).max()
        if factor > 0 and np.abs(values - factor * expected).max() <= _TOLERANCE * largest:
            return Match(point, factor)
    return None


def record_points(
    exportable: ExportableModel, arrays: Sequence[np.ndarray], reduce: Callable[[Any], Any]
) -> dict[QuantizationPoint, Any]:
    """`{point: reduce(value)}` of all points in one pass."""
    found = {
        QuantizationPoint(str(k), INPUT): reduce(array)
        for k, array in enumerate(arrays)
        if array.dtype.kind == "f"
    }

    def visit(point, value):
        found[point] = reduce(value)
        return value

    with visiting(exportable.model, visit):
        exportable.run(arrays)
    return found


def _values_of_model(exportable, arrays, batch_size):
    """`{point: array [batches, size]}`, in the order of the forward pass."""
    runs = [
        record_points(exportable, batch, _comparable)
        for batch in representative.batches(arrays, batch_size)
    ]
    return {
        point: np.stack([run[point] for run in runs]) for point in runs[0] if runs[0][point].size
    }


def _values_of_file(file, arrays):
    """`{tensor name: array [batches, size]}` of the tensors that are computed."""
    runs = list(file.record(arrays))
    return {
        name: np.stack([_comparable(run[name]) for run in runs])
        for name, value in runs[0].items()
        if value.dtype == np.float32
    }


def _comparable(value):
    """Flat float32 numbers that can be subtracted and squared."""
    flat = np.asarray(value, np.float32).ravel()
    return np.clip(np.nan_to_num(flat), -_LARGEST, _LARGEST)

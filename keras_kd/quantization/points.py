"""Sites: the places of a forward pass whose values a file holds as integers.

A file fuses layers: of Conv2D, BatchNormalization and ReLU only the last one's output exists in it.
Which do is asked of the file itself: the float file is run on some rows with all its tensors kept,
the model on the same rows with all its layers listened to, and equal values are the same place.
That needs no rule for any architecture, and no names.
"""

import contextlib
import dataclasses

import keras
import numpy as np
import tensorflow as tf

from keras_kd import models
from keras_kd.export import rewrites, source
from keras_kd.export.tflite import tensors
from keras_kd.models import paths
from keras_kd.taps import recorder

INPUT = "input"
ENTERING = "entering"  # what a layer is given, where no other layer's output is that
BETWEEN = "between"  # two steps of a layer that a file computes in several
OUTPUT = "output"
# The part of BETWEEN that an activation function is given.
_BEFORE_ACTIVATION = -1
# float32 sums in another order; measured up to 3e-6 of the largest value.
_TOLERANCE = 1e-4
_LARGEST = 1e15
# Fewer values may be proportional by chance.
_FEWEST = 16


@dataclasses.dataclass(frozen=True)
class Site:
    """A place of a forward pass.

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
def visited(student, visit, only=None):
    """While open, each site's value passes through `visit(site, value)` in a forward pass.

    Args:
        student: A Keras model.
        visit: A function that returns the value to go on with.
        only: Paths of the layers to visit, or `None` for all.
    """
    with contextlib.ExitStack() as stack:
        seen = set()
        for path, _, layer in paths.walk(student):
            # Layers with steps take them wherever they are: the inner layers' values are of them.
            is_left_out = only is not None and path not in only
            if id(layer) in seen or (is_left_out and rewrites.steps_of(layer, layer.call) is None):
                continue
            seen.add(id(layer))
            for attribute, wrap in _wraps(path, layer, visit):
                stack.enter_context(recorder.wrapped(layer, wrap, attribute))
        yield


def _wraps(path, layer, visit):
    """`[(attribute, wrap)]`: the functions of a layer between which its sites are."""
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
        return self._visit(Site(self._path, BETWEEN, self._number, part), value)

    def _visited(self, kind, value):
        if not tf.is_tensor(value) or not value.dtype.is_floating:
            return value
        return self._visit(Site(self._path, kind, self._number), value)


@dataclasses.dataclass(frozen=True)
class Match:
    """The site of a tensor.

    Attributes:
        site: The `Site`.
        factor: What the site's values are multiplied by, where a file has multiplied the kernel
            before (as by the 1/sqrt(size) of attention).
    """

    site: Site
    factor: float = 1.0


def matched(student, content, arrays, only=None):
    """The tensors of a float file that are sites of its student.

    Args:
        student: The model.
        content: The bytes of its float `.tflite` file.
        arrays: Some rows for each input.
        only: The sites to look for, or `None` for all.

    Returns:
        `{tensor name: Match}`; where several sites have the values of one tensor, the closest, and
        of those as close the first.
    """
    file = tensors.KeptTensors(content, source.input_names(student))
    of_model = _values_of_model(student, arrays, file.batch_size)
    if only is not None:
        of_model = {site: values for site, values in of_model.items() if site in only}
    of_file = _values_of_file(file, arrays)
    found = {}
    for name, values in of_file.items():
        candidates = {site: x for site, x in of_model.items() if x.shape == values.shape}
        match = _equal(values, candidates) or _proportional(values, candidates)
        if match is not None:
            found[name] = match
    return found


def _equal(values, candidates):
    distances = {site: _distance(values, expected) for site, expected in candidates.items()}
    distances = {site: each for site, each in distances.items() if each <= _TOLERANCE}
    return Match(min(distances, key=lambda site: distances[site])) if distances else None


def _distance(values, expected):
    """The largest difference of `[rows, size]`, relative to the largest value of its row."""
    floor = 1.0  # values below it may differ by the tolerance itself
    scale = np.maximum(floor, np.abs(expected).max(axis=1, keepdims=True))
    return float((np.abs(values - expected) / scale).max())


def _proportional(values, candidates):
    if values.size < _FEWEST:
        return None
    varying = {site: each for site, each in candidates.items() if np.ptp(each) > 0}
    for site, expected in varying.items():
        power = float(np.vdot(expected, expected))
        factor = float(np.vdot(expected, values)) / power if power > 0 else 0.0
        largest = np.abs(values).max()
        if factor > 0 and np.abs(values - factor * expected).max() <= _TOLERANCE * largest:
            return Match(site, factor)
    return None


def seen(student, arrays, look):
    """What `look(value)` makes of the value of each site in one pass, `{site: what it made}`."""
    found = {
        Site(str(k), INPUT): look(array)
        for k, array in enumerate(arrays)
        if array.dtype.kind == "f"
    }

    def visit(site, value):
        found[site] = look(value)
        return value

    with visited(student, visit):
        source.run(student, arrays)
    return found


def _values_of_model(student, arrays, batch_size):
    """`{site: array [batches, size]}`, in the order in which the sites are passed."""
    runs = [seen(student, batch, _compared) for batch in source.batches(arrays, batch_size)]
    return {site: np.stack([run[site] for run in runs]) for site in runs[0] if runs[0][site].size}


def _values_of_file(file, arrays):
    """`{tensor name: array [batches, size]}` of the tensors that are computed."""
    runs = list(file.rows(arrays))
    return {
        name: np.stack([_compared(run[name]) for run in runs])
        for name, value in runs[0].items()
        if value.dtype == np.float32
    }


def _compared(value):
    """Flat float32 numbers that can be subtracted and squared."""
    flat = np.asarray(value, np.float32).ravel()
    return np.clip(np.nan_to_num(flat), -_LARGEST, _LARGEST)

"""Sites: the places of a forward pass whose values a file holds as integers.

A file fuses layers: of Conv2D, BatchNormalization and ReLU only the last one's output exists in it.
Which do is asked of the file itself: the float file is run on some rows with all its tensors kept,
the model on the same rows with all its layers listened to, and equal values are the same place.
That needs no rule for any architecture, and no names.
"""

import contextlib
import dataclasses

import numpy as np
import tensorflow as tf

from keras_kd.export import kept_tensors, rewrites, students
from keras_kd.taps import listening, paths

INPUT = "input"
BETWEEN = "between"  # two steps of a layer that a file computes in several
OUTPUT = "output"
# float32 sums in another order; measured up to 3e-6 of the largest value.
_TOLERANCE = 1e-4


@dataclasses.dataclass(frozen=True)
class Site:
    """A place of a forward pass.

    Attributes:
        layer: The path of a layer; of the model's inputs, the index of one as text.
        kind: `INPUT`, `BETWEEN` or `OUTPUT`.
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
            if id(layer) in seen or (only is not None and path not in only):
                continue
            seen.add(id(layer))
            stack.enter_context(listening.wrapped(layer, _visiting(path, layer, visit)))
        yield


def _visiting(path, layer, visit):
    def wrap(call):
        count = [0]

        def visiting(*args, **kwargs):
            number, count[0] = count[0], count[0] + 1
            if rewrites.has_steps(layer):

                def between(part, value):
                    return visit(Site(path, BETWEEN, number, part), value)

                result = rewrites.in_steps(layer, args[0], between)
            else:
                result = call(*args, **kwargs)
            if not tf.is_tensor(result) or not result.dtype.is_floating:
                return result
            return visit(Site(path, OUTPUT, number), result)

        return visiting

    return wrap


def matched(student, content, arrays):
    """The tensors of a float file that are sites of its student.

    Args:
        student: The model.
        content: The bytes of its float `.tflite` file for one row at a time.
        arrays: Some rows for each input.

    Returns:
        `{tensor name: Site}`; where several sites have the values of one tensor, the first.
    """
    of_model = _values_of_model(student, arrays)
    of_file = _values_of_file(content, arrays, students.input_names(student))
    found = {}
    for name, values in of_file.items():
        for site, expected in of_model.items():
            if _are_equal(values, expected):
                found[name] = site
                break
    return found


def _values_of_model(student, arrays):
    """`{site: [rows, size]}`, in the order in which the sites are passed."""
    rows = []
    for i in range(len(arrays[0])):
        values = {
            Site(str(k), INPUT): array[i].ravel().astype(np.float32)
            for k, array in enumerate(arrays)
            if array.dtype.kind == "f"
        }

        def visit(site, value, values=values):
            values[site] = np.asarray(value, np.float32).ravel()
            return value

        with visited(student, visit):
            students.run(student, [array[i : i + 1] for array in arrays])
        rows.append(values)
    return {site: [row[site] for row in rows] for site in rows[0]}


def _values_of_file(content, arrays, names):
    """`{tensor name: [rows, size]}` of the tensors that are computed."""
    runs = list(kept_tensors.KeptTensors(content, names).rows(arrays))
    return {
        name: [run[name].ravel().astype(np.float32) for run in runs]
        for name, value in runs[0].items()
        if value.dtype == np.float32
    }


def _are_equal(found, expected):
    for a, b in zip(found, expected, strict=True):
        if a.shape != b.shape or a.size == 0:
            return False
        if np.abs(a - b).max() > _TOLERANCE * max(1.0, float(np.abs(b).max())):
            return False
    return True

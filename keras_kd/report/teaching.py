"""The teacher of a report: as one of the models that are measured, and as what they agree with."""

import dataclasses
import re

import keras

from keras_kd import symbolic_pass
from keras_kd.measurement import reading, runtimes
from keras_kd.measurement.run import BATCH_SIZE
from keras_kd.measurement.subjects import subject_of
from keras_kd.teachers import base
from keras_kd.teachers.keras_model import adapt

_NOT_ALONE = {
    "needs_carried": "its outputs come with the data",
    "needs_student": "it looks at the student",
    "is_sparse": "it keeps the largest logits only",
}


class Asked(keras.Model):
    """A teacher that is no model, asked like one.

    Args:
        teacher: A `keras_kd.teachers.Teacher`.
    """

    def __init__(self, teacher):
        # TensorFlow takes no other characters, and a lambda has them.
        super().__init__(name=re.sub(r"\W+", "_", teacher.name).strip("_"), autocast=False)
        self.teacher = teacher
        self.built = True

    def build(self, input_shape=None):
        del input_shape  # the teacher is whole

    def call(self, inputs, training=None):
        del training
        return self.teacher.answer(base.Lesson(inputs))


def as_model(teacher):
    """`(what is measured of a teacher, notes)`; `None` where it cannot stand alone.

    Args:
        teacher: What `Distiller` takes, or a file that `keras_kd.measure` takes.
    """
    files = str, runtimes.TFLiteFile, runtimes.OnnxFile
    if isinstance(teacher, (keras.Model, *files)) or hasattr(teacher, "__fspath__"):
        symbolic_pass.check_built("teacher", teacher)
        return teacher, []
    adapted = adapt(teacher)
    for flag, why in _NOT_ALONE.items():
        if getattr(adapted, flag):
            return None, [f"teacher: not measured by itself; {why}."]
    symbolic_pass.check_built("teacher", teacher)
    return Asked(adapted), []


def comparable(teacher):
    """A teacher that cannot stand alone, where what it says can be compared with, else `None`."""
    adapted = adapt(teacher)
    return None if adapted.needs_student or adapted.is_sparse else teacher


def without_size(entrant):
    """An `Entrant` that says nothing of weights, which lie where Keras does not see them."""
    hidden = ("parameters", "trainable_parameters", "bytes", "gzip_bytes")
    note = "size: left out; Keras does not see the weights of a teacher that is a function."
    made = [
        dataclasses.replace(
            each,
            size={key: value for key, value in each.size.items() if key not in hidden},
            notes=[*each.notes, note],
        )
        for each in entrant.measurements
    ]
    return dataclasses.replace(entrant, measurements=made)


def answers(model, data, options, verbose=0):
    """What a teacher says of the test data, so that it runs once and not once for each model.

    Args:
        model: Of `as_model`.
        data: The test data.
        options: Of `keras_kd.measure`.
        verbose: 0, 1 or 2.

    Returns:
        An array of its outputs.
    """
    size = options.get("batch_size") or BATCH_SIZE
    output, rows = options.get("output"), reading.prepared(data)
    found = reading.read(subject_of(model), rows, output, size, None, verbose)
    return found.outputs

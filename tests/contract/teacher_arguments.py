"""The table of the teachers' arguments."""

import functools
import pathlib
import tempfile

import keras
import numpy as np

import keras_kd as kd
from keras_kd.teachers import keras_model
from keras_kd.teachers.protocol import TeacherInputs
from keras_kd.training.forward import Outputs
from tests.cache import caches
from tests.contract import fits
from tests.contract.arguments import TAKEN_TWICE, Entry, halved
from tests.contract.entries import Counts, Refused

FOLDER = pathlib.Path(tempfile.mkdtemp(prefix="keras_kd"))
LAYER = {
    "trainable": Counts(False, probe=lambda teacher: float(teacher.trainable)),
    "dtype": Refused("float16", "argument `dtype`"),
    "autocast": Refused(True, TAKEN_TWICE),
    "activity_regularizer": Refused("l2", "argument `activity_regularizer`"),
    "name": Counts("named", probe=lambda teacher: teacher.name),
}
PREPROCESS = {"preprocess": Counts(halved)}
NO_PREPROCESS = {"preprocess": Refused(halved, TAKEN_TWICE)}
# Losses and teachers share these with Keras' layers; `teachers/base.py` does not look at them.
UNTYPED = ("activity_regularizer", "name", "trainable", "dtype")


@keras.saving.register_keras_serializable(package="contract")
class Plain(kd.teachers.Teacher):
    """The least that a teacher of one's own is."""

    def call(self, inputs):
        return keras.ops.tile(inputs, (1, 2))[:, :5]


@keras.saving.register_keras_serializable(package="contract")
class OnHost(kd.teachers.HostTeacher):
    """The same, outside of TensorFlow."""

    def predict(self, inputs, layers=()):
        return np.tile(inputs, (1, 2))[:, :5], {}


def answer(teacher, inputs=None):
    """What it says of a batch, with labels and a student's outputs."""
    x, y = fits.data()
    inputs = x if inputs is None else inputs
    own = Outputs({"a": inputs[:, :2], "b": inputs[:, 1:3]}, names=["a", "b"], inputs=inputs)
    return keras_model.adapt(teacher).predict_batch(TeacherInputs(inputs, np.argmax(y, -1), own))


def teacher(subject, base, arguments, probe=answer, **options):
    return Entry(subject, base, probe, {**LAYER, **arguments}, is_saved=True, **options)


def after_updates(teacher):
    """The average's weights after two updates of a student."""
    student = fits.network(2)
    for step in (1.0, 2.0):
        student.set_weights([weight + step for weight in student.get_weights()])
        teacher.update(student)
    return teacher.model.get_weights()


def is_the_model(teacher):
    return float(any(teacher.model is model for model in MODELS))


MODELS: list = []


def kept(seed):
    MODELS.append(fits.network(seed))
    return MODELS[-1]


def of_student(subject, arguments, probe):
    return teacher(
        subject,
        lambda: {"student": kept(2)},
        {
            **PREPROCESS,
            "student": Counts(lambda: fits.network(3), probe=answer),
            "copy": Counts(False, probe=is_the_model, kept=False),
            "model": Refused(fits.network(1), TAKEN_TWICE),
            "preprocess": Counts(halved, probe=answer),
            **arguments,
        },
        probe,
    )


def members():
    return {"members": [fits.network(1), fits.network(2)]}


@functools.cache
def cache(seed=1):
    return str(caches.written(FOLDER / f"cache_{seed}", teacher=caches.model(seed)))


def of_labels(teacher):
    x = fits.data()[0]
    batch = TeacherInputs(x, np.arange(6) % 5, Outputs(np.zeros((6, 5), "float32")))
    return teacher.predict_batch(batch)


def exit_of(teacher):
    return answer(teacher)["a"]


TABLE = {
    "Cached": teacher(
        kd.teachers.Cached,
        lambda: {"path": cache()},
        {
            **NO_PREPROCESS,
            "path": Counts(lambda: cache(2), probe=lambda teacher: teacher.folder),
            "teacher": Refused("another fingerprint", "another teacher|fingerprint"),
        },
    ),
    "DeepestExit": teacher(
        kd.teachers.DeepestExit, {}, {**NO_PREPROCESS, "output": Counts("a")}, exit_of
    ),
    "EMA": of_student(
        kd.teachers.EMA, {"decay": Counts(0.05), "warm_up": Counts(False)}, after_updates
    ),
    "Ensemble": teacher(
        kd.teachers.Ensemble,
        members,
        {
            **PREPROCESS,
            "members": Counts(lambda: [fits.network(1), fits.network(3)]),
            "weights": Counts([3.0, 1.0]),
            "combine": Counts("confidence"),
            "temperatures": Counts([2.0, 1.0]),
            "class_masks": Counts([[True, True, True, False, False], None]),
        },
    ),
    "HostTeacher": teacher(OnHost, {}, PREPROCESS),
    "KerasTeacher": teacher(
        kd.teachers.KerasTeacher,
        lambda: {"model": fits.network(1)},
        {**PREPROCESS, "model": Counts(lambda: fits.network(2))},
    ),
    "Snapshot": of_student(kd.teachers.Snapshot, {}, answer),
    "Teacher": teacher(Plain, {}, PREPROCESS),
    "VirtualTeacher": teacher(
        kd.teachers.VirtualTeacher, {}, {**NO_PREPROCESS, "confidence": Counts(0.7)}, of_labels
    ),
}
# Of files and other runtimes: their own tests try their arguments, with files that need them.
ELSEWHERE = (
    "OnnxTeacher",
    "SavedModelTeacher",
    "Served",
    "ServedTeacherError",
    "TFLiteTeacher",
    "TorchTeacher",
)

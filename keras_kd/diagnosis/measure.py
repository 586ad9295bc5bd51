"""Runs teacher and student once over the data, and keeps sums."""

import dataclasses
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_kd import progress
from keras_kd.diagnosis import batches, rows
from keras_kd.diagnosis.confusion import Confusion
from keras_kd.diagnosis.outputs import OutputsTally
from keras_kd.diagnosis.sweep import TemperatureSweep
from keras_kd.models import looking, own_inputs
from keras_kd.teachers import keras_model
from keras_kd.teachers.base import Lesson


@dataclasses.dataclass(frozen=True)
class Models:
    """Who is diagnosed, and how.

    Attributes:
        teacher: Whatever `Distiller` takes.
        student: A Keras model or `None`.
        preprocess: A function of the teacher's inputs or `None`.
        from_logits: Whether they return logits.
        temperature: Of distillation.
    """

    teacher: Any
    student: Any
    preprocess: Any
    from_logits: bool
    temperature: float

    def of_teacher(self, inputs):
        """The teacher's outputs, NumPy."""
        inputs = inputs if self.preprocess is None else self.preprocess(inputs)
        with looking(inputs, self.teacher):
            outputs, _ = keras_model.adapt(self.teacher).with_taps([])(Lesson(inputs))
        return keras.tree.map_structure(_numpy, outputs)

    def of_student(self, inputs):
        """The student's outputs, NumPy."""
        # Not `predict`: it would leave a compiled function in the caller's model.
        with looking(inputs, self.student):
            outputs = self.student(own_inputs(self.student, inputs), training=False)
        return keras.tree.map_structure(_numpy, outputs)


def _numpy(x):
    # NumPy's own arithmetic knows no bfloat16.
    return tf.cast(x, tf.float32).numpy()


class ModelTally:
    """Sums of one model.

    Args:
        classes: Number of its outputs.
        from_logits: Whether they are logits.
        temperature: Of distillation, of a teacher; `None`: a student, of which less is asked.
    """

    def __init__(self, classes, from_logits, temperature=None):
        self.classes, self.from_logits = classes, from_logits
        is_teacher = temperature is not None
        self.outputs, self.confusion = OutputsTally(classes), Confusion(classes, is_teacher)
        self.sweep = TemperatureSweep(temperature) if is_teacher else None

    def add(self, values, labels, weights):
        """Takes rows in, and returns their predicted classes, -1 where there is none."""
        self.outputs.add(values)
        finite = rows.are_finite(values)
        predicted = np.where(finite, np.argmax(np.where(finite[:, None], values, 0), axis=-1), -1)
        use = finite & (labels >= 0) & (labels < self.classes)
        self.confusion.add(labels[use], predicted[use], weights[use])
        if self.sweep is not None:
            logits = rows.to_logits(values[use], self.from_logits)
            self.sweep.add(logits, labels[use], weights[use])
        return predicted


class LabelTally:
    """What is seen of the labels.

    Args:
        classes: Number of classes of the teacher.
    """

    def __init__(self, classes):
        self.rows = self.unlabelled = self.too_large = 0
        self.largest, self.least, self.width = -1, np.inf, None
        self.seen = np.zeros(classes, bool)

    def add(self, labels, width):
        """Takes class indices in, and how many classes they name (`None`: not told)."""
        labelled = labels[labels >= 0]
        inside = labelled[labelled < len(self.seen)]
        self.rows += len(labels)
        self.unlabelled += len(labels) - len(labelled)
        self.too_large += len(labelled) - len(inside)
        self.largest = max(self.largest, int(labelled.max(initial=-1)))
        self.least = min(self.least, int(labelled.min(initial=np.iinfo(np.int64).max)))
        self.seen[inside] = True
        self.width = width if width is not None else self.width


class PairTally:
    """Where teacher and student agree, and who is right where one is."""

    def __init__(self):
        self.weight = self.agree = 0.0
        self.student_only = self.teacher_only = self.squares = 0.0

    def add(self, teacher, student, labels, weights):
        """Takes predictions in, `[rows]`, -1 where there is none."""
        both = (teacher >= 0) & (student >= 0) & (labels >= 0)
        teacher, student, labels, weights = (x[both] for x in (teacher, student, labels, weights))
        only_student = (student == labels) & (teacher != labels)
        only_teacher = (teacher == labels) & (student != labels)
        self.weight += weights.sum()
        self.agree += weights @ (teacher == student)
        self.student_only += weights @ only_student
        self.teacher_only += weights @ only_teacher
        self.squares += weights**2 @ (only_student | only_teacher)


@dataclasses.dataclass
class Measured:
    """The sums of one set of data; `student` and `pair` are `None` without a student."""

    teacher: ModelTally
    labels: LabelTally
    student: ModelTally | None = None
    pair: PairTally | None = None


def measure(models, name, data, verbose=0):
    """Runs both models once over the data, in inference.

    Args:
        models: `Models`.
        name: The argument's name, for messages.
        data: As of `keras_kd.diagnose`.
        verbose: 0, 1 or 2.

    Returns:
        `Measured`.

    Raises:
        ValueError: The data, or the outputs, are not those of a classifier with one output.
    """
    measured = None
    label, total = f"diagnose: {name}", batches.count(data)
    for x, y, sample_weight in progress.over(batches.of(data), label, total, verbose=verbose):
        outputs = models.of_teacher(x)
        teacher, (labels, width) = _rows("teacher", name, outputs, y)
        weights = batches.row_weights(name, sample_weight, outputs.shape)
        student = None
        if models.student is not None:
            student = rows.flat_outputs("student", models.of_student(x))
            _check_rows(student, teacher)
        if measured is None:
            measured = _empty(models, teacher, student)
        # Rows of weight 0, such as padding, are no rows: neither may their NaN be found.
        counted = weights > 0
        _add(measured, labels, width, weights, counted, teacher, student)
    if measured is None or not measured.teacher.confusion.rows.sum():
        raise nothing(name)
    return measured


def nothing(name):
    """The error for data of which no row can be looked at."""
    return ValueError(
        f"`{name}` has no row with a label from 0 to the number of classes, a sample weight "
        "above 0 and finite outputs of the teacher: there is nothing to measure."
    )


def _rows(role, name, outputs, y):
    return rows.flat_outputs(role, outputs), labels_of(name, y, outputs.shape)


def labels_of(name, y, shape):
    """Labels as class indices and classes, as of `rows.class_indices`.

    Args:
        name: The argument's name, for messages.
        y: The labels of a batch.
        shape: Of the teacher's outputs.
    """
    found = None if y is None or keras.tree.is_nested(y) else rows.class_indices(y, shape)
    if found is None:
        received = "no labels" if y is None else keras.tree.map_structure(_described, y)
        raise ValueError(
            f"`{name}` has no labels of a classifier with outputs {tuple(shape)}. Expected "
            "class indices, or for each row one number a class that sum to 1. "
            f"Received: {received}. Regression and multi-label data cannot be diagnosed."
        )
    return found


def _described(y):
    array = np.asarray(y)
    return f"shape {tuple(array.shape)}, {array.dtype}"


def _check_rows(student, teacher):
    if len(student) != len(teacher):
        raise ValueError(
            f"The student gives {len(student)} rows of outputs where the teacher gives "
            f"{len(teacher)}. Both must classify the same positions."
        )


def _empty(models, teacher, student):
    of_teacher = ModelTally(teacher.shape[-1], models.from_logits, models.temperature)
    measured = Measured(of_teacher, LabelTally(teacher.shape[-1]))
    if student is not None:
        measured.student = ModelTally(student.shape[-1], models.from_logits)
        measured.pair = PairTally()
    return measured


def _add(measured, labels, width, weights, counted, teacher, student):
    labels, weights = labels[counted], weights[counted]
    measured.labels.add(labels, width)
    of_teacher = measured.teacher.add(teacher[counted], labels, weights)
    if student is not None:
        of_student = measured.student.add(student[counted], labels, weights)
        measured.pair.add(of_teacher, of_student, labels, weights)

"""Runs teacher and student once over the data, and keeps sums."""

import dataclasses
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_kd._utils import batches, progress, statistics
from keras_kd.diagnosis.model_checks import OutputsTally
from keras_kd.models.inspect import looking, own_inputs
from keras_kd.teachers import keras_model
from keras_kd.teachers.protocol import TeacherInputs


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
            outputs, _ = keras_model.adapt(self.teacher).with_taps([])(TeacherInputs(inputs))
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
        finite = batches.are_finite(values)
        predicted = np.where(finite, np.argmax(np.where(finite[:, None], values, 0), axis=-1), -1)
        use = finite & (labels >= 0) & (labels < self.classes)
        self.confusion.add(labels[use], predicted[use], weights[use])
        if self.sweep is not None:
            logits = batches.to_logits(values[use], self.from_logits)
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
            student = batches.flat_outputs("student", models.of_student(x))
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
    return batches.flat_outputs(role, outputs), labels_of(name, y, outputs.shape)


def labels_of(name, y, shape):
    """Labels as class indices and classes, as of `batches.class_indices`.

    Args:
        name: The argument's name, for messages.
        y: The labels of a batch.
        shape: Of the teacher's outputs.
    """
    found = None if y is None or keras.tree.is_nested(y) else batches.class_indices(y, shape)
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


# Sums over rows at many temperatures: what calibration needs, in one pass over the data.
#
# A temperature cannot be searched for without going through the data again and again, or keeping
# all logits. Instead the negative log-likelihood and its first two derivatives in `log T` are
# summed at 49 temperatures from 1/8 to 32. Between two neighbours a cubic through values and
# slopes is exact to about 1e-5 of the temperature. It takes 0.03 s of processor time for 1000
# rows of 10 classes, and 0.5 s of 1000.


# Neighbours differ by 12 %.
GRID = 2.0 ** (np.arange(-18, 31) / 6)
BINS = 15


class TemperatureSweep:
    """Sums over labelled rows, at each of some temperatures.

    Args:
        temperatures: More than those of the grid, such as the one of distillation.

    Attributes:
        temperatures: All of them, rising.
    """

    def __init__(self, *temperatures):
        self.temperatures = np.unique(np.concatenate([GRID, [1.0], temperatures]))
        count = len(self.temperatures)
        self.weight = self.squares = self.sure = 0.0
        self.nll, self.slope, self.curvature, self.entropy = np.zeros((4, count))
        # For each bin of confidence: weight, confidence and right answers.
        self.bins = np.zeros((count, BINS, 3))

    def add(self, logits, labels, weights):
        """Takes rows in: finite logits `[rows, classes]`, the largest 0; labels and weights."""
        of_label = logits[np.arange(len(labels)), labels]
        squares = logits * logits
        right = logits.argmax(axis=-1) == labels
        self.weight += weights.sum()
        self.squares += (weights**2).sum()
        for k, temperature in enumerate(self.temperatures):
            e = np.exp(logits / temperature)
            total = e.sum(axis=-1)
            # Of the logits divided by the temperature, under the softened probabilities.
            mean = np.einsum("rc,rc->r", e, logits) / (total * temperature)
            second = np.einsum("rc,rc->r", e, squares) / (total * temperature**2)
            label, log_total = of_label / temperature, np.log(total)
            self.nll[k] += weights @ (log_total - label)
            self.slope[k] += weights @ (label - mean)
            self.curvature[k] += weights @ (mean + np.maximum(second - mean**2, 0.0) - label)
            self.entropy[k] += weights @ (log_total - mean)
            confidence = 1.0 / total
            self._add_bins(k, confidence, right, weights)
            if temperature == 1.0:
                self.sure += weights @ (confidence > 0.99)

    def _add_bins(self, k, confidence, right, weights):
        # Bin b holds confidences above b / 15 and up to (b + 1) / 15.
        bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
        sums = np.stack([weights, weights * confidence, weights * right], axis=-1)
        np.add.at(self.bins[k], bins, sums)

    def at(self, temperature):
        """Index of one of the temperatures."""
        return int(np.flatnonzero(self.temperatures == temperature)[0])

    def mean(self, name, temperature):
        """Mean over the rows of `"nll"` or `"entropy"` (in nats) at one of the temperatures."""
        return float(getattr(self, name)[self.at(temperature)] / self.weight)

    def confidence(self):
        """Mean probability of the likeliest class at each temperature."""
        return self.bins[:, :, 1].sum(axis=-1) / self.weight

    def accuracy(self):
        """Share of right answers."""
        return float(self.bins[0, :, 2].sum() / self.weight)

    def calibration_errors(self):
        """Expected calibration error at each temperature."""
        return np.abs(self.bins[:, :, 2] - self.bins[:, :, 1]).sum(axis=-1) / self.weight

    def noise(self):
        """The calibration error to expect at T = 1 of a calibrated model, for so few rows.

        In a bin of `n` rows and confidence `c` the share of right answers misses `c` by `sqrt(2 c
        (1 - c) / (pi n))` on average.
        """
        weight, confidence, _ = self.bins[self.at(1.0)].T
        held = weight > 0
        share = weight[held] / self.weight
        c = np.clip(confidence[held] / weight[held], 0.0, 1.0)
        rows = share * self.weight**2 / self.squares
        return float(np.sum(share * np.sqrt(2 * c * (1 - c) / (np.pi * rows))))

    def fit(self):
        """The temperature of the least negative log-likelihood.

        Returns:
            `(temperature, nll, calibration_error)`, or `None` where it lies outside 1/8 to 32 or
            nowhere, as of a teacher that is always right.
        """
        # In 1 / T the likelihood is convex, so its slope changes its sign once.
        falling = np.flatnonzero(self.slope < 0)
        if not len(falling) or falling[-1] == len(self.slope) - 1:
            return None
        k = falling[-1]
        u = np.log(self.temperatures[k : k + 2])
        width = u[1] - u[0]
        slope = _cubic(self.slope[k : k + 2], width * self.curvature[k : k + 2])
        s = _root(slope)
        nll = _cubic(self.nll[k : k + 2], width * self.slope[k : k + 2])(s) / self.weight
        errors = self.calibration_errors()[k : k + 2]
        error = (1 - s) * errors[0] + s * errors[1]
        return float(np.exp(u[0] + s * width)), float(nll), float(error)


def _cubic(values, slopes):
    """Hermite's cubic on 0 to 1 through two values with two slopes."""

    def at(s):
        past, left = s * s * (3 - 2 * s), s * (1 - s)
        return (
            (1 - past) * values[0] + past * values[1] + left * ((1 - s) * slopes[0] - s * slopes[1])
        )

    return at


def _root(function):
    """Where a function that is below 0 at 0, and not at 1, crosses 0."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if function(middle) > 0 else (middle, high)
    return 0.5 * (low + high)


# Right and wrong answers, class by class.


# Up to so many classes the matrix is kept: 32 MiB.
MATRIX_CLASSES = 2048


class Confusion:
    """Weighted counts of labels and predictions.

    Args:
        classes: Number of classes.
        with_matrix: Whether to keep who is taken for whom.

    Attributes:
        rows: Weight of the rows of each class, `[classes]`.
        right: Weight of those that were told right.
        matrix: `[label, predicted]`, or `None`: not asked for, or more than 2048 classes.
    """

    def __init__(self, classes, with_matrix=False):
        self.classes = classes
        self.rows, self.squares, self.right = np.zeros((3, classes))
        kept = with_matrix and classes <= MATRIX_CLASSES
        self.matrix = np.zeros((classes, classes)) if kept else None

    def add(self, labels, predicted, weights):
        """Takes rows in: labels below `classes`, predictions, weights, each `[rows]`."""
        np.add.at(self.rows, labels, weights)
        np.add.at(self.squares, labels, weights**2)
        np.add.at(self.right, labels, weights * (labels == predicted))
        if self.matrix is not None:
            np.add.at(self.matrix, (labels, predicted), weights)

    @property
    def accuracy(self):
        """Weighted share of right answers."""
        return float(self.right.sum() / self.rows.sum())

    @property
    def effective_rows(self):
        """As how many rows of one weight all of them count."""
        return float(statistics.effective(self.rows.sum(), self.squares.sum()))

    @property
    def class_rows(self):
        """The same for each class, `[classes]`."""
        return statistics.effective(self.rows, self.squares)

    @property
    def recall(self):
        """Share of right answers for each class, NaN where it has no rows."""
        return np.where(self.rows > 0, self.right / np.where(self.rows > 0, self.rows, 1), np.nan)

    @property
    def counts(self):
        """`(right answers, rows, classes)`, in whole rows of one weight."""
        rows = round(self.effective_rows)
        return round(self.accuracy * rows), rows, self.classes

"""Runs teacher and student once over the data, and tallies what the checks need."""

import dataclasses
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_kd._utils import batches, progress, statistics
from keras_kd.models.inspect import own_inputs, without_changes
from keras_kd.teachers import keras_model
from keras_kd.teachers.protocol import TeacherInputs

# Sums of softmax in bfloat16, of 1000 classes, are off by up to about 0.005.
OUTPUTS_SUM_TOLERANCE = 0.01
# Relative to the largest output: float32 does not resolve smaller differences.
OUTPUTS_SAME = 1e-6
# The temperatures of `CalibrationTally`, from 1/8 to 32; neighbors differ by 12 %.
TEMPERATURE_GRID = 2.0 ** (np.arange(-18, 31) / 6)
CONFIDENCE_BINS = 15
# `Confusion` keeps its matrix for up to this many classes: 32 MiB.
MATRIX_CLASSES = 2048


@dataclasses.dataclass(frozen=True)
class DiagnosedModels:
    """The models that are diagnosed, and how they are called.

    Attributes:
        teacher: Whatever `Distiller` takes.
        student: A Keras model or `None`.
        preprocess: A function of the teacher's inputs or `None`.
        from_logits: Whether they return logits.
        temperature: The temperature of distillation.
    """

    teacher: Any
    student: Any
    preprocess: Any
    from_logits: bool
    temperature: float

    def teacher_outputs(self, inputs: Any) -> Any:
        """The teacher's outputs, NumPy."""
        inputs = inputs if self.preprocess is None else self.preprocess(inputs)
        with without_changes(inputs, self.teacher):
            outputs, _ = keras_model.adapt(self.teacher).with_taps([])(TeacherInputs(inputs))
        return keras.tree.map_structure(_to_numpy, outputs)

    def student_outputs(self, inputs: Any) -> Any:
        """The student's outputs, NumPy."""
        # Not `predict`: it would leave a compiled function in the caller's model.
        with without_changes(inputs, self.student):
            outputs = self.student(own_inputs(self.student, inputs), training=False)
        return keras.tree.map_structure(_to_numpy, outputs)


def _to_numpy(x):
    # NumPy has no bfloat16.
    return tf.cast(x, tf.float32).numpy()


@dataclasses.dataclass
class Tallies:
    """The sums over one set of data; `student` and `pair` are `None` without a student."""

    teacher: "ModelTally"
    labels: "LabelTally"
    student: "ModelTally | None" = None
    pair: "PairTally | None" = None


def tally_data(models: DiagnosedModels, name: str, data: Any, verbose: Any = 0) -> Tallies:
    """Runs both models once over the data, in inference.

    Args:
        models: The `DiagnosedModels`.
        name: The argument's name, for messages.
        data: See `keras_kd.diagnose`.
        verbose: 0, 1 or 2.

    Returns:
        The `Tallies`.

    Raises:
        ValueError: The data, or the outputs, are not those of a classifier with one output.
    """
    tallies = None
    label, total = f"diagnose: {name}", batches.count_batches(data)
    for x, y, sample_weight in progress.iterate(
        batches.iterate(data), label, total, verbose=verbose
    ):
        outputs = models.teacher_outputs(x)
        teacher = statistics.flat_outputs("teacher", outputs)
        labels, width = read_labels(name, y, outputs.shape)
        weights = batches.position_weights(name, sample_weight, outputs.shape)
        student = None
        if models.student is not None:
            student = statistics.flat_outputs("student", models.student_outputs(x))
            _check_same_length(student, teacher)
        if tallies is None:
            tallies = _empty_tallies(models, teacher, student)
        # Samples of weight 0, such as padding, do not count: not even their NaN.
        counted = weights > 0
        _add_batch(tallies, labels, width, weights, counted, teacher, student)
    if tallies is None or not tallies.teacher.confusion.rows.sum():
        raise nothing_to_measure(name)
    return tallies


def nothing_to_measure(name: str) -> ValueError:
    """The error for data without a sample that can be measured."""
    return ValueError(
        f"`{name}` has no row with a label from 0 to the number of classes, a sample weight "
        "above 0 and finite outputs of the teacher: there is nothing to measure."
    )


def read_labels(name: str, y: Any, shape: Any) -> tuple[np.ndarray, Any]:
    """Labels as class indices and the number of classes; see `statistics.class_indices`.

    Args:
        name: The argument's name, for messages.
        y: The labels of a batch.
        shape: The shape of the teacher's outputs.
    """
    found = None if y is None or keras.tree.is_nested(y) else statistics.class_indices(y, shape)
    if found is None:
        received = "no labels" if y is None else keras.tree.map_structure(_describe, y)
        raise ValueError(
            f"`{name}` has no labels of a classifier with outputs {tuple(shape)}. Expected "
            "class indices, or a probability for each class. "
            f"Received: {received}. Regression and multi-label data cannot be diagnosed."
        )
    return found


def _describe(y):
    array = np.asarray(y)
    return f"shape {tuple(array.shape)}, {array.dtype}"


def _check_same_length(student, teacher):
    if len(student) != len(teacher):
        raise ValueError(
            f"The student gives {len(student)} rows of outputs where the teacher gives "
            f"{len(teacher)}. Both must classify the same positions."
        )


def _empty_tallies(models, teacher, student):
    of_teacher = ModelTally(teacher.shape[-1], models.from_logits, models.temperature)
    tallies = Tallies(of_teacher, LabelTally(teacher.shape[-1]))
    if student is not None:
        tallies.student = ModelTally(student.shape[-1], models.from_logits)
        tallies.pair = PairTally()
    return tallies


def _add_batch(tallies, labels, width, weights, counted, teacher, student):
    labels, weights = labels[counted], weights[counted]
    tallies.labels.add(labels, width)
    of_teacher = tallies.teacher.add(teacher[counted], labels, weights)
    if student is not None:
        of_student = tallies.student.add(student[counted], labels, weights)
        tallies.pair.add(of_teacher, of_student, labels, weights)


# The sums: each `add` takes the samples of a batch in.


class ModelTally:
    """Sums of one model.

    Args:
        classes: Number of its outputs.
        from_logits: Whether they are logits.
        temperature: The temperature of distillation for a teacher; `None` for a student, which is
            checked less.
    """

    def __init__(self, classes: int, from_logits: bool, temperature: float | None = None) -> None:
        self.classes, self.from_logits = classes, from_logits
        is_teacher = temperature is not None
        self.outputs, self.confusion = OutputsTally(classes), Confusion(classes, is_teacher)
        # Of a student the checks need no calibration.
        self.calibration: Any = None if temperature is None else CalibrationTally(temperature)

    def add(self, values: Any, labels: Any, weights: Any) -> Any:
        """Adds a batch, and returns its predicted classes, -1 where there is none."""
        self.outputs.add(values)
        finite = statistics.are_finite(values)
        predicted = np.where(finite, np.argmax(np.where(finite[:, None], values, 0), axis=-1), -1)
        use = finite & (labels >= 0) & (labels < self.classes)
        self.confusion.add(labels[use], predicted[use], weights[use])
        if self.calibration is not None:
            logits = statistics.to_logits(values[use], self.from_logits)
            self.calibration.add(logits, labels[use], weights[use])
        return predicted


class LabelTally:
    """Counts of the labels.

    Args:
        classes: Number of classes of the teacher.
    """

    def __init__(self, classes: int) -> None:
        self.rows = self.unlabeled = self.too_large = 0
        self.largest, self.least, self.width = -1, np.inf, None
        self.seen = np.zeros(classes, bool)

    def add(self, labels: Any, width: Any) -> None:
        """Adds class indices, and the number of classes they name (`None`: unknown)."""
        labeled = labels[labels >= 0]
        inside = labeled[labeled < len(self.seen)]
        self.rows += len(labels)
        self.unlabeled += len(labels) - len(labeled)
        self.too_large += len(labeled) - len(inside)
        self.largest = max(self.largest, int(labeled.max(initial=-1)))
        self.least = min(self.least, int(labeled.min(initial=np.iinfo(np.int64).max)))
        self.seen[inside] = True
        self.width = width if width is not None else self.width


class PairTally:
    """Where teacher and student agree, and which is right where only one is."""

    def __init__(self) -> None:
        self.weight = self.agree = 0.0
        self.student_only = self.teacher_only = self.squares = 0.0

    def add(self, teacher: Any, student: Any, labels: Any, weights: Any) -> None:
        """Adds predictions, `[rows]`, -1 where there is none."""
        both = (teacher >= 0) & (student >= 0) & (labels >= 0)
        teacher, student, labels, weights = (x[both] for x in (teacher, student, labels, weights))
        only_student = (student == labels) & (teacher != labels)
        only_teacher = (teacher == labels) & (student != labels)
        self.weight += weights.sum()
        self.agree += weights @ (teacher == student)
        self.student_only += weights @ only_student
        self.teacher_only += weights @ only_teacher
        self.squares += weights**2 @ (only_student | only_teacher)


class OutputsTally:
    """Counts of a model's outputs that are not finite, are probabilities, or do not vary.

    Args:
        classes: Number of outputs per sample.
    """

    def __init__(self, classes: int) -> None:
        self.rows = self.invalid = self.probabilities = self.flat = 0
        self.least, self.most = np.full(classes, np.inf), np.full(classes, -np.inf)

    def add(self, values: Any) -> None:
        """Adds outputs, float64 `[rows, classes]`."""
        finite = values[statistics.are_finite(values)]
        self.rows += len(values)
        self.invalid += len(values) - len(finite)
        if not len(finite):
            return
        low, high = finite.min(axis=-1), finite.max(axis=-1)
        is_one = abs(finite.sum(axis=-1) - 1) <= OUTPUTS_SUM_TOLERANCE
        self.probabilities += int(np.sum((low >= 0) & (high <= 1 + OUTPUTS_SUM_TOLERANCE) & is_one))
        self.flat += int(np.sum(low == high))
        self.least = np.minimum(self.least, finite.min(axis=0))
        self.most = np.maximum(self.most, finite.max(axis=0))

    @property
    def finite(self) -> int:
        """Number of rows that have a distribution."""
        return self.rows - self.invalid

    @property
    def are_probabilities(self) -> bool:
        """Whether every row that is finite sums to 1 and lies between 0 and 1."""
        return self.finite > 0 and self.probabilities == self.finite

    @property
    def are_constant(self) -> bool:
        """Whether all rows are the same; one row cannot tell."""
        if self.finite < 2:
            return False
        # A class that is -inf in every row has no spread to speak of.
        with np.errstate(invalid="ignore"):
            spread = np.where(self.most == self.least, 0.0, self.most - self.least)
        finite = np.abs(self.most[np.isfinite(self.most)])
        return bool(spread.max() <= OUTPUTS_SAME * finite.max(initial=0.0))

    @property
    def range(self) -> tuple[float, float]:
        """The least and the largest output."""
        return float(self.least.min()), float(self.most.max())


class Confusion:
    """Weighted counts of labels and predictions.

    Args:
        classes: Number of classes.
        with_matrix: Whether to keep which class is taken for which.

    Attributes:
        rows: Weight of the rows of each class, `[classes]`.
        right: Weight of those that are classified correctly.
        matrix: `[label, predicted]`, or `None`: not wanted, or more than 2048 classes.
    """

    def __init__(self, classes: int, with_matrix: bool = False) -> None:
        self.classes = classes
        self.rows, self.squares, self.right = np.zeros((3, classes))
        kept = with_matrix and classes <= MATRIX_CLASSES
        self.matrix = np.zeros((classes, classes)) if kept else None

    def add(self, labels: Any, predicted: Any, weights: Any) -> None:
        """Adds labels below `classes`, predictions and weights, each `[rows]`."""
        np.add.at(self.rows, labels, weights)
        np.add.at(self.squares, labels, weights**2)
        np.add.at(self.right, labels, weights * (labels == predicted))
        if self.matrix is not None:
            np.add.at(self.matrix, (labels, predicted), weights)

    @property
    def accuracy(self) -> float:
        """Weighted share of right answers."""
        return float(self.right.sum() / self.rows.sum())

    @property
    def effective_rows(self) -> float:
        """The number of equally weighted samples that all of them are worth."""
        return float(statistics.effective(self.rows.sum(), self.squares.sum()))

    @property
    def class_rows(self) -> np.ndarray:
        """The same for each class, `[classes]`."""
        return statistics.effective(self.rows, self.squares)

    @property
    def recall(self) -> np.ndarray:
        """Share of right answers for each class, NaN where it has no rows."""
        return np.where(self.rows > 0, self.right / np.where(self.rows > 0, self.rows, 1), np.nan)

    @property
    def counts(self) -> tuple[int, int, int]:
        """`(right answers, rows, classes)`, in whole rows of one weight."""
        rows = round(self.effective_rows)
        return round(self.accuracy * rows), rows, self.classes


class CalibrationTally:
    """Sums over labeled samples at many temperatures: what calibration needs, in one pass.

    A temperature cannot be searched for without running over the data repeatedly, or keeping all
    logits. Instead the negative log-likelihood and its first two derivatives in `log T` are summed
    at the temperatures of a grid. Between two neighbors a cubic through values and slopes is exact
    to about 1e-5 of the temperature. It takes 0.03 s of processor time for 1000 samples of 10
    classes, and 0.5 s for 1000 classes.

    Args:
        temperatures: Additional temperatures, such as that of distillation.

    Attributes:
        temperatures: All temperatures, ascending.
    """

    def __init__(self, *temperatures: float) -> None:
        self.temperatures = np.unique(np.concatenate([TEMPERATURE_GRID, [1.0], temperatures]))
        count = len(self.temperatures)
        self.weight = self.squares = self.sure = 0.0
        self.nll, self.slope, self.curvature, self.entropy = np.zeros((4, count))
        # For each bin of confidence: weight, confidence and right answers.
        self.bins = np.zeros((count, CONFIDENCE_BINS, 3))

    def add(self, logits: Any, labels: Any, weights: Any) -> None:
        """Adds finite logits `[rows, classes]`, the largest 0, their labels and weights."""
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
        bins = np.clip(
            np.ceil(confidence * CONFIDENCE_BINS).astype(int) - 1, 0, CONFIDENCE_BINS - 1
        )
        sums = np.stack([weights, weights * confidence, weights * right], axis=-1)
        np.add.at(self.bins[k], bins, sums)

    def at(self, temperature: float) -> int:
        """Index of one of the temperatures."""
        return int(np.flatnonzero(self.temperatures == temperature)[0])

    def mean(self, name: str, temperature: float) -> float:
        """Mean over the rows of `"nll"` or `"entropy"` (in nats) at one of the temperatures."""
        return float(getattr(self, name)[self.at(temperature)] / self.weight)

    def confidence(self) -> np.ndarray:
        """Mean probability of the likeliest class at each temperature."""
        return self.bins[:, :, 1].sum(axis=-1) / self.weight

    def accuracy(self) -> float:
        """Share of right answers."""
        return float(self.bins[0, :, 2].sum() / self.weight)

    def calibration_errors(self) -> np.ndarray:
        """Expected calibration error at each temperature."""
        return np.abs(self.bins[:, :, 2] - self.bins[:, :, 1]).sum(axis=-1) / self.weight

    def noise(self) -> float:
        """The calibration error that a calibrated model would show at T = 1 on so few samples.

        In a bin of `n` rows and confidence `c` the share of right answers misses `c` by `sqrt(2 c
        (1 - c) / (pi n))` on average.
        """
        weight, confidence, _ = self.bins[self.at(1.0)].T
        held = weight > 0
        share = weight[held] / self.weight
        c = np.clip(confidence[held] / weight[held], 0.0, 1.0)
        rows = share * self.weight**2 / self.squares
        return float(np.sum(share * np.sqrt(2 * c * (1 - c) / (np.pi * rows))))

    def fit(self) -> tuple[float, float, float] | None:
        """The temperature of the least negative log-likelihood.

        Returns:
            `(temperature, nll, calibration_error)`, or `None` where it lies outside 1/8 to 32 or
            does not exist, such as for a teacher that is always right.
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
    """Where a function that is negative at 0, and not at 1, crosses zero."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if function(middle) > 0 else (middle, high)
    return 0.5 * (low + high)

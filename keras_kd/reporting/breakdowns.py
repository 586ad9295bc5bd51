"""A report by parts of the data: slices, classes, mistakes, confidence."""

import collections
import dataclasses
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_kd._utils import batches, validation
from keras_kd.measurement.result import Measurement
from keras_kd.reporting import statistics
from keras_kd.reporting.comparison import BASELINE, STUDENT, Candidate, Comparison
from keras_kd.reporting.statistics import mean_and_deviation

# A slice with more values names samples, not parts.
MOST_VALUES = 50


def read_slices(slices: Any, data: Any) -> dict[str, list]:
    """`{name: a value for each row}` of the user's slices.

    Args:
        slices: `None`; a function from (inputs, labels) of a batch to a value for each sample; an
            array of them, `[samples]`; or a dict of such, by name.
        data: The test data.

    Raises:
        ValueError: They are nothing of this kind, or have too many values.
    """
    if slices is None:
        return {}
    named = slices if isinstance(slices, dict) else {"slice": slices}
    for name, key in named.items():
        if callable(key):
            validation.function(f"slices[{name!r}]", key, ["inputs", "labels"])
    made = {str(name): _values(str(name), key, data) for name, key in named.items()}
    for name, values in made.items():
        found = len(set(values))
        if found > MOST_VALUES:
            raise ValueError(
                f"The slice {name!r} has {found} different values in {len(values)} samples; "
                f"expected at most {MOST_VALUES}. Make groups of them, such as "
                "np.digitize(values, [10, 100])."
            )
        if not isinstance(data, tf.data.Dataset):
            _check_length(name, values, len(keras.tree.flatten(data)[0]))
    return made


def _values(name, key, data):
    if not callable(key):
        values = np.asarray(key)
        if values.ndim != 1 or values.dtype.kind not in "biufSUO":
            raise ValueError(
                f"The slice {name!r} must be a function of (inputs, labels), or one value for each "
                f"sample. Received: an array of shape {values.shape}."
            )
        return _plain(values)
    found = []
    for x, y, _ in batches.iterate(data):
        given = keras.tree.map_structure(np.asarray, (x, y))
        values = np.asarray(key(*given))
        rows = len(keras.tree.flatten(x)[0])
        if values.shape != (rows,):
            raise ValueError(
                f"The function of the slice {name!r} must return one value for each of the {rows} "
                f"samples of a batch, of shape ({rows},). Received: shape {values.shape}."
            )
        found += _plain(values)
    return found


def _plain(values):
    """Values that are equal where they are the same, and that JSON has."""
    return [
        each.decode("utf-8", "replace")
        if isinstance(each, bytes)
        else "NaN"
        if each != each
        else each
        for each in values.tolist()
    ]


def select_counted(keys: dict[str, list], measurement: Measurement) -> dict[str, list]:
    """The keys of the samples that count.

    Args:
        keys: What `read_slices` returned.
        measurement: A `Measurement` on the data.

    Returns:
        As `keys`.

    Raises:
        ValueError: There is not one value for each sample.
    """
    return {name: _select(name, values, measurement) for name, values in keys.items()}


def _select(name, values, measurement):
    counted = measurement.counted
    rows = measurement.samples if counted is None else len(counted)
    _check_length(name, values, rows)
    if counted is None:
        return values
    positions = counted.size // rows  # of each sample, where these have labels of their own
    return np.repeat(np.array(values, object), positions)[counted.reshape(-1)].tolist()


def _check_length(name, values, rows):
    if len(values) != rows:
        raise ValueError(
            f"The slice {name!r} has {len(values)} values, but the test data have {rows} samples. "
            "Give one value for each sample, also for those without a label."
        )


def compare_slices(comparison: Comparison, keys: dict[str, list]) -> list[dict]:
    """The models on each part.

    Returns:
        A list of dicts: `slice`, `value`, `samples`, `scores` (`{candidate: mean over seeds}`: the
        share of right samples, the mean absolute error, or the metric of texts and embeddings),
        `gain` and `deviation` of the distilled student over the one with labels only (positive is
        better), or `None`.

    Raises:
        ValueError: The samples do not fit the test data, or the task has no samples that are right.
    """
    if not keys:
        return []
    scores = {each.name: _scores(comparison.metric, each) for each in comparison.candidates}
    first = comparison.candidates[0].measurements[0]
    return [
        _row(comparison, name, value, rows, scores)
        for name, values in select_counted(keys, first).items()
        for value, rows in _groups(values).items()
    ]


def _scores(metric, candidate):
    """A function of samples to their score, higher is better, float64 `[seeds]`."""
    found = [_score(metric, each) for each in candidate.measurements]
    if any(each is None for each in found):
        task = candidate.measurements[0].task
        raise ValueError(
            f"Slices need a prediction for each sample, which {candidate.name!r} does not have: "
            f"its task is {task!r}, and the metric {metric.key!r}."
        )
    return lambda rows: np.array([score(rows) for score in found])


def _score(metric, measurement):
    """A function of samples to a number, or `None`."""
    weights = statistics.sample_weights(measurement)
    scores = measurement.sample_scores.get(metric.key)
    if scores is not None:
        sign = 1 if metric.higher_is_better else -1
        return lambda rows: sign * scores.value(weights, rows)
    values = _of_rows(measurement)
    if values is None:
        return None
    return lambda rows: np.average(values[rows], weights=weights[rows])


def _of_rows(measurement):
    right = statistics.correct_samples(measurement)
    if right is not None:
        return right
    errors = statistics.absolute_errors(measurement)
    return None if errors is None else -errors.mean(axis=-1)


def _groups(values):
    groups = collections.defaultdict(list)
    for row, value in enumerate(values):
        groups[value].append(row)
    return {value: groups[value] for value in sorted(groups, key=_order)}


def _order(value):
    return (0, value, "") if isinstance(value, (int, float)) else (1, 0, str(value))


def _row(comparison, name, value, rows, scores):
    of_rows = {key: score(rows) for key, score in scores.items()}
    gain = deviation = None
    sides = [_name(comparison, role) for role in (STUDENT, BASELINE)]
    if None not in sides:
        gain, deviation = mean_and_deviation(of_rows[sides[0]] - of_rows[sides[1]])
    return {
        "slice": name,
        "value": value,
        "samples": len(rows),
        "scores": {key: abs(float(found.mean())) for key, found in of_rows.items()},
        "gain": gain,
        "deviation": deviation,
    }


def _name(comparison, role):
    return next((each.name for each in comparison.candidates if each.role == role), None)


# Which classes gained and lost, and what is mistaken for what.


@dataclasses.dataclass(frozen=True)
class ClassChange:
    """What distillation changed for one class.

    Attributes:
        label: The class.
        support: How many samples of the test data have it (the sum of their weights).
        baseline: Recall of the student with labels only, mean over seeds.
        student: Recall of the distilled one.
        gain: The difference of both.
        deviation: Its standard deviation over seeds, or `None` of one seed.
        seeds: Their number.
        teacher: The teacher's recall, or `None`.
    """

    label: object
    support: int
    baseline: float
    student: float
    gain: float
    deviation: float | None
    seeds: int
    teacher: float | None

    @property
    def is_clear(self) -> bool:
        """Whether the change is more than two standard errors, and more than one sample.

        Two standard errors of so few seeds are a rule of thumb, and there are many classes: some
        pass it by chance.
        """
        if self.deviation is None or abs(self.gain) * self.support <= 1:
            return False
        return abs(self.gain) > 2 * self.deviation / np.sqrt(self.seeds)


def compare_classes(comparison: Comparison) -> list[ClassChange]:
    """A `ClassChange` for each class, in the order of the classes; `[]` where nothing is known."""
    baseline, student = comparison.baseline, comparison.student
    if baseline is None or student is None:
        return []
    tables = [_recalls(each) for each in (baseline, student)]
    if not all(tables):
        return []
    before, after = tables
    teacher = _recalls(comparison.teacher) if comparison.teacher is not None else {}
    support = {row["label"]: row["support"] for row in student.measurements[0].per_class}
    return [
        _change(label, support[label], before[label], after[label], teacher.get(label))
        for label in after
        if label in before and support[label] > 0
    ]


def _recalls(candidate):
    """`{label: recall by seed}`."""
    found: dict = {}
    for measurement in candidate.measurements:
        for row in measurement.per_class or []:
            found.setdefault(row["label"], []).append(row["recall"])
    return found


def _change(label, support, before, after, teacher):
    gain, deviation = mean_and_deviation(np.subtract(after, before))
    return ClassChange(
        label,
        round(support),
        float(np.mean(before)),
        float(np.mean(after)),
        gain,
        deviation,
        len(after),
        None if teacher is None else float(np.mean(teacher)),
    )


def compare_confusion(comparison: Comparison) -> dict[str, Any] | None:
    """Distilled minus labels only: what is mistaken for what, more often or less.

    Returns:
        `{"labels": [...], "difference": float64 [classes, classes]}`, rows the truth, columns the
        prediction, in rows of the test data (mean over seeds); or `None`.
    """
    baseline, student = comparison.baseline, comparison.student
    if baseline is None or student is None:
        return None
    before, after = _mean_confusion(baseline), _mean_confusion(student)
    if before is None or after is None or before.shape != after.shape:
        return None
    labels = [row["label"] for row in student.measurements[0].per_class]
    if len(labels) != len(after):
        labels = list(range(len(after)))
    return {"labels": labels, "difference": after - before}


def _mean_confusion(candidate):
    found = [each.confusion for each in candidate.measurements]
    return None if any(each is None for each in found) else np.mean(found, axis=0)


# The teacher's mistakes, inherited or not.


@dataclasses.dataclass(frozen=True)
class Inherited:
    """How often each model repeats a mistake of the teacher: gives the same wrong class.

    Attributes:
        teacher_mistakes: In how many samples the teacher is wrong.
        student: The share of these for which the distilled student gives the teacher's class, mean
            over seeds.
        student_deviation: Its standard deviation over seeds, or `None`.
        baseline: The same of the student with labels only, which never saw the teacher: some
            mistakes lie in the data. `None` without one.
        baseline_deviation: Its standard deviation over seeds, or `None`.
        corrected: The share of the teacher's mistakes that the distilled student gets right.
    """

    teacher_mistakes: int
    student: float
    student_deviation: float | None
    baseline: float | None
    baseline_deviation: float | None
    corrected: float


def count_inherited(comparison: Comparison) -> Inherited | None:
    """`Inherited`, or `None`: no classes, no teacher, or a teacher that is always right."""
    teacher, student = comparison.teacher, comparison.student
    if teacher is None or student is None or not _has_classes(teacher, student):
        return None
    answers = np.asarray(teacher.measurements[0].predictions)
    truth = np.asarray(teacher.measurements[0].labels)
    wrong = answers != truth
    if not wrong.any():
        return None
    repeated, deviation = mean_and_deviation(_shares(student, wrong, answers))
    baseline, baseline_deviation = None, None
    if comparison.baseline is not None and _has_classes(comparison.baseline):
        shares = _shares(comparison.baseline, wrong, answers)
        baseline, baseline_deviation = mean_and_deviation(shares)
    return Inherited(
        teacher_mistakes=int(wrong.sum()),
        student=repeated,
        student_deviation=deviation,
        baseline=baseline,
        baseline_deviation=baseline_deviation,
        corrected=float(np.mean(_shares(student, wrong, truth))),
    )


def _has_classes(*candidates):
    found = [each for candidate in candidates for each in candidate.measurements]
    return all(each.task in ("multiclass", "binary") for each in found) and not any(
        each.predictions is None or each.labels is None for each in found
    )


def _shares(candidate, rows, classes):
    """By seed: for which share of some samples a model gives these classes."""
    return [statistics.agreement(each, classes, rows) for each in candidate.measurements]


# Confidence against accuracy, for each model.


def reliability_curve(candidate: Candidate) -> list[dict]:
    """The reliability curve of a model: all of its seeds together.

    Returns:
        A list of `{"confidence", "accuracy", "count"}`, one for each bin that has samples; `[]`
        where nothing was measured.
    """
    bins: dict = {}
    for measurement in candidate.measurements:
        for row in measurement.reliability or []:
            if row["count"]:
                bins.setdefault((row["low"], row["high"]), []).append(row)
    return [_pooled(bins[key]) for key in sorted(bins)]


def _pooled(rows):
    counts = np.array([row["count"] for row in rows])
    weights = np.array([row.get("weight", row["count"]) for row in rows], np.float64)
    weights /= weights.sum()
    return {
        "confidence": float(weights @ [row["confidence"] for row in rows]),
        "accuracy": float(weights @ [row["accuracy"] for row in rows]),
        "count": int(counts.sum()),
    }

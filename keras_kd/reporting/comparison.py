"""`Comparison`: the candidates of a report side by side, what changed, and what files kept.

A `Candidate` is a model or a file in every seed; `compare` sets all of them side by side.
"""

import dataclasses
from typing import Any

import numpy as np

from keras_kd.measurement.result import Measurement
from keras_kd.reporting import statistics
from keras_kd.reporting.statistics import Difference, Metric

TEACHER, BASELINE, STUDENT, EXPORT = "teacher", "baseline", "student", "export"
GAIN, LOSS, NO_GAIN, UNCLEAR, NOTHING = "gain", "loss", "no gain", "unclear", "nothing to compare"


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A model, or a file, as it came out of each seed.

    Attributes:
        name: What the tables call it.
        role: `"teacher"`, `"baseline"`, `"student"` or `"export"`.
        measurements: A `keras_kd.measurement.Measurement` for each seed.
    """

    name: str
    role: str
    measurements: list[Measurement]

    def scores(self, metric: Metric) -> np.ndarray:
        """The metric by seed, float64 `[seeds]`."""
        return np.array([metric.of(each) for each in self.measurements], np.float64)

    def values(self, group: str, key: str) -> list[Any]:
        """The measured values under a key of `quality`, `size`, `teacher` or `latency`."""
        groups = [getattr(each, group) or {} for each in self.measurements]
        return [values[key] for values in groups if values.get(key) is not None]

    def mean(self, group: str, key: str) -> float | None:
        """The mean of `values`, or `None` where nothing was measured."""
        found = self.values(group, key)
        return float(np.mean(found)) if found else None

    def first(self, group: str, key: str) -> Any:
        """The first of `values`, or `None`."""
        return next(iter(self.values(group, key)), None)


@dataclasses.dataclass(frozen=True)
class Kept:
    """An exported file against the student that it was made of.

    Attributes:
        candidate: The `Candidate` of the file.
        difference: File against student.
        share: `(file - labels only) / (distilled - labels only)`, of the means over seeds; `None`
            where that gain is not clear: a share of noise is noise.
        agreement: The share of the samples for which file and student give the same class, or
            `None`.
    """

    candidate: Candidate
    difference: Difference
    share: float | None
    agreement: float | None


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The candidates side by side.

    Attributes:
        metric: What is compared.
        candidates: All of them, in the order of the tables.
        difference: Distilled against labels only, or `None` without one of them.
        kept: A `Kept` for each exported file.
    """

    metric: Metric
    candidates: list[Candidate]
    difference: Difference | None
    kept: list[Kept]

    @property
    def teacher(self) -> Candidate | None:
        """The teacher, or `None`."""
        return find_role(self.candidates, TEACHER)

    @property
    def baseline(self) -> Candidate | None:
        """The student trained with labels only, or `None`."""
        return find_role(self.candidates, BASELINE)

    @property
    def student(self) -> Candidate | None:
        """The distilled student, or `None`."""
        return find_role(self.candidates, STUDENT)

    @property
    def finding(self) -> str:
        """`"gain"`, `"loss"`, `"no gain"`, `"unclear"` or `"nothing to compare"`."""
        if self.difference is None:
            return NOTHING
        better = self.difference.mean > 0
        if self.difference.is_clear:
            return GAIN if better else LOSS
        return UNCLEAR if better else NO_GAIN

    def score(self, candidate: Candidate) -> float:
        """The mean of the metric over seeds."""
        return float(candidate.scores(self.metric).mean())

    def share_of_gap(self) -> float | None:
        """`(distilled - labels only) / (teacher - labels only)`, or `None` without a gap."""
        teacher, baseline, difference = self.teacher, self.baseline, self.difference
        if teacher is None or baseline is None or difference is None or self.finding != GAIN:
            return None
        gap = self.metric.gain(self.score(teacher), self.score(baseline))
        return difference.mean / gap if gap > 0 else None


def compare(metric: Metric, candidates: list[Candidate]) -> Comparison:
    """Compares all candidates.

    Raises:
        ValueError: They were not measured on the same samples in the same order.
    """
    _require_same_samples(candidates)
    baseline, student = find_role(candidates, BASELINE), find_role(candidates, STUDENT)
    difference = None
    if baseline is not None and student is not None:
        difference = statistics.compare_paired(metric, student, baseline)
    made = Comparison(metric, candidates, difference, [])
    if student is not None:
        exports = [each for each in candidates if each.role == EXPORT]
        made.kept.extend(_compare_export(made, export) for export in exports)
    return made


def find_role(candidates: list[Candidate], role: str) -> Candidate | None:
    """The first candidate with a role, or `None`."""
    return next((each for each in candidates if each.role == role), None)


def _require_same_samples(candidates):
    first = candidates[0].measurements[0]
    for candidate in candidates:
        for found in candidate.measurements:
            if found.samples != first.samples or not _are_equal(found.labels, first.labels):
                raise ValueError(
                    f"{candidate.name!r} was measured on other samples than "
                    f"{candidates[0].name!r}, or on the same in another order: the labels differ. "
                    "`data` must give the same samples each time it is read: leave out shuffle (or "
                    "set reshuffle_each_iteration=False) and random maps."
                )


def _are_equal(one, other):
    if one is None or other is None:
        return one is other
    return np.shape(one) == np.shape(other) and bool(np.all(np.asarray(one) == np.asarray(other)))


def _compare_export(comparison, export):
    metric, student = comparison.metric, comparison.student
    share = None
    if comparison.finding == GAIN:
        gain = metric.gain(comparison.score(export), comparison.score(comparison.baseline))
        share = gain / comparison.difference.mean
    difference = statistics.compare_paired(metric, export, student)
    return Kept(export, difference, share, _agreement(export, student))


def _agreement(export, student):
    if student.measurements[0].task not in ("multiclass", "binary"):
        return None
    pairs = list(zip(export.measurements, student.measurements, strict=True))
    if any(side.predictions is None for pair in pairs for side in pair):
        return None
    shares = [statistics.agreement(one, other.predictions) for one, other in pairs]
    return float(np.mean(shares))

"""What distillation changed, and what of it each exported file has kept."""

import dataclasses

import numpy as np

from keras_kd.reporting import candidates, statistics

GAIN, LOSS, NO_GAIN, UNCLEAR, NOTHING = "gain", "loss", "no gain", "unclear", "nothing to compare"


@dataclasses.dataclass(frozen=True)
class Kept:
    """One exported file against the student that it was made of.

    Attributes:
        entrant: The `Entrant` of the file.
        difference: File against student, a `Difference`.
        share: `(file - labels only) / (distilled - labels only)`, of the means over seeds; `None`
            where that gain is not clear: a share of noise is noise.
        agreement: The share of the rows in which file and student say the same, or `None`.
    """

    entrant: candidates.Entrant
    difference: statistics.Difference
    share: float | None
    agreement: float | None


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The models side by side.

    Attributes:
        metric: The `Metric`.
        entrants: All of them, in the order of the tables.
        difference: Distilled against labels only, a `Difference`, or `None` without one of them.
        kept: A `Kept` for each exported file.
    """

    metric: object
    entrants: list[candidates.Entrant]
    difference: statistics.Difference | None
    kept: list[Kept]

    @property
    def teacher(self):
        return candidates.of_role(self.entrants, candidates.TEACHER)

    @property
    def baseline(self):
        return candidates.of_role(self.entrants, candidates.BASELINE)

    @property
    def student(self):
        return candidates.of_role(self.entrants, candidates.STUDENT)

    @property
    def finding(self):
        """`"gain"`, `"loss"`, `"no gain"`, `"unclear"` or `"nothing to compare"`."""
        if self.difference is None:
            return NOTHING
        better = self.difference.mean > 0
        if self.difference.is_clear:
            return GAIN if better else LOSS
        return UNCLEAR if better else NO_GAIN

    def score(self, entrant):
        """The mean of the metric over seeds."""
        return float(entrant.scores(self.metric).mean())

    def share_of_gap(self):
        """`(distilled - labels only) / (teacher - labels only)`, or `None` without a gap."""
        if self.teacher is None or self.finding != GAIN:
            return None
        gap = self.metric.gain(self.score(self.teacher), self.score(self.baseline))
        return self.difference.mean / gap if gap > 0 else None


def compare(metric, entrants):
    """Compares all entrants.

    Args:
        metric: A `Metric`.
        entrants: A list of `Entrant`.

    Returns:
        A `Comparison`.
    """
    candidates.check_rows(entrants)
    baseline = candidates.of_role(entrants, candidates.BASELINE)
    student = candidates.of_role(entrants, candidates.STUDENT)
    difference = None
    if baseline is not None and student is not None:
        difference = statistics.compare(metric, student, baseline)
    made = Comparison(metric, entrants, difference, [])
    exports = [each for each in entrants if each.role == candidates.EXPORT]
    if student is not None:
        made.kept.extend(_kept(made, export) for export in exports)
    return made


def _kept(comparison, export):
    metric, student = comparison.metric, comparison.student
    share = None
    if comparison.finding == GAIN:
        of_export = metric.gain(comparison.score(export), comparison.score(comparison.baseline))
        share = of_export / comparison.difference.mean
    return Kept(
        export, statistics.compare(metric, export, student), share, _agreement(export, student)
    )


def _agreement(export, student):
    if student.measurements[0].task not in ("multiclass", "binary"):
        return None
    pairs = list(zip(export.measurements, student.measurements, strict=True))
    if any(side.predictions is None for pair in pairs for side in pair):
        return None
    shares = [statistics.share_that_says(one, other.predictions) for one, other in pairs]
    return float(np.mean(shares))

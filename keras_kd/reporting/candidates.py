"""`Entrant`: one of the models that are compared, in every seed."""

import dataclasses
from typing import Any

import numpy as np

TEACHER, BASELINE, STUDENT, EXPORT = "teacher", "baseline", "student", "export"


@dataclasses.dataclass(frozen=True)
class Entrant:
    """A model, or a file, as it came out of each seed.

    Attributes:
        name: What the tables call it.
        role: `"teacher"`, `"baseline"`, `"student"` or `"export"`.
        measurements: A `keras_kd.measurement.Measurement` for each seed.
    """

    name: str
    role: str
    measurements: list[Any]

    def scores(self, metric):
        """The metric by seed, float64 `[seeds]`."""
        return np.array([metric.of(each) for each in self.measurements], np.float64)

    def values(self, group, key):
        """What the measurements have under a key of `quality`, `size`, `teacher` or `latency`."""
        groups = [getattr(each, group) or {} for each in self.measurements]
        return [values[key] for values in groups if values.get(key) is not None]

    def mean(self, group, key):
        """The mean of `values`, or `None` where nothing was measured."""
        found = self.values(group, key)
        return float(np.mean(found)) if found else None

    def first(self, group, key):
        """The first of `values`, or `None`."""
        return next(iter(self.values(group, key)), None)


def mean_and_deviation(values):
    """Mean, and the standard deviation of a sample, `None` of fewer than two values."""
    values = np.asarray(values, np.float64)
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else None


def of_role(entrants, role):
    """The first entrant with a role, or `None`."""
    return next((each for each in entrants if each.role == role), None)


def check_rows(entrants):
    """Raises unless all models were asked the same rows in the same order."""
    first = entrants[0].measurements[0]
    for entrant in entrants:
        for found in entrant.measurements:
            if found.samples != first.samples or not _same(found.labels, first.labels):
                raise ValueError(
                    f"{entrant.name!r} was measured on other rows than {entrants[0].name!r}, or on "
                    "the same in another order: the labels differ. `data` must give the same rows "
                    "each time it is read: leave out shuffle (or set "
                    "reshuffle_each_iteration=False) and random maps."
                )


def _same(one, other):
    if one is None or other is None:
        return one is other
    return np.shape(one) == np.shape(other) and bool(np.all(np.asarray(one) == np.asarray(other)))

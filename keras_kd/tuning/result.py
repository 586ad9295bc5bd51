"""`TuningResult`: what a search found, whether it helps, and what it cost."""

import dataclasses
import json
import os
import pathlib
from typing import Any

import keras
import numpy as np

from keras_kd._utils import files, formatting, tables
from keras_kd._utils.serialization import plain
from keras_kd.reporting.result import Report
from keras_kd.reporting.statistics import Difference
from keras_kd.tuning.objectives import Objective
from keras_kd.tuning.study import TrialRecord
from keras_kd.tuning.trials import shown, student_path

# Complete trials from which it is said how flat the optimum is.
_FLAT = 4
_STATES = ("complete", "pruned", "failed")


@dataclasses.dataclass(frozen=True)
class Flatness:
    """How many trials are as good as the best one, as far as seeds can tell.

    Attributes:
        noise: The standard deviation of the metric between seeds.
        trials: How many complete trials lie within it of the best one, which is one of them.
        ranges: `{name: (smallest, largest)}` of their numbers, `{name: choices}` of others.
    """

    noise: float
    trials: int
    ranges: dict[str, tuple]


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a search cost.

    Attributes:
        trials: How many there were, of both searches.
        epochs: For how many epochs they were trained, in all.
        whole_epochs: For how many they would have been trained had none ended early.
        teacher_rows: For how many rows the teacher ran: each training row once, or none where its
            outputs were there.
    """

    trials: int
    epochs: int
    whole_epochs: int
    teacher_rows: int


class TuningResult:
    """The result of `keras_kd.tune`. `print`, a notebook and the prompt show it.

    Attributes:
        settings: The best settings, `{name: value}`; of several objectives those of the front that
            have the best metric.
        value: Their metric on validation data. It is the best of many, and so too good: `report`
            has what is left of it on other data.
        number: The number of their trial.
        defaults: The settings of the first trial.
        objectives: What was searched for.
        trials: A dict for each trial: `number`, `state` (`"complete"`, `"pruned"`, `"failed"`),
            the settings, the objectives, `epochs`, `failure`.
        labels_only: The same of the search without a teacher; empty where there was none.
        labels_only_settings: Its best settings, or `None`.
        front: The trials that no other beats in all objectives, the best metric first.
        importances: `{name: share}` of the spread of the metric that each setting explains, by
            fANOVA, or `None` where too few trials are complete.
        flatness: A `Flatness`, or `None`.
        report: A `keras_kd.Report` on `test`: the tuned student against the tuned labels-only one;
            or `None` without test data.
        over_defaults: By how much the tuned student beats the one with the default settings on
            `test`, a `Difference` (`mean`, `deviation`, `p`, `is_clear`); or `None`.
        cost: A `Cost`.
        notes: What was left out and why.
        directory: The folder of the search.

    Args:
        objectives: What was searched for.
        defaults: The settings of the first trial.
        records: The trials.
        front: Numbers of those that no other beats.
        labels_records: The trials without a teacher.
        labels_only_settings: The best settings of these, or `None`.
        importances: See the attributes.
        noise: The standard deviation of the metric between seeds, or `None`.
        report: See the attributes.
        over_defaults: See the attributes.
        cost: See the attributes.
        notes: See the attributes.
        directory: See the attributes.
        study: The name of the study, in the names of its files.

    Example:

    ```python
    import keras_kd as kd

    def smallest(found: kd.tuning.TuningResult):  # of kd.tune(..., objective=["accuracy", "bytes"])
        print(found)
        row = min(found.front, key=lambda row: row["bytes"])
        return found.student(row["number"])
    ```
    """

    def __init__(
        self,
        *,
        objectives: list[Objective],
        defaults: dict[str, Any],
        records: list[TrialRecord],
        front: list[int],
        labels_records: list[TrialRecord],
        labels_only_settings: dict[str, Any] | None,
        importances: dict[str, float] | None,
        noise: float | None,
        report: Report | None,
        over_defaults: Difference | None,
        cost: Cost,
        notes: list[str],
        directory: pathlib.Path,
        study: str,
    ) -> None:
        self.objectives, self.defaults = objectives, defaults
        self._records = {each.number: each for each in records}
        metric = objectives[0]
        ranked = sorted(front, key=lambda n: -metric.gain(self._value(n), 0.0))
        best = self._records[ranked[0]]
        self.settings, self.number = best.settings, best.number
        self.value = best.values[metric.name]
        self.trials = self._rows(records)
        self.labels_only = self._rows(labels_records)
        self.labels_only_settings = labels_only_settings
        self.front = self._rows([self._records[number] for number in ranked])
        self.importances, self.report, self.over_defaults = importances, report, over_defaults
        self.flatness = None if noise is None else self._flatness(records, noise)
        self.cost, self.notes, self.directory = cost, notes, directory
        self._study = study

    def _value(self, number):
        return self._records[number].values[self.objectives[0].name]

    def student(self, number: int | None = None) -> keras.Model:
        """The trained student of a trial of the front; default: of the best one.

        Args:
            number: Of a trial in `front`.

        Raises:
            ValueError: The trial is not in the front, and its student was not kept.
        """
        number = self.number if number is None else number
        kept = [row["number"] for row in self.front]
        if number not in kept:
            raise ValueError(
                f"The students of the front alone are kept, those of trials {kept}. Received: "
                f"number={number!r}. Train its settings again: result.trials has them."
            )
        path = student_path(self.directory, self._study, number)
        return keras.models.load_model(path, compile=False)

    def _rows(self, records):
        names = list(dict.fromkeys(name for each in records for name in each.settings))
        columns = ["number", "state", *names, *(o.name for o in self.objectives), "epochs"]
        rows = [
            {
                "number": each.number,
                "state": each.state,
                **{name: each.settings.get(name) for name in names},
                **{o.name: each.values.get(o.name) for o in self.objectives},
                "epochs": each.epochs,
                "failure": each.failure,
            }
            for each in records
        ]
        return tables.Rows(rows, columns, lambda value: "" if value is None else shown(value))

    def _flatness(self, records, noise):
        complete = [each for each in records if each.state == "complete"]
        name, metric = self.objectives[0].name, self.objectives[0]
        near = [x for x in complete if metric.gain(x.values[name], self.value) >= -noise]
        ranges = {}
        for setting in dict.fromkeys(key for each in near for key in each.settings):
            values = [each.settings[setting] for each in near if setting in each.settings]
            are_numbers = all(isinstance(v, (int, float)) for v in values)
            listed = (min(values), max(values)) if are_numbers else dict.fromkeys(values)
            ranges[setting] = tuple(listed)
        return Flatness(noise, len(near), ranges)

    def __repr__(self):
        return str(self)

    def __str__(self):
        lines = [*self._head(), ""]
        lines += tables.lines_of(self.front.cells()) if len(self.objectives) > 1 else []
        lines += self._worth()
        return "\n".join(lines + self._why() + [f"- {note}" for note in self.notes])

    def _repr_markdown_(self):
        return self.to_markdown()

    def to_markdown(self) -> str:
        """What `str` says, and the tables of the front and of all trials, as Markdown."""
        text = "\n\n".join(line for line in [*self._head(), *self._worth(), *self._why()] if line)
        parts = ["# Search", text, "## Front", _markdown(self.front)]
        parts += ["## Trials", _markdown(self.trials)]
        if self.labels_only:
            parts += ["## Trials with labels only", _markdown(self.labels_only)]
        parts += ["## Notes", "\n".join(f"- {note}" for note in self.notes)] if self.notes else []
        return "\n\n".join(parts) + "\n"

    def _head(self):
        counts = ", ".join(
            f"{sum(row['state'] == state for row in self.trials)} {state}" for state in _STATES
        )
        cost = self.cost
        share = formatting.percent(cost.epochs / cost.whole_epochs)
        ran = f"ran once over {cost.teacher_rows:,} rows" if cost.teacher_rows else "did not run"
        best = ", ".join(f"{name} {shown(value)}" for name, value in self.settings.items())
        metric = self.objectives[0].name
        equal = [
            row["number"]
            for row in self.trials
            if row["state"] == "complete" and row[metric] == self.value
        ]
        others = ", ".join(str(each) for each in equal if each != self.number)
        ties = f"; as good: trials {others}" if others else ""
        lines = [
            f"{len(self.trials)} trials ({counts}); {cost.epochs:,} epochs in all, {share} of "
            f"{cost.whole_epochs:,}; the teacher {ran}",
            f"best: {best} (trial {self.number}, {metric} {self.value:.4g} on validation "
            f"data{ties})",
        ]
        if self.labels_only_settings is not None:
            found = self.labels_only_settings.items()
            listed = ", ".join(f"{name} {shown(value)}" for name, value in found)
            lines.append(f"best with labels only, {len(self.labels_only)} trials: {listed}")
        return lines

    def _worth(self):
        """What the search and the teacher gained, on data that no trial saw."""
        if self.report is None:
            return []
        lines = ["On test data that no trial saw:"]
        if self.report.difference is None:
            row = next(each for each in self.report.rows if each["role"] == "student")
            value = self.report.metric.text(row["mean"], row["deviation"])
            lines.append(
                f"{self.report.metric.label} {value}. What the teacher gained is not known: no "
                "student without one was compared (labels_only=True)."
            )
        else:
            lines.append(self.report.verdict)
        difference = self.over_defaults
        if difference is not None:
            metric = self.report.metric
            gained = metric.difference(difference.mean, difference.deviation)
            p = "" if difference.p is None else f", {formatting.p_value(difference.p)}"
            clear = "" if difference.is_clear else ": within the noise of seeds and samples"
            lines.append(
                f"The search itself gained {gained} over the default settings "
                f"({difference.seeds} seeds{p}){clear}."
            )
        return lines

    def _why(self):
        """What mattered, and how flat the optimum is."""
        lines = []
        if self.importances and len(self.importances) > 1:
            listed = ", ".join(f"{k} {formatting.percent(v)}" for k, v in self.importances.items())
            lines.append(f"What mattered (fANOVA over the complete trials): {listed}")
        complete = sum(row["state"] == "complete" for row in self.trials)
        if self.flatness is not None and complete >= _FLAT:
            flat = self.flatness
            ranges = "; ".join(f"{name} {_ranged(each)}" for name, each in flat.ranges.items())
            lines.append(
                f"How flat: {flat.trials} of {complete} complete trials lie within "
                f"{flat.noise:.2g}, the deviation between seeds, of the best one: {ranges}"
            )
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Everything but models, as JSON takes it."""
        flat = None if self.flatness is None else dataclasses.asdict(self.flatness)
        difference = self.over_defaults
        return plain(
            {
                "settings": self.settings,
                "value": self.value,
                "number": self.number,
                "defaults": self.defaults,
                "objectives": {each.name: each.direction for each in self.objectives},
                "trials": list(self.trials),
                "labels_only": list(self.labels_only),
                "labels_only_settings": self.labels_only_settings,
                "front": [row["number"] for row in self.front],
                "importances": self.importances,
                "flatness": flat,
                "report": None if self.report is None else self.report.to_dict(),
                "over_defaults": None if difference is None else difference.to_dict(),
                "cost": dataclasses.asdict(self.cost),
                "notes": self.notes,
            }
        )

    def save_json(self, path: str | os.PathLike) -> None:
        """Writes `to_dict()`."""
        with files.replace_atomically(path) as partial:
            partial.write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")

    def save_markdown(self, path: str | os.PathLike) -> None:
        """Writes `to_markdown()`."""
        with files.replace_atomically(path) as partial:
            partial.write_text(self.to_markdown(), encoding="utf-8")


def deviation(values: list[float]) -> float | None:
    """The standard deviation over seeds, or `None` of fewer than two."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _ranged(values):
    if len(values) == 2 and all(isinstance(each, float) for each in values):
        return f"{shown(values[0])} to {shown(values[1])}"
    return ", ".join(map(shown, values))


def _markdown(rows):
    head, *body = rows.cells()
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)

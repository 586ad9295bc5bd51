"""`Report`: the models side by side, as text, Markdown, JSON and a page."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import keras

from keras_kd._utils import files, storage
from keras_kd._utils.serialization import plain
from keras_kd._utils.validation import invalid
from keras_kd.reporting import breakdowns, narrative, tables
from keras_kd.reporting.comparison import Comparison
from keras_kd.reporting.statistics import Metric


class Report:
    """The result of `keras_kd.report`. `print`, a notebook and the prompt show its tables.

    Attributes:
        title: A heading.
        verdict: What the numbers show, in words.
        finding: `"gain"`, `"loss"`, `"no gain"`, `"unclear"` or `"nothing to compare"`.
        advice: What to try; a list of sentences, empty where nothing should be improved.
        remarks: Sentences on classes, slices and the teacher's mistakes.
        rows: The main table: a dict for each model. Keys: `name`, `role`, `seeds`, `values` (the
            metric by seed), `mean`, `deviation`, `gain`, `gain_deviation` (over labels only), `p`,
            `test` (the test that gave p), `kept` (the share of the gain), `agreement` (with the
            teacher), `ece`, `parameters`, `bytes`, `gzip_bytes`, `macs`, `median_us`, `p95_us`,
            `runtime`, `threads`. What was not measured is `None`.
        difference: Distilled against labels only: by seed, mean, deviation, interval, p; or `None`.
        classes: What changed for each class.
        confusion: What is mistaken for what, more often or less; or `None`.
        mistakes: How many of the teacher's mistakes are inherited; or `None`.
        slices: The models on parts of the test data.
        students: The distilled models by seed.
        baselines: The models with labels only by seed.
        notes: What could not be measured and why, and unequal budgets.

    Args:
        comparison: The models, measured and compared.
        title: A heading.
        slice_keys: `{name: a value for each sample}` of the slices.
        notes: What could not be measured and why.
        budgets: Sentences about trainings of unequal length, for the verdict.
        environment: `{name: text}`: the machine and the versions that measured.
        students: The distilled models by seed.
        baselines: The models with labels only by seed.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_kd as kd

    x, y = np.random.normal(size=(64, 8)).astype("float32"), np.arange(64) % 3
    students = [keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)]) for _ in range(2)]
    report = kd.report(student=students[0], baseline=students[1], data=(x, y), latency=False)
    assert isinstance(report, kd.Report)
    print(report.finding, [(row["name"], row["mean"]) for row in report.rows])
    ```
    """

    def __init__(
        self,
        comparison: Comparison,
        *,
        title: str = "Distillation report",
        slice_keys: dict[str, list] | None = None,
        notes: Sequence[str] = (),
        budgets: Sequence[str] = (),
        environment: dict[str, str] | None = None,
        students: Sequence[keras.Model] = (),
        baselines: Sequence[keras.Model] = (),
    ):
        if not isinstance(comparison, Comparison):
            raise invalid(
                "comparison",
                "the comparison of a report, such as report.comparison",
                repr(comparison),
            )
        if not isinstance(title, str):
            raise invalid("title", "text", repr(title))
        for name, value in (("notes", notes), ("budgets", budgets)):
            if not isinstance(value, (list, tuple)):
                raise invalid(name, "a list of sentences", repr(value))
        if slice_keys is not None and not isinstance(slice_keys, dict):
            raise invalid(
                "slice_keys", "a dict of values for each sample by name", repr(slice_keys)
            )
        self.comparison, self.title = comparison, title
        self.environment = dict(environment or {})
        self.students, self.baselines = list(students), list(baselines)
        self.rows = tables.main_rows(comparison)
        self.difference = comparison.difference
        self.classes = breakdowns.compare_classes(comparison)
        self.confusion = breakdowns.compare_confusion(comparison)
        self.mistakes = breakdowns.count_inherited(comparison)
        self.slices = breakdowns.compare_slices(comparison, slice_keys or {})
        self.finding = comparison.finding
        self.verdict = narrative.verdict(comparison, budgets)
        self.advice = narrative.advise_training(comparison) + narrative.advise_exports(comparison)
        self.remarks = narrative.remark(self.classes, self.mistakes, self.slices)
        self.notes = [*notes, *_notes(comparison.candidates)]

    @property
    def metric(self) -> Metric:
        """The number that is compared, a `Metric`."""
        return self.comparison.metric

    def __repr__(self):
        return str(self)

    def __str__(self):
        return tables.terminal_text(self)

    def _repr_html_(self):
        from keras_kd.reporting import html

        return html.compact(self)

    def _repr_markdown_(self):
        return self.to_markdown()

    def to_markdown(self) -> str:
        """Verdict, advice and tables as Markdown."""
        return tables.markdown_text(self)

    def to_dict(self) -> dict:
        """Everything but models and predictions, as what JSON can hold."""
        confusion = self.confusion
        if confusion is not None:
            confusion = {**confusion, "difference": confusion["difference"].tolist()}
        return plain(
            {
                "title": self.title,
                "verdict": self.verdict,
                "finding": self.finding,
                "advice": self.advice,
                "remarks": self.remarks,
                "metric": self.metric.key,
                "rows": self.rows,
                "difference": None if self.difference is None else self.difference.to_dict(),
                "classes": [dataclasses.asdict(each) for each in self.classes],
                "confusion_change": confusion,
                "mistakes": None if self.mistakes is None else dataclasses.asdict(self.mistakes),
                "slices": self.slices,
                "calibration": {
                    each.name: breakdowns.reliability_curve(each)
                    for each in self.comparison.candidates
                },
                "notes": self.notes,
                "environment": self.environment,
                "measurements": {
                    each.name: [one.to_dict() for one in each.measurements]
                    for each in self.comparison.candidates
                },
            }
        )

    def scalars(self) -> dict[str, float]:
        """The numbers of the main table, flat: for experiment trackers.

        Returns:
            `{"<model>/<column>": number}`, such as `"distilled/accuracy"`, `"labels only/bytes"`.
            Columns: the metric by its key and `<metric>_deviation`, and of `rows`: `seeds`, `gain`,
            `gain_deviation`, `p`, `kept`, `agreement`, `ece`, `parameters`, `bytes`, `gzip_bytes`,
            `macs`, `median_us`, `p95_us`, `threads`. What was not measured is left out.

        Example:

        ```python
        import keras
        import numpy as np
        import keras_kd as kd

        x, y = np.random.normal(size=(64, 8)).astype("float32"), np.arange(64) % 3
        students = [keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)]) for _ in range(2)]
        report = kd.report(student=students[0], baseline=students[1], data=(x, y), latency=False)
        found = report.scalars()
        gain = found["distilled/accuracy"] - found["labels only/accuracy"]
        assert abs(found["distilled/gain"] - gain) < 1e-9
        ```
        """
        return tables.scalars(self.metric, self.rows)

    def save_json(self, path: Any) -> None:
        """Writes `to_dict` to a file."""
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
        _write(path, text + "\n")

    def save_markdown(self, path: Any) -> None:
        """Writes `to_markdown` to a file, or to an object of a store (`s3://...`)."""
        _write(path, self.to_markdown())

    def save_html(self, path: Any) -> None:
        """Writes one page that holds everything: no other file and no network is needed."""
        # Imported here: pages are written seldom.
        from keras_kd.reporting import html

        _write(path, html.text(self))


def _notes(candidates):
    """Each note once, with the models that it is about."""
    found: dict = {}
    for candidate in candidates:
        for note in [note for one in candidate.measurements for note in one.notes]:
            found.setdefault(note, {})[candidate.name] = None
    return [f"{', '.join(names)}: {note}" for note, names in found.items()]


def _write(path, text):
    place = storage.place(path, "path", "the path of a file, or the address of an object")
    files.check_writable(place, "path")
    with files.replace_atomically(place) as partial:
        partial.write_text(text, encoding="utf-8")

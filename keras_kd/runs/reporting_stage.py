"""The report of a run: teacher, baseline, student and files on the test data."""

from typing import Any

from keras_kd._utils import validation
from keras_kd.reporting import report
from keras_kd.runs import models
from keras_kd.runs.context import Run


def check() -> None:
    """Raises where a package for the report is missing.

    Raises:
        ImportError: It is; the message names the extra.
    """
    for package in ("sklearn", "scipy"):
        validation.needs(package, "the report of a run", "measure")


def write(run: Run) -> list[str]:
    """Measures all models and files, and writes the page; returns the names of the files."""
    run.say("report: measures on the test data")
    values = run.config.values
    student = models.load(run.config, "student", run.folder.file("student.keras"))
    baseline = None
    if values.baseline:
        baseline = models.load(run.config, "baseline", run.folder.file("baseline.keras"))
    given: dict[str, Any] = {}
    if run.data.kind != "function":
        given["class_names"] = run.data.classes
    teacher_from_logits = values.teacher.from_logits
    if teacher_from_logits is None:
        teacher_from_logits = models.gives_logits(run.teacher)
    made = report(
        run.teacher,
        student,
        baseline,
        {each.name: str(run.folder.file(each.file)) for each in values.exports},
        run.data.arrays("test"),
        metric=values.report.metric,
        latency=values.report.latency,
        title=values.report.title or run.name,
        task="multiclass",
        from_logits=models.gives_logits(student),
        teacher_from_logits=teacher_from_logits,
        verbose=0,
        **given,
    )
    made.save_html(run.folder.file("report.html"))
    made.save_json(run.folder.file("report.json"))
    run.say(str(made))
    return ["report.html", "report.json"]

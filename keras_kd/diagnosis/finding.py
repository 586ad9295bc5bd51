"""`Finding`, the result of one check, and `Diagnosis`, the findings of a run."""

import dataclasses
import json
import math
import textwrap
from typing import Any

from keras_kd._utils import tables, validation
from keras_kd._utils.markup import element
from keras_kd._utils.validation import invalid

SEVERITIES = ("ok", "note", "warning", "error")
# Of the table, in characters.
WIDTH = 100


@dataclasses.dataclass(frozen=True)
class Finding:
    """What one check found, in words and in numbers.

    Args:
        check: Name of the check, such as `"calibration"`.
        severity: `"ok"`; `"note"`: worth knowing; `"warning"`: distillation will probably suffer;
            `"error"`: it cannot work like this.
        message: What was found, with figures.
        remedy: What to do; empty if nothing is.
        values: The numbers by name, JSON-serializable.

    Example:

    ```python
    import keras_kd as kd

    finding = kd.diagnosis.Finding("accuracy", "ok", "The teacher is right in 97.0 % of the rows.")
    assert not finding.is_problem
    ```
    """

    check: str
    severity: str
    message: str
    remedy: str = ""
    values: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        validation.text("check", self.check)
        validation.one_of("severity", self.severity, SEVERITIES)
        validation.text("message", self.message)
        if not isinstance(self.remedy, str):
            raise invalid("remedy", "a text, empty where nothing is to be done", repr(self.remedy))
        if not isinstance(self.values, dict):
            raise invalid("values", "a dict of numbers by name", repr(self.values))

    @property
    def is_problem(self) -> bool:
        """Whether it is a warning or an error."""
        return self.severity in ("warning", "error")


def percent(share: float) -> str:
    """Such as `"97.0 %"`."""
    return f"{100 * share:.1f} %"


class DiagnosisWarning(UserWarning):
    """A problem that `Distiller.fit` found in its first batch."""


class Diagnosis:
    """What `keras_kd.diagnose` found.

    `print`, a notebook and the prompt show it as a table.

    Args:
        findings: A list of `Finding`, in the order of the checks.
        temperature: The temperature at which the teacher is calibrated, or `None` where the data do
            not determine it. Not a temperature for distillation.

    Example:

    ```python
    import keras_kd as kd

    found = [kd.diagnosis.Finding("accuracy", "warning", "The student is better.", "Swap them.")]
    diagnosis = kd.diagnosis.Diagnosis(found, temperature=1.2)
    assert [finding.check for finding in diagnosis.problems] == ["accuracy"]
    ```
    """

    def __init__(self, findings: Any, temperature: float | None = None) -> None:
        is_list = isinstance(findings, (list, tuple))
        if not is_list or not all(isinstance(each, Finding) for each in findings):
            raise invalid("findings", "a list of keras_kd.diagnosis.Finding", repr(findings))
        if temperature is not None:
            validation.positive("temperature", temperature)
        self.findings = list(findings)
        self.temperature = temperature

    @property
    def problems(self) -> list[Finding]:
        """The findings that are warnings or errors."""
        return [finding for finding in self.findings if finding.is_problem]

    def __repr__(self):
        return str(self)

    def __str__(self) -> str:
        checks = max([len(finding.check) for finding in self.findings], default=0)
        return "\n".join(line for each in self.findings for line in _lines(each, checks))

    def _repr_html_(self) -> str:
        if not self.findings:
            return tables.inline(element("p", "No findings."))
        rows = [[each.check, _chip(each), _words(each)] for each in self.findings]
        return tables.inline(tables.table([["check", "severity", "finding"], *rows]))

    def to_json(self) -> str:
        """Everything as JSON text; numbers that are not finite become null."""
        findings = [_finite(dataclasses.asdict(finding)) for finding in self.findings]
        return json.dumps({"temperature": self.temperature, "findings": findings}, indent=2)


def _lines(finding, checks):
    head = f"{finding.severity:<8}{finding.check:<{checks + 2}}"
    text = [finding.message] + ([f"-> {finding.remedy}"] if finding.remedy else [])
    wrapped = [line for each in text for line in textwrap.wrap(each, WIDTH - len(head))]
    return [head + wrapped[0]] + [" " * len(head) + line for line in wrapped[1:]]


def _chip(finding):
    kind = {"warning": " kd-bad", "error": " kd-bad", "ok": " kd-good"}.get(finding.severity, "")
    return element("span", finding.severity, class_=f"kd-chip{kind}")


def _words(finding):
    remedy = [element("br"), f"-> {finding.remedy}"] if finding.remedy else []
    return [finding.message, *remedy]


def _finite(value):
    if isinstance(value, dict):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""`Diagnosis`: the findings of a run, as a table and as JSON."""

import dataclasses
import json
import math
import textwrap

from keras_kd import checks
from keras_kd.diagnosis.finding import Finding
from keras_kd.ops.arguments import invalid

WIDTH = 100


class Diagnosis:
    """What `keras_kd.diagnose` found.

    `print`, a notebook and the prompt show it as a table.

    Args:
        findings: A list of `Finding`, in the order of the checks.
        temperature: The temperature at which the teacher is calibrated, or `None` where the data
            cannot tell it. No distillation temperature.

    Example:

    ```python
    import keras_kd as kd

    found = [kd.diagnosis.Finding("accuracy", "warning", "The student is better.", "Swap them.")]
    diagnosis = kd.diagnosis.Diagnosis(found, temperature=1.2)
    assert [finding.check for finding in diagnosis.problems] == ["accuracy"]
    ```
    """

    def __init__(self, findings, temperature=None):
        is_list = isinstance(findings, (list, tuple))
        if not is_list or not all(isinstance(each, Finding) for each in findings):
            raise invalid("findings", "a list of keras_kd.diagnosis.Finding", repr(findings))
        if temperature is not None:
            checks.positive("temperature", temperature)
        self.findings = list(findings)
        self.temperature = temperature

    @property
    def problems(self):
        """The findings that are warnings or errors."""
        return [finding for finding in self.findings if finding.is_problem]

    def __repr__(self):
        return str(self)

    def __str__(self):
        checks = max([len(finding.check) for finding in self.findings], default=0)
        return "\n".join(line for each in self.findings for line in _lines(each, checks))

    def to_json(self):
        """Everything as JSON text; numbers that are not finite become null."""
        findings = [_finite(dataclasses.asdict(finding)) for finding in self.findings]
        return json.dumps({"temperature": self.temperature, "findings": findings}, indent=2)


def _lines(finding, checks):
    head = f"{finding.severity:<8}{finding.check:<{checks + 2}}"
    text = [finding.message] + ([f"-> {finding.remedy}"] if finding.remedy else [])
    wrapped = [line for each in text for line in textwrap.wrap(each, WIDTH - len(head))]
    return [head + wrapped[0]] + [" " * len(head) + line for line in wrapped[1:]]


def _finite(value):
    if isinstance(value, dict):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

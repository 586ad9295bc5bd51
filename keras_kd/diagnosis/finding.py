"""`Finding`: what one check found."""

import dataclasses
from typing import Any

from keras_kd import checks
from keras_kd.ops.arguments import invalid

SEVERITIES = ("ok", "note", "warning", "error")


@dataclasses.dataclass(frozen=True)
class Finding:
    """What one check found, in words and in numbers.

    Args:
        check: Name of the check, such as `"calibration"`.
        severity: `"ok"`; `"note"`: worth knowing; `"warning"`: distillation will probably suffer;
            `"error"`: it cannot work like this.
        message: What was found, with figures.
        remedy: What to do; empty where nothing is.
        values: The numbers, by name; JSON can hold them.

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
        checks.text("check", self.check)
        checks.one_of("severity", self.severity, SEVERITIES)
        checks.text("message", self.message)
        if not isinstance(self.remedy, str):
            raise invalid("remedy", "a text, empty where nothing is to be done", repr(self.remedy))
        if not isinstance(self.values, dict):
            raise invalid("values", "a dict of numbers by name", repr(self.values))

    @property
    def is_problem(self):
        """Whether it is a warning or an error."""
        return self.severity in ("warning", "error")


def percent(share):
    """Such as `"97.0 %"`."""
    return f"{100 * share:.1f} %"


class DiagnosisWarning(UserWarning):
    """What `Distiller.fit` found wrong in its first batch."""

"""Checks what `measure` is asked for, before any work."""

import dataclasses
from typing import Any

from keras_kd.measurement.runtimes.feeding import positive
from keras_kd.measurement.tasks import TASKS
from keras_kd.ops.arguments import invalid

__all__ = ["Arguments", "positive"]


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What `measure` is asked for; as its arguments of the same names."""

    task: str
    from_logits: Any
    teacher_from_logits: Any
    class_names: Any
    top_k: Any
    runs: int
    warmup: int

    def __post_init__(self):
        if self.task not in ("auto", *TASKS):
            raise invalid("task", f"'auto' or one of {TASKS}", repr(self.task))
        if not isinstance(self.from_logits, bool):
            raise invalid("from_logits", "True or False", repr(self.from_logits))
        if not isinstance(self.teacher_from_logits, (bool, type(None))):
            received = repr(self.teacher_from_logits)
            raise invalid("teacher_from_logits", "True, False or None", received)
        top_k = [self.top_k] if isinstance(self.top_k, int) else self.top_k
        if not isinstance(top_k, (list, tuple)):
            raise invalid("top_k", "whole numbers", repr(top_k))
        object.__setattr__(self, "top_k", tuple(positive("top_k", k) for k in top_k))
        positive("runs", self.runs)
        if self.warmup != 0:
            positive("warmup", self.warmup)
        names = self.class_names
        if isinstance(names, str) or (names is not None and len(set(names)) != len(names)):
            raise invalid(
                "class_names", "a list with a name of its own for each class", repr(names)
            )

    def names(self, classes):
        """A label for each class: its name or, without names, its index.

        Raises:
            ValueError: There is not one name for each class.
        """
        if self.class_names is None:
            return list(range(classes))
        if len(self.class_names) != classes:
            raise ValueError(
                f"`class_names` has {len(self.class_names)} names; the model has {classes} classes."
            )
        return list(self.class_names)

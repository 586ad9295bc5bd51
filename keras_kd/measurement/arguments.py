"""Checks what `measure` is asked for, before any work."""

import dataclasses
from typing import Any

import numpy as np

from keras_kd import checks
from keras_kd.measurement.runtimes.feeding import positive
from keras_kd.measurement.tasks import TASKS
from keras_kd.ops.arguments import invalid

__all__ = ["Arguments", "positive"]

# What `measure` takes where the user says nothing.
DEFAULT_TOP_K = (1, 5)


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
    latency: Any = True

    def __post_init__(self):
        if self.task not in ("auto", *TASKS):
            raise invalid("task", f"'auto' or one of {TASKS}", repr(self.task))
        checks.boolean("from_logits", self.from_logits)
        checks.boolean("latency", self.latency)
        if not isinstance(self.teacher_from_logits, (bool, type(None))):
            received = repr(self.teacher_from_logits)
            raise invalid("teacher_from_logits", "True, False or None", received)
        is_one = isinstance(self.top_k, (int, np.integer))
        top_k = [self.top_k] if is_one else self.top_k
        if not isinstance(top_k, (list, tuple, np.ndarray)):
            raise invalid("top_k", "whole numbers", repr(top_k))
        object.__setattr__(self, "top_k", tuple(positive("top_k", k) for k in top_k))
        positive("runs", self.runs)
        positive("warmup", self.warmup, least=0)
        if self.class_names is not None:
            what = "a list with a name of its own for each class"
            object.__setattr__(
                self, "class_names", checks.names("class_names", self.class_names, what)
            )

    def check(self, task, classes):
        """Raises for what a task, or a number of classes, leaves no meaning.

        Args:
            task: One of `tasks.TASKS`.
            classes: How many classes or labels there are.
        """
        if task in ("regression", "text"):
            if self.class_names is not None:
                raise ValueError(
                    f"`class_names` names classes, and the task is {task!r}, which has none. Leave "
                    "it out, or say which `task` it is."
                )
            return
        self.names(classes)
        if self.top_k == DEFAULT_TOP_K:  # of which those that there are
            return
        too_large = [k for k in self.top_k if k > classes]
        if too_large and task != "multilabel":
            raise invalid(
                "top_k",
                f"numbers up to that of the classes, {classes}",
                f"{self.top_k}. Leave out {', '.join(map(str, too_large))}",
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
                f"`class_names` has {len(self.class_names)} names; the model has {classes} "
                "classes. Pass one name for each, in the order of the outputs."
            )
        return list(self.class_names)

"""`Evaluation`: evaluations of a distiller, with or without the teacher.

An evaluation is the student's own: its `loss` is the hard loss, and the teacher does not run unless
that is asked for.
"""

import contextlib
import weakref
from typing import Any

import keras

from keras_kd._utils import batches
from keras_kd.training import labels
from keras_kd.training.hyperparameters import traced_value


class Evaluation:
    """Whether evaluations run the teacher, and what the running one knows of its data.

    Args:
        distiller: The `Distiller`.

    Attributes:
        assigned: What `evaluate_with_teacher` was assigned; `None`: nothing.
        is_running: Whether an evaluation runs.
        has_labels: Whether its data has labels; `None`: not known.
        rows_of_fit: Samples that `fit` had seen when its last validation began, or `None`.
    """

    def __init__(self, distiller: Any):
        self._distiller = distiller
        self.assigned: bool | None = None
        self.is_running = False
        self.has_labels: bool | None = None
        self.rows_of_fit: float | None = None
        self._other_function: Any = None
        self._seen: tuple = (lambda: None), None

    @property
    def with_teacher(self) -> bool:
        """Whether evaluations run the teacher; they do not where nothing was assigned."""
        return bool(self.assigned)

    def assign(self, value: bool | None) -> None:
        """Sets `with_teacher`."""
        if bool(value) != self.with_teacher:
            # Each way is traced once: the function of the other one is kept.
            distiller = self._distiller
            other, self._other_function = self._other_function, distiller.test_function
            distiller.test_function = other
        self.assigned = value

    def forget_functions(self) -> None:
        """What was traced is no longer true of the distiller."""
        self._distiller.test_function = self._other_function = None

    @property
    def runs_teacher(self) -> bool:
        """Whether the teacher runs: also where there is no other loss to report."""
        distiller = self._distiller
        is_without_loss = distiller.loss is None and not distiller.student_computes_loss
        return self.with_teacher or is_without_loss

    def require_labels(self, y: Any) -> None:
        """Raises if there are no labels, and no teacher to compare with."""
        self.has_labels = y is not None
        if y is None and not self.runs_teacher and self._distiller.needs_labels():
            raise ValueError(
                "The evaluation data has no labels, and without the teacher there is no other "
                "loss to report. Pass (inputs, labels), or compare with the teacher: "
                "evaluate(..., with_teacher=True), and for the validation data of fit set "
                "distiller.evaluate_with_teacher = True."
            )

    def require_validation_labels(self, data: Any) -> None:
        """Raises if the validation data of a `fit` has no labels that it needs."""
        if data is None or self.runs_teacher or not self._distiller.needs_labels():
            return
        x, y = (data, None) if not isinstance(data, (tuple, list)) else (*data[:2], None)[:2]
        if self._are_there_labels(x, y) is False:
            self.require_labels(None)

    def _are_there_labels(self, x, y):
        """`batches.has_labels`, which looks at the same object in each epoch once."""
        seen, answer = self._seen
        if seen() is not x or x is None:
            answer = batches.has_labels(x, y)
            if isinstance(x, keras.utils.PyDataset):
                self._seen = weakref.ref(x), answer
        return answer

    @contextlib.contextmanager
    def as_keras_validates(self):
        """While it is open evaluations run the teacher, if `keras.distillation`'s would.

        Its users monitor `val_total_loss`. Its Distiller takes no other teacher than a model.
        """
        distiller = self._distiller
        runs_alone = isinstance(distiller.teacher, keras.Model)
        if not (distiller.uses_keras_names and runs_alone and self.assigned is None):
            yield
            return
        self.assign(True)
        try:
            yield
        finally:
            self.assign(False)
            self.assigned = None

    @contextlib.contextmanager
    def running(self, arguments: dict, with_teacher: bool | None):
        """While it is open `evaluate` runs.

        Args:
            arguments: Of `keras.Model.evaluate`, by name.
            with_teacher: Whether the teacher runs; `None`: as assigned.
        """
        distiller, before, assigned = self._distiller, self.with_teacher, self.assigned
        self.rows_of_fit = traced_value(distiller.total_metric.count)
        self.is_running = True
        self.has_labels = self._are_there_labels(arguments.get("x"), arguments.get("y"))
        self.assign(before if with_teacher is None else with_teacher)
        if self.has_labels is not False and labels.has_unbuilt_metrics([distiller]):
            distiller.test_function = None
        try:
            yield
        finally:
            self.is_running = False
            self.assign(before)
            self.assigned = assigned

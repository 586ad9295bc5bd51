"""How each output of a model is judged: as classes, sides of a threshold, or numbers.

An output of three channels can be classes, a picture, a box or an embedding. Its task is decided
once, from the user's argument, the labels, the layer that makes it and its shape.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_kd import models
from keras_kd._utils import validation
from keras_kd.losses.activation import last_activation
from keras_kd.measurement import predictions, tasks

TASKS = tasks.NUMBERS
_OF_CLASSES = ("multiclass", "binary", "multilabel")
_SIGMOIDS = ("sigmoid", "hard_sigmoid")
# Activations that make numbers, not logits.
_OF_NUMBERS = ("relu", "relu6", "tanh", "softplus", "unitnormalization")
# Pictures and volumes have at least this rank.
_RANK_OF_PICTURES = 4


@dataclasses.dataclass(frozen=True)
class Bounds:
    """How far a file may be from its model; `None`: the default.

    Attributes:
        min_agreement: The least fraction of equal answers, of outputs of classes.
        max_accuracy_drop: How much of the accuracy may be lost, a fraction.
        max_error: The largest error, in standard deviations, of outputs of numbers.
    """

    min_agreement: float | None = None
    max_accuracy_drop: float | None = None
    max_error: float | None = None

    def __post_init__(self):
        for name in ("min_agreement", "max_accuracy_drop"):
            if getattr(self, name) is not None:
                validation.fraction(name, getattr(self, name))
        if self.max_error is not None:
            validation.non_negative("max_error", self.max_error)

    @property
    def are_of_classes(self) -> bool:
        """Whether one of them makes sense for classes only."""
        return self.min_agreement is not None or self.max_accuracy_drop is not None


@dataclasses.dataclass(frozen=True, eq=False)
class Output:
    """How one output of a model is judged.

    Attributes:
        name: Its name.
        task: One of `TASKS`.
        is_assumed: Whether the task is assumed from its shape and its layer alone.
        are_shares: Whether its numbers are probabilities, else logits.
        are_indices: Whether it is the class itself, an integer.
        labels: The samples' labels, see `keras_kd.measurement.predictions.labels_of`, or `None`.
    """

    name: str
    task: str
    is_assumed: bool = False
    are_shares: bool = False
    are_indices: bool = False
    labels: np.ndarray | None = None

    @property
    def has_classes(self) -> bool:
        return self.task in _OF_CLASSES

    @property
    def threshold(self) -> float:
        """The value between yes and no."""
        return 0.5 if self.are_shares else 0.0

    def answers(self, values: np.ndarray) -> np.ndarray:
        """The classes of values `[samples, ...]`: of each position, or of each label."""
        if self.are_indices:
            return values
        return np.argmax(values, -1) if self.task == "multiclass" else values > self.threshold


@dataclasses.dataclass(frozen=True, eq=False)
class Judgment:
    """How the outputs of a model are judged, and how far a file may be off.

    Attributes:
        outputs: An `Output` for each.
        bounds: The `Bounds`.
    """

    outputs: tuple[Output, ...]
    bounds: Bounds = Bounds()

    @property
    def tasks(self) -> dict[str, str]:
        """`{output: task}`."""
        return {output.name: output.task for output in self.outputs}

    @property
    def assumed(self) -> list[str]:
        """The names of the outputs whose task is assumed."""
        return [output.name for output in self.outputs if output.is_assumed]


def check_task(task: Any) -> None:
    """Raises `ValueError` unless `task` is one of `TASKS`, or a dict of these by output."""
    if task == {}:
        raise validation.invalid(
            "task", f"'auto', one of {TASKS} or a dict of these", "an empty dict"
        )
    for each in task.values() if isinstance(task, dict) else [task]:
        if each != "auto" and (not isinstance(each, str) or each not in TASKS):
            raise validation.invalid("task", f"'auto' or one of {TASKS}", repr(each))


def judge_outputs(
    model: Any,
    names: Sequence[str],
    expected: Sequence[np.ndarray],
    labels: Any = None,
    task: Any = "auto",
    bounds: Bounds | None = None,
    labels_must_fit: bool = True,
) -> Judgment:
    """Decides the task of each output of a model.

    It is the user's argument; else what the labels are, as in `keras_kd.measure`; else classes
    where the output ends in softmax or holds integers. What is left is assumed: several labels, or
    yes and no, of a sigmoid; numbers of pictures (four axes or more), of a single output and of
    relu and tanh; classes of a last axis above 1. Bounds count too: `min_agreement` means that
    there are classes, `max_error` that there are none.

    Args:
        model: The model.
        names: The names of its outputs.
        expected: Its outputs for the samples, arrays `[samples, ...]`.
        labels: An array, or a dict or list with one for each output; or `None`.
        task: One of `TASKS`, `"auto"`, or a dict of these by output.
        bounds: The `Bounds`.
        labels_must_fit: Whether labels that do not fit are an error; else they are left out.

    Raises:
        ValueError: Task, labels, bounds and outputs do not belong together.
    """
    names, bounds = list(names), bounds or Bounds()
    tasks = _tasks_by_output(task, names)
    given = _labels_by_output(labels, names, labels_must_fit)
    outputs = []
    for i, (name, values) in enumerate(zip(names, expected, strict=True)):
        kind = _Kind(name, values, last_activation(model, i))
        outputs.append(
            _output(kind, tasks.get(name, "auto"), given.get(name), bounds, labels_must_fit)
        )
    outputs = _classes_by_bounds(outputs, expected, bounds)
    _check_bounds(outputs, bounds)
    return Judgment(tuple(outputs), bounds)


@dataclasses.dataclass(frozen=True, eq=False)
class _Kind:
    """What an output looks like."""

    name: str
    values: np.ndarray
    activation: str | None

    @property
    def is_integer(self):
        return self.values.dtype.kind in "iub"

    @property
    def is_single(self):
        return self.values.ndim == 1 or self.values.shape[-1] == 1

    @property
    def are_shares(self):
        """Whether it holds probabilities: some logits are below 0 or above 1."""
        if self.activation in ("softmax", *_SIGMOIDS):
            return True
        low, high = self.values.min(), self.values.max()
        return bool(low >= 0 and high <= 1 and low < 0.5 < high)


def _tasks_by_output(task, names):
    """`{output: task}` of the user's argument."""
    check_task(task)
    if not isinstance(task, dict):
        return dict.fromkeys(names, task)
    unknown = sorted(set(map(str, task)) - set(names))
    if unknown:
        raise validation.invalid("task", f"a dict with keys of the outputs {names}", f"{unknown}")
    return task


def _labels_by_output(labels, names, labels_must_fit):
    """`{output: labels}`."""
    if labels is None:
        return {}
    if isinstance(labels, dict):
        flat = dict(zip(models.names_in(labels), keras.tree.flatten(labels), strict=True))
        if len(names) == len(flat) == 1:
            return {names[0]: next(iter(flat.values()))}
        unknown = sorted(set(flat) - set(names))
        if unknown and labels_must_fit:
            raise ValueError(
                f"The labels of `data` are for outputs {unknown}, which the model does not "
                f"have. It has {names}."
            )
        return flat
    several = labels if isinstance(labels, (list, tuple)) else [labels]
    if len(several) != len(names):
        if labels_must_fit:
            raise ValueError(
                f"The labels of `data` are {len(several)} arrays; the model has the outputs "
                f"{names}. Pass a dict of labels with these keys (some may be left out)."
            )
        return {}
    return dict(zip(names, several, strict=True))


def _output(kind, task, labels, bounds, labels_must_fit):
    """The `Output` of a kind."""
    is_assumed = False
    if task == "auto":
        task, is_assumed = _inferred_task(kind, labels, labels_must_fit)
        labels = None if is_assumed else labels
        if is_assumed and bounds.max_error is not None and not bounds.are_of_classes:
            task, is_assumed = "regression", False
    else:
        _check_fits(kind, task)
    return Output(
        kind.name,
        task,
        is_assumed,
        task != "regression" and not kind.is_integer and kind.are_shares,
        kind.is_integer,
        None if labels is None else _converted(kind, task, labels, labels_must_fit),
    )


def _inferred_task(kind, labels, labels_must_fit):
    """`(task, whether it is assumed)` of an output without an argument."""
    if kind.is_integer:
        return "multiclass", False
    if labels is not None:
        try:
            return predictions.infer_task(kind.values, np.asarray(labels)), False
        except ValueError as error:
            if labels_must_fit:
                raise ValueError(f"Output {kind.name!r}: {error}") from error
    if kind.activation == "softmax" and not kind.is_single:
        return "multiclass", False
    if kind.values.ndim >= _RANK_OF_PICTURES or kind.activation in _OF_NUMBERS:
        return "regression", True
    if kind.activation in _SIGMOIDS:
        return "binary" if kind.is_single else "multilabel", True
    return "regression" if kind.is_single else "multiclass", True


def _converted(kind, task, labels, labels_must_fit):
    """Labels in the form of a task."""
    labels = np.asarray(labels)
    try:
        if len(labels) != len(kind.values):
            raise ValueError(f"There are {len(labels)} labels for {len(kind.values)} samples.")
        if kind.is_integer:
            return _indices(kind, labels)
        values = kind.values
        if task == "multilabel":  # of any rank: each number is a label of its own
            labels, values = (x.reshape(len(x), -1) for x in (labels, values))
        return predictions.convert_labels(task, labels, values)
    except ValueError as error:
        if labels_must_fit:
            raise ValueError(f"Output {kind.name!r}, task {task!r}: {error}") from error
        return None


def _indices(kind, labels):
    if labels.size != kind.values.size or labels.dtype.kind not in "biuf":
        raise ValueError(
            f"Expected a class index for each of its numbers, shape {kind.values.shape}. Received: "
            f"shape {labels.shape}, {labels.dtype}."
        )
    return labels.reshape(-1).astype(np.int64)


def _check_fits(kind, task):
    fits = {
        "multiclass": kind.is_integer or (kind.values.ndim > 1 and not kind.is_single),
        "binary": kind.is_single and not kind.is_integer,
        "multilabel": not kind.is_integer,
        "regression": not kind.is_integer,
    }
    if not fits[task]:
        expected = "real numbers"
        if task == "multiclass":
            expected = "a last axis of classes, two at least"
        elif task == "binary":
            expected = "one real number for each answer"
        raise ValueError(
            f"`task` is {task!r}, but output {kind.name!r} has the shape "
            f"{(None, *kind.values.shape[1:])} and type {kind.values.dtype}. Expected {expected}. "
            "Choose another `task`, of several outputs by a dict {output: task}."
        )


def _classes_by_bounds(outputs, expected, bounds):
    """Outputs of assumed numbers as classes, where bounds are of classes and no output is."""
    if not bounds.are_of_classes:
        return outputs
    if any(output.has_classes for output in outputs):
        return [
            dataclasses.replace(each, is_assumed=False) if each.has_classes else each
            for each in outputs
        ]

    def as_classes(output, values):
        if not output.is_assumed:
            return output
        is_single = values.ndim == 1 or values.shape[-1] == 1
        kind = _Kind(output.name, values, None)
        return Output(
            output.name, "binary" if is_single else "multiclass", are_shares=kind.are_shares
        )

    return [as_classes(*pair) for pair in zip(outputs, expected, strict=True)]


def _check_bounds(outputs, bounds):
    listed = {output.name: output.task for output in outputs}
    if bounds.min_agreement is not None and not any(x.has_classes for x in outputs):
        raise ValueError(
            "`min_agreement` is the fraction of equal classes, and no output has classes: "
            f"{listed}. Pass max_error, the error in standard deviations of the output."
        )
    if bounds.max_error is not None and all(x.has_classes for x in outputs):
        raise ValueError(
            f"`max_error` is for outputs of numbers, and none is: {listed}. Pass min_agreement, "
            "the fraction of equal classes, or task='regression'."
        )
    if bounds.max_accuracy_drop is None:
        return
    if not any(x.has_classes for x in outputs):
        raise ValueError(
            f"`max_accuracy_drop` is for outputs of classes, and none is: {listed}. Pass max_error."
        )
    if not any(x.has_classes and x.labels is not None for x in outputs):
        raise ValueError(
            "`max_accuracy_drop` needs labels to count on: pass data=(inputs, labels), the classes "
            f"of {[x.name for x in outputs if x.has_classes]}."
        )

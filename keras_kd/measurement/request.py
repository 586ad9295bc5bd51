"""`Request`: what `measure` was called with, checked and read once, before anything is run.

`Options` checks each plain argument by itself. `Request.bind` opens the model and the teacher,
reads the data's shapes and labels, and raises for what does not fit together.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_kd._utils import progress, validation
from keras_kd._utils.validation import invalid
from keras_kd.measurement import (
    embeddings,
    predictions,
    reading,
    tasks,
    teacher_agreement,
    texts,
    tokens,
)
from keras_kd.measurement.quality import sklearn
from keras_kd.measurement.reading import EvaluationData
from keras_kd.measurement.subjects import Subject, subject_of
from keras_kd.measurement.teacher_agreement import ReferenceTeacher
from keras_kd.runtimes.tensors import positive

# Of arrays, where `batch_size` is not given.
BATCH_SIZE = 256
DEFAULT_TOP_K = (1, 5)


@dataclasses.dataclass(frozen=True)
class Options:
    """The arguments of `measure` beside model, data and teacher, under the same names.

    Raises:
        ImportError: What the task needs is missing.
        ValueError: One of them is wrong, whatever the model.
    """

    task: str = "auto"
    from_logits: bool = True
    teacher_from_logits: Any = None
    class_names: Any = None
    top_k: Any = DEFAULT_TOP_K
    batch_size: Any = None
    latency: bool = True
    threads: int = 1
    runs: int = 100
    warmup: int = 10
    output: str | int | None = None
    decode: Callable | None = None
    generate: Callable | None = None
    name: str | None = None
    verbose: Any = 1

    def __post_init__(self):
        if self.task not in ("auto", *tasks.ALL):
            raise invalid("task", f"'auto' or one of {tasks.ALL}", repr(self.task))
        if self.generate is not None and self.task not in ("auto", *tasks.TEXTS):
            raise ValueError(
                f"`generate` writes texts, and the task is {self.task!r}. Leave it out, or set "
                f"`task` to one of {tasks.TEXTS}."
            )
        validation.boolean("from_logits", self.from_logits)
        validation.boolean("latency", self.latency)
        if not isinstance(self.teacher_from_logits, (bool, type(None))):
            received = repr(self.teacher_from_logits)
            raise invalid("teacher_from_logits", "True, False or None", received)
        self._set("top_k", _whole_numbers(self.top_k))
        positive("runs", self.runs)
        positive("warmup", self.warmup, least=0)
        if self.class_names is not None:
            what = "a list with a name of its own for each class"
            names = validation.names("class_names", self.class_names, what)
            self._set("class_names", tuple(names))
        self._set("verbose", progress.check_verbose(self.verbose))
        _require(self.task)  # what is missing is raised before the model runs
        default = tokens.BATCH_SIZE if self.task == tasks.LANGUAGE_MODEL else BATCH_SIZE
        size = default if self.batch_size is None else self.batch_size
        self._set("batch_size", positive("batch_size", size))

    def _set(self, name, value):
        object.__setattr__(self, name, value)

    @property
    def teacher_gives_logits(self) -> bool:
        """Whether the teacher returns logits."""
        return self.from_logits if self.teacher_from_logits is None else self.teacher_from_logits

    def check(self, task: str, classes: int) -> None:
        """Raises for options that have no meaning for a task, or for a number of classes."""
        if task not in tasks.NUMBERS or task == "regression":
            if self.class_names is not None:
                raise ValueError(
                    f"`class_names` names classes, and the task is {task!r}, which has none. Leave "
                    "it out, or set `task`."
                )
            if task != "retrieval" and self.top_k != DEFAULT_TOP_K:
                raise ValueError(
                    f"`top_k` is for classes and retrieval, and the task is {task!r}. Leave it out."
                )
            return
        self.names(classes)
        if self.top_k == DEFAULT_TOP_K:  # those that exceed the number of classes are left out
            return
        too_large = [k for k in self.top_k if k > classes]
        if too_large and task != "multilabel":
            raise invalid(
                "top_k",
                f"numbers up to that of the classes, {classes}",
                f"{self.top_k}. Leave out {', '.join(map(str, too_large))}",
            )

    def names(self, classes: int) -> list[Any]:
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


def _require(task):
    if task in tasks.TEXTS:
        texts.require(task)
    elif task == "similarity":
        validation.needs("scipy.stats", "Rank correlations", "language")
    elif task in ("auto", *tasks.NUMBERS):
        sklearn()


def _whole_numbers(top_k):
    listed = [top_k] if isinstance(top_k, (int, np.integer)) else top_k
    if not isinstance(listed, (list, tuple, np.ndarray)):
        raise invalid("top_k", "whole numbers", repr(listed))
    return tuple(positive("top_k", k) for k in listed)


@dataclasses.dataclass(frozen=True)
class Request:
    """One call of `measure`: the model, the data, the teacher, the options.

    Attributes:
        subject: The model, opened.
        data: The data, checked.
        teacher: The teacher to compare with, or `None`.
        options: The other arguments.
        task: The task, or `None` where only the outputs show it.
        output_shape: The shape of the measured output without the batch size, or `None` where only
            a run shows it.
    """

    subject: Subject
    data: EvaluationData
    teacher: ReferenceTeacher | None
    options: Options
    task: str | None
    output_shape: tuple | None

    @classmethod
    def bind(
        cls, model_or_file: Any, data: EvaluationData, teacher: Any, options: Options
    ) -> "Request":
        """Opens the model and the teacher, and checks that all fits together.

        Args:
            model_or_file: The argument of `measure`.
            data: The data, or what `measure` takes as such.
            teacher: The argument of `measure`.
            options: The other arguments.

        Raises:
            ValueError: Shapes, or labels in arrays, do not fit. Only those of them that no run of
                the model is needed for.
        """
        subject = subject_of(
            model_or_file, options.threads, options.name, options.decode, options.generate
        )
        data = data if isinstance(data, EvaluationData) else EvaluationData.read(data)
        reference = teacher_agreement.teacher_of(teacher)
        for each in (subject, reference):
            if data.samples is not None:
                reading.require_samples(each, data.samples)
        task, shape = _check_shapes(subject, data, reference, options)
        return cls(subject, data, reference, options, task, shape)


def _check_shapes(subject, data, teacher, options):
    """`(task, output_shape)` of a `Request`; raises for what does not fit."""
    named = options.task if options.task in tasks.NAMED else None
    if named is not None:
        options.check(named, 0)
    _check_pairing(named, data)
    outputs = None if data.inputs is None else subject.output_shapes(data.inputs)
    if outputs is None:
        return named, None
    key, shape = reading.choose_output(outputs, options.output, subject.name)
    shape = shape[1:]
    of_teacher = None if teacher is None else teacher.output_shape(data.inputs, key)
    if named is not None:
        _check_named(named, subject.name, shape, data, key)
        if of_teacher and named == tasks.LANGUAGE_MODEL:
            teacher_agreement.check_width(of_teacher[-1], named, shape)
        return named, shape
    if isinstance(data.source, tf.data.Dataset):
        task = _task_of_specs(options.task, shape, data, key)
    else:
        task = _task_of_arrays(options.task, subject.name, shape, data, key)
    if task is None or None in shape:
        return None, shape
    classes = 2 if task == "binary" else int(np.prod(shape)) if task == "multilabel" else shape[-1]
    options.check(task, classes)
    if of_teacher and task in tasks.NUMBERS:
        teacher_agreement.check_width(of_teacher[-1], task, shape)
    return task, shape


def _check_pairing(task, data):
    """Raises where labels in arrays describe no search, or no pairs."""
    if isinstance(data.source, tf.data.Dataset) or isinstance(data.source[1], (dict, list)):
        return
    labels, weights = (*data.source[1:], None)[:2]
    if task == "retrieval":
        embeddings.read_search(labels, weights)
    if task == "similarity" and np.ndim(labels) == 2 and np.shape(labels)[1] == 2:
        embeddings.read_pairs(labels, weights)


def _check_named(task, name, shape, data, key):
    """Raises where outputs, and labels in arrays, are not those of a task that the user named."""
    if task in tasks.EMBEDDINGS and len(shape) != 1 and not (task == "similarity" and not shape):
        raise ValueError(
            f"The task is {task!r}, but {name} gives outputs of shape {('samples', *shape)}. "
            "Expected embeddings [samples, width]: pool positions inside of the model, or choose "
            "one of several outputs with `output`."
        )
    if task != tasks.LANGUAGE_MODEL:
        return
    tokens.check_shape(name, (None, *shape))
    if None in shape or isinstance(data.source, tf.data.Dataset):
        return
    labels = reading.of_output(data.source[1], key)
    weights = reading.of_output(data.source[2], key) if len(data.source) > 2 else None
    tokens.read_labels((data.samples, *shape), labels, weights)


def _task_of_specs(task, shape, data, key):
    """The task, or `None` where only the labels themselves show it."""
    if task != "auto":
        return task
    labels = reading.of_output(data.source.element_spec[1], key)
    rank = labels.shape.rank
    is_index = labels.dtype.is_integer and rank is not None and len(shape) > 0
    if is_index and (shape[-1] or 0) > 1 and (rank == len(shape) or labels.shape[-1] == 1):
        return "multiclass"
    return None


def _task_of_arrays(task, name, shape, data, key):
    """The task, after a look at labels and weights; `None` where only outputs show it."""
    if task == "text" or None in shape:
        return None
    outputs = np.broadcast_to(np.float64(0), (data.samples, *shape))  # takes no memory
    labels = np.asarray(reading.of_output(data.source[1], key))
    weights = reading.of_output(data.source[2], key) if len(data.source) > 2 else None
    task = predictions.infer_task(outputs, labels) if task == "auto" else task
    predictions.check_labels(task, name, outputs, labels, weights)
    return task

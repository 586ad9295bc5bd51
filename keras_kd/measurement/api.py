"""`measure`: quality, size and speed of a model, a file or a function."""

import contextlib
import dataclasses
import gc
import time
from typing import Any

import numpy as np
import tensorflow as tf

from keras_kd._utils import progress, validation
from keras_kd._utils.validation import invalid
from keras_kd.measurement import predictions, quality, reading, teacher_agreement
from keras_kd.measurement.predictions import TASKS
from keras_kd.measurement.quality import sklearn
from keras_kd.measurement.result import Measurement
from keras_kd.measurement.subjects import subject_of
from keras_kd.models import symbolic_pass
from keras_kd.runtimes import tensors
from keras_kd.runtimes.tensors import positive
from keras_kd.teachers import protocol

# `measure`: how good, how large and how fast is this model, or this file?


# Of arrays, where `batch_size` is not given.
BATCH_SIZE = 256


def measure(
    model_or_file,
    data,
    *,
    task="auto",
    from_logits=True,
    teacher=None,
    teacher_from_logits=None,
    class_names=None,
    top_k=(1, 5),
    batch_size=None,
    latency=True,
    threads=1,
    runs=100,
    warmup=10,
    output=None,
    decode=None,
    name=None,
    verbose=1,
):
    """Measures quality, size and speed of a Keras model, a `.tflite` or an `.onnx` file.

    Needs `pip install 'keras-kd[measure]'`. Nothing of the model changes. What cannot be measured
    is left out, and `notes` says why.

    | task | labels | quality |
    |---|---|---|
    | multiclass | class indices `[rows, ...]`, or probabilities of which the largest counts | \
accuracy, top_5_accuracy, f1_macro, f1_micro, roc_auc, log_loss, ece |
    | binary | 0 or 1 for the only output | the same, without top k |
    | multilabel | 0 and 1 `[rows, labels]` | the same; accuracy: all labels of a row are right |
    | regression | numbers | mae, rmse, r2 |
    | text | reference strings `[rows]` or `[rows, references]` | bleu, rouge_1, rouge_2, rouge_l |

    They are scikit-learn's, sacrebleu's and rouge-score's, with the sample weights of the data;
    rows of weight 0 and those with a negative class do not count. `f1_macro` is the mean over the
    classes that have rows (scikit-learn's `labels`), for every model the same. `roc_auc` sets one
    class against the rest and takes the mean over classes. `ece` is the expected calibration error,
    `sum_b w_b / w |accuracy_b - confidence_b|` over 15 bins of the confidence. Of a teacher:
    agreement (share of rows of the same class), `KL(teacher || model)` in nats at temperature 1,
    and the mean absolute difference of the probabilities.

    `macs` counts the multiply-accumulates of matrix products and convolutions for one row, in
    recurrent layers times the steps; element by element operations, normalization and pooling have
    none. `peak_activation_bytes` of a `.tflite` file is the largest sum of tensors that are needed
    at the same time; what a runtime reserves is more.

    Args:
        model_or_file: A `keras.Model`; the path of a `.tflite`, `.onnx` or `.keras` file, or a
            `keras_kd.measurement.runtimes` object; of text also a function from a batch of inputs
            to strings, or a list of strings for the rows.
        data: A `tf.data.Dataset` of batches `(inputs, labels)` or `(inputs, labels, weights)`, or
            such a tuple of arrays, in a fixed order. Inputs of a file go by name (a dict) where
            their shapes do not tell them apart.
        task: One of the tasks above; `"auto"` tells it from outputs and labels.
        from_logits: Whether a classifier returns logits; `False`: probabilities.
        teacher: To compare with: a Keras model, whatever `Distiller` takes, or an array of its
            outputs for the rows.
        teacher_from_logits: Whether the teacher returns logits; default: as `from_logits`.
        class_names: A name for each class, for `per_class`.
        top_k: For which k the accuracy of the k likeliest classes is measured. That of 1 is the
            accuracy, that of all classes is 1 and left out, more than there are is refused; of the
            default 5 is left out where there are fewer.
        batch_size: Rows at once, of data in arrays; default 256.
        latency: Whether one row is timed: median and 95th percentile.
        threads: Of the runtime of a file. TensorFlow has its own.
        runs: How many runs are timed.
        warmup: Runs before.
        output: Name or index of the output that is measured, where there are several.
        decode: Of text: a function from the outputs of a batch to a list of strings.
        name: A name of the measurement; default: that of the model or the file.
        verbose: 0: silent; 1 or `"auto"`: a progress bar for the pass over the data, and for timed
            runs that last (in logs a line now and then); 2: a line for each. Figures do not
            depend on it.

    Returns:
        A `keras_kd.measurement.Measurement`.

    Raises:
        ImportError: A package is missing; it names the extra.
        ValueError: An argument is wrong; data, labels and outputs do not fit; outputs are NaN, or
            probabilities where logits were promised.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_kd as kd

    x, y = np.random.normal(size=(64, 8)).astype("float32"), np.arange(64) % 3
    teacher = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    student = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    found = kd.measure(student, (x, y), teacher=teacher, class_names=["a", "b", "c"], runs=5)
    print(found)
    print(found.quality["accuracy"], found.teacher["agreement"], found.latency["median_us"])
    ```

    Reference: Guo et al., "On Calibration of Modern Neural Networks",
    https://arxiv.org/abs/1706.04599
    """
    asked = Arguments(
        task, from_logits, teacher_from_logits, class_names, top_k, runs, warmup, latency
    )
    verbose = progress.checked(verbose)
    _check_library(task)
    size = tensors.positive("batch_size", BATCH_SIZE if batch_size is None else batch_size)
    subject = subject_of(model_or_file, threads, name, decode)
    data, source = reading.prepared(data), teacher_agreement.teacher_of(teacher)
    check(subject, data, output, asked, source)
    answers = reading.read(subject, data, output, size, source, verbose)
    task = asked.task
    if task == "auto":
        task = predictions.infer(np.asarray(answers.outputs), np.asarray(answers.labels))
    asked.check(task, 2 if task == "binary" else np.shape(answers.outputs)[-1])
    if task == "text":
        figures, of_teacher = _of_text(subject, answers), None
    else:
        said = from_logits if teacher_from_logits is None else teacher_from_logits
        figures, of_teacher = _of_rows(asked, task, subject, answers, said)
    timing = asked if latency else None
    return _measurement(subject, task, figures, of_teacher, answers, timing, verbose)


def _check_library(task):
    if task != "text":
        sklearn()  # missing, it is told before the model runs


def _of_rows(asked, task, subject, answers, teacher_from_logits):
    made = predictions.of(
        task,
        subject.name,
        np.asarray(answers.outputs),
        answers.labels,
        answers.weights,
        asked.from_logits,
    )
    figures = _figures(asked, made)
    figures.counted = made.counted.reshape(len(answers.outputs), -1)
    if not (made.weights == made.weights[0]).all():
        figures.weights = made.weights
    left = len(made.counted) - len(made.labels)
    if left:
        figures.notes.append(f"{left} rows without a label or of weight 0 do not count.")
    of_teacher = None
    if answers.teacher is not None:
        of_teacher = teacher_agreement.measure(made, answers.teacher, teacher_from_logits)
    return figures, of_teacher


def _figures(asked, made):
    if made.task == "regression":
        return quality.measure_regression(made)
    names = asked.names(made.classes)
    if made.task == "multilabel":
        return quality.measure_several_labels(made, names)
    return quality.measure_classes(made, names, asked.top_k)


def _of_text(subject, answers):
    figures = quality.measure_text(*quality.checked(subject.name, answers))
    if answers.teacher is not None:
        figures.notes.append("teacher: left out; generated text is not compared with a teacher's.")
    return figures


def _measurement(subject, task, figures, of_teacher, answers, timing, verbose):
    size, notes = subject.size(answers.inputs)
    notes = figures.notes + notes
    found = None
    if timing is not None:
        call, facts, more = subject.timed(answers.inputs)
        notes += more
        if call is not None:
            runs = timing.warmup + timing.runs
            bar = progress.Bar(f"measure: latency of {subject.name}", runs, "run", verbose)
            found = {**facts, **measure_latency(call, timing.warmup, timing.runs, bar)}
    return Measurement(
        name=subject.name,
        kind=subject.kind,
        task=task,
        samples=len(figures.labels),
        quality=figures.quality,
        per_class=figures.per_class,
        reliability=figures.reliability,
        confusion=figures.confusion,
        teacher=of_teacher,
        size=size,
        latency=found,
        notes=notes,
        predictions=figures.predictions,
        labels=figures.labels,
        weights=figures.weights,
        counted=figures.counted,
    )


# Checks what `measure` is asked for, before any work.


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
        validation.boolean("from_logits", self.from_logits)
        validation.boolean("latency", self.latency)
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
                self, "class_names", validation.names("class_names", self.class_names, what)
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


# What of model, data, teacher and arguments does not fit, told before the model runs.


def check(subject, data, output, asked, teacher):
    """Raises for what the shapes, and labels in arrays, tell without an output of the model.

    Args:
        subject: A `Subject`.
        data: As of `reading.prepared`.
        output: As of `reading.read`.
        asked: The `Arguments`.
        teacher: As of `teaching.teacher_of`, or `None`.

    Returns:
        `(task, shape)`: the task, and the shape of the output that is measured, without the rows;
        `None` for what only running the model tells.
    """
    inputs = symbolic_pass.specs_of(data)
    inputs = None if inputs is None else protocol.split(inputs)[0]
    count = None if isinstance(data, tf.data.Dataset) else len(np.asarray(_first(data[1])))
    for each in (subject, teacher):
        if count is not None:
            reading.check_rows(each, count)
    outputs = None if inputs is None else subject.promised(inputs)
    if outputs is None:
        return None, None
    key, shape = reading.chosen(outputs, output, subject.name)
    shape = shape[1:]
    of_teacher = None if teacher is None else teacher.promised(inputs, key)
    if isinstance(data, tf.data.Dataset):
        task = _task_of_specs(asked.task, shape, reading.of_output(data.element_spec[1], key))
    else:
        task = _task_of_arrays(asked.task, subject.name, (count, *shape), data, key)
    if task is None or None in shape:
        return None, shape
    classes = 2 if task == "binary" else int(np.prod(shape)) if task == "multilabel" else shape[-1]
    asked.check(task, classes)
    if of_teacher and task != "text":
        teacher_agreement.check_width(of_teacher[-1], task, shape)
    return task, shape


def _first(labels):
    while isinstance(labels, (dict, list, tuple)):
        labels = next(iter(labels.values() if isinstance(labels, dict) else labels))
    return labels


def _task_of_specs(task, shape, labels):
    """The task, or `None` where the labels themselves must tell."""
    if task != "auto":
        return task
    rank = labels.shape.rank
    is_index = labels.dtype.is_integer and rank is not None and len(shape) > 0
    if is_index and (shape[-1] or 0) > 1 and (rank == len(shape) or labels.shape[-1] == 1):
        return "multiclass"
    return None


def _task_of_arrays(task, name, shape, data, key):
    """The task, after the labels and weights were looked at; `None` where outputs must tell."""
    if task == "text" or None in shape:
        return None
    outputs = np.broadcast_to(np.float64(0), shape)  # takes no memory
    labels = np.asarray(reading.of_output(data[1], key))
    weights = reading.of_output(data[2], key) if len(data) > 2 else None
    task = predictions.infer(outputs, labels) if task == "auto" else task
    predictions.check_labels(task, name, outputs, labels, weights)
    return task


# How long one run takes on this CPU.


# Between the runs of a fast model nothing is printed: only what lasts longer is told of.
_SECONDS_BETWEEN_UPDATES = 0.5


def measure_latency(call, warmup, runs, bar=None):
    """Times a function, one run after the other.

    Args:
        call: What is timed; it returns when its work is done.
        warmup: Runs before, which are not counted.
        runs: Runs that are.
        bar: A `progress.Bar` of all runs, or `None`.

    Returns:
        `{"warmup", "runs", "median_us", "p95_us"}`, microseconds.
    """
    told = _Rarely(bar)
    for _ in range(warmup):
        told.run(_seconds(call))
    seconds = []
    with _without_collector():
        for _ in range(runs):
            seconds.append(_seconds(call))
            told.run(seconds[-1])
    told.end()
    median, slow = np.percentile(seconds, [50, 95]) * 1e6
    return {"warmup": warmup, "runs": runs, "median_us": float(median), "p95_us": float(slow)}


class _Rarely:
    """Updates a bar so seldom that it is no part of what is timed.

    Args:
        bar: A `progress.Bar` or `None`.
    """

    def __init__(self, bar):
        self._bar, self._done, self._since, self._is_seen = bar, 0, 0.0, False

    def run(self, seconds):
        """One run more is done, which took so long."""
        self._done += 1
        if self._done > 1:  # the first one may trace and allocate
            self._since += seconds
        if self._since >= _SECONDS_BETWEEN_UPDATES and self._bar is not None:
            self._bar.update(self._done)
            self._since, self._is_seen = 0.0, True

    def end(self):
        if self._is_seen:
            self._bar.update(self._done)
            self._bar.end()


def _seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@contextlib.contextmanager
def _without_collector():
    # A collection takes longer than a run of a small model, whose it is not.
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()

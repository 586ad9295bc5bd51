"""What of model, data, teacher and arguments does not fit, told before the model runs."""

import numpy as np
import tensorflow as tf

from keras_kd import symbolic_pass
from keras_kd.measurement import comparison, reading, rows, selection, tasks
from keras_kd.teachers import carried


def check(subject, data, output, asked, teacher):
    """Raises for what the shapes, and labels in arrays, tell without an output of the model.

    Args:
        subject: A `Subject`.
        data: As of `reading.prepared`.
        output: As of `reading.read`.
        asked: `arguments.Arguments`.
        teacher: As of `teaching.teacher_of`, or `None`.

    Returns:
        `(task, shape)`: the task, and the shape of the output that is measured, without the rows;
        `None` for what only running the model tells.
    """
    inputs = symbolic_pass.specs_of(data)
    inputs = None if inputs is None else carried.split(inputs)[0]
    count = None if isinstance(data, tf.data.Dataset) else len(np.asarray(_first(data[1])))
    for each in (subject, teacher):
        if count is not None:
            reading.check_rows(each, count)
    outputs = None if inputs is None else subject.promised(inputs)
    if outputs is None:
        return None, None
    key, shape = selection.chosen(outputs, output, subject.name)
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
        comparison.check_width(of_teacher[-1], task, shape)
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
    task = tasks.infer(outputs, labels) if task == "auto" else task
    rows.check_labels(task, name, outputs, labels, weights)
    return task

"""Runs a model, and its teacher, over the data."""

import dataclasses
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_kd._utils import batches, progress
from keras_kd.teachers import protocol


@dataclasses.dataclass
class Answers:
    """What was said of the data.

    Attributes:
        outputs: Of the model, an array `[rows, ...]` or a list of strings.
        labels: Array `[rows, ...]`.
        weights: Likewise, or `None`.
        teacher: The teacher's outputs, or `None`.
        inputs: Inputs of the first row, in their structure, as a batch of one.
    """

    outputs: Any
    labels: Any
    weights: Any
    teacher: Any
    inputs: Any


def prepared(data):
    """The data with labels as arrays, checked.

    Raises:
        ValueError: It is no finite dataset of batches, and no tuple of arrays of one length.
    """
    if isinstance(data, tuple) and len(data) in (2, 3):
        x, *others = data
        is_texts = isinstance(x, list) and x and all(isinstance(each, str) for each in x)
        x = np.asarray(x) if is_texts else x
        data = (x, *(None if each is None else _labels(each) for each in others))
    batches.check("data", data)
    if isinstance(data, tuple) and data[1] is None:
        raise ValueError("`data` has no labels: (inputs, None). Pass (inputs, labels).")
    if isinstance(data, tf.data.Dataset) and data.element_spec[1] is None:
        raise ValueError("`data` has no labels: (inputs, None). Pass (inputs, labels).")
    return data


def _labels(labels):
    if isinstance(labels, dict):
        return {name: np.asarray(each) for name, each in labels.items()}
    is_several = isinstance(labels, (list, tuple)) and all(np.ndim(x) > 0 for x in labels)
    if is_several and not all(isinstance(x, (list, tuple)) for x in labels):
        return [np.asarray(each) for each in labels]  # one array for each output
    return np.asarray(labels)


def read(subject, data, output, batch_size, teacher, verbose=0):
    """`Answers` of a model over data.

    Args:
        subject: A `Subject`.
        data: As of `prepared`.
        output: Name or index of the output that is measured, or `None` for the only one.
        batch_size: Rows at once of arrays.
        teacher: As of `teaching.teacher_of`, or `None`.
        verbose: 0, 1 or 2.

    Raises:
        ValueError: An output must be chosen, or what was given is not of these rows.
    """
    parts: dict = {"outputs": [], "labels": [], "weights": [], "teacher": []}
    first = None
    label, total = f"measure: {subject.name}", batches.count(data, batch_size)
    parted = _batches(data, batch_size)
    for x, y, weights in progress.over(parted, label, total, verbose=verbose):
        inputs, said = protocol.split(x)
        first = _first_row(inputs) if first is None else first
        key, values = chosen(subject.predict(inputs), output, subject.name)
        parts["outputs"].append(values)
        parts["labels"].append(of_output(y, key))
        parts["weights"].append(of_output(weights, key))
        if teacher is not None:
            parts["teacher"].append(teacher.predict_batch(inputs, said, key))
    if first is None:
        raise ValueError("`data` is empty.")
    found = Answers(*(_together(name, each) for name, each in parts.items()), first)
    for each in (subject, teacher):
        check_rows(each, len(found.labels))
    return found


def check_rows(given, rows):
    """Raises if answers that were given row by row are of other rows than the data's."""
    expected = getattr(given, "rows_given", None)
    if expected not in (None, rows):
        raise ValueError(f"{given.name} has {expected} rows where the data has {rows}.")


def _batches(data, size):
    if isinstance(data, tf.data.Dataset):
        for batch in data:
            x, y, weights = keras.utils.unpack_x_y_sample_weight(batch)
            yield keras.tree.map_structure(np.asarray, x), _arrays(y), _arrays(weights)
        return
    x, y, weights = keras.utils.unpack_x_y_sample_weight(_arrays(data))
    for start in range(0, len(keras.tree.flatten(x)[0]), size):
        part = slice(start, start + size)
        yield tuple(
            keras.tree.map_structure(lambda a, part=part: None if a is None else a[part], each)
            for each in (x, y, weights)
        )


def _arrays(value):
    return keras.tree.map_structure(lambda x: None if x is None else np.asarray(x), value)


def _first_row(inputs):
    return keras.tree.map_structure(lambda x: x[:1], inputs)


def of_output(values, key):
    """The labels or weights of an output, where each has its own."""
    index, name = key
    if isinstance(values, dict):
        if name not in values:
            raise ValueError(
                f"The data has labels or weights for {sorted(values)}, none for output {name!r}."
            )
        return values[name]
    return values[index] if isinstance(values, (list, tuple)) else values


def _together(name, parts):
    if not parts or parts[0] is None:
        return None
    if isinstance(parts[0], (list, tuple)):
        return [x for part in parts for x in part]
    return np.concatenate(_of_one_length(name, [np.asarray(part) for part in parts]))


def _of_one_length(name, parts):
    """Batches that were padded to lengths of their own, padded to the longest.

    Args:
        name: The `Answers`' field: labels are -1, which is none, where a batch has no position.
        parts: Arrays `[rows, positions, ...]`, or `[rows]`.
    """
    lengths = {part.shape[1] for part in parts if part.ndim > 1}
    if len(lengths) < 2 or len({part.ndim for part in parts}) > 1:
        return parts
    if name == "labels" and parts[0].dtype.kind not in "iu":
        raise ValueError(
            f"`data` has batches of different lengths {sorted(lengths)} and labels that are no "
            "class indices, of which none can be left out. Pad them to one length."
        )
    longest = max(lengths)
    return [
        np.pad(
            part,
            [(0, 0), (0, longest - part.shape[1]), *[(0, 0)] * (part.ndim - 2)],
            constant_values=-1 if name == "labels" else 0,
        )
        for part in parts
    ]


# One of several outputs.


def chosen(outputs, output, who):
    """`((index, name), array)` of one of several outputs.

    Raises:
        ValueError: There are several and none is chosen, or not that one.
    """
    names = list(outputs)
    if output is None and len(names) == 1:
        output = names[0]
    if isinstance(output, int) and not isinstance(output, bool) and 0 <= output < len(names):
        output = names[output]
    if output not in names:
        raise ValueError(
            f"{who} has the outputs {names}. Choose one of them with `output`, by its name or its "
            f"index. Received: output={output!r}"
        )
    return (names.index(output), output), outputs[output]

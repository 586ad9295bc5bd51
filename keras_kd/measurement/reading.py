"""Reads the data: checks it, and runs a model and its teacher over it in one pass."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_kd._utils import batches, progress
from keras_kd.measurement.subjects import Subject
from keras_kd.models import symbolic_pass
from keras_kd.teachers import protocol


@dataclasses.dataclass(frozen=True)
class EvaluationData:
    """The data that models are measured on, checked.

    Attributes:
        source: A batched `tf.data.Dataset`, or a tuple of arrays with labels as arrays.
        inputs: `keras.KerasTensor`s like the inputs of a batch; `None` where shapes are not known.
        samples: How many samples arrays have; `None` of a dataset.
    """

    source: Any
    inputs: Any
    samples: int | None

    @classmethod
    def read(cls, data: Any) -> "EvaluationData":
        """Checks what `measure` takes as data, and reads its shapes.

        Raises:
            ValueError: Neither a finite dataset of batches nor a tuple of arrays of one length.
        """
        source = _with_label_arrays(data)
        batches.check_data("data", source)
        is_dataset = isinstance(source, tf.data.Dataset)
        if (source.element_spec if is_dataset else source)[1] is None:
            raise ValueError("`data` has no labels: (inputs, None). Pass (inputs, labels).")
        inputs = symbolic_pass.specs_of(source)
        inputs = None if inputs is None else protocol.detach_outputs(inputs)[0]
        samples = None if is_dataset else len(np.asarray(_first_array(source[1])))
        return cls(source, inputs, samples)


def _with_label_arrays(data):
    if not isinstance(data, tuple) or len(data) not in (2, 3):
        return data
    x, *others = data
    is_texts = isinstance(x, list) and x and all(isinstance(each, str) for each in x)
    x = np.asarray(x) if is_texts else x
    return (x, *(None if each is None else _label_arrays(each) for each in others))


def _label_arrays(labels):
    if isinstance(labels, dict):
        return {name: np.asarray(each) for name, each in labels.items()}
    if _are_answers(labels):
        found = np.empty(len(labels), object)
        found[:] = [list(each) for each in labels]
        return found
    is_several = isinstance(labels, (list, tuple)) and all(np.ndim(x) > 0 for x in labels)
    if is_several and not all(isinstance(x, (list, tuple)) for x in labels):
        return [np.asarray(each) for each in labels]  # one array for each output
    return np.asarray(labels)


def _are_answers(labels):
    """Whether labels are lists of references, not as many for each sample."""
    if not isinstance(labels, (list, tuple)) or not labels:
        return False
    if not all(isinstance(x, (list, tuple)) and x for x in labels):
        return False
    if not all(isinstance(x, str) for each in labels for x in each):
        return False
    return len({len(each) for each in labels}) > 1


def _first_array(labels):
    while isinstance(labels, (dict, list, tuple)):
        labels = next(iter(labels.values() if isinstance(labels, dict) else labels))
    return labels


@dataclasses.dataclass
class ModelOutputs:
    """What a pass over the data gave.

    Attributes:
        outputs: The model's outputs, an array `[samples, ...]` or a list of strings; where they
            were reduced, what the function returned.
        labels: Array `[samples, ...]`.
        weights: Array `[samples, ...]`, or `None`.
        teacher: The teacher's outputs, or `None`, also where they were reduced with the model's.
        inputs: The inputs of the first sample, in their structure, as a batch of one.
    """

    outputs: Any
    labels: Any
    weights: Any
    teacher: Any
    inputs: Any


def read_outputs(
    subject: Subject,
    data: EvaluationData,
    teacher: Any,
    *,
    output: str | int | None,
    batch_size: int,
    verbose: int,
    reduce: Callable | None = None,
) -> ModelOutputs:
    """Runs a model, and its teacher, once over the data.

    Args:
        subject: The model.
        data: The data.
        teacher: A `ReferenceTeacher`, or `None`.
        output: Name or index of the output that is measured, or `None` for the only one.
        batch_size: Samples at once, of arrays.
        verbose: 0, 1 or 2.
        reduce: A function of a batch's outputs, labels, weights and teacher outputs, to an array
            `[samples, ...]` that is kept in place of outputs.

    Raises:
        ValueError: An output must be chosen, or what was given is not of these samples.
    """
    source = data.source
    parts: dict = {"outputs": [], "labels": [], "weights": [], "teacher": []}
    first = None
    label, total = f"measure: {subject.name}", batches.count_batches(source, batch_size)
    parted = _batches(source, batch_size)
    for x, y, weights in progress.iterate(parted, label, total, verbose=verbose):
        inputs, attached = protocol.detach_outputs(x)
        first = _first_sample(inputs) if first is None else first
        key, values = choose_output(subject.predict(inputs), output, subject.name)
        labels, of_rows = of_output(y, key), of_output(weights, key)
        of_teacher = None
        if teacher is not None:
            of_teacher = teacher.predict_batch(inputs, attached, key)
        if reduce is not None:
            values, of_teacher = reduce(values, labels, of_rows, of_teacher), None
        parts["outputs"].append(values)
        parts["labels"].append(labels)
        parts["weights"].append(of_rows)
        parts["teacher"].append(of_teacher)
    if first is None:
        raise ValueError("`data` is empty.")
    joined = {name: _join(name, each) for name, each in parts.items()}
    found = ModelOutputs(**joined, inputs=first)
    for each in (subject, teacher):
        require_samples(each, len(found.labels))
    return found


def require_samples(given: Any, samples: int) -> None:
    """Raises if outputs that were given sample by sample are not those of the data."""
    expected = getattr(given, "rows_given", None)
    if expected not in (None, samples):
        raise ValueError(f"{given.name} has {expected} samples where the data has {samples}.")


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


def _first_sample(inputs):
    return keras.tree.map_structure(lambda x: x[:1], inputs)


def of_output(values: Any, key: tuple[int, str]) -> Any:
    """The labels or weights of an output, where each has its own."""
    index, name = key
    if isinstance(values, dict):
        if name not in values:
            raise ValueError(
                f"The data has labels or weights for {sorted(values)}, none for output {name!r}."
            )
        return values[name]
    return values[index] if isinstance(values, (list, tuple)) else values


def _join(name, parts):
    if not parts or parts[0] is None:
        return None
    if isinstance(parts[0], (list, tuple)):
        return [x for part in parts for x in part]
    return np.concatenate(_of_one_length(name, [np.asarray(part) for part in parts]))


def _of_one_length(name, parts):
    """Batches that were padded to lengths of their own, padded to the longest.

    Args:
        name: The field of `ModelOutputs`; labels are padded with -1, which is not a class, and
            references with empty ones.
        parts: Arrays `[samples, positions, ...]`, or `[samples]`.
    """
    lengths = {part.shape[1] for part in parts if part.ndim > 1}
    if len(lengths) < 2 or len({part.ndim for part in parts}) > 1:
        return parts
    is_text = parts[0].dtype.kind in "OSU"  # fewer references than others have
    if name == "labels" and parts[0].dtype.kind not in "iu" and not is_text:
        raise ValueError(
            f"`data` has batches of different lengths {sorted(lengths)} and labels that are "
            "not class indices, so that none can be left out. Pad them to one length."
        )
    longest = max(lengths)
    filler: Any = "" if is_text else -1 if name == "labels" else 0
    return [
        np.pad(
            part,
            [(0, 0), (0, longest - part.shape[1]), *[(0, 0)] * (part.ndim - 2)],
            constant_values=filler,
        )
        for part in parts
    ]


def choose_output(
    outputs: dict[str, Any], output: str | int | None, who: str
) -> tuple[tuple[int, str], Any]:
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

"""Compares what a file says with what its model says."""

import dataclasses

import numpy as np

from keras_kd.export import promises, students
from keras_kd.export.errors import ExportError

# Rounding of other kernels: 8e-5 at most in the outputs of all float models that were measured.
FLOAT_TOLERANCE = 1e-3
# Half precision has 11 bits; a deep network amplifies that.
HALF_TOLERANCE = 5e-2
# A file that differs in more rows than that is ruined, whatever was asked for.
MIN_AGREEMENT = 0.5


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows to compare on.

    Attributes:
        arrays: An array `[rows, ...]` for each input.
        labels: Class indices `[rows]`, or `None`.
        are_real: Whether they are data of the user, not made up.
    """

    arrays: list
    labels: np.ndarray | None = None
    are_real: bool = True


def made_up(student, rows=16, seed=0):
    """Rows for a model of which no data is at hand; integers are 0 or 1, which any table has."""
    rng = np.random.default_rng(seed)
    arrays = []
    for spec in students.flat_inputs(student):
        shape = (rows, *(size or 1 for size in spec.shape[1:]))
        if "int" in str(spec.dtype) or str(spec.dtype) == "bool":
            arrays.append(rng.integers(0, 2, shape).astype(spec.dtype))
        else:
            arrays.append(rng.uniform(0, 1, shape).astype(spec.dtype))
    return Rows(arrays, None, are_real=False)


@dataclasses.dataclass(frozen=True)
class Bounds:
    """How far a file may be from its model.

    Attributes:
        min_agreement: The least fraction of rows with the same class, or `None` for the default.
        max_accuracy_drop: How much of the accuracy may be lost, a fraction, or `None`.
    """

    min_agreement: float | None = None
    max_accuracy_drop: float | None = None


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How a file compares with its model; see `TFLiteExport`."""

    rows: int
    agreement: float | None
    worst_difference: float
    relative_difference: float
    accuracy: float | None
    model_accuracy: float | None


def compare(outputs, expected, names, rows):
    """Compares outputs of a file with those of its model.

    Args:
        outputs: Arrays `[rows, ...]`, one for each output.
        expected: The same of the model.
        names: The names of the outputs.
        rows: The `Rows` they are for.

    Raises:
        ExportError: They are NaN, or all the same.
    """
    promises.check_values(outputs, expected, names)
    worst = max(_difference(a, b) for a, b in zip(outputs, expected, strict=True))
    relative = max(
        _difference(a, b) / max(float(np.abs(b).max()), 1e-6)
        for a, b in zip(outputs, expected, strict=True)
    )
    agreement = _agreement(outputs, expected) if rows.are_real else None
    accuracy = model_accuracy = None
    if rows.labels is not None and len(outputs) == 1 and agreement is not None:
        labels = _classes_of(rows.labels, outputs[0])
        if labels is not None:
            accuracy = float(np.mean(_argmax(outputs[0]) == labels))
            model_accuracy = float(np.mean(_argmax(expected[0]) == labels))
    return Comparison(len(outputs[0]), agreement, worst, relative, accuracy, model_accuracy)


def _difference(found, expected):
    return float(np.abs(found.astype(np.float64) - expected.astype(np.float64)).max())


def _argmax(outputs):
    return outputs[..., 0] > 0 if outputs.shape[-1] == 1 else np.argmax(outputs, axis=-1)


def _agreement(outputs, expected):
    """The fraction of the same class, the least of all outputs that have classes."""
    fractions = [
        float(np.mean(_argmax(a) == _argmax(b)))
        for a, b in zip(outputs, expected, strict=True)
        if a.ndim > 1 and a.shape[-1] > 1
    ]
    return min(fractions) if fractions else None


def _classes_of(labels, outputs):
    if labels.shape == outputs.shape:
        return np.argmax(labels, axis=-1)  # one-hot
    labels = labels.reshape(len(labels), -1)
    if outputs.ndim == 2 and labels.shape[1] == 1:
        return labels[:, 0].astype(np.int64)
    return None


def check(found, quantization, bounds):
    """Raises `ExportError` unless a `Comparison` is within its bounds.

    Args:
        found: A `Comparison`.
        quantization: As of `to_tflite`.
        bounds: The `Bounds`.
    """
    tolerance = {None: FLOAT_TOLERANCE, "float16": HALF_TOLERANCE}.get(quantization)
    if tolerance is not None and found.relative_difference > tolerance:
        raise ExportError(
            f"The file differs from the model by {found.worst_difference:.3g}, "
            f"{found.relative_difference:.2%} of its largest output; at most {tolerance:.1%} is "
            "rounding."
        )
    least = MIN_AGREEMENT if bounds.min_agreement is None else bounds.min_agreement
    if found.agreement is not None and found.agreement < least:
        raise ExportError(
            f"The file gives the class of the model in {found.agreement:.1%} of {found.rows} rows; "
            f"min_agreement is {least:.1%}. Try quantization='dynamic' or 'int16x8', more "
            "representative data, or keras_kd.quantization_aware."
        )
    drop = bounds.max_accuracy_drop
    if drop is None:
        return
    if found.accuracy is None:
        raise ValueError(
            "`max_accuracy_drop` needs labels to count on: pass data=(inputs, labels) for a model "
            "with one output of classes."
        )
    if found.model_accuracy - found.accuracy > drop:
        raise ExportError(
            f"The accuracy falls from {found.model_accuracy:.2%} to {found.accuracy:.2%} on "
            f"{found.rows} rows; max_accuracy_drop is {drop:.2%}. Try "
            "keras_kd.quantization_aware, which trains the student for its integers."
        )

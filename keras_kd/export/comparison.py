"""How the outputs of a file compare with those of its model, and what makes a file worthless."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from keras_kd.export.judging import Bounds, Judgment, Output
from keras_kd.export.representative import Samples
from keras_kd.export.student import ExportError

# Rounding of other kernels: 8e-5 at most in the outputs of all float models that were measured.
FLOAT_TOLERANCE = 1e-3
# Half precision has 11 bits; a deep network amplifies that.
HALF_TOLERANCE = 5e-2
# A file with another answer in more samples is worthless.
MIN_AGREEMENT = 0.5
# Files that work are off by 0.01 to 0.35 deviations, with 4-bit weights and random ones by 0.6;
# one with the same outputs for all samples by 1 at best. This is half of the variance.
MAX_ERROR = 0.7
# Where classes are assumed only: the least error of a file that is refused for other answers.
_ASSUMED = 0.5
# How much better than chance answers are whose values are lost: 0 at chance, 1 are the same.
_BETTER_THAN_CHANCE = 0.25
# Of classes that a float file returns itself, so many may differ.
_TIES = 0.01
# A file below it that is accepted gets a note.
_FEW = 0.9


@dataclasses.dataclass(frozen=True)
class Figures:
    """How one output of a file compares with the model's.

    Attributes:
        output: The `Output`.
        error: In standard deviations, see `error`; `None` of samples that were made up.
        agreement: The fraction of equal answers, of classes; `None` of samples that were made up.
        chance: The agreement of a file whose answers do not depend on the sample.
        accuracy: The file's, of classes with labels.
        model_accuracy: The model's.
    """

    output: Output
    error: float | None = None
    agreement: float | None = None
    chance: float | None = None
    accuracy: float | None = None
    model_accuracy: float | None = None

    @property
    def closeness(self) -> float | None:
        """1 where file and model are the same: the agreement, or the explained variance."""
        if self.agreement is not None:
            return self.agreement
        return None if self.error is None else 1 - self.error**2

    @property
    def above_chance(self) -> float:
        """0 where the agreement is that of chance, 1 where all answers are equal."""
        same, chance = float(self.agreement or 0.0), float(self.chance or 0.0)
        return (same - chance) / (1 - chance) if chance < 1 else 0.0


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How a file compares with its model; see `TFLiteExport`.

    Attributes:
        samples: How many were compared.
        of_outputs: The `Figures` of each output.
        worst_difference: The largest of all outputs.
        relative_difference: The largest part of an output's largest value.
    """

    samples: int
    of_outputs: tuple[Figures, ...]
    worst_difference: float
    relative_difference: float

    @property
    def agreement(self) -> float | None:
        """The least of the outputs of classes, or `None`."""
        return min(_known(self.of_outputs, "agreement"), default=None)

    @property
    def error(self) -> float | None:
        """The largest of all outputs, or `None`."""
        return max(_known(self.of_outputs, "error"), default=None)

    @property
    def closeness(self) -> float | None:
        """The least of all outputs, or `None` where the samples were made up."""
        return min(_known(self.of_outputs, "closeness"), default=None)

    @property
    def least_accurate(self) -> Figures | None:
        """The `Figures` of the output that has lost most of its accuracy, or `None`."""
        counted = [each for each in self.of_outputs if each.accuracy is not None]
        return max(counted, key=_accuracy_drop, default=None)


def _accuracy_drop(figures):
    return (figures.model_accuracy or 0.0) - (figures.accuracy or 0.0)


def _known(of_outputs, name):
    return [value for each in of_outputs if (value := getattr(each, name)) is not None]


def compare(
    outputs: Sequence[np.ndarray],
    expected: Sequence[np.ndarray],
    samples: Samples,
    judgment: Judgment,
) -> Comparison:
    """Compares outputs of a file with those of its model.

    Args:
        outputs: Arrays `[samples, ...]`, one for each output.
        expected: The same of the model.
        samples: The `Samples` that they are for.
        judgment: How each output is judged.

    Raises:
        ExportError: They are NaN, or all the same.
    """
    _check_values(outputs, expected, [output.name for output in judgment.outputs])
    compared = list(zip(judgment.outputs, outputs, expected, strict=True))
    figures = compare_outputs(compared) if samples.are_given else map(Figures, judgment.outputs)
    return Comparison(
        samples=len(outputs[0]),
        of_outputs=tuple(figures),
        worst_difference=max(difference(a, b) for _, a, b in compared),
        relative_difference=max(_relative(*each) for each in compared),
    )


def _check_values(outputs, expected, names):
    """Raises `ExportError` where a file, not its model, gives NaN or the same for all samples."""
    for name, found, wanted in zip(names, outputs, expected, strict=True):
        if not np.isfinite(found).all() and np.isfinite(wanted).all():
            raise ExportError(f"Output {name!r} of the file holds NaN or infinity.")
        if len(found) > 1 and np.ptp(found, axis=0).max() == 0 < np.ptp(wanted, axis=0).max():
            raise ExportError(
                f"Output {name!r} of the file is the same for all {len(found)} samples: the "
                "quantization has ruined the model."
            )


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference between two arrays."""
    return float(np.abs(found.astype(np.float64) - expected.astype(np.float64)).max())


def _relative(output, found, expected):
    if output.are_indices:
        return other_indices(found, expected)
    return difference(found, expected) / max(float(np.abs(expected).max()), 1e-6)


def other_indices(found: np.ndarray, expected: np.ndarray) -> float:
    """The fraction of other integers beyond one in a hundred: rounding decides ties."""
    return max(float(np.mean(found != expected)) - _TIES, 0.0)


def compare_outputs(
    compared: Iterable[tuple[Output, np.ndarray, np.ndarray]],
) -> tuple[Figures, ...]:
    """The `Figures` of each `(output, found, expected)`."""
    return tuple(_figures(*each) for each in compared)


def _figures(output, found, expected):
    values: dict[str, float | None] = {}
    if not output.are_indices and np.isfinite(expected).all():
        values["error"] = error(output, found, expected)
    if output.has_classes:
        values["agreement"], values["chance"] = agreement(output, found, expected)
        if output.labels is not None:
            values["accuracy"] = accuracy(output, found)
            values["model_accuracy"] = accuracy(output, expected)
    return Figures(output, **values)


def check_bounds(found: Comparison, quantization: Any, bounds: Bounds, outliers: str = "") -> None:
    """Raises `ExportError` unless a comparison is within its bounds.

    Args:
        found: The `Comparison`.
        quantization: The `quantization` of `to_tflite`.
        bounds: The `Bounds`.
        outliers: A sentence on outliers among the representative data.
    """
    tolerance = {None: FLOAT_TOLERANCE, "float16": HALF_TOLERANCE}.get(quantization)
    if tolerance is not None and found.relative_difference > tolerance:
        raise ExportError(
            f"The file differs from the model by {found.worst_difference:.3g}, "
            f"{found.relative_difference:.2%} of its largest output; at most {tolerance:.1%} is "
            "rounding."
        )
    for each in found.of_outputs:
        too_far = describe_failure(each, bounds, found.samples)
        if too_far:
            raise ExportError(
                f"{too_far} {outliers or 'Try more representative data.'} Or try "
                "quantization='dynamic' or 'int16x8', or keras_kd.quantization_aware."
            )
    worst, drop = found.least_accurate, bounds.max_accuracy_drop
    if drop is not None and worst is not None and _accuracy_drop(worst) > drop:
        raise ExportError(
            f"The accuracy falls from {worst.model_accuracy:.2%} to {worst.accuracy:.2%} (output "
            f"{worst.output.name!r}, {found.samples} samples); max_accuracy_drop is {drop:.2%}. "
            "Try keras_kd.quantization_aware, which trains the student for its integers."
        )


def describe_failure(figures: Figures, bounds: Bounds, samples: int) -> str:
    """What makes an output of a file worthless, in words, or `""`.

    Numbers: an error above `max_error`, by default 0.7. Classes: another answer than the model's in
    more than 1 - `min_agreement` of the samples, by default half of them; where classes are only
    assumed, an error above 0.5 too. Unless `min_agreement` is given, also values that are lost (an
    error above 0.7) with answers that are hardly better than chance.

    Args:
        figures: The `Figures` of the output.
        bounds: The `Bounds`.
        samples: How many were compared.
    """
    if figures.error is None and figures.agreement is None:  # of samples that were made up
        return ""
    if figures.agreement is None:
        return _describe_error(figures, bounds, samples)
    return _describe_answers(figures, figures.agreement, bounds, samples)


def _describe_error(figures, bounds, samples):
    most = MAX_ERROR if bounds.max_error is None else bounds.max_error
    if figures.error <= most:
        return ""
    return (
        f"The file is off by {figures.error:.2f} standard deviations of output "
        f"{figures.output.name!r} (root mean square, {samples} samples); max_error is {most:g}."
    )


def _describe_answers(figures, same, bounds, samples):
    name, error = figures.output.name, figures.error
    least = MIN_AGREEMENT if bounds.min_agreement is None else bounds.min_agreement
    is_near = figures.output.is_assumed and error is not None and error <= _ASSUMED
    words = (
        f"The file gives the {_answer(figures.output)} of the model in {same:.1%} of {samples} "
        "samples"
    )
    if same < least and not is_near:
        return f"{words}; min_agreement is {least:.1%} (output {name!r}).{_assumption(figures)}"
    if bounds.min_agreement is not None or error is None or error <= MAX_ERROR:
        return ""
    if figures.above_chance < _BETTER_THAN_CHANCE:
        return (
            f"{words}, hardly more than by chance ({figures.chance:.1%}), and is off by "
            f"{error:.2f} standard deviations of output {name!r}.{_assumption(figures)}"
        )
    return ""


def _answer(output):
    return "class" if output.task == "multiclass" else f"side of {output.threshold:g}"


def _assumption(figures):
    if not figures.output.is_assumed:
        return ""
    return (
        f" That the output is {figures.output.task} is assumed from its shape: pass "
        "task='regression' if it holds numbers."
    )


def notes(found: Comparison) -> Iterator[str]:
    """Yields what the user of a file within its bounds should know."""
    for each in found.of_outputs:
        if each.closeness is None or each.closeness >= _FEW:
            continue
        words = f"is off by {each.error:.2f} standard deviations"
        if each.agreement is not None:
            words = f"has the model's {_answer(each.output)} in {each.agreement:.1%} of the samples"
        yield (
            f"output {each.output.name!r} {words}: measure the file on labeled data (kd.measure) "
            "before you use it"
        )


# Figures of one output that outliers do not hide.


# This fraction of the samples, the farthest, is left out: one sample of 64 that was 3000 times the
# others made the deviation so large that a file with one value for all the others was near.
_LEFT_OUT = 0.1
_CHUNK = 256
# An output that is the same for all samples has no deviation to measure with.
_CONSTANT = 1e-6
# Probabilities that differ by less are equal; 8 bits have steps of 0.004.
_OF_SHARES = 0.02
# Of the logits' distance from their threshold: far from it small differences do not matter.
_OF_DISTANCE = 0.1


def error(output: Output, found: np.ndarray, expected: np.ndarray) -> float:
    """The root mean squared error of a file in standard deviations of the model's output.

    `sqrt(sum_ri (f_ri - m_ri)^2 / sum_ri (m_ri - mean_r m_ri)^2)` over numbers i of samples r,
    without the tenth of the samples that lies farthest from the mean. 1 is what a constant has at
    best. Of classes the deviation is at least 0.02 for probabilities, and a tenth of the logits'
    distance from their threshold (of several classes: from the mean of the sample's).

    Args:
        output: The `Output`.
        found: Outputs of the file, `[samples, ...]`.
        expected: The same of the model.
    """
    samples, classes = len(expected), expected.shape[-1]
    found, expected = found.reshape(samples, -1), expected.reshape(samples, -1)
    near = _near(expected)
    squares = _mean(near, found, lambda part, place: np.square(part - expected[place]))
    middle = _center(expected, near)
    scale = np.sqrt(_mean(near, expected, lambda part, _: np.square(part - middle)))
    size = np.sqrt(_mean(near, expected, lambda part, _: np.square(part)))
    if scale <= _CONSTANT * size:
        scale = size
    if output.has_classes:
        scale = max(scale, _OF_DISTANCE * _distance(output, expected, near, classes))
        scale = max(scale, _OF_SHARES) if output.are_shares else scale
    return float(np.sqrt(squares) / scale) if squares else 0.0


def _near(values):
    """Which samples are not among those farthest from the mean."""
    middle = _center(values, np.ones(len(values), bool))
    distances = np.concatenate(
        [np.square(part - middle).mean(axis=1) for part in _chunks(values)], dtype=np.float64
    )
    return distances <= np.quantile(distances, 1 - _LEFT_OUT, method="higher")


def _chunks(values):
    """Parts that fit in memory in float64."""
    for start in range(0, len(values), _CHUNK):
        yield values[start : start + _CHUNK].astype(np.float64)


def _center(values, kept):
    return values[kept].mean(axis=0, dtype=np.float64)


def _mean(kept, values, of_part):
    """The mean of `of_part(chunk, its place)` over samples."""
    total = 0.0
    for i, part in enumerate(_chunks(values)):
        place = slice(i * _CHUNK, i * _CHUNK + len(part))
        total += of_part(part, place)[kept[place]].sum()
    return total / (kept.sum() * values.shape[1])


def _distance(output, values, kept, classes):
    """The root mean square of the distance from the threshold between classes."""
    if output.task != "multiclass":
        return np.sqrt(_mean(kept, values, lambda part, _: np.square(part - output.threshold)))

    def of_row(part, place):
        del place
        each = part.reshape(len(part), -1, classes)
        return np.square(each - each.mean(axis=-1, keepdims=True)).reshape(len(each), -1)

    return np.sqrt(_mean(kept, values, of_row))


def agreement(output: Output, found: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """`(fraction of equal answers, the fraction by chance)`.

    The second is that of answers drawn with the frequencies that model and file give them:
    `sum_c p_c q_c`.
    """
    mine, theirs = output.answers(found), output.answers(expected)
    same = float(np.mean(mine == theirs))
    if output.task == "multilabel":
        yes, wanted = mine.mean(axis=0), theirs.mean(axis=0)
        return same, float(np.mean(yes * wanted + (1 - yes) * (1 - wanted)))
    kinds, places = np.unique(np.stack([mine, theirs]), return_inverse=True)
    places = places.reshape(2, -1)
    counts = [np.bincount(each, minlength=len(kinds)) / places.shape[1] for each in places]
    return same, float(np.dot(*counts))


def accuracy(output: Output, values: np.ndarray) -> float | None:
    """The fraction of right answers; a sample of several labels is right where all of them are."""
    labels: Any = output.labels
    right, counted = output.answers(values).reshape(labels.shape) == labels, labels >= 0
    if output.task == "multilabel":
        counted, right = counted.all(axis=-1), right.all(axis=-1)
    if output.are_indices:
        counted = np.ones_like(counted)
    return float(right[counted].mean()) if counted.any() else None

"""Compares what a file says with what its model says."""

import collections
import dataclasses
from typing import Any

import numpy as np

from keras_kd.export import source
from keras_kd.export.source import ExportError, LeftInFloatError

# Rounding of other kernels: 8e-5 at most in the outputs of all float models that were measured.
FLOAT_TOLERANCE = 1e-3
# Half precision has 11 bits; a deep network amplifies that.
HALF_TOLERANCE = 5e-2
# A file that answers otherwise in more rows than that is ruined.
MIN_AGREEMENT = 0.5
# Files that work are off by 0.01 to 0.35 deviations, with 4-bit weights and random ones by 0.6;
# one that gives the same for all rows by 1 at best. This is half of the variance.
MAX_ERROR = 0.7
# Where classes are supposed only: the least error of a file that is refused for other answers.
_SUPPOSED = 0.5
# How much better than chance answers are whose values are lost: 0 at chance, 1 are the same.
_BETTER_THAN_CHANCE = 0.25
# Of classes that a file gives itself, in float, so many may be others.
_TIES = 0.01
# Below it a file that was not refused is told of.
_FEW = 0.9


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows to compare on.

    Attributes:
        arrays: An array `[rows, ...]` for each input.
        labels: An array `[rows, ...]`, or a dict or list with one for each output, or `None`.
        are_real: Whether they are data of the user, not made up.
        are_promised: Whether the labels must fit the outputs.
    """

    arrays: list
    labels: Any = None
    are_real: bool = True
    are_promised: bool = True


def made_up(student, rows=16, seed=0):
    """Rows for a model of which no data is at hand; integers are 0 or 1, which any table has."""
    rng = np.random.default_rng(seed)
    arrays = []
    for spec in source.flat_inputs(student):
        shape = (rows, *(size or 1 for size in spec.shape[1:]))
        if "int" in str(spec.dtype) or str(spec.dtype) == "bool":
            arrays.append(rng.integers(0, 2, shape).astype(spec.dtype))
        else:
            arrays.append(rng.uniform(0, 1, shape).astype(spec.dtype))
    return Rows(arrays, None, are_real=False)


@dataclasses.dataclass(frozen=True)
class Figures:
    """How one output of a file compares with the model's.

    Attributes:
        output: The `judging.Output`.
        error: In standard deviations, see `figures.error`; `None` of made up rows.
        agreement: The fraction of the same answer, of classes; likewise.
        chance: That of a file that knows nothing of the rows.
        accuracy: Of the file, of classes with labels.
        model_accuracy: Of the model.
    """

    output: Any
    error: float | None = None
    agreement: float | None = None
    chance: float | None = None
    accuracy: float | None = None
    model_accuracy: float | None = None

    @property
    def closeness(self):
        """1 where file and model are the same: the agreement, or the explained variance."""
        if self.agreement is not None:
            return self.agreement
        return None if self.error is None else 1 - self.error**2

    @property
    def above_chance(self):
        """0 where the answers are those of a file that knows nothing, 1 where they are equal."""
        same, chance = float(self.agreement or 0.0), float(self.chance or 0.0)
        return (same - chance) / (1 - chance) if chance < 1 else 0.0


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How a file compares with its model; see `TFLiteExport`.

    Attributes:
        rows: How many were compared.
        of_outputs: The `Figures` of each output.
        worst_difference: The largest of all outputs.
        relative_difference: The largest part of an output's largest value.
    """

    rows: int
    of_outputs: tuple
    worst_difference: float
    relative_difference: float

    @property
    def agreement(self):
        """The least of the outputs of classes, or `None`."""
        return min(_known(self.of_outputs, "agreement"), default=None)

    @property
    def error(self):
        """The largest of all outputs, or `None`."""
        return max(_known(self.of_outputs, "error"), default=None)

    @property
    def closeness(self):
        """The least of all outputs, or `None` where the rows were made up."""
        return min(_known(self.of_outputs, "closeness"), default=None)

    @property
    def least_accurate(self):
        """The `Figures` of the output that has lost most of its accuracy, or `None`."""
        counted = [each for each in self.of_outputs if each.accuracy is not None]
        return max(counted, key=lambda x: x.model_accuracy - x.accuracy, default=None)


def _known(of_outputs, name):
    return [value for each in of_outputs if (value := getattr(each, name)) is not None]


def compare(outputs, expected, rows, judgement):
    """Compares outputs of a file with those of its model.

    Args:
        outputs: Arrays `[rows, ...]`, one for each output.
        expected: The same of the model.
        rows: The `Rows` they are for.
        judgement: The `judging.Judgement`.

    Raises:
        ExportError: They are NaN, or all the same.
    """
    check_values(outputs, expected, [output.name for output in judgement.outputs])
    told = list(zip(judgement.outputs, outputs, expected, strict=True))
    return Comparison(
        rows=len(outputs[0]),
        of_outputs=of_each(told) if rows.are_real else tuple(Figures(x) for x, *_ in told),
        worst_difference=max(difference(a, b) for _, a, b in told),
        relative_difference=max(_relative(*each) for each in told),
    )


def difference(found, expected):
    """The largest difference between two arrays."""
    return float(np.abs(found.astype(np.float64) - expected.astype(np.float64)).max())


def _relative(output, found, expected):
    if output.are_indices:
        return other_indices(found, expected)
    return difference(found, expected) / max(float(np.abs(expected).max()), 1e-6)


def other_indices(found, expected):
    """The fraction of other whole numbers, without one of a hundred: rounding decides ties."""
    return max(float(np.mean(found != expected)) - _TIES, 0.0)


def of_each(told):
    """The `Figures` of each `(output, found, expected)`."""
    return tuple(_figures(*each) for each in told)


def _figures(output, found, expected):
    values: dict = {}
    if not output.are_indices and np.isfinite(expected).all():
        values["error"] = error(output, found, expected)
    if output.has_classes:
        values["agreement"], values["chance"] = agreement(output, found, expected)
        if output.labels is not None:
            values["accuracy"] = accuracy(output, found)
            values["model_accuracy"] = accuracy(output, expected)
    return Figures(output, **values)


def check(found, quantization, bounds, outliers=""):
    """Raises `ExportError` unless a `Comparison` is within its bounds.

    Args:
        found: A `Comparison`.
        quantization: As of `to_tflite`.
        bounds: The `judging.Bounds`.
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
        too_far = ruin(each, bounds, found.rows)
        if too_far:
            raise ExportError(
                f"{too_far} {outliers or 'Try more representative data.'} Or try "
                "quantization='dynamic' or 'int16x8', or keras_kd.quantization_aware."
            )
    worst, drop = found.least_accurate, bounds.max_accuracy_drop
    if drop is not None and worst is not None and worst.model_accuracy - worst.accuracy > drop:
        raise ExportError(
            f"The accuracy falls from {worst.model_accuracy:.2%} to {worst.accuracy:.2%} (output "
            f"{worst.output.name!r}, {found.rows} rows); max_accuracy_drop is {drop:.2%}. Try "
            "keras_kd.quantization_aware, which trains the student for its integers."
        )


def ruin(figures, bounds, rows):
    """What makes an output of a file worthless, in words, or `""`.

    Numbers: an error above `max_error`, by default 0.7. Classes: another answer than the model's in
    more than 1 - `min_agreement` of the rows, by default in half of them, where classes are
    supposed only if the error is above 0.5 besides; and unless `min_agreement` is given, values
    that are lost (an error above 0.7) with answers that are hardly better than chance.

    Args:
        figures: `Figures`.
        bounds: `judging.Bounds`.
        rows: How many were compared.
    """
    name, error, same = figures.output.name, figures.error, figures.agreement
    if error is None and same is None:  # made up rows
        return ""
    if not figures.output.has_classes:
        most = MAX_ERROR if bounds.max_error is None else bounds.max_error
        if error is not None and error > most:
            return (
                f"The file is off by {error:.2f} standard deviations of output {name!r} (root mean "
                f"square, {rows} rows); max_error is {most:g}."
            )
        return ""
    least = MIN_AGREEMENT if bounds.min_agreement is None else bounds.min_agreement
    is_near = figures.output.is_supposed and error is not None and error <= _SUPPOSED
    words = (
        f"The file gives the {_answer(figures.output)} of the model in {same:.1%} of {rows} rows"
    )
    if same < least and not is_near:
        return f"{words}; min_agreement is {least:.1%} (output {name!r}).{_supposed(figures)}"
    if bounds.min_agreement is not None or error is None or error <= MAX_ERROR:
        return ""
    if figures.above_chance < _BETTER_THAN_CHANCE:
        return (
            f"{words}, hardly more than one that knows nothing of a row would ({figures.chance:.1%}"
            f"), and is off by {error:.2f} standard deviations of output {name!r}."
            f"{_supposed(figures)}"
        )
    return ""


def _answer(output):
    return "class" if output.task == "multiclass" else f"side of {output.threshold:g}"


def _supposed(figures):
    if not figures.output.is_supposed:
        return ""
    return (
        f" That the output is {figures.output.task} is supposed from its shape: say "
        "task='regression' if it holds numbers."
    )


def notes(found):
    """What is to be known of a `Comparison` that was within its bounds, in words."""
    for each in found.of_outputs:
        if each.closeness is None or each.closeness >= _FEW:
            continue
        words = f"is off by {each.error:.2f} standard deviations"
        if each.agreement is not None:
            words = f"has the model's {_answer(each.output)} in {each.agreement:.1%} of the rows"
        yield (
            f"output {each.output.name!r} {words}: measure the file on labelled data (kd.measure) "
            "before you use it"
        )


# How near outputs of a file are to those of its model: figures that no outlier hides.


# Of the rows so many are left out, those that lie farthest: one row of 64 that is 3000 times the
# others made the deviation so large that a file with one value for all the others was near.
_LEFT_OUT = 0.1
_CHUNK = 256
# An output of which no row is other than the next has no deviation to measure with.
_CONSTANT = 1e-6
# What two probabilities may differ by and still say the same; 8 bits have steps of 0.004.
_OF_SHARES = 0.02
# Of the distance of logits from their threshold: far from it small differences do not matter.
_OF_DISTANCE = 0.1


def error(output, found, expected):
    """The root mean squared error of a file in standard deviations of the model's output.

    `sqrt(sum_ri (f_ri - m_ri)^2 / sum_ri (m_ri - mean_r m_ri)^2)` over numbers i of rows r, but for
    the tenth of the rows that lies farthest from the mean. 1 is what a constant has at best. Of
    classes the deviation is at least 0.02 of probabilities, and a tenth of the logits' distance
    from their threshold (of several classes: from the mean of the row's).

    Args:
        output: The `judging.Output`.
        found: Outputs of the file, `[rows, ...]`.
        expected: The same of the model.
    """
    rows, classes = len(expected), expected.shape[-1]
    found, expected = found.reshape(rows, -1), expected.reshape(rows, -1)
    near = _near(expected)
    squares = _mean(near, found, lambda part, rows: np.square(part - expected[rows]))
    middle = _center(expected, near)
    scale = np.sqrt(_mean(near, expected, lambda part, rows: np.square(part - middle)))
    size = np.sqrt(_mean(near, expected, lambda part, rows: np.square(part)))
    if scale <= _CONSTANT * size:
        scale = size
    if output.has_classes:
        scale = max(scale, _OF_DISTANCE * _distance(output, expected, near, classes))
        scale = max(scale, _OF_SHARES) if output.are_shares else scale
    return float(np.sqrt(squares) / scale) if squares else 0.0


def _near(values):
    """Which rows are not among those farthest from the mean."""
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
    """The mean of `of_part(chunk, its place)` over rows."""
    total = 0.0
    for i, part in enumerate(_chunks(values)):
        place = slice(i * _CHUNK, i * _CHUNK + len(part))
        total += of_part(part, place)[kept[place]].sum()
    return total / (kept.sum() * values.shape[1])


def _distance(output, values, kept, classes):
    """The root mean square of the distance from what tells classes from each other."""
    if output.task != "multiclass":
        return np.sqrt(_mean(kept, values, lambda part, _: np.square(part - output.threshold)))

    def of_row(part, place):
        del place
        each = part.reshape(len(part), -1, classes)
        return np.square(each - each.mean(axis=-1, keepdims=True)).reshape(len(each), -1)

    return np.sqrt(_mean(kept, values, of_row))


def agreement(output, found, expected):
    """`(fraction of the same answer, that of a file that knows nothing of the row)`.

    The second is what answers have in common that are drawn with the shares that model and file
    give them: `sum_c p_c q_c`.
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


def accuracy(output, values):
    """The fraction of right answers; a row of several labels is right where all of them are."""
    labels, given = output.labels, output.answers(values)
    given = given.reshape(labels.shape)
    counted = labels >= 0
    right = given == labels
    if output.task == "multilabel":
        counted, right = counted.all(axis=-1), right.all(axis=-1)
    if output.are_indices:
        counted = np.ones_like(counted)
    return float(right[counted].mean()) if counted.any() else None


# What a file must hold to be what was asked for.


_FLOATS = {"float32", "float16", "bfloat16", "float64"}
# They turn integers to floats and back, and compute nothing.
_BORDERS = {"QUANTIZE", "DEQUANTIZE"}


def counts(file):
    """`{operator: count}` of a `TFLiteFile`, in the order in which they first appear."""
    return dict(collections.Counter(operator.name for operator in file.operators))


def float_operators(file):
    """Names of the operators that compute with floats."""
    return _names(in_float(file))


def _names(operators):
    return sorted({operator.name for operator in operators})


def in_float(file):
    """The operators that compute with floats."""
    return [
        operator
        for operator in file.operators
        if operator.name not in _BORDERS
        and _FLOATS.intersection([*operator.inputs, *operator.outputs])
    ]


def check_requirements(file, quantization, input_dtype, output_dtype):
    """Raises `ExportError` unless the file holds what was asked for.

    Args:
        file: A `TFLiteFile`.
        quantization: As of `to_tflite`.
        input_dtype: The type of inputs that are real numbers, or `None` for any.
        output_dtype: The type of outputs, or `None` for any.
    """
    flex = sorted(name for name in counts(file) if name.startswith("CUSTOM"))
    if flex:
        raise ExportError(f"The file needs operators that LiteRT does not have: {flex}.")
    if quantization in ("int8", "int16x8"):
        left = in_float(file)
        if left:
            raise LeftInFloatError(
                f"Operators {_names(left)} are left in float32, the first at "
                f"{left[0].label!r}, which a file of quantization={quantization!r} must "
                "not have. Have the student compute that in another way (a mask that is cast to "
                "float by pooling is one), or take quantization='dynamic'.",
                _names(left),
            )
    for what, infos, wanted in (
        ("input", file.inputs, input_dtype),
        ("output", file.outputs, output_dtype),
    ):
        for info in infos:
            is_number = info.scale is not None or info.dtype in _FLOATS
            if wanted is not None and is_number and info.dtype != wanted:
                raise ExportError(
                    f"The {what} {info.name!r} is {info.dtype}; {wanted} was asked for."
                )


def check_values(outputs, expected, names):
    """Raises `ExportError` where a file gives NaN, or the same for all rows, and the model not."""
    for name, found, wanted in zip(names, outputs, expected, strict=True):
        if not np.isfinite(found).all() and np.isfinite(wanted).all():
            raise ExportError(f"Output {name!r} of the file holds NaN or infinity.")
        if len(found) > 1 and np.ptp(found, axis=0).max() == 0 < np.ptp(wanted, axis=0).max():
            raise ExportError(
                f"Output {name!r} of the file is the same for all {len(found)} rows: the "
                "quantization has ruined the model."
            )

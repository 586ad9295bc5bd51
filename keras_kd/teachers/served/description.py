"""What a server says of its model, and what its answers must be."""

import dataclasses
from typing import Any

import numpy as np

from keras_kd.runtimes.tensors import TensorInfo
from keras_kd.teachers.served import errors


@dataclasses.dataclass(frozen=True)
class ModelDescription:
    """A model, as its server describes it.

    Args:
        name: Its name.
        version: Its version; `""`: the server has none, or tells it with its answers only.
        inputs: A `TensorInfo` for each input.
        outputs: One for each output.
    """

    name: str
    version: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]

    def differences(self, other: "ModelDescription") -> list[str]:
        """How another description differs; empty where it does not.

        A version that one of the two does not tell is no difference.

        Args:
            other: The description.
        """
        found = [
            f"{what} {theirs!r} instead of {ours!r}"
            for what, ours, theirs in (
                ("model", self.name, other.name),
                ("version", self.version, other.version),
            )
            if ours and theirs and ours != theirs
        ]
        for what in ("inputs", "outputs"):
            ours, theirs = _texts(getattr(self, what)), _texts(getattr(other, what))
            if ours != theirs:
                found.append(f"{what} {theirs} instead of {ours}")
        return found

    @property
    def rows(self) -> int | None:
        """The number of samples that it takes at once; `None`: any."""
        fixed = {info.shape[0] for info in self.inputs if info.shape} - {None}
        return fixed.pop() if len(fixed) == 1 else None

    @property
    def input_texts(self) -> list[str]:
        """Its inputs in words: name, type and sizes."""
        return _texts(self.inputs)

    def text(self) -> str:
        """All of it in one line, the same for the same model."""
        inputs, outputs = _texts(self.inputs), _texts(self.outputs)
        return f"{self.name} {self.version} {inputs} {outputs}"


def _texts(infos: tuple[TensorInfo, ...]) -> list[str]:
    return sorted(f"{info.name}: {info.dtype} {_sizes(info.shape)}" for info in infos)


def _sizes(shape: tuple) -> str:
    return f"[{', '.join('any' if size is None else str(size) for size in shape)}]"


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a server answered.

    Args:
        outputs: `{name: array}`.
        model: The name of the model that answered; `""`: it does not say.
        version: Its version; `""`: it does not say.
    """

    outputs: dict[str, np.ndarray]
    model: str = ""
    version: str = ""


def check_answer(
    answer: Answer, description: ModelDescription, names: list[str], rows: int
) -> dict[str, np.ndarray]:
    """The outputs of a sound answer, by name.

    Args:
        answer: The answer.
        description: Of the model that teaches.
        names: The outputs that were asked for.
        rows: How many samples were sent.

    Raises:
        OtherModel: Another model, or another version of it, has answered.
        UnsoundAnswer: An output is missing, or has another type or shape, another number of
            samples, or values that are not finite.
    """
    for what, ours, theirs in (
        ("model", description.name, answer.model),
        ("version", description.version, answer.version),
    ):
        if ours and theirs and ours != theirs:
            raise errors.OtherModel(f"{what} {theirs!r} has answered instead of {ours!r}")
    infos = {info.name: info for info in description.outputs}
    for name in names:
        if name not in answer.outputs:
            raise errors.UnsoundAnswer(
                f"the answer has no output {name!r}, but {sorted(answer.outputs)}"
            )
        _check_output(infos[name], answer.outputs[name], rows)
    return {name: answer.outputs[name] for name in names}


def _check_output(info: TensorInfo, array: np.ndarray, rows: int) -> None:
    who = f"output {info.name!r}"
    if array.dtype.name != info.dtype:
        raise errors.UnsoundAnswer(f"{who} is of type {array.dtype}, not {info.dtype}")
    if not array.shape or array.shape[0] != rows:
        raise errors.UnsoundAnswer(
            f"{who} has shape {array.shape} for {rows} samples: it must have one row for each"
        )
    if not info.fits(array.shape):
        raise errors.UnsoundAnswer(
            f"{who} has shape {array.shape}; the server had described {_sizes(info.shape)}"
        )
    if array.dtype.kind not in "iub":
        count = int((~np.isfinite(array.astype(np.float32))).sum())
        if count:
            raise errors.UnsoundAnswer(
                f"{who} has {count} of {array.size} values that are NaN or infinite"
            )


# What tells two models of one name apart: their outputs for the same batch.

_PROBE_ROWS = 2
# For sizes that the model leaves open: networks that halve an image five times take multiples.
_PROBE_SIZE = 32
# Of outputs that are all 0.
_SMALLEST = 1e-30
# Numbers in [0, 1) that are spread evenly, from any random generator's version: n * golden mod 1.
_GOLDEN = 0.6180339887498949


def probe_inputs(description: ModelDescription) -> list[np.ndarray]:
    """A fixed batch for a model: numbers in [0, 1), and of integers 0 and 1.

    Args:
        description: Of the model.
    """
    rows = description.rows or _PROBE_ROWS
    found = []
    for info in description.inputs:
        sizes = [_PROBE_SIZE if size is None else size for size in info.shape[1:]]
        count = rows * int(np.prod(sizes))
        values = (np.arange(1, count + 1) * _GOLDEN) % 1.0
        if np.dtype(info.dtype).kind in "iub":
            values = np.round(values)
        found.append(values.reshape(rows, *sizes).astype(info.dtype))
    return found


def largest_difference(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> float:
    """How far outputs are from others, relative to the largest magnitude of each.

    Args:
        found: The outputs.
        expected: The others, of the same names.

    Returns:
        `max |found - expected| / max |expected|`, the largest over the outputs.
    """
    largest = 0.0
    for name, reference in expected.items():
        ours, theirs = np.float64(reference), np.float64(found[name])
        if ours.shape != theirs.shape:
            return float("inf")
        scale = max(float(np.abs(ours).max(initial=0.0)), _SMALLEST)
        largest = max(largest, float(np.abs(ours - theirs).max(initial=0.0)) / scale)
    return largest


def shape_of(sizes: Any) -> tuple:
    """A shape with `None` for sizes that the protocols write as -1."""
    return tuple(None if int(size) < 0 else int(size) for size in sizes)

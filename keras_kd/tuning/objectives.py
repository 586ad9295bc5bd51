"""What a search looks for: a metric on validation data, and costs of the exported student."""

import dataclasses
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import keras

from keras_kd._utils import validation
from keras_kd._utils.validation import invalid
from keras_kd.export import to_tflite
from keras_kd.measurement.api import measure

MAX, MIN = "max", "min"
# Of the exported file, and how a sample of it is counted.
COSTS = {"bytes": "bytes", "macs": "multiply-adds of a sample", "latency_ms": "ms for a sample"}
_BETTER_HIGH = (
    *("accuracy", "acc", "auc", "precision", "recall", "f1", "fbeta", "iou", "bleu", "rouge"),
    *("top_k", "cosine_similarity", "pearson", "concordance", "r2"),
)
_BETTER_LOW = (
    *("loss", "error", "mae", "mse", "rmse", "perplexity", "crossentropy", "divergence"),
    *("hinge", "logcosh", "wer", "cer"),
)


@dataclasses.dataclass(frozen=True)
class Objective:
    """One thing that a search looks for.

    Attributes:
        name: As the results call it: of a metric without `val_`.
        direction: `"max"` or `"min"`.
    """

    name: str
    direction: str

    @property
    def is_cost(self) -> bool:
        """Whether it is a cost of the exported file."""
        return self.name in COSTS

    @property
    def entry(self) -> str:
        """The entry of a metric in the history of `fit`."""
        return f"val_{self.name}"

    def gain(self, new: float, old: float) -> float:
        """By how much a value is better than another one."""
        return new - old if self.direction == MAX else old - new


def read(given: Any, measured: dict[str, Any]) -> list[Objective]:
    """The objectives that `tune` was given; without any the accuracy, or else the loss.

    Args:
        given: What `tune` was given.
        measured: `{metric: value}` of an evaluation.

    Raises:
        ValueError: They are wrong, or twice the same, or none is a metric.
    """
    if given is None:
        given = "accuracy" if "accuracy" in measured else "loss"
    if isinstance(given, str):
        given = [given]
    if isinstance(given, (list, tuple)):
        named = {_named(each): None for each in given}
        if len(named) < len(given):
            raise ValueError(f"`objective` names the same twice: {list(given)}.")
    elif isinstance(given, dict):
        named = {_named(name): direction for name, direction in given.items()}
    else:
        named = {}
    if not named:
        raise invalid(
            "objective",
            "a metric such as 'accuracy', a list such as ['accuracy', 'bytes', 'latency_ms'], or a "
            "dict with directions, {'my_score': 'max'}",
            repr(given),
        )
    for name in named:
        if name not in COSTS:
            _check_measured(name, measured)
    found = [Objective(name, _direction(name, way)) for name, way in named.items()]
    if found[0].is_cost:
        raise ValueError(
            f"The first objective must be a metric on validation data. Received: {list(named)}: "
            "the cheapest student is the one that knows nothing."
        )
    if sum(not each.is_cost for each in found) > 1:
        raise ValueError(
            f"`objective` takes one metric, and costs of {list(COSTS)}. Received: {list(named)}"
        )
    return found


def _named(name: Any) -> str:
    validation.text("objective", name, "names of metrics and costs")
    return name.removeprefix("val_")


def _direction(name: str, given: Any) -> str:
    if name in COSTS:
        if given not in (None, MIN):
            raise ValueError(f"`objective`: {name!r} is a cost, and costs are 'min'.")
        return MIN
    if given is not None:
        return validation.one_of(f"objective[{name!r}]", given, (MAX, MIN))
    if any(part in name for part in _BETTER_LOW):
        return MIN
    if any(part in name for part in _BETTER_HIGH):
        return MAX
    raise ValueError(
        f"`objective`: whether more of {name!r} is better is not known. Say so: "
        f"objective={{{name!r}: 'max'}}, or 'min'."
    )


def _check_measured(name: str, measured: dict[str, Any]) -> None:
    if name not in measured:
        raise ValueError(
            f"`objective` is {name!r}, which validation does not measure. It measures "
            f"{sorted(measured)}, and there are the costs {list(COSTS)}. Name one of them, or give "
            "compile_model a metric of that name."
        )


class Costs:
    """Measures what an exported student costs on this machine.

    Args:
        objectives: All of the search's.
        validation_data: A batched dataset: whose samples are run.
        export: A function of a student and a path that writes the file there, or `None`: float
            TFLite.
    """

    def __init__(
        self, objectives: list[Objective], validation_data: Any, export: Callable | None
    ) -> None:
        self._names = [each.name for each in objectives if each.is_cost]
        self._data = validation_data.take(1)
        self._export = export or _to_tflite
        if self._names:
            validation.needs("ai_edge_litert", "A cost of the exported student", "export")
        if export is not None and not self._names:
            raise ValueError(
                f"`export` writes the file whose costs are objectives, and there are none of "
                f"{list(COSTS)} in `objective`. Add one, or leave `export` out."
            )

    def of(self, student: keras.Model) -> dict[str, float]:
        """`{cost: value}` of a student."""
        if not self._names:
            return {}
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "student.tflite"
            written = self._export(student, path)
            is_path = isinstance(written, (str, pathlib.Path))
            file = pathlib.Path(written) if is_path and not path.exists() else path
            if not file.is_file():
                raise ValueError(f"`export` wrote no file at {path}, and returned no path of one.")
            latency = "latency_ms" in self._names
            found = measure(file, self._data, latency=latency, verbose=0)
        values: dict[str, Any] = {name: found.size.get(name) for name in ("bytes", "macs")}
        if found.latency is not None:
            values["latency_ms"] = found.latency["median_us"] / 1000
        missing = [name for name in self._names if values.get(name) is None]
        if missing:
            raise ValueError(f"{missing} of the exported file is not known: {found.notes}")
        return {name: float(values[name]) for name in self._names}


def _to_tflite(student, path):
    to_tflite(student, path, verbose=0)

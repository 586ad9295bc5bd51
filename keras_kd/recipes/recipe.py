"""`Recipe` and `Stage`: a paper's way to distill, as plain losses and arguments."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import keras

from keras_kd._utils import tables, validation
from keras_kd.losses import DistillationLoss
from keras_kd.models import paths
from keras_kd.pairing import pair_layers
from keras_kd.taps import attention, tap
from keras_kd.training.distiller import Distiller

COLUMNS = ("stage", "loss", "weight", "teacher", "student")


@dataclasses.dataclass
class Stage:
    """One training of a recipe; all of it may be changed before `distiller` is called.

    Attributes:
        name: What it trains.
        teacher: The teacher.
        student: The student.
        losses: A list of `keras_kd.losses.DistillationLoss`.
        arguments: Of `keras_kd.Distiller`, such as `alpha`, `beta` and `mask_input`.
        advice: What the paper trained with, such as `{"learning_rate": 5e-4}`: for the user's
            `compile` and `fit`; nothing reads it.
    """

    name: str
    teacher: Any
    student: keras.Model
    losses: list[DistillationLoss]
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
    advice: dict[str, Any] = dataclasses.field(default_factory=dict)

    def distiller(self, **changes: Any) -> Distiller:
        """A new `keras_kd.Distiller` of the stage, to be compiled and fitted.

        Args:
            **changes: Arguments of `Distiller` in place of those of the stage.
        """
        return Distiller(self.teacher, self.student, self.losses, **{**self.arguments, **changes})


@dataclasses.dataclass
class Recipe:
    """A paper's way to distill: stages, one after the other, over the same student.

    `print` and a notebook show it as a table. A recipe of one stage makes its distiller itself.

    Attributes:
        name: Of the recipe.
        paper: Its address.
        stages: A list of `Stage`.
    """

    name: str
    paper: str
    stages: list[Stage]

    def distiller(self, **changes: Any) -> Distiller:
        """The distiller of the only stage; see `Stage.distiller`.

        Raises:
            ValueError: There are several stages.
        """
        if len(self.stages) != 1:
            names = [stage.name for stage in self.stages]
            raise ValueError(
                f"Recipe {self.name!r} has {len(self.stages)} stages: {names}. Train them in this "
                "order: for stage in recipe.stages: distiller = stage.distiller()."
            )
        return self.stages[0].distiller(**changes)

    def __iter__(self) -> Iterator[Stage]:
        return iter(self.stages)

    def cells(self) -> list[list[str]]:
        """The table: the heads, and a line for each loss."""
        rows = [
            [stage.name, loss.name, f"{loss.weight:g}", *_layers_of(loss)]
            for stage in self.stages
            for loss in stage.losses
        ]
        return [list(COLUMNS), *rows]

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.paper}", *tables.lines_of(self.cells())]
        for stage in self.stages:
            given = {**stage.arguments, **stage.advice}
            lines.append(f"{stage.name}: " + ", ".join(f"{k}={v!r}" for k, v in given.items()))
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return tables.inline(tables.table(self.cells()))


def _layers_of(loss: DistillationLoss) -> list[str]:
    layers = loss.teacher_layer, loss.student_layer
    return ["" if each is None else _named(each) for each in layers]


def _named(layer: Any) -> str:
    return ", ".join(map(str, layer)) if isinstance(layer, tuple) else str(layer)


def block_pairs(
    teacher: keras.Model, student: keras.Model, pattern: str = "*"
) -> list[tuple[Any, Any]]:
    """Each block of the student with the teacher's at the same depth; the last ones meet.

    Args:
        teacher: A model of blocks.
        student: A model of blocks.
        pattern: Only blocks whose path matches.

    Raises:
        ValueError: They have no blocks.
    """
    validation.model("teacher", teacher)
    validation.model("student", student)
    return list(pair_layers(teacher, student, "depth", count=1000, pattern=pattern, print_fn=None))


def attention_pair(teacher: keras.Model, student: keras.Model, pair: tuple) -> tuple[Any, Any]:
    """The attention layers inside of two blocks; of several in one the first, over its own tokens.

    Raises:
        ValueError: A block has none.
    """
    found = []
    for model, block in zip((teacher, student), pair, strict=True):
        path, layer = tap.resolve(model, block)
        inner = next(
            (child for _, _, child in paths.walk(layer) if attention.gives_scores(child)),
            layer if attention.gives_scores(layer) else None,
        )
        if inner is None:
            raise ValueError(
                f"Block {str(path)!r} of model {model.name!r} has no attention whose scores can be "
                "read: keras_kd.taps.summary(model) lists what has. Name pairs of layers yourself, "
                "and take the losses of the recipe one by one."
            )
        found.append(paths.path_of(model, inner))
    return found[0], found[1]


def mask_of(student: keras.Model, mask_input: str | None) -> dict[str, Any]:
    """`{"mask_input": name}` for losses and distiller, or `{}` where there is none.

    Args:
        student: The student.
        mask_input: As the user gave it; `None`: `"padding_mask"`, if the student has that input.
    """
    names = [each.name for each in getattr(student, "inputs", None) or []]
    if mask_input is None:
        mask_input = "padding_mask" if "padding_mask" in names else None
    return {} if mask_input is None else {"mask_input": mask_input}

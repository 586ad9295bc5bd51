"""How a model of KerasHub is shrunk: its configuration, and what of its weights goes where."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from keras_kd._utils import tables, validation
from keras_kd._utils.validation import invalid
from keras_kd.models import paths
from keras_kd.students.hub import axes
from keras_kd.students.hub.families import (
    backbone_of,
    check_not_quantized,
    config_of,
    family_of,
    stacks_of,
)
from keras_kd.students.hub.ranking import Ranking
from keras_kd.students.hub.selection import Selection, chosen_blocks

COLUMNS = ("layer", "student_layer", "teacher_parameters", "student_parameters", "how")


class _Source(NamedTuple):
    """The teacher's weight that one of the student comes from, and what of each axis stays."""

    key: axes.WeightKey
    weight: axes.Weight
    kept: tuple

    @property
    def shape(self):
        sizes = zip(self.weight.variable.shape, self.kept, strict=True)
        return tuple(size if kept is None else len(kept) for size, kept in sizes)

    @property
    def is_whole(self):
        return self.shape == tuple(self.weight.variable.shape)

    def value(self) -> np.ndarray:
        """The student's weight."""
        value = axes.value_of(self.weight)
        for axis, kept in enumerate(self.kept):
            if kept is not None and len(kept) < value.shape[axis]:
                value = np.take(value, kept, axis=axis)
        return value


class HubShrinkage:
    """How a backbone or a task is shrunk; see `keras_kd.students.shrink` for the arguments."""

    def __init__(
        self,
        teacher: Any,
        depth: float,
        width: float,
        copy: str | None,
        layers: Any,
        rank: str,
        data: Any,
        vocabulary: Any,
        lora_rank: int | None,
    ) -> None:
        if copy == "average" and width < 1:
            raise invalid("copy", "'slice' or None for a model of KerasHub", repr(copy))
        backbone = backbone_of(teacher)
        self._family = family_of(backbone)
        check_not_quantized(teacher)
        self._teacher, self._copy, self._lora_rank = teacher, copy, lora_rank
        self._config, self._vocabulary = config_of(backbone, self._family), vocabulary
        sizes = axes.sizes_of(self._config, self._family)
        if vocabulary is not None:
            vocabulary.check_size(sizes.words, f"model {teacher.name!r}")
        small = axes.narrowed(sizes, self._family, width)
        if width < 1 and small == sizes:
            raise ValueError(
                f"Nothing of model {teacher.name!r} can be narrowed to width={width}: it has "
                f"{sizes.heads} heads, which stay whole. Pass width=1.0, or a smaller one."
            )
        stacks = stacks_of(backbone, self._family)
        counts = {name: len(blocks) for name, blocks in stacks.items()}
        changes_shapes = width < 1 or vocabulary is not None or rank == "activation"
        roles = axes.roles_of(teacher, self._config, counts, self._family) if changes_shapes else {}
        ranking = Ranking(teacher, roles, self._family, data) if rank == "activation" else None
        scores = None if ranking is None else ranking.blocks
        self.blocks = chosen_blocks(stacks, self._family, layers, depth, scores)
        if depth < 1 and all(len(self.blocks[name]) == counts[name] for name in counts):
            raise ValueError(
                f"Nothing of model {teacher.name!r} can be removed for depth={depth}: of {counts} "
                "blocks all would stay. Pass a smaller depth, or `layers`."
            )
        words = None if vocabulary is None else vocabulary.kept
        self._small = small._replace(words=small.words if words is None else len(words))
        selection = Selection(sizes, self._small, self._family, ranking, words)
        self._known = axes.weights_of(teacher, self._family)
        self._sources = {
            key: self._source(key, roles.get(key), selection)
            for key in self._known
            if not key.stack or key.block < len(self.blocks[key.stack])
        }

    def _source(self, key, roles, selection):
        """Of a weight of the student, whose blocks are made like the teacher's first ones."""
        moved = key.moved(self.blocks)
        # What the first block of a stack alone has, all blocks use.
        moved = moved if moved in self._known else key
        weight = self._known[moved]
        roles = roles or (None,) * len(weight.variable.shape)
        return _Source(moved, weight, tuple(selection.kept(role, moved) for role in roles))

    def student(self, name: str | None) -> Any:
        """The model, with the weights it takes from the teacher."""
        counts = {stack: len(numbers) for stack, numbers in self.blocks.items()}
        student = axes.rebuilt(
            self._teacher,
            axes.with_sizes(self._config, self._family, self._small),
            counts,
            self._family,
            with_preprocessor=self._vocabulary is None,
            name=name or f"{self._teacher.name}_student",
        )
        made = axes.weights_of(student, self._family)
        self._check(student, made)
        if self._copy is not None:
            for key, source in self._sources.items():
                made[key].variable.assign(source.value())
        if self._lora_rank is not None:
            backbone_of(student).enable_lora(self._lora_rank)
        return student

    def _check(self, student, made):
        """Raises unless the student has the weights that were planned."""
        expected = {key: source.shape for key, source in self._sources.items()}
        received = {key: tuple(weight.variable.shape) for key, weight in made.items()}
        for key in {**expected, **received}:
            if expected.get(key) != received.get(key):
                raise ValueError(
                    f"Layer {made.get(key, self._known.get(key)).layer.path!r} of "
                    f"{student.name!r}, a {type(student).__name__}, has a weight of shape "
                    f"{received.get(key)}, expected {expected.get(key)}: it depends on its "
                    "configuration in a way that keras_kd does not know. Build this student "
                    "yourself."
                )

    def rows(self) -> tables.Rows:
        """What `keras_kd.students.plan` returns: a line for each block, and each layer around."""
        places: dict[Any, list] = {}
        for key in self._known:
            places.setdefault(_place(key), []).append(key)
        rows = []
        for place, keys in places.items():
            new = self._new_place(place)
            kept = [key for key in self._sources if _place(key) == new]
            row = (
                self._path(place),
                None if new is None else self._path(new),
                sum(_size(self._known[key].variable.shape) for key in keys),
                sum(_size(self._sources[key].shape) for key in kept),
                self._how(new, kept),
            )
            rows.append(dict(zip(COLUMNS, row, strict=True)))
        return tables.Rows(rows, COLUMNS, _text)

    def _new_place(self, place):
        stack, block, path = place
        if not stack:
            return place
        numbers = self.blocks[stack]
        return (stack, numbers.index(block), path) if block in numbers else None

    def _path(self, place):
        """Of a block or a layer, in models whose blocks have their names in order."""
        stack, block, path = place
        if stack:
            blocks = stacks_of(backbone_of(self._teacher), self._family)[stack]
            return paths.path_of(self._teacher, blocks[block])
        head, _, rest = path.partition("/")
        if head != axes.BACKBONE:
            return path
        backbone = backbone_of(self._teacher)
        if backbone is self._teacher:
            return rest
        return f"{paths.path_of(self._teacher, backbone)}/{rest}"

    def _how(self, new, kept):
        if new is None:
            return "removed"
        if self._copy is None:
            return "new"
        return "copied" if all(self._sources[key].is_whole for key in kept) else "sliced"

    def table(self, student: Any) -> Iterator[str]:
        """The lines of the table of `plan`, and of the parameters that are left."""
        yield from tables.lines_of(self.rows().cells())
        counts = self._teacher.count_params(), student.count_params()
        yield "parameters: {:,} -> {:,}".format(*counts)
        preprocessor = getattr(self._teacher, "preprocessor", None)
        if self._vocabulary is not None and preprocessor is not None:
            yield (
                "preprocessor: left out, since its tokenizer makes the teacher's ids; see "
                "keras_kd.students.VocabularyMap"
            )


def _place(key):
    """What has a line: a block, or a layer directly in the backbone or the task."""
    if key.stack:
        return key.stack, key.block, ""
    parts = key.path.split("/")
    return "", -1, "/".join(parts[: 2 if parts[0] == axes.BACKBONE else 1])


def _size(shape):
    return int(np.prod(shape, dtype="int64"))


def _text(value):
    if value is None:
        return ""
    return f"{value:,}" if validation.is_integer(value) else str(value)

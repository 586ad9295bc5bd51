"""How a model of KerasHub is shrunk: its configuration, and what of its weights goes where."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from keras_kd._utils import tables, validation
from keras_kd._utils.validation import invalid
from keras_kd.models import paths
from keras_kd.students import budgets
from keras_kd.students.activation import input_batches
from keras_kd.students.hub import axes, fitting
from keras_kd.students.hub.families import (
    backbone_of,
    check_not_quantized,
    config_of,
    family_of,
    stacks_of,
)
from keras_kd.students.hub.magnitude import MagnitudeRanking
from keras_kd.students.hub.ranking import Ranking
from keras_kd.students.hub.selection import Selection, chosen_blocks
from keras_kd.students.options import Options

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


class _Planned(NamedTuple):
    """A student: the teacher's blocks that stay, its sizes, and where its weights come from."""

    blocks: dict[str, list[int]]
    sizes: axes.Sizes
    sources: dict[axes.WeightKey, _Source]


class HubShrinkage:
    """How a backbone or a task is shrunk.

    Args:
        teacher: A backbone or a task.
        options: The `Options`.
    """

    def __init__(self, teacher: Any, options: Options) -> None:
        narrows = options.share("width") < 1 or options.budget is not None
        if options.copy == "average" and narrows:
            raise invalid("copy", "'slice' or None for a model of KerasHub", repr(options.copy))
        backbone = backbone_of(teacher)
        self._family = family_of(backbone)
        check_not_quantized(teacher)
        self._teacher, self._options = teacher, options
        self._config, self._vocabulary = config_of(backbone, self._family), options.vocabulary
        self._sizes = axes.sizes_of(self._config, self._family)
        words = None
        if self._vocabulary is not None:
            self._vocabulary.check_size(self._sizes.words, f"model {teacher.name!r}")
            words = self._vocabulary.kept
        self._words = words
        # The teacher's, with the words that stay.
        self._most = self._sizes._replace(words=self._sizes.words if words is None else len(words))
        self._stacks = stacks_of(backbone, self._family)
        self._counts = {name: len(blocks) for name, blocks in self._stacks.items()}
        self._known = axes.weights_of(teacher, self._family)
        self._check_heads()
        needs_roles = (
            options.share("width") < 1
            or words is not None
            or options.rank != "position"
            or options.budget is not None
        )
        self._roles = (
            axes.roles_of(teacher, self._config, self._counts, self._family) if needs_roles else {}
        )
        self._ranking = self._ranked()
        self._importance = fitting.Importance(self._ranking, self._sizes, self._counts)
        self._sample: Any = None
        self._costs: Any = None
        if options.shows_costs:
            self._sample, self._costs = self._counted()
        self._plan = self._planned(self._given() if options.budget is None else self._fitted())

    @property
    def blocks(self) -> dict[str, list[int]]:
        """`{stack: the teacher's blocks that stay}`."""
        return self._plan.blocks

    def _check_heads(self):
        width = self._options.share("width")
        if width < 1 and axes.narrowed(self._sizes, self._family, width) == self._sizes:
            raise ValueError(
                f"Nothing of model {self._teacher.name!r} can be narrowed to width={width}: it has "
                f"{self._sizes.heads} heads, which stay whole. Pass width=1.0, or a smaller one."
            )

    def _ranked(self):
        if self._options.rank == "activation":
            return Ranking(self._teacher, self._roles, self._family, self._options.data)
        if self._options.rank == "magnitude":
            return MagnitudeRanking(self._teacher, self._roles, self._family, self._sizes)
        return None

    def _counted(self):
        """Inputs of one sample where they are known, and the `Costs`."""
        budget, data, macs, sample = self._options.budget, self._options.data, {}, None
        if budget is not None and budget.reads_inputs:
            batches = None if data is None else input_batches(self._teacher, data)
            sample = budgets.sample_of(self._teacher, batches)
            macs = budgets.macs_by_layer(self._teacher, sample)
        arguments = (self._known, self._roles, self._family, self._sizes, self._stacks)
        return sample, fitting.Costs(*arguments, macs)

    def _given(self):
        """The plan by depth and width."""
        blocks, depth = self._chosen(self._options.share("depth")), self._options.share("depth")
        if depth < 1 and all(len(blocks[name]) == self._counts[name] for name in blocks):
            raise ValueError(
                f"Nothing of model {self._teacher.name!r} can be removed for depth={depth}: of "
                f"{self._counts} blocks all would stay. Pass a smaller depth, or `layers`."
            )
        width = self._options.share("width")
        return fitting.Plan(blocks, axes.narrowed(self._most, self._family, width))

    def _chosen(self, depth):
        scores = None if self._ranking is None else self._ranking.blocks
        return chosen_blocks(self._stacks, self._family, self._options.layers, depth, scores)

    def _fitted(self):
        """The plan that meets the budget."""
        options = self._options
        depths = {i / count for count in self._counts.values() for i in range(1, count + 1)}
        if options.layers is not None or options.depth is not None:
            depths = {options.share("depth")}
        chosen: list = []
        for depth in sorted(depths, reverse=True):
            blocks = self._chosen(depth)
            chosen += [blocks] if blocks not in chosen else []
        return fitting.fitted(
            chosen,
            options.width,
            self._most,
            self._family,
            self._costs,
            self._importance,
            options.budget,
            options.rank != "position",
            self._teacher.name,
            lambda plan: self._made(self._planned(plan), None),
            self._sample,
        )

    def _planned(self, plan):
        """With the weights that the student's come from."""
        selection = Selection(self._sizes, plan.sizes, self._family, self._ranking, self._words)
        sources = {
            key: self._source(key, plan.blocks, selection)
            for key in self._known
            if not key.stack or key.block < len(plan.blocks[key.stack])
        }
        return _Planned(plan.blocks, plan.sizes, sources)

    def _source(self, key, blocks, selection):
        """Of a weight of the student, whose blocks are made like the teacher's first ones."""
        moved = key.moved(blocks)
        # What the first block of a stack alone has, all blocks use.
        moved = moved if moved in self._known else key
        weight = self._known[moved]
        roles = self._roles.get(key) or (None,) * len(weight.variable.shape)
        return _Source(moved, weight, tuple(selection.kept(role, moved) for role in roles))

    def student(self, name: str | None) -> Any:
        """The model, with the weights it takes from the teacher."""
        student = self._made(self._plan, name)
        if self._options.lora_rank is not None:
            backbone_of(student).enable_lora(self._options.lora_rank)
        return student

    def _made(self, plan, name):
        student = axes.rebuilt(
            self._teacher,
            axes.with_sizes(self._config, self._family, plan.sizes),
            {stack: len(numbers) for stack, numbers in plan.blocks.items()},
            self._family,
            with_preprocessor=self._vocabulary is None,
            name=name or f"{self._teacher.name}_student",
        )
        made = axes.weights_of(student, self._family)
        self._check(student, made, plan.sources)
        if self._options.copy is not None:
            for key, source in plan.sources.items():
                made[key].variable.assign(source.value())
        return student

    def _check(self, student, made, sources):
        """Raises unless the student has the weights that were planned."""
        expected = {key: source.shape for key, source in sources.items()}
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
            places.setdefault(key.line, []).append(key)
        columns = COLUMNS + (budgets.COLUMNS if self._options.shows_costs else ())
        rows = []
        for place, keys in places.items():
            new = self._new_place(place)
            kept = [key for key in self._plan.sources if key.line == new]
            row = [
                self._path(place),
                None if new is None else self._path(new),
                sum(_size(self._known[key].variable.shape) for key in keys),
                sum(_size(self._plan.sources[key].shape) for key in kept),
                self._how(new, kept),
            ]
            if self._options.shows_costs:
                row += self._figures(place, new)
            rows.append(dict(zip(columns, row, strict=True)))
        return tables.Rows(rows, columns, _text)

    def _figures(self, place, new):
        """Bytes and multiply-adds before and after, and the importance that goes."""
        one = self._costs.at(place, self._sizes)
        two = budgets.Cost(0, 0) if new is None else self._costs.at(place, self._plan.sizes)
        macs = (None, None) if self._sample is None else (round(one.macs), round(two.macs))
        shares = self._importance.of_sizes(self._plan.sizes)
        if new is None:
            lost = self._importance.of_blocks(place[0], [place[1]])
        else:
            # Outside of blocks there are hidden channels alone.
            lost = 1 - budgets.channel_share(shares if place[0] else shares[:1])
        return [round(one.bytes), round(two.bytes), *macs, round(lost, 4)]

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
        if self._options.copy is None:
            return "new"
        return "copied" if all(self._plan.sources[key].is_whole for key in kept) else "sliced"

    def table(self, student: Any) -> Iterator[str]:
        """The lines of the table of `plan`, and of the parameters that are left."""
        yield from tables.lines_of(self.rows().cells())
        counts = self._teacher.count_params(), student.count_params()
        yield "parameters: {:,} -> {:,}".format(*counts)
        if self._options.shows_costs:
            yield from budgets.lines(self._teacher, student, self._sample)
        preprocessor = getattr(self._teacher, "preprocessor", None)
        if self._vocabulary is not None and preprocessor is not None:
            yield (
                "preprocessor: left out, since its tokenizer makes the teacher's ids; see "
                "keras_kd.students.VocabularyMap"
            )


def _size(shape):
    return int(np.prod(shape, dtype="int64"))


def _text(value):
    if value is None:
        return ""
    return f"{value:,}" if validation.is_integer(value) else str(value)

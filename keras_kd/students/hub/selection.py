"""Which blocks, channels, heads, units and words of a teacher a student keeps."""

import itertools
from typing import Any

import numpy as np

from keras_kd._utils import validation
from keras_kd._utils.validation import invalid
from keras_kd.students import channels
from keras_kd.students.hub import axes
from keras_kd.students.hub.families import ONLY, Family, kinds_of

_OF_HEADS = (axes.HEADS, axes.KV_HEADS, axes.FLAT_HEADS)


class Selection:
    """The channels of each axis that stay.

    Args:
        teacher: The teacher's `Sizes`.
        student: The student's.
        family: Of the backbone.
        ranking: A `Ranking`, or `None`: evenly spread.
        words: The ids that stay, or `None`: all.
    """

    def __init__(
        self, teacher: Any, student: Any, family: Family, ranking: Any, words: Any
    ) -> None:
        self._teacher, self._student, self._family = teacher, student, family
        self._ranking = ranking
        self._words = np.arange(teacher.words) if words is None else words

    def kept(self, role: str | None, key: Any) -> np.ndarray | None:
        """Ascending numbers of the teacher's channels along an axis; `None`: all of them.

        Args:
            role: Of the axis.
            key: The `WeightKey` of the weight in the teacher.
        """
        if role in (None, axes.HEAD_DIM):
            return None
        if role == axes.WORDS:
            return self._words
        if role == axes.HIDDEN:
            scores = None if self._ranking is None else self._ranking.hidden
            return channels.largest(scores, self._teacher.hidden, self._student.hidden)
        if role in _OF_HEADS:
            return self._of_heads(role, self._scores(axes.HEADS, key))
        parts = 2 if role == axes.HALF else 1
        sizes = (each.intermediate // parts for each in (self._teacher, self._student))
        return channels.largest(self._scores(role, key), *sizes)

    def _of_heads(self, role, scores):
        one, two = self._teacher, self._student
        groups = one.heads // one.kv_heads
        if self._family.kv_heads is None:
            kv = heads = channels.largest(scores, one.heads, two.heads)
        else:
            by_group = None if scores is None else scores.reshape(one.kv_heads, groups)
            sums = None if by_group is None else by_group.sum(axis=1)
            kv = channels.largest(sums, one.kv_heads, two.kv_heads)
            each = two.heads // two.kv_heads
            of_key = [None] * one.kv_heads if by_group is None else by_group
            parts = [k * groups + channels.largest(of_key[k], groups, each) for k in kv]
            heads = np.concatenate(parts)
        if role == axes.KV_HEADS:
            return kv
        if role == axes.HEADS:
            return heads
        return (heads[:, None] * one.head_dim + np.arange(one.head_dim)).reshape(-1)

    def _scores(self, role, key):
        """Those of the innermost group that the weight is in; where blocks share heads, of all."""
        if self._ranking is None:
            return None
        inner = self._ranking.inner
        if role == axes.HEADS and self._family.shares_heads:
            return sum(
                value
                for (stack, *_, of), value in inner.items()
                if (stack, of) == (key.stack, role)
            )
        group = key.path
        while True:
            if (*key.place, group, role) in inner:
                return inner[(*key.place, group, role)]
            if not group:
                raise ValueError(
                    f"Nothing of block {key.block} reads the {role} of {key.path!r}, so it cannot "
                    "be ranked. Pass rank='position'."
                )
            group = group.rpartition("/")[0]


# Blocks.


def chosen_blocks(
    stacks: dict[str, list], family: Family, layers: Any, depth: float, scores: Any
) -> dict[str, list[int]]:
    """`{stack: numbers of the teacher's blocks that stay}`.

    Args:
        stacks: The teacher's blocks.
        family: Of the backbone.
        layers: A list of numbers, a dict of them by stack, or `None`.
        depth: The share of blocks that stay, where `layers` is `None`.
        scores: `{stack: scores}` of the blocks; `None`: evenly spread.
    """
    if layers is not None:
        given = _given(stacks, layers)
        for name, numbers in given.items():
            _check_kinds(name, stacks[name], numbers, family)
        return given
    found = {}
    for name, blocks in stacks.items():
        count = max(1, int(depth * len(blocks) + 0.5))
        costs = _costs(len(blocks), count, None if scores is None else scores[name])
        found[name] = _best(kinds_of(blocks, family), costs)
    return found


def _given(stacks, layers):
    if not isinstance(layers, dict):
        return {name: numbers_of(layers, len(blocks)) for name, blocks in stacks.items()}
    if ONLY in stacks or not layers or not set(layers) <= set(stacks):
        known = (
            "a list of numbers of blocks: the model has one kind of them"
            if ONLY in stacks
            else f"a list of numbers of blocks, or a dict of them for {sorted(stacks)}"
        )
        raise invalid("layers", known, repr(layers))
    return {
        name: numbers_of(layers[name], len(blocks), f" of the {name}")
        if name in layers
        else list(range(len(blocks)))
        for name, blocks in stacks.items()
    }


def numbers_of(layers: Any, count: int, where: str = "") -> list[int]:
    """Numbers of blocks from 0, where -1 is the last one.

    Args:
        layers: A list of rising numbers.
        count: How many blocks there are.
        where: In words, for the message.
    """
    listed = layers.tolist() if isinstance(layers, np.ndarray) else layers
    is_list = isinstance(listed, (list, tuple, range)) and len(listed) > 0
    expected = f"a list of numbers of the {count} blocks{where}, from 0 (or -1, the last one) on"
    if not is_list or not all(validation.is_integer(each) for each in listed):
        raise invalid("layers", expected, repr(layers))
    if any(not -count <= each < count for each in listed):
        raise invalid("layers", f"{expected} to {count - 1}", repr(layers))
    numbers = [int(each) + count if each < 0 else int(each) for each in listed]
    if any(one >= two for one, two in itertools.pairwise(numbers)):
        raise invalid("layers", f"{expected}, rising, each once", repr(layers))
    return numbers


def _check_kinds(name, blocks, numbers, family):
    kinds = kinds_of(blocks, family)
    for new, old in enumerate(numbers):
        if kinds[old] != kinds[new]:
            listed = ", ".join(
                f"{key}={kinds[new][key]!r} instead of {value!r}"
                for key, value in kinds[old].items()
                if kinds[new][key] != value
            )
            costs = np.array([[abs(i - number) for i in range(len(blocks))] for number in numbers])
            raise ValueError(
                f"Block {old} of the teacher would become block {new} of the student, which its "
                f"class makes with {listed}. Pass layers of the kinds that follow each other in "
                f"the {name}, such as layers={_best(kinds, costs)}."
            )


def _costs(count, kept, scores):
    """`[kept, count]`: of a block as the one of a number in the student."""
    if scores is not None:
        return np.tile(-scores, (kept, 1))
    ideal = channels.spread(count, kept)
    return np.abs(np.arange(count)[None, :] - ideal[:, None]).astype("float64")


def _best(kinds, costs):
    """Rising numbers of blocks of the least cost, each of the kind of the one it replaces."""
    kept, count = costs.shape
    allowed = np.array([[kinds[i] == kinds[j] for i in range(count)] for j in range(kept)])
    costs = np.where(allowed, costs, np.inf)
    total = np.full((kept + 1, count + 1), np.inf)
    total[0] = 0.0
    for j in range(kept):
        for i in range(count):
            total[j + 1, i + 1] = min(total[j + 1, i], total[j, i] + costs[j, i])
    numbers: list[int] = []
    i = count
    for j in range(kept, 0, -1):
        # Of equal ones the last: the end of a model stays its end.
        while total[j, i] < total[j - 1, i - 1] + costs[j - 1, i - 1]:
            i -= 1
        i -= 1
        numbers.insert(0, i)
    return numbers

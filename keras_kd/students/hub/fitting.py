"""The student of a model of KerasHub that meets a budget: blocks, heads, hidden channels and units.

Heads are whole and blocks are equal, so what they leave of the budget goes to the units between
the layers of the feed-forward networks, one by one, then to hidden channels where they are free.
"""

import bisect
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from keras_kd.models import paths
from keras_kd.students import budgets
from keras_kd.students.budgets import Cost
from keras_kd.students.hub import axes
from keras_kd.students.hub.families import Family


class Plan(NamedTuple):
    """A student: `{stack: the teacher's blocks that stay}`, and its sizes."""

    blocks: dict[str, list[int]]
    sizes: axes.Sizes


class Costs:
    """What students cost, without making them.

    Args:
        known: The teacher's weights by their keys.
        roles: The role of each axis of each weight.
        family: Of the backbone.
        sizes: Of the backbone.
        stacks: Its blocks.
        macs: What `budgets.macs_by_layer` counted; empty: not counted.
    """

    def __init__(
        self,
        known: dict,
        roles: dict,
        family: Family,
        sizes: axes.Sizes,
        stacks: dict[str, list],
        macs: dict,
    ) -> None:
        self._family, self._known = family, known
        # By place, and there by the roles of the axes: costs for a product of 1.
        self._terms: dict[tuple, dict[tuple, np.ndarray]] = {}
        kernels: dict[int, list] = {}
        for key, (layer, weight) in known.items():
            shape = weight.shape
            if len(shape) > 1:
                kernels.setdefault(id(layer), []).append((key, shape))
            self._add(self._place(key), roles[key], shape, _of_weight(weight))
        for layer, counted in macs.items():
            elements = sum(math.prod(shape) for _, shape in kernels.get(layer, ()))
            for key, shape in kernels.get(layer, ()):
                part = counted * math.prod(shape) / elements
                self._add(self._place(key), roles[key], shape, np.array([0.0, part]))
            if not elements:
                # In blocks these are products of queries, keys and values.
                place = _place_of(layer, stacks)
                narrow = {axes.HEADS: sizes.heads} if place[0] else {}
                self._add(place, tuple(narrow), (*narrow.values(),), np.array([0.0, counted]))

    def _place(self, key):
        """Of a weight: that of its line in a plan, or of what the first block alone has."""
        is_alone = key.stack and key.block == 0 and key._replace(block=1) not in self._known
        has_more = any(x.stack == key.stack and x.block == 1 for x in self._known)
        return (key.stack, -1, "") if is_alone and has_more else key.line

    def _add(self, place, roles, shape, cost):
        pairs = [(role, size) for role, size in zip(roles, shape, strict=True) if role is not None]
        kept = tuple(role for role, _ in pairs)
        of_place = self._terms.setdefault(place, {})
        each = cost / math.prod(size for _, size in pairs)
        of_place[kept] = of_place.get(kept, np.zeros(2)) + each

    def of(self, plan: Plan) -> Cost:
        """Of a student."""
        kept = {(stack, number) for stack, numbers in plan.blocks.items() for number in numbers}
        places = [place for place in self._terms if place[1] == -1 or place[:2] in kept]
        return self._sum(places, plan.sizes)

    def at(self, line: tuple, sizes: axes.Sizes) -> Cost:
        """Of a line of a plan; see `axes.WeightKey.line`."""
        return self._sum([line, (line[0], -1, "")] if line[1] == 0 else [line], sizes)

    def _sum(self, places, sizes):
        by_role = sizes.of_roles(self._family)
        found = np.zeros(2)
        for place in places:
            for roles, cost in self._terms.get(place, {}).items():
                found = found + cost * math.prod(by_role[role] for role in roles)
        return Cost(*found.tolist())


def _of_weight(weight):
    return np.array([math.prod(weight.shape) * budgets.item_bytes(weight), 0.0])


def _place_of(layer, stacks):
    for stack, blocks in stacks.items():
        for i, block in enumerate(blocks):
            if layer in {id(block), *(id(each) for _, _, each in paths.walk(block))}:
                return stack, i, ""
    return "", -1, ""


class Importance:
    """What shares of the importance of blocks and channels stay.

    Args:
        ranking: A ranking, or `None`: all count the same.
        teacher: The teacher's `Sizes`.
        counts: `{stack: number of blocks}`.
    """

    def __init__(self, ranking: Any, teacher: axes.Sizes, counts: dict[str, int]) -> None:
        self._ranking, self._teacher, self._counts = ranking, teacher, counts

    def of_blocks(self, stack: str, numbers: list[int]) -> float:
        """Of some blocks in all blocks of a stack."""
        scores = None if self._ranking is None else self._ranking.blocks[stack]
        if scores is None or not scores.sum():
            return len(numbers) / self._counts[stack]
        return float(scores[numbers].sum() / scores.sum())

    def of_sizes(self, sizes: axes.Sizes) -> list[float]:
        """Of hidden channels, heads and units."""
        one, ranking = self._teacher, self._ranking
        counts = {
            axes.HEADS: (sizes.heads, one.heads),
            axes.INTERMEDIATE: (sizes.intermediate, one.intermediate),
        }
        hidden = _share(None if ranking is None else ranking.hidden, sizes.hidden, one.hidden)
        found = [hidden]
        for role, (count, size) in counts.items():
            inner = {} if ranking is None else ranking.inner
            groups = [scores for (*_, of), scores in inner.items() if _is_of(of, role)]
            shares = [_share(scores, count, size) for scores in groups or [None]]
            found.append(float(np.mean(shares)))
        return found


def _is_of(role, wanted):
    return role == wanted or (role == axes.HALF and wanted == axes.INTERMEDIATE)


def _share(scores, count, size):
    if scores is None or not scores.sum():
        return count / size
    number = count * len(scores) // size
    return float(np.sort(scores)[::-1][:number].sum() / scores.sum())


def fitted(
    chosen: list[dict[str, list[int]]],
    width: float | None,
    sizes: axes.Sizes,
    family: Family,
    costs: Any,
    importance: Importance,
    budget: Any,
    is_ranked: bool,
    name: str,
    make: Callable[[Plan], Any],
    sample: Any,
) -> Plan:
    """The best plan that meets a budget.

    Args:
        chosen: The blocks that may stay, the most first.
        width: The share of channels that stays; `None`: it is searched.
        sizes: The teacher's, with the words that stay.
        family: Of the backbone.
        costs: The `Costs`.
        importance: The `Importance`.
        budget: The `Budget`.
        is_ranked: See `budgets.score`.
        name: Of the teacher.
        make: A function from a plan to the student.
        sample: Inputs of one sample, where they are read.
    """
    if width is not None:
        steps = [axes.narrowed(sizes, family, width)]
    else:
        shares = {i / n for n in (sizes.heads, sizes.kv_heads) for i in range(1, n + 1)}
        narrowed = (axes.narrowed(sizes, family, share) for share in sorted(shares))
        steps = list(dict.fromkeys(narrowed))
    tiniest = steps[0] if width is not None else _with_units(steps[0], family, 1)

    def score(plan):
        shares = importance.of_sizes(plan.sizes)
        kept = [importance.of_blocks(*each) for each in plan.blocks.items()]
        of_channels = budgets.channel_share(shares) if is_ranked else min(shares)
        return budgets.score(budgets.channel_share(kept), of_channels, is_ranked)

    def best(limits):
        plans = []
        for blocks, step in itertools.product(chosen, steps):
            plan = Plan(blocks, step)
            if width is None:
                plan = _filled(plan, sizes, family, lambda p: limits.fill(costs.of(p)))
            if limits.fill(costs.of(plan)) <= 1:
                plans.append(plan)
        close = [plan for plan in plans if limits.fill(costs.of(plan)) >= budgets.CLOSE]
        if not close:  # the steps of the model do not allow it
            return max(plans, key=lambda plan: limits.fill(costs.of(plan)), default=None)
        return max(close, key=score)

    least, most = Plan(chosen[-1], tiniest), Plan(chosen[0], steps[-1])
    found = budgets.Search(name, least, most, best, costs.of, make, sample)
    return budgets.meet(found, budget)


def _with_units(sizes, family, count):
    return sizes._replace(intermediate=count * (2 if family.halves else 1))


def _filled(plan, teacher, family, fill):
    """The most units, then the most hidden channels where they are free, that fit."""
    most = teacher.intermediate // (2 if family.halves else 1)

    def with_units(count):
        return plan._replace(sizes=_with_units(plan.sizes, family, count))

    units = bisect.bisect_right(range(1, most + 1), 1.0, key=lambda n: fill(with_units(n)))
    plan = with_units(max(units, 1))
    if family.head_dim is None or units < most:
        return plan

    def with_hidden(count):
        return plan._replace(sizes=plan.sizes._replace(hidden=count))

    more = range(plan.sizes.hidden, teacher.hidden + 1)
    extra = bisect.bisect_right(more, 1.0, key=lambda n: fill(with_hidden(n)))
    return with_hidden(more[max(extra, 1) - 1])

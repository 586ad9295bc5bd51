"""The student of a functional or sequential model that meets a budget.

Of each number of blocks the largest width that fits is found, what is dead goes, then single
channels come back, the most important per cost first. Among those that come close to the limit the
best one is taken.
"""

import bisect
import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from keras_kd.students import budgets, channels, costs
from keras_kd.students.budgets import Cost
from keras_kd.students.channels import Choice

# At most so many numbers of blocks are looked at, and so many of the best get single channels.
_DEPTHS, _FINISHED = 24, 4
# The share of the largest score below which a channel is dead.
_DEAD = 1e-6


@dataclasses.dataclass(frozen=True, eq=False)
class Cut:
    """A teacher that has lost blocks.

    Attributes:
        dropped: For each run the numbers of the blocks that go.
        widths: The `Widths` of what is left.
        scores: `{unit: a score for each channel}`; empty: not ranked.
        blocks: The share of blocks that stay, by importance.
        terms: Its `costs.Term`s.
    """

    dropped: tuple
    widths: Any
    scores: dict
    blocks: float
    terms: list

    def free_units(self) -> list[channels.Unit]:
        """The units that may lose channels, each once."""
        found: dict = {}
        for term in self.terms:
            for axis in term.axes:
                found.update(dict.fromkeys(u for u in channels.units(axis) if not u.fixed))
        return list(found)


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """A student: what is cut from the teacher, and its channels."""

    cut: Cut
    choice: Choice

    def cost(self) -> Cost:
        """What it costs, as it is predicted."""
        return costs.total(self.cut.terms, self.choice)


def kept_share(choice: Choice, unit: channels.Unit) -> float:
    """The share of a unit that stays, by importance; without scores of its channels."""
    count = choice.count(unit)
    scores = choice.scores.get(unit)
    if scores is None or not scores.sum():
        return count / unit.size
    return float(scores[channels.largest(scores, unit.size, count)].sum() / scores.sum())


def cuts_of(runs: Any, depth: float | None, make: Callable[[tuple], Cut], dropped: Callable) -> Any:
    """A `Cut` for each number of blocks, the deepest one first.

    Args:
        runs: The teacher's `Run`s.
        depth: The share of blocks that stay; `None`: all shares are tried.
        make: A function from `Cut.dropped` to the `Cut`.
        dropped: A function from a share of blocks to `Cut.dropped`.
    """
    shares = {i / len(run.blocks) for run in runs for i in range(1, len(run.blocks) + 1)} or {1.0}
    tried = sorted(shares, reverse=True) if depth is None else [depth]
    chosen = np.unique(np.linspace(0, len(tried) - 1, min(len(tried), _DEPTHS)).round())
    return [make(each) for each in dict.fromkeys(dropped(tried[int(i)]) for i in chosen)]


def fitted(
    cuts: list[Cut],
    width: float | None,
    average: bool,
    budget: Any,
    is_ranked: bool,
    name: str,
    make: Callable[[Plan], Any],
    sample: Any,
) -> Plan:
    """The best plan that meets a budget.

    Args:
        cuts: Of the teacher, the deepest one first.
        width: The share of channels that stays; `None`: it is searched.
        average: See `Choice`.
        budget: The `Budget`.
        is_ranked: See `budgets.score`.
        name: Of the teacher.
        make: A function from a plan to the student.
        sample: Inputs of one sample, where they are read.
    """
    ends = [
        [_plan(cut, share if width is None else width, average) for cut in cuts]
        for share in (1e-9, 1.0)
    ]
    for plan in ends[0]:
        plan.cut.widths.check(plan.choice)
    found = budgets.Search(
        name,
        least=min(ends[0], key=lambda plan: plan.cost()),
        most=max(ends[1], key=lambda plan: plan.cost()),
        best=lambda limits: _best(cuts, width, average, limits, is_ranked),
        cost=Plan.cost,
        make=make,
        sample=sample,
    )
    return budgets.meet(found, budget)


def _plan(cut, width, average):
    return Plan(cut, Choice(width, average, scores=cut.scores))


def _best(cuts, width, average, limits, is_ranked):
    plans = [_widest(cut, width, average, limits) for cut in cuts]
    plans = [plan for plan in plans if plan is not None]

    def score(plan):
        shares = [kept_share(plan.choice, unit) for unit in plan.cut.free_units()]
        return budgets.score(plan.cut.blocks, budgets.channel_share(shares), is_ranked)

    if width is None:
        plans = sorted(plans, key=score, reverse=True)[:_FINISHED]
        plans = [_finished(plan, limits) for plan in plans]
    close = [plan for plan in plans if limits.fill(plan.cost()) >= budgets.CLOSE]
    if not close:  # the steps of the model do not allow it
        return max(plans, key=lambda plan: limits.fill(plan.cost()), default=None)
    return max(close, key=score)


def _widest(cut, width, average, limits):
    """The plan of the largest width that fits, or `None`."""
    units = cut.free_units()
    if width is None and units:
        steps = sorted({i / unit.size for unit in units for i in range(1, unit.size + 1)})
    else:
        steps = [1.0 if width is None else width]

    def fill(share):
        return limits.fill(_plan(cut, share, average).cost())

    number = bisect.bisect_right(steps, 1.0, key=fill)
    return _plan(cut, steps[number - 1], average) if number else None


def _finished(plan, limits):
    """Gives single channels back, the most important per cost first, until the limit is close."""
    steps = _Steps(plan, limits)
    while limits.fill(steps.cost) < budgets.ENOUGH:
        options: list = []
        for group in steps.groups:
            more = steps.taken([(group, max(1, group[0].size // 128))])
            if more is not None and more.fill <= 1:
                added = limits.fill(
                    Cost(*(a - b for a, b in zip(more.cost, steps.cost, strict=True)))
                )
                options.append((more.gain / max(added, 1e-12), -len(options), more))
        if options:
            steps.take(max(options, key=lambda option: option[:2])[-1])
        elif limits.fill(steps.cost) >= budgets.CLOSE or not steps.exchange():
            break
    return dataclasses.replace(plan, choice=steps.choice)


class _Step(NamedTuple):
    """Other numbers of channels, what the student then costs, and what importance it gains."""

    counts: dict
    cost: Cost
    fill: float
    gain: float


class _Steps:
    """Numbers of channels that change one by one.

    Attributes:
        groups: Units that keep the same number of channels.
        choice: What has been chosen so far.
        cost: What it costs.
    """

    def __init__(self, plan, limits):
        self._limits = limits
        units = plan.cut.free_units()
        self._counts = {
            unit: min(plan.choice.count(unit), _worthy(plan.choice.scores.get(unit), unit.size))
            for unit in units
        }
        self.choice = dataclasses.replace(plan.choice, counts=self._counts)  # follows the dict
        self.groups: list[list] = []
        for unit in units:
            if not any(unit in group for group in self.groups):
                alike = [each for each in channels.units(unit.alike) if each in self._counts]
                self.groups.append(list(dict.fromkeys([unit, *alike])))
        self._touched = {
            unit: {
                number
                for number, term in enumerate(plan.cut.terms)
                if any(unit in channels.units(axis) for axis in term.axes)
            }
            for unit in units
        }
        for group in self.groups:
            self._counts.update(dict.fromkeys(group, max(self._counts[unit] for unit in group)))
        self.cost = costs.total(plan.cut.terms, self.choice)
        self._terms = plan.cut.terms
        self._gains = {unit: _gains(plan.choice.scores.get(unit), unit.size) for unit in units}

    def taken(self, changes: list[tuple]) -> _Step | None:
        """What follows if groups get more channels or fewer; `None` where they have no more.

        Args:
            changes: `(group, number of channels)`.
        """
        counts: dict = {}
        for group, number in changes:
            for unit in group:
                after = min(unit.size, self._counts[unit] + number)
                if after < 1 or after == self._counts[unit]:
                    return None
                counts[unit] = after
        numbers = set().union(*(self._touched[unit] for unit in counts))
        terms = [self._terms[number] for number in numbers]
        before = {unit: self._counts[unit] for unit in counts}
        old = costs.total(terms, self.choice)
        self._counts.update(counts)
        new = costs.total(terms, self.choice)
        self._counts.update(before)
        cost = Cost(*(c + b - a for c, a, b in zip(self.cost, old, new, strict=True)))
        gain = sum(self._gains[u][counts[u]] - self._gains[u][before[u]] for u in counts)
        return _Step(counts, cost, self._limits.fill(cost), gain)

    def take(self, step: _Step) -> None:
        """Makes a step."""
        self._counts.update(step.counts)
        self.cost = step.cost

    def exchange(self) -> bool:
        """Takes a channel from one group for one of another, where that comes closer."""
        pairs = itertools.permutations(self.groups, 2)
        steps = [self.taken([(less, -1), (more, 1)]) for less, more in pairs]
        fitting = [step for step in steps if step is not None and step.fill <= 1]
        best = max(fitting, key=lambda step: (step.fill, step.gain), default=None)
        if best is None or best.fill <= self._limits.fill(self.cost):
            return False
        self.take(best)
        return True


def _worthy(scores, size):
    """How many channels matter at all: what is dead pays for the others first."""
    if scores is None:
        return size
    return max(1, int(np.sum(scores > _DEAD * np.max(scores))))


def _gains(scores, size):
    """The share of importance that a number of channels has, the best ones first."""
    if scores is None or not math.fsum(scores):
        return np.arange(size + 1) / size
    ordered = np.sort(scores)[::-1]
    return np.concatenate([[0.0], np.cumsum(ordered) / ordered.sum()])

"""`rank="magnitude"` of KerasHub's models: norms of what is tied to channels, heads and units."""

from typing import Any

import numpy as np

from keras_kd.students.hub import axes
from keras_kd.students.hub.families import Family
from keras_kd.students.hub.ranking import read_role

# What is chosen with a reader's role.
_ROLES = {
    axes.HEADS: (axes.HEADS, axes.FLAT_HEADS, axes.KV_HEADS),
    axes.INTERMEDIATE: (axes.INTERMEDIATE,),
    axes.HALF: (axes.HALF,),
}


class MagnitudeRanking:
    """Scores by weights; see `ranking.Ranking` for the attributes.

    Of a hidden channel, a head or a unit the norm of all weights that make or read it, of a block
    that of what its attention and its feed-forward network add.

    Args:
        teacher: A backbone or a task.
        roles: What `axes.roles_of` gave for it.
        family: Of its backbone.
        sizes: Of its backbone.
    """

    def __init__(self, teacher: Any, roles: dict, family: Family, sizes: axes.Sizes) -> None:
        known = axes.weights_of(teacher, family)
        hidden = np.zeros(sizes.hidden)
        readers: dict[tuple, str] = {}
        blocks: dict[str, dict[int, float]] = {}
        for key, weight in known.items():
            squares = axes.value_of(weight).astype("float64") ** 2
            for i, role in enumerate(roles[key]):
                if role == axes.HIDDEN:
                    hidden += _along(squares, i)
            role = read_role(roles[key])
            if key.stack and role is not None:
                readers[(*key.place, key.path.rpartition("/")[0], role)] = key.path
        self.hidden = np.sqrt(hidden)
        self.inner: dict[tuple, Any] = {}
        made = {(*group[:2], path) for group, path in readers.items()}
        for key, weight in known.items():
            if not key.stack:
                continue
            squares = axes.value_of(weight).astype("float64") ** 2
            if (*key.place, key.path) in made:
                of_stack = blocks.setdefault(key.stack, {})
                of_stack[key.block] = of_stack.get(key.block, 0.0) + squares.sum()
            for group in self._groups(key, readers):
                for i, role in enumerate(roles[key]):
                    if role in _ROLES[group[-1]]:
                        part = _by_unit(_along(squares, i), role, sizes)
                        self.inner[group] = self.inner.get(group, 0.0) + part
        self.inner = {group: np.sqrt(total) for group, total in self.inner.items()}
        self.blocks = {
            stack: np.sqrt([of_stack[i] for i in range(len(of_stack))])
            for stack, of_stack in blocks.items()
        }

    def _groups(self, key, readers):
        """Those of the innermost layer around a weight that has readers, for each role."""
        for role in _ROLES:
            group = key.path
            while (*key.place, group, role) not in readers and group:
                group = group.rpartition("/")[0]
            if (*key.place, group, role) in readers:
                yield (*key.place, group, role)


def _along(squares, axis):
    return squares.sum(axis=tuple(i for i in range(squares.ndim) if i != axis))


def _by_unit(values, role, sizes):
    """Of heads, also where their channels lie flat, or several share keys."""
    if role == axes.FLAT_HEADS:
        return values.reshape(sizes.heads, -1).sum(axis=1)
    if role == axes.KV_HEADS:
        groups = sizes.heads // sizes.kv_heads
        return np.repeat(values / groups, groups)
    return values

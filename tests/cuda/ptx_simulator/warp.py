"""What the lanes of a warp do together: shuffles, votes, barriers of the warp."""

import numpy as np

from .fault import Fault
from .lanes import WARP

ALL_LANES = 0xFFFFFFFF
_BITS = np.arange(WARP, dtype=np.uint32)


class Warps:
    """The warps of a launch.

    Every lane that a mask names must be at the instruction. Hardware would let it come later, or
    join at another `bar.warp.sync`; code that needs that is refused here, since it is more often
    a fault than meant.
    """

    def __init__(self, lanes, order):
        self.lanes, self.order = lanes, order
        self.alive = lanes.exist
        self.sources = {}  # shuffles with constant operands, nearly all, have constant sources

    def shuffle(self, active, instruction, mode, value, lane, clamp, mask):
        """Returns the values received, and whether each lane's source was in range."""
        self._check_mask(active, instruction, mask)
        source, in_range = self._source(mode, lane, clamp)
        if not active.everyone:
            missing = active.mask & ~active.mask[source]
            if np.count_nonzero(missing):
                index = int(np.flatnonzero(missing)[0])
                text = f"shuffle from lane {int(source[index]) % WARP}, which takes no part"
                raise Fault.at(instruction, self.lanes.name(index), text)
        return (value[source] if np.ndim(value) else value), in_range

    def vote(self, active, instruction, mode, predicate, mask):
        """Returns the outcome for every lane: a predicate, or the bits of the ballot."""
        self._check_mask(active, instruction, mask)
        votes = np.broadcast_to(predicate, self.lanes.count).reshape(-1, WARP)
        if mode == "all":
            outcome = (votes | ~active.by_warp).all(axis=1)
        elif mode == "any":
            outcome = (votes & active.by_warp).any(axis=1)
        else:
            bits = (votes & active.by_warp).astype(np.uint32) << _BITS
            outcome = np.bitwise_or.reduce(bits, axis=1)
        return np.repeat(outcome, WARP)

    def barrier(self, active, instruction, mask):
        """Orders the memory accesses of warps all of whose living lanes take part."""
        self._check_mask(active, instruction, mask)
        living = self.alive.reshape(-1, WARP)
        whole = ~(living & ~active.by_warp).any(axis=1) & active.warp_is_active
        named = self._named(mask)
        if named is not None:
            whole &= ~(living & ~named).any(axis=1)
        self.order.warp_barrier(whole)

    def _named(self, mask):
        """Returns which lanes each lane's mask names, a row for each warp; None for all."""
        if np.ndim(mask) == 0:
            if mask == ALL_LANES:
                return None
            mask = np.full(self.lanes.count, mask, np.uint32)
        return None if (mask == ALL_LANES).all() else mask.reshape(-1, WARP)

    def _check_mask(self, active, instruction, mask):
        if np.ndim(mask) == 0 and mask == ALL_LANES:
            named = active.warp_is_active[:, None]
        else:
            masks = np.broadcast_to(mask, self.lanes.count).reshape(-1, WARP)
            own = active.by_warp & (masks >> _BITS & 1 == 0)
            self._raise(own, instruction, "is not in its own mask of {name}")
            largest = np.where(active.by_warp, masks, 0).max(axis=1)
            unequal = active.by_warp & (masks != largest[:, None])
            self._raise(unequal, instruction, "has another mask than others of its warp at {name}")
            named = largest[:, None] >> _BITS & 1 == 1
        self._raise(
            named & ~active.by_warp, instruction, "is named in the mask of {name} but {where}"
        )

    def _raise(self, wrong, instruction, what):
        if not wrong.any():
            return
        lane = int(np.flatnonzero(wrong)[0])
        where = "is elsewhere (divergence)" if self.alive[lane] else "has exited"
        name = ".".join((instruction.name, *instruction.modifiers[:2]))
        text = what.format(name=name, where=where)
        raise Fault.at(instruction, self.lanes.name(lane), text)

    def _source(self, mode, lane, clamp):
        key = None
        if np.ndim(lane) == 0 and np.ndim(clamp) == 0:
            key = mode, int(lane), int(clamp)
            if key in self.sources:
                return self.sources[key]
        found = self._find_source(mode, np.asarray(lane, np.int64), np.asarray(clamp, np.int64))
        if key:
            self.sources[key] = found
        return found

    def _find_source(self, mode, amount, clamp):
        """Follows the pseudocode of `shfl.sync` in the PTX manual."""
        lane = self.lanes.lane_of
        segment, limit, amount = clamp >> 8 & 31, clamp & 31, amount & 31
        highest = (lane & segment) | (limit & ~segment)
        lowest = lane & segment
        source = {
            "up": lane - amount,
            "down": lane + amount,
            "bfly": lane ^ amount,
            "idx": lowest | (amount & ~segment),
        }[mode]
        in_range = source >= highest if mode == "up" else source <= highest
        source = np.where(in_range, source, lane)
        return self.lanes.warp_of * WARP + source, in_range

"""Finds accesses to one place of memory that nothing orders, at least one of them a store.

Two accesses are ordered if one thread makes both, if a barrier of their block lies between, or a
barrier of their warp. Blocks of one launch are never ordered, nor does a shuffle order memory.
"""

import numpy as np

from .fault import Fault

_LANE_BITS = 32
_LANE = (1 << _LANE_BITS) - 1


class Order:
    """A clock that moves at every barrier, and when each block and warp last met one."""

    def __init__(self, lanes):
        self.lanes = lanes
        self.clock = 1
        self.block_met = np.zeros(lanes.blocks, np.int64)
        self.warp_met = np.zeros(lanes.count // 32, np.int64)

    def block_barrier(self, blocks):
        """The threads of these blocks met."""
        self.clock += 1
        self.block_met[blocks] = self.clock

    def warp_barrier(self, warps):
        """The threads of these warps met."""
        self.clock += 1
        self.warp_met[warps] = self.clock

    def stamps(self, lanes):
        """Returns who and when in one number; 0 stands for nobody."""
        return (self.clock << _LANE_BITS) | lanes

    def unordered(self, stamps, lanes):
        """Returns for which elements an earlier access and a lane's access now are unordered."""
        other = stamps & _LANE
        suspect = (stamps != 0) & (other != lanes)
        if not np.count_nonzero(suspect):
            return suspect
        time, places = stamps >> _LANE_BITS, self.lanes
        block, warp = places.block_of[lanes], places.warp_of[lanes]
        met = (places.block_of[other] == block) & (time < self.block_met[block])
        met |= (places.warp_of[other] == warp) & (time < self.warp_met[warp])
        return suspect & ~met


class Shadow:
    """For each granule of a piece of memory, who last wrote it and who read it since.

    Two readers are kept. A store conflicts with one of them if it conflicts with any: the second
    one is as far from the first (lane, warp, block) as any reader that no barrier has made past.
    Granules are as large as the narrowest access so far.
    """

    def __init__(self, size, order):
        self.order = order
        self.granule = 16
        self.writer, self.reader, self.other = (
            np.zeros(-(-size // self.granule), np.int64) for _ in range(3)
        )

    def load(self, offsets, lanes, access):
        """Notes a load of each lane at its offset. Raises Fault for a race."""
        places, lanes = self._granules(offsets, lanes, access.size)
        self._check(self.writer, places, lanes, access, "reads what {} wrote")
        kept = self.order.unordered(self.reader[places], lanes)
        self.reader[places[~kept]] = self.order.stamps(lanes[~kept])
        self._second(places, lanes)

    def store(self, offsets, lanes, access):
        """Notes a store of each lane at its offset. Raises Fault for a race."""
        places, lanes = self._granules(offsets, lanes, access.size)
        self._check(self.writer, places, lanes, access, "overwrites what {} wrote")
        self._check(self.reader, places, lanes, access, "overwrites what {} read")
        self._check(self.other, places, lanes, access, "overwrites what {} read")
        stamps = self.order.stamps(lanes)
        self.writer[places] = stamps
        self.reader[places] = 0
        self.other[places] = 0
        # Of two lanes that store to one place, NumPy keeps one.
        kept = self.writer[places]
        self._raise(kept != stamps, kept, lanes, access, "stores where {} stores")

    def _granules(self, offsets, lanes, size):
        if size < self.granule:
            factor = self.granule // size
            self.writer = np.repeat(self.writer, factor)
            self.reader, self.other = np.repeat(self.reader, factor), np.repeat(self.other, factor)
            self.granule = size
        first, count = offsets // self.granule, size // self.granule
        if count == 1:
            return first, lanes
        return (first[:, None] + np.arange(count)).ravel(), np.repeat(lanes, count)

    def _second(self, places, lanes):
        """Keeps a second reader where the first is another lane, the farthest last."""
        first = self.reader[places] & _LANE
        apart = first != lanes
        if not np.count_nonzero(apart):
            return
        order, index = self.order, self.order.lanes
        second = self.other[places]
        current = second & _LANE
        distance = self._distance(index, first, lanes)
        past = (second == 0) | ~order.unordered(second, lanes)
        farther = distance >= np.where(past, 0, self._distance(index, first, current))
        for step in (1, 2, 3):  # so that the farthest of lanes in one access is written last
            which = apart & farther & (distance == step)
            self.other[places[which]] = order.stamps(lanes[which])

    @staticmethod
    def _distance(index, a, b):
        """Returns 0 for the same lane, 1 in one warp, 2 in one block, 3 in other blocks."""
        apart = (a != b).astype(np.int8)
        return (
            apart
            + (index.warp_of[a] != index.warp_of[b])
            + (index.block_of[a] != index.block_of[b])
        )

    def _check(self, stamps, places, lanes, access, what):
        earlier = stamps[places]
        self._raise(self.order.unordered(earlier, lanes), earlier, lanes, access, what)

    def _raise(self, wrong, earlier, lanes, access, what):
        if not np.count_nonzero(wrong):
            return
        index = int(np.flatnonzero(wrong)[0])
        names = self.order.lanes
        other = names.name(int(earlier[index]) & _LANE)
        text = f"race: {what.format(other)}, with no barrier between"
        raise Fault.at(access.instruction, names.name(lanes[index]), text)


class History:
    """The accesses of one launch to one global buffer.

    Reads are only listed until the launch stores to the buffer: most buffers are never stored to,
    and then there is nothing to check.
    """

    def __init__(self, size, order):
        self.size, self.order = size, order
        self.reads = []
        self.shadow = None
        self.stored = self.read_only = None  # which bytes, once the launch has stored

    def load(self, offsets, lanes, access):
        """Notes a load. Raises Fault for a race, or for `.nc` of what the launch stored."""
        if self.shadow is None:
            self.reads.append((self.order.clock, offsets, lanes, access))
            return
        if access.read_only:
            self._mark(self.read_only, offsets, access)
            self._check(self.stored, offsets, lanes, access, "reads, as read-only memory, what")
        self.shadow.load(offsets, lanes, access)

    def store(self, offsets, lanes, access):
        """Notes a store. Raises Fault for a race, or over what was loaded by `.nc`."""
        if self.shadow is None:
            self._replay()
        self._mark(self.stored, offsets, access)
        self._check(self.read_only, offsets, lanes, access, "stores where, as read-only memory,")
        self.shadow.store(offsets, lanes, access)

    def _replay(self):
        padded = -(-self.size // 16) * 16
        self.shadow = Shadow(padded, self.order)
        self.stored, self.read_only = np.zeros((2, padded), np.bool_)
        now = self.order.clock
        for clock, offsets, lanes, access in self.reads:
            self.order.clock = clock
            if access.read_only:
                self._mark(self.read_only, offsets, access)
            self.shadow.load(offsets, lanes, access)
        self.order.clock = now
        self.reads = []

    @staticmethod
    def _mark(which, offsets, access):
        which.reshape(-1, access.size)[offsets // access.size] = True

    def _check(self, which, offsets, lanes, access, what):
        wrong = which.reshape(-1, access.size)[offsets // access.size].any(axis=1)
        if wrong.any():
            place = self.order.lanes.name(lanes[int(np.flatnonzero(wrong)[0])])
            text = f"{what} this launch {'reads' if access.store else 'stores'}"
            raise Fault.at(access.instruction, place, text)

"""Shared memory of all blocks of a launch."""

import numpy as np

from .fault import Fault
from .memory import check_aligned
from .races import Shadow


class SharedMemory:
    """The blocks' shared memories, one after the other."""

    def __init__(self, spans, lanes, order, counters):
        self.lanes, self.counters = lanes, counters
        end = max((stop for _, stop in spans), default=0)
        self.stride = -(-end // 16) * 16
        self.bytes = np.zeros(self.stride * lanes.blocks, np.uint8)
        self.written = np.zeros(len(self.bytes), np.bool_)
        self.inside = np.zeros(self.stride, np.bool_)
        for start, stop in spans:
            self.inside[start:stop] = True
        self.shadow = Shadow(len(self.bytes), order) if order else None

    def load(self, active, address, access):
        """Returns one array of all lanes for each element, zero where lanes are not active."""
        result = np.zeros((access.count, self.lanes.count), access.dtype)
        if active.count == 0:
            return result
        offsets, lanes = self._offsets(active, address, access)
        places = offsets // access.size
        known = self.written.reshape(-1, access.size)[places]
        if not known.all():
            index = int(np.flatnonzero(~known.all(axis=1))[0])
            byte = int(offsets[index]) % self.stride
            text = f"reads shared memory at address {byte}, which nobody wrote"
            raise Fault.at(access.instruction, self.lanes.name(lanes[index]), text)
        if self.shadow:
            self.shadow.load(offsets, lanes, access)
        elements = self.bytes.view(access.dtype).reshape(-1, access.count)
        result[:, lanes] = elements[places].T
        return result

    def store(self, active, address, access, values):
        """Stores one value of each active lane for each element."""
        if active.count == 0:
            return
        offsets, lanes = self._offsets(active, address, access)
        if self.shadow:
            self.shadow.store(offsets, lanes, access)
        places = offsets // access.size
        elements = self.bytes.view(access.dtype).reshape(-1, access.count)
        for index, value in enumerate(values):
            elements[places, index] = value[lanes] if np.ndim(value) else value
        self.written.reshape(-1, access.size)[places] = True

    def _offsets(self, active, address, access):
        """Returns the offsets in `bytes`, checked, and the lanes."""
        lanes = active.lanes
        addresses = np.broadcast_to(address, self.lanes.count)[lanes] + access.offset
        check_aligned(addresses, lanes, access, self.lanes)
        inside = (addresses >= 0) & (addresses < self.stride)
        if inside.all():
            inside = self.inside.reshape(-1, access.size)[addresses // access.size].all(axis=1)
        if not inside.all():
            index = int(np.flatnonzero(~inside)[0])
            text = f"out of bounds: {access.size} bytes of shared memory at address "
            text += str(int(addresses[index]))
            raise Fault.at(access.instruction, self.lanes.name(lanes[index]), text)
        self.counters.shared_access(access, active, addresses)
        return addresses + self.lanes.block_of[lanes] * self.stride, lanes

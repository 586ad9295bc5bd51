"""The parameters of a launch: constant memory, the same for all lanes."""

import numpy as np

from .fault import Fault
from .memory import check_aligned

# Where the parameters lie when a kernel takes their address; 0 stays no address.
PARAMETER_BASE = 1 << 16


class Parameters:
    """The bytes of all parameters, as the driver lays them out."""

    def __init__(self, content, lanes):
        self.bytes, self.lanes = np.frombuffer(bytes(content), np.uint8), lanes
        self.values = {}

    def constant(self, offset, dtype):
        """Returns what lies at an offset that the instruction itself gives."""
        key = offset, dtype
        if key not in self.values:
            raw = self.bytes[offset : offset + dtype.itemsize]
            self.values[key] = raw.copy().view(dtype)[0]
        return self.values[key]

    def load(self, active, address, access):
        """Returns the elements at an address in a register: scalars, or arrays of all lanes."""
        lanes = active.lanes[:1] if np.ndim(address) == 0 else active.lanes
        addresses = np.broadcast_to(address, self.lanes.count)[lanes] + access.offset
        check_aligned(addresses, lanes, access, self.lanes)
        offsets = addresses - PARAMETER_BASE
        outside = (offsets < 0) | (offsets + access.size > len(self.bytes))
        if outside.any():
            index = int(np.flatnonzero(outside)[0])
            text = f"out of bounds: byte {int(offsets[index])} of {len(self.bytes)} of parameters"
            raise Fault.at(access.instruction, self.lanes.name(lanes[index]), text)
        places = offsets[:, None] + np.arange(access.size)
        elements = self.bytes[places].reshape(len(lanes), access.size).view(access.dtype)
        if np.ndim(address) == 0:
            # Nobody may be here, under a guard.
            return elements[0] if len(elements) else np.zeros(access.count, access.dtype)
        result = np.zeros((access.count, self.lanes.count), access.dtype)
        result[:, lanes] = elements.T
        return result

"""Global memory: buffers with exact bounds, far apart from each other."""

import numpy as np

from .fault import Fault
from .races import History

# Each buffer has 4 GiB of addresses of its own and begins a little above their start, so that an
# address that runs out of one buffer reaches no other and still tells which one it left.
_FIRST = 1 << 40
_WINDOW_BITS = 32
_MARGIN = 1 << 20


class Buffer:
    """One allocation. `offset` bytes lie between an address divisible by 256 and its first one."""

    def __init__(self, index, content, offset, written):
        self.index, self.dtype, self.shape = index, content.dtype, content.shape
        self.offset, self.size = offset, content.nbytes
        raw = content.reshape(-1).view(np.uint8)
        padded = -(-(offset + self.size) // 16) * 16
        self.bytes = np.zeros(max(padded, 16), np.uint8)
        self.bytes[offset : offset + self.size] = raw
        # None: all of it was written when it was allocated.
        self.written = None if written else np.zeros(len(self.bytes), np.bool_)
        self.history = None

    @property
    def start(self):
        """The address from which offsets in `bytes` count."""
        return _FIRST + (self.index << _WINDOW_BITS) + _MARGIN

    @property
    def address(self):
        """The address of the first byte."""
        return self.start + self.offset

    def array(self):
        """Returns a copy of the content."""
        raw = self.bytes[self.offset : self.offset + self.size].copy()
        return raw.view(self.dtype).reshape(self.shape)


class GlobalMemory:
    """All buffers of a device."""

    def __init__(self):
        self.buffers = []

    def allocate(self, content, offset, written):
        """Adds a buffer and returns its address."""
        if content.nbytes + offset >= 1 << (_WINDOW_BITS - 2):
            raise ValueError("a buffer of more than 1 GiB")
        buffer = Buffer(len(self.buffers), content, offset, written)
        self.buffers.append(buffer)
        return buffer.address

    def find(self, address):
        """Returns the buffer that begins at an address."""
        for buffer in self.buffers:
            if buffer.address == address:
                return buffer
        raise ValueError(f"no buffer begins at {address:#x}")


class GlobalAccess:
    """Global memory as one launch sees it."""

    def __init__(self, memory, lanes, order, counters):
        self.buffers, self.lanes, self.counters = memory.buffers, lanes, counters
        for buffer in self.buffers:
            buffer.history = History(len(buffer.bytes), order) if order else None

    def load(self, active, address, access):
        """Returns one array of all lanes for each element, zero where lanes are not active."""
        result = np.zeros((access.count, self.lanes.count), access.dtype)
        if active.count == 0:
            return result
        for buffer, offsets, lanes in self._split(active, address, access):
            self._check_written(buffer, offsets, lanes, access)
            if buffer.history:
                buffer.history.load(offsets, lanes, access)
            elements = buffer.bytes.view(access.dtype).reshape(-1, access.count)
            result[:, lanes] = elements[offsets // access.size].T
        return result

    def store(self, active, address, access, values):
        """Stores one value of each active lane for each element."""
        if active.count == 0:
            return
        for buffer, offsets, lanes in self._split(active, address, access):
            if buffer.history:
                buffer.history.store(offsets, lanes, access)
            elements = buffer.bytes.view(access.dtype).reshape(-1, access.count)
            places = offsets // access.size
            for index, value in enumerate(values):
                elements[places, index] = value[lanes] if np.ndim(value) else value
            if buffer.written is not None:
                buffer.written.reshape(-1, access.size)[places] = True

    def _split(self, active, address, access):
        """Yields each buffer with the offsets and lanes that meet it, all of them checked."""
        lanes = active.lanes
        addresses = np.broadcast_to(address, self.lanes.count)[lanes] + access.offset
        check_aligned(addresses, lanes, access, self.lanes)
        self.counters.global_access(access, active, addresses)
        windows = (addresses - _FIRST) >> _WINDOW_BITS
        if (windows == windows[0]).all():
            yield self._offsets(windows[0], addresses, lanes, access)
            return
        for window in np.unique(windows):
            here = windows == window
            yield self._offsets(window, addresses[here], lanes[here], access)

    def _offsets(self, window, addresses, lanes, access):
        if not 0 <= window < len(self.buffers):
            place = self.lanes.name(lanes[0])
            text = f"address {int(addresses[0]):#x} lies in no buffer"
            raise Fault.at(access.instruction, place, text)
        buffer = self.buffers[window]
        offsets = addresses - buffer.start
        first, last = int(offsets.min()), int(offsets.max())
        end = buffer.offset + buffer.size
        if first < buffer.offset or last + access.size > end:
            outside = (offsets < buffer.offset) | (offsets + access.size > end)
            index = int(np.flatnonzero(outside)[0])
            byte = int(offsets[index]) - buffer.offset
            text = (
                f"out of bounds: bytes {byte} to {byte + access.size - 1} "
                f"of global buffer {int(window)}, which has {buffer.size}"
            )
            raise Fault.at(access.instruction, self.lanes.name(lanes[index]), text)
        return buffer, offsets, lanes

    def _check_written(self, buffer, offsets, lanes, access):
        if buffer.written is None:
            return
        known = buffer.written.reshape(-1, access.size)[offsets // access.size].all(axis=1)
        if not known.all():
            index = int(np.flatnonzero(~known)[0])
            byte = int(offsets[index]) - buffer.offset
            text = f"reads byte {byte} of global buffer {buffer.index}, which nobody wrote"
            raise Fault.at(access.instruction, self.lanes.name(lanes[index]), text)


def check_aligned(addresses, lanes, access, places):
    """Raises Fault unless all addresses are multiples of the access' size."""
    wrong = addresses & (access.size - 1)
    if np.count_nonzero(wrong):
        index = int(np.flatnonzero(wrong)[0])
        text = f"misaligned: {access.size} bytes at address {int(addresses[index]):#x}"
        raise Fault.at(access.instruction, places.name(lanes[index]), text)

"""What launches did, counted: bytes, sectors, bank conflicts, instructions."""

import collections

import numpy as np

from .lanes import WARP

SECTOR_SHIFT = 5  # DRAM and L2 move sectors of 32 bytes
BANKS = 32  # of 4 bytes each
_SECTOR_BITS = 42  # of addresses of 47 bits
_ANY_SECTOR = (1 << _SECTOR_BITS) - 1
_ADDRESS_BITS = 47
_ANY_ADDRESS = (1 << _ADDRESS_BITS) - 1


class Counters(collections.Counter):
    """Counts by name, added up over launches; the README lists the names."""

    def instructions(self, counts, lanes, warps):
        """Counts a run of instructions: `counts` by class, each by so many lanes and warps."""
        for kind, number in counts.items():
            self[f"lanes.{kind}"] += number * lanes
            self[f"warps.{kind}"] += number * warps

    def instruction(self, kind, active):
        """Counts one instruction under a guard."""
        self.instructions({kind: 1}, active.count, active.warps)

    def global_access(self, access, active, addresses):
        """Counts a load or store of global memory."""
        way = "store" if access.store else "load"
        self[f"global.{way}.bytes"] += active.count * access.size
        self[f"global.{way}.bytes.by{access.size}"] += active.count * access.size
        self[f"global.{way}.requests"] += active.warps
        # An aligned access of at most 32 bytes lies in one sector.
        sectors = addresses >> SECTOR_SHIFT & _ANY_SECTOR
        warps = active.all.warp_of[active.lanes]
        self[f"global.{way}.sectors"] += distinct(warps << _SECTOR_BITS | sectors)
        # What all lanes of a warp read at one place is asked for once.
        places = (warps << _ADDRESS_BITS) | (addresses & _ANY_ADDRESS)
        self[f"global.{way}.distinct_bytes"] += distinct(places) * access.size

    def shared_access(self, access, active, addresses):
        """Counts a load or store of shared memory, and the cycles that bank conflicts add."""
        way = "store" if access.store else "load"
        self[f"shared.{way}.bytes"] += active.count * access.size
        self[f"shared.{way}.requests"] += active.warps
        self["shared.extra_cycles"] += extra_cycles(access.size, active, addresses)


def distinct(keys):
    """Returns how many different values there are (a sort: a third of np.unique's time)."""
    ordered = np.sort(keys)
    return int(np.count_nonzero(ordered[1:] != ordered[:-1])) + 1


def extra_cycles(size, active, addresses):
    """Returns the cycles beyond one for each part of a warp that is served at once.

    That part is the whole warp up to 4 bytes a lane, half of it at 8 and a quarter at 16. Lanes
    that want the same word of a bank share it.
    """
    words = max(size // 4, 1)
    lanes = active.lanes
    part = (active.all.warp_of[lanes] * words) + active.all.lane_of[lanes] * words // WARP
    word = (addresses >> 2)[:, None] + np.arange(words)
    keys = np.sort(((part << 32)[:, None] | word).ravel())
    keys = keys[np.concatenate(([True], keys[1:] != keys[:-1]))]
    parts, bank = keys >> 32, keys & (BANKS - 1)
    first = int(parts[0])
    times = np.bincount((parts - first) * BANKS + bank)
    times = np.pad(times, (0, -len(times) % BANKS)).reshape(-1, BANKS).max(axis=1)
    return int((times[times > 0] - 1).sum())

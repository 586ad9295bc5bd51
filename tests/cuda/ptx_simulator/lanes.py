"""The lanes of a launch, all threads of all blocks, and those of them that are active."""

import functools

import numpy as np

WARP = 32


class Lanes:
    """Where each lane belongs. A block fills whole warps; lanes past its threads do not exist."""

    def __init__(self, grid, block):
        self.grid = (tuple(grid) + (1, 1))[:3]
        self.block = (tuple(block) + (1, 1))[:3]
        self.threads = int(np.prod(self.block))
        self.blocks = int(np.prod(self.grid))
        if not 0 < self.threads <= 1024 or self.blocks < 1:
            raise ValueError(f"a grid of {grid} blocks of {block} threads")
        self.per_block = -(-self.threads // WARP) * WARP
        self.count = self.per_block * self.blocks
        self.index = np.arange(self.count)
        self.thread_of = self.index % self.per_block
        self.block_of = self.index // self.per_block
        self.warp_of = self.index // WARP
        self.lane_of = self.index % WARP
        self.exist = self.thread_of < self.threads

    @functools.cached_property
    def special(self):
        """Special registers: `%tid.x` and so on."""
        x, y = self.block[0], self.block[1]
        columns, rows = self.grid[0], self.grid[1]
        thread, block = self.thread_of, self.block_of
        values = {
            "%tid.x": thread % x,
            "%tid.y": thread // x % y,
            "%tid.z": thread // (x * y),
            "%ctaid.x": block % columns,
            "%ctaid.y": block // columns % rows,
            "%ctaid.z": block // (columns * rows),
            "%laneid": self.lane_of,
        }
        values = {name: value.astype(np.uint32) for name, value in values.items()}
        for axis, threads, blocks in zip("xyz", self.block, self.grid, strict=True):
            values[f"%ntid.{axis}"] = np.uint32(threads)
            values[f"%nctaid.{axis}"] = np.uint32(blocks)
        return values

    def name(self, lane):
        """Returns the place of a lane, for messages."""
        block, thread = int(self.block_of[lane]), int(self.thread_of[lane])
        return f"block {self._split(block, self.grid)} thread {self._split(thread, self.block)}"

    @staticmethod
    def _split(index, shape):
        x, y, z = index % shape[0], index // shape[0] % shape[1], index // (shape[0] * shape[1])
        return f"({x}, {y}, {z})" if shape[1] * shape[2] > 1 else str(x)


class Active:
    """The lanes that are at one instruction.

    `alone` says that no other lane will ever go on, so that what is written to the registers of
    the others does not matter.
    """

    def __init__(self, lanes, mask):
        self.all, self.mask = lanes, mask
        self.count = int(np.count_nonzero(mask))
        self.everyone = self.count == lanes.count
        self.alone = False

    @functools.cached_property
    def lanes(self):
        """Indices of the active lanes."""
        return self.all.index if self.everyone else np.flatnonzero(self.mask)

    @functools.cached_property
    def by_warp(self):
        """The mask with a row for each warp."""
        return self.mask.reshape(-1, WARP)

    @functools.cached_property
    def warp_is_active(self):
        """Which warps have an active lane."""
        return self.by_warp.any(axis=1)

    @functools.cached_property
    def warps(self):
        """How many warps have an active lane."""
        return int(np.count_nonzero(self.warp_is_active))

    def only(self, predicate):
        """Returns the active lanes for which a predicate holds."""
        return Active(self.all, self.mask & predicate)

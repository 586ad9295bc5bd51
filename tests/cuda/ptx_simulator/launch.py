"""Runs a launch: all lanes of all blocks at once, the groups that lie lowest in the text first."""

import numpy as np

from .fault import Fault
from .lanes import Active, Lanes
from .memory import GlobalAccess
from .parameters import Parameters
from .races import Order
from .shared import SharedMemory
from .warp import Warps

# Far beyond any kernel worth simulating: a loop that never ends.
MOST_STEPS = 5_000_000


class Registers:
    """The registers of all lanes, as attributes. Until written they hold zeros."""


class Launch:
    """One launch, and what its generated functions need (`run` in their text)."""

    def __init__(self, device, kernel, grid, block, parameters, shared_bytes):
        if len(parameters) != kernel.parameter_bytes:
            raise ValueError(
                f"{len(parameters)} bytes of parameters for a kernel with {kernel.parameter_bytes}"
            )
        self.device, self.kernel, self.program = device, kernel, kernel.program
        self.counters, self.noise = device.counters, device.noise
        self.lanes = Lanes(grid, block)
        self.special = self.lanes.special
        self.parameters = Parameters(parameters, self.lanes)
        self.order = Order(self.lanes)
        order = self.order if device.check_races else None
        self.global_memory = GlobalAccess(device.memory, self.lanes, order, self.counters)
        spans = kernel.shared_spans(shared_bytes)
        self.shared_memory = SharedMemory(spans, self.lanes, order, self.counters)
        self.warps = Warps(self.lanes, self.order)
        self.alive = self.lanes.exist.copy()
        self.groups = {}  # block of the program to the lanes that go on there
        self.waiting = {}  # the same for lanes at a barrier
        self.visits = [[0, 0] for _ in self.program]  # lanes and warps

    def execute(self):
        """Runs to the end."""
        registers = self._registers()
        self._send(0, Active(self.lanes, self.alive))
        try:
            with np.errstate(all="ignore"):
                for _ in range(MOST_STEPS):
                    if self.groups:
                        self._step(registers)
                    elif self.waiting:
                        self._release()
                    else:
                        return
        finally:
            self._count()
        raise Fault(f"{self.kernel.name} does not end (after {MOST_STEPS} basic blocks)")

    def _registers(self):
        registers = Registers()
        vars(registers).update(self.kernel.fresh_registers)
        return registers

    def _step(self, registers):
        """Runs one group through one basic block.

        Lowest first makes groups meet again: code that all threads share lies behind the code
        that only some of them take, and the groups that are still there come first.
        """
        index = min(self.groups)
        active = self.groups.pop(index)
        active.alone = not self.groups and not self.waiting
        block = self.program[index]
        visits = self.visits[index]
        visits[0] += active.count
        visits[1] += active.warps
        condition = block.function(registers, self, active)
        if block.end is None:
            return self._send(index + 1, active)
        taken, rest = divide(active, condition)
        if rest:
            self._send(index + 1, rest)
        if not taken:
            return None
        if block.end.name == "bra":
            return self._send(block.target, taken)
        if block.end.name in ("bar", "barrier"):
            return self._join(self.waiting, index, taken)
        return self._exit(taken)

    def _send(self, index, active):
        if index >= len(self.program):
            self._exit(active)
        else:
            self._join(self.groups, index, active)

    def _join(self, groups, index, active):
        if index in groups:
            active = Active(self.lanes, groups[index].mask | active.mask)
        groups[index] = active

    def _exit(self, active):
        self.alive = self.alive & ~active.mask
        self.warps.alive = self.alive

    def _release(self):
        """Lets the blocks that wait at a barrier go on: nobody else can."""
        here = np.zeros((self.lanes.blocks, self.lanes.per_block), np.int64)
        for index, active in self.waiting.items():
            here[active.mask.reshape(here.shape)] = index + 1
        meet = here.any(axis=1)
        self._check_barrier(here, meet)
        self.order.block_barrier(meet)
        waiting, self.waiting = self.waiting, {}
        for index, active in waiting.items():
            self._send(index + 1, active)

    def _check_barrier(self, here, meet):
        first = here.max(axis=1, keepdims=True)
        exist = self.lanes.exist.reshape(here.shape)
        other = (here != first) & (here != 0)
        absent = (here == 0) & exist & meet[:, None]
        if self.device.exited_threads_count:
            absent[...] = False
        for wrong, what in ((other, "waits at another barrier than"), (absent, "missed")):
            if not wrong.any():
                continue
            lane = int(np.flatnonzero(wrong)[0])
            block = lane // self.lanes.per_block
            partner = block * self.lanes.per_block + int(np.argmax(here[block]))
            end = self.program[int(here[block].max()) - 1].end
            verb = "" if other.any() else "the barrier of "
            text = f"{what} {verb}{self.lanes.name(partner)}"
            raise Fault.at(end, self.lanes.name(lane), text)

    def _count(self):
        for block, (lanes, warps) in zip(self.program, self.visits, strict=True):
            if lanes:
                self.counters.instructions(block.counts, lanes, warps)
        self.counters["launches"] += 1


def divide(active, condition):
    """Returns the lanes for which a condition holds and those for which it does not, or None."""
    if condition is None:
        return active, None
    if np.ndim(condition) == 0:
        return (active, None) if condition else (None, active)
    mask = active.mask & condition
    count = np.count_nonzero(mask)
    if count == active.count:
        return active, None
    if count == 0:
        return None, active
    return Active(active.all, mask), Active(active.all, active.mask & ~mask)

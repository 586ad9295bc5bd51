"""What a launch does for each element of the logits, counted by the simulator of PTX."""

import dataclasses

import numpy as np

from tests.cuda.kernel_device import DTYPES
from tests.cuda.ptx_device import PtxDevice

WARP = 32


@dataclasses.dataclass(frozen=True)
class Case:
    """One kind of launch.

    Attributes:
        dtype: Of student and teacher.
        classes: Of a row.
        divergence: One of `kernel_device.DIVERGENCES`.
        hard: Whether labels are given.
        temperature: At 1 the hard loss needs no exponentials of its own.
        gradient: Whether the gradient is computed.
        shared_memory: Bytes a block may have.
    """

    dtype: str
    classes: int
    divergence: str = "forward_kl"
    hard: bool = False
    temperature: float = 4.0
    gradient: bool = True
    shared_memory: int = 227 << 10

    def rows(self):
        """Whole blocks: what rows past the last one cost is not the kernel's."""
        threads = next((n for n in (2, 4, 8, 16, 32) if n * 32 >= self.classes), None)
        return 2 * 128 // threads if threads else 2


@dataclasses.dataclass(frozen=True)
class Cost:
    """Per element of the logits.

    Attributes:
        loaded: Bytes read from global memory; those that all lanes of a warp want, once a warp.
        stored: Bytes written.
        wide: The part of both that moved 16 bytes at a time.
        instructions: Slots of a lane: a warp's instruction takes 32, however many lanes take part.
        mufu: The same for those that the special function unit executes.
        bank_conflicts: Extra cycles of shared memory, for each element of a warp.
        launches: Kernels started; not per element.
    """

    loaded: float
    stored: float
    wide: float
    instructions: float
    mufu: float
    bank_conflicts: float
    launches: int

    @property
    def moved(self):
        return self.loaded + self.stored


def count(case, architecture=80):
    """Runs a case and returns its `Cost`."""
    rng = np.random.default_rng(0)
    shape = (case.rows(), case.classes)
    student, teacher = (rng.normal(0, 2, shape).astype(DTYPES[case.dtype]) for _ in range(2))
    device = PtxDevice(architecture, shared_memory=case.shared_memory, check_races=False)
    device.run(
        student,
        teacher,
        labels=rng.integers(0, case.classes, shape[0]) if case.hard else None,
        temperature=case.temperature,
        divergence=case.divergence,
        gradient=case.gradient,
    )
    counters, elements = device.device.counters, student.size
    wide = sum(counters[f"global.{way}.bytes.by16"] for way in ("load", "store"))
    warps = sum(
        number
        for name, number in counters.items()
        # Moves between registers vanish when PTX becomes machine code.
        if name.startswith("warps.") and name != "warps.move"
    )
    return Cost(
        loaded=counters["global.load.distinct_bytes"] / elements,
        stored=counters["global.store.distinct_bytes"] / elements,
        wide=wide / elements,
        instructions=warps * WARP / elements,
        mufu=counters["warps.mufu"] * WARP / elements,
        bank_conflicts=counters["shared.extra_cycles"] * WARP / elements,
        launches=len(device.launched),
    )

"""A device: memory, launches and counters."""

import numpy as np

from .arithmetic import Noise
from .counters import Counters
from .launch import Launch
from .memory import GlobalMemory


class Device:
    """What a program sees of a GPU.

    Args:
        noise_ulp: Results of approximate instructions are off by up to so many units in the last
            place, at random.
        seed: Of that noise.
        check_races: Whether to look for unordered accesses of memory; without, launches take
            about a tenth less time.
        exited_threads_count: Whether a barrier counts threads that have exited as arrived, as
            hardware since Volta does. CUDA C++ calls a barrier that not all threads of a block
            reach undefined, so by default it is a fault.
    """

    def __init__(self, noise_ulp=0, seed=0, check_races=True, exited_threads_count=False):
        self.noise = Noise(noise_ulp, seed)
        self.check_races, self.exited_threads_count = check_races, exited_threads_count
        self.memory = GlobalMemory()
        self.counters = Counters()

    def allocate(self, array, offset=0):
        """Copies an array to the device and returns its address, a multiple of 256 plus offset."""
        return self.memory.allocate(np.ascontiguousarray(array), offset, written=True)

    def allocate_uninitialized(self, nbytes, offset=0):
        """Returns the address of memory that nobody wrote: reading it is a fault."""
        # Bytes that no test would take for a result, should a check be missing.
        content = np.full(nbytes, 0xA5, np.uint8)
        return self.memory.allocate(content, offset, written=False)

    def read(self, address, all_written=False):
        """Returns a copy of what lies at an address that `allocate...` returned.

        Args:
            address: The beginning of a buffer.
            all_written: Whether to raise ValueError unless every byte of it was written.
        """
        buffer = self.memory.find(address)
        if all_written and buffer.written is not None:
            written = buffer.written[buffer.offset : buffer.offset + buffer.size]
            if not written.all():
                first = int(np.flatnonzero(~written)[0])
                raise ValueError(f"byte {first} of global buffer {buffer.index} was not written")
        return buffer.array()

    def launch(self, kernel, grid, block, parameters, shared_bytes=0):
        """Runs a kernel to its end.

        Args:
            kernel: A `Kernel` of a module.
            grid: Blocks along x, y, z; up to three numbers.
            block: Threads along x, y, z of a block.
            parameters: The bytes of all parameters, laid out as `kernel.parameters` tells.
            shared_bytes: Shared memory of a block beyond what the kernel declares itself.

        Raises:
            Fault: The kernel did something that is not allowed.
            NotImplementedError: It has an instruction that the simulator does not know; nothing
                was run.
        """
        Launch(self, kernel, grid, block, parameters, shared_bytes).execute()

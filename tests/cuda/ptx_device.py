"""The kernels' C interface on a simulated device: nvcc's PTX, started by the real host code.

The host code, compiled with the emulator's stand-in for the CUDA runtime, chooses kernels, grids
and arguments as it does on a GPU. Its launches come here, by the kernel's symbol, and the simulator
of PTX runs them.
"""

import ctypes
import functools
import os

from tests.cuda import toolkit
from tests.cuda.kernel_device import KernelDevice
from tests.cuda.ptx_simulator import Device, load

LIBRARY = toolkit.ROOT / "build/native-plain/tests/cuda/libemulated_cuda_library.so"
_LAUNCHER = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.POINTER(ctypes.c_uint32),
    ctypes.POINTER(ctypes.c_uint32),
    ctypes.c_uint64,
    ctypes.POINTER(ctypes.c_char),
    ctypes.c_uint64,
)


def missing():
    """Why nothing can be simulated here; empty if it can."""
    if toolkit.find("nvcc") is None:
        return "nvcc was not found"
    if not LIBRARY.exists():
        return f"{LIBRARY.relative_to(toolkit.ROOT)} is not built: make build-native-plain"
    return ""


@functools.cache
def kernels(architecture, student):
    """The kernels for students of a dtype, by their symbols; kept, as translating takes seconds."""
    return load(toolkit.ptx(f"launch_{student}", architecture))


class PtxDevice(KernelDevice):
    """A simulated GPU that computes losses and gradients.

    Args:
        architecture: Of the PTX, such as 80.
        processors: Multiprocessors; many of them make the host code split few rows.
        shared_memory: Bytes a block may have.
        options: Of the simulator's `Device`.
    """

    def __init__(self, architecture, processors=1, shared_memory=227 << 10, **options):
        self.device = Device(**options)
        self.launched = []  # symbols
        self.limits = processors, shared_memory
        self._architecture, self._kernels = architecture, None
        self._error = None
        self._library = ctypes.CDLL(os.fspath(LIBRARY))
        self._launcher = _LAUNCHER(self._launch)

    def _launch(self, symbol, grid, block, shared_bytes, parameters, size):
        name = symbol.decode()
        self.launched.append(name)
        try:
            self.device.launch(
                self._kernels[name], grid[:3], block[:3], parameters[:size], shared_bytes
            )
        except Exception as error:  # noqa: BLE001 (raised again by call: this is a C callback)
            self._error = error
            return 1
        return 0

    def allocate(self, array, offset=0):
        return self.device.allocate(array, offset)

    def allocate_uninitialized(self, nbytes, offset=0):
        return self.device.allocate_uninitialized(nbytes, offset)

    def read_bytes(self, address):
        return self.device.read(address, all_written=True)

    def function(self, name):
        return getattr(self._library, name)

    def call(self, name, *arguments):
        self._library.emulator_set_machine(self.limits[0], ctypes.c_uint64(self.limits[1]))
        self._library.emulator_set_launcher(self._launcher)
        try:
            super().call(name, *arguments)
        except ValueError:
            if self._error:
                raise self._error from None
            raise
        finally:
            self._library.emulator_set_launcher(None)

    def run(self, student, *arguments, **options):
        self._kernels = kernels(self._architecture, student.dtype.name)
        return super().run(student, *arguments, **options)

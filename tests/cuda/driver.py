"""A real GPU through the driver's C interface: memory, events, and the CUDA library of the package.

Nothing but the driver is needed. On a machine without a GPU nothing here can be executed.
"""

import ctypes
import functools
import os

import numpy as np

from keras_kd.ops.backends import shared_library
from tests.cuda.kernel_device import KernelDevice


class DriverError(RuntimeError):
    """A call of the driver failed."""


@functools.cache
def _driver():
    return ctypes.CDLL("libcuda.so.1")


def call(name, *arguments):
    """Calls a function of the driver."""
    status = getattr(_driver(), name)(*arguments)
    if status:
        text = ctypes.c_char_p()
        _driver().cuGetErrorString(status, ctypes.byref(text))
        raise DriverError(f"{name}: {(text.value or b'unknown error').decode()} ({status})")


@functools.cache
def open_device():
    """Makes the first GPU's primary context current: the one that TensorFlow uses too."""
    call("cuInit", 0)
    device, context = ctypes.c_int(), ctypes.c_void_p()
    call("cuDeviceGet", ctypes.byref(device), 0)
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    call("cuCtxSetCurrent", context)
    name = ctypes.create_string_buffer(128)
    call("cuDeviceGetName", name, 128, device)
    return name.value.decode()


def synchronize():
    """Waits for all work; raises what a kernel did wrong."""
    call("cuCtxSynchronize")


class Memory:
    """Device memory of a size, freed with the object."""

    def __init__(self, nbytes):
        self.nbytes, self.address = nbytes, ctypes.c_uint64()
        call("cuMemAlloc_v2", ctypes.byref(self.address), ctypes.c_size_t(max(nbytes, 1)))

    def write(self, array, offset=0):
        array = np.ascontiguousarray(array)
        size = ctypes.c_size_t(array.nbytes)
        address = ctypes.c_uint64(self.address.value + offset)
        call("cuMemcpyHtoD_v2", address, ctypes.c_void_p(array.ctypes.data), size)

    def read(self, nbytes, offset=0):
        array = np.empty(nbytes, np.uint8)
        address = ctypes.c_uint64(self.address.value + offset)
        call(
            "cuMemcpyDtoH_v2", ctypes.c_void_p(array.ctypes.data), address, ctypes.c_size_t(nbytes)
        )
        return array

    def __del__(self):
        _driver().cuMemFree_v2(self.address)


class Event:
    """A point in time on the device's default stream."""

    def __init__(self):
        self.handle = ctypes.c_void_p()
        call("cuEventCreate", ctypes.byref(self.handle), 0)
        call("cuEventRecord", self.handle, None)

    def milliseconds_since(self, earlier):
        call("cuEventSynchronize", self.handle)
        elapsed = ctypes.c_float()
        call("cuEventElapsedTime", ctypes.byref(elapsed), earlier.handle, self.handle)
        return elapsed.value


class CudaDevice(KernelDevice):
    """The first GPU. What was not written holds NaN, in every dtype."""

    def __init__(self):
        open_device()
        self._library = ctypes.CDLL(os.fspath(shared_library.CUDA_PATH))
        self._memory = {}

    def allocate(self, array, offset=0):
        address = self.allocate_uninitialized(np.asarray(array).nbytes, offset)
        self._memory[address][0].write(array, offset)
        return address

    def allocate_uninitialized(self, nbytes, offset=0):
        memory = Memory(nbytes + offset)
        if not os.environ.get("KERAS_KD_UNDER_SANITIZER"):  # which looks for what nobody wrote
            call("cuMemsetD8_v2", memory.address, 0xFF, ctypes.c_size_t(nbytes + offset))
        address = memory.address.value + offset
        self._memory[address] = (memory, nbytes, offset)
        return address

    def read_bytes(self, address):
        synchronize()
        memory, nbytes, offset = self._memory[address]
        return memory.read(nbytes, offset)

    def function(self, name):
        return getattr(self._library, name)

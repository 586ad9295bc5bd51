"""The kernels of the GPU: finds `libkeras_kd_cuda.so`, and gives it to XLA.

A GPU's kernels are reached through XLA only: its FFI hands over the stream in a C interface, which
TensorFlow's own interface for operations does not for CUDA.
"""

import ctypes
import functools
import json
import os

import tensorflow as tf

from keras_kd import _library

ABI_VERSION = 1
_MESSAGE_BYTES = 512


@functools.cache
def _open():
    """Opens the library, which needs neither a driver nor a GPU for that."""
    path = _library.CUDA_PATH
    if not path.exists():
        raise _library.LibraryError(
            f"this installation holds no CUDA kernels ({path.name}): nvcc was not there when it "
            "was built. Remedy: install the x86-64 wheel, or build where nvcc is found."
        )
    try:
        library = ctypes.CDLL(os.fspath(path))
        found = library.keras_kd_cuda_abi_version()
    except (OSError, AttributeError) as error:
        raise _library.LibraryError(f"{path.name} cannot be used: {error}") from error
    if found != ABI_VERSION:
        raise _library.LibraryError(
            f"{path.name} speaks interface version {found}; expected {ABI_VERSION}. "
            f"{_library.REMEDY}"
        )
    library.keras_kd_cuda_build_info.restype = ctypes.c_char_p
    return library


def build_info():
    """What the library was built with.

    Returns:
        A dict: `version`, `cuda` (the version of its runtime), `architectures` (a list such as
        `["sm_90", "compute_90"]`, the latter PTX).

    Raises:
        LibraryError: There is no library, or it cannot be opened.
    """
    info = json.loads(_open().keras_kd_cuda_build_info())
    return {**info, "architectures": info["architectures"].split()}


@functools.cache
def unavailable():
    """Why the kernels cannot run on a GPU of this machine; empty if they can."""
    try:
        library = _open()
    except _library.LibraryError as error:
        return str(error)
    message = ctypes.create_string_buffer(_MESSAGE_BYTES)
    if library.keras_kd_cuda_check(message, ctypes.c_int64(_MESSAGE_BYTES)):
        return message.value.decode()
    if not tf.test.is_built_with_cuda():
        return "this TensorFlow is built without CUDA. Remedy: install tensorflow[and-cuda]."
    return ""


@functools.cache
def register():
    """Gives the kernels to XLA; returns why that failed, or an empty string."""
    library = _open()
    bridge = ctypes.CDLL(os.fspath(_library.TENSORFLOW_PATH))
    bridge.keras_kd_register_xla_cuda.restype = ctypes.c_char_p
    functions = [
        ctypes.cast(getattr(library, name), ctypes.c_void_p)
        for name in ("keras_kd_cuda_losses", "keras_kd_cuda_workspace")
    ]
    return bridge.keras_kd_register_xla_cuda(*functions).decode()

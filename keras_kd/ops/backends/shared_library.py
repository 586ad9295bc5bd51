"""Finds and opens `libkeras_kd.so`: the kernels, without TensorFlow.

The library does not depend on Python's version: ctypes opens it, and one wheel serves all.
"""

import ctypes
import functools
import json
import os
import pathlib
from typing import Any, ClassVar

from keras_kd import version

ABI_VERSION = 3
THREADS_VARIABLE = "KERAS_KD_NUM_THREADS"
_FOLDER = pathlib.Path(__file__).parents[2] / "lib"
CORE_PATH = _FOLDER / "libkeras_kd.so"
TENSORFLOW_PATH = _FOLDER / "libkeras_kd_tf.so"
CUDA_PATH = _FOLDER / "libkeras_kd_cuda.so"

REMEDY = (
    "Install a wheel for this platform (`pip install --force-reinstall keras-kd`), or build it "
    "here with a C++17 compiler and `KERAS_KD_REQUIRE_NATIVE=1 pip install --no-binary keras-kd "
    "keras-kd`. `python -m keras_kd doctor` reports what it finds."
)


class LibraryError(RuntimeError):
    """The native library is missing, broken, or of another version."""


class Problem(ctypes.Structure):
    """`keras_kd::Problem` of `csrc/problem.h`, field by field."""

    _fields_: ClassVar = [
        ("rows", ctypes.c_int64),
        ("classes", ctypes.c_int64),
        ("student", ctypes.c_void_p),
        ("teacher", ctypes.c_void_p),
        ("student_type", ctypes.c_int32),
        ("teacher_type", ctypes.c_int32),
        ("temperature", ctypes.c_float),
        ("divergence", ctypes.c_int32),
        ("mixing_weight", ctypes.c_float),
        ("labels", ctypes.c_void_p),
        ("labels_are_int64", ctypes.c_bool),
        ("soft_weight", ctypes.c_void_p),
        ("hard_weight", ctypes.c_void_p),
        ("soft_weight_is_scalar", ctypes.c_bool),
        ("hard_weight_is_scalar", ctypes.c_bool),
        ("soft", ctypes.c_void_p),
        ("hard", ctypes.c_void_p),
        ("gradient", ctypes.c_void_p),
        ("gradient_type", ctypes.c_int32),
    ]


class SparseProblem(ctypes.Structure):
    """`keras_kd::SparseProblem` of `csrc/problem.h`, field by field."""

    _fields_: ClassVar = [
        ("dense", Problem),
        ("kept", ctypes.c_int64),
        ("indices", ctypes.c_void_p),
        ("indices_are_int64", ctypes.c_bool),
        ("tail", ctypes.c_void_p),
    ]


def _check_environment(library: ctypes.CDLL) -> None:
    name = os.environ.get("KERAS_KD_ISA")
    if name and library.keras_kd_set_instruction_set(name.encode()) != 0:
        sets = library.keras_kd_instruction_sets().decode()
        raise LibraryError(
            f"KERAS_KD_ISA={name} cannot run on this processor. Expected one of: auto, {sets}."
        )


def _build_failure() -> str:
    """The reason that the installation left."""
    note = _FOLDER / "NOT_BUILT.txt"
    if note.exists():
        return note.read_text(encoding="utf-8").strip()
    return f"{CORE_PATH.name} is not in the package."


def _declare_functions(library: ctypes.CDLL) -> None:
    message = [ctypes.c_char_p, ctypes.c_int64]
    pointer = ctypes.c_void_p
    signatures: dict[str, tuple[Any, list]] = {
        "keras_kd_build_info": (ctypes.c_char_p, []),
        "keras_kd_losses": (ctypes.c_int32, [ctypes.POINTER(Problem), *message]),
        "keras_kd_sparse_losses": (ctypes.c_int32, [ctypes.POINTER(SparseProblem), *message]),
        "keras_kd_triad": (None, [pointer, pointer, ctypes.c_float, pointer, ctypes.c_int64]),
        "keras_kd_instruction_sets": (ctypes.c_char_p, []),
        "keras_kd_instruction_set": (ctypes.c_char_p, []),
        "keras_kd_set_instruction_set": (ctypes.c_int32, [ctypes.c_char_p]),
        "keras_kd_set_num_threads": (None, [ctypes.c_int32]),
        "keras_kd_num_threads": (ctypes.c_int32, []),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments


@functools.cache
def load() -> ctypes.CDLL:
    """Opens the library once.

    Returns:
        The `ctypes.CDLL`, with the types of its functions declared.

    Raises:
        LibraryError: It is missing, cannot be opened, or was built from another version.
        ValueError: `KERAS_KD_NUM_THREADS` is not a number of threads.
    """
    threads_of_environment()
    if not CORE_PATH.exists():
        raise LibraryError(
            f"keras_kd {version.__version__} was installed without its native library: "
            f"{_build_failure()} {REMEDY}"
        )
    try:
        library = ctypes.CDLL(os.fspath(CORE_PATH))
        found = library.keras_kd_abi_version()
        if found != ABI_VERSION:
            raise LibraryError(
                f"{CORE_PATH.name} speaks interface version {found}; keras_kd "
                f"{version.__version__} expected {ABI_VERSION}. {REMEDY}"
            )
        _declare_functions(library)
    except (OSError, AttributeError) as error:
        raise LibraryError(f"{CORE_PATH.name} cannot be used: {error}. {REMEDY}") from error
    _check_environment(library)
    return library


def threads_of_environment() -> int:
    """The number that `KERAS_KD_NUM_THREADS` gives, or 0 for the default.

    Raises:
        ValueError: It is not a number of threads.
    """
    threads = os.environ.get(THREADS_VARIABLE) or "0"
    if not threads.isdecimal():
        raise ValueError(
            f"Invalid value for environment variable {THREADS_VARIABLE}. Expected a number of "
            f"threads, or 0 for the default. Received: {threads!r}"
        )
    return int(threads)


_chosen_threads: list[int] = []


def choose_threads(threads: int) -> None:
    """Sets how many threads a kernel may use; 0 restores the default."""
    load().keras_kd_set_num_threads(threads)
    _chosen_threads[:] = [threads] if threads else []


def threads_are_chosen() -> bool:
    """Whether `choose_threads` has the last word: TensorFlow's number does not replace its own."""
    return bool(_chosen_threads)


def build_info() -> dict[str, Any]:
    """Returns a dict: version, compiler, architecture, instruction sets, ABI version."""
    return json.loads(load().keras_kd_build_info())

"""Lets triton, which PyTorch's CUDA builds bring, be loaded beside TensorFlow.

TensorFlow opens its libraries with `RTLD_GLOBAL`: the LLVM and MLIR in them are visible to every
library that is opened later. `libtriton.so` has other versions of both, and where its calls resolve
to TensorFlow's the process dies while the library is opened. PyTorch imports triton with
`torch._dynamo`, and so does every model of Hugging Face's transformers. Opened with
`RTLD_DEEPBIND`, the library resolves its calls to itself.
"""

import ctypes
import importlib.abc
import importlib.machinery
import os
import sys
import types
from collections.abc import Sequence

# The module of triton that holds LLVM and MLIR.
LIBRARY = "triton._C.libtriton"

WHY_NOT_APART = (
    "triton cannot be loaded after TensorFlow in this process: both hold LLVM, and they are kept "
    "apart only where malloc is the C library's own, but another library has replaced it "
    "(LD_PRELOAD={preloaded!r}). PyTorch works without triton, except that torch.compile makes no "
    "kernels for GPUs. For triton, import it before tensorflow and keras_kd, or do without that "
    "library."
)


def _why_not_apart() -> str | None:
    """The reason why `RTLD_DEEPBIND` would kill the process, or `None`.

    jemalloc, tcmalloc and ASan replace malloc for the process. A library that looks for symbols in
    itself and its dependencies first finds libc's, and would free what the other one allocated.
    """
    used, own = (
        ctypes.cast(ctypes.CDLL(library).malloc, ctypes.c_void_p).value
        for library in (None, "libc.so.6")
    )
    if used == own:
        return None
    return WHY_NOT_APART.format(preloaded=os.environ.get("LD_PRELOAD", ""))


class _OwnSymbols(importlib.machinery.ExtensionFileLoader):
    """Loads an extension that looks for its symbols in itself before anywhere else."""

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        why_not = _why_not_apart()
        if why_not:
            raise ImportError(why_not, name=spec.name, path=spec.origin)
        try:
            # A library is bound when it is opened first; Python then gets the same one.
            ctypes.CDLL(spec.origin, mode=os.RTLD_NOW | os.RTLD_DEEPBIND)
        except OSError as error:
            raise ImportError(str(error), name=spec.name, path=spec.origin) from error
        return super().create_module(spec)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds triton's library where Python would, and lets `_OwnSymbols` load it."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: types.ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != LIBRARY:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.ExtensionFileLoader):
            spec.loader = _OwnSymbols(spec.loader.name, spec.loader.path)
        return spec


def _can_collide() -> bool:
    """Systems other than Linux with glibc have no triton, or do not share symbols."""
    return sys.platform == "linux" and hasattr(os, "RTLD_DEEPBIND")


def keep_apart() -> None:
    """From now on `import triton` works beside TensorFlow; it costs nothing until then.

    A triton that was loaded before TensorFlow works anyway.
    """
    if _can_collide():
        sys.meta_path.insert(0, _Finder())


def status() -> str:
    """The result of `import triton` in this process, in words."""
    why_not = _why_not_apart() if _can_collide() else None
    return why_not or "works once keras_kd is imported"

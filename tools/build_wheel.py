"""Builds the source distribution and, from it, a manylinux wheel into dist/.

Usage: python tools/build_wheel.py x86_64|aarch64

Zig's clang links against an old glibc on a new system, so no container is needed: see
cmake/zig.cmake. The wheel holds no Python extension, hence one wheel for every Python.
"""

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GLIBC = "2.17"
BIN = Path(sys.executable).parent


def run(*command, **variables):
    """Runs a tool of this environment, with more environment variables."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "PATH": path, **variables})


def build(architecture, folder):
    """Builds the source distribution and the wheel, still tagged linux_*, into `folder`."""
    cmake_args = [
        f"-DCMAKE_TOOLCHAIN_FILE={ROOT / 'cmake' / 'zig.cmake'}",
        f"-DKERAS_KD_ZIG_TARGET={architecture}-linux-gnu.{GLIBC}",
        # nvcc from PyPI compiles for its own processor only.
        *cuda_arguments(architecture == platform.machine()),
    ]
    run(
        *(sys.executable, "-m", "build", "--outdir", str(folder)),
        f"--config-setting=--build-option=--plat-name=linux_{architecture}",
        CMAKE_ARGS=" ".join(cmake_args),
        KERAS_KD_REQUIRE_NATIVE="1",
        KERAS_KD_ZIG_PYTHON=sys.executable,
    )


def cuda_arguments(wanted):
    """CMake's arguments for the CUDA kernels: with the nvcc of this environment, or without."""
    if not wanted:
        return ["-DKERAS_KD_CUDA=OFF"]
    nvcc = Path(sysconfig.get_path("purelib")) / "nvidia" / "cu13" / "bin" / "nvcc"
    return ["-DKERAS_KD_CUDA=ON", f"-DKERAS_KD_NVCC={nvcc}"]


def repair(wheel, dist):
    """Has auditwheel check what the libraries need and write the tag that follows from it."""
    # TensorFlow's own library is in the process before ours is opened.
    run(
        *("auditwheel", "repair", "--exclude", "libtensorflow_framework.so.2"),
        *("--wheel-dir", str(dist), str(wheel)),
    )


def main():
    """Builds for the architecture on the command line."""
    architecture, start = sys.argv[1], time.monotonic()
    folder, dist = ROOT / "build" / f"wheel-{architecture}", ROOT / "dist"
    shutil.rmtree(folder, ignore_errors=True)
    dist.mkdir(exist_ok=True)
    for old in dist.glob(f"keras_kd-*{architecture}.whl"):
        old.unlink()
    build(architecture, folder)
    (wheel,) = folder.glob("*.whl")
    repair(wheel, dist)
    (source,) = folder.glob("*.tar.gz")
    shutil.copy(source, dist)
    for path in sorted(dist.iterdir()):
        print(f"{path.relative_to(ROOT)}  {path.stat().st_size / 1e6:.2f} MB")
    print(f"{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()

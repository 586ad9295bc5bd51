"""Builds the source distribution and, from it, a manylinux wheel into dist/.

Usage: python -m tools.build_wheel x86_64|aarch64

Zig's clang links against an old glibc on a new system, so no container is needed: see
cmake/zig.cmake. The libraries know no Python, so one wheel serves all; it holds the module
keras_kd._kernels for each Python that tools/pythons.py finds. Any other Python uses ctypes, as does
a wheel for another architecture, whose headers are not here.
"""

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import time
import zipfile
from pathlib import Path

from tools import pythons

ROOT = Path(__file__).resolve().parent.parent
GLIBC = "2.17"
BIN = Path(sys.executable).parent


def run(*command, **variables):
    """Runs a tool of this environment, with more environment variables."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "PATH": path, **variables})


def pythons_for(architecture):
    """What setup.py reads in KERAS_KD_PYTHONS."""
    if architecture != platform.machine():
        print(
            f"no module for {architecture}: its Python headers are not here; ctypes is used there"
        )
        return "none"
    found = pythons.find_pythons()
    for suffix, interpreter in found.items():
        print(f"_kernels{suffix} by {interpreter}")
    return os.pathsep.join(found.values()) or "none"


def build(architecture, folder):
    """Builds the source distribution and the wheel, still tagged linux_*, into `folder`."""
    # Sources are unpacked and compiled below the repository: `check_paths` looks for its path.
    temporary = folder / "tmp"
    temporary.mkdir(parents=True)
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
        KERAS_KD_PYTHONS=pythons_for(architecture),
        KERAS_KD_REQUIRE_NATIVE="1",
        KERAS_KD_ZIG_PYTHON=sys.executable,
        TMPDIR=str(temporary),
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


def check_paths(wheel):
    """Fails where a file of the wheel names a folder of this machine."""
    folders = [os.fsencode(folder) for folder in (ROOT, Path.home()) if folder != Path("/")]
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.endswith((".so", "RECORD", ".txt")):
                content = archive.read(name)
                for folder in folders:
                    if folder + b"/" in content:
                        raise SystemExit(f"{wheel.name}: {name} names {os.fsdecode(folder)}")


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
    (repaired,) = dist.glob(f"keras_kd-*{architecture}.whl")
    check_paths(repaired)
    run("twine", "check", "--strict", str(repaired), str(dist / source.name))
    for path in sorted(dist.iterdir()):
        print(f"{path.relative_to(ROOT)}  {path.stat().st_size / 1e6:.2f} MB")
    print(f"{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()

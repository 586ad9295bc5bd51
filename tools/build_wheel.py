"""Builds the source distribution and, from it, a manylinux wheel into dist/.

Usage: python tools/build_wheel.py x86_64|aarch64

Zig's clang links against an old glibc on a new system, so no container is needed: see
cmake/zig.cmake. The libraries know no Python, so one wheel serves all; it holds the module
keras_kd._kernels for each Python from 3.10 on whose interpreter and headers are here: python3.10 to
python3.13 on PATH and the one that runs this, or those that KERAS_KD_PYTHONS names, between colons.
Any other Python uses ctypes, as does a wheel for another architecture, whose headers are not here.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GLIBC = "2.17"
BIN = Path(sys.executable).parent
MINORS = range(10, 14)
QUESTION = (
    "import json, sys, sysconfig as s; print(json.dumps([sys.executable, "
    "s.get_config_var('EXT_SUFFIX'), s.get_path('include'), sys.version_info[:2]]))"
)


def run(*command, **variables):
    """Runs a tool of this environment, with more environment variables."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "PATH": path, **variables})


def inspect_python(command):
    """`(interpreter, suffix of its modules)`, or the reason why it cannot have one."""
    done = subprocess.run([command, "-c", QUESTION], capture_output=True, text=True, check=False)
    if done.returncode:  # as pyenv's stand-in for a Python that was not chosen
        return next(iter(done.stderr.splitlines()), f"it ended with {done.returncode}")
    interpreter, suffix, include, version = json.loads(done.stdout)
    if tuple(version) < (3, 10):
        return "it is older than Python 3.10"
    if not (Path(include) / "Python.h").exists():
        return f"it has no headers, {include}/Python.h: install python3.{version[1]}-dev"
    return interpreter, suffix


def find_pythons():
    """The interpreters to compile the module for; says which are left out, and why."""
    named = os.environ.get("KERAS_KD_PYTHONS")
    if named:
        commands = named.split(os.pathsep)
    else:
        commands = [sys.executable, *filter(None, map(shutil.which, names_of_pythons()))]
    found = {}
    for command in commands:
        answer = inspect_python(command)
        if isinstance(answer, tuple):
            found.setdefault(answer[1], answer[0])
        elif named:
            raise SystemExit(f"KERAS_KD_PYTHONS names {command}: {answer}.")
        else:
            print(f"no module for {command}: {answer}")
    for suffix, interpreter in found.items():
        print(f"_kernels{suffix} by {interpreter}")
    return list(found.values())


def names_of_pythons():
    """The commands to look for."""
    return [f"python3.{minor}" for minor in MINORS]


def pythons_for(architecture):
    """What setup.py reads in KERAS_KD_PYTHONS."""
    if architecture != platform.machine():
        print(
            f"no module for {architecture}: its Python headers are not here; ctypes is used there"
        )
        return "none"
    return os.pathsep.join(find_pythons()) or "none"


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

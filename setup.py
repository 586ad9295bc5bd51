"""Builds the native libraries and the bindings with CMake. All metadata is in pyproject.toml.

The libraries go into keras_kd/lib; keras_kd._kernels, the bindings for the Python that runs this,
goes beside it where that Python has headers. What is compiled stays in build/native-*, so that the
next installation, with an extra or after a change of Python code, compiles nothing.

Environment variables:
  KERAS_KD_SKIP_NATIVE=1     a pure-Python install, which computes with TensorFlow alone
  KERAS_KD_REQUIRE_NATIVE=1  an error instead of a pure-Python install
  KERAS_KD_CUDA=ON           the CUDA kernels too, which take minutes; AUTO: where nvcc is found
  KERAS_KD_PYTHONS           interpreters to compile the bindings for, between colons; or none
  CXX                        the C++ compiler
  CMAKE_ARGS                 more arguments for CMake
"""

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Command, Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build

ROOT = Path(__file__).resolve().parent
COMPILERS = ("c++", "g++", "clang++")
# What CMake puts into its cache on the first run and never reads again.
COMPILER_VARIABLES = ("CMAKE_ARGS", "CXX", "CXXFLAGS", "CPPFLAGS", "LDFLAGS")


def is_set(variable):
    """Whether an environment variable is set to anything but 0."""
    return os.environ.get(variable, "0") not in ("", "0")


def why_not_native():
    """Returns the reason for a pure-Python install, or None where the libraries are built."""
    if is_set("KERAS_KD_SKIP_NATIVE"):
        return "KERAS_KD_SKIP_NATIVE is set"
    if not sys.platform.startswith("linux"):
        return f"it is built on Linux only, and this is {sys.platform}"
    if find_compiler() is None:
        looked_for = os.environ.get("CXX") or ", ".join(COMPILERS)
        return (
            f"no C++ compiler was found (looked for {looked_for}): install one (g++ 9 or newer, "
            "clang++ 10 or newer), or name it in CXX"
        )
    for tool in ("cmake", "ninja"):
        if not shutil.which(tool):
            return f"{tool} was not found: pip install {tool}"
    return None


def find_compiler():
    """The path of the C++ compiler, or None."""
    compilers = [os.environ["CXX"]] if os.environ.get("CXX") else COMPILERS
    found = (shutil.which(shlex.split(compiler)[0]) for compiler in compilers)
    return next(filter(None, found), None)


def cuda_choice():
    """What CMake's option KERAS_KD_CUDA is set to."""
    given = os.environ.get("KERAS_KD_CUDA") or "OFF"
    choice = {"1": "ON", "0": "OFF"}.get(given, given.upper())
    if choice not in ("ON", "OFF", "AUTO"):
        raise SystemExit(
            f"keras_kd: KERAS_KD_CUDA={given} is none of ON (with the CUDA kernels), OFF (without) "
            "and AUTO (where nvcc is found)."
        )
    return choice


def pythons():
    """The interpreters to compile keras_kd._kernels for, and why there are none."""
    given = os.environ.get("KERAS_KD_PYTHONS")
    if given == "none":
        return [], "KERAS_KD_PYTHONS=none was set, as it is for wheels of another architecture"
    if given:
        return given.split(os.pathsep), ""
    headers = Path(sysconfig.get_path("include"))
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if not (headers / "Python.h").exists():
        return [], f"Python {version} that built it has no headers, {headers}/Python.h"
    if pybind11_headers() is None:
        return [], f"pybind11 was not found by the Python {version} that built it"
    return [sys.executable], ""


def pybind11_headers():
    """The folder of pybind11's headers, or None."""
    try:
        import pybind11
    except ImportError:
        return None
    return Path(pybind11.get_include())


def build_folder():
    """A folder of what is compiled alike: another compiler or other flags have another one.

    CMake's cache keeps those of its first run; a copy of the source tree must not use the
    original's folder.
    """
    compiler = os.path.realpath(find_compiler())
    commands = ([compiler, "--version"], ["cmake", "--version"])
    facts = [str(ROOT), compiler, *map(os.environ.get, COMPILER_VARIABLES)]
    facts += [subprocess.run(each, capture_output=True, check=False).stdout for each in commands]
    return ROOT / "build" / f"native-{hashlib.sha256(repr(facts).encode()).hexdigest()[:8]}"


def copy_changed(source, target):
    """Copies headers to where the compiler finds them at the same path the next time.

    pip installs pybind11 into a new folder for each build; files that are newer, or elsewhere, are
    a reason to compile again.
    """
    for path in source.rglob("*.h"):
        copy = target / path.relative_to(source)
        if not copy.exists() or copy.read_bytes() != path.read_bytes():
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())


class NativeDistribution(Distribution):
    """Tells setuptools, before anything is built, whether the wheel holds native libraries."""

    def has_ext_modules(self):
        return why_not_native() is None


class BuildNative(Command):
    """Sub-command of `build`: CMake installs the libraries into the package's `lib`."""

    editable_mode = False

    def initialize_options(self):
        self.build_lib = None

    def finalize_options(self):
        self.set_undefined_options("build", ("build_lib", "build_lib"))

    @property
    def package(self):
        base = ROOT if self.editable_mode else Path(self.build_lib).resolve()
        return base / "keras_kd"

    def run(self):
        # What an earlier build left must not survive a build that ends otherwise.
        shutil.rmtree(self.package / "lib", ignore_errors=True)
        for module in self.package.glob("_kernels*.so"):
            module.unlink()
        reason = why_not_native()
        if reason is None:
            self.run_cmake()
        elif is_set("KERAS_KD_REQUIRE_NATIVE"):
            raise SystemExit(f"keras_kd: cannot build the native library: {reason}.")
        else:
            note = f"The native library was not built: {reason}."
            print(f"keras_kd: {note} This is a pure-Python install.", file=sys.stderr)
            self.write_note("NOT_BUILT.txt", note)

    def run_cmake(self):
        interpreters, why_none = pythons()
        folder = build_folder()
        settings = {
            # pip's ninja lies in another folder for each build.
            "CMAKE_MAKE_PROGRAM": shutil.which("ninja"),
            "KERAS_KD_CUDA": cuda_choice(),
            "KERAS_KD_PYTHONS": ";".join(interpreters),
        }
        if interpreters and pybind11_headers():
            settings["KERAS_KD_PYBIND11_INCLUDE"] = folder / "pybind11"
            copy_changed(pybind11_headers(), folder / "pybind11")
        configure = ["cmake", "-S", ROOT, "-B", folder, "-G", "Ninja"]
        configure += [f"-D{name}={value}" for name, value in settings.items()]
        configure += shlex.split(os.environ.get("CMAKE_ARGS", ""))
        try:
            self.configure(configure, folder)
            subprocess.run(["cmake", "--build", folder], check=True)
            install = ["cmake", "--install", folder, "--prefix", self.package]
            subprocess.run(install, check=True)
        except subprocess.CalledProcessError as error:
            raise SystemExit(
                "keras_kd: the native library failed to build: the messages are above. "
                "With KERAS_KD_SKIP_NATIVE=1 keras_kd installs without it."
            ) from error
        if not interpreters:
            note = f"keras_kd._kernels was not built: {why_none}."
            print(f"keras_kd: {note} NumPy arrays go through ctypes.", file=sys.stderr)
            self.write_note("NO_MODULE.txt", note)

    def configure(self, command, folder):
        """Configures; from nothing where an earlier build left a folder that CMake cannot use."""
        cache = folder / "CMakeCache.txt"
        had_cache = cache.exists()
        done = subprocess.run(command, check=not had_cache)
        if done.returncode:
            print(f"keras_kd: once more without what an earlier build left: {cache}")
            subprocess.run([*command[:1], "--fresh", *command[1:]], check=True)

    def write_note(self, name, note):
        """Leaves the reason where `python -m keras_kd doctor` finds it: pip hides this output."""
        lib = self.package / "lib"
        lib.mkdir(parents=True, exist_ok=True)
        (lib / name).write_text(note + "\n")

    def get_outputs(self):
        found = [*self.package.glob("lib/*"), *self.package.glob("_kernels*.so")]
        return [str(path) for path in found]

    def get_output_mapping(self):
        return {}

    def get_source_files(self):
        return []  # MANIFEST.in lists them.


class PlatformWheel(bdist_wheel):
    """The libraries know no Python version: one wheel per platform serves them all."""

    def get_tag(self):
        python, abi, platform = super().get_tag()
        return ("py3", "none", platform) if not self.root_is_pure else (python, abi, platform)


build.sub_commands.append(("build_native", None))

setup(
    distclass=NativeDistribution,
    cmdclass={"bdist_wheel": PlatformWheel, "build_native": BuildNative},
)

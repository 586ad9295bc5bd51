"""Builds the native libraries with CMake into keras_kd/lib. All metadata is in pyproject.toml.

Environment variables:
  KERAS_KD_SKIP_NATIVE=1     a pure-Python install, which computes with TensorFlow alone
  KERAS_KD_REQUIRE_NATIVE=1  an error instead of a pure-Python install
  CXX                        the C++ compiler
  CMAKE_ARGS                 more arguments for CMake
"""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Command, Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build

ROOT = Path(__file__).resolve().parent


def is_set(variable):
    """Whether an environment variable is set to anything but 0."""
    return os.environ.get(variable, "0") not in ("", "0")


def why_not_native():
    """Returns the reason for a pure-Python install, or None where the libraries are built."""
    if is_set("KERAS_KD_SKIP_NATIVE"):
        return "KERAS_KD_SKIP_NATIVE is set"
    if not sys.platform.startswith("linux"):
        return f"it is built on Linux only, and this is {sys.platform}"
    compilers = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    if not any(shutil.which(shlex.split(compiler)[0]) for compiler in compilers):
        return f"no C++ compiler was found (looked for {', '.join(compilers)})"
    for tool in ("cmake", "ninja"):
        if not shutil.which(tool):
            return f"{tool} was not found"
    return None


class NativeDistribution(Distribution):
    """Tells setuptools, before anything is built, whether the wheel holds native libraries."""

    def has_ext_modules(self):
        return why_not_native() is None


class BuildNative(Command):
    """Sub-command of `build`: CMake installs the libraries into the package's `lib`."""

    editable_mode = False

    def initialize_options(self):
        self.build_lib = None
        self.build_temp = None

    def finalize_options(self):
        self.set_undefined_options(
            "build", ("build_lib", "build_lib"), ("build_temp", "build_temp")
        )

    @property
    def lib_dir(self):
        base = ROOT if self.editable_mode else Path(self.build_lib).resolve()
        return base / "keras_kd" / "lib"

    def run(self):
        # What an earlier build left must not survive a build that ends otherwise.
        shutil.rmtree(self.lib_dir, ignore_errors=True)
        reason = why_not_native()
        if reason is None:
            self.run_cmake()
        elif is_set("KERAS_KD_REQUIRE_NATIVE"):
            raise SystemExit(f"keras_kd: cannot build the native library: {reason}.")
        else:
            self.write_note(reason)

    def run_cmake(self):
        build_dir = (Path(self.build_temp) / "cmake").resolve()
        # Fresh, since the cache of an earlier build names its compiler and pip's old ninja.
        configure = ["cmake", "--fresh", "-S", str(ROOT), "-B", str(build_dir), "-G", "Ninja"]
        configure += shlex.split(os.environ.get("CMAKE_ARGS", ""))
        try:
            subprocess.run(configure, check=True)
            subprocess.run(["cmake", "--build", str(build_dir)], check=True)
            install = ["cmake", "--install", str(build_dir), "--prefix", str(self.lib_dir)]
            subprocess.run(install, check=True)
        except subprocess.CalledProcessError as error:
            raise SystemExit(
                "keras_kd: the native library failed to build: the messages are above. "
                "With KERAS_KD_SKIP_NATIVE=1 keras_kd installs without it."
            ) from error

    def write_note(self, reason):
        """Leaves the reason where `python -m keras_kd doctor` finds it: pip hides this output."""
        note = f"The native library was not built: {reason}."
        print(f"keras_kd: {note} This is a pure-Python install.", file=sys.stderr)
        self.lib_dir.mkdir(parents=True)
        (self.lib_dir / "NOT_BUILT.txt").write_text(note + "\n")

    def get_outputs(self):
        return [str(path) for path in self.lib_dir.glob("*")]

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

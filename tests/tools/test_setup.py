"""What `pip install` does without a compiler, without headers, and in a folder it has built in."""

import importlib.util
import os
import pathlib
import stat
import sys
import sysconfig

import pytest

ROOT = pathlib.Path(__file__).parents[2]
VARIABLES = ("CXX", "CMAKE_ARGS", "KERAS_KD_CUDA", "KERAS_KD_PYTHONS")
VARIABLES += ("KERAS_KD_SKIP_NATIVE", "KERAS_KD_REQUIRE_NATIVE")
# Writes down its arguments. Refuses a cache that it did not write itself, as CMake does.
CMAKE = """#!/bin/sh
echo "$@" >> {log}
case "$*" in
  *--fresh*) rm -f {cache} ;;
  --version) exit ;;
esac
if grep -qs broken {cache}; then echo "CMake Error: {cache}"; exit 1; fi
exit {code}
"""
COMPILER = "#!/bin/sh\necho compiler 1.0\n"


@pytest.fixture(scope="module")
def setup():
    """The module `setup.py`, which builds nothing on import."""
    setuptools = pytest.importorskip("setuptools", minversion="77")
    before = setuptools.setup
    setuptools.setup = lambda **kwargs: None
    try:
        spec = importlib.util.spec_from_file_location("setup_of_keras_kd", ROOT / "setup.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        setuptools.setup = before
    return module


@pytest.fixture
def machine(setup, tmp_path, monkeypatch):
    """One with a compiler, CMake and Ninja that only write down what they are called with."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(setup, "ROOT", tmp_path / "source")
    return Machine(setup, tmp_path, monkeypatch)


class Machine:
    def __init__(self, setup, folder, monkeypatch):
        self.setup, self.folder = setup, folder
        self.tools, self.log = folder / "tools", folder / "log.txt"
        self.tools.mkdir()
        monkeypatch.setenv("PATH", f"{self.tools}:/usr/bin:/bin")
        # The real ones of the machine must not be found.
        which = setup.shutil.which
        monkeypatch.setattr(
            setup.shutil, "which", lambda name: which(name, path=os.fspath(self.tools))
        )
        self.add("g++", COMPILER)
        self.add("ninja", COMPILER)
        self.add_cmake()

    def add(self, name, text):
        path = self.tools / name
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def add_cmake(self, code=0):
        cache = self.folder / "source" / "build" / "native-*" / "CMakeCache.txt"
        self.add("cmake", CMAKE.format(log=self.log, cache=cache, code=code))

    def install(self):
        """Runs the command; returns the package's folder."""
        command = self.setup.BuildNative(self.setup.Distribution())
        command.build_lib = os.fspath(self.folder / "lib")
        command.run()
        return self.folder / "lib" / "keras_kd"

    def calls(self):
        lines = self.log.read_text().splitlines()
        return [line for line in lines if line != "--version"]


def test_what_is_compiled(machine, monkeypatch):
    monkeypatch.setenv("KERAS_KD_PYTHONS", "python3.11:python3.12")
    monkeypatch.setenv("CMAKE_ARGS", "-DKERAS_KD_LANES=16")
    machine.install()
    configure, build, install = machine.calls()
    assert "-DKERAS_KD_CUDA=OFF" in configure
    assert "-DKERAS_KD_PYTHONS=python3.11;python3.12" in configure
    assert configure.endswith("-DKERAS_KD_LANES=16")  # the last word
    folder = configure.split("-B ")[1].split()[0]
    assert pathlib.Path(folder).parent == machine.folder / "source" / "build"
    assert build == f"--build {folder}"
    assert install == f"--install {folder} --prefix {machine.folder / 'lib' / 'keras_kd'}"


def test_the_next_installation_uses_the_same_folder(machine, monkeypatch):
    first = machine.setup.build_folder()
    assert machine.setup.build_folder() == first
    monkeypatch.setenv("CXXFLAGS", "-O1")
    assert machine.setup.build_folder() != first
    monkeypatch.delenv("CXXFLAGS")
    machine.add("g++", COMPILER.replace("1.0", "2.0"))
    assert machine.setup.build_folder() != first


def test_headers_that_are_there_keep_their_time(machine):
    source, target = machine.folder / "from", machine.folder / "to"
    (source / "detail").mkdir(parents=True)
    (source / "detail" / "a.h").write_text("1")
    (source / "b.h").write_text("1")
    machine.setup.copy_changed(source, target)
    for path in target.rglob("*.h"):
        os.utime(path, (1, 1))
    (source / "b.h").write_text("2")
    machine.setup.copy_changed(source, target)
    assert (target / "detail" / "a.h").stat().st_mtime == 1
    assert (target / "b.h").stat().st_mtime > 1
    assert (target / "b.h").read_text() == "2"


def test_a_folder_that_an_earlier_build_left_broken(machine, capfd):
    cache = machine.setup.build_folder() / "CMakeCache.txt"
    cache.parent.mkdir(parents=True)
    cache.write_text("broken")
    machine.install()
    assert [("--fresh" in call) for call in machine.calls()] == [False, True, False, False]
    assert f"once more without what an earlier build left: {cache}" in capfd.readouterr().out


def test_a_build_that_fails(machine):
    machine.add_cmake(code=1)
    with pytest.raises(SystemExit, match=r"failed to build: .*KERAS_KD_SKIP_NATIVE=1") as caught:
        machine.install()
    assert "\n" not in str(caught.value)
    assert len(machine.calls()) == 1  # a folder that held nothing is not tried again


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("g++", "no C++ compiler was found (looked for c++, g++, clang++): install one"),
        ("cmake", "cmake was not found: pip install cmake"),
        ("ninja", "ninja was not found: pip install ninja"),
    ],
)
def test_without_a_tool(machine, monkeypatch, missing, words):
    (machine.tools / missing).unlink()
    note = (machine.install() / "lib" / "NOT_BUILT.txt").read_text()
    assert words in note
    monkeypatch.setenv("KERAS_KD_REQUIRE_NATIVE", "1")
    with pytest.raises(SystemExit) as caught:
        machine.install()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_compiler_by_name(machine, monkeypatch):
    monkeypatch.setenv("CXX", "g++-99 -m64")
    note = (machine.install() / "lib" / "NOT_BUILT.txt").read_text()
    assert "looked for g++-99 -m64" in note


def test_a_python_without_headers(machine, monkeypatch):
    found = sysconfig.get_path
    monkeypatch.setattr(
        sysconfig, "get_path", lambda name: "/nowhere" if name == "include" else found(name)
    )
    package = machine.install()
    note = (package / "lib" / "NO_MODULE.txt").read_text()
    assert "keras_kd._kernels was not built: Python 3." in note
    assert "has no headers, /nowhere/Python.h" in note
    assert machine.calls()[0].endswith("-DKERAS_KD_PYTHONS=")


def test_without_pybind11(machine, monkeypatch, tmp_path):
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr(sysconfig, "get_path", lambda name: os.fspath(tmp_path))
    monkeypatch.setitem(sys.modules, "pybind11", None)
    assert "pybind11 was not found" in (machine.install() / "lib" / "NO_MODULE.txt").read_text()


def test_no_python_on_purpose(machine, monkeypatch):
    monkeypatch.setenv("KERAS_KD_PYTHONS", "none")
    note = (machine.install() / "lib" / "NO_MODULE.txt").read_text()
    assert "KERAS_KD_PYTHONS=none was set" in note


def test_an_earlier_module_does_not_survive(machine, monkeypatch):
    monkeypatch.setenv("KERAS_KD_PYTHONS", "none")
    package = machine.install()
    (package / "_kernels.cpython-311-x86_64-linux-gnu.so").touch()
    (package / "lib" / "NOT_BUILT.txt").touch()
    machine.install()
    assert sorted(path.name for path in package.rglob("*.*")) == ["NO_MODULE.txt"]


@pytest.mark.parametrize(
    ("given", "choice"),
    [(None, "OFF"), ("", "OFF"), ("ON", "ON"), ("on", "ON"), ("1", "ON"), ("0", "OFF")]
    + [("auto", "AUTO")],
)
def test_cuda_is_asked_for(machine, monkeypatch, given, choice):
    if given is not None:
        monkeypatch.setenv("KERAS_KD_CUDA", given)
    assert machine.setup.cuda_choice() == choice


def test_an_unknown_choice_of_cuda(machine, monkeypatch):
    monkeypatch.setenv("KERAS_KD_CUDA", "yes")
    with pytest.raises(SystemExit, match="KERAS_KD_CUDA=yes is none of ON"):
        machine.install()

"""Which Pythons the wheel gets a module for, and that it names no folder of the machine."""

import json
import os
import stat
import sys
import zipfile

import pytest

from tools import build_wheel


@pytest.fixture
def add(tmp_path):
    """Makes an interpreter that answers every question with the given line, or fails with it."""

    def make(name, answer, code=0):
        path = tmp_path / name
        stream = 2 if code else 1
        path.write_text(f"#!/bin/sh\necho '{answer}' >&{stream}\nexit {code}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return os.fspath(path)

    return make


def answer(folder, minor=12, suffix=".so"):
    return json.dumps(["/bin/python", suffix, os.fspath(folder), [3, minor]])


def test_a_python_with_headers(add, tmp_path):
    (tmp_path / "Python.h").touch()
    assert build_wheel.inspect_python(add("python", answer(tmp_path))) == ("/bin/python", ".so")


@pytest.mark.parametrize(
    ("given", "code", "reason"),
    [
        (answer("/nowhere"), 0, "it has no headers, /nowhere/Python.h: install python3.12-dev"),
        (answer("/nowhere", minor=9), 0, "it is older than Python 3.10"),
        ("pyenv: python3.12: command not found", 127, "pyenv: python3.12: command not found"),
    ],
)
def test_a_python_that_cannot_be_used(add, monkeypatch, capsys, given, code, reason):
    command = add("python", given, code)
    assert build_wheel.inspect_python(command) == reason
    monkeypatch.setenv("KERAS_KD_PYTHONS", command)
    with pytest.raises(SystemExit, match="KERAS_KD_PYTHONS names") as caught:
        build_wheel.find_pythons()
    assert reason in str(caught.value)
    monkeypatch.delenv("KERAS_KD_PYTHONS")
    monkeypatch.setattr(build_wheel.shutil, "which", lambda name: command)
    build_wheel.find_pythons()
    assert f"no module for {command}: {reason}" in capsys.readouterr().out


def test_each_python_once(add, tmp_path, monkeypatch):
    (tmp_path / "Python.h").touch()
    commands = [add(name, answer(tmp_path)) for name in ("python3", "python3.12")]
    monkeypatch.setenv("KERAS_KD_PYTHONS", os.pathsep.join(commands))
    assert build_wheel.find_pythons() == ["/bin/python"]


def test_another_architecture_has_no_module(capsys):
    assert build_wheel.pythons_for("a-processor-of-tomorrow") == "none"
    assert "ctypes is used there" in capsys.readouterr().out


@pytest.mark.parametrize("place", ["keras_kd/_kernels.so", "keras_kd-0.1.dist-info/RECORD"])
def test_a_folder_of_this_machine(tmp_path, place):
    wheel = tmp_path / "keras_kd-0.1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("keras_kd/lib/libkeras_kd.so", b"\0GCC\0")
    build_wheel.check_paths(wheel)
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr(place, b"\0" + os.fsencode(build_wheel.ROOT) + b"/csrc/c_api.cc\0")
    with pytest.raises(SystemExit, match=f"{place} names"):
        build_wheel.check_paths(wheel)


def test_this_python_is_asked_as_well(monkeypatch, capsys):
    monkeypatch.delenv("KERAS_KD_PYTHONS", raising=False)
    monkeypatch.setattr(build_wheel.shutil, "which", lambda name: None)
    found = build_wheel.find_pythons()
    assert found == [sys.executable] or f"no module for {sys.executable}" in capsys.readouterr().out

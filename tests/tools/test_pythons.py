"""Which Pythons of a machine are used: for modules in the wheel, and to try it."""

import json
import os
import stat
import sys

import pytest

from tools import pythons


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
    assert pythons.inspect_python(add("python", answer(tmp_path))) == ("/bin/python", ".so")


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
    assert pythons.inspect_python(command) == reason
    monkeypatch.setenv("KERAS_KD_PYTHONS", command)
    with pytest.raises(SystemExit, match="KERAS_KD_PYTHONS names") as caught:
        pythons.find_pythons()
    assert reason in str(caught.value)
    monkeypatch.delenv("KERAS_KD_PYTHONS")
    monkeypatch.setattr(pythons.shutil, "which", lambda name: command)
    pythons.find_pythons()
    assert f"not used: {command}: {reason}" in capsys.readouterr().err


def test_each_python_once(add, tmp_path, monkeypatch):
    (tmp_path / "Python.h").touch()
    commands = [add(name, answer(tmp_path)) for name in ("python3", "python3.12")]
    monkeypatch.setenv("KERAS_KD_PYTHONS", os.pathsep.join(commands))
    assert pythons.find_pythons() == {".so": "/bin/python"}


def test_this_python_is_asked_as_well(monkeypatch, capsys):
    monkeypatch.delenv("KERAS_KD_PYTHONS", raising=False)
    monkeypatch.setattr(pythons.shutil, "which", lambda name: None)
    monkeypatch.setenv("PYENV_ROOT", "/nowhere")
    found = pythons.find_pythons()
    refused = f"not used: {sys.executable}" in capsys.readouterr().err
    assert refused or list(found.values()) == [sys.executable]


def test_pythons_of_pyenv(add, tmp_path, monkeypatch):
    """Their stand-ins on PATH refuse."""
    (tmp_path / "Python.h").touch()
    stand_in = add("stand-in", "pyenv: python3.12: command not found", 127)
    folder = tmp_path / "versions" / "3.12.1" / "bin"
    folder.mkdir(parents=True)
    os.rename(add("python", answer(tmp_path)), folder / "python3.12")
    monkeypatch.delenv("KERAS_KD_PYTHONS", raising=False)
    monkeypatch.setenv("PYENV_ROOT", os.fspath(tmp_path))
    monkeypatch.setattr(pythons.shutil, "which", lambda name: stand_in)
    assert pythons.find_pythons()[".so"] == "/bin/python"

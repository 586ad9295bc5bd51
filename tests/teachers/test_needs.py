"""Imports that fail name the package, and what to install."""

import sys

import pytest

from keras_kd._utils import validation


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Writes a package `kd_needed` with a line of code."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(line):
        folder = tmp_path / "kd_needed"
        folder.mkdir(exist_ok=True)
        (folder / "__init__.py").write_text("")
        (folder / "runner.py").write_text(line + "\n")
        for name in [name for name in sys.modules if name.startswith("kd_needed")]:
            monkeypatch.delitem(sys.modules, name)

    return write


def test_a_package_that_is_missing():
    with pytest.raises(ImportError, match=r"T needs kd_absent: pip install 'keras-kd\[onnx\]'"):
        validation.needs("kd_absent.runner", "T", "onnx")


def test_what_an_installed_package_misses(package):
    package("import kd_immutable.dictionary")
    message = r"T needs kd_needed, which is installed, but misses kd_immutable: pip install kd_immu"
    with pytest.raises(ImportError, match=message) as raised:
        validation.needs("kd_needed.runner", "T", "onnx")
    assert raised.value.name == "kd_immutable"


def test_a_package_that_is_too_old(package):
    package("")
    message = r"installed, but cannot be imported: No module named 'kd_needed.other'.*--upgrade"
    with pytest.raises(ImportError, match=message):
        validation.needs("kd_needed.other", "T", "onnx")


def test_a_package_that_is_broken(package):
    package("from math import no_such_function")
    with pytest.raises(ImportError, match=r"cannot be imported: cannot import name 'no_such_f"):
        validation.needs("kd_needed.runner", "T", "onnx")


def test_a_package_that_is_whole(package):
    package("answer = 42")
    assert validation.needs("kd_needed.runner", "T", "onnx").answer == 42

"""The process in which TensorFlow calibrates: isolated from the current folder, and bounded."""

import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_kd as kd
from keras_kd.export.student import ExportError
from keras_kd.export.tflite import calibrated

HOSTILE = "import pathlib; pathlib.Path(r'{}').write_text('run'); raise SystemExit('hostile')"


def student():
    return keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])


def rows():
    return np.random.default_rng(0).normal(size=(32, 8)).astype("float32")


@pytest.mark.slow
def test_files_of_the_current_folder_are_not_run(tmp_path, monkeypatch):
    for name in ("numpy", "json", "tensorflow", "keras_kd", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text(HOSTILE.format(tmp_path / "was_run"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])  # as of an interactive Python
    path = tmp_path / "s.tflite"
    done = kd.export.to_tflite(
        student(), path, "int8", representative_data=rows(), route="converter"
    )
    assert done.route == "converter"
    assert done.float_operators == []
    assert not (tmp_path / "was_run").exists()


def test_it_is_started_where_nothing_lies_and_finds_this_package(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", ["", *(x for x in sys.path if "site-packages" in x)])
    seen = {}

    def run(command, **options):
        seen.update(command=command, **options)
        assert not list(options["cwd"].iterdir())
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(subprocess, "run", run)
    request = calibrated.Request("int8", ["x"], 1, "float32", "float32")
    with pytest.raises(ExportError, match="stopped after 3,600 s. Pass fewer samples"):
        calibrated.convert(tmp_path / "saved_model", request, [rows()])
    assert seen["cwd"].parent == tmp_path
    assert ("-P" in seen["command"]) == (sys.version_info >= (3, 11))
    assert "env" not in seen  # the environment is this one's
    places = calibrated._import_paths()
    assert "" not in places
    found = subprocess_finds(places, tmp_path)
    assert found == kd.__file__


def subprocess_finds(places, folder):
    """Where a fresh Python with these places finds keras_kd, without importing it."""
    code = (
        "import sys, importlib.util; sys.path[:] = sys.argv[1:]; "
        "print(importlib.util.find_spec('keras_kd').origin)"
    )
    command = [sys.executable, "-c", code, *places]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder)
    return process.communicate()[0].strip()

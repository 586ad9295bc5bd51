"""Work that is killed at any moment, again and again, ends as work that was not."""

import json
import os
import random
import subprocess
import sys
import zipfile

import h5py
import numpy as np
import pytest

from keras_kd.runtimes import TFLiteFile
from tests import extras, fresh_process

if not hasattr(os, "fork"):
    pytest.skip("needs os.fork", allow_module_level=True)

BACKUPS = (
    {"save_freq": 2},
    {"save_freq": 1, "is_endless": True},
    {"save_freq": 3},
    {"save_freq": "epoch"},
    {"save_freq": 2, "double_checkpoint": True},
)


class Workshop:
    """Works in forks of one process; see `killed_work`."""

    def __init__(self):
        environment = fresh_process.environment(
            OMP_NUM_THREADS="1",
            TF_NUM_INTEROP_THREADS="1",
            JE_ARROW_MALLOC_CONF="background_thread:false",  # pyarrow's, which Keras may import
        )
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.saving.killed_work"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=fresh_process.ROOT,
        )

    def __call__(self, work, folder, events=None, options=None):
        request = {"work": work, "folder": os.fspath(folder), "events": events}
        self._process.stdin.write(json.dumps({**request, "options": options or {}}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        while line and not line.startswith("answer "):
            line = self._process.stdout.readline()
        assert line, "the process is gone"
        answer = json.loads(line.removeprefix("answer "))
        assert "error" not in answer, answer["error"]
        assert answer["killed"] or "events" in answer, answer
        return answer

    def close(self):
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


@pytest.fixture(scope="module")
def workshop():
    made = Workshop()
    yield made
    made.close()


def results(folder):
    with np.load(folder / "result.npz") as file:
        return [file[name] for name in file.files]


def assert_same_results(folder, expected):
    for one, other in zip(results(folder), results(expected), strict=True):
        np.testing.assert_array_equal(one, other)


def check_files(folder):
    """Opens whatever has a final name."""
    for file in folder.rglob("*"):
        if file.is_dir() or file.name.startswith(("partial-", "tmp")):
            continue
        check_file(file)


def check_file(file):
    if file.name == "training_metadata.json" or file.name.endswith(".bkp"):
        return  # Keras writes it, and what `fit` reads of it is mended first
    if file.suffix == ".h5":
        with h5py.File(file) as opened:
            opened.visititems(lambda _, each: each[...] if isinstance(each, h5py.Dataset) else None)
    elif file.suffix == ".keras":
        with zipfile.ZipFile(file) as archive:
            assert archive.testzip() is None
            with archive.open("model.weights.h5") as weights:
                h5py.File(weights).close()
    elif file.suffix == ".npz":
        results(file.parent)
    elif file.suffix == ".json":
        json.loads(file.read_text())
    elif file.suffix == ".html":
        assert file.read_text().rstrip().endswith("</html>")
    elif file.suffix == ".tflite":
        assert TFLiteFile(file).outputs
    elif file.suffix == ".onnx":
        extras.require("onnx").checker.check_model(os.fspath(file))
    else:
        raise AssertionError(f"what is {file}?")


def killed_until_it_ends(workshop, work, folder, chance, most, options=None):
    """Starts a work again and again, and kills it; returns how often it was killed."""
    kills = 0
    while kills < most[0]:
        answer = workshop(work, folder, chance.randint(1, most[1]), options)
        check_files(folder)
        if not answer["killed"]:
            return kills
        kills += 1
    workshop(work, folder, None, options)
    check_files(folder)
    return kills


def test_fit_goes_on_whenever_it_is_killed(tmp_path, workshop):
    count = workshop("fit", tmp_path / "whole", options=BACKUPS[0])["events"]
    chance, kills, trainings = random.Random(0), 0, 0
    while kills < 40:
        folder, options = tmp_path / str(trainings), BACKUPS[trainings % len(BACKUPS)]
        most = min(8, 40 - kills), count // 4
        kills += killed_until_it_ends(workshop, "fit", folder, chance, most, options)
        assert_same_results(folder, tmp_path / "whole")
        assert not (folder / "backup").exists()
        trainings += 1
    assert trainings >= len(BACKUPS)


# Each work, and the packages that it needs.
WORKS = {
    "born_again": [],
    "report": ["sklearn"],
    "to_tflite": ["ai_edge_litert"],
    "to_onnx": ["onnx", "onnxruntime", "tf2onnx"],
}


@pytest.mark.parametrize("work", WORKS)
def test_final_names_are_of_whole_files(tmp_path, workshop, work):
    extras.require_in_a_process(*WORKS[work])
    count = workshop(work, tmp_path / "whole")["events"]
    check_files(tmp_path / "whole")
    chance, kills, runs = random.Random(1), 0, 0
    while kills < 5:
        folder = tmp_path / str(runs)
        kills += killed_until_it_ends(workshop, work, folder, chance, (5 - kills, count))
        runs += 1
        if work == "born_again":
            assert_same_results(folder, tmp_path / "whole")

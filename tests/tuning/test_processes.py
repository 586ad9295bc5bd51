"""Processes that share a search, and those that are killed in it."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

import keras_kd as kd
from tests import extras
from tests.tuning import tasks

extras.require("optuna")
SEARCH = """
import json, os, sys
import keras_kd as kd
from tests.tuning.tasks import TRAIN, VALIDATION, network, perfect_teacher
from tests.tuning.test_processes import OPTIONS

path, ends_at, out = sys.argv[1], int(sys.argv[2]), sys.argv[3]
made = 0

def make_student():
    global made
    made += 1
    if made == ends_at:
        os._exit(9)
    return network()

found = kd.tune(
    perfect_teacher(), make_student, TRAIN, VALIDATION, directory=path, **OPTIONS
)
with open(out, "w") as file:
    json.dump([found.to_dict(), made], file)
"""
OPTIONS = {
    "trials": 5,
    "epochs": 2,
    "labels_only": False,
    "sampler": "random",
    "prune": False,
    "verbose": 0,
}
# The first of them looks at the space.
LOOKS = 1


def started(path, ends_at=0, out="found.json"):
    root = str(pathlib.Path(kd.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "CUDA_VISIBLE_DEVICES": "-1"}
    command = [sys.executable, "-c", SEARCH, str(path), str(ends_at), str(path.parent / out)]
    return subprocess.Popen(command, env=environment)


def settings(rows):
    names = ("temperature", "alpha", "learning_rate")
    return [tuple(row[name] for name in names) for row in rows]


@pytest.mark.slow
def test_killed_process_loses_no_trial_and_none_runs_twice(tmp_path):
    killed = started(tmp_path / "search", ends_at=LOOKS + 2)  # in its second trial
    assert killed.wait(240) == 9
    both = [started(tmp_path / "search", out=f"{i}.json") for i in range(2)]
    undisturbed = kd.tune(
        tasks.perfect_teacher(), tasks.network, tasks.TRAIN, tasks.VALIDATION, **OPTIONS
    )
    assert [each.wait(240) for each in both] == [0, 0]
    (one, made), (two, made_too) = (
        json.loads((tmp_path / f"{name}.json").read_text()) for name in range(2)
    )
    assert settings(one["trials"]) == settings(two["trials"])
    assert len(one["trials"]) == len(set(settings(one["trials"]))) == 5
    assert all(row["state"] == "complete" for row in one["trials"])
    assert set(settings(one["trials"])) == set(settings(undisturbed.trials))
    # The first one was complete when the process was killed; each of the others ran once.
    assert made + made_too - 2 * LOOKS == 4

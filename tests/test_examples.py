"""The examples run, on little data, and say what they found."""

import os
import pathlib
import subprocess
import sys

import pytest

from tests import fresh_process

pytestmark = pytest.mark.slow
EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
SMALL = ["--dataset", "digits", "--train-samples", "60", "--epochs", "1", "--seeds", "2"]


def run(name, output, *arguments):
    command = [sys.executable, str(EXAMPLES / name), *SMALL, "--output", str(output), *arguments]
    env = {**os.environ, **fresh_process.environment()}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (output / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    return done.stdout


def test_quickstart(tmp_path):
    text = run("quickstart.py", tmp_path / "out")
    assert "Distilled against labels only" in text
    assert (tmp_path / "out" / "student.keras").exists()


def test_feature_hints(tmp_path):
    text = run(
        "feature_hints.py", tmp_path / "out", "--methods", "labels only", "soft targets + hints"
    )
    rows = [line for line in text.splitlines() if line.startswith(("labels only", "soft targets"))]
    assert [line.count("±") for line in rows] == [1, 2]

"""A distiller that was made and dropped leaves nothing, nor does a call of an operation."""

import pathlib

import pytest

from tests import fresh_process

# 200 of them in all 20 MB.
MOST = 100_000


@pytest.mark.skipif(not pathlib.Path("/proc/self/statm").exists(), reason="reads Linux' /proc")
def test_what_is_dropped_is_gone(tmp_path):
    kept = fresh_process.run_json("tests.distiller.kept_memory", tmp_path / "kept.json")
    assert kept["distiller"] < MOST
    assert kept["mutual"] < MOST
    # Keras keeps something of each model, whoever makes it.
    assert kept["new"] - kept["networks"] < MOST
    assert kept["calls"] < 1000

"""`keras-kd cache --source ...`: a job on the command line, here and on Ray."""

import contextlib
import io
import os
import re

import pytest

import keras_kd as kd
from keras_kd import __main__ as command
from tests import extras, ray_cluster
from tests.cache import caches

MODULE = """
import numpy as np
import tensorflow as tf

def part(view, shard):
    x = np.arange(40, dtype="float32").reshape(8, 5)[4 * shard : 4 * shard + 4]
    return tf.data.Dataset.from_tensor_slices((x, np.zeros(4))).batch(2)

def fails(view, shard):
    raise KeyError("no such column")
"""


def run(*arguments):
    """`(exit status, stdout, stderr)`."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = command.main(["cache", *map(os.fspath, arguments)])
        except SystemExit as ended:
            status = ended.code
    return status, out.getvalue(), err.getvalue()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_parts.py").write_text(MODULE)
    caches.model(1).save(tmp_path / "teacher.keras")
    return tmp_path


JOB = ("--source", "own_parts:part", "--teacher", "teacher.keras", "--shards", "2")


def test_a_job_is_written_here(folder):
    status, out, err = run(*JOB, "--path", "cache", "--dtype", "float32", "--rows-per-shard", "4")
    assert (status, out) == (0, "cache\n"), err
    assert "job: cache: 2/2" in err
    import own_parts

    joined = kd.load_cache(folder / "cache", own_parts.part, teacher=caches.model(1))
    assert sum(len(y) for _, y in joined) == 8
    again, _, err = run(
        *JOB, "--path", "cache", "--dtype", "float32", "--rows-per-shard", "4", "-q"
    )
    assert (again, err) == (0, "")


def test_options_are_those_of_plan(folder):
    options = ["--dtype", "own", "--top-k", "3", "--views", "2"]
    assert run(*JOB, "--path", "one", *options, "-q")[0] == 0
    import own_parts

    kd.cache.plan(
        teacher="teacher.keras",
        source=own_parts.part,
        path="other",
        shards=2,
        dtype=None,
        top_k=3,
        epochs=2,
    ).write_all(verbose=0)
    assert caches.contents(folder / "one") == caches.contents(folder / "other")


@pytest.mark.slow
def test_a_job_is_written_on_ray(folder):
    """The user's module is not installed where the workers run."""
    extras.require("ray")
    with ray_cluster.cluster(2):
        status, out, err = run(*JOB, "--path", folder / "far", "--ray", "local", "--workers", "1")
    assert status == 0, err
    assert "2 shards, 8 samples" in err
    assert run(*JOB, "--path", "near", "-q")[0] == 0
    assert caches.contents(folder / "far") == caches.contents(folder / "near")
    assert out == f"{folder / 'far'}\n"


WRONG = {
    "nothing": ([], "Name a configuration, or --source, --teacher and --path"),
    "both": (["config.yaml", *JOB], "--source belongs to a cache of --source, and CONFIG is"),
    "a run's option": ([*JOB, "--resume"], "--resume belongs to a run of CONFIG"),
    "no path": (JOB, "--path is missing"),
    "no teacher": (["--source", "own_parts:part", "--path", "c"], "--teacher is missing"),
    "no file": (
        [*JOB[:3], "none.keras", "--path", "c"],
        "--teacher: there is no file 'none.keras'",
    ),
    "no module": (["--source", "none:part", *JOB[2:], "--path", "c"], "There is no 'none:part'"),
    "no cluster": ([*JOB, "--path", "c", "--workers", "2"], "--workers is for a cluster"),
    "resource": (
        [*JOB, "--path", "c", "--ray", "local", "--resource", "GPU"],
        "--resource must be NAME=NUMBER",
    ),
    "a source that fails": (
        ["--source", "own_parts:fails", *JOB[2:], "--path", "c"],
        "planning 'own_parts:fails'.*no such column",
    ),
    "no shards": ([*JOB[:4], "--path", "c"], "`shards` must say how many"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_options_are_named(folder, kind):
    arguments, message = WRONG[kind]
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert re.search(message, err, re.DOTALL), err
    assert not (folder / "c").exists()


def test_help_tells_both(folder):
    status, out, _ = run("--help")
    assert status == 0
    for words in ("CONFIG", "--source", "--ray", "--rows-per-shard"):
        assert words in out

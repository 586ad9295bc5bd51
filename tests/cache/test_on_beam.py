"""A job in pipelines of Apache Beam's local runners: processes, retries, wrong ones.

Beam asks for an older protobuf than .venv has, so its runners are in a process that finds
`.venv/beam` first.
"""

import json
import os
import sys

import pytest

import keras_kd as kd
from tests import extras, fresh_process
from tests.cache import caches, on_ray_driver

SHARDS, ROWS = on_ray_driver.SHARDS, caches.ROWS
ALL = [[0, n, min(on_ray_driver.ROWS, ROWS - n * on_ray_driver.ROWS)] for n in range(SHARDS)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("beam")


@pytest.fixture(scope="module")
def seen(folder):
    """What the driver has seen, by its cases."""
    found = os.pathsep.join(map(os.fspath, [extras.require_folder("beam"), fresh_process.ROOT]))
    env = fresh_process.environment(PYTHONPATH=found)
    fresh_process.run(["-m", "tests.cache.on_beam_driver", folder], env)
    return json.loads((folder / "seen.json").read_text())


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The files of one process without Beam."""
    folder = tmp_path_factory.mktemp("reference")
    caches.model(1).save(folder / "teacher.keras")
    on_ray_driver.plan(folder, folder / "log", seconds=0).write_all(verbose=0)
    return caches.contents(folder / "cache")


def shards_read(case):
    """The shards in their order; what a process opens first is for the kinds of tensors alone."""
    first = set()
    for shard, pid in case["reads"]:
        if pid in first:
            yield shard
        first.add(pid)


pytestmark = pytest.mark.slow


def test_processes_write_what_one_process_writes(seen, folder, reference):
    case = seen["undisturbed"]
    assert caches.contents(folder / "undisturbed" / "cache") == reference
    assert case["written"] == ALL
    assert case["paths"] == [str(folder / "undisturbed" / "cache")]
    # Shard 0 is opened by all.
    assert len({pid for shard, pid in case["reads"] if shard}) == 2
    # As many bytes as the data has.
    assert sorted(shards_read(case)) == list(range(SHARDS))
    bytes_written = sum(
        len(content) for name, content in reference.items() if name.endswith(".tfrecord")
    )
    assert case["counters"] == {
        "shards": SHARDS,
        "shards_there": 0,
        "samples": ROWS,
        "bytes": bytes_written,
    }


def test_a_bundle_that_failed_is_tried_again(seen, folder, reference):
    case = seen["retried"]
    assert caches.contents(folder / "retried" / "cache") == reference
    # The bundle began again: what it had written was there, and was not read again.
    assert case["counters"]["shards_there"] > 0
    assert case["counters"]["shards"] == SHARDS + case["counters"]["shards_there"]
    assert sorted(shards_read(case)) == list(range(SHARDS))


def test_shards_that_are_given_out_twice_are_written_once(seen, folder, reference):
    case = seen["twice"]
    assert caches.contents(folder / "twice" / "cache") == reference
    assert case["written"] == sorted([*ALL, *ALL])
    assert case["counters"]["shards"] == 2 * SHARDS
    assert case["counters"]["shards_there"] == SHARDS


def test_a_pipeline_whose_process_was_killed_is_run_again(seen, folder, reference):
    case = seen["killed"]
    assert case["error"] == "RuntimeError: Channel closed prematurely."
    assert 0 < len(case["pending"]) < SHARDS
    assert sorted(shards_read(case)) == case["pending"]
    assert case["counters"]["shards"] == len(case["pending"])
    assert caches.contents(folder / "killed" / "cache") == reference


def test_where_all_shards_are_there_the_cache_is_finished(seen, folder, reference):
    case = seen["all_there"]
    assert not case["finished before"]
    assert (case["written"], case["reads"]) == ([], [])
    assert case["paths"] == [str(folder / "all_there" / "cache")]
    assert caches.contents(folder / "all_there" / "cache") == reference


def test_a_worker_with_another_teacher_is_refused(seen):
    case = seen["another_teacher"]
    assert case["error"].startswith("CacheError: This worker")
    assert "another teacher than the plan" in case["error"]
    assert case["files"] == 0


def test_wrong_calls_are_named(seen):
    assert seen["not_pickled"]["error"] == (
        "ValueError: The job cannot be sent to workers: cannot pickle 'generator' object. Pass "
        "functions that can be pickled, and a teacher by its path or by load_teacher=."
    )
    assert "`job`. Expected what keras_kd.cache.plan returns" in seen["wrong_calls"]["no job"]
    assert "ValueError: `Write` begins a pipeline" in seen["wrong_calls"]["a collection"]


def test_the_example_of_the_docstring(seen):
    assert seen["example"] == {"batches": 8}


def test_beam_is_imported_where_it_is_used(seen):
    assert seen["is lazy"]


def test_a_missing_beam_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    monkeypatch.delitem(sys.modules, "keras_kd.cache.beam", raising=False)
    with pytest.raises(ImportError, match=r"keras_kd.cache.beam needs .*'keras-kd\[beam\]'"):
        _ = kd.cache.beam

"""Threads and processes on one cache take turns; what killed ones left is removed."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import keras_kd as kd
from keras_kd._utils import locks
from tests.cache import caches


def together(count, call):
    """Calls a function with 0, 1, ... from as many threads at once; gives back what came of it."""
    found, start = [None] * count, threading.Barrier(count)

    def run(number):
        start.wait()
        try:
            found[number] = call(number)
        except Exception as error:  # noqa: BLE001 - compared below
            found[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return caches.written(tmp_path_factory.mktemp("whole") / "cache")


def outputs_of(data):
    return caches.read(data)[1]


def test_threads_make_one_index(tmp_path):
    path = caches.written(tmp_path / "c")
    exact = caches.model(1).predict(caches.arrays()[0], verbose=0)
    for found in together(
        4, lambda _: outputs_of(kd.load_cache(path, caches.dataset(), key="inputs"))
    ):
        np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-6)
    assert [file.name for file in path.glob("by-key-*/*")] == ["view-000"]


def test_threads_write_one_cache(tmp_path, whole):
    teacher = caches.model(1)
    found = together(3, lambda _: caches.written(tmp_path / "c", teacher=teacher))
    assert found == [tmp_path / "c"] * 3
    assert caches.contents(tmp_path / "c") == caches.contents(whole)


def test_concurrent_writers_share_one_cache(tmp_path, whole):
    """Numbers of other counts: each would write some of the others' shards."""
    teacher = caches.model(1)
    processes = [(0, 2), (1, 2), (1, 3), (2, 3), (0, 1)]
    found = together(
        5, lambda i: caches.written(tmp_path / "c", teacher=teacher, process=processes[i])
    )
    assert found == [tmp_path / "c"] * 5
    assert caches.contents(tmp_path / "c") == caches.contents(whole)


def test_two_cache_kinds_in_one_folder_raise(tmp_path):
    teacher = caches.model(1)
    found = together(
        2, lambda i: caches.written(tmp_path / "c", teacher=teacher, top_k=[None, 2][i])
    )
    assert sum(each == tmp_path / "c" for each in found) == 1
    (error,) = [each for each in found if each != tmp_path / "c"]
    assert isinstance(error, kd.CacheError)
    assert "of another kind" in str(error)


def test_what_killed_runs_left_is_removed(tmp_path, whole):
    path = caches.written(tmp_path / "c")
    (path / "manifest.json").unlink()
    (path / "view-000/shard-00002.json").unlink()
    names = ["view-000/partial-0-12-x.tfrecord", "partial-0-12-plan.json"]
    for name in [*names, "partial-0-12-manifest.json"]:
        (path / name).write_text("half")
    caches.written(path)
    assert caches.contents(path) == caches.contents(whole)
    kd.load_cache(path, caches.dataset(), key="inputs")
    (index,) = path.glob("by-key-*")
    (index / "partial-1-view-000").mkdir()
    (index / "view-000/digests.json").unlink()
    (path / "by-key-of-another").mkdir()
    kd.load_cache(path, caches.dataset(), key="inputs")
    assert {file.name for file in path.glob("by-key-*/*")} == {"view-000"}
    assert list(path.glob("by-key-*")) == [index]


HOLDER = """
import pathlib, sys, time
from keras_kd._utils import locks
from keras_kd.teachers.cache import format as cache_format
with locks.held(pathlib.Path(sys.argv[1]), cache_format.writer_lock(0)):
    print("held", flush=True)
    time.sleep(600)
"""


def test_lock_is_released_by_killed_process(tmp_path, capsys):
    path = caches.written(tmp_path / "c")
    (path / "manifest.json").unlink()
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(kd.__file__).parents[1])}
    command = [sys.executable, "-c", HOLDER, str(path)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
    try:
        assert holder.stdout.readline() == b"held\n"
        waiting = threading.Thread(target=caches.written, args=(path,), kwargs={"verbose": 1})
        waiting.start()
        shown, until = "", time.monotonic() + 60
        while "waiting for it to end" not in shown and time.monotonic() < until:
            time.sleep(0.05)
            shown += capsys.readouterr().out
        assert "another run is writing this cache" in shown
        assert not (path / "manifest.json").exists()
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    waiting.join(60)
    assert (path / "manifest.json").exists()


def test_threads_take_turns_without_file_locks(tmp_path, monkeypatch, whole):
    monkeypatch.setattr(locks, "fcntl", None)  # as on Windows
    teacher = caches.model(1)
    found = together(3, lambda _: caches.written(tmp_path / "c", teacher=teacher))
    assert found == [tmp_path / "c"] * 3
    assert caches.contents(tmp_path / "c") == caches.contents(whole)
    joined = together(2, lambda _: kd.load_cache(tmp_path / "c", caches.dataset(), key="inputs"))
    assert [len(outputs_of(each)) for each in joined] == [caches.ROWS] * 2

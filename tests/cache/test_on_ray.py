"""A job on a Ray cluster: workers and drivers that are killed, slow ones, wrong ones.

`KERAS_KD_RAY_KILLS=20 KERAS_KD_RAY_WORKERS=8` runs what the suite has no time for.
"""

import os
import pathlib
import random
import signal
import threading
import time

import pytest

import keras_kd as kd
from tests import extras, fresh_process, ray_cluster
from tests.cache import caches, on_ray_driver
from tests.cache.test_job import Source, planned

extras.require("ray")
pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("KERAS_KD_RAY_KILLS", "1"))
MOST_WORKERS = int(os.environ.get("KERAS_KD_RAY_WORKERS", "2"))
SHARDS = on_ray_driver.SHARDS


@pytest.fixture(scope="module", autouse=True)
def ray():
    with ray_cluster.cluster(max(MOST_WORKERS, 4)) as ray:
        yield ray


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The undisturbed cache of one process."""
    folder = tmp_path_factory.mktemp("reference")
    caches.model(1).save(folder / "teacher.keras")
    on_ray_driver.plan(folder, folder / "log", seconds=0).write_all(verbose=0)
    return folder / "cache"


@pytest.fixture
def folder(tmp_path):
    caches.model(1).save(tmp_path / "teacher.keras")
    return tmp_path


def shards_read(log):
    # The plan reads the beginning of the first shard three times, in this process.
    return sorted(shard for shard, pid in on_ray_driver.reads(log) if pid != os.getpid())


@pytest.mark.parametrize("workers", [n for n in (2, 4, 8) if n <= MOST_WORKERS])
def test_workers_write_what_one_process_writes(folder, reference, workers, capsys):
    log = folder / "log"
    summary = kd.cache.on_ray(on_ray_driver.plan(folder, log, seconds=0), workers=workers)
    assert caches.contents(folder / "cache") == caches.contents(reference)
    # Each shard was read once: as many bytes as the data has. (In `_Worker` the first one is
    # opened for its kinds of tensors, and not read.)
    read = shards_read(log)
    assert sorted(set(read)) == list(range(SHARDS))
    assert len(read) - read.count(0) == SHARDS - 1 + len(summary.backups)
    assert sorted(tuple(each.shard) for each in summary.written) == [(0, i) for i in range(SHARDS)]
    assert sum(each.rows for each in summary.written) == caches.ROWS
    assert 1 <= len(summary.by_worker()) <= workers
    assert str(summary).splitlines()[0] in capsys.readouterr().out
    assert kd.cache.on_ray(on_ray_driver.plan(folder, log), verbose=0).written == []


def test_killed_workers_are_replaced(folder, reference):
    log, rng = folder / "log", random.Random(7)
    job = on_ray_driver.plan(folder, log)
    killed = []

    def kill():
        while len(killed) < KILLS and not (folder / "cache" / "manifest.json").exists():
            time.sleep(rng.uniform(0.05, 0.6))
            others = [pid for pid in on_ray_driver.readers(log) if pid != os.getpid()]
            alive = [pid for pid in others if pathlib.Path(f"/proc/{pid}").exists()]
            if alive:
                victim = rng.choice(alive)
                os.kill(victim, signal.SIGKILL)
                killed.append(victim)

    killer = threading.Thread(target=kill)
    killer.start()
    summary = kd.cache.on_ray(job, workers=2, retries=KILLS + 3, verbose=0)
    killer.join()
    assert killed
    assert all("the worker was lost" in why for _, why in summary.retries)
    assert caches.contents(folder / "cache") == caches.contents(reference)


def test_killed_drivers_are_run_again(folder, reference):
    """The whole of it is killed, with its cluster: what was whole is not written again."""
    rng, log = random.Random(3), folder / "log"
    for _ in range(max(1, KILLS // 2)):
        before = len(on_ray_driver.reads(log))
        driver = fresh_process.start(["-m", "tests.cache.on_ray_driver", folder, "2"])
        try:
            goal = before + rng.randrange(5, 9)
            while len(on_ray_driver.reads(log)) < goal and driver.poll() is None:
                time.sleep(0.05)
        finally:
            driver.kill()
            driver.communicate()
    assert len(on_ray_driver.reads(log)) >= 5
    there = sorted((folder / "cache").rglob("*.json"))
    kd.cache.on_ray(on_ray_driver.plan(folder, log), workers=2, verbose=0)
    assert caches.contents(folder / "cache") == caches.contents(reference)
    assert there


def test_a_slow_worker_does_not_hold_the_others_up(folder, reference):
    log = folder / "log"
    # The driver is the first of the readers.
    job = on_ray_driver.plan(folder, log, slow={1: 200})
    summary = kd.cache.on_ray(job, workers=2, verbose=0)
    assert summary.backups
    assert summary.saved_by_backups == len(summary.backups)
    assert "begun twice, as a worker was slow" in str(summary)
    assert caches.contents(folder / "cache") == caches.contents(reference)


class Broken(Source):
    """A source that fails at one shard."""

    def __init__(self, error, times, folder):
        super().__init__()
        self.error, self.times, self.folder = error, times, folder

    def __call__(self, view, shard):
        tries = self.folder / f"tries-{shard}"
        if shard == 1 and (len(tries.read_text()) if tries.exists() else 0) < self.times:
            with tries.open("a") as file:
                file.write("x")
            raise self.error
        return super().__call__(view, shard)


def test_errors_of_a_disk_are_tried_again_and_others_are_raised(tmp_path):
    source = Broken(ConnectionResetError("the share is gone"), 2, tmp_path)
    summary = kd.cache.on_ray(planned(tmp_path / "one", source), workers=1, verbose=0)
    assert [(tuple(shard), why) for shard, why in summary.retries] == [
        ((0, 1), "the share is gone")
    ] * 2
    (tmp_path / "again").mkdir()
    source = Broken(ConnectionResetError("the share is gone"), 9, tmp_path / "again")
    with pytest.raises(RuntimeError, match=r"Shard \(0, 1\) failed: 2 times, at last: the share"):
        kd.cache.on_ray(planned(tmp_path / "two", source), workers=1, retries=1, verbose=0)
    source = Broken(KeyError("no such column"), 9, tmp_path / "again")
    with pytest.raises(KeyError, match="no such column"):
        kd.cache.on_ray(planned(tmp_path / "three", source), workers=1, verbose=0)


def test_a_worker_with_another_teacher_is_refused(folder):
    job = on_ray_driver.plan(folder, folder / "log")
    caches.model(2).save(folder / "teacher.keras")
    with pytest.raises(kd.CacheError, match="another teacher than the plan"):
        kd.cache.on_ray(job, workers=1, verbose=0)
    assert not list((folder / "cache").rglob("*.tfrecord"))


WRONG = {
    "job": ({"job": 3}, "`job`. Expected what keras_kd.cache.plan returns"),
    "workers": ({"workers": 0}, "`workers`"),
    "retries": ({"retries": -1}, "`retries`"),
    "backups": ({"backups": "yes"}, "`backups`"),
    "address": ({"address": 3}, "`address`"),
    "a second cluster": ({"address": "127.0.0.1:1"}, "connected to a Ray cluster already"),
    "resources": ({"resources": ["GPU"]}, "`resources`. Expected a dict"),
    "a negative resource": ({"resources": {"CPU": -1}}, r"`resources\['CPU'\]`"),
    "no room": ({"resources": {"GPU": 1}}, "`resources`. Expected what the cluster has"),
    "verbose": ({"verbose": 7}, "`verbose`"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_arguments_are_named(tmp_path, kind):
    options, message = WRONG[kind]
    job = options.pop("job", None) or planned(tmp_path / "cache")
    with pytest.raises(ValueError, match=message):
        kd.cache.on_ray(job, **options)


def test_a_job_that_cannot_be_pickled_is_named(tmp_path):
    source = Source()
    source.lock = threading.Lock()
    with pytest.raises(ValueError, match="cannot be sent to workers"):
        kd.cache.on_ray(planned(tmp_path / "cache", source), workers=1, verbose=0)

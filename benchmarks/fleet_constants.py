"""What `fleet.py` measures: what a shard, a note, a request and a slow worker cost on this machine.

Each function runs the package's own code. The store is moto's S3 server on loopback, so its counts
are those of any store, and its seconds are not.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import logging
import os
import pathlib
import pickle
import statistics
import subprocess
import sys
import threading
import time
import tracemalloc

import keras
import numpy as np
import tensorflow as tf
import upath

import keras_kd as kd
from keras_kd.teachers.cache import format as cache_format
from tests import ray_cluster, stores
from tests.cache import caches, on_ray_driver, small_sources

FEATURES, BATCH = 8, 64
logging.getLogger("werkzeug").setLevel(logging.ERROR)  # the server names each request


class Rows:
    """A source of random rows: shards of some batches each.

    All of them have the same rows, so that a copy of one stands for another.

    Args:
        batches: Of a shard.
    """

    def __init__(self, batches=1):
        self._batches = batches

    def __call__(self, view, shard):
        rows = np.random.default_rng(0).normal(size=(self._batches * BATCH, FEATURES))
        return tf.data.Dataset.from_tensor_slices(rows.astype("float32")).batch(BATCH)


def planned(path, shards, batches=1, classes=100, **options):
    """A job of a small teacher over `Rows`."""
    teacher = keras.Sequential([keras.Input((FEATURES,)), keras.layers.Dense(classes)])
    rows = batches * BATCH
    source = Rows(batches)
    return kd.cache.plan(
        teacher=teacher, source=source, path=path, shards=shards, rows_per_shard=rows, **options
    )


def seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def seconds_of_a_shard(folder, shards, rounds):
    """What a shard takes beyond its batches: many shards of one batch against one of them all.

    Opening the source, plan, file, sync, checksum and note are in it; the teacher is on both sides.
    """
    found = []
    for index in range(rounds + 1):  # the first one warms up
        sizes = {"many": (shards, 1), "one": (1, shards)}
        jobs = {name: planned(folder / f"{name}-{index}", *size) for name, size in sizes.items()}
        names = list(jobs) if index % 2 else list(reversed(jobs))
        took = {name: seconds(functools.partial(write_pending, jobs[name])) for name in names}
        found.append((took["many"] - took["one"]) / (shards - 1))
    return statistics.median(found[1:])


def write_pending(job):
    for shard in job.pending():
        job.write(shard)


def fill(job):
    """Makes all shards of a job of one that is written: their notes hold no names."""
    job.write((0, 0))
    first = job.path / cache_format.shard_name(0, 0)
    endings = (".tfrecord", ".json")
    data = {ending: first.with_suffix(ending).read_bytes() for ending in endings}

    def copy(shard):
        for ending in endings:
            path = job.path / f"{cache_format.shard_name(*shard)}{ending}"
            path.write_bytes(data[ending])

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(copy, job.shards[1:]))
    return job


@dataclasses.dataclass
class Notes:
    """What notes of so many shards cost: seconds of each call, and bytes a shard."""

    shards: int
    pending: float
    finish: float
    again: float
    open: float
    manifest: float
    memory: float
    job: float


def notes(folder, shards):
    """`pending` by listing, `finish` by names, opening what is finished."""
    job = fill(planned(folder, shards))
    pending, finish = seconds(job.pending), seconds(job.finish)
    again = seconds(job.finish)
    kd.load_cache(job.path, job.source, verify=False)  # what is traced or imported at first
    opened = seconds(lambda: kd.load_cache(job.path, job.source, verify=False))
    tracemalloc.start()
    manifest = cache_format.read_manifest(job.path)
    memory = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    size = (job.path / cache_format.MANIFEST).stat().st_size
    found = len(manifest["shards"][0])
    each = [size / found, memory / found, len(pickle.dumps(job.shards)) / found]
    return Notes(shards, pending, finish, again, opened, *each)


def options_of(port):
    """Those of the tests, but for one client for all objects of a thread, as an address has it."""
    return {**stores.options_of(port), "skip_instance_cache": False}


class CountingProxy(stores.FaultyProxy):
    """Counts requests as stores charge for them, and spoils none.

    Args:
        port: Of the server.
        delay: Seconds that it keeps each request back, as a store that is far.
    """

    def __init__(self, port, delay=0.0):
        super().__init__(port, share=0.0)
        self.counts, self._lock, self._delay = collections.Counter(), threading.Lock(), delay

    def handle(self, request):
        is_listing = "list-type" in request.path
        kind = request.command if not is_listing else "LIST"
        with self._lock:
            self.counts[kind] += 1
        time.sleep(self._delay)
        return super().handle(request)

    def count(self, call):
        """The requests of a call, `{kind: how many}`."""
        before = self.counts.copy()
        call()
        return self.counts - before


def requests(shards):
    """`{step: requests}`: of `write` and of reading for one shard, of the others for so many."""
    with stores.s3_server() as port, CountingProxy(port) as proxy:
        place = upath.UPath("s3://bucket/requests", **options_of(proxy.port))
        found = {"plan": proxy.count(lambda: planned(place, shards))}
        job = planned(place, shards)
        found["write, a shard"] = proxy.count(lambda: job.write((0, 1)))
        found["write, a shard that is there"] = proxy.count(lambda: job.write((0, 1)))
        fill(job)
        found[f"pending, {shards} shards"] = proxy.count(job.pending)
        found[f"finish, {shards} shards"] = proxy.count(job.finish)
        opened = []

        def load():
            opened.append(kd.load_cache(place, job.source))

        found["load_cache"] = proxy.count(load)
        read = proxy.count(lambda: list(opened[0]))
        found["read, a shard"] = collections.Counter({k: n / shards for k, n in read.items()})
    return found


def requests_at_once(shards, delay=0.2):
    """How many requests of `finish` wait for a store at one time, by one whose answers are late."""
    with stores.s3_server() as port, CountingProxy(port, delay) as late:
        job = fill(planned(upath.UPath("s3://bucket/late", **options_of(port)), shards))
        job.path = upath.UPath(str(job.path), **options_of(late.port))
        counts = collections.Counter()
        took = seconds(lambda: counts.update(late.count(job.finish)))
    return counts.total() * delay / took


def store_seconds(shards, rounds):
    """`(seconds of a shard, Notes)` in the store, without the proxy."""
    with stores.s3_server() as port:
        bucket = upath.UPath("s3://bucket", **options_of(port))
        return seconds_of_a_shard(bucket / "times", 16, rounds), notes(bucket / "notes", shards)


def bytes_of_a_sample(folder, classes, **options):
    job = planned(folder, 1, 4, classes, **options)
    return job.write((0, 0)).bytes / (4 * BATCH)


def bytes_read(folder, workers, rows=8192, width=1024):
    """Bytes that all processes of a job read, over those of its data: an .npy file."""
    folder.mkdir()
    np.save(folder / "x.npy", np.random.default_rng(0).normal(size=(rows, width)).astype("float32"))
    keras.Sequential([keras.Input((width,)), keras.layers.Dense(10)]).save(folder / "t.keras")
    part = [sys.executable, __file__, str(folder)]
    env = {**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[1])}
    running = [
        subprocess.Popen([*part, str(i), str(workers)], stdout=subprocess.PIPE, text=True, env=env)
        for i in range(workers)
    ]
    total = sum(int(process.communicate()[0].split()[-1]) for process in running)
    return total / (folder / "x.npy").stat().st_size


def read_part(folder, index, count):
    """A process of `bytes_read`: writes its shards, and prints the bytes that it has read."""
    folder = pathlib.Path(folder)
    source = kd.cache.sources.Arrays(folder / "x.npy", batch_size=256, rows_per_shard=1024)
    job = kd.cache.plan(teacher=folder / "t.keras", source=source, path=folder / "cache")
    before = small_sources.bytes_read()
    for shard in job.shards[int(index) :: int(count)]:
        job.write(shard)
    print(small_sources.bytes_read() - before)


class ManySlowShards(on_ray_driver.SlowSource):
    """`SlowSource` with any number of shards, whose workers begin together.

    Its rows come again and again. Workers are not there at the same moment, so each waits for the
    others when it opens its first shard.

    Args:
        log: The path of the list, see `SlowSource`.
        workers: How many there are, beside the driver.
    """

    def __init__(self, log, workers, **options):
        super().__init__(log, **options)
        self.workers, self.driver = workers, os.getpid()

    def __call__(self, view, shard):
        found = super().__call__(view, shard % (on_ray_driver.SHARDS - 1))
        if os.getpid() != self.driver:
            pathlib.Path(f"{self.log}-{os.getpid()}").touch()
            while len(list(pathlib.Path(self.log).parent.glob("log-*"))) < self.workers:
                time.sleep(0.02)
        return found


def makespan(folder, workers, shards, each, slow, backups):
    """Seconds from the moment when all workers are there to the last shard that is done."""
    folder.mkdir()
    caches.model(1).save(folder / "teacher.keras")
    # The driver reads first; then the first worker is the slow one.
    slow = {1: slow} if slow else {}
    source = ManySlowShards(folder / "log", workers, seconds=each / 2, slow=slow)
    path = folder / "cache"
    job = kd.cache.plan(teacher=folder / "teacher.keras", source=source, path=path, shards=shards)
    written = kd.cache.on_ray(job, workers=workers, backups=backups, verbose=0).written
    ends = {note.stem: note.stat().st_mtime for note in path.glob("view-000/*.json")}
    # The teacher of a worker opens a shard before it is given one.
    begins = [ends[f"shard-{x.shard.number:05d}"] - x.seconds for x in written]
    return max(ends.values()) - min(begins)


@contextlib.contextmanager
def cluster(workers):
    """A Ray cluster of this machine, whose workers get the classes of this file by value."""
    with ray_cluster.cluster(workers) as ray:
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        try:
            yield
        finally:
            ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def stragglers(folder, workers, each, rounds, slow=10):
    """`{how: makespans}`: undisturbed, and with one worker that is slow."""
    shards, found = 12 * workers, collections.defaultdict(list)
    ways = {"undisturbed": (0, True), "backups": (slow, True), "none": (slow, False)}
    with cluster(workers):
        for index in range(rounds):
            for name, (times, backups) in ways.items():
                at = folder / f"{workers}-{name}-{index}"
                found[name].append(makespan(at, workers, shards, each, times, backups))
    return found


class NoShards(kd.cache.Job):
    """A job whose shards take no time: what is left is the driver.

    In place of the seconds of a shard stands when it was written.
    """

    def prepare(self):
        pass

    def write(self, shard):
        return kd.cache.Written(kd.cache.Shard(*shard), 1, 1, time.time(), False, "worker")

    def finish(self):
        return self.path


def dispatches(folder, workers, shards):
    """Shards that the driver gives to workers in a second."""
    with cluster(workers):
        job = NoShards(folder / "none", None, {"parts": [shards]}, None)
        written = kd.cache.on_ray(job, workers=workers, backups=False, verbose=0).written
    times = sorted(each.seconds for each in written)
    begin = len(times) // 2  # by then all workers are there
    return (len(times) - 1 - begin) / (times[-1] - times[begin])


if __name__ == "__main__":
    read_part(*sys.argv[1:])

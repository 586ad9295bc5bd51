"""`python -m tests.cache.on_ray_driver FOLDER WORKERS`: a driver that may be killed.

It writes what `SlowSource` gives with `FOLDER/teacher.keras` to `FOLDER/cache`, on a cluster of its
own.
"""

import os
import pathlib
import sys
import time

import keras_kd as kd
from tests import ray_cluster
from tests.cache import caches

ROWS, SHARDS = 4, 18


class SlowSource:
    """Parts of the arrays, slowly; writes down who read which.

    Args:
        log: The path of the list.
        seconds: For each batch.
        slow: `{process number in the order of first reads: times slower}`.
    """

    def __init__(self, log, seconds=0.05, slow=None):
        self.log, self.seconds, self.slow = os.fspath(log), seconds, slow or {}

    def __call__(self, view, shard):
        pid = os.getpid()
        with open(self.log, "a") as file:
            file.write(f"{shard} {pid}\n")
        times = self.slow.get(readers(self.log).index(pid), 1)
        x, y = (each[shard * ROWS : (shard + 1) * ROWS] for each in caches.arrays())

        def wait(*element):
            time.sleep(self.seconds * times)
            return element

        data = caches.dataset(x, y, batch=2)
        spec = data.element_spec
        return data.from_generator(lambda: (wait(*each) for each in data), output_signature=spec)


def reads(log):
    """`[(shard, process), ...]` in their order."""
    lines = pathlib.Path(log).read_text().splitlines() if pathlib.Path(log).exists() else []
    return [tuple(map(int, line.split())) for line in lines]


def readers(log):
    """The processes in the order in which they began."""
    return list(dict.fromkeys(pid for _, pid in reads(log)))


def plan(folder, log, **options):
    return kd.cache.plan(
        teacher=folder / "teacher.keras",
        source=SlowSource(log, **options),
        path=folder / "cache",
        shards=SHARDS,
        rows_per_shard=ROWS,
        dtype="float32",
    )


def main(folder, workers):
    folder = pathlib.Path(folder)
    with ray_cluster.cluster(int(workers)):
        kd.cache.on_ray(plan(folder, folder / "log"), workers=int(workers), verbose=0)


if __name__ == "__main__":
    main(*sys.argv[1:])

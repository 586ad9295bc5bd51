"""`Write`: writes a job's shards on whatever runs an Apache Beam pipeline.

`keras_kd` does not import this file: it needs Apache Beam (the extra `beam`). `kd.cache.beam` does.
"""

import pickle
from collections.abc import Iterator
from typing import Any, NamedTuple

from keras_kd._utils import validation
from keras_kd._utils.validation import invalid
from keras_kd.teachers.cache.job import Job, Written

apache_beam: Any = validation.needs("apache_beam", "keras_kd.cache.beam", "beam")

__all__ = ["Outputs", "Write"]

# The namespace of the counters.
_METRICS = "keras_kd.cache"
# What the pickle of a step ends with; later versions of Beam make a RuntimeError of all of them.
_NOT_PICKLED = (RuntimeError, TypeError, AttributeError, pickle.PicklingError)


class Outputs(NamedTuple):
    """What `Write` puts into a pipeline.

    Attributes:
        written: A collection of a `keras_kd.cache.Written` for each shard that was pending when
            the pipeline was built.
        path: A collection of the path of the cache, a string: it comes once the manifest is there,
            so whatever reads the cache can wait for it.
    """

    written: Any
    path: Any


class Write(apache_beam.PTransform):
    """Writes the pending shards of a job in an Apache Beam pipeline, and finishes the cache.

    Each shard is an element. A process of the runner loads the teacher once, when its first worker
    starts, and compares it, the data and the versions with the plan. The cache is finished once
    all shards are there. Runners try a bundle of elements again, on another machine too, or run
    it twice: the files are the same to the byte, and a shard that is there is not written again.
    Where a pipeline fails as a whole, build and run it again: the new one has what is pending.

    Beam's metrics have counters in the namespace `"keras_kd.cache"`: `shards`, those of them that
    were there before (`shards_there`), `samples` and `bytes`. A bundle that is tried again may
    count again; `shards - shards_there` is what was written.

    Args:
        job: What `keras_kd.cache.plan` returned. Its source and teacher must be what Beam can
            pickle, and `job.path` must be reached by all machines. Name the teacher by its path or
            by `load_teacher`: a model would travel within the pipeline, whose size runners limit.

    Returns:
        Applied to a pipeline, an `Outputs`: a collection of what was written, and one of the path.

    Raises:
        ImportError: Apache Beam is missing (`pip install 'keras-kd[beam]'`).
        ValueError: `job` is not a job, or cannot be pickled; `Write` is applied to a collection.
        Exception: Where the pipeline runs, its own error, which names what `keras_kd.cache.Job`
            raised: a `CacheError` where a worker has another teacher, other data or other versions.

    Example:

    ```python
    import pathlib
    import tempfile
    import apache_beam as beam
    import keras
    import numpy as np
    import keras_kd as kd

    x, y = np.random.normal(size=(64, 8)).astype("float32"), np.random.randint(10, size=64)
    folder = pathlib.Path(tempfile.mkdtemp())
    keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)]).save(folder / "teacher.keras")
    job = kd.cache.plan(
        teacher=folder / "teacher.keras",
        source=kd.cache.sources.Arrays(x, y, batch_size=8, rows_per_shard=16),
        path=folder / "cache",
    )
    with beam.Pipeline("FnApiRunner") as pipeline:  # Dataflow, Flink, Spark: by its options
        pipeline | kd.cache.beam.Write(job)
    joined = kd.load_cache(folder / "cache", job.source)
    ```
    """

    def __init__(self, job: Job) -> None:
        super().__init__()
        if not isinstance(job, Job):
            raise invalid("job", "what keras_kd.cache.plan returns", repr(job))
        self._job = job

    def expand(self, begin: Any) -> Any:
        if not isinstance(begin, apache_beam.pvalue.PBegin):
            raise ValueError(
                "`Write` begins a pipeline, as in `pipeline | Write(job)`. Received: "
                f"{begin!r} | Write(job)"
            )
        pending = [tuple(shard) for shard in self._job.pending()]
        written = begin | "Pending" >> apache_beam.Create(pending, reshuffle=False)
        if pending:  # else workers would load the teacher for nothing
            spread = written | "Spread" >> apache_beam.Reshuffle()
            written = spread | "Write" >> self._step(_WriteShard)
        # How many they are is known once all have been written.
        path = (
            written
            | "Count" >> apache_beam.combiners.Count.Globally()
            | "Finish" >> self._step(_Finish)
        )
        return Outputs(written, path)

    def _step(self, kind: type) -> Any:
        try:
            return apache_beam.ParDo(kind(self._job))
        except _NOT_PICKLED as error:
            why = error.__cause__ or error
            raise ValueError(
                f"The job cannot be sent to workers: {why}. Pass functions that can be pickled, "
                "and a teacher by its path or by load_teacher=."
            ) from error


class _WriteShard(apache_beam.DoFn):
    """Writes one shard after another."""

    def __init__(self, job: Job) -> None:
        self._job = job
        names = ("shards", "shards_there", "samples", "bytes")
        self._counters = {
            name: apache_beam.metrics.Metrics.counter(_METRICS, name) for name in names
        }

    def setup(self) -> None:
        self._job.prepare()

    def process(self, shard: tuple[int, int]) -> Iterator[Written]:
        written = self._job.write(shard)
        counts = {
            "shards": 1,
            "shards_there": int(written.was_there),
            "samples": written.rows,
            "bytes": written.bytes,
        }
        for name, count in counts.items():
            self._counters[name].inc(count)
        yield written


class _Finish(apache_beam.DoFn):
    """Finishes the cache."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def process(self, _: int) -> Iterator[str]:
        yield str(self._job.finish())

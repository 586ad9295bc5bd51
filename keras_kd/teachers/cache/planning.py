"""`plan`: plans a cache that is written as a job."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from keras_kd._utils import validation
from keras_kd._utils.validation import invalid
from keras_kd.teachers.cache import arguments, plans, schema
from keras_kd.teachers.cache import format as cache_format
from keras_kd.teachers.cache.job import Job
from keras_kd.teachers.cache.job_worker import JobWorker, Settings, computing_versions, digest_of


def plan(
    *,
    source: Callable[[int, int], Any],
    path: Any,
    teacher: Any = None,
    load_teacher: Callable[[], Any] | None = None,
    shards: int | None = None,
    rows_per_shard: int | None = None,
    taps: Sequence | None = None,
    dtype: str | None = "float16",
    top_k: int | None = None,
    epochs: int = 1,
    key: Callable | None = None,
    from_logits: bool = True,
    fingerprint: str | None = None,
) -> Job:
    """Plans a cache of teacher outputs whose shards are written one by one, anywhere.

    `cache_teacher` is for one machine. A job is what several share: each process writes the shards
    that it is given, and reads of the data only their part. A shard is whole or absent and depends
    on neither time nor process, so whatever runs the job may try a shard again or twice: the cache
    is the same to the byte.

    The first batch of the first shard is read twice and given to the teacher, before anything is
    written: a source that gives other inputs each time is refused.

    Args:
        source: A function from the numbers of a view and a shard to a batched `tf.data.Dataset` of
            that shard's batches alone, the same ones each time; or one of
            `keras_kd.cache.sources`.
        path: A folder that all processes reach: a shared folder, or an address of a store
            (`s3://bucket/cache`, `gs://`, `hdfs://` ...; the extra `cloud`).
        teacher: The path of a `.keras` file, which each process loads once; or whatever `Distiller`
            takes as a teacher. A model travels to the processes with the job.
        load_teacher: In place of `teacher`: a function that returns it, called once in each
            process.
        shards: How many shards each view has. Default: those of `source`, if it is one of
            `keras_kd.cache.sources`.
        rows_per_shard: How many samples each shard must have, but the last of a view, which may
            have fewer: checked where it is given. Default: any number.
        taps: See `cache_teacher`, as for all that follows.
        dtype: See there.
        top_k: See there.
        epochs: How many views are stored.
        key: See there.
        from_logits: See there.
        fingerprint: See there. Each process compares the teacher that it has loaded.

    Returns:
        A `Job`. It can be pickled (by cloudpickle, as Ray and Beam do) where `source`, `teacher`
        and `key` can.

    Raises:
        ImportError: `path` is in a store, and what reaches it is not installed.
        ValueError: An argument is wrong; `source` is not deterministic, or returns no batches; the
            teacher's outputs cannot be stored.
        CacheError: The folder holds another cache, or another job writes to it.

    Example:

    ```python
    import pathlib
    import tempfile
    import keras
    import numpy as np
    import tensorflow as tf
    import keras_kd as kd

    x, y = np.random.normal(size=(64, 8)).astype("float32"), np.random.randint(10, size=64)

    def source(view, shard):  # 16 samples each
        part = slice(16 * shard, 16 * shard + 16)
        return tf.data.Dataset.from_tensor_slices((x[part], y[part])).batch(8)

    teacher = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    folder = pathlib.Path(tempfile.mkdtemp()) / "cache"
    job = kd.cache.plan(teacher=teacher, source=source, path=folder, shards=4, rows_per_shard=16)
    for shard in job.pending():
        job.write(shard)  # anywhere: keras_kd.cache.on_ray, keras_kd.cache.beam
    job.finish()
    joined = kd.load_cache(folder, source)
    ```
    """
    folder = arguments.new_folder(path)
    source = arguments.source(source)
    if (teacher is None) == (load_teacher is None):
        raise ValueError(
            "Pass either `teacher` (a teacher, or the path of a .keras file) or `load_teacher` (a "
            f"function that returns one). Received: teacher={teacher!r}, "
            f"load_teacher={load_teacher!r}"
        )
    if load_teacher is not None and not callable(load_teacher):
        raise invalid("load_teacher", "a function that returns a teacher", repr(load_teacher))
    if isinstance(teacher, (str, pathlib.PurePath)):
        validation.existing_file("teacher", teacher, "a .keras file")
    top_k = validation.integer("top_k", top_k, 1, optional=True)
    arguments.check_dtype(dtype, top_k)
    arguments.check_writing_key(key)
    settings = Settings(
        source=source,
        teacher=str(teacher) if isinstance(teacher, pathlib.PurePath) else teacher,
        load_teacher=load_teacher,
        taps=taps,
        dtype=dtype,
        top_k=top_k,
        key=key,
        from_logits=validation.boolean("from_logits", from_logits),
        fingerprint=validation.text("fingerprint", fingerprint, optional=True),
    )
    epochs = validation.integer("epochs", epochs, 1)
    cut = {
        "version": cache_format.VERSION,
        "has_keys": key is not None,
        "views": epochs,
        "batches_per_shard": None,
        "parts": [_shards_of(source, shards)] * epochs,
        "rows_per_shard": validation.integer("rows_per_shard", rows_per_shard, 1, optional=True),
        "source": digest_of(source),
        schema.COMPUTED_WITH: computing_versions(),
    }
    plans.check_no_other_files(folder)
    worker = JobWorker(settings)
    planned = {**worker.fields(), **cut}
    if not plans.is_begun(folder, planned):
        worker.check_first_batch(source)
        plans.make_folder(folder)
    return Job(folder, settings, plans.agree_on(folder, planned), worker)


def _shards_of(source: Any, given: int | None) -> int:
    own = getattr(source, "shards", None)
    if own is None and given is None:
        raise ValueError(
            "`shards` must say how many shards a view has: `source` is a function, which does not "
            "tell. Received: shards=None"
        )
    if own is not None and given not in (None, own):
        raise invalid("shards", f"{own}, the shards of `source`, or None", given)
    return int(validation.integer("shards", own if given is None else given, 1))

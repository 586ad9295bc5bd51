"""`cache_teacher`: runs a teacher once over a dataset, and writes its outputs."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from keras_kd._utils import locks, progress, storage, validation
from keras_kd.teachers.cache import arguments, contents, plans, shards, teacher_run
from keras_kd.teachers.cache import format as cache_format


def cache_teacher(
    teacher: Any,
    dataset: Any,
    path: Any,
    taps: Sequence | None = None,
    dtype: str | None = "float16",
    top_k: int | None = None,
    epochs: int = 1,
    *,
    key: Callable | None = None,
    from_logits: bool = True,
    batches_per_shard: int | None = None,
    process: tuple[int, int] = (0, 1),
    fingerprint: str | None = None,
    verbose: int | str = 1,
) -> Any:
    """Writes a teacher's outputs for a dataset, so that it does not have to run in training.

    Killed at any moment it continues when it is called again with the same arguments, and loses one
    shard at most; the cache is then the same as one written in one go. `load_cache` joins it with
    the dataset, and `keras_kd.teachers.Cached` teaches from it.

    Args:
        teacher: Whatever `Distiller` takes as a teacher, such as a Keras model.
        dataset: A batched `tf.data.Dataset` of inputs, `(inputs, labels)` or `(inputs, labels,
            weights)`, which yields the same batches each time: shuffle after `load_cache`. Or a
            function from the number of a view (0, 1, ...) to such a dataset, for augmented views:
            seed each by its number.
        path: A folder, which is made: of this machine, or in a store (`s3://bucket/cache`, `gs://`,
            `hdfs://` ...; the extra `cloud`, and what reaches the store).
        taps: Layers of the teacher to keep too, as `teacher_layer` of `DistillationLoss`.
        dtype: The type in which outputs and taps are stored: `"float16"`, `"bfloat16"`,
            `"float32"`, or `None` for the teacher's own. Only float32 (or the teacher's own) trains
            exactly as the running teacher would, in the same batches: in others a teacher rounds
            differently. `"compact"`, with `top_k`: about half the bytes of float16, for
            vocabularies; what it is wrong by is said below. Taps are then float16.
        top_k: Keep only that many of the largest logits of each sample, and the mass of the others
            at any temperature from 0.5 on: for many classes. `SoftTargets` then compares the kept
            classes one by one and the others as a whole.
        epochs: How many views are stored.
        key: A function from an element of the dataset to a number or text for each sample
            (`[batch]`), by which `load_cache` can join data in another order.
        from_logits: Whether the teacher returns logits; needed for `top_k` only.
        batches_per_shard: Batches in a file; default: about 64 MB.
        process: `(index, count)` where several processes write one cache, each with the same
            dataset: each runs the teacher for its own shards only, and the last one finishes the
            cache. Each of them reads the whole dataset, which is compared with what the others
            read: the teacher's work is shared.
        fingerprint: A text that tells this teacher from others. Default: the digest of its weights
            and configuration; a function has none.
        verbose: `"auto"` or 1 shows a progress bar with samples per second and bytes, and then a
            line: how many bytes a sample takes, and what was there already. 2 shows no bar, but one
            line for each. 0 shows nothing.

    Bytes per sample: those of the outputs and taps in `dtype`, and 8 for a fingerprint (8 more with
    `key`). With `top_k` each token or pixel of a sample takes `top_k` logits in `dtype`, as many
    indices (2 bytes each, 4 above 65,536 classes), and 96 bytes for the log-sum-exp of the
    others: in float16, 296 bytes at `top_k=50` in place of 64,000 for 32,000 classes.

    With `dtype="compact"` it takes 143 bytes there, 149 for 65,536 classes and 155 for 128,000: the
    kept classes exactly, their logits in 8 bits (one that is `v` below the largest is wrong by at
    most `sqrt(v s) / 254 + s / 508^2`, where `s` is how far the next one after the kept is below
    it: 0.016 for `v = 1`, `s = 16`), and the log-sum-exp of the others at T = 0.5, 1, 2, 4, 8 and
    16, `sqrt(2)` times each of 0.5 to 4, and infinity, wrong by at most `log(classes) / 16380`
    there. In between it is interpolated: smooth logits are wrong by less than 6e-3 from T = 0.5 to
    16, others by up to `0.086 log(classes)` to T = 8. The guide on caching has more. Logits 640
    below the largest count as having no probability.

    An endless dataset raises an error. Where a dataset does not know its length, such as one of a
    generator, an end cannot be known: the bar then shows none either.

    Several threads and processes may write one cache, also without `process`: they take turns. (In
    a store they do not wait for each other: each shard is then written by whoever comes first.)
    Where many machines write one, `keras_kd.cache.plan` lets each read its own part of the data.

    Returns:
        The path of the cache, as `pathlib.Path`; of one in a store, as `upath.UPath`.

    Raises:
        ValueError: An argument is wrong; a dataset is empty or endless; the teacher's outputs hold
            NaN, or numbers too large for `dtype`.
        CacheError: The folder holds a cache of another teacher, dataset or settings.
        OSError: The disk is full; what is whole stays.

    Example:

    ```python
    import pathlib
    import tempfile
    import keras
    import numpy as np
    import tensorflow as tf
    import keras_kd as kd

    x, y = np.random.normal(size=(64, 8)).astype("float32"), np.random.randint(10, size=64)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
    teacher = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    student = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    path = kd.cache_teacher(teacher, data, pathlib.Path(tempfile.mkdtemp()) / "cache", verbose=0)

    distiller = kd.Distiller(kd.teachers.Cached(path), student)
    distiller.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    joined = kd.load_cache(path, data).shuffle(4)
    distiller.fit(joined, epochs=2, shuffle=False, verbose=0)
    ```
    """
    # Python's own integers, which JSON can hold.
    folder = arguments.new_folder(path)
    top_k = validation.integer("top_k", top_k, 1, optional=True)
    arguments.check_dtype(dtype, top_k)
    epochs = validation.integer("epochs", epochs, 1)
    per_shard = validation.integer("batches_per_shard", batches_per_shard, 1, optional=True)
    arguments.check_writing_key(key)
    process = arguments.process(process)
    from_logits = validation.boolean("from_logits", from_logits)
    fingerprint = validation.text("fingerprint", fingerprint, optional=True)
    verbose = progress.check_verbose(verbose)
    recorder = contents.record(teacher, taps, dtype, top_k, from_logits)
    datasets = arguments.datasets_of_views(dataset, epochs)
    plans.check_no_other_files(folder)
    shown = CacheProgress(folder, datasets, verbose)
    outputs = teacher_run.TeacherRun(recorder, key)
    outputs.trace(datasets[0].element_spec)
    run = shards.Run(folder, outputs, process, datasets, shown)
    plan = {
        **plans.of_outputs(recorder, outputs.specs, fingerprint),
        "version": cache_format.version_of(dtype),
        "has_keys": key is not None,
        "views": epochs,
        "batches_per_shard": per_shard,
    }
    if not plans.is_begun(folder, plan):
        # Before anything is written the teacher has given outputs that can be stored.
        default = run.default_shard()
        plan["batches_per_shard"] = per_shard or default
        plans.make_folder(folder)
    with locks.held(folder, cache_format.writer_lock(process[0]), shown.wait):
        run.plan = plans.agree_on(folder, plan)
        manifest = None
        if storage.exists(folder / cache_format.MANIFEST):
            # Finished before; what its shards hold is checked when they are loaded.
            manifest = cache_format.checked(folder, thorough=False)
        else:
            counts = run.write()
            size = run.plan["batches_per_shard"]
            manifest = plans.finish(folder, run.plan, [-(-n // size) for n in counts], counts)
    shown.end(manifest)
    return folder


class CacheProgress:
    """Shows how far `cache_teacher` is: a bar over the batches of all views, and then a summary.

    Args:
        folder: The cache.
        datasets: One for each view. Where one does not know its length the bar has no end.
        verbose: 0, 1 or 2.
    """

    def __init__(self, folder: storage.Place, datasets: list, verbose: int) -> None:
        self._folder, self._verbose = folder, verbose
        lengths = [int(data.cardinality()) for data in datasets]
        known = all(length != tf.data.UNKNOWN_CARDINALITY for length in lengths)
        self._bar = progress.Bar(
            f"cache_teacher: {folder}",
            sum(lengths) if known else None,
            verbose=verbose,
            figures=("samples/s", "MB"),
        )
        self._batches = self._written = self._samples = 0
        self._start = time.monotonic()

    def wait(self) -> None:
        """Another run holds the lock."""
        self._tell("another run is writing this cache; waiting for it to end.")

    def add(self, samples: int, size: int) -> None:
        """Counts a batch.

        Args:
            samples: How many the teacher ran for; 0 for a batch that was skipped.
            size: Bytes written until now.
        """
        self._batches += 1
        self._written += samples > 0
        self._samples += samples
        seconds = max(time.monotonic() - self._start, 1e-3)
        self._bar.update(self._batches, self._samples / seconds, size / 1e6)

    def end(self, manifest: dict | None) -> None:
        """Ends the bar, and shows a summary of the cache.

        Args:
            manifest: Its manifest; `None`: other processes have not finished.
        """
        self._bar.end()
        skipped = self._batches - self._written
        if manifest is None:
            self._tell(
                f"{self._written} batches written; the other {skipped} are there or belong to "
                "other processes. The last process finishes the cache."
            )
            return
        text = summary(manifest)
        if not self._batches:
            text += "; it was complete already"
        elif skipped:
            text += f"; {skipped} of {self._batches} batches were there already"
        self._tell(f"{text}.")

    def _tell(self, text: str) -> None:
        if self._verbose:
            progress.print_line(f"{self._folder}: {text}")


def summary(manifest: dict) -> str:
    """Samples, batches and bytes of a cache, as a text."""
    shards = [shard for view in manifest["shards"] for shard in view]
    samples, batches, size = (
        sum(shard[name] for shard in shards) for name in ("rows", "batches", "bytes")
    )
    return (
        f"{samples:,} samples in {batches:,} batches, {size / 1e6:,.2f} MB "
        f"({size / max(samples, 1):,.0f} bytes per sample)"
    )

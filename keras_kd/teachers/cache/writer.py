"""`cache_teacher`: runs a teacher once over a dataset, and keeps what it says."""

import time

import keras
import tensorflow as tf

from keras_kd._utils import files, validation
from keras_kd.teachers.cache import arguments, contents, fingerprints, schema, shards
from keras_kd.teachers.cache import format as cache_format

# Fields of a plan that follow from others.
_FOLLOWS = ("classes", "components", "last_activation", "last_activations", "output_names")


def cache_teacher(
    teacher,
    dataset,
    path,
    taps=None,
    dtype="float16",
    top_k=None,
    epochs=1,
    *,
    key=None,
    from_logits=True,
    batches_per_shard=None,
    process=(0, 1),
    fingerprint=None,
    verbose=1,
):
    """Writes what a teacher says of a dataset, so that it need not run in training.

    Killed at any moment it goes on when it is called again with the same arguments, and loses one
    shard at most; the cache is then the same as one written in one go. `load_cache` joins it with
    the dataset, and `keras_kd.teachers.Cached` teaches from it.

    Args:
        teacher: Whatever `Distiller` takes as a teacher, such as a Keras model.
        dataset: A batched `tf.data.Dataset` of inputs, `(inputs, labels)` or `(inputs, labels,
            weights)`, which gives the same batches each time: shuffle after `load_cache`. Or a
            function from the number of a view (0, 1, ...) to such a dataset, for augmented views:
            seed each by its number.
        path: A folder of this machine, which is made.
        taps: Layers of the teacher to keep too, as of `DistillationLoss`'s `teacher_layer`.
        dtype: In which outputs and taps are kept: `"float16"`, `"bfloat16"`, `"float32"`, or
            `None` for the teacher's own. Only float32 (or the teacher's own) trains exactly as the
            living teacher would, in the same batches: a teacher rounds otherwise in others.
        top_k: Keep only that many of the largest logits of each row, and the mass of the others at
            any temperature from 0.5 on: for many classes. `SoftTargets` then compares the kept
            classes one by one and the others as a whole.
        epochs: How many views are kept.
        key: A function from an element of the dataset to a number or text for each row (`[batch]`),
            by which `load_cache` can join data in another order.
        from_logits: Whether the teacher returns logits; needed for `top_k` only.
        batches_per_shard: Batches in a file; default: about 64 MB.
        process: `(index, count)` where several processes write one cache, each with the same
            dataset: each asks the teacher about the shards of its own only, and whoever comes last
            finishes the cache. Each of them reads the whole dataset, which is compared with what
            the others saw: what is shared out is the teacher's work.
        fingerprint: A text that tells this teacher from others. Default: of its weights and
            configuration; a function has none.
        verbose: 1 shows a progress bar with rows a second and bytes, and then a line: how many
            bytes a row takes, and what was there already. 0 shows nothing.

    Bytes a row: those of the outputs and taps in `dtype`, and 8 for a fingerprint (8 more with
    `key`). With `top_k` each token or pixel of a row takes `top_k` logits in `dtype`, as many
    indices (2 bytes each, 4 above 65,536 classes), and 96 bytes for the mass of the rest: in
    float16, 296 bytes at `top_k=50` in place of 64,000 of 32,000 classes.

    An endless dataset is refused. Where a dataset does not know its length, as one of a generator,
    nobody can know that it has an end: the bar then shows no end either.

    Several threads and processes may write one cache, also without `process`: they take turns.

    Returns:
        The path of the cache, as `pathlib.Path`.

    Raises:
        ValueError: An argument is wrong; a dataset is empty or endless; the teacher gives NaN, or
            numbers too large for `dtype`.
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
    # Integers of Python, which JSON has, whatever was given.
    folder = arguments.new_folder(path)
    dtype = arguments.dtype(dtype)
    top_k = validation.integer("top_k", top_k, 1, optional=True)
    epochs = validation.integer("epochs", epochs, 1)
    per_shard = validation.integer("batches_per_shard", batches_per_shard, 1, optional=True)
    key, process = arguments.key(key), arguments.process(process)
    from_logits = validation.boolean("from_logits", from_logits)
    fingerprint = validation.text("fingerprint", fingerprint, optional=True)
    verbose = arguments.verbose(verbose)
    asked = contents.asked(teacher, taps, dtype, top_k, from_logits)
    datasets = arguments.to_be_kept(dataset, epochs)
    if folder.exists() and not (folder / cache_format.PLAN).exists():
        arguments.check_foreign(folder)
    shown = Progress(datasets, verbose)
    run = shards.Run(folder, asked, key, process, datasets, shown)
    run.trace()
    plan = {
        "version": cache_format.VERSION,
        "teacher": fingerprint or fingerprints.of_teacher(asked.source),
        "taps": [str(layer) for layer in asked.taps],
        "top_k": top_k,
        "structure": asked.structure,
        "components": schema.to_json(run.specs),
        "last_activation": asked.source.last_activation() if top_k is None else None,
        "last_activations": {
            str(key): asked.source.last_activation(key) for key in _keys(asked.structure)
        },
        "output_names": asked.source.output_names,
        "has_keys": key is not None,
        "views": epochs,
        "batches_per_shard": per_shard,
        "classes": asked.classes,
        "dtype": dtype,
    }
    if not _is_begun(folder, plan):
        # Before anything is written the teacher has said something that can be kept.
        default = run.default_shard()
        plan["batches_per_shard"] = per_shard or default
        _make(folder)
    with cache_format.held(folder, cache_format.of_writer(process[0]), lambda: shown.waits(folder)):
        run.plan = _agreed_plan(folder, plan)
        manifest = None
        if (folder / cache_format.MANIFEST).exists():
            # Finished before; what its shards hold is checked when they are loaded.
            manifest = cache_format.checked(folder, thorough=False)
        else:
            manifest = _finished(folder, run.plan, run.write())
    shown.end(folder, manifest)
    return folder


def _keys(structure):
    """The names or numbers of several outputs."""
    if structure is None:
        return []
    return range(structure) if isinstance(structure, int) else structure


def _make(folder):
    """Makes the folder, so that it is there after a power cut too."""
    missing = [each for each in (folder, *folder.absolute().parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in missing:
        files.sync(each.absolute().parent)


def _is_begun(folder, plan):
    """Whether the folder holds a cache of this plan; one without a shard does not count.

    Raises:
        CacheError: It holds a cache of another plan.
    """
    if not (folder / cache_format.PLAN).exists():
        return False
    found = cache_format.read_plan(folder)
    differing = sorted(name for name in plan if not _agree(name, found[name], plan[name]))
    if not differing and (found["version"] == plan["version"] or _has(folder, "manifest.json")):
        return True
    if not _has(folder, "manifest.json", "view-*/*.json"):
        return False  # a run that ended before its first shard, as by numbers too large
    if not differing:
        raise cache_format.CacheError(
            f"{folder} holds a cache that an earlier keras_kd began, which noted no checksums. "
            "Remove the folder and write the cache again."
        )
    # What follows from an argument or the teacher is named where nothing else differs.
    named = [name for name in differing if name not in _FOLLOWS] or differing
    listed = "; ".join(f"{n}: {found[n]!r} there, {plan[n]!r} now" for n in named)
    raise cache_format.CacheError(
        f"{folder} holds a cache of another kind. {listed}. Pass another folder, or remove "
        "this one."
    )


def _agree(name, found, now):
    # Who does not say how large shards are takes them as they are; versions are looked at apart.
    return found == now or name == "version" or (name == "batches_per_shard" and now is None)


def _has(folder, *patterns):
    return any(True for pattern in patterns for _ in folder.glob(pattern))


def _agreed_plan(folder, plan):
    """The plan on disk, made of `plan` where there is none that counts.

    Raises:
        CacheError: It is of another cache.
    """
    with cache_format.held(folder, cache_format.CACHE):
        if not _is_begun(folder, plan):
            if plan["batches_per_shard"] is None:
                raise cache_format.CacheError(
                    f"{folder} has become a cache of another kind meanwhile. Pass another folder."
                )
            cache_format.write_json(folder / cache_format.PLAN, plan)
        # Of runs that were killed: these are made while the lock is held.
        for name in (cache_format.PLAN, cache_format.MANIFEST):
            for leftover in folder.glob(f"partial-*{name}"):
                leftover.unlink(missing_ok=True)
        return cache_format.read_plan(folder)


def _finished(folder, plan, counts):
    """Writes the manifest and returns it, if the shards of all processes are there; else `None`."""
    size, views = plan["batches_per_shard"], []
    with cache_format.held(folder, cache_format.CACHE):
        for view, batches in enumerate(counts):
            names = [cache_format.shard_name(view, i) for i in range(-(-batches // size))]
            notes = [shards.note_of(folder, name) for name in names]
            if any(note is None for note in notes):
                return None  # of another process, which finishes when it comes last
            views.append([{"name": n, **note} for n, note in zip(names, notes, strict=True)])
        _check_ends(folder, views, counts)
        manifest = {**plan, "shards": views}
        cache_format.write_json(folder / cache_format.MANIFEST, manifest)
    return manifest


def _check_ends(folder, views, counts):
    for view, (found, batches) in enumerate(zip(views, counts, strict=True)):
        written = sum(shard["batches"] for shard in found)
        if written != batches:
            raise cache_format.CacheError(
                f"View {view} of {folder} holds {written} batches; the dataset has {batches}. It "
                "has changed since the cache was begun: remove the folder and write the cache "
                "again."
            )


# Shows how far `cache_teacher` is: batches, rows a second, bytes, and what was there already.


class Progress:
    """A bar over the batches of all views, and a line about what came out.

    Args:
        datasets: Of the views. Where one does not know its length there is no end to show.
        shown: Whether anything is.
    """

    def __init__(self, datasets, shown):
        self._shown, self._bar = shown, None
        lengths = [int(data.cardinality()) for data in datasets]
        known = all(length != tf.data.UNKNOWN_CARDINALITY for length in lengths)
        self._total = sum(lengths) if known else None
        self._batches = self._asked = self._rows = self._bytes = 0
        self._start = time.monotonic()

    def waits(self, folder):
        """Says that another run is waited for."""
        if self._shown:
            print(f"{folder}: another run is writing this cache; waiting for it to end.")

    def add(self, rows, size):
        """Counts a batch.

        Args:
            rows: How many the teacher was asked about; 0 for a batch that was left out.
            size: Bytes written until now.
        """
        self._batches += 1
        self._asked += rows > 0
        self._rows += rows
        self._bytes = size
        if not self._shown:
            return
        if self._bar is None:
            self._bar = keras.utils.Progbar(
                self._total, unit_name="batch", stateful_metrics=["rows/s", "MB"]
            )
        self._bar.update(self._batches, self._figures())

    def _figures(self):
        seconds = max(time.monotonic() - self._start, 1e-3)
        return [("rows/s", self._rows / seconds), ("MB", self._bytes / 1e6)]

    def end(self, folder, manifest):
        """Ends the bar, and says what the cache is.

        Args:
            folder: The cache.
            manifest: Its manifest; `None`: it waits for other processes.
        """
        if not self._shown:
            return
        if self._bar is not None and self._total is None:
            self._bar.update(self._batches, self._figures(), finalize=True)
        left_out = self._batches - self._asked
        if manifest is None:
            print(
                f"{folder}: {self._asked} batches written; the other {left_out} are there or of "
                "other processes. Whoever comes last finishes the cache."
            )
            return
        print(f"{folder}: {summary(manifest)}{self._of_before(left_out)}.")

    def _of_before(self, left_out):
        if not self._batches:
            return "; it was whole already"
        return f"; {left_out} of {self._batches} batches were there already" if left_out else ""


def summary(manifest):
    """Rows, batches and bytes of a cache, as a text."""
    shards = [shard for view in manifest["shards"] for shard in view]
    rows, batches, size = (
        sum(shard[name] for shard in shards) for name in ("rows", "batches", "bytes")
    )
    return (
        f"{rows:,} rows in {batches:,} batches, {size / 1e6:,.2f} MB "
        f"({size / max(rows, 1):,.0f} bytes a row)"
    )

"""`cache_teacher`: runs a teacher once over a dataset, and keeps what it says."""

import pathlib

import keras
import numpy as np
import tensorflow as tf

from keras_kd.cache import answers, fingerprints, records, shards, skipping
from keras_kd.cache import format as cache_format
from keras_kd.losses import base
from keras_kd.ops import arguments
from keras_kd.teachers import carried

# About what a shard holds where `batches_per_shard` is not given: it is lost if the run is killed.
_SHARD_BYTES = 64 * 1024 * 1024


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
        path: A folder, which is made.
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
            dataset: each asks the teacher for the shards of its own only, and whoever comes last
            finishes the cache.
        fingerprint: A text that tells this teacher from others. Default: of its weights and
            configuration; a function has none.
        verbose: 1 shows a progress bar, 0 nothing.

    Returns:
        The path of the cache, as `pathlib.Path`.

    Raises:
        ValueError: An argument is wrong; the teacher gives NaN, or numbers too large for `dtype`.
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
    top_k, epochs, batches_per_shard = _checked(dtype, top_k, epochs, batches_per_shard, process)
    views = _views(dataset)
    asked = answers.asked(teacher, taps, dtype, top_k, from_logits)
    print_of_teacher = fingerprint or fingerprints.of_teacher(asked.source)
    run = _Run(pathlib.Path(path), asked, key, process, verbose)
    run.trace(views(0).element_spec)
    first = run.first_components(views(0))
    plan = {
        "version": cache_format.VERSION,
        "teacher": print_of_teacher,
        "taps": [str(layer) for layer in asked.taps],
        "top_k": top_k,
        "structure": asked.structure,
        "components": records.to_json(run.specs),
        "last_activation": asked.source.last_activation() if top_k is None else None,
        "last_activations": {
            str(key): asked.source.last_activation(key) for key in _keys(asked.structure)
        },
        "output_names": asked.source.output_names,
        "has_keys": key is not None,
        "views": epochs,
        "batches_per_shard": batches_per_shard or _default_shard(first),
        "classes": asked.classes,
        "dtype": dtype,
    }
    run.plan = _agreed_plan(run.folder, plan)
    if (run.folder / cache_format.MANIFEST).exists():
        cache_format.read_manifest(run.folder)
        return run.folder  # finished before; its data is checked when it is loaded
    counts = [run.write_view(view, views(view)) for view in range(epochs)]
    run.finish(counts)
    return run.folder


def _checked(dtype, top_k, epochs, batches_per_shard, process):
    if dtype not in answers.DTYPES:
        raise arguments.invalid("dtype", f"one of {answers.DTYPES}", repr(dtype))
    integers = (
        base.integer("top_k", top_k, 1, optional=True),
        base.integer("epochs", epochs, 1),
        base.integer("batches_per_shard", batches_per_shard, 1, optional=True),
    )
    index, count = process
    base.integer("process[1]", count, 1)
    if base.integer("process[0]", index, 0) >= count:
        raise arguments.invalid("process", "(index, count) with index below count", process)
    return integers


def _views(dataset):
    if isinstance(dataset, tf.data.Dataset):
        return lambda view: dataset
    if not callable(dataset):
        raise arguments.invalid(
            "dataset",
            "a batched tf.data.Dataset, or a function from the number of a view to one",
            f"{dataset!r} of type {type(dataset).__name__}",
        )
    return dataset


def _default_shard(components):
    size = sum(np.prod(value.shape) * value.dtype.size for value in components.values())
    return max(1, int(_SHARD_BYTES // max(size, 1)))


def _keys(structure):
    """The names or numbers of several outputs."""
    if structure is None:
        return []
    return range(structure) if isinstance(structure, int) else structure


def _agreed_plan(folder, plan):
    """The plan on disk, made of `plan` where there is none.

    Raises:
        CacheError: It is of another cache.
    """
    path = folder / cache_format.PLAN
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        if any(folder.iterdir()) and not any(folder.glob("*partial-*")):
            raise cache_format.CacheError(
                f"{folder} holds other files, and no cache. Pass an empty or a new folder."
            )
        cache_format.write_json_once(path, plan)
    found = cache_format.read_plan(folder)
    differing = sorted(name for name in plan if found.get(name) != plan[name])
    if differing:
        listed = "; ".join(f"{n}: {found.get(n)!r} there, {plan[n]!r} now" for n in differing)
        raise cache_format.CacheError(
            f"{folder} holds a cache of another kind. {listed}. Pass another folder, or remove "
            "this one."
        )
    return found


class _Run:
    """One call of `cache_teacher`."""

    def __init__(self, folder, asked, key, process, verbose):
        self.folder, self._asked, self._key = folder, asked, key
        self._process, self._verbose = process, verbose
        self.plan, self.specs = {}, {}
        self._components = None

    def trace(self, element_spec):
        """Traces the teacher once for all batches; what does not fit is told here."""
        traced = tf.function(self._traced, autograph=False)
        self._components = traced.get_concrete_function(element_spec)
        self.specs = self._components.structured_outputs[0]
        if any(spec.shape.rank in (None, 0) for spec in self.specs.values()):
            raise ValueError(
                "Teacher outputs, taps and keys must have one row for each row of the batch, and a "
                f"known rank. Received: { ({n: s.shape for n, s in self.specs.items()}) }"
            )

    def _traced(self, element):
        inputs = carried.inputs_of(element)
        kept, sound = self._asked(inputs)
        return {**kept, **self._marks(element)}, sound

    def _marks(self, element):
        marks = {records.FINGERPRINTS: fingerprints.of_rows(carried.inputs_of(element))}
        if self._key is not None:
            marks[records.KEYS] = fingerprints.of_rows(self._key(*carried.parts_of(element)))
        return marks

    def first_components(self, dataset):
        """The components of the first batch, which tell what there is to keep."""
        for element in dataset.take(1):
            components, _ = self._components(element)
            self._check_rows(components)
            return components
        raise ValueError("The dataset is empty: there is nothing to ask the teacher about.")

    @staticmethod
    def _check_rows(components):
        rows = {name: value.shape[:1] for name, value in components.items()}
        if len({tuple(shape) for shape in rows.values()}) > 1:
            raise ValueError(
                "Teacher outputs, taps and inputs must have one row for each row of the batch, in "
                f"their first dimension. Received: {rows}. Batch the dataset."
            )

    def write_view(self, view, dataset):
        """Writes the shards of a view that are this process's and not there yet.

        Returns:
            The number of batches of the dataset.
        """
        size, batch = self.plan["batches_per_shard"], -1
        total = int(dataset.cardinality())
        bar = keras.utils.Progbar(
            total if total > 0 else None, unit_name="batch", verbose=self._verbose
        )
        skipped = skipping.Skipped(self.folder)
        with shards.ShardWriter(self.folder, self._process[0], size) as writer:
            for batch, element in enumerate(dataset.prefetch(tf.data.AUTOTUNE)):
                name = cache_format.shard_name(view, batch // size)
                if self._is_mine(batch // size) and not skipped.is_whole(name):
                    writer.put(name, self._answer(view, batch, element))
                else:
                    skipped.add(name, lambda element=element: self._marks(element))
                if self._verbose:
                    bar.update(batch + 1)
            skipped.check()
        if self._verbose and total < 0:
            bar.update(batch + 1, finalize=True)
        return batch + 1

    def _is_mine(self, shard):
        index, count = self._process
        return shard % count == index

    def _answer(self, view, batch, element):
        components, sound = self._components(element)
        if not sound:
            raise ValueError(
                f"The teacher's outputs for batch {batch} of view {view} hold NaN, or numbers too "
                f"large for dtype={self.plan['dtype']!r}. Look at the inputs of that batch, or "
                "pass dtype='bfloat16' or 'float32'."
            )
        return components

    def finish(self, counts):
        """Writes the manifest, if the shards of all processes are there."""
        size, views = self.plan["batches_per_shard"], []
        for view, batches in enumerate(counts):
            names = [cache_format.shard_name(view, i) for i in range(-(-batches // size))]
            notes = [(name, self.folder / f"{name}.json") for name in names]
            if not all(note.exists() for _, note in notes):
                return  # of another process, which finishes when it comes last
            views.append([{"name": n, **cache_format.read_json(note)} for n, note in notes])
        self._check_ends(views, counts)
        manifest = {**self.plan, "shards": views}
        cache_format.write_json(self.folder / cache_format.MANIFEST, manifest)
        # Of a run that was killed while it published the plan, which is there by now.
        for leftover in self.folder.glob(f"partial-*{cache_format.PLAN}"):
            leftover.unlink(missing_ok=True)

    def _check_ends(self, views, counts):
        for view, (found, batches) in enumerate(zip(views, counts, strict=True)):
            written = sum(shard["batches"] for shard in found)
            if written != batches:
                raise cache_format.CacheError(
                    f"View {view} of {self.folder} holds {written} batches; the dataset has "
                    f"{batches}. It has changed since the cache was begun: remove the folder and "
                    "write the cache again."
                )

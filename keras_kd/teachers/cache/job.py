"""`plan`: a cache as a job, whose shards any process of any machine writes."""

import dataclasses
import hashlib
import importlib.metadata
import json
import numbers
import os
import pathlib
import platform
import secrets
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_kd._utils import progress, storage, validation
from keras_kd._utils.validation import invalid
from keras_kd.teachers.cache import arguments, contents, fingerprints, plans, schema, shards
from keras_kd.teachers.cache import format as cache_format
from keras_kd.teachers.cache.format import CacheError
from keras_kd.teachers.cache.teacher_run import TeacherRun
from keras_kd.version import __version__


class Shard(NamedTuple):
    """A shard of a job.

    Attributes:
        view: The number of the view.
        number: Its number within the view.
    """

    view: int
    number: int


@dataclasses.dataclass(frozen=True)
class Written:
    """What `Job.write` did.

    Attributes:
        shard: The shard.
        rows: Its samples.
        bytes: Its size.
        seconds: How long it took.
        was_there: Whether it had been written before, or meanwhile by another process.
        worker: The machine and the process.
    """

    shard: Shard
    rows: int
    bytes: int
    seconds: float
    was_there: bool
    worker: str


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
) -> "Job":
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
    settings = _Settings(
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
        "source": _digest_of(source),
    }
    plans.check_no_other_files(folder)
    worker = _Worker(settings)
    planned = {**worker.fields(), **cut}
    if not plans.is_begun(folder, planned):
        _check_first_batch(source, worker)
        plans.make_folder(folder)
    agreed = plans.agree_on(folder, planned)
    job = Job(folder, settings, agreed)
    _WORKERS[job.token] = worker
    return job


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


def _digest_of(source: Any) -> str | None:
    """What tells a source from others, where it describes itself."""
    describe = getattr(source, "describe", None)
    if describe is None:
        return None
    return hashlib.sha256(json.dumps(describe(), sort_keys=True).encode()).hexdigest()


def _check_first_batch(source: Callable, worker: "_Worker") -> None:
    """Raises unless the first batch is there, is the same twice, and its outputs can be stored."""
    element, again = (next(iter(arguments.batches_of_shard(source, 0, 0)), None) for _ in range(2))
    if element is None or again is None:
        raise ValueError("source(0, 0) has no batches: each shard has at least one sample.")
    one, other = (worker.outputs.marks(each)[schema.FINGERPRINTS] for each in (element, again))
    if one.shape != other.shape or not bool(tf.reduce_all(one == other)):
        raise ValueError(
            "source(0, 0) gave other inputs when it was read again: it is shuffled, or augmented "
            "without a fixed seed. A shard that is tried again, or read in training, must have the "
            "same batches in the same order: remove `shuffle`, and seed augmentation by the "
            "numbers of the view and the shard."
        )
    worker.outputs.components(element, "batch 0 of shard 0 of view 0")


@dataclasses.dataclass(frozen=True)
class _Settings:
    """What a process needs to write a shard; it travels with the job."""

    source: Callable[[int, int], Any]
    teacher: Any
    load_teacher: Callable[[], Any] | None
    taps: Sequence | None
    dtype: str | None
    top_k: int | None
    key: Callable | None
    from_logits: bool
    fingerprint: str | None

    def loaded_teacher(self) -> Any:
        if self.load_teacher is not None:
            return self.load_teacher()
        if isinstance(self.teacher, str):
            return keras.saving.load_model(self.teacher, compile=False)
        return self.teacher


class _Worker:
    """The teacher of a job in this process, loaded and traced once."""

    def __init__(self, settings: _Settings) -> None:
        self._recorder = contents.record(
            settings.loaded_teacher(),
            settings.taps,
            settings.dtype,
            settings.top_k,
            settings.from_logits,
        )
        self._fingerprint = settings.fingerprint
        self.outputs = TeacherRun(self._recorder, settings.key)
        self.element_spec = arguments.batches_of_shard(settings.source, 0, 0).element_spec
        self.outputs.trace(self.element_spec)

    def fields(self) -> dict:
        """The fields of a plan that follow from the teacher."""
        return plans.of_outputs(self._recorder, self.outputs.specs, self._fingerprint)


# By the token of the job: a process that writes many shards loads the teacher once.
_WORKERS: dict[str, _Worker] = {}
_guard = threading.Lock()


class Job:
    """A cache that is written shard by shard; `keras_kd.cache.plan` makes it.

    Args:
        folder: The cache, a `storage.Place`.
        settings: What a process needs.
        plan: The plan that stands in the folder.

    Attributes:
        path: The folder, or the address.
        shards: All shards, each a `Shard`.
        versions: Those of what computes, in the process that planned the job.
    """

    def __init__(self, folder: storage.Place, settings: _Settings, plan: dict) -> None:
        self.path, self._settings, self._plan = folder, settings, plan
        self.versions = versions()
        # Tells jobs of one process apart; nothing that is written depends on it.
        self.token = secrets.token_hex(8)
        parts = enumerate(plan["parts"])
        self.shards = [Shard(view, n) for view, count in parts for n in range(count)]

    @property
    def source(self) -> Callable[[int, int], Any]:
        """The source, which `keras_kd.load_cache` takes as its dataset."""
        return self._settings.source

    def pending(self) -> list[Shard]:
        """The shards that are not there yet, by the names in the folder.

        A store may list late: a shard that is there may be among them, and writing it again does
        nothing.
        """
        if storage.exists(self.path / cache_format.MANIFEST):
            return []
        views = range(len(self._plan["parts"]))
        there = {
            f"{folder}/{name.removesuffix('.json')}"
            for folder in map(cache_format.view_name, views)
            for name in storage.names(self.path / folder, ".json")
        }
        return [shard for shard in self.shards if cache_format.shard_name(*shard) not in there]

    def prepare(self) -> None:
        """Loads the teacher in this process, and compares all with the plan; `write` does it too.

        Raises:
            CacheError: This process has another teacher, other data or other versions of what
                computes than the plan.
        """
        self._worker()

    def write(self, shard: tuple[int, int]) -> Written:
        """Writes a shard, unless it is there: whole, or not at all.

        Several processes may write the same one at a time: the first to be done counts, and the
        inputs of the others are compared with its inputs.

        Args:
            shard: The numbers of its view and of itself.

        Returns:
            A `Written`.

        Raises:
            ValueError: There is no such shard; the source returns nothing, or not
                `rows_per_shard`; the outputs cannot be stored.
            CacheError: This process has another teacher, other data or other versions of what
                computes than the plan; or the shard was written for other inputs.
            OSError: It could not be written.
        """
        shard, begin = self._checked(shard), time.monotonic()
        name = cache_format.shard_name(*shard)
        found = shards.note_of(self.path, name)
        if found is not None:
            return self._result(shard, found, begin, was_there=True)
        outputs, data = self._prepared(shard)
        with shards.ShardWriter(self.path, secrets.token_hex(8), self._plan) as writer:
            rows, batch = 0, -1
            for batch, element in enumerate(data.prefetch(tf.data.AUTOTUNE)):
                where = f"batch {batch} of shard {shard.number} of view {shard.view}"
                components = outputs.components(element, where)
                rows += len(components[schema.FINGERPRINTS])
                self._check_rows(shard, rows, is_end=False)
                writer.put(name, components)
            self._check_rows(shard, rows, is_end=True)
        found = shards.note_of(self.path, name)
        if found is None:
            raise CacheError(f"{self.path / name} vanished after it was written.")
        return self._result(shard, found, begin, was_there=name not in writer.written)

    def check(self, shard: tuple[int, int]) -> None:
        """Reads the inputs of a shard again, and compares them with those that were written.

        The teacher does not run. So a source that changes is found, or data that has changed.

        Args:
            shard: The numbers of its view and of itself.

        Raises:
            CacheError: The inputs are others, or the shard has not been written.
        """
        shard = self._checked(shard)
        name = cache_format.shard_name(*shard)
        found = shards.note_of(self.path, name)
        if found is None:
            raise CacheError(f"{self.path / name} has not been written: call write({shard}).")
        outputs, data = self._prepared(shard)
        prints = [outputs.marks(each)[schema.FINGERPRINTS].numpy().tobytes() for each in data]
        if fingerprints.of_bytes(prints) != found["inputs"]:
            raise shards.other_inputs(self.path, name)

    def finish(self) -> Any:
        """Writes the manifest, once all shards are there; more than once it does nothing more.

        Each shard is asked for by its name, as a store may list late.

        Returns:
            The path of the cache.

        Raises:
            CacheError: Shards are missing; the first of them are named.
        """
        if not storage.exists(self.path / cache_format.MANIFEST):
            manifest = plans.finish(self.path, self._plan, self._plan["parts"])
            if manifest is None:
                missing = self.pending()
                named = ", ".join(cache_format.shard_name(*shard) for shard in missing[:3])
                raise CacheError(
                    f"{len(missing)} of {len(self.shards)} shards of {self.path} are missing "
                    f"({named}{' ...' if len(missing) > 3 else ''}): write those of "
                    "job.pending(), and call finish() again."
                )
        self._clean()
        cache_format.checked(self.path, thorough=False)
        return self.path

    def write_all(self, verbose: int | str = 1) -> Any:
        """Writes the pending shards in this process, one after another, and finishes the cache.

        Args:
            verbose: `"auto"` or 1 shows a bar, 2 a line at the end, 0 nothing.

        Returns:
            The path of the cache.
        """
        verbose, pending = progress.check_verbose(verbose), self.pending()
        bar = progress.Bar(f"job: {self.path}", len(pending), "shard", verbose, ("samples/s", "MB"))
        rows = size = 0
        begin = time.monotonic()
        for done, shard in enumerate(pending, 1):
            written = self.write(shard)
            rows, size = rows + written.rows, size + written.bytes
            bar.update(done, rows / max(time.monotonic() - begin, 1e-3), size / 1e6)
        bar.end()
        return self.finish()

    def _checked(self, shard: Any) -> Shard:
        parts = self._plan["parts"]
        # By the counts: a search in `shards` takes the longer, the more there are.
        if not (
            isinstance(shard, (tuple, list))
            and [isinstance(number, numbers.Integral) for number in shard] == [True, True]
            and 0 <= shard[0] < len(parts)
            and 0 <= shard[1] < parts[shard[0]]
        ):
            raise invalid(
                "shard",
                "one of job.shards: the numbers of a view (0 to "
                f"{len(parts) - 1}) and a shard (0 to {parts[0] - 1})",
                repr(shard),
            )
        return Shard(*map(int, shard))

    def _prepared(self, shard: Shard) -> tuple[TeacherRun, tf.data.Dataset]:
        """The teacher of this process, and the data of a shard."""
        worker = self._worker()
        data = arguments.batches_of_shard(self.source, *shard)
        if not arguments.are_compatible(worker.element_spec, data.element_spec):
            raise ValueError(
                "All shards must have elements of one kind. Received: shard 0 of view 0 of "
                f"{worker.element_spec}, {shard} of {data.element_spec}"
            )
        return worker.outputs, data

    def _worker(self) -> _Worker:
        with _guard:
            if self.token not in _WORKERS:
                self._check_versions()
                worker = _Worker(self._settings)
                self._check_worker(worker)
                _WORKERS[self.token] = worker
            return _WORKERS[self.token]

    def _check_versions(self) -> None:
        own = versions()
        differing = [
            f"{name} {own[name]} here, {planned} there"
            for name, planned in self.versions.items()
            if own[name] != planned
        ]
        if differing:
            raise CacheError(
                f"This worker ({worker_name()}) has other versions than the process that planned "
                f"the job: {'; '.join(differing)}. Outputs of one teacher may differ between them: "
                "install the same versions on all machines."
            )

    def _check_worker(self, worker: _Worker) -> None:
        """Raises unless the teacher and the data of this process are those of the plan."""
        fields = {**worker.fields(), "source": _digest_of(self.source)}
        differing = [name for name, value in fields.items() if self._plan[name] != value]
        if differing:
            what = {"teacher": "another teacher", "source": "other data"}
            named = ", ".join(what.get(name, f"another `{name}`") for name in sorted(differing))
            raise CacheError(
                f"This worker ({worker_name()}) has {named} than the plan in {self.path}. "
                "Give all workers the same files; or pass another path for another cache."
            )

    def _check_rows(self, shard: Shard, rows: int, is_end: bool) -> None:
        wanted = self._plan["rows_per_shard"]
        where = f"source({shard.view}, {shard.number})"
        if is_end and not rows:
            raise ValueError(f"{where} has no samples: each shard has at least one.")
        is_last = shard.number == self._plan["parts"][shard.view] - 1
        if wanted is not None and (rows > wanted or (is_end and rows < wanted and not is_last)):
            raise ValueError(
                f"{where} must have {wanted} samples (rows_per_shard)"
                f"{' at most, as the last shard' if is_last else ''}. It has {rows} "
                f"{'of them' if is_end else 'or more'}."
            )

    def _result(self, shard: Shard, note: dict, begin: float, was_there: bool) -> Written:
        seconds = time.monotonic() - begin
        return Written(shard, note["rows"], note["bytes"], seconds, was_there, worker_name())

    def _clean(self) -> None:
        """Removes unfinished files of processes that were killed; all shards are there."""
        if storage.is_remote(self.path):
            return  # a store shows whole objects only
        for view in range(len(self._plan["parts"])):
            for leftover in (self.path / cache_format.view_name(view)).glob("partial-*"):
                leftover.unlink(missing_ok=True)


def versions() -> dict[str, str]:
    """The versions of what computes a teacher's outputs, in this process."""
    return {
        "keras_kd": __version__,
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "numpy": importlib.metadata.version("numpy"),
        "machine": platform.machine(),
    }


def worker_name() -> str:
    """This machine and process."""
    return f"{socket.gethostname()}:{os.getpid()}"

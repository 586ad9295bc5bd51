"""`Job`: a cache whose shards any process of any machine writes, one by one."""

import dataclasses
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from keras_kd._utils import progress, storage
from keras_kd._utils.validation import invalid
from keras_kd.teachers.cache import arguments, fingerprints, plans, schema, shards
from keras_kd.teachers.cache import format as cache_format
from keras_kd.teachers.cache.format import CacheError
from keras_kd.teachers.cache.job_worker import JobWorker, Settings, computing_versions, digest_of
from keras_kd.teachers.cache.teacher_run import TeacherRun


class Shard(NamedTuple):
    """A shard of a job; a tuple of two numbers does as well.

    Args:
        view: The number of the view.
        number: Its number within the view.

    Example:

    ```python
    import keras_kd as kd

    view, number = kd.cache.Shard(0, 3)
    ```
    """

    view: int
    number: int


@dataclasses.dataclass(frozen=True)
class Written:
    """What `Job.write` did.

    Args:
        shard: The shard.
        rows: Its samples.
        bytes: Its size.
        seconds: How long it took.
        was_there: Whether it had been written before, or meanwhile by another process.
        worker: The machine and the process.

    Example:

    ```python
    def write_own(job, index, count):  # job: what keras_kd.cache.plan returned
        written = [job.write(shard) for shard in job.shards[index::count]]
        return sum(each.rows for each in written if not each.was_there)
    ```
    """

    shard: Shard
    rows: int
    bytes: int
    seconds: float
    was_there: bool
    worker: str


# By the token of the job, the latest last: who writes many shards loads the teacher once. A few are
# kept, as each holds a teacher.
_WORKERS: dict[str, JobWorker] = {}
_KEPT = 4
_guard = threading.Lock()


def _keep(token: str, worker: JobWorker) -> None:
    _WORKERS[token] = worker
    while len(_WORKERS) > _KEPT:
        del _WORKERS[next(iter(_WORKERS))]


class Job:
    """A cache that is written shard by shard; `keras_kd.cache.plan` makes it.

    Args:
        folder: The cache, a `storage.Place`.
        settings: What a process needs.
        plan: The plan that stands in the folder.
        worker: The teacher of this process.

    Attributes:
        path: The folder, or the address.
        shards: All shards, each a `Shard`.

    Example:

    ```python
    def write(job):  # job: what keras_kd.cache.plan returned
        for shard in job.pending():
            job.write(shard)
        return job.finish()
    ```
    """

    def __init__(
        self, folder: storage.Place, settings: Settings, plan: dict, worker: JobWorker
    ) -> None:
        self.path, self._settings, self._plan = folder, settings, plan
        # Tells jobs of one process apart; nothing that is written depends on it.
        self.token = secrets.token_hex(8)
        with _guard:
            _keep(self.token, worker)
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
            rows = 0
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
        found = tuple(shard) if isinstance(shard, (tuple, list)) else ()
        parts = dict(enumerate(self._plan["parts"]))
        if len(found) != 2 or found[1] not in range(parts.get(found[0], 0)):
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

    def _worker(self) -> JobWorker:
        with _guard:
            if self.token not in _WORKERS:
                self._check_versions()
                worker = JobWorker(self._settings)
                self._check_worker(worker)
                _keep(self.token, worker)
            return _WORKERS[self.token]

    def _check_versions(self) -> None:
        own, planned = computing_versions(), self._plan[schema.COMPUTED_WITH]
        if own != planned:
            listed = "; ".join(
                f"{name} {planned.get(name)} there, {own[name]} here"
                for name in own
                if planned.get(name) != own[name]
            )
            raise CacheError(
                f"This worker ({worker_name()}) has other versions than the process that planned "
                f"the job: {listed}. Outputs of one teacher may differ between them: install the "
                "same versions on all machines."
            )

    def _check_worker(self, worker: JobWorker) -> None:
        """Raises unless the teacher and the data of this process are those of the plan."""
        fields = {**worker.fields(), "source": digest_of(self.source)}
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


def worker_name() -> str:
    """This machine and process."""
    return f"{socket.gethostname()}:{os.getpid()}"

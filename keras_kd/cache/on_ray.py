"""`on_ray`: writes a job's shards on the machines of a Ray cluster."""

import collections
import contextlib
import dataclasses
import math
import statistics
import time
from collections.abc import Iterator, Mapping
from typing import Any

from keras_kd._utils import progress, validation
from keras_kd._utils.validation import invalid
from keras_kd.teachers.cache.job import Job, Shard, Written

# Seconds between looks at what runs.
_LOOK = 0.5
# A shard is begun a second time when it has taken so many times the median.
_SLOW = 2.0


@dataclasses.dataclass(frozen=True)
class FleetSummary:
    """What came of a job on several machines.

    Args:
        path: The cache.
        seconds: From the first worker's start to the manifest.
        written: A `Written` for each shard that was pending.
        retries: `(shard, why)` for each try that failed and was made again.
        backups: Shards that were begun a second time while a slow worker still had them.
        saved_by_backups: How many of these were done before the slow worker was.

    Example:

    ```python
    def slowest(job):  # job: what keras_kd.cache.plan returned
        import keras_kd as kd

        summary = kd.cache.on_ray(job, workers=8)
        return next(iter(summary.by_worker()))
    ```
    """

    path: Any
    seconds: float
    written: list[Written]
    retries: list[tuple[Shard, str]]
    backups: list[Shard]
    saved_by_backups: int

    def by_worker(self) -> dict[str, tuple[int, float]]:
        """`{machine and process: (shards, median seconds of a shard)}`, the slowest first."""
        seconds = collections.defaultdict(list)
        for each in self.written:
            seconds[each.worker].append(each.seconds)
        medians = {name: (len(own), sorted(own)[len(own) // 2]) for name, own in seconds.items()}
        return dict(sorted(medians.items(), key=lambda item: -item[1][1]))

    def __str__(self) -> str:
        rows = sum(each.rows for each in self.written)
        lines = [
            f"{self.path}: {len(self.written)} shards, {rows:,} samples in {self.seconds:.0f} s "
            f"({rows / max(self.seconds, 1e-3):,.0f} per second)"
        ]
        lines += [
            f"  {name}: {shards} shards, {median:.1f} s each"
            for name, (shards, median) in self.by_worker().items()
        ]
        lines += [f"  tried again: {tuple(shard)}: {why}" for shard, why in self.retries]
        if self.backups:
            named = ", ".join(str(tuple(shard)) for shard in self.backups)
            lines.append(
                f"  begun twice, as a worker was slow: {named}; the second was first "
                f"{self.saved_by_backups} times"
            )
        return "\n".join(lines)


def on_ray(
    job: Job,
    *,
    workers: int | None = None,
    resources: Mapping[str, float] | None = None,
    retries: int = 3,
    backups: bool = True,
    address: str | None = None,
    verbose: int | str = 1,
) -> FleetSummary:
    """Writes the pending shards of a job on a Ray cluster, and finishes the cache.

    Each worker is a process that loads the teacher once and is given one shard after another; a
    fast one gets more of them. A shard whose worker dies is given to another one. Where nothing is
    left to give, those that take more than twice the median are begun a second time: the first to
    be done counts. Whatever is killed, this process included: call it again, and it goes on with
    what is pending. (Ray's own retries give at-least-once; shards make exactly-once of it.)

    Args:
        job: What `keras_kd.cache.plan` returned. Its source and teacher must be what cloudpickle
            can pickle, and `job.path` must be reached by all machines.
        workers: How many processes write. Default: as many as the cluster has room for.
        resources: What each worker holds: `{"CPU": 1}` by default, such as `{"GPU": 1}` or a
            resource of your own.
        retries: How often a shard may fail by a lost worker or by a store or disk. Other errors,
            such as outputs with NaN, end the job at once: they would come again.
        backups: Whether slow shards are begun a second time.
        address: Of a Ray cluster, such as `"auto"` or `"ray://host:10001"`. Default: the one that
            this process is connected to, or else one on this machine, for the time of the call.
        verbose: `"auto"` or 1 shows a bar and then the summary, 2 the summary, 0 nothing.

    Returns:
        A `FleetSummary`.

    Raises:
        ImportError: Ray is missing (`pip install 'keras-kd[ray]'`).
        ValueError: An argument is wrong, or the job cannot be pickled; or an error of
            `Job.write`, by the shard that it came from.
        CacheError: A worker has another teacher, other data or other versions.
        RuntimeError: A shard failed more often than `retries`.

    Example:

    ```python
    def write(job):  # job: what keras_kd.cache.plan returned
        import keras_kd as kd

        return kd.cache.on_ray(job, workers=8, resources={"GPU": 1}, address="auto")
    ```
    """
    if not isinstance(job, Job):
        raise invalid("job", "what keras_kd.cache.plan returns", repr(job))
    workers = validation.integer("workers", workers, 1, optional=True)
    retries = validation.integer("retries", retries, 0)
    backups = validation.boolean("backups", backups)
    address = validation.text("address", address, optional=True)
    held = _held(resources)
    verbose = progress.check_verbose(verbose)
    ray = validation.needs("ray", "keras_kd.cache.on_ray", "ray")
    begin = time.monotonic()
    pending = job.pending()
    with contextlib.ExitStack() as stack:
        if pending:
            cpus = None if workers is None else math.ceil(workers * held["num_cpus"])
            stack.enter_context(_connected(ray, address, cpus))
            fleet = _Fleet(ray, job, held, retries, backups)
            stack.callback(fleet.stop)
            room = _room(ray, held)
            fleet.run(pending, min(workers or room, len(pending)), verbose)
            fleet.stop()  # before unfinished files are removed
        path = job.finish()
    summary = FleetSummary(
        path,
        time.monotonic() - begin,
        list(fleet.done.values()) if pending else [],
        fleet.retries if pending else [],
        fleet.backups if pending else [],
        fleet.saved if pending else 0,
    )
    if verbose:
        progress.print_line(str(summary))
    return summary


def _held(resources: Any) -> dict[str, Any]:
    """Options of an actor that holds these resources."""
    expected = 'a dict from names to numbers, such as {"GPU": 1}, or None'
    given = {"CPU": 1} if resources is None else resources
    if not isinstance(given, Mapping):
        raise invalid("resources", expected, repr(resources))
    for name, value in given.items():
        if not isinstance(name, str):
            raise invalid("resources", expected, repr(resources))
        validation.non_negative(f"resources[{name!r}]", value)
    others = {name: value for name, value in given.items() if name not in ("CPU", "GPU")}
    return {
        "num_cpus": given.get("CPU", 1),
        "num_gpus": given.get("GPU", 0),
        **({"resources": others} if others else {}),
    }


@contextlib.contextmanager
def _connected(ray: Any, address: str | None, cpus: int | None) -> Iterator[None]:
    """Within it this process is connected to a cluster, if need be one of its own with `cpus`."""
    if ray.is_initialized():
        if address is not None:
            raise ValueError(
                "This process is connected to a Ray cluster already: leave `address` out, or call "
                f"ray.shutdown() first. Received: address={address!r}"
            )
        yield
        return
    options: dict[str, Any] = {"address": address} if address else {"include_dashboard": False}
    if cpus is not None and address is None:
        options["num_cpus"] = cpus  # processes of this machine, also more than it has cores
    try:
        ray.init(logging_level="ERROR", **options)
    except ConnectionError as error:
        raise invalid(
            "address", f"the address of a running Ray cluster ({error})", repr(address)
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _room(ray: Any, held: dict[str, Any]) -> int:
    """How many workers the cluster has room for."""
    wanted = {"CPU": held["num_cpus"], "GPU": held["num_gpus"], **held.get("resources", {})}
    there = ray.cluster_resources()
    rooms = [int(there.get(name, 0) // value) for name, value in wanted.items() if value]
    room = min(rooms, default=1)
    if room < 1:
        raise invalid(
            "resources", f"what the cluster has: {dict(sorted(there.items()))}", repr(wanted)
        )
    return room


class _Writer:
    """A worker: holds the job, and with it the teacher."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def prepare(self) -> None:
        self._job.prepare()

    def write(self, shard: Shard) -> Written:
        return self._job.write(shard)


class _Fleet:
    """Gives shards to workers until all are written."""

    def __init__(
        self, ray: Any, job: Job, held: dict[str, Any], retries: int, backups: bool
    ) -> None:
        self._ray, self._most, self._has_backups = ray, retries, backups
        self._class = ray.remote(**held, max_restarts=0)(_Writer)
        try:
            self._job = ray.put(job)
        except TypeError as error:
            raise ValueError(
                f"The job cannot be sent to workers: {error}. Pass functions that can be pickled, "
                "and a teacher by its path or by load_teacher=."
            ) from error
        self.done: dict[Shard, Written] = {}
        self._rows = self._bytes = 0
        self.retries: list[tuple[Shard, str]] = []
        self.backups: list[Shard] = []
        self.saved = 0
        self._queue: collections.deque[Shard] = collections.deque()
        self._failures: collections.Counter[Shard | None] = collections.Counter()
        # By the reference of what it does: its actor, the shard (`None`: it starts), since when.
        self._running: dict[Any, tuple[Any, Shard | None, float]] = {}
        self._idle: list[Any] = []

    def run(self, pending: list[Shard], workers: int, verbose: int) -> None:
        """Writes the shards; raises what a worker raised."""
        self._queue.extend(pending)
        bar = progress.Bar("on_ray", len(pending), "shard", verbose, ("samples/s", "MB"))
        bar.begin()
        for _ in range(workers):
            self._start()
        begin = time.monotonic()
        while len(self.done) < len(pending):
            self._assign()
            ready, _ = self._ray.wait(list(self._running), timeout=_LOOK)
            for reference in ready:
                self._take(reference)
            if self.done:
                speed = self._rows / (time.monotonic() - begin)
                bar.update(len(self.done), speed, self._bytes / 1e6)
        bar.end()

    def stop(self) -> None:
        """Ends all workers, also those that still write what others have written."""
        actors = [*self._idle, *(actor for actor, _, _ in self._running.values())]
        self._idle, self._running = [], {}
        for actor in actors:
            self._ray.kill(actor)

    def _start(self) -> None:
        actor = self._class.remote(self._job)
        self._running[actor.prepare.remote()] = (actor, None, time.monotonic())

    def _assign(self) -> None:
        while self._idle and (shard := self._next()) is not None:
            actor = self._idle.pop()
            self._running[actor.write.remote(shard)] = (actor, shard, time.monotonic())

    def _next(self) -> Shard | None:
        if self._queue:
            return self._queue.popleft()
        if not self._has_backups or not self.done:
            return None
        # Workers have nothing to do: what has been written for longest is begun once more.
        seconds = [each.seconds for each in self.done.values()]
        patience = max(_SLOW * statistics.median(seconds), _LOOK)
        for _, shard, since in sorted(self._running.values(), key=lambda each: each[2]):
            if shard is None or shard in self.done or shard in self.backups:
                continue
            if time.monotonic() - since > patience:
                self.backups.append(shard)
                return shard
        return None

    def _take(self, reference: Any) -> None:
        actor, shard, since = self._running.pop(reference)
        errors = self._ray.exceptions
        try:
            written = self._ray.get(reference)
        except errors.RayActorError as error:
            self._fail(shard, f"the worker was lost ({_first_line(error)})", error)
            self._start()
            return
        except errors.RayTaskError as error:
            if not isinstance(error.cause, OSError):
                raise error.cause from error
            self._fail(shard, _first_line(error.cause), error)
            if shard is None:
                self._start()
                return
        else:
            if shard is not None and shard not in self.done:
                self.done[shard] = written
                self._rows, self._bytes = self._rows + written.rows, self._bytes + written.bytes
                is_second = any(
                    other == shard and begun < since for _, other, begun in self._running.values()
                )
                self.saved += is_second
        self._idle.append(actor)

    def _fail(self, shard: Shard | None, why: str, error: Exception) -> None:
        if shard in self.done:
            return
        self._failures[shard] += 1
        if self._failures[shard] > self._most:
            what = "A worker did not start" if shard is None else f"Shard {tuple(shard)} failed"
            raise RuntimeError(
                f"{what}: {self._failures[shard]} times, at last: {why}. {len(self.done)} shards "
                "have been written in this call; the others are pending: look at that, and call "
                "on_ray again."
            ) from error
        if shard is not None:
            self.retries.append((shard, why))
            if not any(other == shard for _, other, _ in self._running.values()):
                self._queue.appendleft(shard)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]

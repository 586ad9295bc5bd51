"""Keeps workers going: one that is lost stops all of them, and all are started again."""

import dataclasses
import json
import pickle
import signal
import time
from typing import Any

from keras_kd import version
from keras_kd._utils import progress
from keras_kd.scale import ray_hosts
from keras_kd.scale.worker import ATTEMPT, WorkerError

# Seconds between looks at the workers.
_PAUSE = 0.5
# Seconds that an error waits for the reason of it: a worker that ended, or that raised another one.
_GRACE, _ECHO_GRACE = 1.5, 20.0


@dataclasses.dataclass(frozen=True)
class Task:
    """What is run.

    Attributes:
        function: Pickled.
        workers: How many call it.
        retries: How often all of them may be started again.
        environment: Variables of their processes.
        timeout: Seconds without a sign of life after which a worker is lost, or `None`.
        verbose: 0, 1 or 2.
    """

    function: bytes
    workers: int
    retries: int
    environment: dict[str, str]
    timeout: float | None
    verbose: int


class _LostError(Exception):
    """A worker is gone; all may be started again."""

    def __init__(self, index: int, reason: str, output: list[str]) -> None:
        super().__init__(f"worker {index}: {reason}")
        self.index, self.reason, self.output = index, reason, output


def run(hosts: ray_hosts.RayHosts, task: Task) -> list[Any]:
    """What the workers return, in their order.

    Raises:
        WorkerError: The function raised an error, or workers were lost too often.
    """
    begin, history = time.monotonic(), list[str]()
    for attempt in range(task.retries + 1):
        try:
            results = _Attempt(hosts, task, attempt).run()
        except _LostError as lost:
            history.append(str(lost))
            if attempt == task.retries:
                raise _used_up(lost, task, history) from lost
            _say(
                task,
                f"lost {lost} after {_since(begin)}; all are stopped and started again (restart "
                f"{attempt + 1} of at most {task.retries})",
            )
            hosts.stop()
            _replace(hosts)
        else:
            _say(task, f"all {task.workers} have ended after {_since(begin)}, restarts: {attempt}")
            return results
    raise RuntimeError("The last attempt has neither ended nor failed.")


def _replace(hosts: ray_hosts.RayHosts) -> None:
    try:
        hosts.replace_lost()
    except ray_hosts.HostLostError as error:
        raise WorkerError(
            f"Worker {error.index} was lost, and cannot be started again: {error.reason}. Add a "
            "node to the cluster and call again: the backup is kept.",
            error.index,
        ) from error


class _Attempt:
    """All workers from their start to their end, or to the loss of one."""

    def __init__(self, hosts: ray_hosts.RayHosts, task: Task, attempt: int) -> None:
        self._hosts, self._task, self._attempt = hosts, task, attempt
        self._output: list[list[str]] = [[] for _ in range(task.workers)]
        self._seen = [0] * task.workers
        self._states: list[dict[str, Any]] = [{"phase": "starting"}] * task.workers
        self._answered = [time.monotonic()] * task.workers
        self._raised_at: float | None = None
        self._is_running = False
        self._begin = self._last_line = time.monotonic()

    def run(self) -> list[Any]:
        try:
            self._start()
            self._wait_for({"ready"}, "to start")
            self._check_versions()
            self._hosts.call_all("go")
            self._is_running = True
            self._wait_for({"result"}, "to end")
            results = [pickle.loads(each) for each in self._hosts.call_all("result")]
            self._hosts.stop()
        except ray_hosts.HostLostError as error:
            raise _LostError(error.index, error.reason, self._output[error.index]) from error
        return results

    def _start(self) -> None:
        task = self._task
        machines, ports = self._hosts.addresses(), self._hosts.call_all("free_port")
        while len(set(zip(machines, ports, strict=True))) < task.workers:  # two chose the same
            ports = self._hosts.call_all("free_port")
        addresses = [f"{each}:{port}" for each, port in zip(machines, ports, strict=True)]
        paths = ray_hosts.search_path()
        requests = [
            (self._environment(addresses, index), paths, self._request(index))
            for index in range(task.workers)
        ]
        pids = self._hosts.call_each("start", requests)
        if self._attempt == 0:
            where = [
                f"{i} on {m} (process {p})"
                for i, m, p in zip(range(task.workers), machines, pids, strict=True)
            ]
            _say(task, f"{task.workers} workers start: {', '.join(where)}")

    def _environment(self, addresses: list[str], index: int) -> dict[str, str]:
        place = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        own = {"TF_CONFIG": json.dumps(place), ATTEMPT: str(self._attempt)}
        return {**self._task.environment, **own}

    def _request(self, index: int) -> bytes:
        place = {"index": index, "count": self._task.workers, "attempt": self._attempt}
        return pickle.dumps((place, self._task.function))

    def _wait_for(self, phases: set[str], what: str) -> None:
        while True:
            self._look()
            if all(state["phase"] in phases for state in self._states):
                return
            self._tell_who_is_late(phases, what)
            time.sleep(_PAUSE)

    def _look(self) -> None:
        """Asks the hosts once.

        Raises:
            _LostError: One is lost.
            WorkerError: One cannot start, or its function raised.
        """
        for index, state in enumerate(self._hosts.poll(self._seen, seconds=10 * _PAUSE)):
            if state is None:
                continue
            self._answered[index], self._states[index] = time.monotonic(), state
            self._seen[index] = state["printed"]
            self._output[index] = [*self._output[index], *state["lines"]][-20:]
            if self._task.verbose == 2:
                for line in state["lines"]:
                    progress.print_line(f"worker {index}: {line}")
        for index, state in enumerate(self._states):
            self._check_alive(index, state)
        self._check_errors()

    def _check_alive(self, index: int, state: dict[str, Any]) -> None:
        code, phase = state.get("exit"), state["phase"]
        if code is not None and phase != "result":
            if phase == "starting" and code > 0:
                raise WorkerError(
                    f"Worker {index} could not start: its process ended with exit code {code}. "
                    "Is keras_kd installed there, as here?" + _last(self._output[index]),
                    index,
                    tuple(self._output[index]),
                )
            raise _LostError(index, _exit(code), self._output[index])
        has_ended = phase in ("result", "raised")
        if self._task.timeout is None or has_ended or not self._is_running:
            return
        silent = time.monotonic() - self._answered[index] + state["silent"]
        if silent > self._task.timeout:
            raise _LostError(
                index,
                f"no sign of life for {silent:.0f} seconds (timeout={self._task.timeout:g})",
                self._output[index],
            )

    def _check_errors(self) -> None:
        raised = [i for i, state in enumerate(self._states) if state["phase"] == "raised"]
        if not raised:
            return
        if self._raised_at is None:
            self._raised_at = time.monotonic()
        passed = time.monotonic() - self._raised_at
        own = [i for i in raised if not self._states[i]["said"]["is_echo"]]
        if own and passed >= _GRACE:
            raise self._error_of(own[0]) from self._original(own[0])
        if not own and passed >= _ECHO_GRACE:
            index = raised[0]
            summary = self._states[index]["said"]["summary"]
            raise _LostError(
                index, f"it lost touch with the others: {summary}", self._output[index]
            )

    def _error_of(self, index: int) -> WorkerError:
        said = self._states[index]["said"]
        return WorkerError(
            f"Worker {index} of {self._task.workers} raised {said['summary']}\n\n"
            f"Its traceback:\n{said['traceback']}" + _last(self._output[index]),
            index,
            tuple(self._output[index]),
            said["traceback"],
        )

    def _original(self, index: int) -> Exception | None:
        pickled = self._states[index]["said"]["error"]
        if pickled is None:
            return None
        try:
            return pickle.loads(pickled)
        except (ImportError, AttributeError):  # a class that this process has not
            return None

    def _check_versions(self) -> None:
        others = {
            index: differences
            for index, state in enumerate(self._states)
            if (differences := version.differences(state["said"]))
        }
        if others:
            machines = self._hosts.addresses()
            words = [f"worker {i} (on {machines[i]}): {', '.join(x)}" for i, x in others.items()]
            raise WorkerError(
                "Workers have other versions than this process: "
                f"{'; '.join(words)}. Install the same ones everywhere.",
                next(iter(others)),
            )

    def _tell_who_is_late(self, phases: set[str], what: str) -> None:
        now = time.monotonic()
        if now - self._last_line < progress.SECONDS_BETWEEN_LINES:
            return
        self._last_line = now
        late = [i for i, state in enumerate(self._states) if state["phase"] not in phases]
        if len(late) < self._task.workers:
            names = ", ".join(map(str, late))
            _say(self._task, f"waits for {names} {what}; the others have ({_since(self._begin)})")


def _used_up(lost: _LostError, task: Task, history: list[str]) -> WorkerError:
    before = "" if len(history) == 1 else f" Before: {'; '.join(history[:-1])}."
    return WorkerError(
        f"Worker {lost.index} of {task.workers} was lost: {lost.reason}. retries={task.retries} "
        f"are used up.{before} A backup is kept: call again to go on from there, with more "
        "`retries` where machines come and go." + _last(lost.output),
        lost.index,
        tuple(lost.output),
    )


def _exit(code: int) -> str:
    if code >= 0:
        return f"its process ended with exit code {code} before the function returned"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    why = " (where nobody sent it: for lack of memory)" if -code == signal.SIGKILL else ""
    return f"its process was ended by {name}{why}"


def _last(output: list[str]) -> str:
    if not output:
        return "\n\nIt has printed nothing."
    return "\n\nThe last lines that it printed:\n" + "\n".join(f"  {line}" for line in output)


def _since(begin: float) -> str:
    return progress.duration(time.monotonic() - begin)


def _say(task: Task, text: str) -> None:
    if task.verbose:
        progress.print_line(f"kd.scale: {text}")

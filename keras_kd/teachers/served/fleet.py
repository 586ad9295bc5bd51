"""Several servers as one: in turn, elsewhere after a failure, given up after a time."""

import collections
import contextlib
import dataclasses
import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from keras_kd._utils import validation
from keras_kd.teachers.served import description as descriptions
from keras_kd.teachers.served import errors
from keras_kd.teachers.served.description import ModelDescription
from keras_kd.teachers.served.server import Expected, Server

# Seconds before the second try; doubled with each further one up to the longest.
_BACKOFF, _LONGEST_BACKOFF = 0.05, 2.0
# Tries of servers that do not answer at first, where others do.
_TRIES = 3
# So often each server may refuse a request before it is the request's fault.
_REFUSALS = 2


@dataclasses.dataclass(frozen=True)
class Patience:
    """How long a fleet waits.

    Args:
        timeout: Seconds for one request.
        give_up_after: Seconds without a sound answer, after which it raises.
        in_flight: How many requests there may be at once, over all servers.
    """

    timeout: float
    give_up_after: float
    in_flight: int


class Fleet:
    """The servers of a teacher; threads share it.

    Args:
        servers: The servers.
        patience: How long it waits.
        tolerance: How far the outputs of servers may be apart for the probe batch.
        who: The teacher's name, for messages.
        clock: A function that returns seconds.
        sleep: One that waits for so many.
        jitter: A generator of random numbers.

    Attributes:
        expected: What every server must have; after `connect`.
    """

    def __init__(
        self,
        servers: Sequence[Server],
        patience: Patience,
        tolerance: float,
        who: str,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        jitter: random.Random | None = None,
    ) -> None:
        self._servers, self._patience = tuple(servers), patience
        self._tolerance, self._who = tolerance, who
        self._clock, self._sleep = clock, sleep
        self._jitter = jitter or random.Random()
        self._turn = itertools.count()
        self._slots = threading.BoundedSemaphore(patience.in_flight)
        self._lock = threading.Lock()
        self._retries, self._is_closed = 0, False
        self.expected: Expected

    # The beginning.

    def connect(
        self, probe_of: Callable[[ModelDescription], list[np.ndarray]] | None = None
    ) -> ModelDescription:
        """Reads the description of every server, and compares them and their outputs.

        Servers that do not answer while others do are left for later, with a warning: they are
        checked when they come back.

        Args:
            probe_of: From a description to the probe batch, a list; default: `probe_inputs`.

        Returns:
            The description of the model.

        Raises:
            ServedTeacherError: No server answers.
            ValueError: One has another model, or does not describe or run it.
        """
        found, silent = self._describe_all()
        first, described = found[0]
        for server, other in found[1:]:
            differences = described.differences(other)
            if differences:
                raise ValueError(
                    f"The servers of {self._who!r} have different models: {server.url} has "
                    f"{'; '.join(differences)}, which {first.url} has. Give the URLs of servers "
                    "of one model, or the `version` that all of them have."
                )
        arrays = (probe_of or descriptions.probe_inputs)(described)
        names = [info.name for info in described.inputs]
        probe = dict(zip(names, arrays, strict=True))
        described, outputs = self._checked(first, first.probe, described, probe)
        self.expected = Expected(described, probe, outputs, self._tolerance)
        for server, _ in found[1:]:
            self._checked(server, server.check, self.expected)
        for server in silent:
            server.circuit.open()
        if silent:
            listed = "; ".join(server.report() for server in silent)
            validation.warn(
                f"keras_kd: {len(silent)} of {len(self._servers)} servers of {self._who!r} do not "
                f"answer: {listed}. They are checked, and asked, once they do."
            )
        return described

    def _describe_all(self):
        found: dict[Server, ModelDescription] = {}
        begin = self._clock()
        for attempt in itertools.count():
            for server in self._servers:
                if server not in found:
                    self._describe(server, found)
            passed = self._clock() - begin
            is_over = bool(found) and attempt + 1 >= _TRIES
            if len(found) == len(self._servers) or is_over:
                break
            if passed >= self._patience.give_up_after:
                raise self._gave_up()
            self._sleep(self._backoff(attempt))
        in_order = [(server, found[server]) for server in self._servers if server in found]
        return in_order, [server for server in self._servers if server not in found]

    def _describe(self, server, found):
        # What it says otherwise is noted, and it is tried again.
        with contextlib.suppress(errors.Unavailable), self._checking(server):
            found[server] = server.describe(self._patience.timeout)

    def _checked(self, server, call, *args):
        """What a server gives that has described its model; it gets several tries."""
        for attempt in range(_TRIES - 1):
            with contextlib.suppress(errors.Unavailable), self._checking(server):
                return call(*args, self._patience.timeout)
            self._sleep(self._backoff(attempt))
        try:
            with self._checking(server):
                return call(*args, self._patience.timeout)
        except errors.Unavailable as error:
            raise errors.ServedTeacherError(
                f"The server {server.url} of {self._who!r} described its model and then failed: "
                f"{error}. Look at its log, and try again."
            ) from error

    @contextlib.contextmanager
    def _checking(self, server: Server) -> Iterator[None]:
        """What a server has wrong is an error of the user's arguments."""
        try:
            yield
        except errors.Unavailable:
            raise  # another try may succeed
        except errors.ServerError as error:
            raise ValueError(
                f"The server {server.url} cannot be a server of {self._who!r}: {error}."
            ) from error

    # The work.

    def ask(self, arrays: dict[str, np.ndarray], names: list[str]) -> dict[str, np.ndarray]:
        """The outputs for a batch, from the first server that gives a sound answer.

        Args:
            arrays: The inputs by name, in the types of the description.
            names: The outputs that are wanted.

        Raises:
            ServedTeacherError: None has for `give_up_after` seconds, or every one refuses the
                request.
        """
        if self._is_closed:
            raise errors.ServedTeacherError(
                f"The connections of {self._who!r} were closed. Make the teacher again."
            )
        with self._slots:
            return self._ask(arrays, names, self._clock())

    def _ask(self, arrays, names, begin):
        refusals: collections.Counter[Server] = collections.Counter()
        attempt = 0
        while True:
            left = begin + self._patience.give_up_after - self._clock()
            if left <= 0:
                raise self._gave_up()
            server = self._next(refusals, left)
            if server is None:
                self._sleep(min(self._until_trial(refusals), left))
                continue
            try:
                timeout = min(self._patience.timeout, left)
                found = server.ask(arrays, self.expected, names, timeout)
            except errors.ServerError as error:
                if self._is_refusal(server, error, left):
                    refusals[server] += 1
                if all(refusals[each] >= _REFUSALS for each in self._servers):
                    raise self._refused() from error
            else:
                server.circuit.succeed()
                return found
            with self._lock:
                self._retries += 1
            left = begin + self._patience.give_up_after - self._clock()
            self._sleep(max(min(self._backoff(attempt), left), 0.0))
            attempt += 1

    def _next(self, refusals, left):
        """The next server in turn that may be asked, or `None`."""
        turn = next(self._turn)
        for i in range(len(self._servers)):
            server = self._servers[(turn + i) % len(self._servers)]
            if refusals[server] >= _REFUSALS:
                continue
            if server.circuit.is_closed or self._comes_back(server, left):
                return server
        return None

    def _comes_back(self, server, left):
        """Whether a server that is due for a trial has the expected model again."""
        if not server.circuit.begin_trial():
            return False
        is_sound = False
        try:
            server.check(self.expected, min(self._patience.timeout, left))
            is_sound = True
        except errors.ServerError:
            return False  # noted by the server, and in the message when all fail
        finally:
            # In any case: a trial that never ends would keep the server out for good.
            server.circuit.end_trial(is_sound)
        return True

    def _is_refusal(self, server, error, left):
        """Whether a failure may be the request's fault; it is entered into the circuit."""
        if isinstance(error, errors.OtherModel):
            server.circuit.open()
            return False
        if isinstance(error, errors.Rejected):
            try:
                server.check(self.expected, min(self._patience.timeout, left))
            except errors.ServerError:
                server.circuit.fail()  # such as a model that is still being loaded
                return False
            return True
        server.circuit.fail()
        return isinstance(error, errors.UnsoundAnswer)

    def _until_trial(self, refusals):
        waits = [each.circuit.wait() for each in self._servers if refusals[each] < _REFUSALS]
        # A trial that another thread has begun ends at any moment.
        return max(min(waits, default=0.0), _BACKOFF)

    def _backoff(self, attempt):
        longest = min(_BACKOFF * 2 ** min(attempt, 20), _LONGEST_BACKOFF)
        return longest * self._jitter.uniform(0.5, 1.0)

    # What is said of it.

    def statistics(self) -> dict[str, Any]:
        """What was counted so far, in all and by server."""
        servers = {server.url: server.statistics() for server in self._servers}
        totals = {
            key: sum(each[key] for each in servers.values())
            for key in ("requests", "answers", "failures", "rows", "seconds", "circuit_openings")
        }
        return {**totals, "retries": self._retries, "servers": servers}

    def close(self) -> None:
        """Closes all connections; nothing can be asked after that."""
        self._is_closed = True
        for server in self._servers:
            server.close()

    def _gave_up(self):
        return errors.ServedTeacherError(
            f"No server of the teacher {self._who!r} has given a sound answer for "
            f"{self._patience.give_up_after:g} s (`give_up_after`):\n{self._reports()}\nStart one "
            "of them again and call fit again: with the callback keras.callbacks.BackupAndRestore "
            "it goes on where it was. Or pass the URLs of other servers."
        )

    def _refused(self):
        return errors.ServedTeacherError(
            f"Every server of the teacher {self._who!r} refuses a batch, or answers it unsoundly:"
            f"\n{self._reports()}\nThe batch or the model is at fault: look at the inputs "
            "(`preprocess`), at `max_batch`, and at the servers' logs."
        )

    def _reports(self):
        return "\n".join(f"- {server.report()}" for server in self._servers)

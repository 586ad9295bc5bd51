"""One server: its client, its circuit, and what is counted of it."""

import contextlib
import dataclasses
import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from keras_kd.teachers.served import description as descriptions
from keras_kd.teachers.served import errors
from keras_kd.teachers.served.circuit import Circuit
from keras_kd.teachers.served.description import ModelDescription

# Seconds after which a server is checked again even if nothing happened: a model can be replaced
# in a process that goes on.
_CHECK_EVERY = 30.0


@dataclasses.dataclass(frozen=True)
class Expected:
    """What every server must have.

    Args:
        description: Of the model.
        probe: The inputs of the probe batch by name.
        outputs: What the first server gave for it.
        tolerance: How far others may be from it: `largest_difference`.
    """

    description: ModelDescription
    probe: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    tolerance: float


class Server:
    """A server of a teacher; threads share it.

    Args:
        url: Its address.
        client: A client of its protocol.
        circuit: Its circuit.
        clock: A function that returns seconds.

    Attributes:
        last_failure: Its last failure in words, or `None`.
    """

    def __init__(
        self, url: str, client: Any, circuit: Circuit, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.url, self.circuit = url, circuit
        self._client, self._clock = client, clock
        self._lock = threading.Lock()
        self._requests = self._answers = self._failures = self._rows = 0
        self._seconds = self._slowest = 0.0
        self._checking = threading.Lock()
        # Of the last check: how many connections there were, and when it was.
        self._checked_connections: int | None = None
        self._checked_at = -math.inf
        self.last_failure: str | None = None
        self._failed_at: float | None = None

    def describe(self, timeout: float) -> ModelDescription:
        """What it says of its model."""
        with self._noting():
            return self._client.describe(timeout)

    def ask(
        self,
        arrays: dict[str, np.ndarray],
        expected: Expected,
        names: list[str],
        timeout: float,
    ) -> dict[str, np.ndarray]:
        """The outputs of its model for a batch, checked.

        Where the server may be another process than the one that was checked it is checked before
        its answer counts: after a request that failed, over a new connection, and now and then.

        Args:
            arrays: The inputs by name.
            expected: What the server must have.
            names: The outputs that are wanted.
            timeout: Of each request, in seconds.

        Raises:
            ServerError: There is no sound answer.
        """
        self._check_where_due(expected, timeout)
        rows = len(next(iter(arrays.values())))
        begin = self._clock()
        try:
            with self._noting():
                description = expected.description
                answer = self._client.predict(arrays, description, names, timeout)
                found = descriptions.check_answer(answer, description, names, rows)
        finally:
            seconds = self._clock() - begin
            with self._lock:
                self._requests += 1
                self._seconds += seconds
        self._check_where_due(expected, timeout)
        with self._lock:
            self._answers += 1
            self._rows += rows
            self._slowest = max(self._slowest, seconds)
        return found

    def _check_where_due(self, expected, timeout):
        with self._checking:
            if not self._is_due():
                return
            try:
                self.check(expected, timeout)
            except (errors.Rejected, errors.UnsoundAnswer) as error:
                # The probe batch failed, not the batch that is asked for.
                raise errors.Unavailable(f"for the probe batch: {error}") from error

    def _is_due(self):
        is_new = self._client.connections != self._checked_connections
        return is_new or self._clock() - self._checked_at > _CHECK_EVERY

    def probe(
        self, description: ModelDescription, arrays: dict[str, np.ndarray], timeout: float
    ) -> tuple[ModelDescription, dict[str, np.ndarray]]:
        """`(description, outputs)` for the probe batch; the answer may have the version.

        Args:
            description: Of the model that is expected.
            arrays: The probe batch.
            timeout: In seconds.
        """
        names = [info.name for info in description.outputs]
        rows = len(next(iter(arrays.values())))
        with self._noting():
            answer = self._client.predict(arrays, description, names, timeout)
            outputs = descriptions.check_answer(answer, description, names, rows)
        version = description.version or answer.version
        return dataclasses.replace(description, version=version), outputs

    def check(self, expected: Expected, timeout: float) -> None:
        """Raises unless it has the expected model, by its description and for the probe batch."""
        connections = self._client.connections
        found = self.describe(timeout)
        with self._noting():
            differences = expected.description.differences(found)
            if differences:
                raise errors.OtherModel(f"it has another model: {'; '.join(differences)}")
        _, outputs = self.probe(expected.description, expected.probe, timeout)
        with self._noting():
            off = descriptions.largest_difference(outputs, expected.outputs)
            if not off <= expected.tolerance:
                raise errors.OtherModel(
                    "it has a model of the same name and version that gives other numbers: for "
                    f"the probe batch they are off by {off:.3g} of the largest, where "
                    f"{expected.tolerance:.3g} is tolerated (`tolerance`)"
                )
        self._checked_connections, self._checked_at = connections, self._clock()

    def statistics(self) -> dict[str, Any]:
        """What was counted so far."""
        with self._lock:
            return {
                "requests": self._requests,
                "answers": self._answers,
                "failures": self._failures,
                "rows": self._rows,
                "seconds": self._seconds,
                "seconds_slowest": self._slowest,
                "circuit": self.circuit.state,
                "circuit_openings": self.circuit.openings,
                "last_failure": self.last_failure,
            }

    def report(self) -> str:
        """In one line, how it stands."""
        with self._lock:
            if self.last_failure is None or self._failed_at is None:
                return f"{self.url}: it was not asked"
            ago = self._clock() - self._failed_at
            return f"{self.url}: {self.last_failure} ({ago:.0f} s ago, {self._failures} failures)"

    def close(self) -> None:
        """Closes its connections."""
        self._client.close()

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except errors.ServerError as error:
            with self._lock:
                self._failures += 1
                self.last_failure, self._failed_at = str(error), self._clock()
                # Whatever it was, the next answer may come from another process.
                self._checked_connections = None
            raise

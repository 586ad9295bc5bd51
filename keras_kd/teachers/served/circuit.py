"""A circuit breaker: a server that fails is left alone for a while."""

import threading
import time
from collections.abc import Callable

# The pause doubles with each trial that fails, up to this many times the first one.
_LONGEST = 16


class Circuit:
    """Whether a server is asked: closed (yes), open (no), half-open (one trial decides).

    Args:
        failures: Failures in a row that open it.
        pause: Seconds until the first trial.
        clock: A function that returns seconds.

    Attributes:
        openings: How often it has opened.
    """

    def __init__(
        self, failures: int, pause: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most, self._first_pause, self._clock = failures, pause, clock
        self._lock = threading.Lock()
        self._failures, self._pause = 0, pause
        self._trial_at: float | None = None  # None: closed
        self._in_trial = False
        self.openings = 0

    @property
    def state(self) -> str:
        """`"closed"`, `"open"` or `"half-open"`."""
        if self._trial_at is None:
            return "closed"
        return "half-open" if self._in_trial else "open"

    @property
    def is_closed(self) -> bool:
        """Whether the server may be asked."""
        return self._trial_at is None

    def wait(self) -> float:
        """Seconds until a trial may begin; 0: now."""
        trial_at = self._trial_at
        return 0.0 if trial_at is None else max(trial_at - self._clock(), 0.0)

    def begin_trial(self) -> bool:
        """Whether the caller is the one that tries the server now."""
        with self._lock:
            if self._trial_at is None or self._in_trial or self._clock() < self._trial_at:
                return False
            self._in_trial = True
            return True

    def end_trial(self, is_sound: bool) -> None:
        """The trial has ended: the circuit is closed, or open for twice as long."""
        with self._lock:
            self._in_trial = False
            if is_sound:
                self._trial_at, self._failures = None, 0
            else:
                self._pause = min(2 * self._pause, _LONGEST * self._first_pause)
                self._open()

    def succeed(self) -> None:
        """The server has answered."""
        with self._lock:
            self._failures = 0

    def fail(self) -> None:
        """The server has failed: the circuit opens where that was one time too many."""
        with self._lock:
            self._failures += 1
            # Where it is open already this was a request that had begun before.
            if self._trial_at is None and self._failures >= self._most:
                self._pause = self._first_pause
                self._open()

    def open(self) -> None:
        """Opens it at once, as for a server that has another model."""
        with self._lock:
            if self._trial_at is None:
                self._pause = self._first_pause
                self._open()

    def _open(self) -> None:
        self._trial_at, self._failures = self._clock() + self._pause, 0
        self.openings += 1

"""How long one run takes on this CPU."""

import contextlib
import gc
import time

import numpy as np

# Between the runs of a fast model nothing is printed: only what lasts longer is told of.
_SECONDS_BETWEEN_UPDATES = 0.5


def measure(call, warmup, runs, bar=None):
    """Times a function, one run after the other.

    Args:
        call: What is timed; it returns when its work is done.
        warmup: Runs before, which are not counted.
        runs: Runs that are.
        bar: A `progress.Bar` of all runs, or `None`.

    Returns:
        `{"warmup", "runs", "median_us", "p95_us"}`, microseconds.
    """
    told = _Rarely(bar)
    for _ in range(warmup):
        told.run(_seconds(call))
    seconds = []
    with _without_collector():
        for _ in range(runs):
            seconds.append(_seconds(call))
            told.run(seconds[-1])
    told.end()
    median, slow = np.percentile(seconds, [50, 95]) * 1e6
    return {"warmup": warmup, "runs": runs, "median_us": float(median), "p95_us": float(slow)}


class _Rarely:
    """Updates a bar so seldom that it is no part of what is timed.

    Args:
        bar: A `progress.Bar` or `None`.
    """

    def __init__(self, bar):
        self._bar, self._done, self._since, self._is_seen = bar, 0, 0.0, False

    def run(self, seconds):
        """One run more is done, which took so long."""
        self._done += 1
        if self._done > 1:  # the first one may trace and allocate
            self._since += seconds
        if self._since >= _SECONDS_BETWEEN_UPDATES and self._bar is not None:
            self._bar.update(self._done)
            self._since, self._is_seen = 0.0, True

    def end(self):
        if self._is_seen:
            self._bar.update(self._done)
            self._bar.end()


def _seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@contextlib.contextmanager
def _without_collector():
    # A collection takes longer than a run of a small model, whose it is not.
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()

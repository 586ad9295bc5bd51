"""How long one run takes on this CPU."""

import contextlib
import gc
import time

import numpy as np


def measure(call, warmup, runs):
    """Times a function, one run after the other.

    Args:
        call: What is timed; it returns when its work is done.
        warmup: Runs before, which are not counted.
        runs: Runs that are.

    Returns:
        `{"warmup", "runs", "median_us", "p95_us"}`, microseconds.
    """
    for _ in range(warmup):
        call()
    with _without_collector():
        seconds = [_seconds(call) for _ in range(runs)]
    median, slow = np.percentile(seconds, [50, 95]) * 1e6
    return {"warmup": warmup, "runs": runs, "median_us": float(median), "p95_us": float(slow)}


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

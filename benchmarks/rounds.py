"""Times things in turns, so that what else the machine does disturbs all of them alike."""

import gc
import statistics
import time


def measure(calls, repeats):
    """Returns a list of rounds, each {what: seconds of an epoch}."""
    for call in calls.values():
        call()  # builds, traces and fills the cache of tf.data
    rounds = []
    for index in range(repeats):
        order = list(calls) if index % 2 else list(reversed(calls))
        rounds.append({what: seconds(calls[what]) for what in order})
    return rounds


def seconds(call):
    gc.collect()  # here, not inside whichever is timed when it is due
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def median(rounds, value):
    return statistics.median(value(found) for found in rounds)

"""A call of `kd.ops.numpy` on small arrays through both bindings: microseconds, medians.

    python benchmarks/bindings.py

The kernel itself takes below a microsecond on the smallest of them: the rest is what the binding
needs to check the arguments and to make the results. Rounds take turns, so that a machine that gets
slower does so for both.
"""

import statistics
import timeit

import numpy as np

from keras_kd.ops.backends import ctypes, extension

ROUNDS, SECONDS = 25, 0.02
SHAPES = ((1, 10), (8, 100), (32, 1000))


def calls():
    """`(name, call of a binding)`."""
    rng = np.random.default_rng(0)
    for shape in SHAPES:
        student, teacher = rng.normal(size=(2, *shape)).astype("float32")
        labels, weight = np.zeros(shape[0], np.int64), np.ones(shape[0], np.float32)
        size = "x".join(map(str, shape))
        yield f"soft {size}", lambda b, s=student, t=teacher: b.soft_target_loss(s, t, 4.0)
        yield (
            f"soft {size}, weights, gradient",
            lambda b, s=student, t=teacher, w=weight: b.soft_target_loss(
                s, t, 4.0, sample_weight=w, gradient=True
            ),
        )
        yield (
            f"hard and soft {size}, gradient",
            lambda b, s=student, t=teacher, n=labels: b.hard_and_soft_loss(
                s, t, n, 4.0, gradient=True
            ),
        )


def microseconds(call, bindings):
    """The median time of a call for each binding."""
    timers = [timeit.Timer(lambda binding=binding: call(binding)) for binding in bindings]
    counts = [max(1, round(SECONDS / (timer.timeit(100) / 100))) for timer in timers]
    rounds = [
        [timer.timeit(count) / count for timer, count in zip(timers, counts, strict=True)]
        for _ in range(ROUNDS)
    ]
    return [1e6 * statistics.median(times) for times in zip(*rounds, strict=True)]


def main():
    bindings = extension.load(), ctypes
    ctypes.set_num_threads(1)
    print(f"{'call':<38} {'pybind11':>9} {'ctypes':>9}   ratio")
    for name, call in calls():
        module, other = microseconds(call, bindings)
        print(f"{name:<38} {module:>6.1f} us {other:>6.1f} us {other / module:>7.1f}")


if __name__ == "__main__":
    main()

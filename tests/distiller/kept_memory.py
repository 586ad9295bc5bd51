"""What distillers leave behind that were made and dropped, in bytes: a module of its own process.

`python -m tests.distiller.kept_memory FILE` writes JSON.
"""

import gc
import json
import pathlib
import sys

import keras
import tensorflow as tf

import keras_kd as kd

# Enough to tell a graph that is kept (0.2 MB and more) from what the allocator rounds: what 40 seem
# to keep is a third of that with 200.
COUNT = 100


def network(width):
    hidden = keras.layers.Dense(width, "relu", name="hidden")
    return keras.Sequential([keras.Input((8,)), hidden, keras.layers.Dense(5)])


def used():
    gc.collect()
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def kept_by(make):
    """Bytes that each call of `make` leaves, once the first ones have made what is shared."""
    for _ in range(10):
        make()
    before = used()
    for _ in range(COUNT):
        make()
    return (used() - before) / COUNT


def kept():
    teacher, student = network(16), network(4)
    a, b = tf.random.normal([2, 4, 10])
    labels = tf.constant([1, 2, 3, 4])
    traced = tf.function(lambda: kd.ops.soft_target_loss(a, b, 2.0))

    def operations():
        with tf.GradientTape() as tape:
            tape.watch(a)
            loss = kd.ops.combined_loss(a, b, labels, 0.1, 0.9, temperature=2.0)[0]
        tape.gradient(loss, a)
        kd.ops.hard_and_soft_loss(a, b, labels)
        traced()

    def new_trace(loss_of):
        @tf.function
        def gradient(a, b):
            with tf.GradientTape() as tape:
                tape.watch(a)
                loss = tf.reduce_sum(loss_of(a, b))
            return tape.gradient(loss, a)

        gradient(a, b)

    return {
        "plain": kept_by(lambda: new_trace(lambda a, b: tf.square(a - b))),
        "traced": kept_by(lambda: new_trace(lambda a, b: kd.ops.soft_target_loss(a, b, 2.0))),
        "networks": kept_by(lambda: (network(16), network(4))),
        "distiller": kept_by(lambda: kd.Distiller(teacher, student)),
        "new": kept_by(lambda: kd.Distiller(network(16), network(4))),
        "mutual": kept_by(lambda: kd.MutualDistiller([teacher, student])),
        "calls": kept_by(lambda: [operations() for _ in range(10)]) / 10,
    }


if __name__ == "__main__":
    pathlib.Path(sys.argv[1]).write_text(json.dumps(kept()))

"""What the tests let workers do; imported there too."""

import os
import pathlib
import signal
import time

import keras
import numpy as np
import tensorflow as tf

import keras_kd as kd
from tests.distribution import scenarios, teacher_scenarios

ROWS, BATCH, EPOCHS = 71, 16, 3
STEPS = EPOCHS * -(-ROWS // BATCH)
SCENARIOS = ["host", "cached_hint"]


@scenarios.scenario
def cached_hint(strategy):
    return teacher_scenarios.cached(strategy, teacher_scenarios.FORMS[:1])


def compare(worker, folder):
    """The scenarios that one process runs as well, and a training that nothing disturbs."""
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    assert strategy.num_replicas_in_sync == worker.count == 2
    results = scenarios.run_all(SCENARIOS, strategy)
    return results | {"undisturbed": train(strategy, folder, [])}


def train(strategy, folder, callbacks, keep=False):
    """Weights and history of a training with dropout that is backed up after each other batch."""
    backup = keras.callbacks.BackupAndRestore(folder, save_freq=2, delete_checkpoint=not keep)
    return train_with(strategy, [backup, *callbacks])


def train_with(strategy, callbacks):
    keras.utils.set_random_seed(0)

    def models():
        inputs = keras.Input((scenarios.FEATURES,))
        hidden = keras.layers.Dropout(0.3)(keras.layers.Dense(6, activation="relu")(inputs))
        student = keras.Model(inputs, keras.layers.Dense(scenarios.CLASSES)(hidden))
        return scenarios.network(8), student

    distiller = scenarios.distiller_for(strategy, models, optimizer="adam", metrics=["accuracy"])
    temperature = kd.callbacks.TemperatureSchedule(5.0, 1.0)
    x, y, _ = scenarios.data(ROWS)
    return scenarios.train(distiller, x, y, epochs=EPOCHS, callbacks=[temperature, *callbacks])


def train_and_die(worker, folder, kills):
    """The training; in each attempt one worker ends itself after so many batches.

    Args:
        worker: The `kd.scale.Worker`.
        folder: Of the backup.
        kills: For each attempt the worker and the batch, counted over all epochs.
    """
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    deaths = [
        Death(step)
        for index, step in kills[worker.attempt : worker.attempt + 1]
        if index == worker.index
    ]
    return train(strategy, folder, deaths)


class Death(keras.callbacks.Callback):
    """Ends its process by SIGKILL after a batch."""

    def __init__(self, step):
        super().__init__()
        self._step, self._epoch = step, 0

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self._epoch * (STEPS // EPOCHS) + batch == self._step:
            os.kill(os.getpid(), signal.SIGKILL)


def raise_in_step(worker, folder):
    """Worker 1 raises while worker 0 waits for its gradients."""

    class Fault(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if worker.index == 1 and batch == 2:
                print("the last words of worker", worker.index)
                raise KeyError("of worker 1 only")

    (pathlib.Path(folder) / f"{worker.index}-{worker.attempt}").touch()
    return train(tf.distribute.MultiWorkerMirroredStrategy(), os.path.join(folder, "b"), [Fault()])


def end_badly(worker):
    """Hangs, ends the process that holds it, ends itself."""
    worker.alive()
    print("attempt", worker.attempt, flush=True)
    if worker.attempt == 0:
        time.sleep(600)
    if worker.attempt == 1:
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(600)
    os._exit(3)


def refused(worker, folder):
    """What `fit` says to workers that have a folder each, and to one that backs up alone."""
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    own = os.path.join(folder, str(worker.index))
    backup = keras.callbacks.BackupAndRestore(os.path.join(folder, "alone"))
    messages = []
    for train_wrongly in (
        lambda: train(strategy, own, [], keep=True),
        lambda: train_with(strategy, [backup] if worker.is_chief else []),
    ):
        try:
            train_wrongly()
        except ValueError as error:
            messages.append(str(error))
    return messages


def place(worker):
    """The place of a worker, as it is given and as it finds it."""
    found = kd.scale.from_environment()
    return worker.index, found == worker, os.environ["OWN"], np.arange(worker.count)

"""`LogHyperparameters`: the numbers of the objective, for the history and experiment trackers."""

import itertools
from typing import Any

import keras

from keras_kd.training import tracking
from keras_kd.training.base import DistillationModel

_OF_KERAS = (
    keras.callbacks.CSVLogger,
    keras.callbacks.RemoteMonitor,
    keras.callbacks.TensorBoard,
)
_PACKAGES = ("mlflow", "wandb")


class LogHyperparameters(keras.callbacks.Callback):
    """Puts the numbers of the objective into the logs of each epoch.

    Keras hands the logs of an epoch from callback to callback, in their order. So list it before
    the tracker: `callbacks=[LogHyperparameters(), TensorBoard(...)]`. The tracker and the history
    then get:

    - `alpha`, `beta`, and `<loss>_weight` of each distillation loss;
    - `temperature`, where one loss has one, else `<loss>.temperature` of each; other numbers of a
      loss alike (`curriculum_temperature.reversal`);
    - `ema_decay`, where the teacher is a `keras_kd.teachers.EMA`;
    - `learning_rate`, that of the next step; with peers `<peer>_learning_rate`.

    The names are those of the schedules. The numbers are those at the end of the epoch; what
    another callback has logged before stays. Works on a `Distiller` and a `MutualDistiller`.

    Raises:
        ValueError: In `fit`: the model is no distiller, or a tracker of Keras, MLflow or Weights &
            Biases is listed before it.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_kd as kd

    x, y = np.random.normal(size=(64, 8)), np.random.randint(10, size=64)
    teacher = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    student = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    distiller = kd.Distiller(teacher, student, alpha=0.1, beta=0.9)
    distiller.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    tracker = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: print(epoch, logs))
    callbacks = [kd.callbacks.LogHyperparameters(), tracker]
    history = distiller.fit(x, y, epochs=2, callbacks=callbacks, verbose=0).history
    assert history["temperature"] == [4.0, 4.0] and history["beta"] == [0.9, 0.9]
    ```
    """

    # It gives the student nothing to learn from: see `training.fit`.
    only_watches = True

    def prepare(self, distiller: Any, callbacks: list[Any]) -> None:
        """Checks the callbacks beside it; called by `fit`."""
        del distiller
        check_before_trackers(self, callbacks)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if not isinstance(self.model, DistillationModel):
            raise ValueError(
                "LogHyperparameters logs the numbers of a keras_kd.Distiller or MutualDistiller. "
                f"Received: a model of type {type(self.model).__name__}. Pass it to the fit of the "
                "distiller."
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is not None:
            logs.update({**tracking.numbers_of(self.model), **logs})


def check_before_trackers(callback: Any, callbacks: list[Any]) -> None:
    """Raises if a tracker is listed before a callback that logs: it would not see the numbers."""
    for other in itertools.takewhile(lambda each: each is not callback, callbacks):
        package = type(other).__module__.partition(".")[0]
        if isinstance(other, _OF_KERAS) or package in _PACKAGES:
            name, tracker = type(callback).__name__, type(other).__name__
            raise ValueError(
                f"{tracker} is listed before {name}, so it would not get what {name} logs: Keras "
                f"hands the logs on in the order of the callbacks. List {name} first."
            )

"""`LossList`: the distillation losses of a distiller, with the metric that reports each."""

import keras

from keras_kd import user_warnings
from keras_kd.taps import paths


class LossList(keras.layers.Layer):
    """A layer that only holds layers: Keras locks a built model, but hints may join it later.

    Args:
        losses: `DistillationLoss`es.
    """

    def __init__(self, losses):
        super().__init__(name="distillation_losses", dtype="float32", autocast=False)
        self.losses_in_order, self.trackers = [], []
        for loss in losses:
            self.add(loss)
        self.built = True

    def add(self, loss):
        """Adds a loss and its metric, named by it."""
        _warn_of_trained(loss)
        loss.has_distiller = True
        repeated = sum(other.name == loss.name for other in self.losses_in_order)
        name = f"{loss.name}_{repeated}" if repeated else loss.name
        self.losses_in_order.append(loss)
        self.trackers.append(keras.metrics.Mean(name=name))

    @property
    def by_name(self):
        """The losses by their names in the history, which are counted where losses share one."""
        names = (tracker.name for tracker in self.trackers)
        return dict(zip(names, self.losses_in_order, strict=True))

    def penalises_outputs(self):
        """Whether a layer of theirs, such as a projector, has an activity regulariser."""
        regularisers = (
            getattr(layer, "activity_regularizer", None) for _, _, layer in paths.walk(self)
        )
        return any(each is not None for each in regularisers)

    def remove_last(self):
        """Takes the last loss back."""
        self.losses_in_order.pop().has_distiller = False
        self.trackers.pop()

    def call(self, inputs):
        return inputs


def _warn_of_trained(loss):
    """A projector that another training has made is no fresh start: seeds would not be apart."""
    if loss.has_distiller and loss.trainable_variables:
        user_warnings.warn(
            f"Distillation loss {loss.name!r} has weights of another distiller, and both will "
            "train them. For weights of its own make a new loss for each distiller: "
            "loss.from_config(loss.get_config())."
        )

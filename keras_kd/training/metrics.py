"""What a distiller reports of its losses: their means, their names, who may be called so."""

from typing import Any

import keras

from keras_kd._utils import validation
from keras_kd.models import paths
from keras_kd.training import distribution


class LossMetrics:
    """Means of the total, of the hard loss and of each distillation loss, weighted by batch size.

    Args:
        losses: The `LossList`.
        hard: The metric of the hard loss.
        weighted_sum: The metric of the weighted sum of the distillation losses, or `None`.
        tokens: `TokenMetrics` of a language model whose logits are left out, or `None`.

    Attributes:
        has_terms: Whether the steps compute the losses that are reported beside the total; not
            where a subclass's `compute_loss` computes all of it.
    """

    def __init__(
        self,
        losses: "LossList",
        hard: keras.Metric,
        weighted_sum: keras.Metric | None,
        tokens: Any = None,
    ):
        self._losses, self._hard, self._weighted_sum = losses, hard, weighted_sum
        self._tokens = tokens
        self.has_terms = True

    @property
    def names(self) -> set[str]:
        """What the entries of the losses in the history are called, but for `loss`."""
        found = {tracker.name for tracker in (self._hard, *self._losses.trackers)}
        return found if self._weighted_sum is None else {*found, *OF_KERAS}

    def update(self, total: keras.Metric, step: Any, loss: Any) -> None:
        """Updates the means with a step.

        Args:
            total: The metric of the total, which Keras makes.
            step: The `step.RunningStep`.
            loss: What `compute_loss` gave, which a subclass may have overridden.
        """
        terms, rows, replicas = step.terms, step.rows, distribution.count()
        self.has_terms = terms is not None
        if terms is None:
            total.update_state(replicas * loss, sample_weight=rows)
            return
        value = keras.ops.sum([terms.total, *step.regularizers])
        if loss is not step.loss:
            value += replicas * (loss - step.loss)
        total.update_state(value, sample_weight=rows)
        self._hard.update_state(terms.hard, sample_weight=rows)
        if self._tokens is not None and terms.tokens is not None:
            self._tokens.update(terms.tokens)
        for tracker, value in zip(self._losses.trackers, terms.soft, strict=False):
            tracker.update_state(value, sample_weight=rows)
        if self._weighted_sum is not None and terms.soft:
            weights = [loss.weight_variable for loss in self._losses.losses_in_order]
            pairs = zip(weights, terms.soft, strict=True)
            parts = [keras.ops.convert_to_tensor(weight) * value for weight, value in pairs]
            self._weighted_sum.update_state(keras.ops.sum(parts), sample_weight=rows)

    def without_losses(self, logs: dict) -> dict:
        """Logs without the entries of the losses."""
        return {key: value for key, value in logs.items() if key not in self.names}

    def in_all_names(self, logs: dict) -> dict:
        """Logs of all that was computed, in the names of `keras.distillation` too."""
        if self._weighted_sum is not None and "hard_loss" in logs:
            logs = {**logs, "total_loss": logs["loss"], "student_loss": logs["hard_loss"]}
        return logs if self.has_terms else self.without_losses(logs)


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

    def penalizes_outputs(self):
        """Whether a layer of theirs, such as a projector, has an activity regularizer."""
        regularizers = (
            getattr(layer, "activity_regularizer", None) for _, _, layer in paths.walk(self)
        )
        return any(each is not None for each in regularizers)

    def remove_last(self):
        """Takes the last loss back."""
        self.losses_in_order.pop().has_distiller = False
        self.trackers.pop()

    def call(self, inputs):
        return inputs


def _warn_of_trained(loss):
    """A projector that another training has made is no fresh start: seeds would not be apart."""
    if loss.has_distiller and loss.trainable_variables:
        validation.warn(
            f"Distillation loss {loss.name!r} has weights of another distiller, and both will "
            "train them. For weights of its own make a new loss for each distiller: "
            "loss.from_config(loss.get_config())."
        )


# What `keras.distillation.Distiller` calls its losses, which its users monitor.
OF_KERAS = ("total_loss", "student_loss", "distillation_loss")


def uses_keras_names(losses, student_loss_weight):
    """Whether a distiller was spelled as `keras.distillation.Distiller` is.

    Args:
        losses: As its argument `distillation_losses`.
        student_loss_weight: As its argument of this name.
    """
    given = losses if isinstance(losses, (list, tuple)) else [losses]
    of_keras = any(isinstance(loss, keras.distillation.DistillationLoss) for loss in given)
    return of_keras or student_loss_weight is not None


def check_names(metrics, losses, output_names):
    """Refuses a metric that would take the place of a loss in the history.

    Args:
        metrics: What `compile` was given: metrics, functions or names, in any structure.
        losses: The names of the losses.
        output_names: The student's; of several, Keras puts them before the names of metrics.

    Raises:
        ValueError: Two would have one entry.
    """
    if output_names and len(output_names) > 1:
        return
    taken = sorted({_name(metric) for metric in keras.tree.flatten(metrics)} & {*losses, "loss"})
    if taken:
        raise ValueError(
            f"A metric is called {taken[0]!r}, and so is a loss of the distiller: the history has "
            "one entry for both. Give the metric another name, or the distillation loss one by its "
            "argument `name`."
        )


def _name(metric):
    if metric is None or isinstance(metric, str):
        return metric
    return getattr(metric, "name", getattr(metric, "__name__", None))

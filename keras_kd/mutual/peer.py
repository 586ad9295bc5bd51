"""`Peer`: one of the models that teach each other, with what trains it."""

import keras
import tensorflow as tf

from keras_kd import by_output, models, objective, padded_outputs, replicas, unlabelled
from keras_kd.learner import Learner


class Peer(Learner):
    """A `Learner` that knows the terms of its loss.

    Args:
        model: The `keras.Model` to train.
        loss: The `DistillationLoss` between peers.
        name: What the peer's entries in the history begin with.
    """

    def __init__(self, model, loss, name):
        super().__init__(model, name=name, padding=padded_outputs.named_by([loss]))
        self._hard_tracker = keras.metrics.Mean(name="hard_loss")
        self._soft_tracker = keras.metrics.Mean(name=loss.name)

    def study(self, x, training):
        """The model's `Outputs` for a batch, from its one forward pass."""
        outputs = self.model(models.own_inputs(self.model, x), training=training)
        outputs = self._with_masks(outputs, x)
        inputs = models.named_inputs(self.model, x)
        return objective.Outputs(outputs, {}, models.output_names(self.model, outputs), inputs)

    def terms(self, own, teachers, loss, batch, mixture):
        """The `Terms` of a batch.

        Args:
            own: This peer's `Outputs`.
            teachers: `(factor, (peer, Outputs))` of each that teaches this one.
            loss: The `DistillationLoss`.
            batch: A `Batch`.
            mixture: `alpha` and `beta`, scalars.
        """
        alpha, beta = mixture
        rows = objective.rows_of(own.inputs)
        labels, weight = batch.labels, batch.sample_weight
        balance = objective.hard_balance(self.loss, labels, own.outputs, weight, rows)
        hard = balance * self.hard_loss(labels, own.outputs, weight)
        soft = tf.zeros(())
        for factor, teacher in teachers:
            means, counts = objective.means_of(loss, self.taught_by(*teacher, own), own, batch)
            soft += factor * objective.balanced(loss, means, counts, own, rows)
        factor = beta * keras.ops.convert_to_tensor(loss.weight_variable)
        return objective.Terms(alpha * hard + factor * soft, hard, [soft])

    def taught_by(self, peer, its, own):
        """The outputs of a peer as a teacher of this one: no gradient flows to it."""
        fixed = keras.tree.map_structure(tf.stop_gradient, its.outputs)
        names = [by_output.given_names(each.model) for each in (peer, self)]
        aligned = by_output.aligned(fixed, names[0], own.outputs, names[1])
        return objective.Outputs(aligned, {}, own.names, role="teacher")

    def regularisers(self):
        """The losses that the model's layers add, of its last forward pass."""
        return self.sums_of(self.model.losses)

    def scaled(self, terms, regularisers, rows):
        """What is differentiated."""
        return self.optimizer.scale_loss(replicas.part_of_global(terms.total, rows, regularisers))

    def track(self, terms, regularisers, own, batch):
        """Updates this peer's metrics; returns its whole loss."""
        rows = objective.rows_of(own.inputs)
        total = keras.ops.sum([terms.total, *regularisers])
        tracker = next(metric for metric in self.metrics if metric.name == "loss")
        for metric, value in (
            (tracker, total),
            (self._hard_tracker, terms.hard),
            *((self._soft_tracker, value) for value in terms.soft),
        ):
            metric.update_state(value, sample_weight=rows)
        if batch.labels is not None:
            self.compute_metrics(own.inputs, batch.labels, own.outputs, batch.sample_weight)
        return total

    def results(self, evaluating, has_labels):
        """This peer's entries of the logs; without what an evaluation does not compute.

        Args:
            evaluating: Whether an evaluation runs.
            has_labels: Whether the data that is trained on has any; `None`: not known.
        """
        left_out = (self._hard_tracker.name, self._soft_tracker.name) if evaluating else ()
        is_blind = has_labels is False and not evaluating
        values = unlabelled.results(self) if is_blind else self.get_metrics_result()
        return {f"{self.name}_{key}": v for key, v in values.items() if key not in left_out}

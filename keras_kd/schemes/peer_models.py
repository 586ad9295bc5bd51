"""`Peer`: one of the models that teach each other, with what trains it."""

import itertools

import keras
import numpy as np
import tensorflow as tf

from keras_kd import models
from keras_kd._utils.validation import invalid
from keras_kd.losses import DistillationLoss, SoftTargets
from keras_kd.models import cloning, matching
from keras_kd.training import distribution, labels, objective, padding_masks, supervised
from keras_kd.training.forward import Outputs
from keras_kd.training.supervised import SupervisedModel


class Peer(SupervisedModel):
    """A `SupervisedModel` that knows the terms of its loss.

    Args:
        model: The `keras.Model` to train.
        loss: The `DistillationLoss` between peers.
        name: What the peer's entries in the history begin with.
    """

    def __init__(self, model, loss, name):
        super().__init__(model, name=name, padding=padding_masks.named_by([loss]))
        self._hard_tracker = keras.metrics.Mean(name="hard_loss")
        self._soft_tracker = keras.metrics.Mean(name=loss.name)

    def student_forward(self, x, training):
        """The model's `Outputs` for a batch, from its one forward pass."""
        outputs = self.model(models.own_inputs(self.model, x), training=training)
        outputs = self.with_masks(outputs, x)
        inputs = models.named_inputs(self.model, x)
        return Outputs(outputs, {}, models.output_names(self.model, outputs), inputs)

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
        hard = balance * self.supervised_loss(labels, own.outputs, weight)
        soft = tf.zeros(())
        for factor, (peer, its) in teachers:
            means, counts = objective.means_of(loss, self.taught_by(peer, its, own), own, batch)
            soft += factor * objective.balanced(loss, means, counts, own, rows)
        factor = beta * keras.ops.convert_to_tensor(loss.weight_variable)
        return objective.Terms(alpha * hard + factor * soft, hard, [soft])

    def taught_by(self, peer, its, own):
        """The outputs of a peer as a teacher of this one: no gradient flows to it."""
        fixed = keras.tree.map_structure(tf.stop_gradient, its.outputs)
        names = [matching.given_names(each.model) for each in (peer, self)]
        aligned = matching.align_outputs(fixed, names[0], own.outputs, names[1])
        return Outputs(aligned, {}, own.names, role="teacher")

    def regularizers(self):
        """The losses that the model's layers add, of its last forward pass."""
        return supervised.sums_of(self.model.losses)

    def scaled(self, terms, regularizers, rows):
        """What is differentiated."""
        return self.optimizer.scale_loss(
            distribution.part_of_global(terms.total, rows, regularizers)
        )

    def track(self, terms, regularizers, own, batch):
        """Updates this peer's metrics; returns its whole loss."""
        rows = objective.rows_of(own.inputs)
        total = keras.ops.sum([terms.total, *regularizers])
        for metric, value in (
            (self.total_metric, total),
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
        values = labels.results(self) if is_blind else self.get_metrics_result()
        return {f"{self.name}_{key}": v for key, v in values.items() if key not in left_out}


# Makes the arguments of `MutualDistiller` uniform, or says what is wrong with them.


def check_peers(peers):
    """Returns them as a list, or raises."""
    if not isinstance(peers, (list, tuple)) or len(peers) < 2:
        raise invalid("peers", "a list of at least two keras.Models", repr(peers))
    for i, peer in enumerate(peers):
        if not isinstance(peer, keras.Model):
            raise invalid(f"peers[{i}]", "a keras.Model", f"{peer!r} of type {type(peer).__name__}")
        if not peer.built:
            raise ValueError(
                f"Peer {i} ({peer.name!r}) has no weights yet. Give it an Input, or call it on a "
                "batch once, before it is made a peer."
            )
    for (i, one), (j, other) in itertools.combinations(enumerate(peers), 2):
        if one is other:
            raise ValueError(f"Peers {i} and {j} are the same model; it would teach itself.")
        models.check_shared_weights(one, other, f"Peers {i} and {j}")
        _check_shapes((i, one), (j, other))
    return list(peers)


def _check_shapes(one, other):
    shapes = [models.output_shapes(model) for _, model in (one, other)]
    first, second = shapes
    # A model that was called has the batch that it was called on in its shapes.
    if first is None or second is None or [x[1:] for x in first] == [x[1:] for x in second]:
        return
    raise ValueError(
        f"Peers {one[0]} and {other[0]} have outputs of different shapes: {shapes[0]} and "
        f"{shapes[1]}. Peers need the same classes, in the same order."
    )


def names(peers):
    """What the peers' entries in the history begin with: names that the user gave, or numbers.

    Keras numbers the models of a process; those numbers would make other entries in each run.
    """
    given = [peer.name for peer in peers]
    automatic = any(matching.is_counted(peer, peer.name) for peer in peers)
    is_clear = len(set(given)) == len(given) and not automatic and "val" not in given
    return given if is_clear else [f"peer_{i}" for i in range(len(peers))]


def distillation_loss(loss, peers):
    """The loss between two peers' outputs, or raises."""
    loss = SoftTargets(temperature=1.0) if loss is None else loss
    if not isinstance(loss, DistillationLoss):
        raise invalid("distillation_loss", "one keras_kd.losses.DistillationLoss", repr(loss))
    if loss.teacher_layer is not None or loss.student_layer is not None:
        raise ValueError(
            f"Distillation loss {loss.name!r} reads inner layers; peers teach each other by their "
            "outputs. Use a loss of outputs, such as keras_kd.losses.SoftTargets()."
        )
    for one, other in itertools.permutations(peers, 2):
        loss.validate(one, other)
    return loss


def teaching(matrix, count):
    """`[peers, peers]` float32, entry `[i][j]`: how much peer `j` teaches peer `i`."""
    if matrix is None:
        return (1.0 - np.eye(count, dtype="float32")) / (count - 1)
    if isinstance(matrix, str) and matrix == "one_way":
        made = np.zeros((count, count), "float32")
        made[1:, 0] = 1.0
        return made
    try:
        made = np.asarray(matrix, "float32")
    except (TypeError, ValueError) as error:
        raise invalid("teaching", "None, 'one_way' or a matrix of numbers", repr(matrix)) from error
    if made.shape != (count, count):
        raise invalid(
            "teaching", f"a matrix of shape {(count, count)}, a row for each peer", matrix
        )
    if not (np.isfinite(made).all() and (made >= 0).all()) or np.diag(made).any():
        raise invalid(
            "teaching",
            "finite numbers, at least 0, and 0 on the diagonal (no peer teaches itself)",
            matrix,
        )
    return made


def optimizers(spec, count):
    """An optimizer for each peer: copies of one, or those of a list."""
    if not isinstance(spec, (list, tuple)):
        return [cloning.clone_optimizer(spec) for _ in range(count)]
    spec = _one_each("optimizer", spec, count)
    made = [keras.optimizers.get(each) for each in spec]
    if len({id(each) for each in made}) != count:
        raise ValueError(
            "`optimizer` holds the same object for two peers, whose weights it would mix up. Give "
            "each peer an optimizer of its own, or one to copy for all: compile(optimizer)."
        )
    return made


def losses(spec, count):
    """A hard loss for each peer, or `None` for each."""
    made = _one_each("loss", spec, count) if isinstance(spec, (list, tuple)) else [spec] * count
    if any(each is None for each in made) and any(each is not None for each in made):
        raise ValueError(f"`loss` is None for some of the peers only. Received: loss={spec}")
    return made


def metrics(name, spec, count):
    """Metrics for each peer: copies of one list of them, or those of a list of lists."""
    is_for_each = isinstance(spec, (list, tuple)) and all(
        each is None or isinstance(each, (list, tuple, dict)) for each in spec
    )
    if not spec or not is_for_each:
        return [cloning.copies_of(spec) for _ in range(count)]
    return _one_each(name, spec, count)


def _one_each(name, values, count):
    if len(values) != count:
        raise ValueError(
            f"`{name}` must be one for all peers or a list with one for each of the {count} peers. "
            f"Received a list of {len(values)}."
        )
    return list(values)

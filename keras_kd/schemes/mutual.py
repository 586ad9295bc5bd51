"""`MutualDistiller`: models that are trained together and teach each other."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_kd import models
from keras_kd._utils.serialization import deserialized
from keras_kd._utils.validation import non_negative
from keras_kd.callbacks import (
    Cluster,
    LogHyperparameters,
    LossWeightSchedule,
    Sparsify,
    TemperatureSchedule,
)
from keras_kd.losses import DistillationLoss
from keras_kd.schemes import peer_models
from keras_kd.schemes.peer_models import Peer
from keras_kd.training import distribution, fit, objective, shape_check, summary, tracking
from keras_kd.training.base import DistillationModel

# Of the project's callbacks those that change or log a number or weights; others need a teacher.
_WITHOUT_TEACHER = (TemperatureSchedule, LossWeightSchedule, LogHyperparameters, Cluster, Sparsify)
_OF_ONE_OPTIMIZER = (keras.callbacks.LearningRateScheduler, keras.callbacks.ReduceLROnPlateau)


def prepare_callbacks(mutual, call: fit.FitCall) -> None:
    """Callbacks that work without a teacher prepare themselves; others are refused."""
    callbacks = call.callbacks
    for callback in callbacks:
        _check_callback(callback)
        if isinstance(callback, _WITHOUT_TEACHER):
            callback.prepare(mutual, callbacks)


def _check_callback(callback):
    name = type(callback).__name__
    if isinstance(callback, _OF_ONE_OPTIMIZER):
        raise ValueError(
            f"{name} changes the learning rate of one optimizer, and each peer has its own. "
            "Give the optimizers a keras.optimizers.schedules.LearningRateSchedule."
        )
    if hasattr(callback, "prepare") and not isinstance(callback, _WITHOUT_TEACHER):
        raise ValueError(
            f"{name} works on a keras_kd.Distiller. With peers use TemperatureSchedule, "
            "LossWeightSchedule and LogHyperparameters, and callbacks of Keras."
        )


def finalize_weights(mutual, call: fit.FitCall) -> None:
    """When the fit has ended, as Keras does with its one optimizer: averaged weights."""

    def finalize(history):
        del history
        for learner in mutual.learners:
            learner.optimizer.finalize_variable_values(learner.model.trainable_variables)

    call.at_end.append(finalize)


#: What `MutualDistiller.fit` does before the first step, in this order.
PREPARATION = (
    fit.require_labels_of_weights,
    fit.take_every_step,
    prepare_callbacks,
    fit.require_labels,
    fit.track_progress,
    finalize_weights,
)


@keras.saving.register_keras_serializable(package="keras_kd")
class MutualDistiller(DistillationModel):
    """Trains several models at once, each from the labels and from the others.

    The loss of peer `i` is

    `alpha * hard_i + beta * sum_j teaching[i][j] * D(peer_j -> peer_i)` (+ its own regularizers)

    where `hard_i` is the loss given to `compile` and `D` a distillation loss between outputs, by
    default `KL(softmax(z_j) || softmax(z_i))`; no gradient flows through the one that teaches. Each
    peer runs forward once a step. All gradients come from these passes, then all optimizers step:
    the update is simultaneous. (The paper's alternates: there peer `i` sees what the peers before
    it have become in this very step, which costs each peer a forward pass more.)

    `sample_weight` and `class_weight` weight both terms. Every peer sees the same batch.

    **Teacher and student trained together.** With `teaching="one_way"`, for two peers
    `[[0, 0], [1, 0]]`, the first peer learns from the labels alone, as it would by itself, and
    the others learn from it while it learns.

    Calling the model, and `predict`, give a list of the peers' outputs. `history` has `loss`, the
    sum over the peers, and for each peer `<peer>_loss`, `<peer>_hard_loss`, `<peer>_soft_targets`
    (by the name of the distillation loss) and its metrics, such as `<peer>_accuracy`; `<peer>` is
    the model's name, if each was given one of its own, else `peer_0`, `peer_1`. `evaluate` gives
    each peer's own loss (labels and regularizers) and metrics; use `return_dict=True`. How the
    peers themselves are compiled is not changed.

    Args:
        peers: A list of two or more built `keras.Model`s with outputs of the same shapes.
        distillation_loss: A `keras_kd.losses.DistillationLoss` of outputs, without weights of its
            own. Default: `SoftTargets(temperature=1.0)`.
        alpha: Factor of the hard losses, at least 0. Live: assign `alpha` before or during `fit`
            and the next step uses it, without retracing. So are `beta` and `temperature`.
        beta: Factor of the distillation losses, as `alpha`.
        teaching: `[peers, peers]`, numbers at least 0; entry `[i][j]` is how much peer `j` teaches
            peer `i`. Default: the mean of the others, `1 / (peers - 1)`. `"one_way"`: the first
            peer teaches the others.
        name: Name of the model.

    Raises:
        ValueError: An argument is wrong: fewer than two peers, the same one twice, weights in
            common, other outputs, a matrix of another shape.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_kd as kd

    x, y = np.random.normal(size=(64, 8)), np.random.randint(10, size=64)
    wide, small = (
        keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)], name=name)
        for name in ("wide", "small")
    )
    mutual = kd.MutualDistiller([wide, small])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    mutual.compile("adam", loss=loss, metrics=["accuracy"])
    history = mutual.fit(x, y, epochs=2, verbose=0).history
    assert {"loss", "wide_accuracy", "small_soft_targets"} <= set(history)
    ```

    Reference: Zhang et al., "Deep Mutual Learning", https://arxiv.org/abs/1706.00384
    """

    preparation = PREPARATION

    def __init__(
        self,
        peers: Sequence[keras.Model],
        distillation_loss: DistillationLoss | None = None,
        alpha: float = 1.0,
        beta: float = 1.0,
        teaching: Any = None,
        name: str = "mutual_distiller",
        **kwargs: Any,
    ):
        peers = peer_models.check_peers(peers)
        numbers = non_negative("alpha", alpha), non_negative("beta", beta)
        matrix = peer_models.teaching(teaching, len(peers))
        # Each optimizer scales its own peer's loss.
        kwargs.setdefault("dtype", "float32")
        super().__init__(name=name, **kwargs)
        self._teaching = models.Untracked(matrix)
        self._evaluating = False
        with peers[0].distribute_strategy.scope():
            loss = peer_models.distillation_loss(distillation_loss, peers)
            self.distillation_loss = loss
            names = zip(peers, peer_models.names(peers), strict=True)
            self.learners = [Peer(peer, loss, peer_name) for peer, peer_name in names]
            self.add_numbers(*numbers)
            self._check_shapes()
        self.built = True

    def _check_shapes(self):
        inputs = models.input_specs(self.peers[0])
        if inputs is not None:
            _PeerShapeCheck(self, True).run(inputs)
        if self.distillation_loss.trainable_variables:
            raise ValueError(
                f"Distillation loss {self.distillation_loss.name!r} has weights of its own, which "
                "no peer's optimizer would train. Use a loss without, such as "
                "keras_kd.losses.SoftTargets()."
            )

    @property
    def peers(self) -> list[keras.Model]:
        """The models, a list."""
        return [learner.model for learner in self.learners]

    @property
    def optimizers(self) -> list[keras.Optimizer | None]:
        """Each peer's optimizer, a list; `None` before `compile`."""
        return [learner.optimizer if self.compiled else None for learner in self.learners]

    @property
    def teaching(self) -> np.ndarray:
        """`[peers, peers]`: how much a peer (a row) learns from each other (a column)."""
        return np.array(self._teaching.value)

    @property
    def distillation_losses(self) -> list[DistillationLoss]:
        """The distillation loss, in a list: what the schedules of `keras_kd.callbacks` look for."""
        return [self.distillation_loss]

    @property
    def losses_by_name(self) -> dict[str, DistillationLoss]:
        """The distillation loss by its name, as a `Distiller` has them."""
        return {self.distillation_loss.name: self.distillation_loss}

    def build(self, input_shape=None):
        del input_shape  # the peers are built

    def call(self, inputs, training=None):
        return [peer(inputs, training=training) for peer in self.peers]

    def _symbolic_build(self, iterator=None, data_batch=None):
        """Builds the peers' metrics before replicas trace a step: there TensorFlow cannot.

        Keras calls it under a strategy, on a batch, and does it for this model alone. (This
        overrides a private method of Keras, and does nothing if Keras renames it.)
        """
        super()._symbolic_build(iterator, data_batch)
        if keras.utils.unpack_x_y_sample_weight(data_batch)[1] is not None:
            for learner in self.learners:
                learner._symbolic_build(data_batch=data_batch)

    def compile(
        self,
        optimizer: Any = "adam",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: str | bool = "auto",
        auto_scale_loss: bool = True,
    ) -> None:
        """As `keras.Model.compile`, for each peer.

        Args:
            optimizer: One for all; each peer gets a copy made from its configuration; or a
                list with an optimizer for each. `optimizers` has them.
            loss: The loss of the labels; or a list with one for each peer.
            loss_weights: See `keras.Model.compile`, the same for all.
            metrics: See `keras.Model.compile`; each peer gets copies. Or a list of lists, one for
                each peer.
            weighted_metrics: As `metrics`.
            run_eagerly: See `keras.Model.compile`.
            steps_per_execution: See `keras.Model.compile`.
            jit_compile: See `keras.Model.compile`.
            auto_scale_loss: Whether the loss of a peer in `mixed_float16` is scaled.

        Raises:
            ValueError: A list has not one entry for each peer; `loss` is `None` although `alpha` is
                not 0, or a peer would learn from nothing.
        """
        count = len(self.learners)
        losses = peer_models.losses(loss, count)
        self._check_something_teaches(losses)
        # `optimizer` would be one; each learner has its own.
        super().compile(
            None,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            jit_compile=jit_compile,
        )
        self.loss = None if losses[0] is None else losses
        self._compiled_with = models.Untracked(
            {
                "loss": losses,
                "loss_weights": loss_weights,
                "metrics": peer_models.metrics("metrics", metrics, count),
                "weighted_metrics": peer_models.metrics(
                    "weighted_metrics", weighted_metrics, count
                ),
            }
        )
        with self.distribute_strategy.scope():
            made = peer_models.optimizers(optimizer, count)
            for each in made:
                distribution.check_supported(self.distribute_strategy, each, steps_per_execution)
            self._compile_learners(made, auto_scale_loss)

    def _compile_learners(self, optimizers, auto_scale_loss):
        given = self._compiled_with.value
        for i, (learner, optimizer) in enumerate(zip(self.learners, optimizers, strict=True)):
            learner.compile(
                optimizer,
                given["loss"][i],
                given["loss_weights"],
                given["metrics"][i],
                given["weighted_metrics"][i],
                jit_compile=False,
                auto_scale_loss=auto_scale_loss,
            )
            # Here, so that a file that is saved or loaded before the first step has its variables.
            if not learner.optimizer.built:
                learner.optimizer.build(learner.model.trainable_variables)

    def _check_something_teaches(self, losses):
        if losses[0] is None and self.alpha != 0:
            raise ValueError(
                f"`loss` is None, but alpha={self.alpha} gives the hard losses a factor. Pass the "
                "loss of the labels, or build the distiller with alpha=0."
            )
        untaught = [
            learner.name
            for learner, row in zip(self.learners, self.teaching, strict=True)
            if not row.any() and learner.model.trainable_variables
        ]
        if losses[0] is None and untaught:
            raise ValueError(
                f"{untaught} would learn from nothing: no peer teaches them, and there is no loss "
                "of the labels. Pass a `loss`, or freeze them (model.trainable = False)."
            )

    def train_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        self.fit_labels.require(y)
        rows = objective.rows_of(x)
        batch = objective.Batch(y, sample_weight, training=True)
        with tf.GradientTape() as tape:
            outputs = [learner.student_forward(x, training=True) for learner in self.learners]
            terms = self._terms(outputs, batch)
            # Here: once the optimizers have stepped they are those of other weights.
            regularizers = [learner.regularizers() for learner in self.learners]
            parts = zip(self.learners, terms, regularizers, strict=True)
            scaled = [learner.scaled(each, added, rows) for learner, each, added in parts]
        # Of each loss only its own peer's weights have a gradient: one backward pass has them all.
        variables = [learner.model.trainable_variables for learner in self.learners]
        gradients = tape.gradient(scaled, variables)
        for learner, *update in zip(self.learners, gradients, variables, strict=True):
            learner.optimizer.apply(*update)
        return self._track(terms, regularizers, outputs, batch)

    def test_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if y is None or self.loss is None:
            raise ValueError(
                "An evaluation needs labels and the loss of the labels: pass (inputs, labels), and "
                "a loss to compile."
            )
        batch = objective.Batch(y, sample_weight)
        outputs = [learner.student_forward(x, training=False) for learner in self.learners]
        terms = [
            learner.terms(own, [], self.distillation_loss, batch, (1.0, 0.0))
            for learner, own in zip(self.learners, outputs, strict=True)
        ]
        regularizers = [learner.regularizers() for learner in self.learners]
        return self._track(terms, regularizers, outputs, batch)

    def _terms(self, outputs, batch):
        mixture, loss = self.mixture(), self.distillation_loss
        terms = []
        for learner, own, row in zip(self.learners, outputs, self.teaching, strict=True):
            peers = zip(row, self.learners, outputs, strict=True)
            teachers = [(float(f), (peer, its)) for f, peer, its in peers if f > 0]
            terms.append(learner.terms(own, teachers, loss, batch, mixture))
        return terms

    def _track(self, terms, regularizers, outputs, batch):
        parts = zip(self.learners, terms, regularizers, outputs, strict=True)
        total = sum(learner.track(each, added, own, batch) for learner, each, added, own in parts)
        self.total_metric.update_state(total, sample_weight=objective.rows_of(outputs[0].inputs))
        return self.per_worker(self.get_metrics_result())

    def get_metrics_result(self):
        results = dict(super().get_metrics_result())
        for learner in self.learners:
            results.update(learner.results(self._evaluating, self.fit_labels.present))
        return results

    def reset_metrics(self):
        super().reset_metrics()
        for learner in self.learners:
            learner.reset_metrics()

    def print_summary(self, **options) -> None:
        summary.of_mutual(self, **options)

    def models_by_role(self):
        return {f"peers/{i}": peer for i, peer in enumerate(self.peers)}

    def learning_rates(self):
        return {
            f"{learner.name}_learning_rate": tracking.learning_rate(learner.optimizer)
            for learner in self.learners
        }

    def evaluate(self, *args, **kwargs):
        """As `keras.Model.evaluate`: each peer's own loss and metrics; `loss` is their sum."""
        given = fit.bind_arguments(keras.Model.evaluate, args, kwargs)
        given["x"] = distribution.with_every_step(self.distribute_strategy, given.get("x"))
        self._evaluating = True
        try:
            return super().evaluate(**given)
        finally:
            self._evaluating = False

    def with_metrics(self):
        return [self, *self.learners]

    def build_metrics(self, data):
        for learner in self.learners:
            learner.build_metrics(data)

    def get_config(self):
        config = super().get_config()
        config.update(
            {
                "peers": [keras.saving.serialize_keras_object(peer) for peer in self.peers],
                "distillation_loss": keras.saving.serialize_keras_object(self.distillation_loss),
                "alpha": float(self.alpha),
                "beta": float(self.beta),
                "teaching": self.teaching.tolist(),
            }
        )
        return config

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        config["peers"] = deserialized(config["peers"])
        loss = keras.saving.deserialize_keras_object(config["distillation_loss"])
        return cls(**{**config, "distillation_loss": loss})

    def get_compile_config(self):
        if not self.compiled:
            return None
        return keras.saving.serialize_keras_object(
            {
                **self._compiled_with.value,
                "optimizer": self.optimizers,
                "run_eagerly": self.run_eagerly,
                "steps_per_execution": self.steps_per_execution,
                "jit_compile": self.jit_compile,
            }
        )

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))


class _PeerShapeCheck(shape_check.ShapeCheck):
    def _values(self, inputs, labels):
        distiller = self._distiller.value
        outputs = [
            learner.student_forward(inputs, training=False) for learner in distiller.learners
        ]
        pairs = list(zip(distiller.learners, outputs, strict=True))
        values = [
            shape_check.means(distiller.distillation_loss, learner.taught_by(peer, its, own), own)
            for learner, own in pairs
            for peer, its in pairs
            if peer is not learner
        ]
        return keras.ops.concatenate(values)

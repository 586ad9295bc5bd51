"""`Distiller`: trains a student model from a teacher with `compile` and `fit`."""

import dataclasses
import functools

import keras
import tensorflow as tf

from keras_kd import configuration, models, objective, replicas
from keras_kd.live import LiveNumbers, cond, traced_value
from keras_kd.objective import FusedLoss, Outputs
from keras_kd.persistence import Persistence
from keras_kd.rehearsal import Rehearsal
from keras_kd.reporting import Reporting
from keras_kd.taps import tap
from keras_kd.taps.listening import Taps


@keras.saving.register_keras_serializable(package="keras_kd")
class Distiller(LiveNumbers, Persistence, Reporting, replicas.MultiWorkerFit, keras.Model):
    """Trains a student to match a teacher (and the labels).

    The loss of a batch is

    `alpha * hard + beta * sum_i weight_i * distillation_i` (+ the student's own regularisers)

    where `hard` is the loss given to `compile`, averaged over the batch as Keras does, and each
    distillation loss is averaged likewise. `sample_weight` and `class_weight` weight both. Teacher
    and student each run forward once a step; the teacher runs with `training=False` and is left as
    it was: weights, statistics and `trainable` flags. `evaluate`, `predict` and calling the
    distiller are the student's.

    A drop-in for `keras.distillation.Distiller`, whose loss objects are accepted.

    Args:
        teacher: A `keras.Model`, or any callable that maps a batch of inputs to outputs in
            TensorFlow operations.
        student: The `keras.Model` to train.
        distillation_losses: A `keras_kd.losses.DistillationLoss`; a list of them; for models with
            several outputs also a dict from output names to losses, or a list with `None` for the
            outputs to leave out. Default: `SoftTargets(temperature=4.0)`.
        distillation_loss_weights: Numbers, one for each loss, set as the losses' `weight`.
        student_loss_weight: Keras' spelling: `w` stands for `alpha=w, beta=1-w`.
        alpha: Factor of the hard loss, at least 0. Default 0.5. Live: assign `distiller.alpha`
            before or during `fit` and the next step uses it, without retracing.
        beta: Factor of the distillation losses, as `alpha`. While it is 0 the teacher does not
            run.
        name: Name of the model.
        teacher_preprocess: A function applied to the inputs before the teacher sees them, where
            it expects another size or range.
        weighting: A `keras_kd.weighting.Weighting`: which rows learn more from the labels and
            which from the teacher.

    Raises:
        ValueError: An argument is wrong, or teacher and student do not fit each other.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_kd as kd

    x, y = np.random.normal(size=(64, 8)), np.random.randint(10, size=64)
    teacher = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    student = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    distiller = kd.Distiller(teacher, student)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile("adam", loss=loss, metrics=["accuracy"])
    history = distiller.fit(x, y, epochs=2, verbose=0)
    ```

    Reference: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network",
    https://arxiv.org/abs/1503.02531
    """

    def __init__(
        self,
        teacher,
        student,
        distillation_losses=None,
        distillation_loss_weights=None,
        student_loss_weight=None,
        alpha=None,
        beta=None,
        name="distiller",
        *,
        teacher_preprocess=None,
        weighting=None,
        **kwargs,
    ):
        models.check(teacher, student)
        configuration.check_weighting(weighting)
        alpha, beta = configuration.mixture(alpha, beta, student_loss_weight)
        kwargs.setdefault("dtype", models.dtype_policy(student))
        # The inputs reach the student as `student.fit` would give them: nothing is cast here.
        super().__init__(name=name, autocast=False, **kwargs)
        self._teacher = models.Untracked(teacher)
        self.student = student
        self.teacher_preprocess, self.weighting = teacher_preprocess, weighting
        self.supports_jit = self.supports_jit and models.supports_jit(teacher)
        self._hard_loss_only = self._rehearsed = False
        with student.distribute_strategy.scope():
            self.distillation_losses = configuration.loss_list(
                distillation_losses, distillation_loss_weights, student
            )
            self._add_numbers(alpha, beta)
            self._add_trackers()
        self._listen()
        self._build_where_shapes_are_known()

    @property
    def teacher(self):
        """The teacher; tracked by nothing, saved with the distiller."""
        return self._teacher.model

    @property
    def output_names(self):
        """The student's, so that `compile` takes losses and metrics by output name."""
        return self.student.output_names

    @property
    def losses(self):
        return [] if self._hard_loss_only else super().losses

    def _listen(self):
        losses = self.distillation_losses
        of_teacher = [x for x in losses if x.teacher_layer is not None]
        of_student = [x for x in losses if x.student_layer is not None]
        if of_teacher and not isinstance(self.teacher, keras.Model):
            raise ValueError(
                "A distillation loss reads the teacher's layers "
                f"{[str(x.teacher_layer) for x in of_teacher]}, but the teacher "
                "is a callable without layers. Use a keras.Model."
            )
        for loss in of_teacher:
            loss.teacher_layer = tap.resolve_all(self.teacher, loss.teacher_layer)
        for loss in of_student:
            loss.student_layer = tap.resolve_all(self.student, loss.student_layer)
        teacher_layers = tap.each(loss.teacher_layer for loss in of_teacher)
        student_layers = tap.each(loss.student_layer for loss in of_student)
        self._taps = models.Untracked(
            (
                Taps(self.teacher, teacher_layers) if teacher_layers else None,
                Taps(self.student, student_layers) if student_layers else None,
            )
        )

    def _build_where_shapes_are_known(self):
        for loss in self.distillation_losses:
            loss.validate(self.teacher, self.student)
        inputs = models.input_specs(self.student)
        if inputs is not None:
            with self.student.distribute_strategy.scope():
                self._rehearse(inputs)
            self.built = True

    def _rehearse(self, inputs):
        self._rehearsed = True
        Rehearsal(self)(inputs)

    def build(self, input_shape=None):
        del input_shape  # the student builds itself when it is called
        self.built = True

    def call(self, inputs, training=None, mask=None):
        if not self._rehearsed:
            self._rehearse(inputs)
        if mask is None:
            return self.student(inputs, training=training)
        return self.student(inputs, training=training, mask=mask)

    def compile(
        self,
        optimizer="adam",
        loss=None,
        loss_weights=None,
        metrics=None,
        weighted_metrics=None,
        run_eagerly=False,
        steps_per_execution=1,
        jit_compile="auto",
        auto_scale_loss=True,
    ):
        """As `keras.Model.compile`; `loss` is the hard loss.

        Raises:
            ValueError: `loss` is `None` although `alpha` is not 0; or, under a strategy with
                several replicas, `steps_per_execution` is above 1 or the optimizer accumulates
                gradients, which TensorFlow cannot run.
        """
        if loss is None and self.alpha != 0:
            raise ValueError(
                f"`loss` is None, but alpha={self.alpha} gives the hard loss a factor. Pass the "
                "loss of the labels, or build the distiller with alpha=0 to learn from the teacher "
                "alone."
            )
        replicas.refuse_what_fails(self.distribute_strategy, optimizer, steps_per_execution)
        super().compile(
            optimizer,
            loss,
            loss_weights,
            metrics,
            weighted_metrics,
            run_eagerly,
            steps_per_execution,
            jit_compile,
            auto_scale_loss,
        )
        self._fused = FusedLoss(loss, loss_weights, self.distillation_losses)
        if self.built and self.optimizer is not None:
            # So that a file saved before the first step holds the optimizer's variables.
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The student's own loss: the compiled one and the regularisers, as in `evaluate`."""
        if self.loss is None or y is None:
            return keras.ops.sum([keras.ops.zeros(()), *map(keras.ops.sum, self.losses)])
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def _hard_loss(self, y, y_pred, sample_weight):
        """The compiled loss without regularisers; zero where there is none."""
        if y is None or self.loss is None:
            return tf.zeros(())
        self._hard_loss_only = True
        try:
            # Keras has divided it by the number of replicas.
            return replicas.count() * super().compute_loss(None, y, y_pred, sample_weight)
        finally:
            self._hard_loss_only = False

    def _balances(self, y, y_pred, sample_weight, rows):
        """Factors for the hard loss and for the others: see `replicas.balance`."""
        hard = objective.hard_divisor(self.loss, y, y_pred, sample_weight)
        soft = objective.valid_rows(y_pred)
        return replicas.balance(hard, rows), replicas.balance(soft, rows)

    def teach(self, x):
        """The teacher's `Outputs` for a batch; no gradient flows to it."""
        if self.teacher_preprocess is not None:
            x = self.teacher_preprocess(x)
        model, taps = self.teacher, self._taps.model[0]
        arguments = {"training": False} if isinstance(model, keras.Model) else {}
        forward = functools.partial(model, x, **arguments)
        outputs, tapped = taps.run(forward) if taps else (forward(), {})
        outputs, tapped = keras.tree.map_structure(tf.stop_gradient, (outputs, tapped))
        return Outputs(outputs, tapped, getattr(self.student, "output_names", None))

    def study(self, x, training):
        """The student's `Outputs` for a batch."""
        if not self._rehearsed:
            self._rehearse(x)  # not inside the tapped pass: the taps would see two
        taps = self._taps.model[1]
        forward = functools.partial(self, x, training=training)
        outputs, tapped = taps.run(forward) if taps else (forward(), {})
        return Outputs(outputs, tapped, getattr(self.student, "output_names", None))

    def train_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        self._check_labels(y)
        rows = objective.rows_of(x)
        with tf.GradientTape() as tape:
            student = self.study(x, training=True)
            terms = self._terms(x, y, student, sample_weight, rows)
            regularisers = [keras.ops.sum(loss) for loss in self.losses]
            scaled = self.optimizer.scale_loss(self._global(terms.total, rows, regularisers))
        variables = self.trainable_variables
        gradients = self._gradients_of_losses_left_out(tape.gradient(scaled, variables), variables)
        self.optimizer.apply(gradients, variables)
        self._track(terms, regularisers, rows)
        return self._logs(x, y, student.outputs, sample_weight)

    def test_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        self._check_evaluation_labels(y)
        rows = objective.rows_of(x)
        student = self.study(x, training=False)
        if self._runs_teacher_in_evaluate():
            batch = objective.Batch(y, sample_weight)
            terms = self._all_terms(self.teach(x), student, batch, rows)
        else:
            balance, _ = self._balances(y, student.outputs, sample_weight, rows)
            hard = balance * self._hard_loss(y, student.outputs, sample_weight)
            terms = objective.Terms(hard, hard, [])
        self._track(terms, [keras.ops.sum(loss) for loss in self.losses], rows)
        return self._without_teacher(self._logs(x, y, student.outputs, sample_weight))

    def _all_terms(self, teacher, student, batch, rows):
        """The losses of a batch of which the teacher's outputs are known."""
        y, fusable = batch.labels, self._is_fusable(student, batch) and batch.training
        hard_weight = soft_weight = batch.sample_weight
        if self.weighting is not None:
            factors = self.weighting.factors(teacher, y)
            hard_weight, soft_weight = (objective.times(hard_weight, each) for each in factors)
        alpha, beta = self._mixture()
        if fusable:
            weights = hard_weight, soft_weight
            return objective.Terms(*self._fused.terms(y, student, teacher, weights, alpha, beta))
        hard_balance, balance = self._balances(y, student.outputs, hard_weight, rows)
        hard = hard_balance * self._hard_loss(y, student.outputs, hard_weight)
        batch = dataclasses.replace(batch, sample_weight=soft_weight)
        losses = self.distillation_losses
        return objective.Terms(
            *objective.separate_terms(hard, losses, teacher, student, batch, alpha, beta, balance)
        )

    def _is_fusable(self, student, batch):
        labels, weight = batch.labels, batch.sample_weight
        return labels is not None and self._fused.applies(labels, student, weight)

    def _terms(self, x, y, student, sample_weight, rows):
        """The step's losses.

        While `beta` is 0 the teacher does not run, and the student trains exactly as by its own
        `fit`. Not so under XLA: shapes that leave a branch are not constants to it, and the
        gradient of a batch of unknown size does not compile. There the teacher always runs.
        """
        batch = objective.Batch(y, sample_weight, training=True)
        if self.jit_compile or self.weighting is not None:
            return self._all_terms(self.teach(x), student, batch, rows)
        alpha, beta = self._mixture()
        losses = self.distillation_losses
        fusable = self._is_fusable(student, batch)

        # Here, because replicas cannot be summed over inside a condition.
        hard_balance, balance = self._balances(y, student.outputs, sample_weight, rows)

        def hard():
            return hard_balance * self._hard_loss(y, student.outputs, sample_weight)

        def labels_only():
            value = hard()
            return alpha * value, value, [tf.zeros(()) for _ in losses]

        def separately():
            return objective.separate_terms(
                hard(), losses, self.teach(x), student, batch, alpha, beta, balance
            )

        def fused():
            weights = sample_weight, sample_weight
            return self._fused.terms(y, student, self.teach(x), weights, alpha, beta)

        return objective.Terms(*cond(beta != 0, fused if fusable else separately, labels_only))

    def _gradients_of_losses_left_out(self, gradients, variables):
        """Zeros for projectors while `beta` is 0, as the condition of a traced step gives them.

        An eager step has no condition, and Keras would warn that gradients do not exist.
        """
        if not tf.executing_eagerly() or self.beta != 0:
            return gradients
        own = {id(v) for loss in self.distillation_losses for v in loss.trainable_variables}
        return [
            tf.zeros_like(variable) if gradient is None and id(variable) in own else gradient
            for gradient, variable in zip(gradients, variables, strict=True)
        ]

    def _global(self, total, rows, regularisers):
        """What is differentiated: this replica's part of the global batch's loss."""
        count = replicas.count()
        if count > 1:
            total = total * replicas.share(rows) / count
            regularisers = [loss / count for loss in regularisers]
        return keras.ops.sum([total, *regularisers])

    def _check_labels(self, y):
        self._trained_without_labels = y is None
        alpha = traced_value(self.alpha_variable)
        if y is None and alpha != 0:
            raise ValueError(
                f"The training data has no labels, but alpha={alpha} gives the hard loss a "
                "factor. Pass (inputs, labels), or set alpha=0 to learn from the teacher alone."
            )

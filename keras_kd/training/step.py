"""`Step`: what happens in a step of training, and in one of evaluation."""

import contextlib
import dataclasses
import threading
from typing import Any

import keras
import tensorflow as tf

from keras_kd import models
from keras_kd.training import arguments, distribution, objective, supervised
from keras_kd.training.hyperparameters import cond, traced_value


@dataclasses.dataclass
class Running:
    """The step that runs: what `compute_loss` needs beside its arguments, and what it leaves.

    Attributes:
        student: The student's `Outputs` of the batch.
        rows: Float32 scalar, the rows of the batch.
        terms: `objective.Terms` of the batch, once `compute_loss` was called.
        regularisers: Scalars, likewise.
        loss: What `compute_loss` of the library gave, likewise.
    """

    student: Any
    rows: Any
    terms: Any = None
    regularisers: Any = ()
    loss: Any = None


# Replicas run their steps in threads of their own, and wait for each other inside of them.
_LOCAL = threading.local()


def _running_step(distiller):
    """The `Running` of a distiller in this thread, or `None`."""
    return getattr(_LOCAL, "steps", {}).get(id(distiller))


@contextlib.contextmanager
def _step_of(distiller, student, rows):
    steps = _LOCAL.__dict__.setdefault("steps", {})
    steps[id(distiller)] = running = Running(student, rows)
    try:
        yield running
    finally:
        del steps[id(distiller)]


class Step:
    """Mixin of the distiller: its losses of a batch, and their gradients."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The loss of a batch; `train_step` and `test_step` call it, so a subclass may add to it.

        In training it is the whole objective with all regularisers, in an evaluation the student's
        own loss (or the objective, where the teacher is asked).

        Args:
            x: The inputs of the batch.
            y: Its labels, or `None`.
            y_pred: The student's outputs for it; default: those of the step, or of a forward pass.
            sample_weight: Its sample weights, or `None`.
            training: Whether it is trained on.

        Returns:
            A scalar: this replica's part of the loss of the global batch.

        Raises:
            ValueError: Neither a step runs nor are there inputs.

        Example:

        ```python
        import keras
        import keras_kd as kd

        class Calm(kd.Distiller):
            def compute_loss(self, x, y, y_pred, sample_weight, training=True):
                loss = super().compute_loss(x, y, y_pred, sample_weight, training)
                return loss + 0.01 * keras.ops.mean(keras.ops.square(y_pred))
        ```
        """
        running = _running_step(self) or self._outside_of_a_step(x, training)
        student = running.student
        if y_pred is not None and y_pred is not student.outputs:
            student = dataclasses.replace(student, outputs=y_pred)
        if training:
            terms = self._terms(x, y, student, sample_weight, running.rows)
        else:
            terms = self._terms_of_evaluation(x, y, student, sample_weight, running.rows)
        running.terms, running.regularisers = terms, self._regularisers(y)
        running.loss = distribution.part_of_global(terms.total, running.rows, running.regularisers)
        return running.loss

    def _outside_of_a_step(self, x, training):
        if x is None:
            raise ValueError(
                "`compute_loss` runs the models where no step does: pass `x`, the inputs."
            )
        self._rehearse_batch(x, None)
        return Running(self.student_forward(x, training), objective.rows_of(x))

    def train_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        self._check_labels(y)
        self._rehearse_batch(x, y)
        rows = objective.rows_of(x)
        with tf.GradientTape() as tape:
            student = self.student_forward(x, training=True)
            with _step_of(self, student, rows) as running:
                loss = arguments.call_compute_loss(self, x, y, student.outputs, sample_weight, True)
            scaled = self.optimizer.scale_loss(loss)
        variables = self.trainable_variables
        gradients = self._gradients_of_losses_left_out(tape.gradient(scaled, variables), variables)
        self._apply(gradients, variables)
        self._track(running, loss)
        return self._logs(x, y, student.outputs, sample_weight)

    def _apply(self, gradients, variables):
        """Moves the student, and lets the teacher learn where that is moved."""
        # Which never is in a step that only accumulates gradients; `iterations` counts updates.
        inner = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        if not inner.gradient_accumulation_steps:
            self.optimizer.apply(gradients, variables)
            self._source.value.update(self.student)
            return
        before = keras.ops.copy(inner.iterations)
        self.optimizer.apply(gradients, variables)

        def learn():
            self._source.value.update(self.student)
            return before

        cond(keras.ops.convert_to_tensor(inner.iterations) > before, learn, lambda: before)

    def test_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        self._check_evaluation_labels(y)
        if self._runs_teacher_in_evaluate():
            self._rehearse_batch(x, y)
        rows = objective.rows_of(x)
        student = self.student_forward(x, training=False)
        with _step_of(self, student, rows) as running:
            loss = arguments.call_compute_loss(self, x, y, student.outputs, sample_weight, False)
        self._track(running, loss)
        return self._without_teacher(self._logs(x, y, student.outputs, sample_weight))

    def predict_step(self, data):
        if arguments.is_overridden(self.student, "predict_step"):
            return self.student.predict_step(data)
        return super().predict_step(data)

    def _terms_of_evaluation(self, x, y, student, sample_weight, rows):
        batch = objective.Batch(y, sample_weight, inputs=x)
        if self._runs_teacher_in_evaluate():
            return self._all_terms(self.teacher_forward(x, y, student), student, batch, rows)
        hard = self._hard(batch, student, sample_weight, rows)
        return objective.Terms(hard, hard, [])

    def _hard(self, batch, student, sample_weight, rows):
        """The hard loss's part of the global one, not yet times alpha."""
        y, outputs = batch.labels, student.outputs
        if self._asks_student_for_loss(y):
            x, training = batch.inputs, batch.training
            return supervised.own_loss_of(self.student, x, y, outputs, sample_weight, training)
        balance = objective.hard_balance(self.loss, y, outputs, sample_weight, rows)
        return balance * self.hard_loss(y, outputs, sample_weight)

    def _asks_student_for_loss(self, y):
        """Whether the student's own `compute_loss` gives the hard loss.

        Without labels only where it is all that there is, and counts: it may need none.
        """
        needs_none = self.loss is None and traced_value(self.alpha_variable) != 0
        return self.student_computes_loss and (y is not None or needs_none)

    def _regularisers(self, y):
        """What layers add to the loss; those of a student that computes its loss it adds itself."""
        if self._asks_student_for_loss(y):
            return self.sums_of(models.losses_outside(self, self.student))
        return self.sums_of(self.losses)

    def _all_terms(self, teacher, student, batch, rows):
        """The losses of a batch of which the teacher's outputs are known."""
        y, fusable = batch.labels, self._is_fusable(student, batch) and batch.training
        hard_weight = soft_weight = batch.sample_weight
        if self.weighting is not None:
            factors = self.weighting.factors(teacher, y)
            hard_weight, soft_weight = (objective.times(hard_weight, each) for each in factors)
        alpha, beta = self._mixture()
        batch = dataclasses.replace(batch, sample_weight=soft_weight)
        if fusable:
            parts = self._fused_parts(batch, student, teacher, hard_weight, alpha, beta)
        else:
            hard = self._hard(batch, student, hard_weight, rows)
            losses = self.distillation_losses
            parts = objective.separate_parts(hard, losses, teacher, student, batch, alpha)
        return self._summed(parts, fusable, student, beta, rows)

    def _fused_parts(self, batch, student, teacher, hard_weight, alpha, beta):
        three = self._fused.losses_of(batch, student, teacher, hard_weight, alpha, beta)
        others = self._fused.others
        return *three, [objective.means_of(loss, teacher, student, batch) for loss in others]

    def _summed(self, parts, fusable, student, beta, rows):
        """The step's `Terms`; not inside a condition, where replicas cannot be summed over."""
        _, hard, soft, _ = parts
        losses = self._fused.others if fusable else self.distillation_losses
        total, values = objective.combined(parts, losses, student, beta, rows)
        return objective.Terms(total, hard, self._fused.insert(values, soft) if fusable else values)

    def _is_fusable(self, student, batch):
        labels, weight = batch.labels, batch.sample_weight
        if labels is None or self._source.value.is_sparse or self.student_computes_loss:
            return False
        return self._fused.applies(labels, student, weight)

    def _terms(self, x, y, student, sample_weight, rows):
        """The step's losses.

        While `beta` is 0 the teacher does not run, and the student trains exactly as by its own
        `fit`. Not so under XLA: shapes that leave a branch are not constants to it, and the
        gradient of a batch of unknown size does not compile. There the teacher always runs, and
        so it does where a projector penalises its outputs: `losses` are read outside of a branch.
        """
        batch = objective.Batch(y, sample_weight, training=True, inputs=x)
        always = self.jit_compile or self.weighting is not None
        if always or self.loss_list.penalises_outputs():
            return self._all_terms(self.teacher_forward(x, y, student), student, batch, rows)
        alpha, beta = self._mixture()
        fusable = self._is_fusable(student, batch)
        losses = self._fused.others if fusable else self.distillation_losses
        # Here, because replicas cannot be summed over inside a condition.
        outputs = student.outputs
        hard_balance, own = 1.0, None
        if self._asks_student_for_loss(y):
            own = self._hard(batch, student, sample_weight, rows)
        else:
            hard_balance = objective.hard_balance(self.loss, y, outputs, sample_weight, rows)

        def hard():
            if own is not None:
                return own
            return hard_balance * self.hard_loss(y, student.outputs, sample_weight)

        def with_teacher():
            teacher = self.teacher_forward(x, y, student)
            if fusable:
                return self._fused_parts(batch, student, teacher, sample_weight, alpha, beta)
            return objective.separate_parts(hard(), losses, teacher, student, batch, alpha)

        def labels_only():
            return objective.parts_without_teacher(hard(), losses, student, alpha)

        parts = cond(beta != 0, with_teacher, labels_only)
        return self._summed(parts, fusable, student, beta, rows)

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

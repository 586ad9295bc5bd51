"""`Step`: what happens in a step of training, and in one of evaluation."""

import dataclasses

import keras
import tensorflow as tf

from keras_kd import objective, replicas
from keras_kd.live import cond


class Step:
    """Mixin of the distiller: its losses of a batch, and their gradients."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The student's own loss: the compiled one and the regularisers, as in `evaluate`."""
        if self.loss is None or y is None:
            return keras.ops.sum([keras.ops.zeros((), "float32"), *self.sums_of(self.losses)])
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def train_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        self._check_labels(y)
        rows = objective.rows_of(x)
        with tf.GradientTape() as tape:
            student = self.study(x, training=True)
            terms = self._terms(x, y, student, sample_weight, rows)
            regularisers = self.sums_of(self.losses)
            scaled = self.optimizer.scale_loss(
                replicas.part_of_global(terms.total, rows, regularisers)
            )
        variables = self.trainable_variables
        gradients = self._gradients_of_losses_left_out(tape.gradient(scaled, variables), variables)
        self._apply(gradients, variables)
        self._track(terms, regularisers, rows)
        return self._logs(x, y, student.outputs, sample_weight)

    def _apply(self, gradients, variables):
        """Moves the student, and lets the teacher learn where that is moved."""
        # Which never is in a step that only accumulates gradients; `iterations` counts updates.
        inner = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        if not inner.gradient_accumulation_steps:
            self.optimizer.apply(gradients, variables)
            self._source.model.learn(self.student)
            return
        before = keras.ops.copy(inner.iterations)
        self.optimizer.apply(gradients, variables)

        def learn():
            self._source.model.learn(self.student)
            return before

        cond(keras.ops.convert_to_tensor(inner.iterations) > before, learn, lambda: before)

    def test_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        self._check_evaluation_labels(y)
        rows = objective.rows_of(x)
        student = self.study(x, training=False)
        if self._runs_teacher_in_evaluate():
            batch = objective.Batch(y, sample_weight)
            terms = self._all_terms(self.teach(x, y, student), student, batch, rows)
        else:
            outputs = student.outputs
            balance = objective.hard_balance(self.loss, y, outputs, sample_weight, rows)
            hard = balance * self.hard_loss(y, outputs, sample_weight)
            terms = objective.Terms(hard, hard, [])
        self._track(terms, self.sums_of(self.losses), rows)
        return self._without_teacher(self._logs(x, y, student.outputs, sample_weight))

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
            outputs, losses = student.outputs, self.distillation_losses
            balance = objective.hard_balance(self.loss, y, outputs, hard_weight, rows)
            hard = balance * self.hard_loss(y, outputs, hard_weight)
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
        if labels is None or self._source.model.is_sparse:
            return False
        return self._fused.applies(labels, student, weight)

    def _terms(self, x, y, student, sample_weight, rows):
        """The step's losses.

        While `beta` is 0 the teacher does not run, and the student trains exactly as by its own
        `fit`. Not so under XLA: shapes that leave a branch are not constants to it, and the
        gradient of a batch of unknown size does not compile. There the teacher always runs, and
        so it does where a projector penalises its outputs: `losses` are read outside of a branch.
        """
        batch = objective.Batch(y, sample_weight, training=True)
        always = self.jit_compile or self.weighting is not None
        if always or self.loss_list.penalises_outputs():
            return self._all_terms(self.teach(x, y, student), student, batch, rows)
        alpha, beta = self._mixture()
        fusable = self._is_fusable(student, batch)
        losses = self._fused.others if fusable else self.distillation_losses
        # Here, because replicas cannot be summed over inside a condition.
        outputs = student.outputs
        hard_balance = objective.hard_balance(self.loss, y, outputs, sample_weight, rows)

        def hard():
            return hard_balance * self.hard_loss(y, student.outputs, sample_weight)

        def with_teacher():
            teacher = self.teach(x, y, student)
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

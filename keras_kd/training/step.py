"""What happens in a step of training, and in one of evaluation."""

import contextlib
import dataclasses
import threading
from typing import Any

import keras
import tensorflow as tf

from keras_kd.training import arguments, distribution, objective
from keras_kd.training.hyperparameters import cond


def train(distiller: Any, data: Any) -> dict:
    """Trains on a batch; returns the logs."""
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    distiller.fit_labels.require(y)
    hard_factor = 1.0
    if distiller.sequences is not None:
        step_number = distiller.optimizer.iterations
        batch = distiller.sequences.replaced(x, y, sample_weight, step_number)
        x, y, sample_weight = batch.x, batch.y, batch.sample_weight
        hard_factor = batch.hard_factor
    distiller.shape_checks.on_batch(x, y)
    with tf.GradientTape() as tape:
        student = distiller.student_forward(x, training=True)
        with running(distiller, student, objective.rows_of(x), hard_factor) as step:
            loss = _loss_of(distiller, x, y, student, sample_weight, training=True)
        scaled = distiller.optimizer.scale_loss(loss)
    variables = distiller.trainable_variables
    gradients = tape.gradient(scaled, variables)
    gradients = _with_zeros_for_projectors(distiller, gradients, variables)
    _apply(distiller, gradients, variables)  # and the teacher follows, where it is of the student
    distiller.loss_metrics.update(distiller.total_metric, step, loss)
    return _logs_of(distiller, x, y, student, sample_weight)


def test(distiller: Any, data: Any) -> dict:
    """Evaluates a batch; returns the logs."""
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    evaluation = distiller.evaluation
    evaluation.require_labels(y)
    if evaluation.runs_teacher:
        distiller.shape_checks.on_batch(x, y)
    student = distiller.student_forward(x, training=False)
    with running(distiller, student, objective.rows_of(x)) as step:
        loss = _loss_of(distiller, x, y, student, sample_weight, training=False)
    distiller.loss_metrics.update(distiller.total_metric, step, loss)
    logs = _logs_of(distiller, x, y, student, sample_weight)
    return logs if evaluation.runs_teacher else distiller.loss_metrics.without_losses(logs)


def compute_loss(
    distiller: Any, x: Any, y: Any, y_pred: Any, sample_weight: Any, training: bool
) -> tf.Tensor:
    """The library's loss of a batch: see `Distiller.compute_loss`."""
    step = _running_step(distiller) or _outside_of_a_step(distiller, x, training)
    student = step.student
    if y_pred is not None and y_pred is not student.outputs:
        student = dataclasses.replace(student, outputs=y_pred)
    batch = objective.Batch(y, sample_weight, training, x, step.hard_factor)
    step.terms = distiller.objective.terms(batch, student, step.rows)
    step.regularizers = distiller.objective.regularizers(y)
    step.loss = distribution.part_of_global(step.terms.total, step.rows, step.regularizers)
    return step.loss


@dataclasses.dataclass
class RunningStep:
    """The step that runs: what `compute_loss` needs beside its arguments, and what it leaves.

    Attributes:
        student: The student's `Outputs` of the batch.
        rows: Float32 scalar, the samples of the batch.
        hard_factor: Scalar: 0 where the labels teach nothing.
        terms: `objective.Terms` of the batch, once `compute_loss` was called.
        regularizers: Scalars, once `compute_loss` was called.
        loss: What `compute_loss` of the library gave, once it was called.
    """

    student: Any
    rows: Any
    hard_factor: Any = 1.0
    terms: Any = None
    regularizers: Any = ()
    loss: Any = None


# Replicas run their steps in threads of their own, and wait for each other inside of them.
_LOCAL = threading.local()


def _running_step(distiller):
    """The `RunningStep` of a distiller in this thread, or `None`."""
    return getattr(_LOCAL, "steps", {}).get(id(distiller))


@contextlib.contextmanager
def running(distiller, student, rows, hard_factor=1.0):
    """While it is open a step of a distiller runs in this thread."""
    steps = _LOCAL.__dict__.setdefault("steps", {})
    steps[id(distiller)] = step = RunningStep(student, rows, hard_factor)
    try:
        yield step
    finally:
        del steps[id(distiller)]


def _outside_of_a_step(distiller, x, training):
    if x is None:
        raise ValueError("`compute_loss` runs the models where no step does: pass `x`, the inputs.")
    distiller.shape_checks.on_batch(x, None)
    return RunningStep(distiller.student_forward(x, training), objective.rows_of(x))


def _loss_of(distiller, x, y, student, sample_weight, training):
    """Of `compute_loss`, which a subclass may have overridden."""
    return arguments.call_compute_loss(distiller, x, y, student.outputs, sample_weight, training)


def _logs_of(distiller, x, y, student, sample_weight):
    logs = distiller.compute_metrics(x, y, student.outputs, sample_weight=sample_weight)
    return distiller.per_worker(logs)


def _apply(distiller, gradients, variables):
    """Moves the student, and updates the teacher where the student was moved."""
    optimizer, source, student = distiller.optimizer, distiller.source, distiller.student
    # Which never is in a step that only accumulates gradients; `iterations` counts updates.
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    if not inner.gradient_accumulation_steps:
        optimizer.apply(gradients, variables)
        source.update(student)
        return
    before = keras.ops.copy(inner.iterations)
    optimizer.apply(gradients, variables)

    def update():
        source.update(student)
        return before

    cond(keras.ops.convert_to_tensor(inner.iterations) > before, update, lambda: before)


def _with_zeros_for_projectors(distiller, gradients, variables):
    """Zeros for projectors while `beta` is 0, as the condition of a traced step gives them.

    An eager step has no condition, and Keras would warn that gradients do not exist.
    """
    if not tf.executing_eagerly() or distiller.beta != 0:
        return gradients
    losses = distiller.distillation_losses
    own = {id(v) for loss in losses for v in loss.trainable_variables}
    return [
        tf.zeros_like(variable) if gradient is None and id(variable) in own else gradient
        for gradient, variable in zip(gradients, variables, strict=True)
    ]

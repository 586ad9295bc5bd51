"""The training objective of one step: `alpha * hard + beta * sum_i weight_i * soft_i`.

Averages are Keras' "sum_over_batch_size": the weighted sum over the samples, divided by the number
of samples (of valid ones where the student's output carries a mask).
"""

import dataclasses
import math
from typing import Any

import keras
import tensorflow as tf

from keras_kd import models
from keras_kd.losses import base
from keras_kd.models import matching
from keras_kd.ops.sparse_logits import SparseLogits
from keras_kd.taps import recorder
from keras_kd.training import distribution, supervised
from keras_kd.training.fused_loss import FusedLoss
from keras_kd.training.hyperparameters import cond, traced_value
from keras_kd.training.token_loss import TokenLoss, TokenSums


@dataclasses.dataclass
class Batch:
    """What the data says of a batch, and whether it is trained on.

    `hard_factor` is a scalar, 0 where the labels of a language model are its own samples.
    """

    labels: Any = None
    sample_weight: Any = None
    training: bool = False
    inputs: Any = None
    hard_factor: Any = 1.0


@dataclasses.dataclass
class Terms:
    """Scalars of a step: the weighted sum, the hard loss, and each soft loss, unweighted.

    And of language models whose logits are left out the `TokenSums`, else `None`.
    """

    total: Any
    hard: Any
    soft: list
    tokens: Any = None


class Objective:
    """Computes the terms of a step.

    Args:
        distiller: The `Distiller`; what it is compiled with and its hyperparameters are read when
            a step is traced.
    """

    def __init__(self, distiller: Any):
        self._distiller = distiller
        self._fused = FusedLoss(None, None, [])
        self._tokens: TokenLoss | None = None

    def choose_path(self, loss_weights: Any) -> None:
        """Finds out whether the kernel's one sweep can compute the hard loss too."""
        distiller = self._distiller
        given = distiller.loss, loss_weights, distiller.distillation_losses
        self._tokens = TokenLoss(*given) if distiller.leaves_out_logits else None
        self._fused = FusedLoss(*given)

    def terms(self, batch: Batch, student: Any, rows: Any) -> Terms:
        """The losses of a batch.

        In training these are the whole objective, in an evaluation the student's own loss, or the
        objective, where the teacher runs.

        Args:
            batch: The `Batch`.
            student: The student's `Outputs`.
            rows: Float32 scalar, the samples of the batch.
        """
        if self._tokens is not None:
            return self._token_terms(self._tokens, batch, student, rows)
        if batch.training:
            return self._training_terms(batch, student, rows)
        if self._distiller.evaluation.runs_teacher:
            return self._all_terms(self._teacher(batch, student), student, batch, rows)
        hard = self._hard(batch, student, batch.sample_weight, rows)
        return Terms(hard, hard, [])

    def regularizers(self, y: Any) -> list:
        """What layers add to the loss; those of a student that computes its loss it adds itself."""
        distiller = self._distiller
        if self._asks_student(y):
            return supervised.sums_of(models.losses_outside(distiller, distiller.student))
        return supervised.sums_of(distiller.losses)

    def _training_terms(self, batch, student, rows):
        """The losses of a step of training.

        While `beta` is 0 the teacher does not run, and the student trains exactly as by its own
        `fit`. Not so under XLA: shapes that leave a branch are not constants to it, and the
        gradient of a batch of unknown size does not compile. There the teacher always runs, and
        so it does where a projector penalizes its outputs: `losses` are read outside of a branch.
        """
        distiller = self._distiller
        always = distiller.jit_compile or distiller.weighting is not None
        if always or distiller.loss_list.penalizes_outputs():
            return self._all_terms(self._teacher(batch, student), student, batch, rows)
        y, outputs, sample_weight = batch.labels, student.outputs, batch.sample_weight
        alpha, beta = distiller.mixture()
        fusable = self._is_fusable(student, batch)
        losses = self._fused.others if fusable else distiller.distillation_losses
        # Here, because replicas cannot be summed over inside a condition.
        balance, own = 1.0, None
        if self._asks_student(y):
            own = self._hard(batch, student, sample_weight, rows)
        else:
            balance = hard_balance(distiller.loss, y, outputs, sample_weight, rows)

        def hard():
            if own is not None:
                return own
            return balance * distiller.supervised_loss(y, outputs, sample_weight)

        def with_teacher():
            teacher = self._teacher(batch, student)
            if fusable:
                return self._fused_parts(batch, student, teacher, sample_weight, alpha, beta)
            return separate_parts(hard(), losses, teacher, student, batch, alpha)

        def labels_only():
            return parts_without_teacher(hard(), losses, student, alpha)

        parts = cond(beta != 0, with_teacher, labels_only)
        return self._summed(parts, fusable, student, beta, rows)

    def _token_terms(self, tokens, batch, student, rows):
        """The losses of a batch of language models whose logits are left out."""
        distiller = self._distiller
        tokens.check_batch(batch.labels, batch.sample_weight)
        alpha, beta = distiller.mixture()
        counted = tokens.rows(batch.labels, student, batch.sample_weight, rows, batch.hard_factor)
        if not batch.training and not distiller.evaluation.runs_teacher:
            _, hard, _, sums = tokens.of_labels(counted, student, tf.ones(()), training=False)
            return Terms(hard, hard, [], sums)

        def with_teacher():
            teacher = self._teacher(batch, student)
            three = tokens.of_both(counted, student, teacher, alpha, beta)
            return *three, [means_of(loss, teacher, student, batch) for loss in tokens.others]

        def labels_only():
            three = tokens.of_labels(counted, student, alpha, training=True)
            return *three, without_means(tokens.others, student)

        # Where the teacher always runs: see `_training_terms`.
        always = distiller.jit_compile or distiller.loss_list.penalizes_outputs()
        if always or not batch.training:
            found = with_teacher()
        else:
            found = cond(beta != 0, with_teacher, labels_only)
        total, hard, soft, sums, means = found
        total, values = combined((total, hard, soft, means), tokens.others, student, beta, rows)
        return Terms(total, hard, tokens.insert(values, soft), TokenSums(*sums))

    def _all_terms(self, teacher, student, batch, rows):
        """The losses of a batch for known teacher outputs."""
        distiller = self._distiller
        fusable = batch.training and self._is_fusable(student, batch)
        hard_weight = soft_weight = batch.sample_weight
        if distiller.weighting is not None:
            factors = distiller.weighting.factors(teacher, batch.labels)
            hard_weight, soft_weight = (times(hard_weight, each) for each in factors)
        alpha, beta = distiller.mixture()
        batch = dataclasses.replace(batch, sample_weight=soft_weight)
        if fusable:
            parts = self._fused_parts(batch, student, teacher, hard_weight, alpha, beta)
        else:
            hard = self._hard(batch, student, hard_weight, rows)
            losses = distiller.distillation_losses
            parts = separate_parts(hard, losses, teacher, student, batch, alpha)
        return self._summed(parts, fusable, student, beta, rows)

    def _teacher(self, batch, student):
        return self._distiller.teacher_forward(batch.inputs, batch.labels, student)

    def _hard(self, batch, student, sample_weight, rows):
        """The hard loss's part of the global one, not yet times alpha."""
        distiller, y, outputs = self._distiller, batch.labels, student.outputs
        if self._asks_student(y):
            x, training = batch.inputs, batch.training
            return supervised.own_loss_of(distiller.student, x, y, outputs, sample_weight, training)
        balance = hard_balance(distiller.loss, y, outputs, sample_weight, rows)
        return balance * distiller.supervised_loss(y, outputs, sample_weight)

    def _asks_student(self, y):
        """Whether the student's own `compute_loss` gives the hard loss.

        Without labels only where it is all that there is, and counts: it may need none.
        """
        distiller = self._distiller
        needs_none = distiller.loss is None and traced_value(distiller.alpha_variable) != 0
        return distiller.student_computes_loss and (y is not None or needs_none)

    def _is_fusable(self, student, batch):
        labels, weight = batch.labels, batch.sample_weight
        distiller = self._distiller
        if labels is None or distiller.source.is_sparse or distiller.student_computes_loss:
            return False
        return self._fused.applies(labels, student, weight)

    def _fused_parts(self, batch, student, teacher, hard_weight, alpha, beta):
        three = self._fused.losses_of(batch, student, teacher, hard_weight, alpha, beta)
        return *three, [means_of(loss, teacher, student, batch) for loss in self._fused.others]

    def _summed(self, parts, fusable, student, beta, rows):
        """The step's `Terms`; not inside a condition, where replicas cannot be summed over."""
        _, hard, soft, _ = parts
        losses = self._fused.others if fusable else self._distiller.distillation_losses
        total, values = combined(parts, losses, student, beta, rows)
        return Terms(total, hard, self._fused.insert(values, soft) if fusable else values)


def rows_of(x):
    """The number of rows of a batch, float32; optional inputs may be `None`."""
    first = next(value for value in keras.tree.flatten(x) if value is not None)
    return tf.cast(tf.shape(first)[0], tf.float32)


def means_of(loss, teacher, student, batch):
    """One distillation loss averaged over the rows, for each output that it reads.

    Args:
        loss: A `DistillationLoss`.
        teacher: `Outputs` of the teacher.
        student: `Outputs` of the student.
        batch: A `Batch`; labels and sample weights are `None`, a tensor, or a structure of them
            like the outputs.

    Returns:
        `(means, counts)`, float32 `[outputs]`: the averages, not yet times the loss's weight, and
        over how many valid values each is taken.
    """
    reading = loss.reading
    pairs = list(_pairs(loss.name, reading, teacher, student))
    weights = _sample_weights(reading, student, batch.sample_weight, len(pairs))
    labels = _labels(loss.name, reading, student, batch.labels, len(pairs))
    means, counts = [], []
    for (teacher_outputs, student_outputs), weight, label in zip(
        pairs, weights, labels, strict=True
    ):
        mask = student.mask(reading, student_outputs)
        _check_takes(loss, teacher_outputs)
        context = {"labels": label, "training": batch.training}
        weighted, count = loss.weighted(teacher_outputs, student_outputs, weight, mask, **context)
        means.append(tf.math.divide_no_nan(tf.reduce_sum(weighted), count))
        counts.append(count)
    return tf.stack(means), tf.stack(counts)


def _check_takes(loss, teacher_outputs):
    if isinstance(teacher_outputs, SparseLogits) and not loss.takes_sparse:
        raise ValueError(
            f"Distillation loss {loss.name!r} needs all logits of the teacher; the cache keeps the "
            "largest ones only. Use SoftTargets, or write the cache without top_k."
        )


def _labels(name, reading, student, labels, count):
    """The labels of each output the loss reads; `None` for a loss that takes none."""
    if reading.labels is None or (labels is None and reading.labels == "optional"):
        return [None] * count
    if labels is None:
        raise ValueError(
            f"Distillation loss {name!r} needs labels, and the data has none. Pass (inputs, "
            "labels)."
        )
    if not keras.tree.is_nested(labels):
        return [labels] * count
    found = matching.split_by_output(labels, reading.output, student.outputs, student.names)
    if reading.labels == "required" and any(each is None for each in found):
        raise ValueError(
            f"Distillation loss {name!r} needs labels of each output that it reads, and the "
            "data has none of some. Choose an output with its argument `output`."
        )
    return found


def _pairs(name, reading, teacher, student):
    """The teacher's and the student's tensors that a loss compares."""
    of_teacher, of_student = teacher.read(reading), student.read(reading)
    if len(of_teacher) != len(of_student):
        raise ValueError(
            f"Distillation loss {name!r} reads {len(of_teacher)} outputs of the teacher and "
            f"{len(of_student)} of the student. Choose one of each: its argument `output` names "
            "the student's, `teacher_output` the teacher's where that is called otherwise."
        )
    # Of several outputs each must be compared with its own: see `matching.align_outputs`.
    if len(of_student) > 1 and not matching.is_aligned(teacher.outputs, student.outputs):
        have = [_called(each) for each in (teacher, student)]
        raise ValueError(
            f"The teacher's outputs are {have[0]}, the student's {have[1]}: which belong together "
            "is not known. Give them the same names, or one loss for each: its arguments "
            "`output` and `teacher_output` name them."
        )
    return zip(of_teacher, of_student, strict=True)


def _called(model):
    """The outputs of a model, for a message."""
    outputs = model.outputs
    names = matching.flatten_names(outputs, model.names)
    return sorted(names) if names else f"{len(keras.tree.flatten(outputs))} without names"


def _sample_weights(reading, student, sample_weight, count):
    """The sample weights for each output the loss reads."""
    if not keras.tree.is_nested(sample_weight):
        return [sample_weight] * count
    found = matching.split_by_output(sample_weight, reading.output, student.outputs, student.names)
    if reading.student_layer is None and not reading.is_structure:
        return found
    # One value per sample for several heads: the mean of their weights, of 1 for a head without.
    if all(each is None for each in found):
        return [None] * count
    if len(found) == 1:
        return found * count
    rows = next(tf.shape(each)[:1] for each in found if each is not None)
    of_rows = [tf.ones(rows) if each is None else base.mean_weight(each) for each in found]
    return [tf.add_n(of_rows) / len(of_rows)] * count


def times(sample_weight, factor):
    """Sample weights (`None` for 1, or a structure of them) times a factor for each row."""
    if sample_weight is None:
        return factor
    return keras.tree.map_structure(lambda weight: _product(weight, factor), sample_weight)


def _product(a, b):
    longest = a if len(a.shape) > len(b.shape) else b
    return base.align_weights(a, longest) * base.align_weights(b, longest)


def hard_divisor(loss, y, outputs, sample_weight):
    """What Keras divides the sum of the hard loss's values by, where that is not their number.

    Returns:
        A float32 scalar, to be compared between replicas only; or `None`: by the number of values
        (and for models with several outputs, which are not looked into).
    """
    if y is None or keras.tree.is_nested(outputs) or keras.tree.is_nested(y):
        return None
    reduction = getattr(loss, "reduction", "sum_over_batch_size")
    if reduction == "sum":
        return tf.ones(())
    parts = [] if recorder.mask_of(outputs) is None else [recorder.mask_of(outputs)]
    ignored = getattr(loss, "ignore_class", None)
    if ignored is not None:
        labels = y if len(y.shape) < len(outputs.shape) else tf.squeeze(y, -1)
        parts.append(labels != tf.cast(ignored, y.dtype))
    if reduction == "mean_with_sample_weight" and sample_weight is not None:
        parts.append(sample_weight)
    if not parts:
        return None
    longest = max(parts, key=lambda part: len(part.shape))
    return tf.reduce_sum(math.prod(base.align_weights(part, longest) for part in parts))


def hard_balance(loss, y, outputs, sample_weight, rows):
    """The hard loss's part of the global one: see `replicas.balance`."""
    return distribution.balance(hard_divisor(loss, y, outputs, sample_weight), rows)


def separate_parts(hard, losses, teacher, student, batch, alpha):
    """Parts of a step, each distillation loss by itself: see `combined`."""
    means = [means_of(loss, teacher, student, batch) for loss in losses]
    return alpha * hard, hard, tf.zeros(()), means


def parts_without_teacher(hard, losses, student, alpha):
    """As `separate_parts`, where the teacher does not run: nothing is learned from it."""
    return alpha * hard, hard, tf.zeros(()), without_means(losses, student)


def without_means(losses, student):
    """What `means_of` gives of losses where nothing is learned from the teacher."""
    counts = [len(student.read(loss.reading)) for loss in losses]
    return [(tf.zeros(n), tf.zeros(n)) for n in counts]


def combined(parts, losses, student, beta, rows):
    """The sum of a step's parts, and the value of each loss.

    Args:
        parts: The total so far; the hard loss; the soft loss of the fused path; and of each of
            `losses` what `means_of` gives.
        losses: The distillation losses that are computed by themselves.
        student: `Outputs`.
        beta: Scalar.
        rows: Float32 scalar, the rows of this replica's batch.

    Returns:
        `(total, values)`.
    """
    total, values = parts[0], []
    for loss, (means, counts) in zip(losses, parts[3], strict=True):
        values.append(balanced(loss, means, counts, student, rows))
        factor = beta * keras.ops.convert_to_tensor(loss.weight_variable)
        # A loss of weight 0 does not count, also where it is infinite: 0 * inf is NaN.
        total += tf.math.multiply_no_nan(values[-1], factor)
    return total, values


def balanced(loss, means, counts, student, rows):
    """The value of a loss from the means and counts of `means_of`; the sum over its outputs.

    A replica's mean counts for its part of what the global one is taken over. That is not the
    same for all losses: padding counts in no loss over positions, and in one of pooled features it
    is not seen.
    """
    balance = distribution.balance(counts if _is_masked(loss, student) else None, rows)
    return tf.reduce_sum(balance * means)


def _is_masked(loss, student):
    reading = loss.reading
    masks = (student.mask(reading, values) for values in student.read(reading))
    return reading.leaves_out or any(mask is not None for mask in masks)

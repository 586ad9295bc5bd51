"""Looks at the models' outputs for the first batch of a `fit`, and warns.

The cheap checks of `keras_kd.diagnose`. After the first step both models run once more on its
batch, in inference; no variable of them moves, no state of a recurrent layer and no seed. What is
looked at: the values that each loss on logits reads, with and without labels; the teacher's
accuracy, where the labels are classes; and padding that counts.
"""

import types

import keras
import numpy as np
import tensorflow as tf

from keras_kd import models
from keras_kd._utils import validation
from keras_kd._utils.batches import WatchedBatches, is_arrays, watched_generator
from keras_kd.diagnosis import DiagnosisWarning, first_batch_findings
from keras_kd.diagnosis.first_batch import padding_finding, padding_that_counts, yes_or_no_findings
from keras_kd.losses.reading import EACH_LOGIT, EACH_PROBABILITY, LOGITS
from keras_kd.taps import recorder
from keras_kd.taps.heads import DeferredLogits
from keras_kd.teachers import self_distillation
from keras_kd.training import distribution

# How many logits are looked at where a loss leaves them out: 16 MB of each model.
_LOGITS = 1 << 22


def is_wanted(distiller) -> bool:
    """Whether the first batch of a `fit` is looked at: in the first `fit`, in one process."""
    is_shared = distribution.is_multi_worker(distiller.distribute_strategy)
    return distiller.checks_first_batch and distiller.beta != 0 and not is_shared


class Look(keras.callbacks.Callback):
    """Keeps the first batch that passes, and looks at it when its step is done.

    Args:
        distiller: The `Distiller`.
    """

    def __init__(self, distiller):
        super().__init__()
        self._distiller = distiller
        self._batch, self._is_done = None, False

    def watched(self, given):
        """Data for `fit` that leaves its first batch here. What cannot be watched is not."""
        x, y, weight = (given.get(name) for name in ("x", "y", "sample_weight"))
        if isinstance(x, tf.data.Dataset):
            # Not `next(iter(x))`, after which a dataset that shuffles gives another order.
            return x.enumerate().map(lambda i, *parts: self._passed(i, parts))
        if isinstance(x, keras.utils.PyDataset):
            return WatchedBatches(x, self._keep)
        if isinstance(x, types.GeneratorType):
            return watched_generator(x, self._keep)
        if is_arrays(x) and all(each is None or is_arrays(each) for each in (y, weight)):
            rows = slice(given.get("batch_size") or 32)
            batch = x if y is None else (x, y) if weight is None else (x, y, weight)
            self._batch = keras.tree.map_structure(lambda v: v[rows], batch)
        return x

    def _keep(self, batch):
        self._batch = batch

    def _passed(self, index, parts):
        # `enumerate` gives an element that is a tuple as one.
        element = parts[0] if len(parts) == 1 else parts
        flat = tf.nest.flatten(element, expand_composites=True)

        def keep(*values):
            if self._is_done:  # a later epoch
                return True
            self._batch = tf.nest.pack_sequence_as(element, values, expand_composites=True)
            return True

        kept = tf.cond(
            tf.equal(index, 0),
            lambda: tf.numpy_function(keep, flat, tf.bool),
            lambda: tf.constant(False),
        )
        with tf.control_dependencies([kept]):
            return tf.nest.map_structure(tf.identity, element, expand_composites=True)

    def on_train_batch_end(self, batch, logs=None):
        batch, self._batch = self._batch, None
        if batch is None:
            return
        self._is_done = True
        # In the types of a step: a `teacher_preprocess` may add tensors to the inputs.
        batch = keras.tree.map_structure(_tensor, batch)
        x, y, weight = keras.utils.unpack_x_y_sample_weight(batch)
        with models.without_changes(x):
            student = self._distiller.student_forward(x, training=False)
            teacher = self._distiller.teacher_forward(x, y, student)
        for finding in _findings(self._distiller, teacher, student, y, weight):
            message = f"keras_kd, first batch: {finding.message} {finding.remedy}"
            validation.warn(message, DiagnosisWarning)


def _tensor(value):
    return value if value is None else tf.convert_to_tensor(value)


def _findings(distiller, teacher, student, labels, weight):
    """What is wrong with what each loss reads; each finding once."""
    found, seen = [], set()
    for finding in [
        *_of_values(distiller, teacher, student, labels, weight),
        *_of_padding(distiller, student, labels, weight),
    ]:
        if finding.message not in seen:
            seen.add(finding.message)
            found.append(finding)
    return found


def _of_values(distiller, teacher, student, labels, weight):
    # A teacher that is made of the student knows no more than it.
    if isinstance(distiller.teacher, self_distillation.StudentTeacher) or keras.tree.is_nested(
        student.outputs
    ):
        labels = None
    for loss in distiller.distillation_losses:
        reading = loss.reading
        if reading.student_values is None or isinstance(reading.student_layer, tuple):
            continue
        for pair in zip(teacher.read(reading), student.read(reading), strict=True):
            if all(hasattr(each, "shape") for each in pair):  # not the largest logits of a cache
                counts = _counts(student, reading, pair[1], weight)
                has_labels = reading.is_of_outputs and not reading.has_own_classes
                given = labels if has_labels else None
                (of_teacher, of_student), given, counts = _few_logits(pair, given, counts)
                yield from _of_pair(reading, of_teacher, of_student, given, counts)


def _few_logits(pair, labels, counts):
    """Some positions of logits that are left out; of others all."""
    if not isinstance(pair[1], DeferredLogits):
        return pair, labels, counts
    shape = pair[1].shape
    rows = max(1, _LOGITS // (shape[-1] * int(np.prod(shape[1:-1]))))
    positions = max(1, _LOGITS // shape[-1])

    def cut(value):
        return None if value is None else value[:rows, :positions]

    def few(logits):
        if isinstance(logits, DeferredLogits):
            return DeferredLogits(cut(logits.hidden), logits.head).logits()
        return cut(logits)

    return tuple(map(few, pair)), cut(labels), cut(counts)


def _of_pair(reading, teacher, student, labels, counts):
    """Findings on the two tensors that a loss compares."""
    values = {"teacher": teacher, "student": student}
    values = {role: np.asarray(tf.cast(each, tf.float32)) for role, each in values.items()}
    are_logits = {role: reading.values(role) in (LOGITS, EACH_LOGIT) for role in values}
    if reading.values("student") in (EACH_LOGIT, EACH_PROBABILITY):
        for role, each in values.items():
            each = each if counts is None else each[np.broadcast_to(counts, each.shape[:-1])]
            yield from yes_or_no_findings(role, each, are_logits[role])
    elif all(each.ndim >= 2 and each.shape[-1] >= 2 for each in values.values()):
        if labels is not None:
            labels = labels if _are_classes(labels, teacher) else None
        yield from first_batch_findings(
            values["teacher"],
            values["student"],
            labels,
            are_logits["student"],
            are_logits["teacher"],
            counts,
        )


def _are_classes(labels, outputs):
    shape, logits = np.shape(labels), tuple(outputs.shape)
    is_index = shape in (logits[:-1], (*logits[:-1], 1)) and np.asarray(labels).dtype.kind in "iu"
    return is_index or shape == logits


def _counts(student, reading, values, weight):
    """Which positions count, a boolean array; `None`: all."""
    mask = student.mask(reading, values)
    shape = tuple(values.shape[:-1])
    parts = [] if mask is None else [np.asarray(mask)]
    if weight is not None and not keras.tree.is_nested(weight):
        parts.append(np.asarray(weight) != 0)
    counts = np.ones(shape, bool)
    for part in parts:
        part = part.reshape(part.shape[: len(shape)]) if part.ndim > len(shape) else part
        if part.shape == shape[: part.ndim]:
            counts &= part.reshape(part.shape + (1,) * (len(shape) - part.ndim))
    return counts if parts else None


def _of_padding(distiller, student, labels, weight):
    """Padding that the data tells of by an input, and that counts in a loss."""
    if not isinstance(student.inputs, dict) or keras.tree.is_nested(weight):
        return
    masks = {name: value for name, value in student.inputs.items() if "mask" in name}
    found: dict = {}
    for layer_loss, shape, counts in _positions(distiller, student, labels):
        padded = {x: padding_that_counts(masks[x], shape, weight, counts) for x in masks}
        padded = {x: number for x, number in padded.items() if number is not None}
        # Of several masks one may be another tensor's: a loss that honors one has its own.
        for name, number in padded.items() if all(padded.values()) else ():
            found.setdefault(name, {}).setdefault(layer_loss, number)
    for name, by_loss in found.items():
        size = int(np.size(masks[name]))
        if None in by_loss:
            yield padding_finding(name, size, by_loss[None])
        else:
            yield padding_finding(name, size, max(by_loss.values()), list(by_loss))


def _positions(distiller, student, labels):
    """What the losses read: a loss of inner layers' name, the shape, and which positions count."""
    if distiller.loss is not None and labels is not None:
        for outputs in keras.tree.flatten(student.outputs):
            yield None, outputs.shape, _array(recorder.mask_of(outputs))
    for loss in distiller.distillation_losses:
        reading = loss.reading
        name = None if reading.student_layer is None else loss.name
        for values in student.read(reading):
            if keras.tree.is_nested(values) and not reading.is_sequence:
                continue
            counts = _array(student.mask(reading, values))
            values = values[0] if reading.is_sequence else values
            if not reading.is_attention:
                yield name, values.shape, counts
            elif len(values.shape) == 4:  # each query is a position
                counts = None if counts is None or counts.ndim != 4 else counts.any((1, 3))
                yield name, (values.shape[0], *values.shape[2:]), counts


def _array(mask):
    return None if mask is None else np.asarray(mask)

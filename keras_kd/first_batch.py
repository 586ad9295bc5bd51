"""`FirstBatch`: looks at what the models say of the first batch of a `fit`, and warns."""

import warnings

import keras
import numpy as np
import tensorflow as tf

from keras_kd import fit_arguments, replicas
from keras_kd.diagnosis import DiagnosisWarning, first_batch_findings
from keras_kd.losses import SoftTargets
from keras_kd.teachers import ahead, own_weights


class FirstBatch:
    """Mixin of the distiller: the cheap checks of `keras_kd.diagnose`, in its first `fit`.

    After the first step both models run once more on its batch, in inference. Set
    `distiller.checks_first_batch = False` to leave that out. Classifiers with one output that learn
    from `SoftTargets` are looked at.
    """

    checks_first_batch = True

    def fit(self, *args, **kwargs):
        """As `keras.Model.fit`."""
        if not self._can_look():
            return super().fit(*args, **kwargs)
        given = fit_arguments.bound(args, kwargs)
        look = _Look(self)
        given["x"] = look.watched(given.get("x"), given.get("y"), given.get("batch_size"))
        callbacks = given.get("callbacks")
        if isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks.append(look)
        else:
            given["callbacks"] = [*fit_arguments.callbacks(given), look]
        self.checks_first_batch = False
        return super().fit(**given)

    def _can_look(self):
        if not self.checks_first_batch or self.beta == 0:
            return False
        is_shared = replicas.is_multi_worker(self.distribute_strategy)
        soft = [loss for loss in self.distillation_losses if isinstance(loss, SoftTargets)]
        return bool(soft) and not is_shared and not self._source.model.is_sparse


class _Look(keras.callbacks.Callback):
    """Keeps the first batch that passes, and looks at it when its step is done.

    Args:
        distiller: The `Distiller`.
    """

    def __init__(self, distiller):
        super().__init__()
        self._distiller = distiller
        self._batch, self._is_done = None, False

    def watched(self, x, y, batch_size):
        """Data for `fit` that leaves its first batch here. What cannot be watched is not."""
        if isinstance(x, tf.data.Dataset):
            # Not `next(iter(x))`, after which a dataset that shuffles gives another order.
            return x.enumerate().map(lambda i, *parts: self._passed(i, parts))
        if isinstance(x, keras.utils.PyDataset):
            self._batch = x[0]
        elif ahead.is_arrays(x) and y is not None and ahead.is_arrays(y):
            self._batch = keras.tree.map_structure(lambda v: v[: batch_size or 32], (x, y))
        return x

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
        x, y, _ = keras.utils.unpack_x_y_sample_weight(batch)
        distiller = self._distiller
        student = distiller.study(x, training=False)
        if y is None or keras.tree.is_nested(y) or keras.tree.is_nested(student.outputs):
            return
        teacher = distiller.teach(x, y, student)
        if not _are_classes(y, student.outputs) or keras.tree.is_nested(teacher.outputs):
            return
        soft = [loss for loss in distiller.distillation_losses if isinstance(loss, SoftTargets)]
        # A teacher that is made of the student knows no more than it.
        is_student = isinstance(distiller.teacher, own_weights.OfStudent)
        findings = first_batch_findings(
            np.asarray(tf.cast(teacher.outputs, tf.float32)),
            np.asarray(tf.cast(student.outputs, tf.float32)),
            None if is_student else np.asarray(y),
            soft[0].from_logits,
        )
        for finding in findings:
            warnings.warn(
                f"keras_kd, first batch: {finding.message} {finding.remedy}",
                DiagnosisWarning,
                stacklevel=2,
            )


def _are_classes(labels, outputs):
    shape, logits = np.shape(labels), tuple(outputs.shape)
    is_index = shape in (logits[:-1], (*logits[:-1], 1)) and np.asarray(labels).dtype.kind in "iu"
    return logits[-1] > 1 and (is_index or shape == logits)

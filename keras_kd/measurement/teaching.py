"""What a teacher says of the data that a model is measured on."""

import keras
import numpy as np
import tensorflow as tf

from keras_kd import symbolic_pass
from keras_kd.measurement import selection
from keras_kd.measurement.subjects.keras_model import KerasSubject, by_name, named, tensors
from keras_kd.ops.arguments import invalid
from keras_kd.teachers import base
from keras_kd.teachers.keras_model import adapt


def teacher_of(teacher):
    """What gives a teacher's outputs, of a model, a `Teacher`, a function or an array of them.

    Raises:
        ValueError: It cannot teach, or cannot be compared with.
    """
    if teacher is None:
        return None
    if isinstance(teacher, (np.ndarray, list, tf.Tensor)):
        return _Given(teacher)
    return _Living(teacher)


class _Living:
    """A teacher that runs, or that the batches carry."""

    def __init__(self, teacher):
        self._teacher = adapt(teacher)
        self.name = self._teacher.name
        for flag, why in (
            ("needs_student", "it looks at the student"),
            ("is_sparse", "it keeps the largest logits only"),
        ):
            if getattr(self._teacher, flag):
                raise ValueError(f"The teacher {self.name!r} cannot be compared with: {why}.")
        symbolic_pass.check_built("teacher", teacher)
        self._answer = self._teacher.with_taps([])
        self._model = teacher if isinstance(teacher, keras.Model) else None
        self._subject = None if self._model is None else KerasSubject(self._model)

    def promised(self, inputs, key):
        """The shape of its output that is compared, or `None` where only asking tells."""
        if self._subject is None:
            return None
        outputs = symbolic_pass.check("data", inputs, "teacher", self._model)
        if outputs is None:
            return None
        return tuple(self._compared(by_name(self._model, outputs), key).shape)

    def answer(self, inputs, said, key):
        """Its output that is compared.

        Args:
            inputs: Inputs of a batch, arrays.
            said: What the batch carries of a teacher, or `None`.
            key: `(index, name)` of the model's output.
        """
        if self._subject is not None:
            outputs = self._subject.predict(inputs)
        else:
            lesson = base.Lesson(tensors(inputs), carried=said)
            outputs = named(self._teacher, self._answer(lesson)[0])
        return self._compared(outputs, key)

    @staticmethod
    def _compared(outputs, key):
        if len(outputs) == 1:
            return next(iter(outputs.values()))
        wanted = key[1] if key[1] in outputs else key[0]
        return selection.chosen(outputs, wanted, "The teacher")[1]


class _Given:
    """Outputs that a teacher gave before, row by row of the data."""

    name = "`teacher`"

    def __init__(self, outputs):
        self._outputs, self._used = np.asarray(outputs), 0
        if self._outputs.ndim == 0 or self._outputs.dtype.kind not in "biuf":
            received = f"shape {self._outputs.shape}, {self._outputs.dtype}"
            raise invalid("teacher", "outputs as an array of numbers [rows, ...]", received)
        self.rows_given = len(self._outputs)

    def promised(self, inputs, key):
        """The shape of its outputs."""
        del inputs, key
        return self._outputs.shape

    def answer(self, inputs, said, key):
        """Those of the next rows."""
        del said, key
        start = self._used
        self._used += len(keras.tree.flatten(inputs)[0])
        return self._outputs[start : self._used]

"""How close a model is to its teacher, and what gives the teacher's outputs."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_kd._utils.validation import invalid
from keras_kd.measurement import predictions, reading
from keras_kd.measurement.subjects import KerasSubject, as_tensors, named, outputs_by_name
from keras_kd.models import symbolic_pass
from keras_kd.teachers import protocol
from keras_kd.teachers.keras_model import adapt


def teacher_of(teacher: Any) -> "ReferenceTeacher | None":
    """What gives a teacher's outputs, of a model, a `Teacher`, a function or an array of them.

    Raises:
        ValueError: It cannot teach, or cannot be compared with.
    """
    if teacher is None:
        return None
    if isinstance(teacher, (np.ndarray, list, tf.Tensor)):
        return GivenOutputs(teacher)
    return RunningTeacher(teacher)


class ReferenceTeacher:
    """Base class of what a model is compared with.

    Attributes:
        name: A name for messages.
    """

    name = ""

    def output_shape(self, inputs: Any, key: tuple[int, str]) -> tuple | None:
        """The shape of the output that is compared, or `None` where only a run shows it.

        Args:
            inputs: `keras.KerasTensor`s in the structure of the data.
            key: `(index, name)` of the model's output.
        """
        raise NotImplementedError

    def predict_batch(self, inputs: Any, attached: Any, key: tuple[int, str]) -> np.ndarray:
        """The output that is compared.

        Args:
            inputs: Inputs of a batch, arrays.
            attached: The teacher outputs that the batch carries, or `None`.
            key: `(index, name)` of the model's output.
        """
        raise NotImplementedError


class RunningTeacher(ReferenceTeacher):
    """A teacher that runs, or whose outputs the batches carry."""

    def __init__(self, teacher: Any):
        self._teacher = adapt(teacher)
        self.name = self._teacher.name
        for flag, why in (
            ("needs_student", "it looks at the student"),
            ("is_sparse", "it keeps the largest logits only"),
        ):
            if getattr(self._teacher, flag):
                raise ValueError(f"The teacher {self.name!r} cannot be compared with: {why}.")
        symbolic_pass.check_built("teacher", teacher)
        self._forward = self._teacher.with_taps([])
        self._model = teacher if isinstance(teacher, keras.Model) else None
        self._subject = None if self._model is None else KerasSubject(self._model)

    def output_shape(self, inputs: Any, key: tuple[int, str]) -> tuple | None:
        if self._subject is None:
            return None
        outputs = symbolic_pass.trace_outputs("data", inputs, "teacher", self._model)
        if outputs is None:
            return None
        return tuple(self._compared(outputs_by_name(self._model, outputs), key).shape)

    def predict_batch(self, inputs: Any, attached: Any, key: tuple[int, str]) -> np.ndarray:
        if self._subject is not None:
            outputs = self._subject.predict(inputs)
        else:
            batch = protocol.TeacherInputs(as_tensors(inputs), attached=attached)
            outputs = named(self._teacher, self._forward(batch)[0])
        return self._compared(outputs, key)

    @staticmethod
    def _compared(outputs, key):
        if len(outputs) == 1:
            return next(iter(outputs.values()))
        wanted = key[1] if key[1] in outputs else key[0]
        return reading.choose_output(outputs, wanted, "The teacher")[1]


class GivenOutputs(ReferenceTeacher):
    """Outputs that a teacher gave before, for the samples of the data in their order."""

    name = "`teacher`"

    def __init__(self, outputs: Any):
        self._outputs, self._used = np.asarray(outputs), 0
        if self._outputs.ndim == 0 or self._outputs.dtype.kind not in "biuf":
            received = f"shape {self._outputs.shape}, {self._outputs.dtype}"
            raise invalid("teacher", "outputs as an array of numbers [samples, ...]", received)
        self.rows_given = len(self._outputs)

    def output_shape(self, inputs: Any, key: tuple[int, str]) -> tuple | None:
        del inputs, key
        return self._outputs.shape

    def predict_batch(self, inputs: Any, attached: Any, key: tuple[int, str]) -> np.ndarray:
        del attached, key
        start = self._used
        self._used += len(keras.tree.flatten(inputs)[0])
        return self._outputs[start : self._used]


def measure_agreement(
    of_model: predictions.Rows, outputs: Any, from_logits: bool, name: str = "The teacher"
) -> dict[str, float]:
    """The model against its teacher, means over the samples with their weights.

    `agreement`: the share of samples of the same class (of several labels: of labels).
    `kl = sum_c p_c (log p_c - log q_c)` in nats, teacher p, model q, at temperature 1; a
    probability of 0 counts as exp(-104); of several labels it is summed over them.
    `mean_abs_difference`: of the probabilities `|p_c - q_c|`, or of the numbers of a regression.

    Args:
        of_model: The samples that count.
        outputs: The teacher's outputs for all samples of the data.
        from_logits: Whether they are logits.
        name: The teacher's name, for errors.

    Returns:
        A dict; only `mean_abs_difference` of a regression.
    """
    values = predictions.flatten_outputs(of_model.task, name, outputs)
    if len(values) != len(of_model.counted):
        raise ValueError(
            f"{name} gives {len(values)} outputs where the model gives {len(of_model.counted)}."
        )
    made = predictions.convert_outputs(of_model.task, name, values[of_model.counted], from_logits)
    if made.shape != of_model.outputs.shape:
        raise _other_width(name, made.shape[1], of_model.classes)
    if of_model.task == "regression":
        return {"mean_abs_difference": _mean(abs(made - of_model.values), of_model.weights)}
    return _of_classes(made, of_model)


def check_width(width: int | None, task: str | None, shape: Any, name: str = "The teacher") -> None:
    """Raises if a teacher's outputs cannot be those of a model.

    Args:
        width: The size of the last axis of the teacher's outputs.
        task: One of `tasks.NUMBERS`.
        shape: The shape of the model's outputs, without the batch size.
        name: The teacher's name, for errors.
    """
    if task == "binary" or not shape or not width or width == shape[-1]:
        return
    raise _other_width(name, width, shape[-1])


def _other_width(name, width, classes):
    return ValueError(
        f"{name} has {width} outputs per sample where the model has {classes}: they cannot be "
        "compared. Pass a teacher of the same classes, or teacher=None."
    )


def _of_classes(teacher, of_model):
    logs, own = (
        predictions.log_probabilities(teacher),
        predictions.log_probabilities(of_model.logits),
    )
    shares, weights = np.exp(logs), of_model.weights
    same = teacher.argmax(axis=-1) == of_model.logits.argmax(axis=-1)
    divergence = (shares * (logs - own)).sum(axis=-1)
    divergence = divergence.reshape(len(weights), -1).sum(axis=-1)
    return {
        "agreement": _mean(same, weights),
        "kl": _mean(divergence, weights),
        "mean_abs_difference": _mean(abs(shares - np.exp(own)), weights),
    }


def _mean(values, weights):
    means = values.reshape(len(values), -1).mean(axis=-1)
    return float(np.average(means, weights=weights))

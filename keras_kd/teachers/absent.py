"""`AbsentTeacher`: stands for a teacher that was not saved, until it is given back."""

import keras
import tensorflow as tf

from keras_kd import models
from keras_kd.ops.sparse_logits import SparseLogits
from keras_kd.teachers import base


class AbsentTeacher(base.Teacher):
    """Knows what the teacher's outputs and layers look like, so that losses can be built.

    Args:
        told: Of `told`, and `fingerprint`.
        why: A sentence: why it is absent.
    """

    def __init__(self, told, why):
        super().__init__(name="absent_teacher")
        self._told, self.why = models.Untracked(told), why
        self.fingerprint_of_teacher = told.get("fingerprint")
        self.is_sparse = bool(told.get("is_sparse"))

    @property
    def told(self):
        """What a distiller saves of it again."""
        return self._told.model

    def check_can_teach(self):
        raise ValueError(
            f"{self.why} Give it back before the student is trained or compared with it: "
            "distiller.set_teacher(teacher)."
        )

    def input_specs(self):
        return {}  # nothing is asked

    def resolve(self, layer):
        if str(layer) not in self.told.get("taps", {}):
            raise ValueError(
                f"{self.why} Of its layers it is known how {sorted(self.told.get('taps', {}))} "
                f"look, not {str(layer)!r}."
            )
        return str(layer)

    def with_taps(self, layers):
        def answer(lesson):
            if not lesson.is_rehearsal or "outputs" not in self.told:
                self.check_can_teach()
            outputs = _zeros(self.told["outputs"], lesson.inputs)
            if self.is_sparse:
                outputs = SparseLogits(**outputs)
            taps = self.told["taps"]
            return outputs, {layer: _zeros(taps[layer], lesson.inputs) for layer in layers}

        return answer

    @property
    def output_names(self):
        return self.told.get("names")

    def last_activation(self, output=None):
        return self.told.get("activations", {}).get("" if output is None else str(output))


def told(outputs, source):
    """What a rehearsal has seen of a teacher, for JSON.

    Args:
        outputs: Its `Outputs`.
        source: The `Teacher`.
    """
    values = vars(outputs.outputs) if source.is_sparse else outputs.outputs
    keys = [] if outputs.names is None else outputs.names
    return {
        "outputs": _specs(values),
        "taps": {str(layer): _specs(value) for layer, value in outputs.taps.items()},
        "names": None if outputs.names is None else list(outputs.names),
        "is_sparse": source.is_sparse,
        "activations": {"": source.last_activation()}
        | ({str(key): source.last_activation(key) for key in keys} if len(keys) > 1 else {}),
    }


def _specs(value):
    if isinstance(value, dict):
        return {"dict": {key: _specs(each) for key, each in value.items()}}
    if isinstance(value, (list, tuple)):
        return {"list": [_specs(each) for each in value]}
    if value is None:
        return None
    dtype = keras.backend.standardize_dtype(value.dtype)
    return {"shape": [None, *value.shape[1:]], "dtype": dtype}


def _zeros(specs, inputs):
    if specs is None:
        return None
    if "dict" in specs:
        return {key: _zeros(each, inputs) for key, each in specs["dict"].items()}
    if "list" in specs:
        return [_zeros(each, inputs) for each in specs["list"]]
    rows = tf.shape(keras.tree.flatten(inputs)[0])[:1]
    sizes = [1 if size is None else size for size in specs["shape"][1:]]
    zeros = tf.zeros(tf.concat([rows, sizes], 0), specs["dtype"])
    # Of unknown size where the teacher's is: 1 would not be the student's.
    return tf.compat.v1.placeholder_with_default(zeros, specs["shape"])

"""Teachers that need no second model: the student's own deepest exit, and a virtual one."""

import keras
import tensorflow as tf

from keras_kd import checks, models
from keras_kd.losses import labels as labels_of
from keras_kd.losses.base import non_negative
from keras_kd.taps import tap
from keras_kd.teachers import base


@keras.saving.register_keras_serializable(package="keras_kd")
class DeepestExit(base.Teacher):
    """One of the student's own outputs teaches all of them (BYOT).

    A model with exits after shallower layers (`keras_kd.students.add_exits` makes one) learns from
    its own last output: the distillation losses compare each exit with it, and hints may compare a
    layer with a deeper one of the same model. Everything comes of the student's one forward pass;
    no gradient flows into what teaches.

    Args:
        output: The output that teaches: a name, or an index into a list. Default: the last one.
        name: As of `Teacher`.

    Raises:
        ValueError: When the distiller is built: the student has no such output, or only one.

    Example:

    ```python
    import keras
    import keras_kd as kd

    inputs = keras.Input((8,))
    shallow = keras.layers.Dense(16, activation="relu")(inputs)
    deep = keras.layers.Dense(16, activation="relu")(shallow)
    exits = {"early": keras.layers.Dense(10)(shallow), "final": keras.layers.Dense(10)(deep)}
    student = keras.Model(inputs, exits)
    distiller = kd.Distiller(kd.teachers.DeepestExit("final"), student)
    ```

    Reference: Zhang et al., "Be Your Own Teacher", https://arxiv.org/abs/1905.08094
    """

    needs_student = True

    def __init__(self, output=None, name="deepest_exit", **kwargs):
        super().__init__(None, name, **kwargs)
        self.output_key = checks.output_key("output", output)
        self._student = models.Untracked(None)

    def meet(self, student):
        outputs = getattr(student, "outputs", None)
        if outputs is not None and len(outputs) < 2:
            raise ValueError(
                f"DeepestExit teaches the other outputs of the student {student.name!r}, which has "
                "one only. Give it exits: keras_kd.students.add_exits(student, layers)."
            )
        if self._student.model not in (None, student):
            raise ValueError("This DeepestExit teaches another student. Make one for each.")
        self._student = models.Untracked(student)

    def answer(self, lesson):
        outputs, names = lesson.student.outputs, lesson.student.names
        if not keras.tree.is_nested(outputs):
            raise ValueError("DeepestExit needs a student with several outputs; it has one.")
        key = self.output_key
        if key is None:
            key = names[-1] if names else len(keras.tree.flatten(outputs)) - 1
        final = models.flat_outputs(outputs, key, names)[0]
        return keras.tree.map_structure(lambda _: final, outputs)

    def input_specs(self):
        return {}  # the student is asked

    def resolve(self, layer):
        return tap.resolve(self._student.model, layer)[0]

    def with_taps(self, layers):
        return lambda lesson: (
            self.answer(lesson),
            {layer: lesson.student.taps[layer] for layer in layers},
        )

    def student_layers(self, layers):
        return list(layers)

    def get_config(self):
        config = super().get_config()
        del config["preprocess"]
        return {**config, "output": self.output_key}


@keras.saving.register_keras_serializable(package="keras_kd")
class VirtualTeacher(base.Teacher):
    """A teacher made of the labels: right with a given confidence, and no opinion on the rest.

    Its probability is `confidence` for the label's class, and the rest is spread evenly over the
    others; its logits are the logarithms. With `SoftTargets(temperature=1)` this is label
    smoothing; with a temperature above, which makes it less sure, "teacher-free" distillation.
    Rows whose label is no class, such as -1 of rows without a label, get all classes alike.

    Args:
        confidence: From above 0 to below 1; the paper advises 0.9 and more.
        name: As of `Teacher`.

    Raises:
        ValueError: `confidence` is out of its range; in `fit`: the data has no labels.

    Example:

    ```python
    import keras
    import keras_kd as kd

    student = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    soft_targets = kd.losses.SoftTargets(temperature=20.0)
    distiller = kd.Distiller(kd.teachers.VirtualTeacher(0.95), student, soft_targets)
    ```

    Reference: Yuan et al., "Revisiting Knowledge Distillation via Label Smoothing
    Regularization", https://arxiv.org/abs/1909.11723
    """

    needs_student = True

    def __init__(self, confidence=0.9, name="virtual_teacher", **kwargs):
        super().__init__(None, name, **kwargs)
        if not 0 < non_negative("confidence", confidence) < 1:
            raise ValueError(
                "Invalid value for argument `confidence`. Expected a number between 0 and 1, both "
                f"excluded. Received: confidence={confidence}"
            )
        self.confidence = float(confidence)

    def answer(self, lesson):
        if lesson.labels is None:
            raise ValueError(
                "VirtualTeacher teaches what the labels say, and the data has none. Pass (inputs, "
                "labels)."
            )
        return keras.tree.map_structure(self._logits, lesson.student.outputs, lesson.labels)

    def _logits(self, outputs, labels):
        classes = outputs.shape[-1]
        labels = labels_of.classes(labels, outputs)
        others = (1.0 - self.confidence) / max(classes - 1, 1)
        is_class = (labels >= 0) & (labels < classes)
        hot = tf.one_hot(labels, classes, self.confidence, others)
        return tf.math.log(tf.where(is_class[..., None], hot, 1.0 / classes))

    def input_specs(self):
        return {}  # it looks at labels only

    def resolve(self, layer):
        raise ValueError(
            f"A distillation loss reads the teacher's layer {str(layer)!r}, but a VirtualTeacher "
            "has no layers."
        )

    def get_config(self):
        config = super().get_config()
        del config["preprocess"]
        return {**config, "confidence": self.confidence}

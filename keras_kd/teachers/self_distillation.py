"""Teachers that need no second model: earlier weights, the deepest exit, a virtual one."""

from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_kd import models
from keras_kd._utils import validation
from keras_kd._utils.validation import invalid, non_negative
from keras_kd.losses import base, shapes
from keras_kd.models import cloning
from keras_kd.taps import tap
from keras_kd.teachers import keras_model, protocol


class StudentTeacher(keras_model.KerasTeacher):
    """A model of the student's architecture, whose weights come from the student.

    Args:
        student: The student, which is copied; or with `copy=False` the model that teaches.
        copy: Whether to copy.
        name: See `Teacher`.
    """

    is_of_student = True

    def __init__(
        self, student: keras.Model, copy: bool = True, name: str | None = None, **kwargs: Any
    ) -> None:
        validation.model("student", student)
        copy = validation.boolean("copy", copy)
        with student.distribute_strategy.scope():
            model = cloning.with_weights(student) if copy else student
        super().__init__(model, name=name, **kwargs)
        self._copied = models.Untracked(student if copy else None)

    def bind(self, student: keras.Model) -> None:
        own, other = ([tuple(v.shape) for v in model.weights] for model in (self.model, student))
        if own != other:
            raise ValueError(
                f"{type(self).__name__} was made of another model than the student: the shapes of "
                f"their weights differ. Make it of the student: "
                f"keras_kd.teachers.{type(self).__name__}(student)."
            )

    def _pairs(self, student: keras.Model) -> tuple[list, list]:
        """`(own variable, student's variable)`, trainable ones and others."""
        own = self.model
        # By position among all weights: a layer may be frozen in one of the two only.
        trained = {id(variable) for variable in student.trainable_variables}
        pairs = list(zip(own.weights, student.weights, strict=True))
        return (
            [pair for pair in pairs if id(pair[1]) in trained],
            [pair for pair in pairs if id(pair[1]) not in trained],
        )

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update({"student": config.pop("model"), "copy": False})
        return config


@keras.saving.register_keras_serializable(package="keras_kd")
class EMA(StudentTeacher):
    """The running average of the student's weights teaches the student (mean teacher).

    After each update of the student `weight <- d weight + (1 - d) student's weight` for the weights
    that are trained; the others (statistics of batch normalization) are copied. `d` is `decay`, or,
    early, `(1 + t) / (10 + t)` after `t` updates, so that the random weights of the start are
    forgotten. A step that only accumulates gradients does not count.

    Args:
        student: The student model, built. It is copied.
        decay: Between 0 and 1, near 1. Live: assign `teacher.decay`, or let
            `keras_kd.callbacks.DecaySchedule` do it.
        warm_up: Whether early steps take the smaller decay.
        copy: `False`: `student` itself is the model that teaches, and a student of the same
            architecture is trained.
        name: See `Teacher`.

    Raises:
        ValueError: `decay` is not between 0 and 1, or the student cannot be copied; when the
            distiller is built: it was made of another model than the student, and copied.

    Example:

    ```python
    import keras
    import keras_kd as kd

    student = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    distiller = kd.Distiller(kd.teachers.EMA(student, decay=0.99), student)
    ```

    Reference: Tarvainen, Valpola, "Mean teachers are better role models",
    https://arxiv.org/abs/1703.01780
    """

    def __init__(
        self,
        student: keras.Model,
        decay: float = 0.999,
        warm_up: bool = True,
        copy: bool = True,
        name: str = "ema_teacher",
        **kwargs: Any,
    ) -> None:
        decay = checked_decay(decay)
        super().__init__(student, copy, name, **kwargs)
        self.warm_up = validation.boolean("warm_up", warm_up)
        with self.model.distribute_strategy.scope():
            self.decay_variable = self._add_scalar("decay", decay, "float32")
            self.steps = self._add_scalar("steps", 0, "int64")

    def _add_scalar(self, name: str, value: float, dtype: str) -> keras.Variable:
        return self.add_weight(
            name=name,
            shape=(),
            initializer=keras.initializers.Constant(value),
            dtype=dtype,
            trainable=False,
            autocast=False,
        )

    @property
    def decay(self) -> float:
        """The decay; assign a number between 0 and 1 to change it."""
        return base.read_number(self.decay_variable)

    @decay.setter
    def decay(self, value: float) -> None:
        self.decay_variable.assign(checked_decay(value))

    def bind(self, student: keras.Model) -> None:
        super().bind(student)
        copied = self._copied.value
        if copied in (None, student) or not self._differs_from(student):
            return
        raise ValueError(
            f"EMA was made of the model {copied.name!r}, and the student is another one, "
            f"{student.name!r}, with other weights: the average would begin with weights that it "
            "never had. Make it of the student: keras_kd.teachers.EMA(student). If that model is "
            "meant to teach as it is: keras_kd.teachers.EMA(model, copy=False)."
        )

    def _differs_from(self, student: keras.Model) -> bool:
        pairs = zip(self.model.weights, student.weights, strict=True)
        return any(not np.array_equal(*map(keras.ops.convert_to_numpy, pair)) for pair in pairs)

    def update(self, student: keras.Model) -> None:
        decay = tf.convert_to_tensor(keras.ops.convert_to_tensor(self.decay_variable))
        steps = tf.cast(keras.ops.convert_to_tensor(self.steps), tf.float32)
        if self.warm_up:
            decay = tf.minimum(decay, (1.0 + steps) / (10.0 + steps))
        trained, others = self._pairs(student)

        def move(own: Any, new: Any) -> None:
            own.assign(own + tf.cast(1.0 - decay, own.dtype) * (tf.cast(new, own.dtype) - own))

        def copy(own: Any, new: Any) -> None:
            own.assign(tf.cast(new, own.dtype))

        def count(own: Any, one: Any) -> None:
            own.assign_add(one)

        _update([*((move, *pair) for pair in trained), *((copy, *pair) for pair in others)])
        _update([(count, self.steps, tf.ones((), tf.int64))])

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update({"decay": float(self.decay), "warm_up": self.warm_up})
        return config


@keras.saving.register_keras_serializable(package="keras_kd")
class Snapshot(StudentTeacher):
    """The student as it was at an earlier time teaches the student.

    `keras_kd.callbacks.SnapshotTeacher` takes the snapshots, for instance after each epoch; `take`
    takes one by hand.

    Args:
        student: The student model, built. It is copied.
        copy: See `EMA`.
        name: See `Teacher`.

    Raises:
        ValueError: The student cannot be copied.

    Example:

    ```python
    import keras
    import keras_kd as kd

    student = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    distiller = kd.Distiller(kd.teachers.Snapshot(student), student)
    callbacks = [kd.callbacks.SnapshotTeacher()]  # pass them to fit
    ```

    Reference: Kim et al., "Self-Knowledge Distillation with Progressive Refinement of Targets",
    https://arxiv.org/abs/2006.12000
    """

    def __init__(
        self,
        student: keras.Model,
        copy: bool = True,
        name: str = "snapshot_teacher",
        **kwargs: Any,
    ) -> None:
        super().__init__(student, copy, name, **kwargs)

    def take(self, student: keras.Model) -> None:
        """Copies the student's current weights."""
        cloning.give_weights(self.model, student)


def _update(changes: list[tuple[Callable, Any, Any]]) -> None:
    """Applies `(function, own variable, new value)`, also inside of a replica of a strategy."""
    pairs = [(function, own.value, _value(new)) for function, own, new in changes]
    if tf.distribute.in_cross_replica_context() or not tf.distribute.has_strategy():
        for function, own, new in pairs:
            function(own, new)
        return

    def update(strategy: tf.distribute.Strategy) -> None:
        for function, own, new in pairs:
            strategy.extended.update(own, function, args=(new,), group=False)

    # Mirrored variables are changed by all replicas together; they are not passed as arguments,
    # which `merge_call` would gather from the replicas.
    tf.distribute.get_replica_context().merge_call(update)


def _value(value: Any) -> Any:
    return value.value if isinstance(value, keras.Variable) else value


def checked_decay(decay: float, name: str = "decay") -> float:
    """Returns a decay from 0 to below 1, or raises; `name` is that of the argument."""
    if validation.non_negative(name, decay) >= 1:
        raise invalid(name, "a number from 0 to below 1", decay)
    return float(decay)


@keras.saving.register_keras_serializable(package="keras_kd")
class DeepestExit(protocol.Teacher):
    """One of the student's own outputs teaches all of them (BYOT).

    A model with exits after shallower layers (`keras_kd.students.add_exits` makes one) learns from
    its own last output: the distillation losses compare each exit with it, and hints may compare a
    layer with a deeper one of the same model. Everything comes from the student's one forward
    pass; no gradient flows into the output that teaches.

    Args:
        output: The output that teaches: a name, or an index into a list. Default: the last one.
        name: See `Teacher`.

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

    def __init__(
        self, output: str | int | None = None, name: str = "deepest_exit", **kwargs: Any
    ) -> None:
        super().__init__(None, name, **kwargs)
        self.output_key = validation.output_key("output", output)
        self._student = models.Untracked(None)

    def bind(self, student: keras.Model) -> None:
        outputs = getattr(student, "outputs", None)
        if outputs is not None and len(outputs) < 2:
            raise ValueError(
                f"DeepestExit teaches the other outputs of the student {student.name!r}, which has "
                "only one. Give it exits: keras_kd.students.add_exits(student, layers)."
            )
        if self._student.value not in (None, student):
            raise ValueError(
                "This DeepestExit already teaches another student. Make one for each student."
            )
        self._student = models.Untracked(student)

    def predict_batch(self, batch: protocol.TeacherInputs) -> Any:
        outputs, names = batch.student.outputs, batch.student.names
        if not keras.tree.is_nested(outputs):
            raise ValueError("DeepestExit needs a student with several outputs; it has one.")
        key = self.output_key
        if key is None:
            key = names[-1] if names else len(keras.tree.flatten(outputs)) - 1
        final = models.flat_outputs(outputs, key, names)[0]
        return keras.tree.map_structure(lambda _: final, outputs)

    def input_specs(self) -> dict[str, Any]:
        return {}  # the student's outputs are used

    def resolve(self, layer: Any) -> Any:
        return tap.resolve(self._student.value, layer)[0]

    def with_taps(self, layers: list) -> protocol.Forward:
        return lambda batch: (
            self.predict_batch(batch),
            {layer: batch.student.taps[layer] for layer in layers},
        )

    def student_layers(self, layers: Iterable) -> list:
        return list(layers)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["preprocess"]
        return {**config, "output": self.output_key}


@keras.saving.register_keras_serializable(package="keras_kd")
class VirtualTeacher(protocol.Teacher):
    """A teacher made of the labels: right with a given confidence, uniform over the other classes.

    Its probability is `confidence` for the label's class, and the rest is spread evenly over the
    others; its logits are the logarithms. With `SoftTargets(temperature=1)` this is label
    smoothing; with a temperature above 1, which softens it, "teacher-free" distillation.
    Samples whose label is not a class, such as -1 for an unlabeled sample, get a uniform
    distribution.

    Args:
        confidence: From above 0 to below 1; the paper advises 0.9 and more.
        name: See `Teacher`.

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

    def __init__(
        self, confidence: float = 0.9, name: str = "virtual_teacher", **kwargs: Any
    ) -> None:
        super().__init__(None, name, **kwargs)
        if not 0 < non_negative("confidence", confidence) < 1:
            raise invalid("confidence", "a number between 0 and 1, both excluded", confidence)
        self.confidence = float(confidence)

    def predict_batch(self, batch: protocol.TeacherInputs) -> Any:
        if batch.labels is None:
            raise ValueError(
                "VirtualTeacher is made of the labels, and the data has none. Pass (inputs, "
                "labels)."
            )
        return keras.tree.map_structure(self._logits, batch.student.outputs, batch.labels)

    def _logits(self, outputs: tf.Tensor, labels: Any) -> tf.Tensor:
        classes = outputs.shape[-1]
        labels = shapes.class_indices(labels, outputs)
        others = (1.0 - self.confidence) / max(classes - 1, 1)
        is_class = (labels >= 0) & (labels < classes)
        hot = tf.one_hot(labels, classes, self.confidence, others)
        return tf.math.log(tf.where(is_class[..., None], hot, 1.0 / classes))

    def input_specs(self) -> dict[str, Any]:
        return {}  # it reads labels only

    def resolve(self, layer: Any) -> Any:
        raise ValueError(
            f"A distillation loss reads the teacher's layer {str(layer)!r}, but a VirtualTeacher "
            "has no layers."
        )

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["preprocess"]
        return {**config, "confidence": self.confidence}

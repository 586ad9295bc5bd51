"""Teachers made of the student's own earlier weights: a running average, or a snapshot."""

import keras
import numpy as np
import tensorflow as tf

from keras_kd import checks, copies, models
from keras_kd.losses import base as loss_base
from keras_kd.ops.arguments import invalid
from keras_kd.teachers import keras_model


class OfStudent(keras_model.KerasTeacher):
    """A model of the student's architecture, whose weights come from the student.

    Args:
        student: The student, which is copied; or with `copy=False` the model that teaches.
        copy: Whether to copy.
        name: As of `Teacher`.
    """

    def __init__(self, student, copy=True, name=None, **kwargs):
        if not isinstance(student, keras.Model):
            raise ValueError(
                "`student` must be the keras.Model that is trained. "
                f"Received: student={student!r} of type {type(student).__name__}"
            )
        copy = checks.boolean("copy", copy)
        with student.distribute_strategy.scope():
            model = copies.with_weights(student) if copy else student
        super().__init__(model, name=name, **kwargs)
        self._copied = models.Untracked(student if copy else None)

    is_of_student = True

    def meet(self, student):
        shapes = [[tuple(v.shape) for v in model.weights] for model in (self.model, student)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"{type(self).__name__} was made of another model than the student: the shapes of "
                f"their weights differ. Make it of the student: "
                f"keras_kd.teachers.{type(self).__name__}(student)."
            )

    def _pairs(self, student):
        """`(own variable, student's variable)`, trainable ones and others."""
        own = self.model
        # By position among all weights: a layer may be frozen in one of the two only.
        trained = {id(variable) for variable in student.trainable_variables}
        pairs = list(zip(own.weights, student.weights, strict=True))
        return (
            [pair for pair in pairs if id(pair[1]) in trained],
            [pair for pair in pairs if id(pair[1]) not in trained],
        )

    def get_config(self):
        config = super().get_config()
        config.update({"student": config.pop("model"), "copy": False})
        return config


@keras.saving.register_keras_serializable(package="keras_kd")
class EMA(OfStudent):
    """The running average of the student's weights teaches the student (mean teacher).

    After each update of the student `weight <- d weight + (1 - d) student's weight` for the weights
    that are trained; the others (statistics of batch normalisation) are copied. `d` is `decay`, or,
    early, `(1 + t) / (10 + t)` after `t` updates, so that the random weights of the start are
    forgotten. A step that only accumulates gradients is no update.

    Args:
        student: The student model, built. It is copied.
        decay: Between 0 and 1, near 1. Live: assign `teacher.decay`, or let
            `keras_kd.callbacks.DecaySchedule` do it.
        warm_up: Whether early steps take the smaller decay.
        copy: `False`: `student` itself is the model that teaches, as it is; another of the same
            architecture is trained.
        name: As of `Teacher`.

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

    def __init__(self, student, decay=0.999, warm_up=True, copy=True, name="ema_teacher", **kwargs):
        decay = checked_decay(decay)
        super().__init__(student, copy, name, **kwargs)
        self.warm_up = checks.boolean("warm_up", warm_up)
        with self.model.distribute_strategy.scope():
            self.decay_variable = self._number("decay", decay, "float32")
            self.steps = self._number("steps", 0, "int64")

    def _number(self, name, value, dtype):
        return self.add_weight(
            name=name,
            shape=(),
            initializer=keras.initializers.Constant(value),
            dtype=dtype,
            trainable=False,
            autocast=False,
        )

    @property
    def decay(self):
        """The decay; assign a number between 0 and 1 to change it."""
        return loss_base.read(self.decay_variable)

    @decay.setter
    def decay(self, value):
        self.decay_variable.assign(checked_decay(value))

    def meet(self, student):
        super().meet(student)
        copied = self._copied.model
        if copied in (None, student) or not self._differs_from(student):
            return
        raise ValueError(
            f"EMA was made of the model {copied.name!r}, and the student is another one, "
            f"{student.name!r}, with other weights: the average would begin with weights that it "
            "never had. Make it of the student: keras_kd.teachers.EMA(student). If that model "
            "shall teach as it is: keras_kd.teachers.EMA(model, copy=False)."
        )

    def _differs_from(self, student):
        pairs = zip(self.model.weights, student.weights, strict=True)
        return any(not np.array_equal(*map(keras.ops.convert_to_numpy, pair)) for pair in pairs)

    def learn(self, student):
        decay = tf.convert_to_tensor(keras.ops.convert_to_tensor(self.decay_variable))
        steps = tf.cast(keras.ops.convert_to_tensor(self.steps), tf.float32)
        if self.warm_up:
            decay = tf.minimum(decay, (1.0 + steps) / (10.0 + steps))
        trained, others = self._pairs(student)

        def move(own, new):
            own.assign(own + tf.cast(1.0 - decay, own.dtype) * (tf.cast(new, own.dtype) - own))

        def take(own, new):
            own.assign(tf.cast(new, own.dtype))

        def count(own, one):
            own.assign_add(one)

        _update([*((move, *pair) for pair in trained), *((take, *pair) for pair in others)])
        _update([(count, self.steps, tf.ones((), tf.int64))])

    def get_config(self):
        config = super().get_config()
        config.update({"decay": float(self.decay), "warm_up": self.warm_up})
        return config


@keras.saving.register_keras_serializable(package="keras_kd")
class Snapshot(OfStudent):
    """The student as it was at an earlier time teaches the student.

    `keras_kd.callbacks.SnapshotTeacher` takes the snapshots, for instance after each epoch; `take`
    takes one by hand.

    Args:
        student: The student model, built. It is copied.
        copy: As of `EMA`.
        name: As of `Teacher`.

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

    def __init__(self, student, copy=True, name="snapshot_teacher", **kwargs):
        super().__init__(student, copy, name, **kwargs)

    def take(self, student):
        """Takes the student's present weights over."""
        copies.give_weights(self.model, student)


def _update(changes):
    """Applies `(function, own variable, new value)`, also inside of a replica of a strategy."""
    pairs = [(function, own.value, _value(new)) for function, own, new in changes]
    if tf.distribute.in_cross_replica_context() or not tf.distribute.has_strategy():
        for function, own, new in pairs:
            function(own, new)
        return

    def update(strategy):
        for function, own, new in pairs:
            strategy.extended.update(own, function, args=(new,), group=False)

    # Mirrored variables are changed by all replicas together; they are not passed as arguments,
    # which `merge_call` would gather from the replicas.
    tf.distribute.get_replica_context().merge_call(update)


def _value(value):
    return value.value if isinstance(value, keras.Variable) else value


def checked_decay(decay, name="decay"):
    """Returns a decay from 0 to below 1, or raises; `name` is that of the argument."""
    if loss_base.non_negative(name, decay) >= 1:
        raise invalid(name, "a number from 0 to below 1", decay)
    return float(decay)

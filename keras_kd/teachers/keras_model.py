"""Teachers that are a Keras model, or a function."""

import keras

from keras_kd import by_output, models
from keras_kd.losses.activation import last_activation
from keras_kd.serializing import serialized
from keras_kd.taps import tap
from keras_kd.teachers import base


@keras.saving.register_keras_serializable(package="keras_kd")
class KerasTeacher(base.Teacher):
    """A Keras model as a teacher, with a preprocessing of its own.

    A model alone may be passed wherever a teacher is taken; this is for one of several teachers
    that expects other inputs. It runs with `training=False` and is left as it was.

    Args:
        model: A `keras.Model`.
        preprocess: As of `Teacher`.
        name: As of `Teacher`.

    Raises:
        ValueError: `model` is no Keras model.

    Example:

    ```python
    import keras
    import keras_kd as kd

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    student = keras.Sequential([keras.Input((4,)), keras.layers.Dense(10)])
    teacher = kd.teachers.KerasTeacher(model, preprocess=lambda x: keras.ops.tile(x, (1, 2)))
    distiller = kd.Distiller(teacher, student)
    ```
    """

    def __init__(self, model, preprocess=None, name=None, **kwargs):
        if not isinstance(model, keras.Model):
            raise ValueError(
                "`model` must be a keras.Model. "
                f"Received: model={model!r} of type {type(model).__name__}"
            )
        super().__init__(preprocess, name or model.name, **kwargs)
        self.model = model
        self.supports_jit = all(layer.supports_jit for layer in models.layers(model))

    def call(self, inputs):
        return self.model(models.own_inputs(self.model, inputs), training=False)

    def input_specs(self):
        specs = models.input_specs(self.model)
        if self.preprocess is not None or specs is None:
            return None
        if models.input_names(self.model) is None:
            return {"": specs}  # a Sequential model has one input, whatever it is called
        return models.named_inputs(self.model, specs)

    def answer(self, lesson):
        # Not through the layer's own `__call__`, which would cast and trace a second time.
        return self.call(self.prepared(lesson.inputs))

    def resolve(self, layer):
        return tap.resolve(self.model, layer)[0]

    def with_taps(self, layers):
        return base.tapped(self.model, layers, self.answer)

    @property
    def output_names(self):
        """Those of the model, if they were given."""
        return by_output.given_names(self.model)

    def last_activation(self, output=None):
        return last_activation(self.model, output)

    def get_config(self):
        config = super().get_config()
        config["model"] = serialized("teacher", self.model)
        return config


class FunctionTeacher(base.Teacher):
    """A function of the inputs, in TensorFlow operations, as a teacher.

    Args:
        function: Maps a batch of inputs to outputs.
    """

    def __init__(self, function):
        super().__init__(name=getattr(function, "__name__", None))
        self.function = models.Untracked(function)

    def answer(self, lesson):
        return self.function.model(lesson.inputs)

    def resolve(self, layer):
        raise ValueError(
            f"A distillation loss reads the teacher's layer {str(layer)!r}, but the teacher is a "
            "callable without layers. Use a keras.Model."
        )


def adapt(teacher):
    """A `Teacher` that stands for whatever the distiller was given.

    Raises:
        ValueError: It cannot teach.
    """
    if isinstance(teacher, base.Teacher):
        return teacher
    if isinstance(teacher, keras.Model):
        return KerasTeacher(teacher)
    if isinstance(teacher, type) or not callable(teacher):
        raise ValueError(
            "`teacher` must be a keras.Model, a keras_kd.teachers.Teacher or a callable that maps "
            "a batch of inputs to outputs. "
            f"Received: teacher={teacher!r} of type {type(teacher).__name__}"
        )
    return FunctionTeacher(teacher)

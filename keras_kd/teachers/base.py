"""`Teacher`: what the distiller asks of whatever teaches."""

import dataclasses
from typing import Any

import keras

from keras_kd import checks
from keras_kd.serializing import deserialized, serialized
from keras_kd.taps import tap
from keras_kd.taps.listening import Taps


@dataclasses.dataclass
class Lesson:
    """What a teacher may look at in a step.

    Attributes:
        inputs: The batch's inputs, as the student gets them.
        labels: Its labels, or `None` where there are none or they are not known yet.
        student: The student's `Outputs` for the batch, or `None`.
        carried: Teacher outputs that came with the batch: `carried.Carried`, or `None`.
        is_rehearsal: Whether shapes alone are wanted; the inputs hold no data.
    """

    inputs: Any
    labels: Any = None
    student: Any = None
    carried: Any = None
    is_rehearsal: bool = False


class Teacher(keras.layers.Layer):
    """Base class of the teachers that are more than one Keras model.

    Wherever `Distiller` takes a teacher it takes a `keras.Model`, a function, or one of these.
    Subclasses implement `call(inputs)`, in TensorFlow operations. A teacher is a layer so that it
    can hold models: they are saved with the distiller, and are not trained. It keeps no state
    between steps, unless it is meant to learn (`learn`).

    Args:
        preprocess: A function applied to the inputs before this teacher sees them, where it
            expects another size, range or structure than the student.
        name: Name of the teacher.

    Example:

    ```python
    import keras
    import keras_kd as kd

    class Doubled(kd.teachers.Teacher):
        def __init__(self, model, **kwargs):
            super().__init__(**kwargs)
            self.model = model

        def call(self, inputs):
            return 2.0 * self.model(inputs, training=False)

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    student = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    distiller = kd.Distiller(Doubled(model), student)
    ```
    """

    # Whether a batch must carry this teacher's outputs: it cannot compute them in a step.
    needs_carried = False
    # Whether it looks at the student or at the labels.
    needs_student = False
    # Whether it runs outside of TensorFlow: then `fit` asks it ahead of the step.
    runs_on_host = False
    # Whether its outputs are the largest logits and the mass of the rest, not all logits.
    is_sparse = False

    def __init__(self, preprocess=None, name=None, **kwargs):
        checks.layer_arguments(kwargs)
        super().__init__(name=name, autocast=False, **kwargs)
        self.preprocess = check_preprocess(preprocess)
        self.built = True

    def build(self, *shapes):
        del shapes  # the models inside build themselves
        self.built = True

    @property
    def output_names(self):
        """What it calls the outputs of a list; `None`: what the student calls them."""
        return None

    def check_can_teach(self):
        """Raises if it cannot teach at all; called before a `fit`."""

    def input_specs(self):
        """What it reads of a batch, `{name: keras.KerasTensor}`; `None`: only the data tells.

        The name of one that takes its only input under any name is `""`.
        """

    def prepared(self, inputs):
        """The inputs as this teacher expects them."""
        return inputs if self.preprocess is None else self.preprocess(inputs)

    def answer(self, lesson):
        """The outputs for a lesson; by default `call` on its inputs."""
        return self(self.prepared(lesson.inputs))

    def resolve(self, layer):
        """A layer of the teacher by its path; raises where there is none."""
        return tap.resolve(self, layer)[0]

    def with_taps(self, layers):
        """What teaches while some layers are listened to.

        Args:
            layers: Layers as `resolve` gives them.

        Returns:
            A function from a `Lesson` to `(outputs, {layer: value})`.
        """
        return tapped(self, layers, self.answer)

    def student_layers(self, layers):
        """Which layers of the student must be listened to for `layers` of this teacher."""
        del layers
        return []

    def meet(self, student):
        """Called once by a distiller; raises if this teacher cannot teach the student."""

    @property
    def is_of_student(self):
        """Whether its weights come from the training itself, and are lost where it is not saved."""
        # Those of the library that only let others learn are asked about these.
        return not type(self).learn.__module__.startswith("keras_kd.")

    def learn(self, student):
        """Called in each training step, after the student's weights have changed."""

    def last_activation(self, output=None):
        """The activation that makes an output, such as `"softmax"`; `None`: not known."""
        del output

    def get_config(self):
        config = super().get_config()
        config["preprocess"] = serialized("preprocess", self.preprocess)
        return config

    @classmethod
    def from_config(cls, config):
        """Makes a teacher of its configuration; what Keras has serialized in it is made again."""
        return cls(**{key: deserialized(value) for key, value in config.items()})


def tapped(owner, layers, answer):
    """`answer(lesson)` with what the layers of `owner` gave meanwhile."""
    if not layers:
        return lambda lesson: (answer(lesson), {})
    taps = Taps(owner, layers)
    return lambda lesson: taps.run(lambda: answer(lesson))


def check_preprocess(preprocess, name="preprocess"):
    """Returns it, or raises unless it is `None` or can be called."""
    if preprocess is not None and not callable(preprocess):
        raise ValueError(
            f"Invalid value for argument `{name}`. Expected a function of the inputs, or None. "
            f"Received: {name}={preprocess!r}"
        )
    return preprocess

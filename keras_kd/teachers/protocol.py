"""`Teacher`: what the distiller asks of whatever teaches, and batches that carry its outputs."""

import dataclasses
from typing import Any

import keras

from keras_kd._utils import validation
from keras_kd._utils.serialization import deserialized, serialized
from keras_kd.taps import tap
from keras_kd.taps.recorder import Taps

# `Teacher`: what the distiller asks of whatever teaches.


@dataclasses.dataclass
class TeacherInputs:
    """What a teacher may look at in a step.

    Attributes:
        inputs: The batch's inputs, as the student gets them.
        labels: Its labels, or `None` where there are none or they are not known yet.
        student: The student's `Outputs` for the batch, or `None`.
        carried: Teacher outputs that came with the batch: `carried.Carried`, or `None`.
        is_symbolic: Whether shapes alone are wanted; the inputs hold no data.
    """

    inputs: Any
    labels: Any = None
    student: Any = None
    carried: Any = None
    is_symbolic: bool = False


class Teacher(keras.layers.Layer):
    """Base class of the teachers that are more than one Keras model.

    Wherever `Distiller` takes a teacher it takes a `keras.Model`, a function, or one of these.
    Subclasses implement `call(inputs)`, in TensorFlow operations. A teacher is a layer so that it
    can hold models: they are saved with the distiller, and are not trained. It keeps no state
    between steps, unless it is meant to learn (`update`).

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
        validation.layer_arguments(kwargs)
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

    def predict_batch(self, batch):
        """The outputs for a batch; by default `call` on its inputs."""
        return self(self.prepared(batch.inputs))

    def resolve(self, layer):
        """A layer of the teacher by its path; raises where there is none."""
        return tap.resolve(self, layer)[0]

    def with_taps(self, layers):
        """What teaches while some layers are listened to.

        Args:
            layers: Layers as `resolve` gives them.

        Returns:
            A function from a `TeacherInputs` to `(outputs, {layer: value})`.
        """
        return tapped(self, layers, self.predict_batch)

    def student_layers(self, layers):
        """Which layers of the student must be listened to for `layers` of this teacher."""
        del layers
        return []

    def bind(self, student):
        """Called once by a distiller; raises if this teacher cannot teach the student."""

    @property
    def is_of_student(self):
        """Whether its weights come from the training itself, and are lost where it is not saved."""
        # Those of the library that only let others learn are asked about these.
        return not type(self).update.__module__.startswith("keras_kd.")

    def update(self, student):
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
    """`answer(batch)` with what the layers of `owner` gave meanwhile."""
    if not layers:
        return lambda batch: (answer(batch), {})
    taps = Taps(owner, layers)
    return lambda batch: taps.run(lambda: answer(batch))


def check_preprocess(preprocess, name="preprocess"):
    """Returns it, or raises unless it is `None` or can be called."""
    if preprocess is not None and not callable(preprocess):
        raise ValueError(
            f"Invalid value for argument `{name}`. Expected a function of the inputs, or None. "
            f"Received: {name}={preprocess!r}"
        )
    return preprocess


# Batches that carry the teacher's outputs with them.
#
# A cached teacher, and one that runs outside of TensorFlow, cannot be asked in a step. The data
# pipeline puts what it said into the batch, beside the inputs:
#
# `{"inputs": inputs, "keras_kd_teacher": {"outputs": ..., "taps": {origin: {layer: ...}}}}`
#
# Datasets, strategies and Keras take such a dict as any other structure of inputs.


INPUTS, TEACHER = "inputs", "keras_kd_teacher"


@dataclasses.dataclass
class Carried:
    """What a teacher said of a batch: its outputs, those of its layers by name, and its cache."""

    outputs: Any
    taps: dict
    origin: str = ""


def join(inputs, outputs, taps=None, origin=""):
    """The inputs of a batch with the teacher's outputs.

    Args:
        inputs: The batch's inputs.
        outputs: The teacher's outputs.
        taps: Those of its layers by name.
        origin: The identity of the cache that they come from. A name of the dict holds it, because
            structures of tensors have no other place for a text that XLA would not see.
    """
    # A tuple, because datasets take a list for one array.
    outputs = tuple(outputs) if isinstance(outputs, list) else outputs
    return {
        INPUTS: inputs,
        TEACHER: {"outputs": outputs, "taps": {origin: dict(taps or {})}},
    }


def split(x):
    """Returns `(inputs, carried)`; `carried` is `None` for a batch that carries nothing."""
    if not carries(x):
        return x, None
    ((origin, taps),) = x[TEACHER]["taps"].items()
    return x[INPUTS], Carried(x[TEACHER]["outputs"], taps, origin)


def carries(x):
    """Whether a batch, or the specification of one, carries teacher outputs."""
    return isinstance(x, dict) and TEACHER in x


def element_of(parts):
    """The element of a dataset of which `map` gave the parts."""
    return parts if len(parts) > 1 else parts[0]


def parts_of(element):
    """What `map` gives a function of an element: `element_of` the other way round."""
    return element if isinstance(element, tuple) else (element,)


def inputs_of(element):
    """The inputs of an element of a dataset: `x`, or that of `(x, y)` or `(x, y, weight)`."""
    return element[0] if isinstance(element, tuple) else element


def with_inputs(element, inputs):
    """The element of a dataset with other inputs."""
    return (inputs, *element[1:]) if isinstance(element, tuple) else inputs


def placeholder(spec, inputs):
    """Zeros of a specification `[batch, ...]`, with as many rows as the inputs have.

    For the rehearsal, in which no batch exists.
    """
    rows = keras.ops.shape(keras.tree.flatten(inputs)[0])[0]
    return keras.tree.map_structure(lambda x: keras.ops.zeros((rows, *x.shape[1:]), x.dtype), spec)

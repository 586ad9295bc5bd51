"""`Teacher`: what a distiller expects of a teacher, and batches with its outputs attached."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import keras

from keras_kd._utils import validation
from keras_kd._utils.serialization import deserialized, serialized
from keras_kd.taps import tap
from keras_kd.taps.recorder import Taps

# What `Teacher.with_taps` returns: from a batch to `(outputs, {layer: value})`.
Forward = Callable[["TeacherInputs"], tuple[Any, dict]]

# Earlier names of a teacher's methods.
RENAMED_METHODS = {"meet": "bind", "learn": "update", "answer": "predict_batch"}


@dataclasses.dataclass
class TeacherInputs:
    """A batch as a teacher may see it.

    Attributes:
        inputs: The batch's inputs, as the student gets them.
        labels: Its labels, or `None` where there are none or they are not known yet.
        student: The student's `Outputs` for the batch, or `None`.
        attached: `AttachedOutputs` that came with the batch, or `None`.
        is_symbolic: Whether only shapes are wanted; the inputs hold no data.
    """

    inputs: Any
    labels: Any = None
    student: Any = None
    attached: "AttachedOutputs | None" = None
    is_symbolic: bool = False


@dataclasses.dataclass(frozen=True)
class TeacherDescription:
    """What a teacher is and needs, read from it once (`Teacher.describe`).

    Attributes:
        kind: The name of its class, for messages.
        runs_on_host: Whether it runs outside of TensorFlow.
        needs_attached: Whether its outputs must come with the batches.
        needs_student: Whether it reads the student's outputs or the labels.
        is_sparse: Whether it gives the largest logits and the mass of the others.
        supports_jit: Whether XLA can compile it.
        output_names: The names of its outputs, or `None`.
        input_specs: `{name: keras.KerasTensor}`, or `None` where only the data tells.
        layers: Its layers that are recorded in the forward pass, by path.
        student_layers: The layers of the student that it reads for them.
    """

    kind: str
    runs_on_host: bool
    needs_attached: bool
    needs_student: bool
    is_sparse: bool
    supports_jit: bool
    output_names: tuple[str, ...] | None
    input_specs: dict[str, Any] | None
    layers: tuple
    student_layers: tuple

    def limits(self, *flags: str) -> list[str]:
        """Why it cannot teach from the inputs of a batch alone; empty where it can.

        Args:
            *flags: Which of `LIMITS` count; default: all.
        """
        return [LIMITS[flag] for flag in flags or LIMITS if getattr(self, flag)]


# Flags of a description that limit where a teacher can be used, in words.
LIMITS = {
    "needs_attached": "its outputs come with the batches",
    "needs_student": "it reads the student's outputs or the labels",
    "is_sparse": "it keeps the largest logits only",
}


class Teacher(keras.layers.Layer):
    """Base class of the teachers that are more than one Keras model.

    Wherever `Distiller` takes a teacher it takes a `keras.Model`, a function, or one of these.
    Subclasses implement `call(inputs)`, in TensorFlow operations. A teacher is a layer so that it
    can hold models: they are saved with the distiller, and are not trained. It keeps no state
    between steps, unless it follows the student (`update`).

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
    needs_attached = False
    # Whether it reads the student's outputs or the labels.
    needs_student = False
    # Whether it runs outside of TensorFlow: then `fit` runs it ahead of the step.
    runs_on_host = False
    # How many batches it may be asked for at once, where it runs on the host.
    parallel_batches = 1
    # Whether its outputs are the largest logits and the mass of the others, not all logits.
    is_sparse = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for old, new in RENAMED_METHODS.items():
            if callable(getattr(cls, old, None)):
                raise TypeError(
                    f"{cls.__name__} defines `{old}`, a method of teachers that is called `{new}` "
                    f"now; under its old name it would never run. Rename it: def {new}(...)."
                )

    def __init__(
        self, preprocess: Callable | None = None, name: str | None = None, **kwargs: Any
    ) -> None:
        validation.layer_arguments(kwargs)
        super().__init__(name=name, autocast=False, **kwargs)
        self.preprocess = check_preprocess(preprocess)
        self.built = True

    def build(self, *shapes: Any) -> None:
        del shapes  # the models inside build themselves
        self.built = True

    # What it is. Distillers and caches read these, through `describe` where they read several.

    @property
    def output_names(self) -> Iterable[str] | None:
        """The names of its outputs in a list; `None`: the student's names."""
        return None

    def input_specs(self) -> dict[str, Any] | None:
        """What it reads of a batch, `{name: keras.KerasTensor}`; `None`: only the data tells.

        A teacher that takes its only input under any name calls it `""`.
        """
        return None

    @property
    def is_of_student(self) -> bool:
        """Whether its weights come from the training itself, and are lost where it is not saved."""
        # The library's own teachers that only forward `update` to others answer for these.
        return not type(self).update.__module__.startswith("keras_kd.")

    def last_activation(self, output: str | int | None = None) -> str | None:
        """The activation that makes an output, such as `"softmax"`; `None`: not known."""
        del output
        return None

    def describe(self, layers: Iterable = ()) -> TeacherDescription:
        """Reads once what others need to know of this teacher.

        Args:
            layers: Layers that will be recorded, as `resolve` returns them.
        """
        names, layers = self.output_names, tuple(layers)
        return TeacherDescription(
            kind=type(self).__name__,
            runs_on_host=self.runs_on_host,
            needs_attached=self.needs_attached,
            needs_student=self.needs_student,
            is_sparse=self.is_sparse,
            supports_jit=self.supports_jit,
            output_names=None if names is None else tuple(names),
            input_specs=self.input_specs(),
            layers=layers,
            student_layers=tuple(self.student_layers(layers)),
        )

    # Its life with a student.

    def check_can_teach(self) -> None:
        """Raises if it cannot teach at all; called before a `fit`."""

    def bind(self, student: keras.Model) -> None:
        """Called once by a distiller; raises if this teacher cannot teach the student."""

    def update(self, student: keras.Model) -> None:
        """Called in each training step, after the student's weights have changed."""

    @property
    def failure(self) -> Exception | None:
        """What it last raised where it runs on the host; TensorFlow passes on only the text."""
        return None

    # Its outputs.

    def prepared(self, inputs: Any) -> Any:
        """The inputs as this teacher expects them."""
        return inputs if self.preprocess is None else self.preprocess(inputs)

    def predict_batch(self, batch: TeacherInputs) -> Any:
        """The outputs for a batch; by default `call` on its inputs."""
        return self(self.prepared(batch.inputs))

    def resolve(self, layer: Any) -> Any:
        """A layer of the teacher by its path; raises where there is none."""
        return tap.resolve(self, layer)[0]

    def with_taps(self, layers: list) -> Forward:
        """The forward pass in which some layers are recorded.

        Args:
            layers: Layers as `resolve` returns them.

        Returns:
            A function from a `TeacherInputs` to `(outputs, {layer: value})`.
        """
        return record_layers(self, layers, self.predict_batch)

    def student_layers(self, layers: Iterable) -> list:
        """The layers of the student that this teacher reads for `layers` of its own."""
        del layers
        return []

    # How it is saved.

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config["preprocess"] = serialized("preprocess", self.preprocess)
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Teacher":
        """Makes a teacher from its configuration, and first what Keras has serialized in it."""
        return cls(**{key: deserialized(value) for key, value in config.items()})


def record_layers(model: keras.layers.Layer, layers: list, predict_batch: Callable) -> Forward:
    """`predict_batch` that also returns what the layers of `model` computed in it."""
    if not layers:
        return lambda batch: (predict_batch(batch), {})
    taps = Taps(model, layers)
    return lambda batch: taps.run(lambda: predict_batch(batch))


def check_preprocess(preprocess: Any, name: str = "preprocess") -> Callable | None:
    """Returns it, or raises unless it is `None` or can be called."""
    if preprocess is not None and not callable(preprocess):
        raise validation.invalid(name, "a function of the inputs, or None", repr(preprocess))
    return preprocess


# Batches with teacher outputs attached.
#
# A cached teacher, and one that runs outside of TensorFlow, cannot run in a training step. The data
# pipeline attaches their outputs to the inputs of the batch:
#
# `{"inputs": inputs, "keras_kd_teacher": {"outputs": ..., "taps": {origin: {layer: ...}}}}`
#
# Datasets, strategies and Keras take such a dict as any other structure of inputs.


INPUTS, TEACHER = "inputs", "keras_kd_teacher"


@dataclasses.dataclass
class AttachedOutputs:
    """Teacher outputs that came with a batch.

    Attributes:
        outputs: The outputs.
        taps: Those of its layers, by name.
        origin: The identity of the cache that they come from, or `""`.
    """

    outputs: Any
    taps: dict[str, Any]
    origin: str = ""


def attach_outputs(inputs: Any, outputs: Any, taps: dict | None = None, origin: str = "") -> dict:
    """Attaches a teacher's outputs to the inputs of a batch.

    Args:
        inputs: The batch's inputs.
        outputs: The teacher's outputs.
        taps: Those of its layers, by name.
        origin: The identity of the cache that they come from. It is a key of the dict, because
            structures of tensors have no other place for a text that XLA would not see.
    """
    # A tuple, because datasets take a list for one array.
    outputs = tuple(outputs) if isinstance(outputs, list) else outputs
    return {
        INPUTS: inputs,
        TEACHER: {"outputs": outputs, "taps": {origin: dict(taps or {})}},
    }


def detach_outputs(x: Any) -> tuple[Any, AttachedOutputs | None]:
    """Returns `(inputs, attached outputs)`; the latter are `None` where nothing is attached."""
    if not has_attached(x):
        return x, None
    ((origin, taps),) = x[TEACHER]["taps"].items()
    return x[INPUTS], AttachedOutputs(x[TEACHER]["outputs"], taps, origin)


def has_attached(x: Any) -> bool:
    """Whether teacher outputs are attached to a batch, or to the specification of one."""
    return isinstance(x, dict) and TEACHER in x


def zeros_like_spec(specs: Any, inputs: Any) -> Any:
    """Zeros `[batch, ...]` of a structure of specifications, as many samples as `inputs` has.

    They stand for attached outputs where only shapes are traced, and no batch exists.
    """
    samples = keras.ops.shape(keras.tree.flatten(inputs)[0])[0]
    return keras.tree.map_structure(
        lambda spec: keras.ops.zeros((samples, *spec.shape[1:]), spec.dtype), specs
    )


# Elements of a dataset: `x`, `(x, y)` or `(x, y, sample_weight)`.


def element_of(parts: tuple) -> Any:
    """The element of a dataset whose parts `Dataset.map` has passed one by one."""
    return parts if len(parts) > 1 else parts[0]


def parts_of(element: Any) -> tuple:
    """The arguments that `Dataset.map` passes for an element; the inverse of `element_of`."""
    return element if isinstance(element, tuple) else (element,)


def inputs_of(element: Any) -> Any:
    """The inputs of an element."""
    return element[0] if isinstance(element, tuple) else element


def with_inputs(element: Any, inputs: Any) -> Any:
    """The element with other inputs."""
    return (inputs, *element[1:]) if isinstance(element, tuple) else inputs

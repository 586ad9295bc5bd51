"""`Builder`: from the settings of a trial to what trains: a student, or its distiller, compiled.

Every default can be replaced by a function of the user's, which reads the same settings.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_kd import callbacks as kd_callbacks
from keras_kd import losses, models
from keras_kd._utils import validation
from keras_kd._utils.validation import invalid
from keras_kd.losses.activation import last_activation
from keras_kd.reporting import training
from keras_kd.students import shrink
from keras_kd.training.distiller import Distiller
from keras_kd.tuning.space import Settings, Space

LOSSES = ("SoftTargets", "DecoupledKD", "DIST", "LogitStandardization", "SigmoidKD", "LogitsMSE")
# Layers of teacher and student in one text, which the files of a search can hold.
ARROW = "->"


@dataclasses.dataclass(frozen=True)
class Functions:
    """The user's functions, or `None` for what `tune` does by itself.

    Attributes:
        make_student: Of the settings, or of nothing.
        distiller: Of teacher, student and settings.
        compile_model: Of a model and the settings.
        callbacks: Of the settings.
    """

    make_student: Callable | None
    distiller: Callable | None
    compile_model: Callable | None
    callbacks: Callable | None

    def __post_init__(self) -> None:
        if self.make_student is not None and takes_settings(self.make_student) is None:
            what = "a function without arguments or of (settings), or None"
            raise invalid("make_student", what, repr(self.make_student))
        for name, arguments in (
            ("distiller", ["teacher", "student", "settings"]),
            ("compile_model", ["model", "settings"]),
            ("callbacks", ["settings"]),
        ):
            validation.function(name, getattr(self, name), arguments, optional=True)


def takes_settings(function: Any) -> bool | None:
    """Whether a function takes one argument, or none; `None` if it takes neither."""
    if not callable(function) or isinstance(function, keras.Model):
        return None
    if validation.unfit_signature(function, []) is None:
        return False
    return True if validation.unfit_signature(function, ["settings"]) is None else None


@dataclasses.dataclass(frozen=True)
class Training:
    """What a trial trains.

    Attributes:
        model: What is fitted: a distiller, or the student itself.
        student: The student.
        callbacks: For `fit`.
        batch_size: Rows of a step.
    """

    model: keras.Model
    student: keras.Model
    callbacks: list
    batch_size: int


class Builder:
    """Makes what trains, from settings.

    Args:
        functions: The user's `Functions`.
        teacher: The Keras model that students are made of, where no function makes them.
        labels: The specification of a batch of labels.
        seed: Sets the initial weights, the same in every trial.
    """

    def __init__(self, functions: Functions, teacher: Any, labels: Any, seed: int) -> None:
        self._functions, self._teacher = functions, teacher
        self._labels, self._seed = labels, seed

    def distilled(self, cached: Any, settings: Settings, seed: int | None = None) -> Training:
        """The distiller of a new student.

        Args:
            cached: The teacher whose outputs are stored.
            settings: Of the trial.
            seed: Sets the initial weights; default: that of the search.
        """
        student = self.student(settings, seed)
        make = self._functions.distiller or _make_distiller
        made = make(cached, student, settings)
        if not isinstance(made, keras.Model) or made is student:
            raise invalid("distiller", "a function that returns a kd.Distiller", repr(made))
        self._compile(made, student, settings)
        callbacks = self._callbacks(settings)
        if self._functions.distiller is None:
            callbacks += _schedules(settings)
        return Training(made, student, callbacks, _batch_size(settings))

    def labels_only(self, settings: Settings, seed: int | None = None) -> Training:
        """A new student that learns from labels alone."""
        student = self.student(settings, seed)
        self._compile(student, student, settings)
        # What is this package's changes a distiller, and there is none.
        callbacks = [
            each
            for each in self._callbacks(settings)
            if not type(each).__module__.startswith(f"{kd_callbacks.__name__}.")
        ]
        return Training(student, student, callbacks, _batch_size(settings))

    def student(self, settings: Settings, seed: int | None = None) -> keras.Model:
        """A new student."""
        make = self._functions.make_student
        seed = self._seed if seed is None else seed
        if make is None:
            return training.make(lambda: self._shrunk(settings), seed)
        return training.make((lambda: make(settings)) if takes_settings(make) else make, seed)

    def _shrunk(self, settings):
        depth, width = settings["depth"], settings["width"]
        return shrink(self._teacher, depth=depth, width=width, print_fn=None)

    def _callbacks(self, settings):
        made = self._functions.callbacks
        found = [] if made is None else made(settings)
        if not isinstance(found, (list, tuple)):
            raise invalid("callbacks", "a function that returns a list of callbacks", repr(found))
        return list(found)

    def _compile(self, model, student, settings):
        if self._functions.compile_model is not None:
            self._functions.compile_model(model, settings)
            if not model.compiled:
                raise ValueError(
                    f"`compile_model` did not compile {model.name!r}: it must call model.compile."
                )
            return
        if not student.compiled:
            loss, metric = usual_loss(student, self._labels)
            optimizer = keras.optimizers.Adam(settings["learning_rate"])
            model.compile(optimizer, loss=loss, metrics=[metric])
            return
        if model is not student and not model.compiled:
            model.compile_from_config(student.get_compile_config())
        if "learning_rate" in settings.searched:
            model.optimizer.learning_rate = settings["learning_rate"]


def usual_loss(student: keras.Model, labels: Any) -> tuple[keras.losses.Loss, str]:
    """The loss and the metric of class numbers.

    Raises:
        ValueError: The labels are something else, or their shapes do not tell.
    """
    shapes = models.output_shapes(student) or []
    spec = labels if isinstance(labels, tf.TensorSpec) else None
    if spec is None or len(shapes) != 1 or not spec.dtype.is_integer:
        is_classes = False
    else:
        rows = [*spec.shape]
        is_classes = len(rows) == len(shapes[0]) - 1 or rows[-1:] == [1] != [*shapes[0][-1:]]
    if not is_classes or shapes[0][-1] == 1:
        raise ValueError(
            "tune compiles students whose labels are class numbers by itself. Received: labels "
            f"{labels} for outputs of shapes {shapes}. Pass compile_model=lambda model, settings: "
            "model.compile(keras.optimizers.Adam(settings['learning_rate']), loss=..., "
            "metrics=[...]), or let make_student return a compiled student."
        )
    from_logits = last_activation(student) != "softmax"
    return keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits), "accuracy"


def _make_distiller(teacher, student, settings):
    alpha, beta = settings["alpha"], settings["beta"]
    made = [_logit_loss(settings)]
    hint = settings["hint"]
    if hint is not None:
        taught, learning = hint_layers(hint)
        made.append(losses.FeatureHint(taught, learning, weight=settings["hint_weight"]))
    return Distiller(teacher, student, made, alpha=alpha, beta=1 - alpha if beta is None else beta)


def _logit_loss(settings):
    name = settings["loss"]
    if name not in LOSSES:
        raise invalid("space['loss']", f"names of {list(LOSSES)}", repr(name))
    if name == "LogitsMSE":
        return losses.LogitsMSE()
    options = {"temperature": settings["temperature"]}
    if name == "SoftTargets":
        options["divergence"] = settings["divergence"]
    return getattr(losses, name)(**options)


def hint_layers(hint: Any) -> tuple[str, str]:
    """The layers of teacher and student in `"teacher layer -> student layer"`."""
    parts = hint.split(ARROW) if isinstance(hint, str) else ()
    if len(parts) != 2 or not all(part.strip() for part in parts):
        raise invalid(
            "space['hint']", "texts such as 'block4_out -> block3_out', or None", repr(hint)
        )
    return parts[0].strip(), parts[1].strip()


def hinted_layers(space: Space) -> list[str]:
    """The teacher's layers that hints of a space read."""
    options = [space.fixed["hint"]] if "hint" in space.fixed else space.searched.get("hint", ())
    if not isinstance(options, (list, tuple)) or hasattr(options, "low"):
        raise invalid("space['hint']", "a list of texts such as 'a -> b', or None", repr(options))
    return list(dict.fromkeys(hint_layers(each)[0] for each in options if each is not None))


def _schedules(settings):
    end = settings["temperature_end"]
    if end is None:
        return []
    return [kd_callbacks.TemperatureSchedule(settings["temperature"], end)]


def _batch_size(settings):
    return validation.integer("space['batch_size']", settings["batch_size"], 1)

"""What a distiller saves: its configuration, its teacher or how to recognize it, and back."""

import contextlib
import os
import pathlib
import threading
import warnings
from typing import Any

import keras
import tensorflow as tf

from keras_kd import models
from keras_kd._utils.serialization import deserialized, serialized, without_training
from keras_kd._utils.validation import invalid
from keras_kd.models import paths
from keras_kd.ops.sparse_logits import SparseLogits
from keras_kd.teachers import keras_model, protocol
from keras_kd.teachers.cache import fingerprints
from keras_kd.teachers.cache.format import CacheError

# Under this name files of version 0.1 have it.
_SHAPES = "teacher_told"


def config_of(distiller: Any) -> dict[str, Any]:
    """What the configuration of a `Distiller` holds beside that of a `keras.Model`."""
    losses = distiller.distillation_losses
    return {
        **teacher_config(distiller),
        "student": keras.saving.serialize_keras_object(distiller.student),
        "distillation_losses": [keras.saving.serialize_keras_object(loss) for loss in losses],
        "distillation_loss_weights": distiller.distillation_loss_weights,
        "student_loss_weight": float(distiller.alpha),
        "alpha": float(distiller.alpha),
        "beta": float(distiller.beta),
        "uses_keras_names": distiller.uses_keras_names,
        "teacher_preprocess": serialized("teacher_preprocess", distiller.teacher_preprocess),
        "weighting": serialized("weighting", distiller.weighting),
        "mask_input": distiller.mask_input,
        "evaluate_with_teacher": distiller.evaluation.assigned,
    }


def from_config(cls: type, config: dict[str, Any]) -> Any:
    """A `Distiller` of a configuration, its own or one of `keras.distillation.Distiller`."""
    config = dict(config)
    for key in ("student", "teacher_preprocess", "weighting"):
        config[key] = deserialized(config.get(key))
    config["distillation_losses"] = [
        keras.saving.deserialize_keras_object(loss) for loss in config["distillation_losses"]
    ]
    config["teacher"] = teacher_of(config)
    # As `keras.distillation.Distiller` has them; here they repeat what the losses know, and
    # alpha. A configuration of Keras' own has no alpha.
    if "alpha" in config:
        for key in ("distillation_loss_weights", "student_loss_weight"):
            config.pop(key, None)
    with_teacher = config.pop("evaluate_with_teacher", None)
    numbers = {}
    if config.pop("uses_keras_names", False):
        numbers = {name: config.pop(name) for name in ("alpha", "beta")}
        config["student_loss_weight"] = min(numbers["alpha"], 1.0)
    made = cls(**config)
    for name, value in numbers.items():
        setattr(made, name, value)
    if with_teacher is not None:
        made.evaluate_with_teacher = with_teacher
    return made


# What of its teacher a distiller saves, and how it comes by it again.


# Of those that save at the same time each would take the other's `None` for the optimizer.
_ALONE = threading.RLock()


def check_save_teacher(save_teacher, source):
    """Returns `save_teacher`, a path as a text, or raises where the teacher cannot be left out.

    Args:
        save_teacher: See `Distiller`.
        source: The `Teacher`.
    """
    if isinstance(save_teacher, bool):
        if not save_teacher:
            _check_needs_no_saving(source)
        return save_teacher
    if not isinstance(save_teacher, (str, os.PathLike)):
        raise invalid("save_teacher", "True, False or the path of a .keras file", save_teacher)
    path = os.fspath(save_teacher)
    if not path.endswith(".keras"):
        raise invalid("save_teacher", "True, False or the path of a .keras file", repr(path))
    _check_needs_no_saving(source)
    if type(source) is not keras_model.KerasTeacher:
        raise ValueError(
            "`save_teacher` names a .keras file, which holds a keras.Model; the teacher is a "
            f"{type(source).__name__}. Pass save_teacher=False, or True."
        )
    if not pathlib.Path(path).is_file():
        raise ValueError(
            f"`save_teacher`: there is no file {path!r}. Write it before: teacher.save({path!r})."
        )
    return path


def _check_needs_no_saving(source):
    for each in (source, *(layer for _, _, layer in paths.walk(source))):
        if isinstance(each, protocol.Teacher) and each.is_of_student:
            raise ValueError(
                f"The weights of the teacher, {type(each).__name__}, come from the training itself "
                "and would be lost with a file that does not hold them. Pass save_teacher=True."
            )


def teacher_config(distiller):
    """What of its teacher goes into a distiller's configuration."""
    saves, source = distiller.save_teacher, distiller.source
    found = {"save_teacher": saves, "teacher": None}
    if saves is True:
        found["teacher"] = without_training(serialized("teacher", distiller.teacher))
        shapes = {}
    elif isinstance(source, AbsentTeacher):
        return {**found, _SHAPES: source.shapes}
    else:
        shapes = {"fingerprint": fingerprints.fingerprint_teacher(source)}
    return {**found, _SHAPES: {**distiller.teacher_shapes, **shapes}}


def teacher_of(config):
    """The teacher of a configuration; what belongs to it alone is taken out."""
    saves, shapes = config.get("save_teacher", True), config.pop(_SHAPES, None) or {}
    if saves is False:
        return AbsentTeacher(shapes, "The distiller was saved without its teacher.")
    if saves is not True:
        return _loaded(saves, shapes)
    try:
        return _untrained(deserialized(without_training(config["teacher"])))
    except CacheError as error:
        # It cannot be read any more; the student can.
        why = f"The distiller's teacher cannot be read: {error}"
        warnings.warn(
            f"keras_kd: {why} Where the cache lies elsewhere now: "
            "distiller.set_teacher(keras_kd.teachers.Cached(path)).",
            stacklevel=2,
        )
        return AbsentTeacher(shapes, why)


def _loaded(path, shapes):
    if not pathlib.Path(path).is_file():
        raise FileNotFoundError(
            f"The distiller was saved with save_teacher={path!r}, and there is no such file. Put "
            "the teacher's file there."
        )
    teacher = keras.models.load_model(path, compile=False)
    found = fingerprints.fingerprint_teacher(keras_model.adapt(teacher))
    if found != shapes.get("fingerprint"):
        raise ValueError(
            f"The distiller was saved with save_teacher={path!r}, and that file holds another "
            f"teacher by now: its fingerprint is {found!r}, that of the distiller's teacher was "
            f"{shapes.get('fingerprint')!r}. Put the teacher's own file there."
        )
    return teacher


def returned_teacher(distiller, teacher, check):
    """The `Teacher` that stands for one that a distiller gets back; raises if it may not."""
    gone = distiller.source
    if not isinstance(gone, AbsentTeacher):
        raise ValueError(
            "The distiller has its teacher. For another one make a new distiller: "
            "keras_kd.Distiller(teacher, distiller.student)."
        )
    models.check_pair(teacher, distiller.student)
    source = keras_model.adapt(teacher)
    source.bind(distiller.student)
    expected = gone.fingerprint_of_teacher
    found = fingerprints.fingerprint_teacher(source) if check and expected is not None else expected
    if found != expected:
        raise ValueError(
            f"This is another teacher than the distiller had: its fingerprint is {found!r}, that "
            f"of the distiller's teacher was {expected!r}. If it is to teach all the same: "
            "distiller.set_teacher(teacher, check=False)."
        )
    if distiller.save_teacher is not True:
        _check_needs_no_saving(source)
    return source


@contextlib.contextmanager
def without_optimizers(teacher):
    """While it is open Keras finds no optimizer in a teacher: it would save that too."""
    with _ALONE:
        held = [(model, model.optimizer) for model in _with_optimizers(teacher)]
        try:
            for model, _ in held:
                model.optimizer = None
            yield
        finally:
            for model, optimizer in held:
                model.optimizer = optimizer


def _with_optimizers(teacher):
    """The models of a teacher, itself among them, that have been compiled."""
    if not isinstance(teacher, keras.layers.Layer):
        return []
    found = [teacher, *(layer for _, _, layer in paths.walk(teacher))]
    distinct = {id(each): each for each in found if isinstance(each, keras.Model)}
    return [each for each in distinct.values() if getattr(each, "optimizer", None) is not None]


def _untrained(teacher):
    """A teacher that was just loaded, without the optimizers that it made itself.

    KerasHub's tasks compile themselves; of such an optimizer the file has no variables.
    """
    for model in _with_optimizers(teacher):
        model.optimizer = None
    return teacher


# `AbsentTeacher`: stands for a teacher that was not saved, until it is given back.


class AbsentTeacher(protocol.Teacher):
    """Knows what the teacher's outputs and layers look like, so that losses can be built.

    Args:
        shapes: Of `shapes`, and `fingerprint`.
        why: A sentence: why it is absent.
    """

    def __init__(self, shapes, why):
        super().__init__(name="absent_teacher")
        self._shapes, self.why = models.Untracked(shapes), why
        self.fingerprint_of_teacher = shapes.get("fingerprint")
        self.is_sparse = bool(shapes.get("is_sparse"))

    @property
    def shapes(self):
        """What a distiller saves of it again."""
        return self._shapes.value

    def check_can_teach(self):
        raise ValueError(
            f"{self.why} Give it back before the student is trained or compared with it: "
            "distiller.set_teacher(teacher)."
        )

    def input_specs(self):
        return {}  # nothing is asked

    def resolve(self, layer):
        if str(layer) not in self.shapes.get("taps", {}):
            raise ValueError(
                f"{self.why} Of its layers it is known how {sorted(self.shapes.get('taps', {}))} "
                f"look, not {str(layer)!r}."
            )
        return str(layer)

    def with_taps(self, layers):
        def answer(batch):
            if not batch.is_symbolic or "outputs" not in self.shapes:
                self.check_can_teach()
            outputs = _zeros(self.shapes["outputs"], batch.inputs)
            if self.is_sparse:
                outputs = SparseLogits(**outputs)
            taps = self.shapes["taps"]
            return outputs, {layer: _zeros(taps[layer], batch.inputs) for layer in layers}

        return answer

    @property
    def output_names(self):
        return self.shapes.get("names")

    def last_activation(self, output=None):
        return self.shapes.get("activations", {}).get("" if output is None else str(output))


def shapes_of(outputs, source):
    """What a shape check has seen of a teacher, for JSON.

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

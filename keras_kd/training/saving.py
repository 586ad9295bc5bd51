"""Saving, loading and resuming a distiller."""

import contextlib
import os
import pathlib
import threading
import warnings
from typing import Any

import keras
import tensorflow as tf

from keras_kd import models
from keras_kd._utils import files
from keras_kd._utils.serialization import deserialized, serialized, without_training
from keras_kd._utils.validation import invalid
from keras_kd.models import paths
from keras_kd.ops.sparse_logits import SparseLogits
from keras_kd.teachers import keras_model, protocol
from keras_kd.teachers.cache import fingerprints
from keras_kd.teachers.cache.format import CacheError
from keras_kd.training import fit, resuming

_CALLBACK = "callback_"


class OwnVariables:
    """Mixin of a distiller: what it adds to what its models and losses save of themselves.

    Its numbers, and the state of the random seeds (dropout), which Keras does not save; while `fit`
    runs also where it is (`resuming`). With these a run that is interrupted and resumed gives the
    numbers of one that was not. Files are written whole.
    """

    fit_progress: resuming.Progress
    train_function: Any

    def own_numbers(self):
        """`{name: variable}` of what is saved beside the models."""
        return {"alpha": self.alpha_variable, "beta": self.beta_variable}

    def with_metrics(self):
        """The models whose metrics a step updates, a list."""
        return [self]

    def build_metrics(self, data):
        """Lets the metrics of labels make their variables."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if y is not None:
            self.compute_metrics(x, y, self.call(x, training=False), sample_weight)

    def _own_variables(self):
        weights = {id(variable) for variable in self.weights}
        # `variables` has the states of seed generators, `weights` has not.
        seeds = [variable for variable in self.variables if id(variable) not in weights]
        numbers = self.own_numbers()
        return numbers | {f"seed_{i}": seed for i, seed in enumerate(seeds)}

    def save_own_variables(self, store):
        for key, variable in self._own_variables().items():
            store[key] = variable.numpy()
        self.fit_progress.save(store)

    def load_own_variables(self, store):
        for key, variable in self._own_variables().items():
            if key in list(store.keys()):
                variable.assign(store[key])
        self.fit_progress.load(store)

    def make_train_function(self, force=False):
        """As of `keras.Model`; its calls are counted."""
        super().make_train_function(force)
        if not isinstance(self.train_function, resuming.Counted):
            self.train_function = resuming.Counted(self.fit_progress, self.train_function)

    def fit(self, *args, **kwargs):
        """As `keras.Model.fit`; `keras.callbacks.BackupAndRestore` resumes at the very batch."""
        given = fit.named(keras.Model.fit, args, kwargs)
        with self.fit_progress.of_fit(given):
            return super().fit(**given)

    def save(self, filepath, overwrite=True, zipped=None, **kwargs):
        """As `keras.Model.save`; the file is there whole, or the one before is."""
        return files.save(super().save, filepath, overwrite, zipped, **kwargs)

    def save_weights(self, filepath, overwrite=True, max_shard_size=None):
        """As `keras.Model.save_weights`; the file is there whole, or the one before is."""
        return files.save_weights(super().save_weights, filepath, overwrite, max_shard_size)

    def load_weights(self, filepath, *args, **kwargs):
        """As `keras.Model.load_weights`."""
        result = super().load_weights(filepath, *args, **kwargs)
        self.fit_progress.restored(filepath)
        return result


class Persistence(OwnVariables):
    """Mixin of the distiller: what a `.keras` file and a checkpoint hold of it.

    Beside `OwnVariables` these are `callback_states`, arrays by which callbacks go on where they
    were.
    """

    def get_config(self):
        config = super().get_config()
        config.update(
            {
                **teacher_config(self),
                "student": keras.saving.serialize_keras_object(self.student),
                "distillation_losses": [
                    keras.saving.serialize_keras_object(loss) for loss in self.distillation_losses
                ],
                "distillation_loss_weights": self.distillation_loss_weights,
                "student_loss_weight": float(self.alpha),
                "alpha": float(self.alpha),
                "beta": float(self.beta),
                "uses_keras_names": self.uses_keras_names,
                "teacher_preprocess": serialized("teacher_preprocess", self.teacher_preprocess),
                "weighting": serialized("weighting", self.weighting),
                "mask_input": self.mask_input,
                "evaluate_with_teacher": self._with_teacher,
            }
        )
        return config

    def save(self, *args, **kwargs):
        """As `keras.Model.save`; what cannot be saved is told before a file is begun."""
        self.get_config()
        self._build_optimizer()  # a file saved before the first step has its variables too
        with without_optimizers(self.teacher):
            return super().save(*args, **kwargs)

    def save_weights(self, *args, **kwargs):
        """As `keras.Model.save_weights`; the optimizer's variables are there from the start."""
        self._build_optimizer()
        with without_optimizers(self.teacher):
            return super().save_weights(*args, **kwargs)

    def load_weights(self, *args, **kwargs):
        """As `keras.Model.load_weights`."""
        self._build_optimizer()
        with without_optimizers(self.teacher):
            return super().load_weights(*args, **kwargs)

    def __dir__(self):
        # Keras saves what is listed here. A teacher that is not saved is not looked for either.
        names = super().__dir__()
        saves = vars(self).get("save_teacher", True)
        return names if saves is True else [name for name in names if name != "teacher"]

    @classmethod
    def from_config(cls, config):
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

    def fit(self, *args, **kwargs):
        """As `keras.Model.fit`."""
        self._source.value.check_can_teach()
        return super().fit(*args, **kwargs)

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))
        self._build_optimizer()

    def save_own_variables(self, store):
        super().save_own_variables(store)
        for name, state in self.callback_states.items():
            store[_CALLBACK + name] = state

    def load_own_variables(self, store):
        super().load_own_variables(store)
        for key in list(store.keys()):
            if key.startswith(_CALLBACK):
                self.callback_states[key.removeprefix(_CALLBACK)] = store[key][...]


# What of its teacher a distiller saves, and how it comes by it again.


# Of those that save at the same time each would take the other's `None` for the optimizer.
_ALONE = threading.RLock()


def check(save_teacher, source):
    """Returns `save_teacher`, a path as a text, or raises where the teacher cannot be left out.

    Args:
        save_teacher: As of `Distiller`.
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
    saves, source = distiller.save_teacher, distiller._source.value
    found = {"save_teacher": saves, "teacher": None}
    if saves is True:
        found["teacher"] = without_training(serialized("teacher", distiller.teacher))
        told = {}
    elif isinstance(source, AbsentTeacher):
        return {**found, "teacher_told": source.told}
    else:
        told = {"fingerprint": fingerprints.of_teacher(source)}
    return {**found, "teacher_told": {**distiller._told.value, **told}}


def teacher_of(config):
    """The teacher of a configuration; what belongs to it alone is taken out."""
    saves, told = config.get("save_teacher", True), config.pop("teacher_told", None) or {}
    if saves is False:
        return AbsentTeacher(told, "The distiller was saved without its teacher.")
    if saves is not True:
        return _loaded(saves, told)
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
        return AbsentTeacher(told, why)


def _loaded(path, told):
    if not pathlib.Path(path).is_file():
        raise FileNotFoundError(
            f"The distiller was saved with save_teacher={path!r}, and there is no such file. Put "
            "the teacher's file there."
        )
    teacher = keras.models.load_model(path, compile=False)
    found = fingerprints.of_teacher(keras_model.adapt(teacher))
    if found != told.get("fingerprint"):
        raise ValueError(
            f"The distiller was saved with save_teacher={path!r}, and that file holds another "
            f"teacher by now: its fingerprint is {found!r}, that of the distiller's teacher was "
            f"{told.get('fingerprint')!r}. Put the teacher's own file there."
        )
    return teacher


def given_back(distiller, teacher, check):
    """The `Teacher` that stands for one that a distiller gets back; raises if it may not."""
    gone = distiller._source.value
    if not isinstance(gone, AbsentTeacher):
        raise ValueError(
            "The distiller has its teacher. For another one make a new distiller: "
            "keras_kd.Distiller(teacher, distiller.student)."
        )
    models.check(teacher, distiller.student)
    source = keras_model.adapt(teacher)
    source.bind(distiller.student)
    expected = gone.fingerprint_of_teacher
    found = fingerprints.of_teacher(source) if check and expected is not None else expected
    if found != expected:
        raise ValueError(
            f"This is another teacher than the distiller had: its fingerprint is {found!r}, that "
            f"of the distiller's teacher was {expected!r}. If it shall teach all the same: "
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
        return self._told.value

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
        def answer(batch):
            if not batch.is_symbolic or "outputs" not in self.told:
                self.check_can_teach()
            outputs = _zeros(self.told["outputs"], batch.inputs)
            if self.is_sparse:
                outputs = SparseLogits(**outputs)
            taps = self.told["taps"]
            return outputs, {layer: _zeros(taps[layer], batch.inputs) for layer in layers}

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

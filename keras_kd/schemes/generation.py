"""One training of a sequence: from labels, or from the model before."""

import copy
import dataclasses
from typing import Any

import keras
import tensorflow as tf

from keras_kd._utils import batches, validation
from keras_kd._utils.validation import invalid
from keras_kd.callbacks.schedules import ScheduledValue
from keras_kd.models import cloning, symbolic_pass
from keras_kd.schemes import history
from keras_kd.training import arguments, fit, padding_masks
from keras_kd.training.distiller import Distiller
from keras_kd.training.supervised import SupervisedModel

_WRITE_FILES = (
    keras.callbacks.BackupAndRestore,
    keras.callbacks.CSVLogger,
    keras.callbacks.ModelCheckpoint,
    keras.callbacks.TensorBoard,
)


@dataclasses.dataclass
class Recipe:
    """How a model is trained.

    Attributes:
        losses: The distillation losses, see `Distiller`; each training gets copies.
        alpha: See `Distiller`.
        beta: See `Distiller`.
        compile: The arguments of `compile`; each training gets copies.
        fit: The arguments of `fit`, by name.
    """

    losses: Any
    alpha: float
    beta: float
    compile: dict
    fit: dict

    def trainer(self, student, teacher):
        """A compiled `Distiller`, or a `SupervisedModel` where there is no teacher."""
        with student.distribute_strategy.scope():
            losses = cloning.copies_of(self.losses)
            if teacher is None:
                # What the other models of the sequence leave out as padding.
                read = arguments.loss_list(losses, None, student)
                made = SupervisedModel(student, padding=padding_masks.named_by(read))
            else:
                made = Distiller(teacher, student, losses, alpha=self.alpha, beta=self.beta)
            made.compile(**_copied(self.compile))
        return made

    def train(self, student, teacher, number, steps):
        """Trains a model; returns what is recorded of it, `history` and `results`."""
        trainer = self.trainer(student, teacher)
        callbacks = callbacks_of(self.fit.get("callbacks"), number, teacher)
        history = trainer.fit(**{**self.fit, "callbacks": callbacks}).history
        return {"history": history, "results": self.evaluate(trainer, steps)}

    def evaluate(self, trainer, steps):
        """The loss of the labels and the metrics on the validation data; `{}` without."""
        data = self.fit.get("validation_data")
        if data is None:
            return {}
        model = trainer.model if isinstance(trainer, SupervisedModel) else trainer.student
        steps.say(f"evaluating {model.name!r}")
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        batch_size = self.fit.get("validation_batch_size") or self.fit.get("batch_size")
        options = {
            "batch_size": batch_size,
            "steps": self.fit.get("validation_steps"),
            "verbose": steps.verbose,
            "return_dict": True,
        }
        return trainer.evaluate(x, y, sample_weight=sample_weight, **options)


def _copied(arguments):
    made = {key: cloning.copies_of(value) for key, value in arguments.items()}
    return {**made, "optimizer": cloning.clone_optimizer(arguments.get("optimizer", "adam"))}


def check_fit(arguments):
    """Raises if `fit` has arguments with which a sequence cannot be trained."""
    if arguments.get("validation_split"):
        raise ValueError(
            "The models are evaluated when they are trained, on data that must be known: pass "
            "validation_data instead of validation_split."
        )
    check_callbacks(arguments.get("callbacks"))
    if not callable(arguments.get("callbacks")):
        callbacks_of(arguments.get("callbacks"), 0, None, check=False)


def callbacks_of(given, number, teacher, check=True):
    """The callbacks of one training.

    Args:
        given: A function from the training's number to a list, or a list, and it gets deep
            copies: what a callback has seen of one training must not rule the next.
        number: The number of the training.
        teacher: The teacher, or `None`.
        check: Whether callbacks that need a teacher are refused where there is none.

    Raises:
        ValueError: Each training would overwrite what a callback of the list has written; or a
            callback needs a teacher where there is none.
    """
    is_function = callable(given) and not isinstance(given, keras.callbacks.Callback)
    made = _made(given, number) if is_function else fit.callback_list({"callbacks": given})
    for callback in made:
        name = type(callback).__name__
        if not is_function and isinstance(callback, _WRITE_FILES):
            raise ValueError(
                f"{name} writes files, and each training would overwrite those of the one before. "
                "Pass `callbacks` as a function from the number of the training to a list, such "
                f"as lambda number: [{name}(f'folder_{{number}}/...')]."
            )
        needs_teacher = isinstance(callback, ScheduledValue) or hasattr(callback, "prepare")
        if check and teacher is None and needs_teacher:
            raise ValueError(
                f"{name} steers a distillation, and training {number} has no teacher. Pass "
                "`callbacks` as a function from the number of the training to a list, such as "
                f"lambda number: [{name}(...)] if number > 0 else []."
            )
    return made if is_function else copy.deepcopy(made)


def _made(function, number):
    made = function(number)
    if not isinstance(made, (list, tuple)):
        raise ValueError(
            f"`callbacks` must return a list of callbacks. Received: {made!r} for training "
            f"{number}."
        )
    check_callbacks(made)
    return list(made)


# Data and arguments that do not fit a sequence: refused before its first training.


# Of `fit`, the least that each may be; `None` is what it is left out for.
_COUNTS = {
    "epochs": 1,
    "batch_size": 1,
    "steps_per_epoch": 1,
    "validation_steps": 1,
    "validation_batch_size": 1,
    "initial_epoch": 0,
}
# Which of Keras' metrics they are, the loss and the outputs tell.
_KNOWN_BY_THE_LOSS = ("accuracy", "acc", "crossentropy", "ce")


def check_mixture(alpha, beta):
    """Raises where a student that has a teacher would learn from nothing."""
    if alpha == 0 and beta == 0:
        raise ValueError(
            "`alpha` and `beta` are both 0: a student with a teacher has nothing to learn from. "
            "Pass alpha= or beta= above 0."
        )


def check_compile(arguments):
    """Raises for losses and metrics that Keras would look for in the first step only."""
    for loss in keras.tree.flatten(arguments.get("loss")):
        if loss is not None:
            keras.losses.get(loss)
    for name in ("metrics", "weighted_metrics"):
        for metric in keras.tree.flatten(arguments.get(name)):
            if metric is not None and metric not in _KNOWN_BY_THE_LOSS:
                keras.metrics.get(metric)
    for name in ("run_eagerly", "auto_scale_loss"):
        if arguments.get(name) is not None:
            validation.boolean(name, arguments[name])
    if arguments.get("jit_compile") not in (None, "auto"):
        validation.boolean("jit_compile", arguments["jit_compile"])


def check(recipe, student, name, needs_labels=False):
    """Raises for arguments of `fit` with which no training could end well.

    Args:
        recipe: A `training.Recipe`.
        student: A model that is trained.
        name: The argument that the training data was.
        needs_labels: Whether the first model learns from labels alone.
    """
    fit = recipe.fit
    if hasattr(fit.get("x"), "__next__"):
        raise invalid(
            name,
            "data that is good for several passes, such as a batched tf.data.Dataset",
            repr(fit["x"]),
        )
    for key, least in _COUNTS.items():
        if key in fit:
            validation.integer(
                key, fit[key], least, optional=key not in ("epochs", "initial_epoch")
            )
    if not isinstance(fit.get("class_weight"), (dict, type(None))):
        raise invalid("class_weight", "a dict of numbers by class, or None", fit["class_weight"])
    if fit.get("initial_epoch", 0) >= fit.get("epochs", 1):
        epochs = fit.get("epochs", 1)
        raise invalid("initial_epoch", f"less than epochs={epochs}", fit["initial_epoch"])
    check_callbacks(fit.get("callbacks"))
    data = fit.get("x")
    if fit.get("y") is not None:
        data = tuple(fit.get(key) for key in ("x", "y", "sample_weight"))
        data = data if data[2] is not None else data[:2]
    shapes = _check_data(name, data, fit.get("steps_per_epoch"), "steps_per_epoch", student)
    if needs_labels and _has_no_labels(data):
        raise ValueError(
            f"`{name}` has no labels, and generation 0 learns from labels alone. Pass y=labels, or "
            "a dataset of (inputs, labels), or give BornAgain a teacher and alpha=0."
        )
    given = fit.get("validation_data")
    if given is None:
        return
    history.check_data(given)
    if _has_no_labels(given):
        raise ValueError(
            "`validation_data` has no labels, on which the models are evaluated. Pass "
            "(inputs, labels)."
        )
    of_given = _check_data(
        "validation_data", given, fit.get("validation_steps"), "validation_steps", student
    )
    if None not in (shapes, of_given) and shapes[0] == of_given[0] and shapes[1] != of_given[1]:
        raise ValueError(
            f"`validation_data` has labels {of_given[1]} for inputs {of_given[0]}, `{name}` has "
            f"labels {shapes[1]} for such inputs. Pass labels of one form in both."
        )


def _has_no_labels(data):
    if isinstance(data, keras.utils.PyDataset):
        return False  # its batches tell
    parts = data.element_spec if isinstance(data, tf.data.Dataset) else data
    return not isinstance(parts, tuple) or len(parts) < 2 or parts[1] is None


def check_callbacks(given):
    """Raises unless they are callbacks, or a function from a number to a list of them."""
    if given is None or isinstance(given, keras.callbacks.CallbackList):
        return
    if callable(given) and not isinstance(given, keras.callbacks.Callback):
        validation.function("callbacks", given, ["number"])
        return
    listed = given if isinstance(given, (list, tuple)) else [given]
    if not all(isinstance(each, keras.callbacks.Callback) for each in listed):
        what = "keras.callbacks.Callback objects in a list, or a function from a number to a list"
        raise invalid("callbacks", what, repr(given))


def _check_data(name, data, steps, steps_name, student):
    """`(inputs, labels)` in words, shapes without the rows; `None` where batches must tell."""
    if isinstance(data, keras.utils.PyDataset):
        _check_ends(name, data, steps, steps_name, "by its property `num_batches`")
        if data.num_batches == 0:
            raise ValueError(f"`{name}` is empty: a PyDataset of 0 batches. Expected one at least.")
        return None
    if isinstance(data, tf.data.Dataset):
        _check_ends(name, data, steps, steps_name, ".take(number_of_batches)")
        if data.cardinality() == 0:
            raise ValueError(f"`{name}` is empty: a dataset of 0 batches. Expected one at least.")
        parts = data.element_spec
    elif isinstance(data, tuple) and len(data) in (2, 3):
        batches.check_data(name, data)
        parts = data
    else:
        return None
    parts = parts if isinstance(parts, tuple) else (parts,)
    inputs = symbolic_pass.specs_like(parts[0])
    symbolic_pass.trace_outputs(name, inputs, "the student", student)
    if inputs is None or len(parts) < 2 or parts[1] is None:
        return None
    labels = symbolic_pass.specs_like(parts[1])
    if labels is None:
        return None
    return symbolic_pass.shapes_in(inputs), symbolic_pass.shapes_in(labels)


def _check_ends(name, data, steps, steps_name, limit):
    if batches.never_ends(data) and steps is None:
        raise ValueError(
            f"`{name}` never ends. Say how many of its batches are one pass, "
            f"{steps_name}=number_of_batches among the arguments of fit, or limit it: {limit}."
        )

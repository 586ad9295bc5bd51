"""One training of a sequence: from labels, or from the model before."""

import copy
import dataclasses
from typing import Any

import keras

from keras_kd import configuration, copies, fit_arguments, padded_outputs
from keras_kd.callbacks.scheduled import ScheduledValue
from keras_kd.distiller import Distiller
from keras_kd.learner import Learner
from keras_kd.sequences.beforehand import check_callbacks

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
        losses: The distillation losses, as of `Distiller`; each training gets copies.
        alpha: As of `Distiller`.
        beta: As of `Distiller`.
        compile: The arguments of `compile`; each training gets copies.
        fit: The arguments of `fit`, by name.
    """

    losses: Any
    alpha: float
    beta: float
    compile: dict
    fit: dict

    def trainer(self, student, teacher):
        """A compiled `Distiller`, or a `Learner` where there is no teacher."""
        with student.distribute_strategy.scope():
            losses = copies.of_each(self.losses)
            if teacher is None:
                # What the other models of the sequence leave out as padding.
                read = configuration.loss_list(losses, None, student)
                made = Learner(student, padding=padded_outputs.named_by(read))
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
        model = trainer.model if isinstance(trainer, Learner) else trainer.student
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
    made = {key: copies.of_each(value) for key, value in arguments.items()}
    return {**made, "optimizer": copies.optimizer(arguments.get("optimizer", "adam"))}


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
        given: A function from the training's number to a list, or a list, of which it gets deep
            copies: what a callback has seen of one training must not rule the next.
        number: The number of the training.
        teacher: The teacher, or `None`.
        check: Whether callbacks that need a teacher are refused where there is none.

    Raises:
        ValueError: Each training would overwrite what a callback of the list has written; or a
            callback needs a teacher where there is none.
    """
    is_function = callable(given) and not isinstance(given, keras.callbacks.Callback)
    made = _made(given, number) if is_function else fit_arguments.callbacks({"callbacks": given})
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

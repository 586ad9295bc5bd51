"""`BornAgain`: generations of one architecture, each taught by the one before."""

import os
from typing import Any

import keras

from keras_kd._utils import progress, validation
from keras_kd._utils.validation import invalid
from keras_kd.models import cloning, symbolic_pass
from keras_kd.schemes import generation, resume
from keras_kd.schemes.generation import Recipe, check_fit
from keras_kd.schemes.history import SequenceReport, gain
from keras_kd.schemes.resume import Folder
from keras_kd.training import fit


class BornAgain:
    """Trains a model again and again, each time from new initial weights, taught by the last one.

    Generation 0 learns from the labels alone (or from `teacher`), generation `g` from the labels
    and generation `g - 1`, through `keras_kd.Distiller`. Teacher and student are equally large:
    what is gained is accuracy, not size.

    Each generation is a copy of `student`'s architecture with weights of its own; `student` itself
    is a template and is not changed, nor are its weights taken over. Optimizer, metrics and
    distillation losses are fresh copies too. Before each generation the random seeds of Python,
    NumPy and TensorFlow are set, to numbers drawn from Python's `random`: all generations differ,
    and after `keras.utils.set_random_seed` a run can be repeated. (So these seeds are other ones
    after `fit`.)

    Args:
        student: A built `keras.Model`.
        generations: How many models are trained, at least 2; with a `teacher` at least 1.
        distillation_losses: See `keras_kd.Distiller`. Default: `SoftTargets(temperature=4.0)`.
        alpha: Factor of the labels' loss where there is a teacher, at least 0.
        beta: Factor of the distillation losses, at least 0.
        teacher: What teaches generation 0: a `keras.Model`. Default: nothing.
        directory: A folder for the finished generations, `model_<g>.keras`. A rerun with the same
            settings goes on with the first generation that is missing, also with more generations
            than before. An unfinished generation begins again, unless `callbacks` gives it a
            `keras.callbacks.BackupAndRestore` of its own.

    Raises:
        ValueError: An argument is wrong.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_kd as kd

    x, y = np.random.normal(size=(64, 8)), np.random.randint(10, size=64)
    student = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    born_again = kd.BornAgain(student, generations=2)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    born_again.compile("adam", loss=loss, metrics=["accuracy"])
    result = born_again.fit(x, y, validation_data=(x, y), epochs=1, verbose=0)
    print(result)
    last = result.students[-1]  # a plain Keras model
    ```

    Reference: Furlanello et al., "Born-Again Neural Networks", https://arxiv.org/abs/1805.04770
    """

    def __init__(
        self,
        student: keras.Model,
        generations: int = 3,
        distillation_losses: Any = None,
        alpha: float = 0.5,
        beta: float = 0.5,
        teacher: keras.Model | None = None,
        directory: str | os.PathLike | None = None,
    ):
        for name, model in (("student", student), ("teacher", teacher)):
            if not (name == "teacher" and model is None) and not isinstance(model, keras.Model):
                raise invalid(name, "a keras.Model", repr(model))
        if not student.built:
            raise ValueError(
                "`student` has no weights yet, so its copies cannot be made. Give it an Input, or "
                "call it on a batch once."
            )
        symbolic_pass.check_built("teacher", teacher)
        self.student, self.teacher = student, teacher
        self.directory = validation.folder("directory", directory)
        self.generations = validation.integer(
            "generations", generations, 2 if teacher is None else 1
        )
        self.distillation_losses = resume.checked_losses(distillation_losses)
        self.alpha = validation.non_negative("alpha", alpha)
        self.beta = validation.non_negative("beta", beta)
        generation.check_mixture(self.alpha, self.beta)
        self._compile: dict[str, Any] | None = None

    def compile(self, optimizer: Any = "adam", loss: Any = None, **kwargs: Any) -> None:
        """As `keras_kd.Distiller.compile`; each generation gets copies of what is passed.

        Args:
            optimizer: Name, or an optimizer; each generation gets a copy made from its
                configuration.
            loss: The loss of the labels.
            **kwargs: `loss_weights`, `metrics`, `weighted_metrics`, `run_eagerly`,
                `steps_per_execution`, `jit_compile`, `auto_scale_loss`.

        Raises:
            ValueError: `loss` is `None` although generation 0 learns from labels alone, or `alpha`
                is not 0; another argument is wrong.
        """
        if loss is None and self.teacher is None:
            raise ValueError(
                "`loss` is None, but generation 0 learns from the labels. Pass the loss of the "
                "labels, or give BornAgain a teacher."
            )
        arguments = {"optimizer": optimizer, "loss": loss, **kwargs}
        generation.check_compile(arguments)
        recipe = self._recipe(arguments, {})
        # What does not fit raises now, not when a generation has been trained.
        first, second = (cloning.clone_model(self.student, number) for number in (0, 1))
        recipe.trainer(second, first if self.teacher is None else self.teacher)
        self._compile = arguments

    def _recipe(self, compiled, fit):
        return Recipe(self.distillation_losses, self.alpha, self.beta, compiled, fit)

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """Trains all generations, each with the arguments of `keras.Model.fit`.

        Args:
            *args: See `keras.Model.fit`; `validation_split` is refused. `callbacks` is a list,
                deep-copied for each generation, or a function from the generation to a list of
                callbacks, which then are used as they are. Data must be good for several passes:
                arrays, a `tf.data.Dataset`, a `keras.utils.PyDataset`. Unless `verbose` is 0 each
                generation is announced when it begins, or that `directory` has it already.
            **kwargs: As `args`.

        Returns:
            A report: `students`, a list of the models; `histories`, a list of dicts; `rows`, a dict
            for each generation with its results on `validation_data`, its `gain` over generation 0
            in accuracy (in loss where no metric is one) and its `seed`; `table()` and `markdown()`.

        Raises:
            ValueError: It is not compiled; an argument is wrong; `directory` holds generations made
                with other settings.
        """
        if self._compile is None:
            raise ValueError("Call compile(optimizer, loss, ...) before fit.")
        arguments = fit.bind_checked(args, kwargs)
        check_fit(arguments)
        verbose = progress.check_verbose(arguments.get("verbose", "auto"))
        recipe = self._recipe(self._compile, arguments)
        generation.check(recipe, self.student, "x", needs_labels=self.teacher is None)
        folder = Folder(self.directory, self._settings(recipe))
        steps = progress.Steps("BornAgain", self.generations, verbose, are_alike=True)
        report, teacher = SequenceReport([], [], []), self.teacher
        for number in range(self.generations):
            student, record = self._generation(number, teacher, recipe, folder, steps)
            report.students.append(student)
            report.histories.append(record["history"])
            report.rows.append(self._row(number, student, record["results"], report, folder))
            teacher = student
        return report

    def _settings(self, recipe):
        if self.directory is None:
            return {}
        teacher = "" if self.teacher is None else resume.of_weights(self.teacher)
        return {
            "student": resume.of_architecture(self.student),
            "teacher": teacher,
            **resume.of_recipe(recipe),
        }

    def _generation(self, number, teacher, recipe, folder, steps):
        """A trained student and its record; both from the folder if they are there."""
        keras.utils.set_random_seed(folder.seed_of(number))
        with self.student.distribute_strategy.scope():
            student = cloning.clone_model(self.student, number)
        record = folder.load(number, student)
        if record is not None:
            steps.skip(f"generation {number} is in the directory, it is not trained again")
            return student, record
        steps.begin(f"generation {number} learns from {self._teacher_of(number)}")
        record = recipe.train(student, teacher, number, steps)
        folder.save(number, student, record)
        return student, record

    def _teacher_of(self, number):
        if number:
            return f"generation {number - 1}"
        return "labels" if self.teacher is None else "teacher"

    def _row(self, number, student, results, report, folder):
        first = report.rows[0] if report.rows else results
        return {
            "model": f"generation {number}",
            "teacher": self._teacher_of(number),
            "parameters": student.count_params(),
            **results,
            "gain": gain(results, first),
            "seed": folder.seed_of(number),
        }

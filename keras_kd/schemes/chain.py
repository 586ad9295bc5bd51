"""`distill_chain`: teacher, assistants and student, each taught by the one before."""

import os
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_kd import models
from keras_kd._utils import progress, validation
from keras_kd._utils.validation import invalid
from keras_kd.schemes import generation, resume
from keras_kd.schemes.generation import Recipe, check_fit
from keras_kd.schemes.history import SequenceReport, agreements, check_data, gain
from keras_kd.schemes.resume import Folder
from keras_kd.training import fit

_DATA = ("x", "y", "sample_weight", "validation_data")


def distill_chain(
    models: Sequence[keras.Model],
    data: Any,
    *,
    validation_data: Any = None,
    compile: dict[str, Any] | None = None,
    fit: dict[str, Any] | None = None,
    distillation_losses: Any = None,
    alpha: float = 0.5,
    beta: float = 0.5,
    directory: str | os.PathLike | None = None,
    verbose: Any = "auto",
) -> SequenceReport:
    """Distills through teacher assistants: each model is taught by the one before it.

    Where a student is far smaller than its teacher, models of sizes between them can hand down more
    than the teacher itself. Each pair is trained by `keras_kd.Distiller`; the first model is the
    teacher and is not changed, the others are trained where they are.

    Before each training the random seeds of Python, NumPy and TensorFlow are set, to numbers drawn
    from Python's `random`. (So these seeds are other ones afterwards.)

    Args:
        models: `[teacher, assistant, ..., student]`, two or more built `keras.Model`s with outputs
            of the same shape; the first one is trained already.
        data: What is trained on: inputs and labels, `(x, y)` or `(x, y, sample_weight)`; or what
            `keras.Model.fit` takes as `x` alone and is good for several passes, such as a batched
            `tf.data.Dataset`.
        validation_data: `(x, y)`, `(x, y, sample_weight)`, a batched `tf.data.Dataset` or a
            `keras.utils.PyDataset`, by which the models are compared.
        compile: A dict of the arguments of `Distiller.compile`; each model gets copies; or
            a list with a dict for each model but the first.
        fit: A dict of further arguments of `keras.Model.fit` (epochs, batch_size, ...), or a list
            with one for each model but the first. `callbacks` is a list; each training
            gets deep copies, or a function from the model's position to a list.
        distillation_losses: See `Distiller`; each training gets copies.
        alpha: See `Distiller`.
        beta: See `Distiller`.
        directory: A folder for the finished models, `model_<position>.keras`. A rerun with the same
            settings goes on with the first model that is missing; models may be added to the end
            of the chain.
        verbose: 1: each training is announced when it begins, or that `directory` has its model
            already; progress bars show the trainings, evaluations and comparisons; 2: lines in
            their place; 0: silent. `verbose` in `fit` goes before it for a training itself; by
            default it is that of `fit`.

    Returns:
        A report: `students`, the trained models; `histories`; `rows`, a dict for each model, the
        teacher's first, with its parameters, its results on `validation_data`, the share of the
        rows for which its class is that of the first teacher (`agreement_with_first`) and of its
        own (`agreement_with_teacher`), and its `gain` over its own teacher in accuracy (in loss
        where no metric is one); `table()` and `markdown()`.

    Raises:
        ValueError: An argument is wrong; `directory` holds models made with other settings.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_kd as kd

    def network(width):
        layers = [keras.layers.Dense(width, "relu"), keras.layers.Dense(10)]
        return keras.Sequential([keras.Input((8,)), *layers])

    x, y = np.random.normal(size=(64, 8)), np.random.randint(10, size=64)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    report = kd.distill_chain(
        [network(32), network(8), network(2)],
        (x, y),
        validation_data=(x, y),
        compile={"optimizer": "adam", "loss": loss, "metrics": ["accuracy"]},
        fit={"epochs": 1, "verbose": 0},
    )
    print(report)
    ```

    Reference: Mirzadeh et al., "Improved Knowledge Distillation via Teacher Assistant",
    https://arxiv.org/abs/1902.03393
    """
    chain = _checked(models)
    mixture = validation.non_negative("alpha", alpha), validation.non_negative("beta", beta)
    distillation_losses = resume.checked_losses(distillation_losses)
    directory = validation.folder("directory", directory)
    data = _data_arguments(data, validation_data)
    fits = _for_each("fit", fit, len(chain) - 1)
    verbose, fits = _verbosity(verbose, fits)
    recipes = [
        Recipe(distillation_losses, *mixture, compiled, _fit_arguments(given, data))
        for compiled, given in zip(_for_each("compile", compile, len(chain) - 1), fits, strict=True)
    ]
    generation.check_mixture(*mixture)
    for teacher, student, recipe in zip(chain, chain[1:], recipes, strict=False):
        generation.check_compile(recipe.compile)
        generation.check(recipe, student, "data")
        recipe.trainer(student, teacher)  # what does not fit raises before anything is trained
    folder = Folder(directory, {} if directory is None else _settings(chain, recipes))
    steps = progress.Steps("distill_chain", len(recipes), verbose, are_alike=True)
    records = _train(chain, recipes, folder, steps)
    histories = [record["history"] for record in records]
    return SequenceReport(chain[1:], histories, _rows(chain, recipes, records, steps))


def _checked(chain):
    if not isinstance(chain, (list, tuple)) or len(chain) < 2:
        raise invalid("models", "a list of at least two keras.Models, the teacher first", chain)
    for i, model in enumerate(chain):
        if not isinstance(model, keras.Model):
            raise invalid(f"models[{i}]", "a keras.Model", repr(model))
        if not model.built:
            raise ValueError(
                f"models[{i}] ({model.name!r}) has no weights yet. Give it an Input, or call it on "
                "a batch once."
            )
    for i, model in enumerate(chain):
        for j in range(i):
            if chain[j] is model:
                raise ValueError(f"models[{j}] and models[{i}] are the same model.")
            models.check_shared_weights(chain[j], model, f"models[{j}] and models[{i}]")
    _check_outputs(chain)
    return list(chain)


def _check_outputs(chain):
    shapes = [models.output_shapes(model) for model in chain]
    for i, shape in enumerate(shapes):
        if None not in (shape, shapes[0]) and shape != shapes[0]:
            raise ValueError(
                f"The models need outputs of one shape. Received: models[0] with {shapes[0]}, "
                f"models[{i}] with {shape}."
            )


def _data_arguments(data, validation_data):
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    _check_training_data(data, x)
    if validation_data is not None:
        check_data(validation_data)
    values = x, y, sample_weight, validation_data
    return {key: v for key, v in zip(_DATA, values, strict=True) if v is not None}


def _check_training_data(data, x):
    is_array = all(hasattr(part, "shape") for part in keras.tree.flatten(x))
    is_dataset = isinstance(x, (tf.data.Dataset, keras.utils.PyDataset))
    if not is_array and not is_dataset and not (hasattr(x, "__len__") and hasattr(x, "__iter__")):
        raise invalid(
            "data",
            "(x, y), (x, y, sample_weight) or data that is good for several passes, such as a "
            "batched tf.data.Dataset",
            repr(data),
        )


def _fit_arguments(given, data):
    twice = sorted(set(given) & set(_DATA))
    if twice:
        raise ValueError(
            f"`fit` has {twice}, which are arguments of distill_chain itself: `data`, "
            "`validation_data`."
        )
    arguments = fit.bind_checked((), {**given, **data})
    check_fit(arguments)
    return arguments


def _for_each(name, given, steps):
    given = {} if given is None else given
    made = [given] * steps if isinstance(given, dict) else given
    is_list = isinstance(made, (list, tuple)) and all(isinstance(each, dict) for each in made)
    if not is_list or len(made) != steps:
        raise invalid(
            name, f"a dict, or a list of {steps} dicts, one for each student", repr(given)
        )
    return list(made)


def _verbosity(verbose, fits):
    """The call's `verbose` as a number, and the arguments of each `fit` with their own."""
    of_fits = [progress.check_verbose(each.get("verbose", verbose)) for each in fits]
    number = progress.check_verbose(verbose)
    number = max(of_fits) if isinstance(verbose, str) else number
    return number, [{**f, "verbose": v} for f, v in zip(fits, of_fits, strict=True)]


def _settings(chain, recipes):
    described = {"teacher's weights": resume.of_weights(chain[0])}
    for i, (model, recipe) in enumerate(zip(chain[1:], recipes, strict=True), 1):
        described[f"models[{i}]"] = resume.of_architecture(model)
        for key, text in resume.of_recipe(recipe).items():
            described[f"{key} of models[{i}]"] = text
    return described


def _train(chain, recipes, folder, steps):
    records = []
    for number, recipe in enumerate(recipes, 1):
        keras.utils.set_random_seed(folder.seed_of(number))
        record = folder.load(number, chain[number])
        name, teacher = (repr(chain[i].name) for i in (number, number - 1))
        if record is None:
            steps.begin(f"{name} learns from {teacher}")
            record = recipe.train(chain[number], chain[number - 1], number, steps)
            folder.save(number, chain[number], record)
        else:
            steps.skip(f"{name} is in the directory, it is not trained again")
        records.append(record)
    return records


def _of_teacher(teacher, recipe, steps):
    if recipe.fit.get("validation_data") is None or recipe.compile.get("loss") is None:
        return {}
    return recipe.evaluate(recipe.trainer(teacher, None), steps)


def _rows(chain, recipes, records, steps):
    of_teacher = _of_teacher(chain[0], recipes[0], steps)
    results = [of_teacher, *(record["results"] for record in records)]
    agree = agreements(chain, recipes[0].fit, steps.verbose)
    rows = []
    for i, model in enumerate(chain):
        row = {"model": model.name, "teacher": chain[i - 1].name if i else None}
        row |= {"parameters": model.count_params(), **results[i], **agree[i]}
        rows.append({**row, "gain": gain(results[i], results[i - 1]) if i else None})
    return rows

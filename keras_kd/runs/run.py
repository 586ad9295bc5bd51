"""A run: checks first, then stages in a fixed order, each of which is done once."""

from collections.abc import Callable
from typing import Any

import keras

from keras_kd.runs import (
    card,
    curves,
    data,
    exporting,
    losses,
    models,
    reporting_stage,
    teacher,
    training,
    tuning_stage,
)
from keras_kd.runs.context import Run
from keras_kd.runs.folder import RunFolder
from keras_kd.runs.reading import Configuration

# In this order. A stage returns the files that it has written into the folder.
STAGES: dict[str, Callable[[Run], list[str]]] = {
    "teacher": training.train_teacher,
    "cache": training.write_cache,
    "tune": tuning_stage.search,
    "student": training.train_student,
    "baseline": training.train_baseline,
    "curves": curves.draw,
    "exports": exporting.write_all,
    "report": reporting_stage.write,
    "card": card.write,
}
_OF_CACHE = ("teacher", "cache")
_OF_TUNE = ("teacher", "cache", "tune")
_OF_EXPORT = ("exports", "report", "card")


def distill(
    config: Configuration,
    folder: Any,
    *,
    resume: bool = False,
    quiet: bool = False,
) -> Any:
    """Runs a configuration from its data to its files.

    Args:
        config: The configuration.
        folder: The folder of the run, also the address of one in a store.
        resume: Whether a run that was ended goes on; else the folder must be new.
        quiet: Whether nothing is printed.

    Returns:
        The folder.

    Raises:
        ValueError: Something is wrong; all that can be seen before a training raises before it.
        ImportError: A package is missing.
    """
    return _run(config, folder, tuple(STAGES), resume, quiet)


def write_cache(
    config: Configuration,
    folder: Any,
    *,
    resume: bool = False,
    quiet: bool = False,
) -> Any:
    """Trains the teacher, where it is trained here, and writes its outputs; no more.

    Args:
        config: The configuration.
        folder: See `distill`.
        resume: See `distill`.
        quiet: See `distill`.

    Returns:
        The folder of the cache.

    Raises:
        ValueError: See `distill`; or the configuration wants no cache.
    """
    if not config.values.training.cache:
        raise config.error(
            "training.cache",
            "no cache is wanted. Write `cache: true` in the section training, or "
            "pass --set training.cache=true.",
        )
    return _run(config, folder, _OF_CACHE, resume, quiet) / training.CACHE


def search(
    config: Configuration,
    folder: Any,
    *,
    resume: bool = False,
    quiet: bool = False,
) -> Any:
    """Trains the teacher, where it is trained here, and searches settings; no more.

    Args:
        config: The configuration.
        folder: See `distill`.
        resume: See `distill`.
        quiet: See `distill`.

    Returns:
        The page of the search, Markdown.

    Raises:
        ValueError: See `distill`; or the configuration has no search.
    """
    if config.values.tune is None:
        raise config.error(
            "tune",
            "no search is wanted. Add the section, such as `tune: {space: {alpha: [0.1, 0.5]}}`.",
        )
    return _run(config, folder, _OF_TUNE, resume, quiet) / tuning_stage.PAGE


def export(config: Configuration, folder: Any, *, quiet: bool = False) -> Any:
    """Writes the exports of a finished run again, and the report and the card of them.

    Args:
        config: The configuration; `exports` and `report` may differ from those of the run.
        folder: The folder of the run.
        quiet: Whether nothing is printed.

    Returns:
        The folder.

    Raises:
        ValueError: There is no finished run; else see `distill`.
    """
    check(config)
    found = RunFolder(folder)
    if not found.is_begun():
        found.resume(config)  # which raises
    with found.held():
        found.resume(config, ("exports", "report"))
        unfinished = [
            name for name in ("teacher", "student", "baseline") if not found.is_done(name)
        ]
        if unfinished:
            raise ValueError(
                f"The run in {str(found.place)!r} has not trained all of its models: "
                f"{', '.join(unfinished)}. Finish it: keras-kd distill ... --resume."
            )
        made = _prepared(config, found, quiet)
        old = [name for stage in _OF_EXPORT for name in found.forget(stage)]
        found.write_config(config)
        _do(made, _OF_EXPORT)
        kept = {each.file for each in config.values.exports}
        for name in old:
            if name.endswith((".tflite", ".onnx")) and name not in kept:
                found.file(name).unlink(missing_ok=True)
        found.push()
    return found.place


def check(config: Configuration) -> None:
    """Checks all for which neither data nor models are needed.

    Raises:
        ValueError: A name, a file or a combination is wrong.
        ImportError: A package is missing.
    """
    tuning_stage.check(config)
    teacher.check(config)
    losses.check(config)
    if config.values.student.kind == "file":
        models.existing(config, "student.file", config.values.student.chosen, models.KERAS)
    exporting.check(config)
    reporting_stage.check()


def _run(config, folder, stages, resume, quiet):
    check(config)
    found = RunFolder(folder)
    if resume and not found.is_begun():
        found.resume(config)  # which raises
    with found.held():
        if resume:
            found.resume(config)
        else:
            found.check_new()
        made = _prepared(config, found, quiet)
        if not resume:
            found.begin(config)
        found.check_data(made.data.digest)
        for note in made.data.notes:
            made.say(f"data: {note}")
        _do(made, stages)
        made.say(f"done: {found.place}")
        found.push()
    return found.place


def _prepared(config: Configuration, folder: RunFolder, quiet: bool) -> Run:
    """Reads the data, builds teacher and student, and tries both: nothing is trained."""
    samples = data.load(config)
    keras.utils.set_random_seed((config.values.seed * 10 + 1) % 2**32)
    plan = teacher.build(config, samples)
    models.check_outputs(
        config,
        f"student.{config.values.student.kind}",
        models.student(config, plan.teacher, samples),
        samples,
    )
    name = folder.place.name
    made = Run(config, folder, name, samples, plan, plan.teacher, quiet)
    if plan.epochs and folder.is_begun() and folder.is_done("teacher"):
        training.take_trained(made)
    if folder.is_begun() and folder.is_done("tune"):
        tuning_stage.take(made)
    return made


def _do(run: Run, stages: Any) -> None:
    for name in stages:
        if _is_done(run, name):
            run.say(f"{name}: there already")
            run.folder.clear_scratch(name)  # of a run that was ended right here
            continue
        written = STAGES[name](run)
        run.folder.done(name, written)
        run.folder.clear_scratch(name)
        run.folder.push()


def _is_done(run, name):
    if name == "cache" and run.config.values.training.cache:
        return run.folder.is_done(name) and run.folder.file(training.CACHE).exists()
    return run.folder.is_done(name)

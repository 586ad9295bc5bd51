"""The search for better settings before the training: keys of the configuration, by `kd.tune`."""

import json
import re
from typing import Any

from keras_kd import teachers
from keras_kd.runs import losses, models, reading, training
from keras_kd.runs.context import Run
from keras_kd.runs.reading import Configuration
from keras_kd.training.distiller import Distiller
from keras_kd.tuning import tune
from keras_kd.tuning.space import Space
from keras_kd.tuning.study import optuna

FOUND, PAGE = "tuning.json", "tuning.md"
# Keys that a search may set, by what reads them.
_DISTILLER = r"alpha|beta|temperature(\.(start|end))?|losses\.\d+\.(weight|name|arguments\.\w+)"
_STUDENT = r"student\.shrink\.(depth|width)"
_COMPILE = r"training\.(learning_rate|optimizer)"
_KNOWN = (
    *("alpha", "beta", "temperature", "temperature.start", "temperature.end", "losses.0.weight"),
    *("student.shrink.depth", "student.shrink.width"),
    *("training.learning_rate", "training.optimizer"),
)


def check(config: Configuration) -> None:
    """Checks the space: each choice, and both ends of each range, must be a configuration.

    Raises:
        ValueError: A key cannot be searched, or cannot be what the space says.
        ImportError: Optuna is missing.
    """
    section = config.values.tune
    if section is None:
        return
    optuna()
    for name, options in section.space.items():
        key = f"tune.space.{name}"
        if not _is_read_by(name, f"{_DISTILLER}|{_STUDENT}|{_COMPILE}"):
            raise config.error(
                key,
                f"{name!r} is no key that a search may set. Allowed: {', '.join(_KNOWN)} and "
                f"losses.N.arguments.X.{reading.closest(name, list(_KNOWN))}",
            )
        ends = [options["low"], options["high"]] if isinstance(options, dict) else options
        for value in ends:
            try:
                losses.check(config.changed({name: value}))
            except ValueError as error:
                raise config.error(key, f"it cannot be {value!r}: {error}") from error
    try:
        Space(section.space)
    except ValueError as error:
        raise config.error("tune.space", str(error)) from error


def search(run: Run) -> list[str]:
    """Searches where that is wanted; returns the names of the files."""
    config, section = run.config, run.config.values.tune
    if section is None:
        return []
    run.say(f"tune: {section.trials} trials")
    epochs = section.epochs or config.values.training.epochs
    cached = config.values.training.cache
    found = tune(
        teachers.Cached(run.folder.file(training.CACHE)) if cached else run.teacher,
        lambda settings: models.student(
            _configured(config, settings, _STUDENT), run.teacher, run.data
        ),
        run.data.parts["train"],
        run.data.parts["validation"],
        space={**section.space, "batch_size": run.data.batch_size},
        defaults=_current(config),
        objective=section.objective,
        trials=section.trials,
        epochs=epochs,
        distiller=lambda teacher, student, settings: _distiller(
            _configured(config, settings, _DISTILLER), teacher, student
        ),
        compile_model=lambda model, settings: training.compile_model(
            run,
            _configured(config, settings, _COMPILE),
            model,
            getattr(model, "student", model),
            epochs,
        ),
        callbacks=_schedules(config),
        labels_only=config.values.baseline and any(_is_read_by(x, _COMPILE) for x in section.space),
        directory=run.folder.state / "tune",
        seed=config.values.seed,
        verbose=0,
    )
    run.say(str(found))
    found.save_json(run.folder.file(FOUND))
    found.save_markdown(run.folder.file(PAGE))
    take(run)
    return [FOUND, PAGE]


def take(run: Run) -> None:
    """The configuration becomes the one that was found; the file keeps what the user wrote.

    The student with labels only has the architecture that was found, and its own best training.
    """
    if run.config.values.tune is None:
        return
    found = json.loads(run.folder.file(FOUND).read_text(encoding="utf-8"))
    asked = run.config
    settings = {name: each for name, each in found["settings"].items() if name != "batch_size"}
    alone = found["labels_only_settings"] or {}
    own = {name: each for name, each in alone.items() if _is_read_by(name, _COMPILE)}
    run.config = asked.changed(settings)
    run.labels_config = asked.changed({**settings, **own})


def _configured(config, settings, pattern) -> Configuration:
    """The configuration with the settings that one part of the training reads."""
    names = [name for name in config.values.tune.space if _is_read_by(name, pattern)]
    return config.changed({name: settings[name] for name in names})


def _is_read_by(name: str, pattern: str) -> bool:
    return re.fullmatch(pattern, name) is not None


def _current(config) -> dict[str, Any]:
    """What the configuration says now, where the space holds it."""
    space = Space(config.values.tune.space)
    found = {name: config.at(name) for name in space.searched}
    if isinstance(found.get("temperature"), dict):
        found["temperature"] = found["temperature"]["start"]
    return {name: value for name, value in found.items() if space.holds(name, value)}


def _distiller(config, teacher, student) -> Distiller:
    made = losses.build(config, models.gives_logits(student))
    return Distiller(teacher, student, made, alpha=config.values.alpha, beta=config.values.beta)


def _schedules(config):
    if not losses.schedules(config) and "temperature.end" not in config.values.tune.space:
        return None
    return lambda settings: losses.schedules(_configured(config, settings, r"temperature.*"))

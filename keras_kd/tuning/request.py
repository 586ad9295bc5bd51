"""`Request`: what `tune` was called with, checked before any training.

Students are built, and distillers made and compiled, with the first settings and with each choice,
to see which settings are read, which layers of the teacher, and what validation measures.
"""

import dataclasses
import json
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_kd._utils import files, progress, validation
from keras_kd._utils.validation import invalid, needs
from keras_kd.reporting import request as reporting
from keras_kd.taps import tap
from keras_kd.teachers.cache.teacher import Cached
from keras_kd.tuning import objectives as wanted
from keras_kd.tuning import study
from keras_kd.tuning.building import Builder, Functions, hinted_layers
from keras_kd.tuning.data import TuningData
from keras_kd.tuning.objectives import Objective
from keras_kd.tuning.space import DEFAULTS, SHRINKING, Range, Settings, Space

DEFAULT_SPACE: dict[str, Any] = {
    "temperature": {"low": 1.0, "high": 10.0, "log": True},
    "alpha": {"low": 0.0, "high": 1.0},
    "learning_rate": {"low": 3e-4, "high": 3e-2, "log": True},
}
# Random settings that are tried to find one that reads a setting.
_LOOKS = 12
_PLAN = "search.json"


@dataclasses.dataclass(frozen=True)
class Request:
    """One call of `keras_kd.tune`.

    Attributes:
        teacher: What teaches.
        data: Training and validation data.
        test: The test data, or `None`.
        space: What is searched.
        labels_space: What is searched with labels only; `None`: nothing.
        defaults: Values of settings that a space does not hold.
        first: The settings of the first trial.
        objectives: What is searched for.
        builder: Makes what trains.
        taps: Layers of the teacher that are stored.
        trials: Of each search.
        epochs: Of a whole training.
        seeds: How many students are compared.
        metric: What is compared, or `None`.
        export: Writes the file whose costs are objectives, or `None`.
        sampler: `"tpe"` or `"random"`.
        prune: Whether poor trials end early.
        folder: Of the search.
        seed: A number.
        verbose: 0 to 2.
    """

    teacher: Any
    data: TuningData
    test: Any
    space: Space
    labels_space: Space | None
    defaults: dict[str, Any]
    first: dict[str, Any]
    objectives: list[Objective]
    builder: Builder
    taps: list
    trials: int
    epochs: int
    seeds: int
    metric: str | None
    export: Callable | None
    sampler: str
    prune: bool
    folder: pathlib.Path
    seed: int
    verbose: int

    @property
    def teacher_rows(self) -> int:
        """For how many rows the search runs the teacher."""
        return 0 if isinstance(self.teacher, Cached) else self.data.rows

    @property
    def measured_teacher(self) -> keras.Model | None:
        """The teacher, where it can be measured on test data."""
        return self.teacher if isinstance(self.teacher, keras.Model) else None


def bind(
    *,
    teacher: Any,
    make_student: Any,
    train: Any,
    validation: Any,
    test: Any,
    space: Any,
    trials: Any,
    epochs: Any,
    objective: Any,
    distiller: Any,
    compile_model: Any,
    callbacks: Any,
    defaults: Any,
    taps: Any,
    labels_only: Any,
    seeds: Any,
    metric: Any,
    export: Any,
    sampler: Any,
    prune: Any,
    directory: Any,
    seed: Any,
    verbose: Any,
) -> Request:
    """Checks the arguments of `tune`.

    Raises:
        ImportError: Optuna is missing, or what comparing needs.
        ValueError: An argument is wrong.
    """
    study.optuna()
    checked = _check_simple(
        trials=trials,
        epochs=epochs,
        seeds=seeds,
        seed=seed,
        labels_only=labels_only,
        prune=prune,
        sampler=sampler,
        export=export,
        verbose=verbose,
    )
    functions = Functions(make_student, distiller, compile_model, callbacks)
    searched = Space(DEFAULT_SPACE if space is None else space, shrinks=make_student is None)
    _check_student(teacher, make_student, searched)
    for name, value in (("train", train), ("validation", validation)):
        if value is None:
            raise ValueError(f"`{name}` is missing: arrays (x, y), or a batched tf.data.Dataset.")
    data = TuningData(train, validation, checked["seed"])
    known = _defaults(defaults, searched)
    builder = Builder(functions, teacher, data.labels, checked["seed"])
    look = _look(builder, teacher, searched, known, data, is_default=space is None)
    if not isinstance(taps, (list, tuple)):
        raise invalid("taps", "a list of layers of the teacher", repr(taps))
    objectives = wanted.read(objective, look.measured)
    wanted.Costs(objectives, data.validation, export)
    if test is not None:
        for package in ("sklearn", "scipy"):
            needs(package, "keras_kd.tune with test data", "tune")
        _check_test(test, look.student, metric)
    elif metric is not None:
        raise ValueError(f"`metric` is compared on `test`, which is missing. Received: {metric!r}")
    labels_space = _labels_space(builder, searched, known) if checked["labels_only"] else None
    folder = _folder(directory)
    request = Request(
        teacher=teacher,
        data=data,
        test=test,
        space=searched,
        labels_space=labels_space,
        defaults=known,
        first=look.first,
        objectives=objectives,
        builder=builder,
        taps=list(dict.fromkeys([*taps, *hinted_layers(searched), *look.taps])),
        metric=metric,
        export=export,
        folder=folder,
        **{name: value for name, value in checked.items() if name != "labels_only"},
    )
    _claim_folder(request, look.training)
    return request


def _check_simple(**given: Any) -> dict[str, Any]:
    found = dict(given)
    for name in ("trials", "epochs", "seeds"):
        found[name] = validation.integer(name, given[name], 1)
    found["seed"] = validation.integer("seed", given["seed"], 0)
    for name in ("labels_only", "prune"):
        found[name] = validation.boolean(name, given[name])
    validation.one_of("sampler", given["sampler"], study.SAMPLERS)
    validation.function("export", found.pop("export"), ["student", "path"], optional=True)
    found["verbose"] = progress.check_verbose(given["verbose"])
    return found


def _check_student(teacher: Any, make_student: Any, space: Space) -> None:
    sizes = [name for name in ("depth", "width") if name in space.names]
    if make_student is None and not (isinstance(teacher, keras.Model) and sizes):
        raise ValueError(
            "`make_student` is missing: a function that returns a new, untrained student. Without "
            "it students are shrunk from a Keras teacher, and `space` needs 'depth' or 'width'. "
            f"Received: teacher={teacher!r}, space={space.names}"
        )


def _defaults(given: Any, space: Space) -> dict[str, Any]:
    given = {} if given is None else given
    if not isinstance(given, dict):
        raise invalid("defaults", "a dict of settings by name, or None", repr(given))
    known = {**DEFAULTS, **SHRINKING} if space.shrinks else DEFAULTS
    for name, value in given.items():
        if name in space.searched and not space.holds(name, value):
            raise ValueError(
                f"defaults[{name!r}]={value!r} does not lie in the space, {space.to_dict()[name]}."
            )
        if name in space.fixed:
            raise ValueError(
                f"defaults[{name!r}]={value!r}: `space` fixes {name!r} to {space.fixed[name]!r}."
            )
        if name not in space.names:
            # It would hold in every trial, and stand in no result.
            raise ValueError(
                f"`defaults` sets {name!r}, which is not in the space: {space.names}. To fix it in "
                f"all trials write space={{{name!r}: {value!r}, ...}}."
            )
    return {**known, **given}


@dataclasses.dataclass(frozen=True)
class _Seen:
    """What building some students showed."""

    student: keras.Model
    first: dict[str, Any]
    measured: dict[str, Any]
    taps: list
    training: dict[str, Any]


def _look(builder, teacher, space, defaults, data, is_default) -> _Seen:
    """Builds with the first settings, with each choice, and at random until all is read."""
    seen: list[Settings] = []
    taps: list = []

    def build(values):
        settings = Settings.of(space, defaults, values)
        made = builder.distilled(teacher, settings)
        seen.append(settings)
        by_name = getattr(made.model, "losses_by_name", {})
        layers = [each.teacher_layer for each in by_name.values()]
        taps.extend(tap.each(layer for layer in layers if layer is not None))
        return made

    first = build({})
    measured = first.model.evaluate(data.validation.take(1), return_dict=True, verbose=0)
    for values in _each_choice(space):
        build(values)
    generator = np.random.default_rng(0)
    for _ in range(_LOOKS):
        if not _unread(space, seen):
            break
        build(space.draw(generator))
    unread = _unread(space, seen)
    if unread:
        read = sorted({name for each in seen for name in each.read})
        what = "The default space" if is_default else "`space`"
        raise ValueError(
            f"{what} holds {unread}, which nothing reads: searching it would change nothing. What "
            f"is read: {read}. Read it in a function of yours as settings[{unread[0]!r}], or "
            f"{'pass a space without it' if is_default else 'leave it out'}."
        )
    return _Seen(first.student, dict(seen[0].chosen), measured, taps, _described(first))


def _each_choice(space):
    """Settings that differ from the first ones in one choice."""
    for name, options in space.searched.items():
        if not isinstance(options, Range):
            yield from ({name: choice} for choice in options[1:])


def _described(made):
    """What is trained with the first settings, but for names that Keras counts up."""
    settings = getattr(made.model, "settings", None)
    flat = settings() if callable(settings) else made.model.get_compile_config()
    shapes = [list(weight.shape) for weight in made.student.weights]
    kept = {
        key: value
        for key, value in flat.items()
        if not key.endswith("/name") and not key.startswith("versions/")
    }
    return {**kept, "student/shapes": shapes}


def _unread(space, seen):
    read = {name for each in seen for name in each.read}
    return [name for name in space.names if name not in read]


def _labels_space(builder, space, defaults) -> Space | None:
    """The settings that a student reads that has no teacher."""
    read: set[str] = set()
    for values in ({}, *_each_choice(space)):
        settings = Settings.of(space, defaults, values)
        builder.labels_only(settings)
        read |= settings.read
    left = space.without(set(space.names) - read)
    if not any(name in space.searched for name in left):
        raise ValueError(
            "The student that learns from labels alone reads none of the settings that are "
            f"searched, {list(space.searched)}, so there is nothing to search for it. Add "
            "'learning_rate' to `space`, or pass labels_only=False."
        )
    return Space(left, space.shrinks)


def _check_test(test, student, metric):
    reporting.bind(
        teacher=None,
        student=student,
        baseline=None,
        exports=None,
        data=test,
        make_student=None,
        train=None,
        distiller=None,
        seeds=reporting.DEFAULT_SEEDS,
        slices=None,
        metric=metric,
        latency=False,
        directory=None,
        title="",
        verbose=0,
        options={},
    )


def _folder(directory: Any) -> pathlib.Path:
    """The folder of the search, which is made."""
    path = validation.folder("directory", directory)
    found = pathlib.Path(path or tempfile.mkdtemp(prefix="keras_kd_tune_"))
    (found / "students").mkdir(parents=True, exist_ok=True)
    return found


def _claim_folder(request: Request, training: dict[str, Any]) -> None:
    """Writes what is searched into the folder; raises if it holds another search."""
    path = request.folder / _PLAN
    plan = {
        "format": 1,
        "space": request.space.to_dict(),
        "labels_only": None if request.labels_space is None else request.labels_space.to_dict(),
        "first": request.first,
        "objectives": {each.name: each.direction for each in request.objectives},
        "epochs": request.epochs,
        "seed": request.seed,
        "prune": request.prune,
        "train": request.data.digests["train"],
        "validation": request.data.digests["validation"],
        **{f"first trial: {key}": value for key, value in training.items()},
    }
    plan = json.loads(json.dumps(plan, default=repr))
    if not path.exists():
        with files.replace_atomically(path) as partial:
            partial.write_text(json.dumps(plan, indent=2) + "\n", encoding="utf-8")
        return
    earlier = json.loads(path.read_text(encoding="utf-8"))
    keys = dict.fromkeys([*earlier, *plan])
    differing = [key for key in keys if earlier.get(key) != plan.get(key)]
    if differing:
        listed = "; ".join(f"{x}: {earlier.get(x)} there, {plan.get(x)} now" for x in differing)
        raise ValueError(
            f"`directory` {str(request.folder)!r} holds another search ({listed}). Pass the "
            "arguments of that search to go on with it, or another directory."
        )

"""`tune`: searches temperature, weights, losses, learning rate and student on validation data."""

import os
from collections.abc import Callable
from typing import Any

from keras_kd._utils import progress
from keras_kd.reporting.api import report
from keras_kd.tuning import finals, objectives
from keras_kd.tuning.finals import Arm, Finals, Trained
from keras_kd.tuning.request import Request, bind
from keras_kd.tuning.result import Cost, TuningResult, deviation
from keras_kd.tuning.space import Settings, Space
from keras_kd.tuning.study import Study, TrialRecord
from keras_kd.tuning.trials import Search

DISTILLED, LABELS_ONLY = "distilled", "labels-only"


def tune(
    teacher: Any,
    make_student: Callable | None = None,
    train: Any = None,
    validation: Any = None,
    *,
    test: Any = None,
    space: dict[str, Any] | None = None,
    trials: int = 30,
    epochs: int = 12,
    objective: Any = None,
    distiller: Callable | None = None,
    compile_model: Callable | None = None,
    callbacks: Callable | None = None,
    defaults: dict[str, Any] | None = None,
    taps: Any = (),
    labels_only: bool = True,
    seeds: int = 3,
    metric: str | None = None,
    export: Callable | None = None,
    sampler: str = "tpe",
    prune: bool = True,
    directory: str | os.PathLike | None = None,
    seed: int = 0,
    verbose: int | str = 1,
) -> TuningResult:
    """Searches the settings of a distillation, and says what that was worth.

    Needs `pip install 'keras-kd[tune]'` (Optuna).

    Each trial trains a new student with other settings for `epochs`, from the same initial weights
    and on the same batches, and is judged by the metric on `validation` after its last epoch. The
    teacher runs once: its outputs for `train` are stored before the first trial. Poor trials end
    early, by successive halving: about a third of them go on after a sixth of the epochs, and a
    third of these after a half.

    The student that learns from labels alone is searched as long, over those settings that it
    reads. Then the best settings of both, and those of the first trial (the defaults), are trained
    with `seeds` other seeds and compared on `test`, which no trial saw.

    The space holds a setting by its name: a list of choices; a range, `{"low": 1.0, "high": 10.0,
    "log": True}`, or with a `"step"`; or a fixed value. `tune` itself reads

    - `"temperature"`, and `"temperature_end"`: to which it goes linearly in each training;
    - `"alpha"`, and `"beta"`, by default `1 - alpha`;
    - `"loss"`: of `"SoftTargets"`, `"DecoupledKD"`, `"DIST"`, `"LogitStandardization"`,
      `"SigmoidKD"`, `"LogitsMSE"`; `"divergence"` of `SoftTargets`;
    - `"hint"`: `"teacher layer -> student layer"` or `None`, and `"hint_weight"`;
    - `"learning_rate"` (Adam) and `"batch_size"`;
    - `"depth"` and `"width"` of `keras_kd.students.shrink`, without `make_student`.

    Others are for your functions, which read them as `settings["name"]`; a setting that nothing
    reads is refused.

    Killed at any moment it continues when it is called again with the same arguments and
    `directory`; a larger `trials` goes on. Several processes called with one `directory` (on a
    drive that they share, which locks files) share the trials: none runs twice. Trials that fail
    (a loss of NaN, no memory, settings that are refused) are recorded, and do not end the search.

    Args:
        teacher: Whatever `keras_kd.cache_teacher` takes, or a `keras_kd.teachers.Cached`.
        make_student: A function of nothing, or of the settings: a new, untrained student. Where it
            is compiled, its optimizer, loss and metrics are those of each trial. Default:
            `shrink(teacher, depth, width)`.
        train: `(x, y)` or `(x, y, sample_weight)` of arrays, or a batched `tf.data.Dataset` that
            gives the same batches each time: rows are shuffled here.
        validation: As `train`; trials are judged by it.
        test: As `train`, or as `keras_kd.report` takes data; `None`: no gain is reported.
        space: `{name: choices, range or value}`. Default: the temperature from 1 to 10, `alpha`
            from 0 to 1, the learning rate from 0.0003 to 0.03.
        trials: How many of each search.
        epochs: Of a whole training.
        objective: The metric, such as `"accuracy"`, as validation measures it, and costs of the
            exported student: `["accuracy", "bytes", "latency_ms"]` looks for all students that no
            other beats in all of them; `"macs"` too. Trials then do not end early. For metrics of
            unknown direction a dict: `{"my_score": "max", "bytes": "min"}`. Default: the accuracy,
            or the loss without one.
        distiller: A function of teacher, student and settings: what trains the student. Default: a
            `keras_kd.Distiller` by the settings above.
        compile_model: A function of a model (the distiller, or the student with labels only) and
            the settings that compiles it. Default: Adam with class numbers' cross-entropy and
            accuracy.
        callbacks: A function of the settings: a list of callbacks for `fit`. Those of
            `keras_kd.callbacks` are left out where labels teach alone.
        defaults: `{name: value}`: settings of the first trial, with which the best are compared.
            Default: those of `keras_kd.Distiller` (temperature 4, `alpha` 0.5, learning rate
            0.001), or the middle of the space.
        taps: Layers of the teacher that your `distiller` reads only with some settings.
        labels_only: Whether the student without a teacher is searched too.
        seeds: How many students of each kind are compared on `test`.
        metric: What is compared on `test`: see `keras_kd.report`.
        export: A function of a student and a path that writes the file whose costs are objectives.
            Default: float `.tflite`.
        sampler: `"tpe"`, which learns from the trials before, or `"random"`.
        prune: Whether poor trials end early.
        directory: A folder for the teacher's outputs, the trials (an Optuna journal, `trials.log`)
            and the students of the front. Default: a new temporary one.
        seed: Of the settings that are drawn, initial weights and order of rows.
        verbose: 0: silent; 1 or `"auto"`: a line for each trial; 2: without progress bars.

    Returns:
        A `keras_kd.tuning.TuningResult`: `settings`, `student()`, `trials`, `front`, `report`,
        `over_defaults`, `importances`, `flatness`, `cost`; `str` makes a summary, `save_json`,
        `save_markdown`.

    Raises:
        ImportError: Optuna is missing, or what `keras_kd.report` needs.
        ValueError: An argument is wrong; a setting is read by nothing; the metric is not measured;
            the folder holds another search; the first three trials all failed.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_kd as kd

    x = np.random.default_rng(0).normal(size=(192, 8)).astype("float32")
    y = (x[:, 0] > 0).astype("int32")
    network = lambda width: keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(width, "relu"), keras.layers.Dense(2)]
    )
    teacher = network(32)  # trained, in earnest
    found = kd.tune(
        teacher,
        lambda: network(4),
        (x[:64], y[:64]),
        (x[64:128], y[64:128]),
        test=(x[128:], y[128:]),
        trials=2,
        epochs=1,
        seeds=2,
        verbose=0,
    )
    print(found)
    student = found.student()
    ```

    References:
        Akiba et al., "Optuna: A Next-generation Hyperparameter Optimization Framework",
        https://arxiv.org/abs/1907.10902
        Li et al., "A System for Massively Parallel Hyperparameter Tuning" (successive halving),
        https://arxiv.org/abs/1810.05934
    """
    request = bind(
        teacher=teacher,
        make_student=make_student,
        train=train,
        validation=validation,
        test=test,
        space=space,
        trials=trials,
        epochs=epochs,
        objective=objective,
        distiller=distiller,
        compile_model=compile_model,
        callbacks=callbacks,
        defaults=defaults,
        taps=taps,
        labels_only=labels_only,
        seeds=seeds,
        metric=metric,
        export=export,
        sampler=sampler,
        prune=prune,
        directory=directory,
        seed=seed,
        verbose=verbose,
    )
    return run(request)


def run(request: Request) -> TuningResult:
    """Searches, trains the best with other seeds, and compares them."""
    searches = [(DISTILLED, request.space)]
    if request.labels_space is not None:
        searches.append((LABELS_ONLY, request.labels_space))
    steps = progress.Steps("tune", len(searches) * request.trials, request.verbose)
    stored = request.data.store(
        request.teacher, request.folder / "teacher", request.taps, steps.inner
    )
    distilled = _study(request, DISTILLED, request.space)
    _search(
        request,
        distilled,
        lambda settings: request.builder.distilled(stored.teacher(), settings),
        stored.batches,
    ).run(steps)
    labels = None
    if request.labels_space is not None:
        labels = _study(request, LABELS_ONLY, request.labels_space)
        build = request.builder.labels_only
        _search(request, labels, build, request.data.shuffled).run(steps)
    for study in (distilled, labels):
        if study is not None:
            _best(study)  # raises where none came to its end
    records, front = distilled.records(), distilled.front()
    notes = [] if distilled.prunes or not request.prune else [_NO_PRUNING]
    if len(records) > request.trials:
        notes.append(
            f"The directory holds {len(records)} trials, more than trials={request.trials}: all of "
            "them count."
        )
    if len(records) < request.trials:
        notes.append(f"The space has no more than {len(records)} different settings.")
    trained = _train_best(request, stored, distilled, labels, steps, notes)
    compared, over_defaults = _compare(request, trained, notes)
    validated = trained[finals.TUNED].validated if trained else []
    labels_records = labels.records() if labels is not None else []
    both = records + labels_records
    return TuningResult(
        objectives=request.objectives,
        defaults=request.first,
        records=records,
        front=front,
        labels_records=labels_records,
        labels_only_settings=None if labels is None else _best(labels).settings,
        importances=distilled.importances(),
        noise=deviation(validated),
        report=compared,
        over_defaults=over_defaults,
        cost=Cost(
            trials=len(both),
            epochs=sum(each.epochs for each in both),
            whole_epochs=len(both) * request.epochs,
            teacher_rows=request.teacher_rows,
        ),
        notes=notes,
        directory=request.folder,
        study=DISTILLED,
    )


_NO_PRUNING = "No trial ended early: with several objectives, or one epoch, none can."


def _study(request: Request, name: str, space: Space) -> Study:
    # A student alone costs what a distilled one costs: what is searched without teacher is the
    # metric.
    wanted = request.objectives if name == DISTILLED else request.objectives[:1]
    return Study(
        request.folder,
        name,
        space,
        request.defaults,
        wanted,
        request.trials,
        request.epochs,
        request.sampler,
        request.prune,
        request.seed,
    )


def _search(request, study, build, batches) -> Search:
    costs = objectives.Costs(study.objectives, request.data.validation, request.export)
    return Search(study, build, batches, request.data, request.epochs, costs, request.folder)


def _best(study: Study) -> TrialRecord:
    """The trial with the best metric.

    Raises:
        ValueError: No trial came to its end.
    """
    metric = study.objectives[0]
    complete = [each for each in study.records() if each.state == "complete"]
    if not complete:
        failures = dict.fromkeys(x.failure for x in study.records() if x.failure is not None)
        raise ValueError(
            f"No trial of {study.name!r} came to its end. What failed: {list(failures)}"
        )
    return max(complete, key=lambda each: metric.gain(each.values[metric.name], 0.0))


def _train_best(request, stored, distilled, labels, steps, notes) -> dict[str, Trained]:
    """The students that are compared on test data; none without it."""
    if request.test is None:
        notes.append("No test data: no gain is reported. Pass `test`, data that no trial sees.")
        return {}
    best = _best(distilled)

    def taught(name, values):
        def build(seed):
            settings = Settings.of(request.space, request.defaults, values)
            return request.builder.distilled(stored.teacher(), settings, seed)

        return Arm(name, build, stored.batches)

    arms = [taught(finals.TUNED, best.settings)]
    if best.number == 0:
        notes.append("No trial was better than the first one, which has the default settings.")
    else:
        arms.append(taught(finals.DEFAULT, request.first))
    if labels is not None:
        values = _best(labels).settings

        def build(seed):
            settings = Settings.of(request.labels_space, request.defaults, values)
            return request.builder.labels_only(settings, seed)

        arms.append(Arm(finals.LABELS, build, request.data.shuffled))
    seeds = [request.seed + 1 + number for number in range(request.seeds)]
    folder = request.folder / f"finals-of-trial-{best.number}"
    runner = Finals(folder, request.data, request.epochs, request.objectives[0])
    return runner.run(arms, seeds, steps)


def _compare(request, trained, notes):
    """The report, and the difference to the default settings."""
    for name, arm in trained.items():
        notes += [f"{name}, {failure} It is not compared." for failure in arm.failures]
    tuned = trained[finals.TUNED].students if trained else []
    if not tuned:
        return None, None
    options = {"data": request.test, "metric": request.metric, "latency": False, "verbose": 0}
    labels, untuned = (trained.get(name) for name in (finals.LABELS, finals.DEFAULT))
    compared = report(
        request.measured_teacher,
        student=tuned,
        baseline=labels.students if labels and labels.students else None,
        title="Tuned distillation",
        **options,
    )
    searched = request.objectives[0].name
    if searched != compared.metric.key:
        notes.append(
            f"The search was by {searched!r} on validation data; on test data students are "
            f"compared by {compared.metric.label}, as kd.report has it."
        )
    if not untuned or not untuned.students:
        return compared, None
    other = report(student=tuned, baseline=untuned.students, **options)
    return compared, other.difference

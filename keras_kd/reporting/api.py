"""`report`: the one call that compares teacher, students and exported files."""

import dataclasses
import time
from typing import Any

from keras_kd._utils import progress
from keras_kd.reporting import arguments, breakdowns, runs, statistics, training
from keras_kd.reporting.comparison import compare
from keras_kd.reporting.result import Report


def report(
    teacher=None,
    student=None,
    baseline=None,
    exports=None,
    data=None,
    *,
    make_student=None,
    train=None,
    distiller=None,
    seeds=(0, 1, 2),
    slices=None,
    metric=None,
    latency=True,
    directory=None,
    title="Distillation report",
    verbose=1,
    **options,
):
    """Did distillation help, and does the file on the device keep the gain?

    Needs `pip install 'keras-kd[measure]'`.

    Sets side by side the teacher, the student trained with labels only (`baseline`), the distilled
    student, and each exported file, over several seeds. There are two ways to call it:

    - with trained models: `student=` and `baseline=`, a model or a list of them by seed; the two of
      a seed should come from the same initial weights and the same number of epochs;
    - with functions: `make_student=` and `train=`. A student is made to see that it fits the data;
      then for each seed it is made twice, with the same initial weights, and trained with labels
      only and by the distiller. Where the two were not trained equally long the verdict says so.

    The gain of a seed is `metric(distilled) - metric(labels only)`, the other way round for errors.
    Its mean over seeds is tested with the paired t-test, `t = mean / (deviation / sqrt(seeds))`;
    that of a single seed over the rows of `data`, which say nothing about the luck of the initial
    weights: the accuracy with McNemar's exact test (of rows with weights, and of errors, with the
    t-test); other figures of a single seed are not tested. A gain is called one where p < 0.05 and
    where the rows of `data` tell it apart from 0 too: `|mean| > 1.96 * deviation of the rows /
    sqrt(rows)`. An exported file keeps `(file - labels only) / (distilled - labels only)` of a
    gain.

    Args:
        teacher: A `keras.Model`, or another teacher of `keras_kd.teachers`; `None`: leave it out.
        student: The distilled `keras.Model`, or a list with one for each seed.
        baseline: The same student trained with labels only, or a list in the same order.
        exports: `{name: file}`, `.tflite` or `.onnx`; with several seeds a list of files, one for
            each student. Or `{name: function}` of a student and a path, which writes the file there
            (or elsewhere, and returns the path): `{"int8": lambda student, path:
            kd.export.to_tflite(student, path, quantization="int8", representative_data=x)}`. The
            path ends in `.onnx` where the name contains "onnx", else in `.tflite`.
        data: The test data: a batched `tf.data.Dataset` of `(x, y)` that gives the same rows in the
            same order each time, or a tuple of arrays `(x, y)`.
        make_student: A function without arguments: a new, untrained student.
        train: A function of a model, which it compiles and fits: the student, and then its
            distiller.
        distiller: A function of teacher and student, which returns what trains the student.
            Default: `keras_kd.Distiller`.
        seeds: The random seeds of the trainings, or their number.
        slices: Parts of the test data to be looked at one by one: a function from a batch's inputs
            and labels (NumPy arrays) to one value for each row, or an array `[rows]`; or a dict of
            such, by name.
        metric: What is compared, a key of `Measurement.quality`, such as `"f1_macro"`. Default: by
            task, accuracy for classes, the root mean square error for numbers.
        latency: Whether latencies are measured, of the first seed's models.
        directory: A folder in which the students that were trained here (`distilled-0.keras`,
            `labels-only-0.keras`) and exported files stay, in place of those of an earlier run.
            Default: files are removed after they were measured.
        title: Heading of the page.
        verbose: 0: silent; 1 or `"auto"`: a line for each training, file and measurement, with
            its number and the time so far, and progress bars of the passes over `data`; 2: the
            lines alone. What `train` and the functions of `exports` print is their own.
        **options: Further arguments of `keras_kd.measure`, for every model: `task`, `from_logits`,
            `class_names`, `batch_size`, `threads`, `runs`, `output`, ...

    Returns:
        A `keras_kd.Report`: `verdict` and `advice` in words, `finding` (`"gain"`,
        `"loss"`, `"no gain"`, `"unclear"`, `"nothing to compare"`), `rows`, `difference`,
        `students`, `baselines`; `str` makes a table, `to_markdown()`, `to_dict()`,
        `save_json(path)`, `save_markdown(path)`, `save_html(path)`.

    Raises:
        ImportError: A package is missing; it names the extra.
        TypeError: `keras_kd.measure` has no argument of a name in `options`.
        ValueError: An argument is wrong; a function of the user's did not do what it should; the
            data give other rows when they are read again.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_kd as kd

    x = np.random.normal(size=(64, 8)).astype("float32")
    y = (x[:, 0] > 0).astype("int32")
    network = lambda width: keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(width, "relu"), keras.layers.Dense(2)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def train(model):
        model.compile("adam", loss=loss)
        model.fit(x, y, epochs=1, verbose=0)

    teacher = network(32)
    train(teacher)
    report = kd.report(
        teacher,
        make_student=lambda: network(4),
        train=train,
        distiller=lambda teacher, student: kd.Distiller(teacher, student, alpha=0.1, beta=0.9),
        seeds=2,
        data=(x, y),
        latency=False,
        verbose=0,
    )
    print(report)
    ```

    Reference: Dietterich, "Approximate Statistical Tests for Comparing Supervised Classification
    Learning Algorithms", Neural Computation 10(7), 1998 (McNemar's test and the paired t-test)
    """
    # Imported here: it takes time, and those who only train need it not.

    request = Request(
        teacher=teacher,
        student=student,
        baseline=baseline,
        exports=exports,
        data=data,
        make_student=make_student,
        train=train,
        distiller=distiller,
        seeds=seeds,
        slices=slices,
        metric=metric,
        latency=latency,
        directory=directory,
        title=title,
        verbose=verbose,
        options=options,
    )
    return run(request)


# What the call does: checks, trains where it is asked to, measures, compares.


@dataclasses.dataclass(frozen=True)
class Request:
    """The arguments of `keras_kd.report`, of the same names."""

    teacher: Any
    student: Any
    baseline: Any
    exports: Any
    data: Any
    make_student: Any
    train: Any
    distiller: Any
    seeds: Any
    slices: Any
    metric: Any
    latency: bool
    directory: Any
    title: str
    verbose: Any
    options: dict


def run(request):
    """The `Report` that was asked for."""
    arguments.check_plain(request)
    exports = runs.check(request.exports)
    recipe = arguments.recipe(request)
    # The pairs of students, or the seeds of which they are to be made.
    given = _seeds_or_pairs(request, recipe)
    runs.check_counts(exports, len(given))
    data = arguments.data(request.data)
    runs.check_options(request.options)
    verbose = progress.checked(request.verbose)
    steps = progress.Steps("report", _count(request, recipe, exports, len(given)), verbose)
    examiner = runs.Examiner(data, request.options, request.latency, steps)
    arguments.check(request, data, examiner.options_of_teacher)
    keys = breakdowns.keys_of(request.slices, data)
    candidates, said, notes = runs.of_teacher(examiner, request.teacher)
    if candidates:
        _metric(candidates, request)  # what is wrong with it is told before any training
        breakdowns.of_counted(keys, candidates[0].measurements[0])
    with runs.folder(request.directory) as folder:
        source = given if recipe is None else _trained(recipe, given, steps)
        kept = folder if request.directory is not None else None
        found, files = _collected(source, exports, folder, kept, steps)
        candidates += runs.of_students(examiner, said, found, files)
    return Report(
        compare(_metric(candidates, request), candidates),
        title=request.title,
        slice_keys=keys,
        notes=notes,
        budgets=training.unequal(found),
        environment=runs.facts(),
        students=[pair.student for pair in found],
        baselines=[pair.baseline for pair in found if pair.baseline is not None],
    )


def _metric(candidates, request):
    measurements = [each for candidate in candidates for each in candidate.measurements]
    return statistics.choose(measurements, request.metric)


def _seeds_or_pairs(request, recipe):
    if recipe is None:
        return arguments.given(request.student, request.baseline, request.seeds)
    return arguments.seeds(request.seeds)


def _count(request, recipe, exports, students):
    """How many parts the call has: trainings, exports, measurements."""
    has_baseline = recipe is not None or request.baseline is not None
    trained = 0 if recipe is None else 2
    written = sum(callable(value) for value in exports.values())
    measured = 1 + has_baseline + len(exports)
    return (request.teacher is not None) + students * (trained + written + measured)


def _trained(recipe, seeds, steps):
    start = time.monotonic()
    for done, seed in enumerate(seeds):
        if done:
            left = (time.monotonic() - start) / done * (len(seeds) - done)
            steps.say(f"{done} of {len(seeds)} seeds done - about {progress.duration(left)} left")
        yield training.train(recipe, seed, steps)


def _collected(source, exports, folder, kept, steps):
    """All pairs, and `{name: files}`; each seed is exported before the next one is trained.

    Args:
        source: The pairs, or what trains them one by one.
        exports: Of `exporting.check`.
        folder: Where files are written.
        kept: Where the students that were trained here are saved, or `None`.
        steps: Told of each file.
    """
    found, files = [], {name: [] for name in exports}
    for number, pair in enumerate(source):
        found.append(pair)
        if kept is not None and pair.student_budget is not None:
            training.save(pair, kept)
        for name, path in runs.export(exports, pair.student, number, folder, steps).items():
            files[name].append(path)
    return found, files

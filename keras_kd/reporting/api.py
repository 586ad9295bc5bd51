"""`report`: the one call that compares teacher, students and exported files."""

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

from keras_kd._utils import progress
from keras_kd.reporting import breakdowns, measuring, statistics, training
from keras_kd.reporting.comparison import compare
from keras_kd.reporting.request import DEFAULT_SEEDS, Request, bind
from keras_kd.reporting.result import Report
from keras_kd.reporting.training import Pair


def report(
    teacher: Any = None,
    student: Any = None,
    baseline: Any = None,
    exports: dict[str, Any] | None = None,
    data: Any = None,
    *,
    make_student: Callable | None = None,
    train: Callable | None = None,
    distiller: Callable | None = None,
    seeds: Any = DEFAULT_SEEDS,
    slices: Any = None,
    metric: str | None = None,
    latency: bool = True,
    directory: str | os.PathLike | None = None,
    title: str = "Distillation report",
    verbose: int | str = 1,
    **options: Any,
) -> Report:
    """Did distillation help, and does the file on the device keep the gain?

    Needs `pip install 'keras-kd[measure]'`.

    Compares the teacher, the student trained with labels only (`baseline`), the distilled student
    and each exported file, over several seeds. There are two ways to call it:

    - with trained models: `student=` and `baseline=`, a model or a list of them by seed; the two of
      a seed should come from the same initial weights and the same number of epochs;
    - with functions: `make_student=` and `train=`. A student is made to check that it fits the
      data; then for each seed it is made twice, with the same initial weights, and trained with
      labels only and by the distiller. Where the two were not trained equally long the verdict
      notes it.

    The gain of a seed is `metric(distilled) - metric(labels only)`, the other way round for errors.
    Its mean over seeds is tested with the paired t-test, `t = mean / (deviation / sqrt(seeds))`;
    that of a single seed over the samples of `data`, which show nothing about the luck of the
    initial weights: the accuracy, and other scores that are 0 or 1 for each sample, with McNemar's
    exact test (with sample weights, and of errors, other means and ratios over samples, such as the
    perplexity and word error rate, with the t-test); other figures of a single seed are not tested.
    A gain counts where p < 0.05 and the samples of `data` tell it apart from 0 too: `|mean| > 1.96
    * deviation of the samples / sqrt(samples)`. An exported file keeps `(file - labels only) /
    (distilled - labels only)` of a gain.

    Args:
        teacher: A `keras.Model`, or another teacher of `keras_kd.teachers`; `None` leaves it out.
        student: The distilled `keras.Model`, or a list with one for each seed.
        baseline: The same student trained with labels only, or a list in the same order.
        exports: `{name: file}`, `.tflite`, `.onnx` or of a runtime of your own
            (`keras_kd.runtimes.register`); with several seeds a list of files, one for each
            student. Or `{name: function}` of a student and a path, which writes the file there (or
            elsewhere, and returns the path): `{"int8": lambda student, path:
            kd.export.to_tflite(student, path, quantization="int8", representative_data=x)}`. The
            path ends in the extension that the name mentions, such as `.onnx` for `"onnx int8"`,
            else in `.tflite`.
        data: The test data: a batched `tf.data.Dataset` of `(x, y)` that gives the same samples in
            the same order each time, or a tuple of arrays `(x, y)`.
        make_student: A function without arguments: a new, untrained student.
        train: A function of a model, which it compiles and fits: the student, and then its
            distiller.
        distiller: A function of teacher and student, which returns what trains the student.
            Default: `keras_kd.Distiller`.
        seeds: The random seeds of the trainings, or their number.
        slices: Parts of the test data to report one by one: a function from a batch's inputs and
            labels (NumPy arrays) to one value per sample, or an array `[samples]`; or a dict of
            such, by name.
        metric: What is compared, a key of `Measurement.quality`, such as `"f1_macro"`. Default: by
            task, accuracy for classes, the root mean square error for numbers, the perplexity of
            language models, BLEU, ROUGE-L, F1, word error rate, recall at 10, Spearman's rho.
        latency: Whether latencies are measured, of the first seed's models.
        directory: A folder in which the students that were trained here (`distilled-0.keras`,
            `labels-only-0.keras`) and the exported files are kept, in place of those of an earlier
            run. Default: files are removed after they were measured.
        title: Heading of the page.
        verbose: 0: silent; 1 or `"auto"`: a line for each training, file and measurement, with
            its number and the time so far, and progress bars of the passes over `data`; 2: the
            lines alone. It does not change what `train` and the functions of `exports` print.
        **options: Further arguments of `keras_kd.measure`, for every model: `task`, `from_logits`,
            `class_names`, `batch_size`, `threads`, `runs`, `output`, `generate`, ...

    Returns:
        A `keras_kd.Report`: `verdict` and `advice` in words, `finding` (`"gain"`,
        `"loss"`, `"no gain"`, `"unclear"`, `"nothing to compare"`), `rows`, `difference`,
        `students`, `baselines`; `str` makes a table, `to_markdown()`, `to_dict()`,
        `save_json(path)`, `save_markdown(path)`, `save_html(path)`.

    Raises:
        ImportError: A package is missing; it names the extra.
        TypeError: `keras_kd.measure` has no argument of a name in `options`.
        ValueError: An argument is wrong; a function of the user's did not do what it should; the
            data give other samples when they are read again.

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
    request = bind(
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


def run(request: Request) -> Report:
    """Measures the teacher, makes the students and their files, measures them, and compares."""
    steps = progress.Steps("report", request.count_steps(), request.verbose)
    # The teacher first: what only a run shows about data and options raises before any training.
    teacher = measuring.measure_teacher(request, steps)
    if teacher.candidates:
        _choose_metric(request, teacher.candidates)
        breakdowns.select_counted(request.slices, teacher.candidates[0].measurements[0])
    with training.open_folder(request.directory) as folder:
        pairs, files = _make_students(request, folder, steps)
        students = measuring.measure_students(request, pairs, files, teacher.reference, steps)
    candidates = teacher.candidates + students
    return Report(
        compare(_choose_metric(request, candidates), candidates),
        title=request.title,
        slice_keys=request.slices,
        notes=teacher.notes,
        budgets=training.compare_budgets(pairs),
        environment=measuring.describe_environment(),
        students=[pair.student for pair in pairs],
        baselines=[pair.baseline for pair in pairs if pair.baseline is not None],
    )


def _choose_metric(request, candidates):
    measurements = [each for candidate in candidates for each in candidate.measurements]
    return statistics.choose_metric(measurements, request.metric)


def _make_students(request, folder, steps):
    """`(pairs, {name: files})`; each seed is exported before the next one is trained."""
    pairs: list[Pair] = []
    files: dict[str, list] = {export.name: [] for export in request.exports}
    for number, pair in enumerate(request.pairs or _train(request, steps)):
        pairs.append(pair)
        if request.recipe is not None and request.directory is not None:
            training.save(pair, folder)
        for export in request.exports:
            files[export.name].append(export.file_of(pair.student, number, folder, steps))
    return pairs, files


def _train(request, steps) -> Iterator[Pair]:
    start, count = time.monotonic(), len(request.seeds)
    for done, seed in enumerate(request.seeds):
        if done:
            left = (time.monotonic() - start) / done * (count - done)
            steps.say(f"{done} of {count} seeds done - about {progress.duration(left)} left")
        yield training.train(request.recipe, seed, steps)

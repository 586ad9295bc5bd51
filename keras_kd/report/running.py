"""What the call does: checks, trains where it is asked to, measures, compares."""

import dataclasses
import time
from typing import Any

from keras_kd import progress
from keras_kd.report import (
    arguments,
    beforehand,
    environment,
    exporting,
    measuring,
    metric,
    pairs,
    slices,
)
from keras_kd.report.comparison import compare
from keras_kd.report.result import Report


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
    exports = exporting.check(request.exports)
    recipe = arguments.recipe(request)
    # The pairs of students, or the seeds of which they are to be made.
    given = _seeds_or_pairs(request, recipe)
    exporting.check_counts(exports, len(given))
    data = arguments.data(request.data)
    measuring.check_options(request.options)
    verbose = progress.checked(request.verbose)
    steps = progress.Steps("report", _count(request, recipe, exports, len(given)), verbose)
    examiner = measuring.Examiner(data, request.options, request.latency, steps)
    beforehand.check(request, data, examiner.options_of_teacher)
    keys = slices.keys_of(request.slices, data)
    entrants, said, notes = measuring.of_teacher(examiner, request.teacher)
    if entrants:
        _metric(entrants, request)  # what is wrong with it is told before any training
        slices.of_counted(keys, entrants[0].measurements[0])
    with exporting.folder(request.directory) as folder:
        source = given if recipe is None else _trained(recipe, given, steps)
        kept = folder if request.directory is not None else None
        found, files = _collected(source, exports, folder, kept, steps)
        entrants += measuring.of_students(examiner, said, found, files)
    return Report(
        compare(_metric(entrants, request), entrants),
        title=request.title,
        slice_keys=keys,
        notes=notes,
        budgets=pairs.unequal(found),
        environment=environment.facts(),
        students=[pair.student for pair in found],
        baselines=[pair.baseline for pair in found if pair.baseline is not None],
    )


def _metric(entrants, request):
    measurements = [each for entrant in entrants for each in entrant.measurements]
    return metric.choose(measurements, request.metric)


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
        yield pairs.train(recipe, seed, steps)


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
            pairs.save(pair, kept)
        for name, path in exporting.export(exports, pair.student, number, folder, steps).items():
            files[name].append(path)
    return found, files

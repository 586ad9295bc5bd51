"""What the call does: checks, trains where it is asked to, measures, compares."""

import dataclasses
from typing import Any

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
    verbose: bool
    options: dict


def run(request):
    """The `Report` that was asked for."""
    arguments.check_plain(request)
    exports = exporting.check(request.exports)
    log = print if request.verbose else _silent
    source = _pairs(request, exports, log)
    data = arguments.data(request.data)
    measuring.check_options(request.options)
    examiner = measuring.Examiner(data, request.options, request.latency, log)
    beforehand.check(request, data, examiner.options_of_teacher)
    keys = slices.keys_of(request.slices, data)
    entrants, said, notes = measuring.of_teacher(examiner, request.teacher)
    if entrants:
        _metric(entrants, request)  # what is wrong with it is told before any training
        slices.of_counted(keys, entrants[0].measurements[0])
    with exporting.folder(request.directory) as folder:
        found, files = _collected(source, exports, folder, request.directory is not None)
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


def _pairs(request, exports, log):
    """Gives the pairs of students; trains them, where the call is to, only when asked for one."""
    recipe = arguments.recipe(request)
    if recipe is None:
        given = arguments.given(request.student, request.baseline, request.seeds)
        exporting.check_counts(exports, len(given))
        return given
    seeds = arguments.seeds(request.seeds)
    exporting.check_counts(exports, len(seeds))
    return (pairs.train(recipe, seed, log) for seed in seeds)


def _collected(source, exports, folder, keep):
    """All pairs, and `{name: files}`; each seed is exported before the next one is trained."""
    found, files = [], {name: [] for name in exports}
    for number, pair in enumerate(source):
        found.append(pair)
        if keep and pair.student_budget is not None:
            pairs.save(pair, folder)
        for name, path in exporting.export(exports, pair.student, number, folder).items():
            files[name].append(path)
    return found, files


def _silent(line):
    del line

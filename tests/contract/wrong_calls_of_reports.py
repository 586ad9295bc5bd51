"""Wrong calls of report, and what the error must say."""

import keras
import numpy as np

import keras_kd as kd
from tests.contract import tool_worlds as worlds
from tests.contract.calls import NAN, argument, values
from tests.contract.tool_worlds import X, Y
from tests.contract.wrong_calls_of_tools import data_rows


def report(**options):
    given = {"teacher": worlds.model(9), "student": worlds.model(1), "baseline": worlds.model(2)}
    plain = {"data": (X, Y), "latency": False, "verbose": False}
    return kd.report(**{**given, **plain, **options})


def trains(**options):
    given = {"teacher": worlds.model(9), "make_student": new_student, "train": worlds.never}
    plain = {"data": (X, Y), "seeds": 1, "latency": False, "verbose": False}
    return kd.report(**{**given, **plain, **options})


def new_student():
    return worlds.files.classifier(5)


def narrow():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)], name="narrow")


def no_file(student, path):
    worlds.never()


TWO = worlds.model(1), worlds.model(3)

OF_REPORT = {
    **data_rows(report),
    **values(report, "title", "text", [None, 3, b"a"]),
    **values(report, "latency", "True or False", [None, "no", 3]),
    **values(report, "metric", "a key of Measurement.quality, or None", [3, "", ["accuracy"]]),
    **values(report, "directory", "the path of a folder", [3, b"x", "", "gs://bucket/x"]),
    **values(report, "metric", "one of .*accuracy", ["color", "rmse", "top_9_accuracy"]),
    **values(trains, "metric", "one of .*accuracy", ["color", "rmse"]),
    **values(report, "student", "a trained keras.Model, or a list", [3, "s", [], [TWO[0], 3]]),
    **values(report, "baseline", "a trained keras.Model, or a list", [3, "b", []]),
    **values(report, "exports", "a dict from names to files or functions", [3, [], "a.tflite"]),
    **{
        f"report(exports={{{name!r}: ...}})": (
            lambda name=name: report(exports={name: no_file}),
            argument("exports", "names that are text and none of"),
        )
        for name in (3, "", " ", "teacher", "distilled")
    },
    **values(report, "task", "'auto' or one of", ["no", 3]),
    **values(report, "from_logits", "True or False", ["no", 1]),
    **values(report, "top_k", "numbers up to that of the classes, 4", [(99,)]),
    **values(report, "batch_size", "a whole number", [0, "a"]),
    **values(report, "threads", "a whole number", [0, "a"]),
    **values(report, "runs", "a whole number", [0, "a"]),
    **values(report, "warmup", "a whole number", [-1]),
    **values(report, "decode", r"a function of \(outputs\)", [3]),
    "a folder that is a file": (
        lambda: report(directory=worlds.file("text.txt")),
        argument("directory", "the path of a folder; .*text.txt' is a file"),
    ),
    "no student": (
        lambda: report(student=None),
        "no student to report on. Pass student= .* or make_student= and train=",
    ),
    "a student without weights": (
        lambda: report(student=worlds.unbuilt()),
        r"`student` \('bare'\) has no weights yet",
    ),
    "a baseline without weights": (lambda: report(baseline=worlds.unbuilt()), "`baseline`.*no wei"),
    "a teacher without weights": (lambda: report(teacher=worlds.unbuilt()), "`teacher`.*no weight"),
    "a student of other inputs": (
        lambda: report(student=worlds.of_other_inputs()),
        "Model 'narrow' cannot take the inputs of `data`",
    ),
    "a baseline of other inputs": (
        lambda: report(baseline=worlds.of_other_inputs()),
        "Model 'narrow' cannot take the inputs of `data`",
    ),
    "a teacher of other inputs": (
        lambda: report(teacher=worlds.of_other_inputs()),
        "Model 'narrow' cannot take the inputs of `data`",
    ),
    "a student of other classes": (
        lambda: report(student=worlds.model(1, 6), teacher=worlds.model(9)),
        "The teacher has 4 outputs per sample where the model has 6",
    ),
    "a student of too few classes": (
        lambda: report(student=worlds.model(1, 3)),
        "The data has the label 3, but the model only 3 classes",
    ),
    "the same student twice": (
        lambda: report(student=[TWO[0], TWO[0]], baseline=None),
        "`student` has the same model twice: seeds must be trained apart",
    ),
    "a student as the baseline": (
        lambda: report(baseline=worlds.model(1)),
        "A model of `baseline` is one of `student` too",
    ),
    "baselines of other seeds": (
        lambda: report(baseline=[worlds.model(2), worlds.model(3)]),
        r"`student` has 1 model\(s\) and `baseline` 2.*one baseline for each student",
    ),
    "seeds of trained models": (
        lambda: report(seeds=2),
        "`seeds` are those of trainings, and `student` is trained. Leave them out, or pass make_st",
    ),
    "a file that is not there": (
        lambda: report(exports={"int8": "no.tflite"}),
        r"exports\['int8'\]: there is no file 'no.tflite'",
    ),
    "a file that is a folder": (
        lambda: report(exports={"int8": worlds.file("folder.onnx")}),
        r"exports\['int8'\]: there is no file 'folder.onnx'",
    ),
    "a file in a bucket": (
        lambda: report(exports={"int8": "gs://bucket/a.tflite"}),
        argument(r"exports\['int8'\]", "the path of a file; addresses of buckets are none"),
    ),
    "half a file": (
        lambda: report(exports={"keras": worlds.file("cut.keras")}),
        r"exports\['keras'\]: 'cut.keras' cannot be read: .*only a part of one",
    ),
    "a number as a file": (
        lambda: report(exports={"int8": 3}),
        argument(r"exports\['int8'\]", "a file, a list of files .*or a function"),
    ),
    "files of other seeds": (
        lambda: report(exports={"keras": [worlds.file("whole.keras")] * 2}),
        r"has 2 file\(s\) for 1 student\(s\)",
    ),
    "a function that takes no path": (
        lambda: report(exports={"int8": lambda student: None}),
        argument(r"exports\['int8'\]", r"a function of \(student, path\)"),
    ),
    "names of other classes": (
        lambda: report(class_names=["a", "b"]),
        "`class_names` has 2 names; the model has 4 classes",
    ),
    "an output that is not there": (lambda: report(output="none"), r"has the outputs \['logits'\]"),
    "labels for another task": (lambda: report(task="regression"), "a number for each output"),
    "slices that are a number": (
        lambda: report(slices=3),
        r"The slice 'slice' must be a function of \(inputs, labels\), or one value for each sample",
    ),
    "slices of two axes": (lambda: report(slices=np.zeros((12, 2))), r"array of shape \(12, 2\)"),
    "slices of other rows": (
        lambda: report(slices={"ink": np.zeros(5)}),
        "The slice 'ink' has 5 values, but the test data have 12 samples",
    ),
    "slices of one argument": (
        lambda: report(slices={"ink": lambda x: x}),
        argument(r"slices\['ink'\]", r"a function of \(inputs, labels\)"),
    ),
    "a slice of another length": (
        lambda: report(slices=lambda x, y: y[:2]),
        r"must return one value for each of the 12 samples of a batch.*shape \(2,\)",
    ),
    "rows in another order": (
        lambda: report(data=shuffled()),
        r"gives other samples when it is read again.*reshuffle_each_iteration=False",
    ),
    "a function to train beside a student": (
        lambda: report(train=worlds.never),
        "`make_student`. Expected a function; `make_student` and `train` go together",
    ),
    "a distiller beside a student": (
        lambda: report(distiller=kd.Distiller),
        "`distiller` needs `make_student` and `train` beside it",
    ),
}


def shuffled():
    keras.utils.set_random_seed(0)
    return worlds.batches().unbatch().shuffle(12, seed=3).batch(4)


OF_TRAINING_REPORT = {
    **values(trains, "make_student", "a function", [3, "a", worlds.model(1), None, lambda x: x]),
    **values(trains, "train", "a function", [3, "a", None, lambda: None]),
    **values(trains, "distiller", r"a function of \(teacher, student\)", [3, lambda t: t]),
    **values(
        trains,
        "seeds",
        "different integers of at least 0",
        [None, 0, -1, 1.5, "12", [], [1, 1], True, [1.5], {1: 2}, NAN, 10**12, [-1], [2**40]],
    ),
    **values(trains, "directory", "the path of a folder", [3, "gs://bucket/x"]),
    "no teacher": (lambda: trains(teacher=None), "`teacher` is missing"),
    "a student that is none": (
        lambda: trains(make_student=lambda: 3),
        "`make_student` must return a keras.Model. Received: 3",
    ),
    "a student without weights": (
        lambda: trains(make_student=worlds.unbuilt),
        "`make_student` returned 'bare', which has no weights yet: give it an Input, or call",
    ),
    "a student of other inputs": (
        lambda: trains(make_student=narrow),
        "Model 'narrow' cannot take the inputs of `data`",
    ),
    "a student of other classes": (
        lambda: trains(make_student=lambda: worlds.files.classifier(5, classes=6)),
        "The teacher has 4 outputs per sample where the model has 6",
    ),
    "one student for two": (
        lambda: trains(make_student=lambda: worlds.model(5)),
        "`make_student` returned the same model twice. It must make a new one each time",
    ),
    "a trained student": (
        lambda: trains(student=worlds.model(1)),
        "`student` is a trained model.*Pass either student= and baseline=, or make_student=",
    ),
    "rows in another order": (
        lambda: trains(data=shuffled()),
        "gives other samples when it is read",
    ),
    "data that never ends": (lambda: trains(data=worlds.batches().repeat()), "never ends"),
}


def saved(name, path):
    getattr(made(), name)(path)


def made():
    from keras_kd.reporting.comparison import Candidate, compare
    from keras_kd.reporting.statistics import Metric

    quality = {"accuracy": 0.5}
    found = kd.measurement.Measurement("m", "keras", "multiclass", 2, quality)
    return kd.Report(compare(Metric("accuracy"), [Candidate("distilled", "student", [found])]))


OF_REPORTS_FILES = {
    f"{name}({path!r})": (lambda name=name, path=path: saved(name, path), message)
    for name in ("save_json", "save_markdown", "save_html")
    for path, message in (
        (None, argument("path", "the path of a file", "None")),
        (b"x", argument("path", "the path of a file")),
        ("", argument("path", "the path of a file")),
        ("s3:/bucket/r.html", argument("path", ".*an address has two slashes")),
        ("/", "path: '/' is a folder; name a file in it"),
    )
}
OF_REPORTS_FILES |= {
    "no comparison": (lambda: kd.Report(None), argument("comparison", "the comparison of")),
    "notes in one text": (
        lambda: kd.Report(made().comparison, notes="ab"),
        argument("notes", "a list of sentences"),
    ),
    "slices that are not a dict": (
        lambda: kd.Report(made().comparison, slice_keys=3),
        argument("slice_keys", "a dict of values"),
    ),
    "no title": (lambda: kd.Report(made().comparison, title=3), argument("title", "text")),
}

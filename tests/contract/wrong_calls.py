"""Wrong calls of schedules, weightings, data and teachers, and what the error must say."""

import keras
import numpy as np
import tensorflow as tf

import keras_kd as kd
from tests.contract import fits
from tests.contract.arguments import dataset
from tests.contract.calls import ENDS, INF, NAN, X, Y, argument, fit, values

callbacks, data, losses, schedules = kd.callbacks, kd.data, kd.losses, kd.schedules
teachers, weighting = kd.teachers, kd.weighting


OF_SCHEDULES = {
    **values(schedules.Constant, "value", "a finite number", [NAN, INF, "1", True, None]),
    **values(schedules.Linear, "start", "a finite number", [NAN, "1", None], end=1.0),
    **values(schedules.Cosine, "end", "a finite number", [INF, [1.0]], start=1.0),
    **values(schedules.Polynomial, "power", "a number above 0", [0, -2], **ENDS),
    **values(schedules.WarmUp, "length", "an integer, at least 1", [0, 1.5, True], schedule=1.0),
    **values(schedules.WarmUp, "schedule", "one of .*linear", ["quick", None], length=2),
    **values(schedules.Piecewise, "boundaries", "a list of numbers", [3, "23"], values=[1, 2]),
    "ends that are not positive": (
        lambda: schedules.Exponential(1.0, 0.0),
        r"positive ends.* start=1.0, end=0.0.* kd.schedules.Linear or Cosine",
    ),
    "values and boundaries": (
        lambda: schedules.Piecewise([1, 2], [1.0, 2.0]),
        "one value more than `boundaries`.* 2 boundaries and 2 values",
    ),
    "boundaries that fall": (lambda: schedules.Piecewise([2, 1], [1, 2, 3]), "must rise.*Received"),
    "a span that is not known": (
        lambda: schedules.Linear(1.0, 2.0)(0, None),
        "over how many epochs or steps.* Pass `length`",
    ),
}

OF_WEIGHTINGS = {
    **values(
        weighting.TeacherConfidence,
        "threshold",
        "a number between 0 and 1|a finite number",
        [1.5, -0.1, NAN],
    ),
    **values(weighting.TeacherConfidence, "low", "a number", [2, "0.5"]),
    **values(weighting.TeacherCorrectness, "wrong", "a number", [2, None]),
    **values(weighting.TeacherEntropy, "high", "a number", [1.01, True]),
    **values(weighting.TeacherEntropy, "from_logits", "True or False", ["yes", 1, None]),
    **values(weighting.TeacherEntropy, "output", "the name of an output", [1.5, [0], True]),
    **values(weighting.ClassShares, "shares", "a list of one number", [0.5, [], "abc"]),
    "a share of a class": (
        lambda: weighting.ClassShares([0.5, 1.5]),
        argument(r"shares\[1\]", "a number between 0 and 1", "1.5"),
    ),
    "shares of other classes": (
        lambda: fit(
            keras.callbacks.Callback(),
            lambda: weighted(weighting.ClassShares([0.5, 0.5])),
        ),
        "got 2 shares, and the teacher has 5 classes. Give one share for each class",
    ),
    "no weighting": (
        lambda: weighted("confidence"),
        "`weighting` must be .*TeacherConfidence.*Received: weighting='confidence'",
    ),
    "a weighting of probabilities": (
        lambda: kd.Distiller(
            fits.softmax(1),
            fits.network(2),
            losses.SoftTargets(teacher_from_logits=False),
            weighting=weighting.TeacherEntropy(),
        ),
        r"ends in softmax.*TeacherEntropy\(from_logits=False\)",
    ),
    "a weighting of one of two outputs": (
        lambda: kd.Distiller(fits.heads(1), fits.heads(2), weighting=weighting.TeacherEntropy()),
        r"reads one output of the teacher, which has 2. Choose it: TeacherEntropy\(.*output=name",
    ),
}


def weighted(given):
    made = kd.Distiller(fits.network(1), fits.network(2), weighting=given)
    made.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
    return made


def vectors(labels=True, width=3, dtype="float32"):
    x = np.zeros((8, width), dtype)
    parts = (x, np.arange(8) % 3) if labels else x
    return tf.data.Dataset.from_tensor_slices(parts)


def batches(**options):
    return vectors(**options).batch(4)


MIXTURES = {
    f"{mix.__name__}: {name}": (lambda mix=mix, call=call: call(mix), message)
    for mix in (data.mixup, data.cutmix)
    for name, (call, message) in {
        "arrays": (
            lambda mix: mix(X, 3),
            argument("dataset", "a batched tf.data.Dataset", r"dataset=ndarray of shape \(8, 3\)"),
        ),
        "single rows": (
            lambda mix: mix(vectors(), 3),
            r"a batched dataset: call dataset.batch\(batch_size\) first.*single samples",
        ),
        "no number of classes": (
            lambda mix: mix(dataset(), 2.5),
            argument("num_classes", "an int"),
        ),
        "no classes": (lambda mix: mix(dataset(), 0), argument("num_classes", "an int", "0")),
        "alpha": (
            lambda mix: mix(dataset(), 3, alpha=0),
            argument("alpha", "a finite number above"),
        ),
        "a negative alpha": (
            lambda mix: mix(dataset(), 3, alpha=-1),
            argument("alpha", "a finite"),
        ),
        "a seed": (lambda mix: mix(dataset(), 3, seed=1.5), argument("seed", "an integer")),
        "sample weights": (
            lambda mix: mix(dataset().map(lambda x, y: (x, y, y)), 3),
            "cannot mix sample weights.*leave the weights out",
        ),
        "labels that are numbers": (
            lambda mix: mix(dataset().map(lambda x, y: (x, tf.cast(y, "float32"))), 3),
            "class indices, which are integers. Received.*float32.* Cast them",
        ),
        "labels by name": (
            lambda mix: mix(dataset().map(lambda x, y: (x, {"a": y})), 3),
            "mixes one tensor of labels. Received.*choose one",
        ),
        "other classes": (
            lambda mix: mix(dataset().map(lambda x, y: (x, tf.one_hot(y, 3))), 5),
            argument("num_classes", "the size of the last axis of the labels, 3", "5"),
        ),
    }.items()
}
OF_DATA = {
    **MIXTURES,
    "mixup of integers": (
        lambda: data.mixup(batches(dtype="int32"), 3),
        "must be floats. Received: inputs of type int32. Cast them first",
    ),
    "cutmix of vectors": (
        lambda: data.cutmix(batches(), 3),
        r"images of shape \[batch, height, width, channels\].*\(None, 3\).*keras_kd.data.mixup",
    ),
    "cutmix of images alone": (lambda: data.cutmix(dataset(labels=False), 3), "of images"),
    "noise of arrays": (
        lambda: data.noise(X, 0.1),
        argument("dataset", "a batched tf.data.Dataset"),
    ),
    "noise of integers": (lambda: data.noise(batches(dtype="int32"), 0.1), "must be floats"),
    **values(data.noise, "stddev", "a", [-1, NAN, "0.1"], dataset=batches()),
    "with_unlabeled of arrays": (
        lambda: data.with_unlabeled((X, Y), batches(labels=False)),
        argument("labeled", "a batched tf.data.Dataset"),
    ),
    "with_unlabeled and arrays": (
        lambda: data.with_unlabeled(batches(), X),
        argument("unlabeled", "a batched tf.data.Dataset"),
    ),
    "with_unlabeled without labels": (
        lambda: data.with_unlabeled(batches(labels=False), batches(labels=False)),
        r"`labeled` must be a dataset of \(inputs, labels\)",
    ),
    "unlabeled with labels": (
        lambda: data.with_unlabeled(batches(), batches()),
        r"dataset of inputs alone.*2 parts.*unlabeled.map\(lambda x, \*_: x\)",
    ),
    "unlabeled of another width": (
        lambda: data.with_unlabeled(batches(), batches(labels=False, width=4)),
        "must have the same inputs.*Received: labeled .*unlabeled",
    ),
    "unlabeled of another type": (
        lambda: data.with_unlabeled(batches(), batches(labels=False, dtype="int32")),
        "must have the same inputs.*type",
    ),
    "unlabeled of another structure": (
        lambda: data.with_unlabeled(batches(), batches(labels=False).map(lambda x: {"x": x})),
        "must have the same inputs: structure",
    ),
    **values(
        data.with_unlabeled,
        "ignore_class",
        "an integer that is not a class",
        [None, 0.5, "none"],
        labeled=batches(),
        unlabeled=batches(labels=False),
    ),
}


def ema():
    student = fits.network(2)
    return {"student": student}


OF_TEACHERS = {
    **values(teachers.EMA, "decay", "a", [1.0, -0.1, NAN, "0.9"], student=fits.network(2)),
    **values(teachers.EMA, "warm_up", "True or False", ["no", None, 2], student=fits.network(2)),
    **values(teachers.EMA, "copy", "True or False", ["no", 0], student=fits.network(2)),
    **values(teachers.VirtualTeacher, "confidence", "a", [0.0, 1.0, "0.9", NAN]),
    **values(teachers.DeepestExit, "output", "the name of an output", [1.5, ["a"], ""]),
    **values(teachers.Ensemble, "members", "a list of teachers", [[], None, "ab"]),
    **values(
        teachers.Ensemble,
        "weights",
        "one positive number",
        [[1.0], 1.0, [1.0, 2.0, 3.0]],
        members=[fits.network(1), fits.network(2)],
    ),
    **values(
        teachers.Ensemble,
        "temperatures",
        "one positive number",
        [[1.0], 2.0],
        members=[fits.network(1), fits.network(2)],
    ),
    **values(teachers.Ensemble, "combine", "one of", ["mean", None], members=[fits.network(1)]),
    "a weight that is not positive": (
        lambda: teachers.Ensemble([fits.network(1)], weights=[0.0]),
        argument(r"weights\[0\]", "a finite number above 0"),
    ),
    "a temperature that is not positive": (
        lambda: teachers.Ensemble([fits.network(1)], temperatures=[-1.0]),
        argument(r"temperatures\[0\]", "a finite number"),
    ),
    **values(teachers.KerasTeacher, "preprocess", "a function", [3], model=fits.network(1)),
    "a function as KerasTeacher": (
        lambda: teachers.KerasTeacher(lambda x: x),
        "argument `model`. Expected a keras.Model. Received",
    ),
    "the average of another student": (
        lambda: kd.Distiller(teachers.EMA(fits.network(1)), fits.network(2)),
        r"the student is another one.*keras_kd.teachers.EMA\(student\).*copy=False",
    ),
    "the average of a student of other shapes": (
        lambda: kd.Distiller(teachers.EMA(fits.network(1, width=3)), fits.network(2)),
        r"made of another model.*keras_kd.teachers.EMA\(student\)",
    ),
    "exits of a model with one output": (
        lambda: kd.Distiller(teachers.DeepestExit(), fits.heads_of_one()),
        r"has only one.*keras_kd.students.add_exits\(student, layers\)",
    ),
    "no cache": (
        lambda: teachers.Cached("/nowhere/at/all"),
        "(?i)cache",
    ),
    "a cache of no path": (lambda: teachers.Cached(None), argument("path", "the folder")),
}

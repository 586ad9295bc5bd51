"""The table of the arguments of all that takes part in training, but for the losses."""

import contextlib
import dataclasses
import functools
import io
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import keras_kd as kd
from keras_kd.training.forward import Outputs
from tests.contract import fits
from tests.contract.entries import Counts, Refused

TAKEN_TWICE = "multiple values for .*argument"


@dataclasses.dataclass(frozen=True)
class Entry:
    """How a class or function is tried.

    Attributes:
        subject: The class or function.
        base: The arguments that it is compared with; a function that makes them, where each
            object needs its own.
        probe: What shows a change, a function of the object.
        arguments: An entry for each argument.
        is_saved: Whether it has a configuration.
        any_type: Arguments that may take a value of any type, or that Keras checks itself.
        waiting: Arguments that take a value of no type in silence, or fail over it, for now.
    """

    subject: Callable
    base: Any
    probe: Callable
    arguments: dict
    is_saved: bool = False
    any_type: tuple = ()
    waiting: tuple = ()

    def given(self):
        return self.base() if callable(self.base) else self.base


# Schedules


def of_schedule(schedule):
    return [schedule(i, 5) for i in range(6)]


def schedule(subject, base, arguments):
    return Entry(subject, base, of_schedule, arguments)


ENDS = {"start": 5.0, "end": 1.0}
OTHER_ENDS = {"start": Counts(4.0), "end": Counts(2.0)}
SCHEDULES = {
    "Constant": schedule(kd.schedules.Constant, {"value": 1.0}, {"value": Counts(2.0)}),
    "Cosine": schedule(kd.schedules.Cosine, ENDS, OTHER_ENDS),
    "Exponential": schedule(kd.schedules.Exponential, ENDS, OTHER_ENDS),
    "Linear": schedule(kd.schedules.Linear, ENDS, OTHER_ENDS),
    "Piecewise": schedule(
        kd.schedules.Piecewise,
        {"boundaries": [2, 3], "values": [1.0, 5.0, 0.5]},
        {"boundaries": Counts([1, 3]), "values": Counts([1.0, 4.0, 0.5])},
    ),
    "Polynomial": schedule(kd.schedules.Polynomial, ENDS, {**OTHER_ENDS, "power": Counts(2)}),
    "WarmUp": schedule(
        kd.schedules.WarmUp,
        {"schedule": 1.0, "length": 2},
        {
            "schedule": Counts(kd.schedules.Linear(3.0, 1.0)),
            "length": Counts(3),
            "start": Counts(0.5),
        },
    ),
}


# Weightings


@keras.saving.register_keras_serializable(package="contract")
class Doubt(kd.weighting.Weighting):
    """The least that a weighting of one's own is."""

    def shares(self, probabilities, labels):
        return 1.0 - keras.ops.max(probabilities, axis=-1)


def of_weighting(weighting):
    """The factors of both losses, by a teacher of two outputs."""
    rng = np.random.default_rng(0)
    outputs = {name: rng.uniform(0.05, 3, size=(6, 5)).astype("float32") for name in "ab"}
    labels = {"a": np.arange(6) % 5, "b": np.arange(6)[::-1] % 5}
    return weighting.factors(Outputs(outputs, names=["a", "b"]), labels)


def takes_probabilities(weighting):
    """Whether it takes a teacher that ends in softmax: its `shares` may not depend on more."""
    try:
        weighting.validate(fits.softmax(1), fits.softmax(2))
    except ValueError:
        return 0.0
    return 1.0


def weighting(subject, arguments, **base):
    common = {
        "output": Counts("b"),
        "from_logits": Counts(False, also={"output": None}, probe=takes_probabilities),
    }
    given = {"output": "a", **base}
    return Entry(subject, given, of_weighting, {**common, **arguments}, is_saved=True)


WEIGHTINGS = {
    "ClassShares": weighting(
        kd.weighting.ClassShares,
        {"shares": Counts([0.1, 0.2, 0.3, 0.4, 0.9])},
        shares=[0.5, 0.6, 0.7, 0.8, 0.9],
    ),
    "TeacherConfidence": weighting(
        kd.weighting.TeacherConfidence,
        {"threshold": Counts(0.3), "low": Counts(0.1), "high": Counts(0.9)},
        threshold=0.4,
    ),
    "TeacherCorrectness": weighting(
        kd.weighting.TeacherCorrectness, {"wrong": Counts(0.2), "right": Counts(0.9)}
    ),
    "TeacherEntropy": weighting(
        kd.weighting.TeacherEntropy, {"low": Counts(0.1), "high": Counts(0.9)}
    ),
    "Weighting": weighting(Doubt, {}),
}


# Data


def dataset(size=4, seed=0, labels=True):
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(8, size, size, 1)).astype("float32")
    classes = rng.integers(3, size=8)
    return tf.data.Dataset.from_tensor_slices((images, classes) if labels else images).batch(4)


def of_data(data):
    return [np.asarray(part) for element in data for part in element]


MIXED = {
    "dataset": Counts(dataset(seed=1)),
    "num_classes": Counts(4),
    "alpha": Counts(0.2),
    "seed": Counts(2),
}
DATA = {
    name: Entry(getattr(kd.data, name), base, of_data, arguments)
    for name, base, arguments in (
        ("mixup", {"dataset": dataset(), "num_classes": 3, "seed": 1}, MIXED),
        ("cutmix", {"dataset": dataset(), "num_classes": 3, "seed": 1}, MIXED),
        (
            "noise",
            {"dataset": dataset(), "stddev": 0.1, "seed": 1},
            {"dataset": Counts(dataset(seed=1)), "stddev": Counts(0.2), "seed": Counts(2)},
        ),
        (
            "with_unlabeled",
            {"labeled": dataset(), "unlabeled": dataset(seed=1, labels=False)},
            {
                "labeled": Counts(dataset(seed=2)),
                "unlabeled": Counts(dataset(seed=2, labels=False)),
                "ignore_class": Counts(-100),
            },
        ),
        (
            "with_unlabelled",
            {"labelled": dataset(), "unlabelled": dataset(seed=1, labels=False)},
            {
                "labelled": Counts(dataset(seed=2)),
                "unlabelled": Counts(dataset(seed=2, labels=False)),
                "ignore_class": Counts(-100),
            },
        ),
    )
}


# Callbacks


def callback(subject, base, arguments, make=fits.of_models, probe=None, **options):
    probe = probe or functools.partial(fits.history, make=make)
    return Entry(subject, base, probe, arguments, **options)


def scheduled(subject, first, last, others, make=fits.of_models, **base):
    """Of a callback that follows a schedule."""
    return callback(
        subject,
        {**base, "start": first, "end": last},
        {
            "start": Counts(others[0]),
            "end": Counts(others[1]),
            "schedule": Counts("cosine"),
            "start_epoch": Counts(2),
            "length": Counts(2),
            "by": Counts("step"),
            **({"target": Counts("soft_targets")} if "target" in base else {}),
        },
        make,
    )


def watches_probabilities(monitor):
    try:
        monitor.prepare(fits.of_probabilities(), [])
    except ValueError:
        return 0.0
    return fits.history(monitor, fits.of_probabilities, epochs=1)["probe_kl"]


LAYERS = {"teacher_layer": "deep", "student_layer": "deep"}
PLOT = pathlib.Path(tempfile.mkdtemp(prefix="keras_kd")) / "plot.png"
CALLBACKS = {
    "Cluster": callback(
        kd.callbacks.Cluster,
        {"clusters": 4},
        {
            "clusters": Counts(3),
            "layers": Counts(["deep"]),
            "initial": Counts("linear"),
            "preserve_sparsity": Counts(True),
            "student": Refused(fits.network(9), "this fit trains none of its weights"),
        },
    ),
    "DecaySchedule": scheduled(kd.callbacks.DecaySchedule, 0.9, 0.99, (0.8, 0.95), fits.of_average),
    "DistillationMonitor": callback(
        kd.callbacks.DistillationMonitor,
        {"inputs": fits.data()[0]},
        {
            "inputs": Counts(fits.data()[0][:5]),
            "pairs": Counts([("deep", "deep")]),
            "output": Counts(
                "b",
                against={"output": "a"},
                probe=functools.partial(fits.history, make=fits.of_heads, epochs=1),
            ),
            "from_logits": Counts(False, probe=watches_probabilities),
            "plot": Counts(str(PLOT), probe=fits.drawn),
        },
    ),
    "EarlyStopDistillation": callback(
        kd.callbacks.EarlyStopDistillation,
        {"monitor": "loss", "patience": 1},
        {
            "monitor": Counts("accuracy"),
            "patience": Counts(2, also={"min_delta": 100.0}),
            "min_delta": Counts(100.0),
            "mode": Counts("max"),
            "alpha": Counts(0.9, also={"min_delta": 100.0}),
            "start_epoch": Counts(1, also={"min_delta": 100.0}),
            "verbose": Counts(1, also={"min_delta": 100.0}),
        },
    ),
    "FeatureHint": callback(
        kd.callbacks.FeatureHint,
        LAYERS,
        {
            "teacher_layer": Counts("other"),
            "student_layer": Counts("other"),
            "loss": Counts("cosine"),
            "weight": Counts(2.0),
            "projector": Counts("linear"),
            "start_epoch": Counts(1),
            "stop_epoch": Counts(2),
            "ramp_epochs": Counts(1),
            "name": Counts("hint"),
        },
        probe=functools.partial(fits.history, make=fits.with_hint, epochs=3, steps=1),
    ),
    "LogHyperparameters": callback(kd.callbacks.LogHyperparameters, {}, {}),
    "LossWeightSchedule": scheduled(
        kd.callbacks.LossWeightSchedule, 1.0, 0.2, (0.9, 0.1), target="beta"
    ),
    "SnapshotTeacher": callback(
        kd.callbacks.SnapshotTeacher,
        {},
        {"start_epoch": Counts(2), "every": Counts(2)},
        fits.of_snapshot,
    ),
    "Sparsify": callback(
        kd.callbacks.Sparsify,
        {"frequency": 1, "end_step": 6},
        {
            "sparsity": Counts(0.75),
            "schedule": Counts("linear"),
            "begin_step": Counts(3),
            "end_step": Counts(4),
            "frequency": Counts(3),
            "layers": Counts(["deep"]),
            "initial_sparsity": Counts(0.25),
            "student": Refused(fits.network(9), "this fit trains none of its weights"),
        },
    ),
    "TemperatureSchedule": scheduled(kd.callbacks.TemperatureSchedule, 5.0, 1.0, (4.0, 2.0)),
}


# Distillers and sequences


def of_distiller(made):
    return fits.history(keras.callbacks.Callback(), make=lambda: compiled(made), epochs=1, steps=1)


def compiled(made, rate=0.5):
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    made.compile(keras.optimizers.SGD(rate), loss, run_eagerly=True)
    return made


def of_peers(made):
    made = compiled(made)
    x, y = fits.data()
    return made.fit(x, y, **FIT).history


def name_of(made):
    return made.name


def saved_of_teacher(made):
    return str(made.get_config()["teacher"])


def _losses(*weights):
    return [kd.losses.SoftTargets(weight=weight) for weight in weights]


FIT = {"epochs": 1, "batch_size": 8, "shuffle": False, "verbose": 0}
COMPILED = {
    "optimizer": "sgd",
    "loss": keras.losses.CategoricalCrossentropy(from_logits=True),
    "run_eagerly": True,
}


def of_generations(made):
    keras.utils.set_random_seed(6)
    made.compile(**COMPILED)
    report = made.fit(*fits.data(), **FIT)
    kept = made.directory is not None and len(list(pathlib.Path(made.directory).iterdir()))
    return _of_report(report), kept


def _of_report(report):
    numbers = [{key: v for key, v in row.items() if isinstance(v, float)} for row in report.rows]
    return {
        "histories": report.histories,
        "rows": numbers,
        "parameters": report.rows[0]["parameters"],
    }


def chained(**arguments):
    """`distill_chain`, seeded; the models are new ones each time."""
    keras.utils.set_random_seed(6)
    if isinstance(arguments["models"], list):
        arguments["models"] = [fits.network(*pair) for pair in arguments["models"]]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        report = kd.distill_chain(**arguments)
    folder = arguments.get("directory")
    kept = folder is not None and len(list(pathlib.Path(folder).iterdir()))
    return _of_report(report), kept, bool(printed.getvalue())


def as_given(value):
    return value


FOLDERS = pathlib.Path(tempfile.mkdtemp(prefix="keras_kd"))


@keras.saving.register_keras_serializable(package="contract")
def halved(inputs):
    return 0.5 * inputs


DISTILLERS = {
    "Distiller": Entry(
        kd.Distiller,
        lambda: {"teacher": fits.network(1), "student": fits.network(2)},
        of_distiller,
        {
            "teacher": Counts(lambda: fits.network(3)),
            "student": Counts(lambda: fits.network(3)),
            "distillation_losses": Counts(lambda: kd.losses.LogitsMSE(name="soft_targets")),
            "distillation_loss_weights": Counts([3.0]),
            "student_loss_weight": Counts(0.2),
            "alpha": Counts(0.2),
            "beta": Counts(0.2),
            "name": Counts("named", probe=name_of),
            "teacher_preprocess": Counts(halved),
            "weighting": Counts(lambda: kd.weighting.TeacherConfidence(threshold=0.3)),
            "mask_input": Refused("keep", "`mask_input`"),
            "save_teacher": Counts(False, probe=saved_of_teacher),
        },
        any_type=("name",),
    ),
    "MutualDistiller": Entry(
        kd.MutualDistiller,
        lambda: {"peers": [fits.network(1), fits.network(2), fits.network(4)]},
        of_peers,
        {
            "peers": Counts(lambda: [fits.network(1), fits.network(3), fits.network(4)]),
            "distillation_loss": Counts(lambda: kd.losses.LogitsMSE(name="soft_targets")),
            "alpha": Counts(0.2),
            "beta": Counts(0.2),
            "teaching": Counts("one_way"),
            "name": Counts("named", probe=name_of),
        },
        any_type=("name",),
    ),
    "BornAgain": Entry(
        kd.BornAgain,
        lambda: {"student": fits.network(2), "generations": 2},
        of_generations,
        {
            "student": Counts(lambda: fits.network(2, width=3)),
            "generations": Counts(3),
            "distillation_losses": Counts(lambda: kd.losses.LogitsMSE(name="soft_targets")),
            "alpha": Counts(0.2),
            "beta": Counts(0.2),
            "teacher": Counts(lambda: fits.network(1)),
            "directory": Counts(str(FOLDERS / "generations")),
        },
    ),
    "distill_chain": Entry(
        kd.distill_chain,
        {
            "models": [(1, 4), (2, 4)],
            "data": fits.data(),
            "compile": COMPILED,
            "fit": FIT,
        },
        as_given,
        {
            "models": Counts([(1, 4), (2, 3), (3, 4)]),
            "data": Counts((fits.data()[0][:4], fits.data()[1][:4])),
            "compile": Counts({**COMPILED, "loss": "mse"}),
            "fit": Counts({**FIT, "epochs": 2}),
            "validation_data": Counts(fits.data()),
            "distillation_losses": Counts(lambda: kd.losses.LogitsMSE(name="soft_targets")),
            "alpha": Counts(0.2),
            "beta": Counts(0.2),
            "directory": Counts(str(FOLDERS / "chain")),
            "verbose": Counts(1),
        },
    ),
}

"""The models, data and trainings of the files in `version_0_1`; public API only.

`make_version_0_1.py` wrote the files with these, `test_version_0_1.py` loads them. A change here
must leave the files as they are: they stand for what users have on their disks.
"""

import functools
import json
import pathlib

import keras
import numpy as np
import tensorflow as tf

import keras_kd as kd

FOLDER = pathlib.Path(__file__).with_name("version_0_1")
ROWS, BATCH, FEATURES, CLASSES = 24, 8, 4, 3
# Epochs of a whole fit, and of those before the file was written.
EPOCHS, BEFORE = 4, 2


@functools.cache
def figures():
    """What the models of the files gave when they were written, by file."""
    return json.loads((FOLDER / "figures.json").read_text(encoding="utf-8"))


def data():
    """`(inputs, labels)`, always the same."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, FEATURES)).astype("float32")
    return x, np.argmax(x[:, :CLASSES], axis=-1)


def batches(views=1):
    """The data as `cache_teacher` takes it; with several views a function of the view's number."""
    x, y = data()
    view = lambda number: tf.data.Dataset.from_tensor_slices((x + number, y)).batch(BATCH)  # noqa: E731
    return view(0) if views == 1 else view


def network(width, seed, dropout=0.0, name=None):
    """A classifier with an inner layer `"h"`, whose weights follow from `seed` alone."""
    layers = [keras.layers.Dense(width, "tanh", name="h")]
    layers += [keras.layers.Dropout(dropout, seed=seed)] if dropout else []
    layers += [keras.layers.Dense(CLASSES, name="logits")]
    return with_weights(keras.Sequential([keras.Input((FEATURES,)), *layers], name=name), seed)


def with_weights(layer, seed):
    rng = np.random.default_rng(seed)
    for weight in layer.trainable_weights:
        weight.assign(rng.normal(scale=0.7, size=weight.shape))
    return layer


def cross_entropy():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def compiled(model, **options):
    """Compiled with few variables of its optimizer, and eager: there is nothing to trace."""
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    model.compile(optimizer, cross_entropy(), metrics=["accuracy"], run_eagerly=True, **options)
    return model


def fit(model, *callbacks, **options):
    """The history of a fit on the data in its order, as lists of floats."""
    x, y = data()
    options = {"epochs": EPOCHS, "validation_data": (x, y), **options}
    history = model.fit(
        x, y, batch_size=BATCH, shuffle=False, verbose=0, callbacks=list(callbacks), **options
    ).history
    return {key: [float(value) for value in values] for key, values in history.items()}


def predictions(model):
    """A model's outputs for the data, nested lists."""
    outputs = model.predict(data()[0], batch_size=BATCH, verbose=0)
    return keras.tree.map_structure(lambda values: np.asarray(values, "float64").tolist(), outputs)


# Distillers in `.keras` files, by the name of the file.


def fitted():
    """A hint with a projector, a weighting, and a callback with a state."""
    losses = [
        kd.losses.SoftTargets(2.0, weight=0.8),
        kd.losses.FeatureHint("h", "h", weight=0.3, name="hint"),
    ]
    weighting = kd.weighting.TeacherConfidence(0.6)
    made = kd.Distiller(network(4, 1), network(2, 2), losses, alpha=0.4, weighting=weighting)
    with_weights(made.losses_by_name["hint"], 3)
    return compiled(made)


def early_stop():
    """It ends distillation before the last epoch: one of two waited for was before the file."""
    return kd.callbacks.EarlyStopDistillation(patience=2, min_delta=9.0)


def ensemble():
    """A teacher that is made of another one: its fingerprint has the configurations of both."""
    members = [kd.teachers.KerasTeacher(network(3, 4)), network(4, 5)]
    return kd.teachers.Ensemble(members, weights=[0.25, 0.75])


def ensemble_with_own_weights():
    """The same, with a teacher that has a configuration of its own."""
    own = kd.teachers.EMA(network(4, 5), decay=0.5, copy=False)
    return kd.teachers.Ensemble([network(3, 4), own], combine="mean_probabilities")


def without_teacher():
    """It is saved without its teacher, which `set_teacher` gives back."""
    return compiled(kd.Distiller(ensemble(), network(2, 6), save_teacher=False))


def ema():
    """The average of the student's own weights teaches."""
    student = network(2, 7)
    return compiled(kd.Distiller(kd.teachers.EMA(student, decay=0.8), student))


def exits():
    """The deepest exit of a model teaches its other exits."""
    student = kd.students.add_exits(network(2, 8), ["h"])
    with_weights(student, 9)
    losses = {"exit_h": kd.losses.SoftTargets(1.5)}
    made = kd.Distiller(kd.teachers.DeepestExit("final"), student, losses)
    made.compile(
        keras.optimizers.SGD(0.1),
        {"exit_h": cross_entropy(), "final": cross_entropy()},
        run_eagerly=True,
    )
    return made


def keras_losses():
    """Losses of `keras.distillation`, and Keras' names of arguments."""
    losses = [
        keras.distillation.LogitsDistillation(temperature=2.0),
        keras.distillation.FeatureDistillation(
            loss="mse", teacher_layer_name="h", student_layer_name="h"
        ),
    ]
    made = kd.Distiller(network(2, 10), network(2, 11), losses, [0.7, 0.2], student_loss_weight=0.3)
    return compiled(made)


def mutual():
    peers = [network(3, 12, name="wide"), network(2, 13, name="small")]
    loss = kd.losses.SoftTargets(1.5)
    return compiled(kd.MutualDistiller(peers, loss, alpha=0.9, beta=0.6))


DISTILLERS = {
    made.__name__: made for made in (fitted, without_teacher, ema, exits, keras_losses, mutual)
}


def labels_of(name):
    """The labels of one row, as the distiller of that name takes them."""
    y = data()[1]
    return {"exit_h": y, "final": y} if name == "exits" else y


def trained(name, model, epochs=EPOCHS, initial_epoch=0):
    """The history of a distiller of `DISTILLERS`."""
    callbacks = [early_stop()] if name == "fitted" else []
    x, y = data()[0], labels_of(name)
    history = model.fit(
        x,
        y,
        batch_size=BATCH,
        shuffle=False,
        verbose=0,
        callbacks=callbacks,
        epochs=epochs,
        initial_epoch=initial_epoch,
        validation_data=(x, y),
    ).history
    return {key: [float(value) for value in values] for key, values in history.items()}


# A fit that `BackupAndRestore` kept the middle of.


def backed_up():
    """Each part of it has a state: seeds of dropout, a teacher of its own weights, callbacks."""
    student = network(2, 14, dropout=0.3)
    losses = kd.losses.SoftTargets(3.0)
    return compiled(kd.Distiller(kd.teachers.Snapshot(student), student, losses))


def callbacks_of_backup(folder):
    return [
        kd.callbacks.SnapshotTeacher(),
        kd.callbacks.FeatureHint("h", "h", "cosine", weight=0.5, ramp_epochs=1, name="hint"),
        kd.callbacks.Cluster(clusters=3, layers=["h"]),
        kd.callbacks.TemperatureSchedule(kd.schedules.Linear(4.0, 1.0)),
        keras.callbacks.BackupAndRestore(folder, save_freq=1, delete_checkpoint=False),
    ]


class Interruption(Exception):  # noqa: N818
    """A power cut."""


class Interrupt(keras.callbacks.Callback):
    """Ends a fit after a batch of an epoch."""

    def __init__(self, epoch, batch):
        super().__init__()
        self.at, self._epoch = (epoch, batch), 0

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self._epoch, batch) == self.at:
            raise Interruption


# Caches, by the name of their folder.


def several_outputs():
    """A teacher with two named outputs."""
    inputs = keras.Input((FEATURES,))
    hidden = keras.layers.Dense(3, "tanh", name="h")(inputs)
    outputs = {
        "shape": keras.layers.Dense(CLASSES, name="shape")(hidden),
        "color": keras.layers.Dense(2, name="color")(hidden),
    }
    return with_weights(keras.Model(inputs, outputs), 15)


def row_number(inputs, labels):
    """A key of a row: any number that no other row has."""
    return inputs[:, 0]


CACHES = {
    "float32": (functools.partial(network, 4, 1), {"dtype": "float32", "taps": ["h"]}),
    "float16": (ensemble_with_own_weights, {"dtype": "float16"}),
    "top_k": (functools.partial(network, 4, 1), {"dtype": "float32", "top_k": 2}),
    "by_key": (functools.partial(network, 4, 1), {"dtype": "float32", "key": row_number}),
    "several_outputs": (several_outputs, {"dtype": "float32", "epochs": 2}),
}


def write_cache(name, path):
    """Writes a cache, or finds it whole."""
    teacher, options = CACHES[name]
    dataset = batches(options.get("epochs", 1))
    return kd.cache_teacher(teacher(), dataset, path, batches_per_shard=2, verbose=0, **options)


def read_cache(name, path):
    """What the cached teacher said of each row, by the components of its answer, in lists."""
    teacher, options = CACHES[name]
    found = kd.load_cache(
        path, batches(options.get("epochs", 1)), key=options.get("key"), teacher=teacher()
    )
    elements = [element[0]["keras_kd_teacher"] for element in found]
    parts = [
        keras.tree.flatten((each["outputs"], list(each["taps"].values()))) for each in elements
    ]
    return [np.concatenate(each).astype("float64").tolist() for each in zip(*parts, strict=True)]


def taught_by_cache(path, key=None):
    """The history of a student that learns from a cache of `network(4, 1)`."""
    made = compiled(kd.Distiller(kd.teachers.Cached(path), network(2, 16)))
    history = made.fit(kd.load_cache(path, batches(), key=key), shuffle=False, verbose=0).history
    return {name: [float(value) for value in values] for name, values in history.items()}


# Sequences of trainings whose folder holds the first of them.


def born_again(folder, callbacks=None):
    """The report of two generations."""
    losses = [kd.losses.SoftTargets(2.0), kd.losses.FeatureHint("h", "h", projector=None)]
    made = kd.BornAgain(network(2, 17), 2, losses, alpha=0.6, directory=folder)
    compiled(made)
    x, y = data()
    return made.fit(x, y, batch_size=BATCH, verbose=0, validation_data=(x, y), callbacks=callbacks)


def chain(folder, callbacks=None):
    """The report of an assistant and a student."""
    compile_options = {
        "optimizer": keras.optimizers.SGD(0.1),
        "loss": cross_entropy(),
        "metrics": ["accuracy"],
        "run_eagerly": True,
    }
    fit_options = {"batch_size": BATCH, "epochs": 1}
    return kd.distill_chain(
        [
            network(4, 1, name="teacher"),
            network(3, 18, name="middle"),
            network(2, 19, name="small"),
        ],
        data(),
        validation_data=data(),
        compile=compile_options,
        fit={**fit_options, "callbacks": callbacks},
        distillation_losses=kd.losses.SoftTargets(2.0),
        directory=folder,
        verbose=0,
    )


SEQUENCES = {"born_again": born_again, "chain": chain}


class EndOfSequence(keras.callbacks.Callback):
    """Ends the second training before it begins."""

    def on_train_begin(self, logs=None):
        raise Interruption


def of_sequence(report):
    """What a report of a sequence shows, as JSON has it."""
    return {
        "table": str(report),
        "histories": report.histories,
        "predictions": predictions(report.students[-1]),
    }


# The rest.


def aware():
    """A student that computes with the numbers of its int8 file."""
    layers = [keras.layers.Dense(4, "relu"), keras.layers.Dense(CLASSES)]
    student = with_weights(keras.Sequential([keras.Input((FEATURES,)), *layers]), 20)
    made = kd.quantization_aware(student, representative_data=data()[0], observe_steps=4)
    return compiled(made)


def report():
    """Of two pairs of students, whose weights are given."""
    x, y = data()
    return kd.report(
        network(4, 1, name="teacher"),
        student=[network(2, seed, name="student") for seed in (21, 22)],
        baseline=[network(2, seed, name="student") for seed in (23, 24)],
        data=(x, y),
        latency=False,
        slices={"sign": (x[:, 3] > 0).astype("int32")},
        class_names=["first", "second", "third"],
        verbose=0,
    )


def objects():
    """`{registered name: object}` of what a file may hold beside models, without one of its own."""
    losses, taps, weighting = kd.losses, kd.taps, kd.weighting
    layers = ("h", "h")
    made = [
        losses.AttentionMaps(*layers, loss="kl", weight=0.5),
        losses.AttentionTransfer(*layers, power=3),
        losses.ChannelWise(3.0, teacher_layer="h", student_layer="h"),
        losses.ContrastiveRepresentation(*layers, width=5),
        losses.CosineHidden(*layers),
        losses.CurriculumTemperature(highest=9.0),
        losses.DIST(2.0, inter_class=0.5),
        losses.DecoupledKD(3.0, target=2.0),
        losses.FeatureHint(*layers, loss="cosine", weight=0.2),
        losses.FlowMatrix(layers, layers),
        losses.HiddenStates(*layers, normalize=True),
        losses.LearningWithoutForgetting(student_classes=[0, 1], teacher_classes=[0, 1]),
        losses.LogitStandardization(3.0),
        losses.LogitsMSE(weight=0.5),
        losses.NeuronSelectivity(teacher_layer="h", student_layer="h"),
        losses.ProbabilisticTransfer(teacher_layer="h", student_layer="h"),
        losses.RegressionKD(bounded=True, margin=0.5),
        losses.RelationalAngle(teacher_layer="h", student_layer="h"),
        losses.RelationalDistance(teacher_layer="h", student_layer="h"),
        losses.SigmoidKD(2.0),
        losses.SimilarityPreserving(teacher_layer="h", student_layer="h"),
        losses.SoftTargets(2.0, divergence="jsd", mixing_weight=0.3, output="a"),
        losses.VariationalInformation(*layers, hidden_width=5),
        taps.Tap("h", call=1),
        weighting.ClassShares([0.1, 0.5, 0.9]),
        weighting.TeacherConfidence(0.4, low=0.1),
        weighting.TeacherCorrectness(wrong=0.2),
        weighting.TeacherEntropy(),
        kd.teachers.DeepestExit("final"),
        kd.teachers.KerasTeacher(network(2, 25)),
        kd.teachers.VirtualTeacher(0.8),
    ]
    return {keras.saving.get_registered_name(type(each)): each for each in made}


def teachers_of_files():
    """The same for teachers that read a file of `version_0_1`."""
    made = [
        kd.teachers.Cached(FOLDER / "caches" / "float32", network(4, 1)),
        kd.teachers.TFLiteTeacher(FOLDER / "student.tflite"),
    ]
    return {keras.saving.get_registered_name(type(each)): each for each in made}


def without_modules(config):
    """What Keras has serialized, without the modules of the classes, which nobody promised."""
    if isinstance(config, dict):
        return {key: without_modules(each) for key, each in config.items() if key != "module"}
    if isinstance(config, (list, tuple)):
        return [without_modules(each) for each in config]
    return config

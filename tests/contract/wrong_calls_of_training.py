"""Wrong calls of callbacks, losses and sequences, and what the error must say."""

import keras

import keras_kd as kd
from tests.contract import fits
from tests.contract.calls import ENDS, INF, NAN, X, Y, argument, fit, values

callbacks, data, losses, schedules = kd.callbacks, kd.data, kd.losses, kd.schedules
teachers, weighting = kd.teachers, kd.weighting


def beta(*given, **options):
    return callbacks.LossWeightSchedule("beta", *given, **options)


def hint(**options):
    return callbacks.FeatureHint("deep", "deep", **options)


def sequence():
    keras.utils.set_random_seed(1)
    tokens = keras.Input((4,), dtype="int32")
    return keras.Model(tokens, keras.layers.Dense(5)(keras.layers.Embedding(7, 3)(tokens)))


OF_CALLBACKS = {
    **values(
        callbacks.TemperatureSchedule, "start", "a", [0, -1.0, NAN, INF, "4", None, True], end=1.0
    ),
    **values(callbacks.TemperatureSchedule, "end", "a", [0, "1", [1.0]], start=4.0),
    **values(callbacks.DecaySchedule, "end", "a number", [1.0, "0.9"], start=0.9),
    **values(callbacks.TemperatureSchedule, "by", "'epoch' or 'step'", ["batch", None], **ENDS),
    **values(callbacks.TemperatureSchedule, "length", "an integer", [0, 1.5, "2"], **ENDS),
    **values(callbacks.TemperatureSchedule, "start_epoch", "an integer", [-1, 0.5], **ENDS),
    **values(callbacks.TemperatureSchedule, "schedule", "one of", ["quick", []], **ENDS),
    **values(callbacks.LossWeightSchedule, "start", "a", [-1.0, INF], target="beta", end=1.0),
    **values(callbacks.LossWeightSchedule, "target", "'alpha', 'beta' or", [3, None, ""], **ENDS),
    "a schedule and a whole schedule": (
        lambda: beta(schedules.Linear(1.0, 0.0), schedule="cosine"),
        argument("schedule", "nothing, because `start` is a whole schedule", "'cosine'"),
    ),
    "the length of a function": (
        lambda: beta(lambda epoch: 0.5, length=3),
        argument("length", "None, because `start` is a schedule of the position alone"),
    ),
    "the length of constants": (
        lambda: beta(schedules.Piecewise([1], [1.0, 0.0]), length=3),
        argument("length", "None"),
    ),
    "a loss that is not there": (
        lambda: fit(callbacks.LossWeightSchedule("softtargets", 1.0, 0.0)),
        r"no distillation loss 'softtargets'. Expected 'alpha', 'beta' or .*soft_targets",
    ),
    "a number that a loss has not": (
        lambda: fit(callbacks.LossWeightSchedule("soft_targets.margin", 1.0, 0.0)),
        "'soft_targets' has no hyperparameter 'margin'",
    ),
    "two of one number": (
        lambda: fit(beta(1.0, 0.0), callbacks=[beta(1.0, 0.0), beta(0.0, 1.0)]),
        "Several callbacks set 'beta'.* Pass one of them",
    ),
    "a schedule after the end": (
        lambda: fit(beta(1.0, 0.0, start_epoch=3)),
        "begins with epoch 3, but fit ends with epoch 2. Lower start_epoch or raise epochs",
    ),
    "the decay of a model": (
        lambda: fit(callbacks.DecaySchedule(0.9, 0.99)),
        "steers a keras_kd.teachers.EMA. The distiller's teacher is a Sequential",
    ),
    "a schedule for a plain model": (
        lambda: compiled_model().fit(X, Y, callbacks=[beta(1.0, 0.0)], verbose=0),
        "steers a keras_kd.Distiller or MutualDistiller. Received.*Pass it to the fit of the dist",
    ),
    **values(callbacks.EarlyStopDistillation, "mode", "one of", ["least", None]),
    **values(callbacks.EarlyStopDistillation, "patience", "an integer", [0, 1.5, None]),
    **values(callbacks.EarlyStopDistillation, "min_delta", "a", [-1, NAN, "0"]),
    **values(callbacks.EarlyStopDistillation, "monitor", "an entry of the history", [3, None, ""]),
    **values(callbacks.EarlyStopDistillation, "alpha", "a", [-1, "1"]),
    **values(callbacks.EarlyStopDistillation, "verbose", "0 or 1", [2, "yes", None]),
    **values(callbacks.EarlyStopDistillation, "start_epoch", "an integer", [-1, None]),
    "nothing to validate with": (
        lambda: fit(callbacks.EarlyStopDistillation("val_loss")),
        "watches 'val_loss', and fit has no validation data. Pass validation_data to fit",
    ),
    **values(callbacks.SnapshotTeacher, "start_epoch", "an integer, at least 1", [0, 1.5]),
    **values(callbacks.SnapshotTeacher, "every", "an integer, at least 1", [0, None]),
    "a snapshot of another teacher": (
        lambda: fit(callbacks.SnapshotTeacher()),
        "teacher is a keras_kd.teachers.Snapshot. Received: a teacher of type Sequential",
    ),
    **values(callbacks.DistillationMonitor, "inputs", "a batch of inputs", [None, 3, "x", [], 0.5]),
    **values(
        callbacks.DistillationMonitor,
        "pairs",
        "a list of pairs",
        ["deep", ["deep"], [("a",)], 3],
        inputs=X,
    ),
    **values(callbacks.DistillationMonitor, "output", "the name", [0.5, ["a"]], inputs=X),
    **values(callbacks.DistillationMonitor, "from_logits", "True", ["no", None], inputs=X),
    **values(callbacks.DistillationMonitor, "plot", "the path of a file", [3, True], inputs=X),
    "a layer that is none": (
        lambda: callbacks.DistillationMonitor(X, pairs=[("deep", 3)]),
        argument(r"pairs\[0\]: student_layer", "the name of a layer", "3"),
    ),
    "one of two outputs": (
        lambda: fits.of_heads().fit(
            X, {"a": Y, "b": Y}, callbacks=[callbacks.DistillationMonitor(X)], verbose=0
        ),
        r"compares one output; the models have 2.*DistillationMonitor\(.*output=name",
    ),
    "a plot of no kind": (
        lambda: fit(callbacks.DistillationMonitor(X, plot="curve.txt")),
        "name ends in one of .*png.*Received: plot='curve.txt'",
    ),
    **values(
        callbacks.FeatureHint,
        "loss",
        "one of",
        ["l2", 3, None],
        teacher_layer="deep",
        student_layer="deep",
    ),
    **values(
        callbacks.FeatureHint,
        "projector",
        "'auto', 'linear', None",
        ["dense", 3],
        teacher_layer="deep",
        student_layer="deep",
    ),
    **values(
        callbacks.FeatureHint, "teacher_layer", "the name of a layer", [3], student_layer="deep"
    ),
    **values(
        callbacks.FeatureHint,
        "name",
        "the name of the loss",
        [3, ""],
        teacher_layer="deep",
        student_layer="deep",
    ),
    "a hint that ends before it began": (
        lambda: hint(start_epoch=2, stop_epoch=2),
        "risen, before it stops. Received: start_epoch=2, ramp_epochs=0, stop_epoch=2",
    ),
    "a hint of another name": (
        lambda: fit(hint(name="other"), with_a_hint),
        r"FeatureHint\(name='other'\) contradicts.*'hint'. Pass name='hint', or leave it out",
    ),
    "a hint of another loss": (
        lambda: fit(hint(loss="cosine"), with_a_hint),
        r"FeatureHint\(loss='cosine'\) contradicts.*Pass loss='mse'",
    ),
    "a hint of no layer": (
        lambda: fit(callbacks.FeatureHint("depth", "deep")),
        "has no layer 'depth'. Close to it: .*'deep'",
    ),
}


def compiled_model():
    model = fits.network(1)
    model.compile("sgd", "mse")
    return model


def with_a_hint():
    return fits.distiller(
        fits.network(1), fits.network(2), losses.FeatureHint("deep", "deep", name="hint")
    )


PAIR = {"teacher_layer": "deep", "student_layer": "deep"}


def of_whole(subject, **others):
    """A mask for a loss that has no positions."""
    return values(subject, "mask_input", "None: .*compares whole", ["keep"], **others)


OF_LOSSES = {
    **values(losses.AttentionMaps, "loss", "one of", ["l1", None], **PAIR),
    **values(losses.AttentionMaps, "kind", "'attention_logits'", ["logits", 3], **PAIR),
    "kl of attention before softmax": (
        lambda: losses.AttentionMaps("deep", "deep", "kl", "attention_logits"),
        argument("kind", ".*loss='kl' needs, 'attention_scores'", "'attention_logits'"),
    ),
    **values(losses.AttentionTransfer, "power", "a finite number above 0", [0], **PAIR),
    **values(losses.AttentionTransfer, "power", "a", [-1, "2", NAN], **PAIR),
    **of_whole(losses.AttentionTransfer, **PAIR),
    **of_whole(losses.ChannelWise),
    **of_whole(losses.NeuronSelectivity),
    **of_whole(losses.FlowMatrix, teacher_layers=("a", "b"), student_layers=("a", "b")),
    **of_whole(losses.RelationalDistance),
    **of_whole(losses.SimilarityPreserving),
    **of_whole(losses.ContrastiveRepresentation),
    **values(losses.ContrastiveRepresentation, "width", "an integer", [0, 1.5, None]),
    **values(losses.ContrastiveRepresentation, "memory_size", "an integer", [-1, "8"]),
    **values(losses.ContrastiveRepresentation, "temperature", "a", [0, -1, "1", None]),
    **values(losses.ContrastiveRepresentation, "objective", "one of", ["nt_xent", None]),
    **values(losses.ContrastiveRepresentation, "dataset_size", "None: objective", [50]),
    "nce of unknown data": (
        lambda: losses.ContrastiveRepresentation(objective="nce"),
        "needs `dataset_size`, the number of rows of the training data",
    ),
    **values(
        losses.FlowMatrix,
        "teacher_layers",
        "two layers",
        ["ab", ("a",), None, 3],
        student_layers=("a", "b"),
    ),
    **values(losses.HiddenStates, "normalize", "True or False", ["yes", 1, None], **PAIR),
    **values(losses.VariationalInformation, "variance", "a", [0, 1e-6, "5"], **PAIR),
    **values(losses.VariationalInformation, "hidden_width", "an integer", [0, 2.5], **PAIR),
    **values(
        losses.LearningWithoutForgetting,
        "student_classes",
        "a list of at least two different",
        [[1], [1, 1], [-1, 2], "ab", 3, [True, False]],
    ),
    "lists of different lengths": (
        lambda: losses.LearningWithoutForgetting(student_classes=[0, 1], teacher_classes=[0, 1, 2]),
        "one class of the student for each class of the teacher.*2 of the student.*3 of the teach",
    ),
    "a class that the student has not": (
        lambda: kd.Distiller(
            fits.network(1),
            fits.network(2),
            losses.LearningWithoutForgetting(student_classes=[0, 9], teacher_classes=[0, 1]),
        ),
        r"`student_classes` names class 9, but the student has 5 classes \(indices 0 to 4\)",
    ),
    "images of vectors": (
        lambda: kd.Distiller(fits.network(1), fits.network(2), losses.NeuronSelectivity(**PAIR)),
        r"expects features of shape \[batch, height, width, channels\].*Received: teacher",
    ),
    "sequences of vectors": (
        lambda: kd.Distiller(fits.network(1), fits.network(2), losses.HiddenStates("deep", "deep")),
        r"expects features of shape \[batch, time, width\]. Received: teacher",
    ),
    "relations of sequences": (
        lambda: kd.Distiller(sequence(), sequence(), losses.RelationalDistance()),
        r"Received: shape \(None, 4, 5\).*Pool a sequence first, and read the pooled layer",
    ),
    "attention of a layer without": (
        lambda: kd.Distiller(
            fits.network(1), fits.network(2), losses.AttentionMaps("deep", "deep")
        ),
        "(?i)attention",
    ),
    "a batch of one row between rows": (
        lambda: fit(
            keras.callbacks.Callback(),
            lambda: fits.distiller(
                fits.network(1), fits.network(2), losses.RelationalDistance(name="rows")
            ),
            batch_size=1,
        ),
        "'rows'.*(?i:at least 2 rows|2 rows|larger batch)",
    ),
}


def chain(**changes):
    given = {
        "models": [fits.network(1), fits.network(2)],
        "data": fits.data(),
        "compile": {"optimizer": "sgd", "loss": "mse"},
    }
    return kd.distill_chain(**{**given, **changes})


OF_SEQUENCES = {
    **values(kd.BornAgain, "student", "a keras.Model", [None, "model"]),
    **values(kd.BornAgain, "generations", "an integer", [1, 2.5, None], student=fits.network(1)),
    **values(kd.BornAgain, "alpha", "a", [-1, "1"], student=fits.network(1)),
    **values(kd.BornAgain, "teacher", "a keras.Model", ["t"], student=fits.network(1)),
    **values(kd.BornAgain, "directory", "the path of a folder", [3], student=fits.network(1)),
    **values(
        kd.BornAgain,
        "distillation_losses",
        "a keras_kd.losses.DistillationLoss",
        ["kl", [print]],
        student=fits.network(1),
    ),
    **values(chain, "models", "a list of at least two", [[], fits.network(1), None]),
    **values(chain, "data", r"\(x, y\)", [None, 3, (row for row in ())]),
    **values(chain, "beta", "a", [-1, None]),
    **values(chain, "compile", "a dict", ["adam", [{}, {}]]),
    **values(chain, "distillation_losses", "a keras_kd.losses", ["kl"]),
    **values(chain, "directory", "the path", [b"", 3.5]),
    "validation data that runs out": (
        lambda: chain(validation_data=(row for row in ())),
        "`validation_data` must be .*Received: a generator",
    ),
    "data given twice": (
        lambda: chain(fit={"x": X}),
        r"`fit` has \['x'\], which are arguments of distill_chain itself",
    ),
    "the same model twice": (
        lambda: chain(models=[fits.network(1)] * 2),
        r"models\[0\] and models\[1\] are the same model",
    ),
    **values(kd.MutualDistiller, "peers", "a list of at least two", [[], fits.network(1), None]),
    **values(
        kd.MutualDistiller,
        "teaching",
        "",
        ["all", [[0, 1]], [[1, 0], [0, 1]], [[0, NAN], [1, 0]]],
        peers=[fits.network(1), fits.network(2)],
    ),
    **values(
        kd.MutualDistiller,
        "distillation_loss",
        "one keras_kd.losses.DistillationLoss",
        ["kl", [losses.SoftTargets()]],
        peers=[fits.network(1), fits.network(2)],
    ),
}

"""The first `fit` looks at its first batch, and warns of what would spoil distillation."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from tests.distiller import counters, linear

ROWS = 64
PREFIX = "keras_kd, first batch: "


def data():
    """Inputs whose first features say the class."""
    x, _ = linear.data(ROWS)
    return x, x[:, : linear.CLASSES].argmax(-1)


def knowing():
    teacher = linear.linear(1)
    teacher.set_weights([8.0 * np.eye(linear.FEATURES, linear.CLASSES), np.zeros(linear.CLASSES)])
    return teacher


def diagnosis_warnings(teacher, losses=None, kind="arrays", mode="graph", **options):
    """The warnings of a `fit`."""
    distiller = linear.compiled(teacher, linear.linear(2), losses, mode=mode, **options)
    x, y = data()
    given = {
        "arrays": {"x": x, "y": y, "batch_size": 32},
        "dataset": {"x": tf.data.Dataset.from_tensor_slices((x, y)).batch(32)},
        "columns": {"x": x, "y": y[:, None], "batch_size": 32},
    }[kind]
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for _ in range(2):
            distiller.fit(**given, epochs=2, shuffle=False, verbose=0)
    return [str(w.message) for w in found if issubclass(w.category, kd.diagnosis.DiagnosisWarning)]


@pytest.mark.parametrize("mode", linear.MODES)
@pytest.mark.parametrize("kind", ["arrays", "dataset", "columns"])
def test_a_teacher_that_guesses_warns_once(kind, mode):
    worst = knowing()
    kernel, bias = worst.get_weights()
    worst.set_weights([-kernel, bias])  # the label's class last
    (message,) = diagnosis_warnings(worst, kind=kind, mode=mode)
    assert message.startswith(PREFIX)
    assert "guessing" in message


def test_a_good_teacher_does_not_warn():
    assert diagnosis_warnings(knowing()) == []
    assert diagnosis_warnings(knowing(), kind="dataset") == []


def test_probabilities_of_a_function_warn():
    teacher = knowing()
    (message,) = diagnosis_warnings(lambda x: keras.ops.softmax(teacher(x)))
    assert "softmax" in message


def test_it_can_be_left_out_and_is_where_it_cannot_tell():
    guessing = linear.linear(1)
    distiller = linear.compiled(guessing, linear.linear(2))
    distiller.checks_first_batch = False
    x, y = data()
    with warnings.catch_warnings():
        warnings.simplefilter("error", kd.diagnosis.DiagnosisWarning)
        distiller.fit(x, (y + 1) % linear.CLASSES, verbose=0)
    assert diagnosis_warnings(guessing, [kd.losses.RegressionKD()]) == []
    assert diagnosis_warnings(guessing, alpha=1.0, beta=0.0) == []


def test_a_shuffled_dataset_keeps_its_order_and_no_state_moves():
    x, y = data()

    def run(checks):
        keras.utils.set_random_seed(3)
        teacher, student = counters.model(), counters.model()
        for model in (teacher, student):
            rng = np.random.default_rng(0)
            model.set_weights([rng.normal(size=w.shape) ** 2 for w in model.weights])
        dataset = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(ROWS, seed=5).batch(16)
        distiller = linear.compiled(teacher, student, mode="graph")
        distiller.checks_first_batch = checks
        distiller.fit(dataset, epochs=2, shuffle=False, verbose=0)
        return student.get_weights()

    for one, other in zip(run(True), run(False), strict=True):
        np.testing.assert_array_equal(one, other)


def without_labels(teacher, loss, kind="arrays"):
    """The warnings of a `fit` from the teacher alone."""
    distiller = kd.Distiller(teacher, linear.linear(2), loss, alpha=0.0, beta=1.0)
    distiller.compile("sgd")
    x, _ = data()
    batches = [x[:32], x[32:]]
    given = {
        "arrays": lambda: {"x": x},
        "dataset": lambda: {"x": tf.data.Dataset.from_tensor_slices(x).batch(32)},
        "generator": lambda: {"x": ((batch,) for batch in batches)},
    }[kind]()
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        distiller.fit(**given, verbose=0)
    of_us = [w for w in found if issubclass(w.category, kd.diagnosis.DiagnosisWarning)]
    assert all(w.filename == __file__ for w in of_us)  # the user's line
    return [str(w.message) for w in of_us]


# How the batch is kept does not depend on the loss.
@pytest.mark.parametrize(
    ("loss", "kind"),
    [
        (kd.losses.SoftTargets, "arrays"),
        (kd.losses.SoftTargets, "dataset"),
        (kd.losses.SoftTargets, "generator"),
        (kd.losses.LogitsMSE, "arrays"),
        (kd.losses.DIST, "arrays"),
        (kd.losses.LogitStandardization, "arrays"),
        (keras.distillation.LogitsDistillation, "arrays"),
    ],
)
def test_probabilities_warn_without_labels_for_every_loss_on_logits(loss, kind):
    """As a file gives them, without a layer that shows it."""
    teacher = knowing()
    (message,) = without_labels(lambda x: keras.ops.softmax(teacher(x)), loss(), kind)
    assert "The teacher ends in softmax" in message
    assert "teacher_from_logits=False" in message
    assert without_labels(lambda x: teacher(x), loss(), kind) == []


def test_probabilities_of_a_binary_teacher_warn():
    teacher = knowing()
    (message,) = without_labels(lambda x: keras.ops.sigmoid(teacher(x)), kd.losses.SigmoidKD())
    assert "seems to end in sigmoid" in message
    assert "teacher_from_logits=False" in message
    loss = kd.losses.SigmoidKD(teacher_from_logits=False)
    assert without_labels(lambda x: keras.ops.sigmoid(teacher(x)), loss) == []
    (message,) = without_labels(
        lambda x: teacher(x), kd.losses.SigmoidKD(teacher_from_logits=False)
    )
    assert "returns no probabilities, although teacher_from_logits=False" in message


def test_the_remedy_of_probabilities_teaches():
    """Without it the student's confidence stays near the uniform one."""
    teacher = knowing()
    x, _ = data()
    confidence = {}
    for loss in (kd.losses.SoftTargets(1.0), kd.losses.SoftTargets(1.0, teacher_from_logits=False)):
        student = linear.linear(2)
        distiller = kd.Distiller(lambda x: keras.ops.softmax(teacher(x)), student, loss, alpha=0.0)
        distiller.compile(keras.optimizers.Adam(0.2))
        distiller.checks_first_batch = False
        distiller.fit(x, epochs=40, verbose=0)
        probabilities = keras.ops.softmax(student(x))
        confidence[loss.teacher_from_logits] = np.max(probabilities, axis=-1).mean()
    assert confidence[None] < 0.5 < 0.8 < confidence[False]


def test_rows_that_do_not_count_are_not_looked_at():
    """Padding has label 0, which the teacher cannot predict."""
    x, y = data()
    out = np.arange(ROWS) % 2 == 0
    teacher = knowing()
    distiller = linear.compiled(teacher, linear.linear(2))
    wrong = np.where(out, (teacher(x).numpy().argmax(-1) + 1) % linear.CLASSES, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error", kd.diagnosis.DiagnosisWarning)
        weight = np.where(out, 0.0, 1.0)
        distiller.fit(x, wrong, batch_size=ROWS, sample_weight=weight, verbose=0)

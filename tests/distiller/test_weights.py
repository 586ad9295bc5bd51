"""`sample_weight` and `class_weight` reach the hard AND the distillation term."""

import keras
import numpy as np
import pytest

import keras_kd as kd
from tests import matrix, reference
from tests.distiller import linear
from tests.distiller.linear import Loop, assert_same_values, assert_same_weights, compiled

WEIGHTS = linear.weights_of()
# The hard losses that take the fused and the separate path.
HARD_LOSSES = {"fused": linear.from_logits, "separate": lambda: [linear.from_logits()]}


@pytest.fixture(params=HARD_LOSSES)
def hard_loss(request):
    return HARD_LOSSES[request.param]()


def step(hard_loss, x, y, mode="eager", teacher=None, **weights):
    """Logs and student after one step."""
    own, student = linear.pair()
    options = {"loss": hard_loss, "weighted_metrics": ["accuracy"]}
    distiller = compiled(teacher or own, student, mode=mode, compile_args=options)
    return distiller.train_on_batch(x, y, return_dict=True, **weights), student


def loop():
    return Loop(*linear.pair())


def test_sample_weight_of_one_step(hard_loss):
    x, y = linear.data()
    logs, student = step(hard_loss, x, y, sample_weight=WEIGHTS)
    expected = loop()
    assert_same_values(logs, expected.step(x, y, WEIGHTS))
    assert_same_weights(student, expected)


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)], ids=["rows", "column"])
def test_shapes_of_sample_weight(shape, hard_loss):
    x, y = linear.data()
    logs, _ = step(hard_loss, x, y, sample_weight=WEIGHTS.reshape(shape))
    assert_same_values(logs, loop().step(x, y, WEIGHTS))


def test_class_weight_is_a_sample_weight(hard_loss):
    x, y = linear.data()
    class_weight = {0: 0.0, 1: 2.0, 2: 0.5, 3: 1.0}
    logs, student = step(hard_loss, x, y, class_weight=class_weight)
    expected = loop()
    weights = np.array([class_weight[label] for label in y])
    assert_same_values(logs, expected.step(x, y, weights))
    assert_same_weights(student, expected)


def test_class_weight_in_fit():
    x, y = linear.data()
    teacher, student = linear.pair()
    class_weight, expected = {0: 0.0, 1: 2.0, 2: 0.5, 3: 1.0}, loop()
    distiller = compiled(teacher, student, mode="graph")
    options = {"batch_size": 10, "shuffle": False, "verbose": 0}
    history = distiller.fit(x, y, class_weight=class_weight, **options).history
    weights = np.array([class_weight[label] for label in y])
    assert_same_values(history, expected.fit(x, y, weights, batch_size=10))
    assert_same_weights(student, expected)


def test_weighted_metrics_are_weighted_and_metrics_are_not():
    x, y = linear.data()
    teacher, student = linear.pair()
    right = np.argmax(linear.logits_of(student, x), axis=-1) == y
    metrics = {"metrics": ["accuracy"], "weighted_metrics": ["sparse_categorical_accuracy"]}
    distiller = compiled(teacher, student, compile_args=metrics)
    logs = distiller.train_on_batch(x, y, WEIGHTS, return_dict=True)
    expected = {
        "accuracy": right.mean(),
        "sparse_categorical_accuracy": np.average(right, weights=WEIGHTS),
    }
    assert_same_values(logs, expected)


def test_evaluate_with_sample_weight_and_teacher():
    x, y = linear.data()
    distiller = compiled(*linear.pair())
    options = {"sample_weight": WEIGHTS, "batch_size": 10, "return_dict": True, "verbose": 0}
    expected, _ = loop().gradients(x, y, WEIGHTS)
    assert_same_values(distiller.evaluate(x, y, with_teacher=True, **options), expected)
    without = distiller.evaluate(x, y, **options)
    assert_same_values(without, {"loss": expected["hard_loss"]})


@pytest.mark.parametrize("mode", matrix.modes("eager", "graph"))
def test_rows_of_weight_zero_do_not_exist(mode, hard_loss):
    # Whatever a row of weight zero holds: its input is another, its label too.
    x, y = linear.data()
    logs, student = step(hard_loss, x, y, mode, sample_weight=WEIGHTS)
    other_x, other_y = linear.data(seed=5)
    out = WEIGHTS[:, None] == 0
    x, y = np.where(out, 30 * other_x, x), np.where(out[:, 0], other_y, y)
    other_logs, other = step(hard_loss, x, y, mode, sample_weight=WEIGHTS)
    assert_same_values(other_logs, logs, tolerance=1e-6)
    assert_same_values(
        dict(enumerate(other.get_weights())), dict(enumerate(student.get_weights())), tolerance=1e-6
    )


@pytest.mark.parametrize("mode", linear.MODES)
def test_a_teacher_that_says_nan_in_rows_of_weight_zero(mode, hard_loss):
    x, y = linear.data()
    teacher = linear.pair()[0]

    def broken(inputs):
        return keras.ops.where(inputs[:, :1] > 1e3, np.nan, teacher(inputs))

    out = WEIGHTS == 0
    x[out, 0] = 2e3
    logs, student = step(hard_loss, x, y, mode, teacher=broken, sample_weight=WEIGHTS)
    expected = loop()
    assert_same_values(logs, expected.step(x, y, WEIGHTS))
    assert_same_weights(student, expected)


def test_labels_that_mean_nothing_in_rows_of_weight_zero():
    x, y = linear.data()
    expected = loop()
    losses = expected.step(x, y, WEIGHTS)
    y[WEIGHTS == 0] = -1
    logs, student = step(linear.from_logits(), x, y, "graph", sample_weight=WEIGHTS)
    assert_same_values(logs, losses)
    assert_same_weights(student, expected)


def test_a_batch_whose_rows_all_have_weight_zero(hard_loss):
    x, y = linear.data()
    before = linear.pair()[1].get_weights()
    logs, student = step(hard_loss, x, y, sample_weight=np.zeros(len(x)))
    assert logs["loss"] == logs["hard_loss"] == logs["soft_targets"] == 0.0
    for weight, expected in zip(student.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, expected)


class SquaredError(kd.losses.DistillationLoss):
    def call(self, teacher_outputs, student_outputs):
        return keras.ops.mean((teacher_outputs - student_outputs) ** 2, axis=-1)


def test_sample_weight_reaches_a_loss_of_the_users():
    x, y = linear.data()
    teacher, student = linear.pair()
    distiller = compiled(teacher, student, SquaredError(name="mse"))
    gap = linear.logits_of(teacher, x) - linear.logits_of(student, x)
    logs = distiller.train_on_batch(x, y, WEIGHTS, return_dict=True)
    assert_same_values(logs, {"mse": np.mean(WEIGHTS * np.mean(gap**2, axis=-1))})


def test_weights_of_the_positions_of_a_sequence():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 3, 2)).astype("float32"), rng.integers(4, size=(6, 3))
    weights = rng.uniform(size=(6, 3))
    models = [
        keras.Sequential([keras.Input((None, 2)), keras.layers.Dense(4, name="dense")])
        for _ in range(2)
    ]
    teacher, student = (linear.logits_of(model, x) for model in models)
    soft = np.mean(weights * reference.soft_target_loss(student, teacher, 4.0))
    hard = np.mean(weights * reference.hard_loss(student, y))
    distiller = compiled(*models)
    logs = distiller.train_on_batch(x, y, weights, return_dict=True)
    assert_same_values(
        logs, {"soft_targets": soft, "hard_loss": hard, "loss": 0.5 * soft + 0.5 * hard}
    )
    distiller = compiled(*models, learning_rate=0.0)
    by_row = distiller.train_on_batch(x, y, weights[:, 0], return_dict=True)
    by_position = np.repeat(weights[:, :1], 3, axis=1)
    assert_same_values(by_row, distiller.train_on_batch(x, y, by_position, return_dict=True))

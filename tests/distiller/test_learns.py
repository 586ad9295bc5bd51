"""Students learn: on real digits, and with losses that bring weights of their own."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_kd as kd
from tests import extras
from tests.distiller import linear


@pytest.fixture(scope="module")
def digits():
    """`(x, y), (x_test, y_test)` of 8 x 8 pixels between 0 and 1."""
    datasets = extras.require("sklearn.datasets")
    x, y = datasets.load_digits(return_X_y=True)
    x, order = x.astype("float32") / 16.0, np.random.default_rng(0).permutation(len(y))
    train, test = order[:1400], order[1400:]
    return (x[train], y[train]), (x[test], y[test])


def network(width):
    return keras.Sequential(
        [
            keras.Input((64,)),
            layers.Dense(width, activation="relu", name="hidden"),
            layers.Dense(10, name="logits"),
        ]
    )


@pytest.fixture(scope="module")
def teacher(digits):
    """A network that knows 94 % of the test digits."""
    keras.utils.set_random_seed(1)
    model = network(64)
    model.compile(keras.optimizers.Adam(3e-3), loss=linear.from_logits(), metrics=["accuracy"])
    model.fit(*digits[0], batch_size=64, epochs=15, verbose=0)
    assert model.evaluate(*digits[1], verbose=0)[1] > 0.94
    return model


def distill(teacher, student, digits, losses=None, labels=True, **kwargs):
    """Accuracy on the test digits, and the history."""
    distiller = kd.Distiller(teacher, student, losses, **kwargs)
    optimizer = keras.optimizers.Adam(3e-3)
    if labels:
        distiller.compile(optimizer, loss=linear.from_logits())
    else:
        distiller.compile(optimizer)
    data = digits[0] if labels else digits[0][:1]
    history = distiller.fit(*data, batch_size=64, epochs=15, verbose=0).history
    predicted = student.predict(digits[1][0], verbose=0).argmax(axis=-1)
    return np.mean(predicted == digits[1][1]), history


def test_a_student_learns_the_digits(teacher, digits):
    accuracy, history = distill(teacher, network(16), digits)
    assert accuracy > 0.9
    assert history["soft_targets"][-1] < 0.1 * history["soft_targets"][0]
    assert history["hard_loss"][-1] < 0.2 * history["hard_loss"][0]


def test_a_student_learns_the_digits_without_labels(teacher, digits):
    accuracy, _ = distill(teacher, network(16), digits, labels=False, alpha=0.0, beta=1.0)
    assert accuracy > 0.9


def test_a_float16_student_learns_the_digits(teacher, digits):
    keras.config.set_dtype_policy("mixed_float16")
    student = network(16)
    accuracy, _ = distill(teacher, student, digits)
    assert student.layers[0].compute_dtype == "float16"
    assert accuracy > 0.9


@keras.saving.register_keras_serializable(package="keras_kd_tests")
class Projected(kd.losses.DistillationLoss):
    """The student's features, projected to the teacher's width, against the teacher's."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.projector = layers.Dense(width, name="projector")

    def call(self, teacher_outputs, student_outputs):
        projected = self.projector(student_outputs)
        return keras.ops.mean((teacher_outputs - projected) ** 2, axis=-1)

    def get_config(self):
        return {**super().get_config(), "width": self.width}


def projected():
    return Projected(64, weight=0.5, teacher_layer="hidden", student_layer="hidden", name="hint")


def test_a_projector_learns_and_is_no_part_of_the_student(teacher, digits, tmp_path):
    student, loss = network(16), projected()
    weights_before = len(student.weights)
    distiller = kd.Distiller(teacher, student, [kd.losses.SoftTargets(), loss])
    assert loss.projector.built, "it is built with the distiller, so that it can be saved"
    initial = loss.projector.get_weights()[0]
    distiller.compile(keras.optimizers.Adam(3e-3), loss=linear.from_logits())
    history = distiller.fit(*digits[0], batch_size=64, epochs=10, verbose=0).history
    assert history["hint"][-1] < 0.5 * history["hint"][0]
    assert np.abs(loss.projector.get_weights()[0] - initial).max() > 0.01
    assert len(student.weights) == weights_before
    student.save(tmp_path / "student.keras")
    assert len(keras.saving.load_model(tmp_path / "student.keras").weights) == weights_before


def test_a_projector_is_saved_with_the_distiller(teacher, digits, tmp_path):
    loss = projected()
    distiller = kd.Distiller(teacher, network(16), [kd.losses.SoftTargets(), loss])
    distiller.compile("adam", loss=linear.from_logits())
    distiller.train_on_batch(*(part[:64] for part in digits[0]))
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    again = loaded.distillation_losses[1]
    np.testing.assert_array_equal(again.projector.get_weights()[0], loss.projector.get_weights()[0])
    assert (again.weight, again.teacher_layer) == (0.5, "hidden")
    logs = [
        model.evaluate(*digits[1], with_teacher=True, return_dict=True, verbose=0)
        for model in (distiller, loaded)
    ]
    assert logs[1] == pytest.approx(logs[0])


def test_a_projector_counts_with_its_own_regularizer():
    loss = Projected(7, name="hint")
    loss.projector.kernel_regularizer = keras.regularizers.L2(1.0)
    student = linear.linear(2)
    distiller = kd.Distiller(linear.linear(1, classes=7), student, loss, alpha=0.0, beta=1.0)
    distiller.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    kernel = loss.projector.get_weights()[0]
    logs = distiller.train_on_batch(linear.data()[0], return_dict=True)
    np.testing.assert_allclose(logs["loss"], logs["hint"] + np.sum(kernel**2), rtol=1e-5)


@pytest.mark.parametrize("mode", linear.MODES)
def test_a_projector_may_penalize_its_outputs(mode):
    penalty = layers.Dense(7, activity_regularizer=keras.regularizers.L2(1.0))
    student = linear.linear(2)
    loss = kd.losses.FeatureHint(
        "dense", "dense", projector=keras.Sequential([penalty]), name="hint"
    )
    distiller = linear.compiled(linear.linear(1, classes=7), student, loss, alpha=0.0, mode=mode)
    x = linear.data()[0]
    squares = loss.projector.predict(student.predict(x, verbose=0), verbose=0) ** 2
    logs = distiller.train_on_batch(x, return_dict=True)
    np.testing.assert_allclose(
        logs["loss"], distiller.beta * logs["hint"] + np.sum(squares) / len(x), rtol=1e-4
    )


@pytest.mark.parametrize("run_eagerly", [True, False], ids=["eager", "graph"])
def test_a_projector_rests_while_beta_is_zero(run_eagerly):
    """Without a warning that its gradients do not exist."""
    x, y = np.ones((8, 4), "float32"), np.zeros(8, "int32")
    teacher, student = (keras.Sequential([keras.Input((4,)), layers.Dense(3)]) for _ in range(2))
    loss = Projected(3)
    distiller = kd.Distiller(teacher, student, loss, alpha=1.0, beta=0.0)
    hard = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile("sgd", loss=hard, run_eagerly=run_eagerly)
    before = loss.projector.get_weights()
    distiller.fit(x, y, verbose=0)
    for old, new in zip(before, loss.projector.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)

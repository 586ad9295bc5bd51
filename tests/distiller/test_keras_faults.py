"""The faults of `keras.distillation` are absent here.

Each test also shows, on the Keras release where it was found, that `keras.distillation` has the
fault: so the test would notice it. Its thirteenth fault, training on several workers, is in
`tests/distribution`.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from tests import reference
from tests.distiller import counters, heads, linear
from tests.distiller.linear import assert_same_values

# A later release may have mended them.
PEER = keras.distillation.Distiller if keras.__version__.startswith("3.15.") else None
LogitsDistillation = keras.distillation.LogitsDistillation
FeatureDistillation = keras.distillation.FeatureDistillation


def compiled(distiller_class, teacher, student, losses, weight=0.5, **compile_args):
    distiller = distiller_class(teacher, student, losses, None, weight)
    options = {"loss": linear.from_logits(), "run_eagerly": True, **compile_args}
    distiller.compile(keras.optimizers.SGD(0.1), **options)
    return distiller


def value_and_gradient(loss, student, teacher):
    """Of a loss object of `keras.distillation`, here (a wrapped one) or as Keras computes it."""
    student = tf.Variable(np.float32(student))
    with tf.GradientTape() as tape:
        value = loss(tf.constant(np.float32(teacher)), student)
    return value.numpy(), tape.gradient(value, student).numpy()


def wrapped(loss):
    """The loss that the distiller makes of a loss object of `keras.distillation`."""
    losses = kd.Distiller(*linear.pair(), loss).distillation_losses
    return lambda teacher, student: tf.reduce_mean(losses[0](teacher, student))


def test_1_the_default_loss_is_right_for_logits():
    student = linear.logits_of(linear.linear(2), linear.data()[0])
    teacher = linear.logits_of(linear.linear(1), linear.data()[0])
    truth = reference.soft_target_loss(student, teacher, 3.0).mean()
    slope = reference.soft_target_gradient(student, teacher, 3.0) / len(student)
    value, gradient = value_and_gradient(wrapped(LogitsDistillation()), student, teacher)
    np.testing.assert_allclose(value, truth, rtol=1e-5)
    np.testing.assert_allclose(gradient, slope, atol=1e-6)
    if PEER:
        wrong, flat = value_and_gradient(LogitsDistillation().compute_loss, student, teacher)
        assert abs(wrong - truth) > 0.3 * truth
        outside = (student < 0) | (student > 3.0)
        assert (flat[outside] == 0).all()


def test_2_small_probabilities_are_not_clipped():
    student, teacher = np.array([[0.0, 30.0]]), np.array([[30.0, 0.0]])
    loss = LogitsDistillation(1.0, keras.losses.KLDivergence())
    value, gradient = value_and_gradient(wrapped(loss), student, teacher)
    np.testing.assert_allclose(value, 30.0, rtol=1e-5)
    np.testing.assert_allclose(gradient, [[-1.0, 1.0]], atol=1e-6)
    if PEER:
        wrong, flat = value_and_gradient(loss.compute_loss, student, teacher)
        np.testing.assert_allclose(wrong, 16.1, atol=0.1)
        np.testing.assert_allclose(flat, [[0.0, 0.0]], atol=1e-6)


def test_3_sample_weight_and_class_weight_are_honored():
    x, y = linear.data()
    zero = {"sample_weight": np.zeros(len(x))}, {"class_weight": dict.fromkeys(range(4), 0.0)}
    for weights in zero:
        changes = {}
        for distiller_class in filter(None, (kd.Distiller, PEER)):
            teacher, student = linear.pair()
            before = student.get_weights()[0]
            distiller = compiled(distiller_class, teacher, student, LogitsDistillation())
            distiller.train_on_batch(x, y, **weights)
            changes[distiller_class] = np.abs(student.get_weights()[0] - before).max()
        assert changes[kd.Distiller] == 0.0
        assert changes.get(PEER, 1.0) > 0.0


def test_4_the_students_regularizers_count():
    x, y = linear.data()
    losses = {}
    for distiller_class in filter(None, (kd.Distiller, PEER)):
        for regularizer in (None, "l2"):
            student = linear.linear(2, kernel_regularizer=regularizer)
            distiller = compiled(distiller_class, linear.linear(1), student, LogitsDistillation())
            logs = distiller.train_on_batch(x, y, return_dict=True)
            losses[distiller_class, regularizer] = logs["loss"]
    penalty = 0.01 * np.sum(linear.linear(2).get_weights()[0] ** 2)
    added = losses[kd.Distiller, "l2"] - losses[kd.Distiller, None]
    np.testing.assert_allclose(added, penalty, rtol=1e-4)
    if PEER:
        assert losses[PEER, "l2"] == losses[PEER, None]


def test_5_models_with_several_outputs_train():
    x, y = linear.data()[0], list(heads.labels().values())

    def train(distiller_class):
        teacher, student = heads.model(1, "list"), heads.model(2, "list")
        loss = LogitsDistillation(loss=["kl_divergence", "kl_divergence"])
        options = {"loss": [linear.from_logits()] * 2, "metrics": [["accuracy"], ["accuracy"]]}
        distiller = compiled(distiller_class, teacher, student, loss, **options)
        return distiller.train_on_batch(x, y, return_dict=True)

    assert np.isfinite(train(kd.Distiller)["loss"])
    if PEER:
        with pytest.raises(Exception, match=".") as error:
            train(PEER)
        assert error.type in (ValueError, TypeError, AttributeError)


@pytest.mark.filterwarnings("ignore:.*structure of `inputs`")  # the peer's extractor
@pytest.mark.parametrize("distiller_class", [kd.Distiller] + [PEER] * bool(PEER))
def test_6_hints_cost_no_second_pass_and_evaluate_changes_nothing(distiller_class):
    x, y = linear.data()
    teacher, student = counters.model(), counters.model()
    distiller = compiled(distiller_class, teacher, student, FeatureDistillation("mse", "n", "n"))
    distiller.train_on_batch(x, y)
    counters.reset(student)
    distiller.train_on_batch(x, y)
    in_training = counters.calls(student)
    statistics = student.get_layer("n").moving_mean.numpy()
    distiller.evaluate(x, y, verbose=0)
    moved = (student.get_layer("n").moving_mean.numpy() != statistics).any()
    if distiller_class is kd.Distiller:
        assert (in_training, moved) == (1, False)
    else:
        assert (in_training, moved) == (2, True)


class Projected(kd.losses.DistillationLoss):
    """The student's features are projected to the teacher's width."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.projector = keras.layers.Dense(width)

    def call(self, teacher_outputs, student_outputs):
        return keras.ops.mean((teacher_outputs - self.projector(student_outputs)) ** 2, axis=-1)


def test_7_widths_may_differ_because_losses_own_weights():
    x, y = linear.data()
    teacher, student = linear.linear(1, classes=6), linear.linear(2)
    loss = Projected(6)
    distiller = compiled(kd.Distiller, teacher, student, loss)
    before = loss.projector.get_weights()[0]
    distiller.train_on_batch(x, y)
    assert (loss.projector.get_weights()[0] != before).any()
    assert len(student.weights) == 2
    if PEER:
        with pytest.raises(ValueError, match="incompatible"):
            compiled(PEER, teacher, student, FeatureDistillation())


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.backbone = keras.Sequential([keras.layers.Dense(6, name="block")], name="backbone")
        self.head = keras.layers.Dense(linear.CLASSES)

    def call(self, inputs):
        return self.head(self.backbone(inputs))


def nested():
    inputs = keras.Input((linear.FEATURES,))
    backbone = keras.Sequential(
        [keras.Input((linear.FEATURES,)), keras.layers.Dense(6, name="block")], name="backbone"
    )
    return keras.Model(inputs, keras.layers.Dense(linear.CLASSES)(backbone(inputs)))


class Gap(kd.losses.DistillationLoss):
    def call(self, teacher_outputs, student_outputs):
        return keras.ops.mean((teacher_outputs - student_outputs) ** 2, axis=-1)


@pytest.mark.parametrize("make", [nested, Subclassed])
def test_8_layers_of_nested_and_subclassed_models_are_tapped(make):
    x, y = linear.data()
    teacher, student = make(), make()
    outputs = []
    for model in (teacher, student):
        model(x)
        outputs.append(np.float64(model.get_layer("backbone")(x)))
    loss = Gap(teacher_layer="backbone/block", student_layer="block", name="gap")
    logs = compiled(kd.Distiller, teacher, student, loss).train_on_batch(x, y, return_dict=True)
    assert_same_values(logs, {"gap": np.mean(np.subtract(*outputs) ** 2)})
    if PEER:
        with pytest.raises(ValueError, match="No such layer|subclassed"):
            compiled(PEER, teacher, student, FeatureDistillation("mse", "block", "block"))


def test_8_so_are_they_by_a_loss_object_of_keras_distillation():
    x, y = linear.data()
    loss = FeatureDistillation("mse", "block", "block")
    distiller = compiled(kd.Distiller, nested(), nested(), loss)
    assert np.isfinite(distiller.train_on_batch(x, y, return_dict=True)["feature_distillation"])


def test_9_a_float32_teacher_and_a_mixed_float16_student():
    teacher, student = linear.linear(1), linear.linear(2, dtype="mixed_float16")
    logs = compiled(kd.Distiller, teacher, student, LogitsDistillation()).train_on_batch(
        *linear.data(), return_dict=True
    )
    assert np.isfinite(logs["loss"])
    if PEER:
        with pytest.raises(ValueError, match="dtypes must match"):
            compiled(PEER, teacher, student, LogitsDistillation())


def test_10_weights_change_without_compiling_again():
    x, y = linear.data()
    # Learning rate 0 and a loss that is only the hard one, then only the soft one.
    for distiller_class in filter(None, (kd.Distiller, PEER)):
        distiller = compiled(distiller_class, *linear.pair(), FeatureDistillation(), 1.0)
        distiller.compile(keras.optimizers.SGD(0.0), loss=linear.from_logits())
        first = distiller.train_on_batch(x, y, return_dict=True)["loss"]
        if distiller_class is kd.Distiller:
            distiller.alpha, distiller.beta = 0.0, 1.0
        else:
            distiller.student_loss_weight = 0.0
        distiller.reset_metrics()
        second = distiller.train_on_batch(x, y, return_dict=True)["loss"]
        assert (first != second) == (distiller_class is kd.Distiller)


def test_11_a_loaded_distiller_trains_on(tmp_path):
    x, y = linear.data()

    def saved(distiller_class):
        distiller = compiled(distiller_class, *linear.pair(), LogitsDistillation())
        distiller.train_on_batch(x, y)
        distiller.save(tmp_path / "distiller.keras")
        return tmp_path / "distiller.keras"

    keras.saving.load_model(saved(kd.Distiller)).fit(x, y, verbose=0)
    if PEER:
        with pytest.warns(UserWarning, match="was not called as part of model loading"):
            loaded = keras.saving.load_model(saved(PEER))
        with pytest.raises((AttributeError, ValueError), match="_student_loss|compile"):
            loaded.fit(x, y, verbose=0)


def test_12_labels_are_not_needed_where_alpha_is_zero():
    x, _ = linear.data()
    distiller = compiled(kd.Distiller, *linear.pair(), LogitsDistillation(), 0.0, loss=None)
    assert np.isfinite(distiller.train_on_batch(x, return_dict=True)["loss"])
    if PEER:
        with pytest.raises(ValueError, match="cannot be `None`"):
            compiled(PEER, *linear.pair(), LogitsDistillation(), 0.0, loss=None)


def test_12_the_history_weights_batches_by_their_rows():
    x, y = linear.data()
    means = {}
    for distiller_class in filter(None, (kd.Distiller, PEER)):
        distiller = compiled(distiller_class, *linear.pair(), FeatureDistillation())
        distiller.optimizer.learning_rate = 0.0
        key = "hard_loss" if distiller_class is kd.Distiller else "student_loss"
        history = distiller.fit(x, y, batch_size=20, shuffle=False, verbose=0).history
        means[distiller_class] = history[key][0]
    rows = reference.hard_loss(linear.logits_of(linear.linear(2), x), y)
    np.testing.assert_allclose(means[kd.Distiller], rows.mean(), rtol=1e-5)
    if PEER:
        np.testing.assert_allclose(
            means[PEER], (rows[:20].mean() + rows[20:].mean()) / 2, rtol=1e-5
        )


@pytest.mark.parametrize("distiller_class", [kd.Distiller] + [PEER] * bool(PEER))
def test_12_evaluate_runs_no_teacher_and_trainable_stays(distiller_class):
    teacher = counters.model()
    distiller = compiled(distiller_class, teacher, counters.model(), LogitsDistillation())
    counters.reset(teacher)
    distiller.evaluate(*linear.data(), verbose=0)
    mine = distiller_class is kd.Distiller
    assert (counters.calls(teacher) == 0) == mine
    assert teacher.trainable == mine

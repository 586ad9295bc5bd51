"""What a user's class overrides is called as Keras calls it, or refused before training."""

import keras
import numpy as np
import pytest

import keras_kd as kd
from tests.distiller import linear
from tests.distiller.linear import MODES, assert_same_values


class Plus(kd.Distiller):
    """Adds ten to the loss."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return super().compute_loss(x, y, y_pred, sample_weight, training) + 10.0


class Old(kd.Distiller):
    """Without `training`, which Keras added later; penalizes the student's outputs."""

    def compute_loss(self, x, y, y_pred, sample_weight):
        loss = super().compute_loss(x, y, y_pred, sample_weight)
        return loss + 0.5 * keras.ops.mean(keras.ops.square(y_pred))


class Own(kd.Distiller):
    """Computes all of the loss."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return keras.ops.mean(keras.ops.square(y_pred))


def made(cls, mode="eager", **options):
    teacher, student = linear.pair()
    distiller = cls(teacher, student, **options)
    distiller.compile(keras.optimizers.SGD(0.1), linear.from_logits(), **MODES[mode])
    return distiller


@pytest.mark.parametrize("mode", MODES)
def test_compute_loss_of_a_subclass_is_called_in_training_and_evaluation(mode):
    x, y = linear.data()
    usual, plus = made(kd.Distiller, mode), made(Plus, mode)
    before = usual.evaluate(x, y, verbose=0), plus.evaluate(x, y, verbose=0)
    assert before[1] - before[0] == pytest.approx(10.0, abs=1e-4)
    logs = [each.train_on_batch(x, y, return_dict=True) for each in (usual, plus)]
    assert logs[1]["loss"] - logs[0]["loss"] == pytest.approx(10.0, abs=1e-4)
    assert_same_values(logs[1], logs[0], ["hard_loss", "soft_targets"])
    for one, other in zip(plus.student.get_weights(), usual.student.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)


def test_its_gradient_moves_the_student():
    x, y = linear.data()
    old, loop = made(Old), linear.Loop(*linear.pair())
    _, gradients = loop.gradients(x, y)
    outputs = linear.logits_of(old.student, x)
    slope = outputs / outputs.size
    gradients = [gradients[0] + np.float64(x).T @ slope, gradients[1] + slope.sum(0)]
    loop.apply(gradients)
    old.train_on_batch(x, y)
    linear.assert_same_weights(old.student, loop)


def test_a_subclass_that_computes_all_of_it_reports_no_other_loss():
    x, y = linear.data()
    own = made(Own, "graph")
    outputs = linear.logits_of(own.student, x)
    history = own.fit(x, y, batch_size=len(x), verbose=0).history
    assert history["loss"][0] == pytest.approx(np.mean(outputs**2), rel=1e-5)
    assert {"hard_loss", "soft_targets"}.isdisjoint(history)


def test_other_outputs_and_weights_that_a_subclass_passes_on_are_used():
    class Doubled(kd.Distiller):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return super().compute_loss(x, y, 2.0 * y_pred, sample_weight, training)

    x, y = linear.data()
    doubled, twice = made(Doubled), made(kd.Distiller)
    twice.student.set_weights([2.0 * weight for weight in twice.student.get_weights()])
    logs = [each.train_on_batch(x, y, return_dict=True) for each in (doubled, twice)]
    assert_same_values(*logs)


def test_compute_loss_outside_of_a_step():
    x, y = linear.data()
    distiller = made(kd.Distiller)
    expected, _ = linear.Loop(*linear.pair()).gradients(x, y)
    assert float(distiller.compute_loss(x, y)) == pytest.approx(expected["loss"], rel=1e-5)
    evaluated = distiller.compute_loss(x, y, distiller.student(x), training=False)
    assert float(evaluated) == pytest.approx(expected["hard_loss"], rel=1e-5)
    with pytest.raises(ValueError, match="pass `x`"):
        distiller.compute_loss(y=y)


class Counting(kd.Distiller):
    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        return {**super().compute_metrics(x, y, y_pred, sample_weight), "mine": 7.0}


@pytest.mark.parametrize("labeled", [True, False])
def test_compute_metrics_of_a_subclass(labeled):
    x, y = linear.data()
    distiller = made(Counting, "graph", alpha=0.5 if labeled else 0.0)
    history = distiller.fit(x, y if labeled else None, verbose=0).history
    assert history["mine"] == [7.0]


class Regularized(keras.Sequential):
    """A student whose own loss doubles the compiled one, by Keras' own `super()`."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return 2.0 * super().compute_loss(x, y, y_pred, sample_weight, training)


def student_of(cls, **options):
    layer = keras.layers.Dense(linear.CLASSES, kernel_regularizer="l2", **options)
    student = cls([keras.Input((linear.FEATURES,)), layer])
    student.set_weights(linear.linear(2).get_weights())
    return student


@pytest.mark.parametrize("mode", MODES)
def test_compute_loss_of_the_student_is_the_hard_loss(mode):
    x, y = linear.data()
    student = student_of(Regularized)
    expected, _ = linear.Loop(linear.pair()[0], linear.linear(2)).gradients(x, y)
    penalty = 0.01 * np.sum(np.float64(student.get_weights()[0]) ** 2)
    hard = 2.0 * (expected["hard_loss"] + penalty)
    distiller = kd.Distiller(linear.pair()[0], student)
    distiller.compile(keras.optimizers.SGD(0.1), linear.from_logits(), **MODES[mode])
    logs = distiller.train_on_batch(x, y, return_dict=True)
    soft = expected["soft_targets"]
    assert_same_values(logs, {"hard_loss": hard, "loss": 0.5 * hard + 0.5 * soft})


def test_with_alpha_1_it_trains_as_by_its_own_fit():
    x, y = linear.data()
    alone, student = student_of(Regularized), student_of(Regularized)
    alone.compile(keras.optimizers.SGD(0.1), linear.from_logits())
    distiller = kd.Distiller(linear.pair()[0], student, alpha=1.0, beta=0.0)
    distiller.compile(keras.optimizers.SGD(0.1), linear.from_logits())
    histories = [
        each.fit(x, y, batch_size=10, shuffle=False, epochs=2, verbose=0).history["loss"]
        for each in (alone, distiller)
    ]
    np.testing.assert_allclose(*histories, rtol=1e-5)
    for one, other in zip(alone.get_weights(), student.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


class Reconstructing(keras.Sequential):
    """Needs no labels."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return keras.ops.mean(keras.ops.square(y_pred - x[:, : linear.CLASSES]))


def test_a_student_whose_loss_needs_no_labels():
    x, _ = linear.data()
    student = student_of(Reconstructing)
    hard = np.mean((linear.logits_of(student, x) - x[:, : linear.CLASSES]) ** 2)
    distiller = kd.Distiller(linear.pair()[0], student)
    distiller.compile(keras.optimizers.SGD(0.0))
    logs = distiller.fit(x, batch_size=len(x), verbose=0).history
    assert logs["hard_loss"][0] == pytest.approx(hard, rel=1e-5)
    assert distiller.evaluate(x, verbose=0) == pytest.approx(hard, rel=1e-5)


class Adding(keras.layers.Layer):
    def call(self, inputs):
        self.add_loss(0.25 * keras.ops.mean(keras.ops.square(inputs)))
        return inputs


@pytest.mark.parametrize("mode", MODES)
def test_add_loss_of_the_student_counts_once(mode):
    x, y = linear.data()
    student = keras.Sequential([keras.Input((linear.FEATURES,)), Adding()])
    student.add(keras.layers.Dense(linear.CLASSES))
    student.set_weights(linear.linear(2).get_weights())
    expected, _ = linear.Loop(linear.pair()[0], linear.linear(2)).gradients(x, y)
    distiller = kd.Distiller(linear.pair()[0], student)
    distiller.compile(keras.optimizers.SGD(0.1), linear.from_logits(), **MODES[mode])
    logs = distiller.train_on_batch(x, y, return_dict=True)
    assert_same_values(logs, {"loss": expected["loss"] + 0.25 * np.mean(x**2)})


def overriding(name):
    def hook(self, *args, **kwargs):
        return getattr(super(cls, self), name)(*args, **kwargs)

    cls = type("Student", (keras.Sequential,), {name: hook})
    return student_of(cls)


class Tracking(keras.Sequential):
    """Has a metric that its loss updates."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.size = keras.metrics.Mean(name="size")

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        self.size.update_state(keras.ops.sum(keras.ops.square(y_pred)))
        return super().compute_loss(x, y, y_pred, sample_weight, training)


def test_metrics_that_the_students_loss_updates_are_shown_and_reset():
    x, y = linear.data()
    student = student_of(Tracking)
    size = np.sum(linear.logits_of(student, x) ** 2)
    distiller = kd.Distiller(linear.pair()[0], student)
    distiller.compile(keras.optimizers.SGD(0.0), linear.from_logits())
    history = distiller.fit(x, y, batch_size=len(x), epochs=2, verbose=0).history
    np.testing.assert_allclose(history["size"], [size, size], rtol=1e-5)


@pytest.mark.parametrize(
    "name", ["train_step", "test_step", "compute_metrics", "make_train_function"]
)
def test_hooks_of_the_student_that_are_not_called_are_refused(name):
    with pytest.raises(ValueError, match=f"Student overrides `{name}`, which is never.*subclass"):
        kd.Distiller(linear.pair()[0], overriding(name))


@pytest.mark.parametrize("name", ["train_step", "compute_loss"])
def test_peers_with_hooks_are_refused(name):
    with pytest.raises(ValueError, match=f"Student overrides `{name}`, which is never"):
        kd.MutualDistiller([linear.linear(1), overriding(name)])


def test_the_remedy_for_a_train_step():
    """What the refusal advises: the step in a subclass of the distiller."""

    class Noisy(kd.Distiller):
        def train_step(self, data):
            x, y, *weights = data
            return super().train_step((x + 0.1, y, *weights))

    x, y = linear.data()
    logs = made(Noisy).train_on_batch(x, y, return_dict=True)
    expected = made(kd.Distiller).train_on_batch(x + np.float32(0.1), y, return_dict=True)
    assert_same_values(logs, expected)


def test_predict_step_of_the_student_is_called():
    class Student(keras.Sequential):
        def predict_step(self, data):
            return super().predict_step(data) + 1.0

    student = student_of(Student)
    x, _ = linear.data()
    distiller = kd.Distiller(linear.pair()[0], student)
    np.testing.assert_allclose(
        distiller.predict(x, verbose=0), linear.logits_of(student, x) + 1.0, rtol=1e-5, atol=1e-5
    )

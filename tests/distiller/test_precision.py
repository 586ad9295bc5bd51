"""Half precision, loss scaling, accumulated and clipped gradients."""

import keras
import numpy as np
import pytest

import keras_kd as kd
from tests import matrix, reference
from tests.distiller import linear
from tests.distiller.linear import Loop, assert_same_values, assert_same_weights, compiled

# Of one float16 or bfloat16 product and of the logits' rounding.
TOLERANCE = {"mixed_float16": 4e-3, "mixed_bfloat16": 3e-2, "float32": 1e-5}
PAIRS = [
    ("mixed_float16", "mixed_float16"),
    ("float32", "mixed_float16"),
    ("mixed_float16", "float32"),
    ("mixed_bfloat16", "mixed_bfloat16"),
    ("float32", "mixed_bfloat16"),
]


def pair(teacher_policy, student_policy):
    return linear.linear(1, dtype=teacher_policy), linear.linear(2, dtype=student_policy)


@pytest.mark.parametrize("hard_loss", [linear.from_logits, lambda: [linear.from_logits()]])
@pytest.mark.parametrize(("teacher_policy", "student_policy"), PAIRS)
def test_teacher_and_student_of_any_policies(teacher_policy, student_policy, hard_loss):
    teacher, student = pair(teacher_policy, student_policy)
    x, y = linear.data()
    loop = Loop(teacher, student)
    options = {"loss": hard_loss()}
    distiller = compiled(teacher, student, compile_args=options)
    tolerance = max(TOLERANCE[teacher_policy], TOLERANCE[student_policy])
    for _ in range(3):
        distiller.reset_metrics()
        logs = distiller.train_on_batch(x, y, return_dict=True)
        assert_same_values(logs, loop.step(x, y), tolerance=tolerance)
    assert_same_weights(student, loop, tolerance)
    assert student.weights[0].dtype == "float32"


@pytest.mark.parametrize("mode", matrix.modes("graph", "xla"))
def test_float16_in_compiled_steps(mode):
    teacher, student = pair("mixed_float16", "mixed_float16")
    x, y = linear.data()
    loop = Loop(teacher, student)
    distiller = compiled(teacher, student, mode=mode)
    history = distiller.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0).history
    assert_same_values(history, loop.fit(x, y, epochs=2), tolerance=4e-3)
    assert_same_weights(student, loop, 4e-3)


@pytest.mark.parametrize("policy_is_global", [True, False])
def test_the_loss_of_a_float16_student_is_scaled(policy_is_global):
    if policy_is_global:
        keras.config.set_dtype_policy("mixed_float16")
        teacher, student = linear.pair()
    else:
        teacher, student = pair("float32", "mixed_float16")
    distiller = compiled(teacher, student)
    assert isinstance(distiller.optimizer, keras.optimizers.LossScaleOptimizer)
    unscaled = compiled(*linear.pair(dtype="float32"), compile_args={"auto_scale_loss": False})
    assert not isinstance(unscaled.optimizer, keras.optimizers.LossScaleOptimizer)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_other_losses_are_not_scaled(policy):
    distiller = compiled(*pair("mixed_float16", policy))
    assert not isinstance(distiller.optimizer, keras.optimizers.LossScaleOptimizer)


@pytest.mark.parametrize("hard_loss", [linear.from_logits, lambda: [linear.from_logits()]])
def test_gradients_below_the_range_of_float16_arrive(hard_loss):
    # alpha = beta = 1e-7 over 64 rows: without scaling every gradient is zero in float16.
    teacher, student = pair("mixed_float16", "mixed_float16")
    x, y = linear.data(64)
    small = {"alpha": 1e-7, "beta": 1e-7}
    loop = Loop(teacher, student, learning_rate=1e6, **small)
    options = {"loss": hard_loss(), "learning_rate": 1e6, **small}
    loss = options.pop("loss")
    distiller = compiled(teacher, student, compile_args={"loss": loss}, **options)
    distiller.train_on_batch(x, y)
    loop.step(x, y)
    assert_same_weights(student, loop, 1e-2)


def test_a_step_whose_scaled_gradients_overflow_is_skipped_and_the_next_are_not():
    teacher, student = pair("mixed_float16", "mixed_float16")
    x, y = linear.data()
    optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.1), initial_scale=2.0**31
    )
    distiller = compiled(teacher, student, compile_args={"optimizer": optimizer})
    before = student.get_weights()
    distiller.train_on_batch(x, y)
    for actual, expected in zip(student.get_weights(), before, strict=True):
        np.testing.assert_array_equal(actual, expected)
    for _ in range(40):
        distiller.train_on_batch(x, y)
    assert np.abs(student.get_weights()[0] - before[0]).max() > 1e-2


def test_a_vocabulary_of_32000_in_float16():
    # Sums over 32000 classes and probabilities of 1e-5 exceed what float16 holds.
    models = [
        linear.linear(seed, classes=32000, features=2, dtype="mixed_float16") for seed in (1, 2)
    ]
    x, y = linear.data(8, classes=32000, features=2)
    logits = [np.float64(model.predict(x, verbose=0)) for model in reversed(models)]
    distiller = compiled(*models)
    logs = distiller.train_on_batch(x, y, return_dict=True)
    expected = {
        "soft_targets": reference.soft_target_loss(*logits, 4.0).mean(),
        "hard_loss": reference.hard_loss(logits[0], y).mean(),
    }
    assert_same_values(logs, expected, tolerance=1e-4)
    assert np.isfinite(models[1].get_weights()[0]).all()


class Hint(kd.losses.DistillationLoss):
    def call(self, teacher_outputs, student_outputs):
        return keras.ops.mean(keras.ops.square(teacher_outputs - student_outputs), axis=-1)


@pytest.mark.parametrize("make", [Hint, keras.distillation.FeatureDistillation])
def test_squares_of_float16_features_do_not_overflow(make):
    # A gap of 300 has a square of 90000, above float16's 65504.
    models = [
        keras.Sequential([keras.Input((1,)), keras.layers.Dense(2, dtype="mixed_float16")])
        for _ in range(2)
    ]
    models[0].set_weights([np.full((1, 2), 300.0), np.zeros(2)])
    models[1].set_weights([np.zeros((1, 2)), np.zeros(2)])
    distiller = kd.Distiller(*models, make(), alpha=0.0, beta=1.0)
    distiller.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    logs = distiller.train_on_batch(np.ones((3, 1), "float32"), return_dict=True)
    np.testing.assert_allclose(logs["loss"], 90000.0, rtol=1e-3)


@pytest.mark.parametrize("mode", linear.MODES)
def test_gradient_accumulation(mode):
    teacher, student = linear.pair()
    x, y = linear.data(32)
    loop = Loop(teacher, student)
    for start in (0, 16):
        parts = [loop.gradients(x[i : i + 8], y[i : i + 8])[1] for i in (start, start + 8)]
        loop.apply([np.mean(both, axis=0) for both in zip(*parts, strict=True)])
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    distiller = compiled(teacher, student, mode=mode, compile_args={"optimizer": optimizer})
    distiller.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    assert_same_weights(student, loop)


def norm(arrays):
    return np.sqrt(sum(np.sum(array**2) for array in arrays))


CLIPPING = {
    "clipnorm": lambda gradients: [g * min(1.0, 0.05 / norm([g])) for g in gradients],
    "global_clipnorm": lambda gradients: [g * min(1.0, 0.05 / norm(gradients)) for g in gradients],
    "clipvalue": lambda gradients: [np.clip(g, -0.05, 0.05) for g in gradients],
}


@pytest.mark.parametrize("kind", CLIPPING)
def test_gradient_clipping(kind):
    teacher, student = linear.pair()
    x, y = linear.data()
    loop = Loop(teacher, student)
    loop.apply(CLIPPING[kind](loop.gradients(x, y)[1]))
    optimizer = keras.optimizers.SGD(0.1, **{kind: 0.05})
    distiller = compiled(teacher, student, compile_args={"optimizer": optimizer})
    distiller.train_on_batch(x, y)
    assert_same_weights(student, loop)


@pytest.mark.parametrize("mode", linear.MODES)
@pytest.mark.parametrize("mutual", [False, True])
def test_keras_in_float64(mode, mutual):
    floatx = keras.config.floatx()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        models = [linear.linear(seed, kernel_regularizer="l2") for seed in (1, 2)]
        made = kd.MutualDistiller(models) if mutual else kd.Distiller(*models)
        made.compile("sgd", linear.from_logits(), metrics=["accuracy"], **linear.MODES[mode])
        x, y = linear.data()
        history = made.fit(x.astype("float64"), y, epochs=2, verbose=0).history
        assert history["loss"][1] < history["loss"][0]
        assert models[1].weights[0].dtype == "float64"
    finally:
        keras.config.set_floatx(floatx)

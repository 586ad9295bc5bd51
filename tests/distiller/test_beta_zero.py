"""While `beta` is 0 the student trains exactly as by its own `fit`."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_kd as kd
from tests.distiller import linear


def student():
    """Everything that depends on random numbers, on state, or adds to the loss."""
    return keras.Sequential(
        [
            keras.Input((linear.FEATURES,)),
            layers.Dense(8, activation="relu", kernel_regularizer="l2"),
            layers.BatchNormalization(),
            layers.Dropout(0.3),
            layers.Dense(linear.CLASSES, activity_regularizer=keras.regularizers.L1(1e-2)),
        ]
    )


def small_student():
    """As `student`, with less to compile."""
    return keras.Sequential(
        [
            keras.Input((linear.FEATURES,)),
            layers.BatchNormalization(),
            layers.Dense(linear.CLASSES, kernel_regularizer="l2"),
        ]
    )


def train(model, trainer, mode):
    """Weights, optimizer's variables and history of two epochs."""
    x, y = linear.data()
    options = {"loss": linear.from_logits(), "metrics": ["accuracy"], **linear.MODES[mode]}
    trainer.compile("adam", **options)
    history = trainer.fit(
        x, y, batch_size=8, epochs=2, sample_weight=linear.weights_of(), verbose=0
    ).history
    return {
        "weights": model.get_weights(),
        "optimizer": [variable.numpy() for variable in trainer.optimizer.variables],
        "loss": [np.asarray(history[key]) for key in ("loss", "accuracy")],
    }


def both(mode, make=student):
    keras.utils.set_random_seed(3)
    plain = make()
    expected = train(plain, plain, mode)
    keras.utils.set_random_seed(3)
    model = make()
    actual = train(model, kd.Distiller(linear.linear(1), model, alpha=1.0, beta=0.0), mode)
    return actual, expected


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_training_is_bit_identical_to_plain_fit(mode):
    actual, expected = both(mode)
    for part, values in expected.items():
        for i, value in enumerate(values):
            np.testing.assert_array_equal(actual[part][i], value, err_msg=f"{part}[{i}]")


def test_training_compiled_by_xla_equals_plain_fit_up_to_rounding():
    actual, expected = both("xla", small_student)
    for part, values in expected.items():
        for i, value in enumerate(values):
            np.testing.assert_allclose(
                actual[part][i], value, rtol=1e-4, atol=1e-5, err_msg=f"{part}[{i}]"
            )


@pytest.mark.parametrize("mode", linear.MODES)
def test_regularizers_count_whole_whatever_alpha_is(mode):
    model = linear.linear(2, kernel_regularizer=keras.regularizers.L2(0.05))
    distiller = linear.compiled(linear.linear(1), model, alpha=0.0, beta=0.0, mode=mode)
    kernel, bias = model.get_weights()
    logs = distiller.train_on_batch(*linear.data(), return_dict=True)
    np.testing.assert_allclose(logs["loss"], 0.05 * np.sum(kernel**2), rtol=1e-5)
    np.testing.assert_allclose(model.get_weights()[0], kernel * (1 - 0.1 * 0.1), atol=1e-6)
    np.testing.assert_allclose(model.get_weights()[1], bias, atol=1e-6)

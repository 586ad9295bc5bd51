"""Every kind of student after aware training: its file computes what was trained."""

import dataclasses
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import keras_kd as kd
from keras_kd.runtimes import TFLiteFile

pytestmark = pytest.mark.in_turn(4)

RNG = np.random.default_rng(0)
NUMBERS = RNG.normal(size=(64, 8)).astype("float32")
STEPS = RNG.normal(size=(64, 6, 8)).astype("float32")
IDS = RNG.integers(1, 20, (64, 6)).astype("int32")
IDS[:32, 4:] = 0
# Gray pictures in three channels: their argmax is chance.
GRAY = np.repeat(RNG.uniform(0, 1, (64, 8, 8, 1)), 3, -1).astype("float32")
CLASSES = RNG.integers(0, 3, 64)


def dense(units, activation=None):
    def make(width):
        return keras.Sequential(
            [
                keras.Input((8,)),
                layers.Dense(width, activation="relu"),
                layers.Dense(units, activation=activation),
            ]
        )

    return make


def image_to_image(width):
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(width, 3, padding="same", use_bias=False)(inputs)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    return keras.Model(inputs, inputs + layers.Conv2D(3, 3, padding="same")(x))


def causal(width):
    inputs = keras.Input((6, 8))
    x = layers.MultiHeadAttention(2, width // 2)(inputs, inputs, use_causal_mask=True)
    x = layers.LayerNormalization()(inputs + x)
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


def padded(width):
    ids = keras.Input((6,), dtype="int32")
    counts = keras.ops.not_equal(ids, 0)[:, None, :]
    x = layers.Embedding(20, 8)(ids)
    x = layers.MultiHeadAttention(2, width // 2)(x, x, attention_mask=counts)
    return keras.Model(ids, layers.Dense(3)(layers.Flatten()(x)))


def image(width):
    inputs = keras.Input((8, 8, 3))
    x = layers.Rescaling(1 / 255)(inputs)
    x = layers.Conv2D(width, 3, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


@dataclasses.dataclass
class Case:
    """A kind of student.

    Attributes:
        make: A function of a width.
        inputs: Rows.
        labels: What they are.
        hard: The loss of the labels.
        soft: What the teacher teaches by.
        options: Arguments of `to_tflite`.
    """

    make: Any
    inputs: Any
    labels: Any
    hard: Any
    soft: Any
    options: dict = dataclasses.field(default_factory=dict)


MSE = keras.losses.MeanSquaredError
UNSIGNED = {"input_dtype": "uint8", "output_dtype": "uint8"}
YES = NUMBERS[:, :1] > 0


def classes():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def logit():
    return keras.losses.BinaryCrossentropy(from_logits=True)


def probability():
    return keras.losses.BinaryCrossentropy()


def of_probabilities():
    return kd.losses.SigmoidKD(2.0, from_logits=False)


CASES = {
    "regression": Case(dense(3), NUMBERS, NUMBERS[:, :3], MSE, kd.losses.RegressionKD),
    "one_logit": Case(dense(1), NUMBERS, YES, logit, kd.losses.SigmoidKD),
    "one_sigmoid": Case(dense(1, "sigmoid"), NUMBERS, YES, probability, of_probabilities),
    "image_to_image": Case(image_to_image, GRAY, GRAY, MSE, kd.losses.RegressionKD),
    "embedding": Case(dense(8), NUMBERS, NUMBERS, MSE, kd.losses.RegressionKD),
    "causal": Case(causal, STEPS, CLASSES, classes, kd.losses.SoftTargets),
    "padded": Case(padded, IDS, CLASSES, classes, kd.losses.SoftTargets),
    "uint8": Case(
        image, np.rint(255 * GRAY), CLASSES, classes, kd.losses.SoftTargets, options=UNSIGNED
    ),
    "uint8_regression": Case(
        dense(2), NUMBERS, NUMBERS[:, :2], MSE, kd.losses.RegressionKD, options=UNSIGNED
    ),
}
ROWS = [(name, "int8") for name in CASES] + [
    (name, "int4") for name in ("regression", "one_sigmoid", "image_to_image", "causal")
]


def trained(case, scheme):
    keras.utils.set_random_seed(0)
    teacher, student = case.make(16), case.make(8)
    aware = kd.quantization_aware(student, scheme, case.inputs, observe_steps=3)
    distiller = kd.Distiller(teacher, aware, case.soft())
    distiller.compile(keras.optimizers.Adam(1e-3), case.hard(), jit_compile=False)
    before = [x.numpy() for x in student.trainable_variables]
    distiller.fit(case.inputs, case.labels, batch_size=16, epochs=1, verbose=0)
    for variable, values in zip(student.trainable_variables, before, strict=True):
        assert not np.array_equal(variable.numpy(), values), variable.path
    return aware


@pytest.mark.parametrize(("name", "scheme"), ROWS)
def test_a_file_computes_what_was_trained(name, scheme, tmp_path):
    case = CASES[name]
    aware = trained(case, scheme)
    done = kd.export.to_tflite(
        aware,
        tmp_path / "student.tflite",
        representative_data=case.inputs,
        min_agreement=0.0,
        **case.options,
    )
    assert done.notes == []  # which would list weights and ranges that are not in the file
    expected = keras.ops.convert_to_numpy(aware(case.inputs))
    file = TFLiteFile(done.path)
    found = file.run(case.inputs)[0]
    if scheme == "int4":
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
        return
    assert done.float_operators == []
    wanted = case.options.get("output_dtype", "int8")
    assert {x.dtype for x in (*file.inputs, *file.outputs)} <= {wanted, "int32"}
    apart = np.abs(found - expected) / file.outputs[0].scale
    # Where float32 falls between two integers the file may take the other one.
    assert np.mean(apart > 0.6) < 0.1
    assert apart.max() <= 2.1

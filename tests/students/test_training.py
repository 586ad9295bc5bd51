"""A student of its teacher's weights learns faster, and distills."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_kd as kd
from tests import extras
from tests.distiller import linear
from tests.students import networks


@pytest.fixture(scope="module")
def digits():
    """`(x, y), (x_test, y_test)`, images of 8 x 8 pixels between 0 and 1."""
    datasets = extras.require("sklearn.datasets")
    x, y = datasets.load_digits(return_X_y=True)
    x = (x.astype("float32") / 16.0).reshape(-1, 8, 8, 1)
    order = np.random.default_rng(0).permutation(len(y))
    train, test = order[:1400], order[1400:]
    return (x[train], y[train]), (x[test], y[test])


def network():
    convolutions = [
        layers.Conv2D(16, 3, padding="same", activation="relu", name=f"conv_{i}") for i in range(3)
    ]
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            *convolutions,
            layers.MaxPooling2D(name="pool"),
            layers.Flatten(name="flat"),
            layers.Dense(32, activation="relu", name="dense"),
            layers.Dense(10, name="head"),
        ]
    )


def compiled(model):
    optimizer = keras.optimizers.Adam(3e-3)
    model.compile(optimizer, loss=linear.from_logits(), metrics=["accuracy"], jit_compile=False)
    return model


@pytest.fixture(scope="module")
def teacher(digits):
    keras.utils.set_random_seed(0)
    model = compiled(network())
    model.fit(*digits[0], batch_size=64, epochs=6, verbose=0)
    assert model.evaluate(*digits[1], verbose=0)[1] > 0.94
    return model


def loss_after_few_steps(teacher, digits, copy, seed, **size):
    """Eagerly: to trace a step takes longer than eight of them."""
    keras.utils.set_random_seed(seed)
    student = kd.students.shrink(teacher, copy=copy, print_fn=None, **size)
    student.compile(keras.optimizers.Adam(3e-3), loss=linear.from_logits(), run_eagerly=True)
    student.fit(*(part[:256] for part in digits[0]), batch_size=32, verbose=0, shuffle=False)
    x, y = digits[1]
    return float(linear.from_logits()(y, student(x, training=False)))


@pytest.mark.parametrize(
    ("copies", "size"),
    [(("slice", "average"), {"width": 0.75}), (("slice",), {"depth": 0.5})],
    ids=["width", "depth"],
)
def test_teacher_weights_beat_random_initialization(teacher, digits, copies, size):
    new = min(loss_after_few_steps(teacher, digits, None, seed, **size) for seed in range(3))
    for copy in copies:
        assert loss_after_few_steps(teacher, digits, copy, 0, **size) < 0.7 * new


def test_shrunk_student_trains_with_hints_by_layer_name(teacher, digits):
    keras.utils.set_random_seed(0)
    student = kd.students.shrink(teacher, depth=0.5, width=0.75, print_fn=None)
    names = [layer.name for layer in student.layers]
    assert names == ["conv_0", "conv_1", "pool", "flat", "dense", "head"]
    pairs = kd.pair_layers(teacher, student, print_fn=None)
    assert ("dense", "dense") in pairs
    hints = [kd.losses.FeatureHint("dense", "dense", weight=0.1, name="hint")]
    distiller = kd.Distiller(teacher, student, [kd.losses.SoftTargets(4.0), *hints])
    history = compiled(distiller).fit(*digits[0], batch_size=64, epochs=6, verbose=0).history
    assert history["soft_targets"][-1] < 0.4 * history["soft_targets"][0]
    assert history["hint"][-1] < history["hint"][0]
    predicted = student.predict(digits[1][0], verbose=0).argmax(axis=-1)
    assert np.mean(predicted == digits[1][1]) > 0.9


def test_the_table_is_printed():
    lines, teacher = [], networks.mlp()
    student = kd.students.shrink(teacher, depth=0.5, width=0.5, print_fn=lines.append)
    text = "\n".join(lines)
    assert lines[0].split() == ["layer", "teacher_shape", "student_shape", "how"]
    assert lines[1].split() == ["hidden_0", "12x12,", "12", "12x6,", "6", "sliced"]
    assert lines[2].split() == ["hidden_1", "12x12,", "12", "removed"]
    assert f"parameters: {teacher.count_params()} -> {student.count_params()}" in text


@pytest.mark.parametrize(
    "make",
    [
        lambda **kwargs: keras.applications.MobileNetV2(alpha=0.35, **kwargs),
        lambda **kwargs: keras.applications.ResNet50(**kwargs),
    ],
    ids=["MobileNetV2", "ResNet50"],
)
@pytest.mark.slow
def test_a_network_of_keras_applications(make):
    teacher = make(weights=None, input_shape=(32, 32, 3), classes=7, classifier_activation=None)
    student = kd.students.shrink(teacher, depth=0.5, width=0.5, print_fn=None)
    assert student.count_params() < 0.25 * teacher.count_params()
    assert len(student.layers) < len(teacher.layers)
    assert student(np.zeros((2, 32, 32, 3), "float32")).shape == (2, 7)

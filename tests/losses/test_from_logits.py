"""Probabilities of both models, or of the teacher alone: the losses work on their logits."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from tests.distiller import linear
from tests.losses.checks import normal, softmax

OF_CLASSES = {
    "SoftTargets": lambda **k: kd.losses.SoftTargets(3.0, **k),
    "DIST": lambda **k: kd.losses.DIST(2.0, **k),
    "DecoupledKD": lambda **k: kd.losses.DecoupledKD(3.0, **k),
    "LogitStandardization": lambda **k: kd.losses.LogitStandardization(**k),
    "CurriculumTemperature": lambda **k: kd.losses.CurriculumTemperature(**k),
    "CorrectedTargets": lambda **k: kd.losses.CorrectedTargets(temperature=3.0, **k),
    "UniversalLogits": lambda **k: kd.losses.UniversalLogits(3.0, **k),
    "LearningWithoutForgetting": lambda **k: kd.losses.LearningWithoutForgetting(**k),
}
ROWS, CLASSES = 6, 5


def value(loss, teacher, student):
    labels = {"labels": np.arange(ROWS) % CLASSES} if loss.takes("labels") else {}
    return np.asarray(loss(tf.constant(teacher), tf.constant(student), **labels))


def pair():
    return normal(ROWS, CLASSES, seed=1), normal(ROWS, CLASSES, seed=2)


@pytest.mark.parametrize("name", OF_CLASSES)
def test_probabilities_give_the_loss_of_their_logits(name):
    """Logits less their log-sum-exp: none of these losses sees a row's offset."""
    make, (teacher, student) = OF_CLASSES[name], pair()
    expected = value(make(), teacher, student)
    of_both = np.float32(softmax(np.float64(teacher))), np.float32(softmax(np.float64(student)))
    np.testing.assert_allclose(
        value(make(from_logits=False), *of_both), expected, rtol=2e-4, atol=2e-6
    )
    alone = make(teacher_from_logits=False)
    np.testing.assert_allclose(value(alone, of_both[0], student), expected, rtol=2e-4, atol=2e-6)
    reverse = make(from_logits=False, teacher_from_logits=True)
    np.testing.assert_allclose(value(reverse, teacher, of_both[1]), expected, rtol=2e-4, atol=2e-6)


def test_the_mean_squared_error_is_of_the_logarithms():
    teacher, student = pair()
    probabilities = np.float32(softmax(np.float64(teacher)))
    loss = kd.losses.LogitsMSE(teacher_from_logits=False)
    expected = np.mean((np.log(np.float64(probabilities)) - student) ** 2, axis=-1)
    np.testing.assert_allclose(value(loss, probabilities, student), expected, rtol=1e-5)
    certain = np.eye(ROWS, CLASSES, dtype="float32")
    assert np.isfinite(value(loss, certain, student)).all()


def test_yes_or_no():
    teacher, student = pair()
    sigmoid = lambda z: np.float32(1 / (1 + np.exp(-np.float64(z))))  # noqa: E731
    expected = value(kd.losses.SigmoidKD(2.0), teacher, student)
    found = value(kd.losses.SigmoidKD(2.0, from_logits=False), sigmoid(teacher), sigmoid(student))
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-6)
    alone = kd.losses.SigmoidKD(2.0, teacher_from_logits=False)
    np.testing.assert_allclose(value(alone, sigmoid(teacher), student), expected, rtol=2e-4)
    assert np.isfinite(value(alone, np.float32([[0.0, 1.0]] * 3), student[:3, :2])).all()


def ends_in(activation, seed=1):
    return linear.linear(seed, activation=activation)


@pytest.mark.parametrize(
    ("loss", "teacher", "student", "message"),
    [
        (
            kd.losses.SoftTargets,
            "softmax",
            None,
            "teacher ends in softmax.*teacher_from_logits=False",
        ),
        (
            kd.losses.LogitsMSE,
            "softmax",
            None,
            "teacher ends in softmax.*teacher_from_logits=False",
        ),
        (kd.losses.DIST, None, "softmax", "student ends in softmax.*from_logits=False"),
        (
            kd.losses.SigmoidKD,
            "sigmoid",
            None,
            "teacher ends in sigmoid.*pass teacher_from_logits=Fal",
        ),
        (kd.losses.SigmoidKD, "softmax", None, "teacher ends in softmax, a distribution over"),
        (
            lambda: kd.losses.SoftTargets(from_logits=False),
            "softmax",
            None,
            "student ends in a linear layer.*from_logits=False. Pass from_logits=True",
        ),
        (
            lambda: kd.losses.SoftTargets(teacher_from_logits=False),
            None,
            None,
            "teacher ends in a linear layer.*Pass teacher_from_logits=True",
        ),
        (
            lambda: kd.losses.SigmoidKD(from_logits=False),
            "sigmoid",
            None,
            "student ends in a linear layer",
        ),
    ],
)
def test_what_a_model_is_known_to_end_in_is_checked(loss, teacher, student, message):
    with pytest.raises(ValueError, match=message):
        kd.Distiller(ends_in(teacher), ends_in(student, 2), loss())


def test_the_remedies_are_taken():
    kd.Distiller(
        ends_in("softmax"), ends_in(None), kd.losses.SoftTargets(teacher_from_logits=False)
    )
    kd.Distiller(ends_in("sigmoid"), ends_in(None), kd.losses.SigmoidKD(teacher_from_logits=False))
    kd.Distiller(ends_in("softmax"), ends_in("softmax"), kd.losses.DIST(from_logits=False))


def below_softmax(seed, end=keras.layers.Softmax):
    inputs = keras.Input((linear.FEATURES,))
    logits = keras.layers.Dense(linear.CLASSES, name="logits")(inputs)
    return keras.Model(inputs, end(name="end")(logits))


def test_a_layer_below_the_softmax_may_be_read():
    """The output, which the loss does not read, is not looked at; the layer is."""
    losses = kd.losses.SoftTargets(2.0, teacher_layer="logits")
    distiller = kd.Distiller(below_softmax(1), linear.linear(2), losses)
    distiller.compile("sgd", linear.from_logits())
    assert np.isfinite(distiller.fit(*linear.data(), verbose=0).history["loss"]).all()
    with pytest.raises(ValueError, match=r"teacher \(layer 'end'\) ends in softmax"):
        kd.Distiller(
            below_softmax(1), linear.linear(2), kd.losses.SoftTargets(2.0, teacher_layer="end")
        )


@pytest.mark.parametrize("name", ["from_logits", "teacher_from_logits"])
def test_only_true_and_false(name):
    with pytest.raises(
        ValueError, match=f"argument `{name}`.*True or False.*Received: {name}='yes'"
    ):
        kd.losses.SoftTargets(**{name: "yes"})


@pytest.mark.parametrize("name", [*OF_CLASSES, "SigmoidKD", "LogitsMSE"])
def test_they_are_saved(name):
    cls = getattr(kd.losses, name)
    made = cls.from_config(cls(from_logits=False, teacher_from_logits=True).get_config())
    assert (made.from_logits, made.teacher_from_logits) == (False, True)

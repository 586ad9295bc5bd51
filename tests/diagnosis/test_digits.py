"""Real teachers of the digits: a good one gets no warning, spoilt ones do."""

import keras
import numpy as np
import pytest

import keras_kd as kd
from tests import extras
from tests.diagnosis import made_up
from tests.distiller import linear


@pytest.fixture(scope="module")
def digits():
    datasets = extras.require("sklearn.datasets")
    x, y = datasets.load_digits(return_X_y=True)
    x, order = x.astype("float32") / 16.0, np.random.default_rng(0).permutation(len(y))
    return (x[order[:1200]], y[order[:1200]]), (x[order[1200:]], y[order[1200:]])


def network(width):
    return keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(width, activation="relu"),
            keras.layers.Dense(10),
        ]
    )


def trained(width, x, y, epochs, learning_rate=3e-3):
    keras.utils.set_random_seed(1)
    model = network(width)
    model.compile(
        keras.optimizers.Adam(learning_rate), loss=linear.from_logits(), jit_compile=False
    )
    model.fit(x, y, batch_size=64, epochs=epochs, verbose=0)
    return model


@pytest.fixture(scope="module")
def teacher(digits):
    return trained(64, *digits[0], epochs=15)


def diagnose(*args, **kwargs):
    return kd.diagnose(*args, print_fn=None, **kwargs)


def test_a_good_teacher_gets_no_warning(teacher, digits):
    diagnosis = diagnose(teacher, network(16), *digits)
    assert diagnosis.problems == []
    assert made_up.finding(diagnosis, "accuracy").values["accuracy"] > 0.95
    logits = teacher.predict(digits[0][0][:64], verbose=0)
    student = network(16).predict(digits[0][0][:64], verbose=0)
    assert kd.diagnosis.first_batch_findings(logits, student, digits[0][1][:64]) == []


def test_a_good_teacher_with_softmax(teacher, digits):
    softmax = keras.Sequential([teacher, keras.layers.Softmax()])
    diagnosis = diagnose(softmax, None, *digits)
    assert [finding.check for finding in diagnosis.problems] == ["teacher's outputs"]
    assert diagnose(softmax, None, *digits, from_logits=False).problems == []


def test_an_untrained_teacher(digits):
    keras.utils.set_random_seed(3)
    diagnosis = diagnose(network(64), None, *digits)
    found = made_up.finding(diagnosis, "accuracy")
    assert found.is_problem, found.message
    assert made_up.severities(diagnosis)["class order"] == "ok"


def test_a_teacher_trained_on_other_numbers_for_the_classes(digits):
    (x, y), validation = digits
    # The order in which the names of the digits are sorted.
    names = "zero one two three four five six seven eight nine"
    order = np.argsort(np.argsort(names.split(" ")))
    other = trained(64, x, order[y], epochs=8)
    diagnosis = diagnose(other, None, (x, y), validation)
    found = made_up.finding(diagnosis, "class order")
    assert found.severity == "error"
    assert found.values["order"] == {i: int(j) for i, j in enumerate(order) if i != j}


def test_a_teacher_that_never_saw_two_classes(digits):
    (x, y), validation = digits
    seen = ~np.isin(y, [3, 8])
    half = trained(64, x[seen], y[seen], epochs=8)
    found = made_up.finding(diagnose(half, None, (x, y), validation), "weak classes")
    assert found.severity == "warning"
    assert sorted(found.values["weak"]) == [3, 8]


def test_a_student_that_is_better_than_its_teacher(teacher, digits):
    x, y = digits[0]
    worse = trained(4, x[:200], y[:200], epochs=15)
    assert made_up.severities(diagnose(worse, teacher, (x, y)))["student"] == "warning"
    assert made_up.severities(diagnose(teacher, worse, (x, y)))["student"] == "ok"


def test_a_teacher_that_memorized_a_few_noisy_digits(digits):
    (x, y), validation = digits
    rng = np.random.default_rng(0)
    noisy = np.where(rng.random(150) < 0.3, rng.integers(10, size=150), y[:150])
    repeated = np.tile(x[:150], (60, 1)), np.tile(noisy, 60)
    memorizing = trained(256, *repeated, epochs=6, learning_rate=0.01)
    diagnosis = diagnose(memorizing, None, (x[:150], noisy), validation)
    severities = made_up.severities(diagnosis)
    assert severities["memorised"] == "warning"
    assert severities["calibration"] == "warning"
    assert diagnosis.temperature > 1.5
    assert "overconfident" in made_up.finding(diagnosis, "calibration").remedy

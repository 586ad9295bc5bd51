"""Calibration error, likelihood and fitted temperature against NumPy in float64, and sklearn."""

import numpy as np
import pytest

from keras_kd.diagnosis.tallies import CalibrationTally
from tests import extras, reference
from tests.diagnosis import made_up


def ece(logits, labels, weights=None, temperature=1.0):
    """Expected calibration error, bin by bin as it is defined."""
    p = np.exp(reference.log_softmax(logits, temperature))
    confidence, right = p.max(axis=-1), p.argmax(axis=-1) == labels
    weights = np.ones(len(labels)) if weights is None else weights
    total = 0.0
    for b in range(15):
        inside = (confidence > b / 15) & (confidence <= (b + 1) / 15)
        if weights[inside].sum():
            w = weights[inside]
            gap = np.average(right[inside], weights=w) - np.average(confidence[inside], weights=w)
            total += w.sum() / weights.sum() * abs(gap)
    return total


def nll(logits, labels, temperature=1.0, weights=None):
    rows = -reference.log_softmax(logits, temperature)[np.arange(len(labels)), labels]
    return np.average(rows, weights=weights)


def golden_section(logits, labels, weights=None):
    """The best temperature, by a search that shares nothing with the package."""
    low, high = np.log(0.1), np.log(40.0)
    ratio = (np.sqrt(5) - 1) / 2
    for _ in range(60):
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        values = [nll(logits, labels, np.exp(u), weights) for u in (a, b)]
        low, high = (low, b) if values[0] < values[1] else (a, high)
    return np.exp(0.5 * (low + high))


CASES = {
    "calibrated": made_up.calibrated(1500),
    "times 3": (3 * made_up.calibrated(1500)[0], made_up.calibrated(1500)[1]),
    "times 0.3": (0.3 * made_up.calibrated(1500)[0], made_up.calibrated(1500)[1]),
    "2 classes": made_up.calibrated(700, classes=2, seed=3),
    "40 classes": made_up.calibrated(1000, classes=40, seed=4),
    "few rows": made_up.calibrated(40, seed=5),
}


@pytest.mark.parametrize("weighted", [False, True], ids=["rows", "weights"])
@pytest.mark.parametrize("name", CASES)
def test_the_numbers(name, weighted):
    logits, labels = CASES[name]
    weights = np.random.default_rng(2).integers(0, 4, len(labels)) if weighted else None
    diagnosis = made_up.diagnose(logits, labels, weights=weights)
    values = made_up.finding(diagnosis, "calibration").values
    logits = np.float64(logits)
    counted = np.ones(len(labels)) if weights is None else np.float64(weights)
    assert values["ece"] == pytest.approx(ece(logits, labels, counted), rel=1e-6)
    assert values["nll"] == pytest.approx(nll(logits, labels, 1.0, counted), rel=1e-6)
    best = golden_section(logits, labels, counted)
    assert diagnosis.temperature == values["temperature"] == pytest.approx(best, rel=3e-5)
    assert values["nll_after"] == pytest.approx(nll(logits, labels, best, counted), rel=1e-5)
    # Interpolated between temperatures 12 % apart; of few rows many change their bin between them.
    close = 0.02 if len(labels) > 500 else 0.06
    assert values["ece_after"] == pytest.approx(ece(logits, labels, counted, best), abs=close)


def test_weights_that_are_whole_are_repeated_rows():
    logits, labels = made_up.calibrated(300)
    weights = np.random.default_rng(2).integers(0, 4, 300)
    repeated = made_up.diagnose(np.repeat(logits, weights, axis=0), np.repeat(labels, weights))
    weighted = made_up.diagnose(logits, labels, weights=weights)
    assert repeated.temperature == pytest.approx(weighted.temperature, rel=1e-9)
    for check in ("calibration", "accuracy", "soft targets"):
        sides = [dict(made_up.finding(each, check).values) for each in (repeated, weighted)]
        for each in sides:  # how sure one may be is not the same
            each.pop("ece_of_a_calibrated_model", None), each.pop("effective_rows", None)
        assert sides[0] == pytest.approx(sides[1], rel=1e-9)


@pytest.mark.parametrize("factor", [3.0, 1.0, 0.4])
def test_logits_that_are_too_large_by_a_factor(factor):
    """Standard deviation of the fitted temperature over 20 seeds: 2 % of it."""
    logits, labels = made_up.calibrated(4000)
    diagnosis = made_up.diagnose(factor * logits, labels)
    found = made_up.finding(diagnosis, "calibration")
    assert diagnosis.temperature == pytest.approx(factor, rel=0.08)
    assert found.values["ece_after"] < 0.03
    if factor == 1.0:
        assert found.severity == "ok"
    else:
        assert found.severity == "warning"
        kind = "overconfident" if factor > 1 else "underconfident"
        assert kind in found.remedy
        assert f"Divide its logits by {diagnosis.temperature:.2f}" in found.remedy


def test_the_likelihood_of_sklearn():
    metrics = extras.require("sklearn.metrics")
    logits, labels = CASES["times 3"]
    values = made_up.finding(made_up.diagnose(logits, labels), "calibration").values
    p = np.exp(reference.log_softmax(logits))
    assert values["nll"] == pytest.approx(metrics.log_loss(labels, p), rel=1e-5)
    assert values["accuracy"] == metrics.accuracy_score(labels, logits.argmax(-1))


def test_the_temperature_of_sklearn():
    calibration = extras.require("sklearn.calibration")
    base, frozen = extras.require("sklearn.base"), extras.require("sklearn.frozen")
    logits, labels = (each[:600] for each in CASES["times 3"])

    class Given(base.ClassifierMixin, base.BaseEstimator):
        """Its inputs are its logits."""

        classes_ = np.arange(5)

        def fit(self, x, y):
            return self

        def __sklearn_is_fitted__(self):
            return True

        def predict(self, x):
            return np.argmax(x, axis=-1)

        def decision_function(self, x):
            return np.float64(x)

    scaled = calibration.CalibratedClassifierCV(
        frozen.FrozenEstimator(Given()), method="temperature", cv=2, ensemble=False
    ).fit(logits, labels)
    ratio = np.log(scaled.predict_proba(logits))
    expected = np.ptp(np.float64(logits), axis=-1) / np.ptp(ratio, axis=-1)
    fitted = made_up.diagnose(logits, labels).temperature
    assert fitted == pytest.approx(expected.mean(), rel=1e-3)


def test_probabilities_are_calibrated_like_their_logits():
    logits, labels = CASES["times 3"]
    probabilities = np.exp(reference.log_softmax(logits)).astype("float32")
    given = made_up.diagnose(probabilities, labels, from_logits=False)
    assert given.temperature == pytest.approx(made_up.diagnose(logits, labels).temperature, 1e-4)
    assert made_up.severities(given)["teacher's outputs"] == "ok"


@pytest.mark.parametrize(
    ("name", "logits"),
    [
        ("always right", 50.0 * np.eye(5)[made_up.balanced(200, 5)]),
        ("always right, and no doubt in float64", 9999.0 * np.eye(5)[made_up.balanced(200, 5)]),
    ],
)
def test_no_temperature_where_the_data_cannot_tell_it(name, logits):
    diagnosis = made_up.diagnose(logits.astype("float32"), made_up.balanced(200, 5))
    assert diagnosis.temperature is None
    assert "No temperature" in made_up.finding(diagnosis, "calibration").message


def test_a_calibrated_teacher_is_not_accused_on_few_rows():
    # Its error is above 0.05 and 0.1 by chance: that of 30 rows is 0.13 on average.
    errors = []
    for seed in range(40):
        logits, labels = made_up.calibrated(30, scale=4.0, seed=seed)
        found = made_up.finding(made_up.diagnose(logits, labels), "calibration")
        errors.append(found.values["ece"])
        assert not found.is_problem, seed
    assert np.mean(errors) > 0.05


def test_validation_data_is_what_calibration_is_measured_on():
    logits, labels = made_up.calibrated(1000)
    own = 20 * np.eye(5, dtype="float32")[labels]
    alone = made_up.diagnose(own, labels)
    assert (
        "on the data itself (too optimistic"
        in made_up.finding(alone, "calibration").message.lower()
    )
    both = made_up.diagnose(own, labels, validation=(3 * logits, labels))
    assert both.temperature == pytest.approx(3.0, rel=0.15)
    assert "the validation data" in made_up.finding(both, "calibration").message


def test_sums_of_batches_are_those_of_the_whole():
    logits, labels = CASES["times 3"]
    weights = np.random.default_rng(1).uniform(0, 2, len(labels))
    shifted = np.float64(logits) - logits.max(-1, keepdims=True)
    whole, parts = CalibrationTally(4.0), CalibrationTally(4.0)
    whole.add(shifted, labels, weights)
    for start in range(0, len(labels), 97):
        rows = slice(start, start + 97)
        parts.add(shifted[rows], labels[rows], weights[rows])
    np.testing.assert_allclose(parts.fit(), whole.fit(), rtol=1e-9)
    np.testing.assert_allclose(parts.bins, whole.bins, rtol=1e-9)
    np.testing.assert_allclose(parts.entropy, whole.entropy, rtol=1e-9)

"""What compact bytes are wrong by: bounds that are derived, for logits of any kind, and measured.

Three errors: of a kept logit, of the log-sum-exp of the other classes at a temperature at which it
is kept, and between those temperatures.
"""

import numpy as np
import pytest

from keras_kd.ops import compact_logits
from tests.cache.compact_rows import (
    KINDS,
    TEMPERATURES,
    exact_rest,
    kept,
    logits_of,
    through_bytes,
)

INVERSE = (0.0, *(2.0 ** (n / 2) for n in (-8, -6, -5, -4, -3, -2, -1, 0, 1, 2)))
BETWEEN = (0.5, 0.55, 0.6, 0.8, 1.2, 1.7, 2.4, 3.3, 5.0, 7.0, 10.0, 11.3, 14.0)
# The largest errors between T = 0.5 and 16, rounded up; those of smooth logits are below 6e-3.
MEASURED = {"zipf": 0.01, "student": 0.02, "peaked": 0.05, "two heaps": 0.05}
MEASURED |= {"cliff of 5": 0.2, "cliff of 20": 0.2, "cliff of 100": 0.2}
ROUNDING = 2e-5  # of float32
# Of a sum in float32: beside 51 ones 65,000 numbers of 1e-8 are lost.
SUMMING = 2e-4
CLASSES = [300, 32000, 65537]
K = 50


def half_a_step(classes, k=K):
    return np.log(classes - k) / (2 * 8190)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classes", CLASSES)
def test_a_kept_logit_is_within_half_a_step(kind, classes):
    """`u = sqrt(v / s)` is rounded to 254 steps: `s |u'^2 - u^2| <= s (u + 1 / 1016) / 254`."""
    logits = logits_of(kind, 4, classes)
    found, at = through_bytes(logits, K), kept(logits, K)
    np.testing.assert_array_equal(found.indices, at)
    centered = logits - logits.max(-1, keepdims=True)
    exact = np.take_along_axis(centered, at, -1)
    scale = -np.sort(centered)[:, [-K - 1]]
    bound = np.sqrt(-exact * scale) / 254 + scale / 508**2 + ROUNDING
    assert (np.abs(found.logits - exact) <= bound).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classes", CLASSES)
def test_at_a_temperature_that_is_kept_the_rest_is_within_half_a_step(kind, classes):
    logits = logits_of(kind, 4, classes)
    found, at = through_bytes(logits, K), kept(logits, K)
    for inverse in INVERSE:
        temperature = 1 / inverse if inverse else np.inf
        error = np.abs(found.rest(temperature) - exact_rest(logits, at, temperature))
        assert error.max() <= half_a_step(classes) + SUMMING, temperature


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classes", CLASSES)
def test_between_them_convexity_bounds_the_error(kind, classes):
    """As a function of 1 / T the log-sum-exp is convex, and so is what is read.

    Both lie below the chord of the levels on either side, and above the chords beyond them,
    prolonged. That holds for any logits; smooth ones are far better.
    """
    logits = logits_of(kind, 4, classes)
    found, at = through_bytes(logits, K), kept(logits, K)
    levels = [exact_rest(logits, at, 1 / b if b else np.inf) for b in INVERSE]
    top = np.array(exact_rest(logits, at, 1e-3)) * 1e-3  # the largest logit of the rest
    levels = np.array([level - top * b for level, b in zip(levels, INVERSE, strict=True)])
    for temperature in BETWEEN:
        error = np.abs(found.rest(temperature) - exact_rest(logits, at, temperature))
        bound = distance_of_bounds(levels, 1 / temperature)
        assert (error <= bound + 2 * half_a_step(classes) + SUMMING).all(), temperature
        assert error.max() <= MEASURED.get(kind, 6e-3), temperature


def distance_of_bounds(levels, inverse):
    """Between the chord at `inverse` and the prolonged chords beside it."""
    i = min(np.searchsorted(INVERSE, inverse, side="right") - 1, len(INVERSE) - 2)

    def line(left):
        slope = (levels[left + 1] - levels[left]) / (INVERSE[left + 1] - INVERSE[left])
        return levels[left] + slope * (inverse - INVERSE[left])

    least = np.zeros_like(levels[0])  # the largest class of the rest alone
    for beside in (i - 1, i + 1):
        if 0 <= beside < len(INVERSE) - 1:
            least = np.maximum(least, line(beside))
    return line(i) - least


@pytest.mark.parametrize("gap", [10.0, 30.0, 90.0, 200.0, 500.0])
@pytest.mark.parametrize("high", [1, 40])
def test_no_logits_at_all_are_worse_than_the_worst_curve(gap, high):
    """That falls in a line to 0 and stays there: 0.0864 log(V - k) to T = 8, 0.172 to T = 16."""
    logits = np.full((1, 4000), -gap)
    logits[:, : 3 + high] = 0.0
    found, at = through_bytes(logits, 3), kept(logits, 3)
    for temperature in np.geomspace(0.5, 16, 101):
        error = np.abs(found.rest(temperature) - exact_rest(logits, at, temperature))
        ratio = 2**0.25 if temperature <= 8 else 2**0.5
        worst = (ratio - 1) / (ratio + 1) * np.log(4000 - 3)
        assert error <= worst + 2 * half_a_step(4000, 3) + SUMMING


@pytest.mark.parametrize(
    "kind", ["normal", "narrow", "flat", "laplace", "exponential", "uniform", "ties"]
)
def test_above_the_highest_temperature_smooth_logits_are_measured(kind):
    logits = logits_of(kind, 4, 32000)
    found, at = through_bytes(logits, K), kept(logits, K)
    for temperature in (18.0, 24.0, 40.0, 100.0, 1000.0):
        exact = exact_rest(logits, at, temperature)
        np.testing.assert_allclose(found.rest(temperature), exact, rtol=0, atol=0.02)


@pytest.mark.parametrize("masked", [0.5, 0.99])
def test_logits_of_minus_infinity_leave_the_bounds_as_they_are(masked):
    logits = logits_of("normal", 4, 3000)
    logits[np.random.default_rng(0).random(logits.shape) < masked] = -np.inf
    found, at = through_bytes(logits, 20), kept(logits, 20)
    for temperature in TEMPERATURES:
        if not np.isfinite(temperature) or 1 / temperature in INVERSE:
            exact = exact_rest(logits, at, temperature)
            error = np.abs(found.rest(temperature) - exact)
            assert error.max() <= half_a_step(3000, 20) + SUMMING


def test_the_temperatures_are_those_of_the_format():
    np.testing.assert_allclose(compact_logits._INVERSE, INVERSE)

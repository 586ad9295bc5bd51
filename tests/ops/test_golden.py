"""Losses and gradients agree with PyTorch's, kept in `tests/golden/soft_targets.json`."""

import json
import pathlib

import numpy as np
import pytest

from tests import reference, tolerances

FILE = pathlib.Path(__file__).parents[1] / "golden" / "soft_targets.json"
GOLDEN = json.loads(FILE.read_text())
MIXING_WEIGHT = GOLDEN["mixing_weight"]
CASES = pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: len(case["student"][0]))
WITH_DIVERGENCES = pytest.mark.parametrize("divergence", reference.DIVERGENCES)


def _inputs(case):
    return np.float32(case["student"]), np.float32(case["teacher"]), case["temperature"]


@CASES
@WITH_DIVERGENCES
def test_soft_targets(arithmetic, case, divergence):
    student, teacher, temperature = _inputs(case)
    loss, gradient = arithmetic.soft(student, teacher, temperature, divergence, MIXING_WEIGHT)
    expected = case[divergence]
    tolerances.assert_loss(loss, expected["loss"], temperature)
    tolerances.assert_gradient(
        gradient, np.array(expected["gradient"]), student, teacher, temperature
    )


@CASES
def test_hard_loss(arithmetic, case):
    student, teacher, temperature = _inputs(case)
    hard, _, gradient = arithmetic.hard_and_soft(
        student,
        teacher,
        np.array(case["labels"]),
        temperature,
        soft_upstream=np.zeros(len(student), np.float32),
    )
    np.testing.assert_allclose(hard, case["hard"]["loss"], rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(gradient, case["hard"]["gradient"], rtol=0, atol=2e-6)


@CASES
@WITH_DIVERGENCES
def test_the_float64_truth_of_these_tests_agrees_with_pytorch(case, divergence):
    student, teacher, temperature = _inputs(case)
    options = (temperature, divergence, MIXING_WEIGHT)
    np.testing.assert_allclose(
        reference.soft_target_loss(student, teacher, *options),
        case[divergence]["loss"],
        rtol=1e-7,
    )
    np.testing.assert_allclose(
        reference.soft_target_gradient(student, teacher, *options),
        case[divergence]["gradient"],
        rtol=1e-9,
        atol=1e-12,
    )

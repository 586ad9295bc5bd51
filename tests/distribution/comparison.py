"""Compares the outcomes of two trainings."""

import numpy as np

TOLERANCE = 1e-6


def assert_same_training(actual, expected, tolerance=TOLERANCE):
    """Weights, history and evaluation within `tolerance`, absolute or relative."""
    for side, result in (("replicated", actual), ("single process", expected)):
        assert "error" not in result, f"{side}:\n{result['error']}"
    assert sorted(actual["history"]) == sorted(expected["history"])
    assert sorted(actual["evaluate"]) == sorted(expected["evaluate"])
    for part in ("history", "evaluate"):
        for key, value in expected[part].items():
            _assert_close(actual[part][key], value, f"{part}[{key!r}]", tolerance)
    assert len(actual["weights"]) == len(expected["weights"])
    for i, weight in enumerate(expected["weights"]):
        _assert_close(actual["weights"][i], weight, f"weights[{i}]", tolerance)


def _assert_close(actual, expected, what, tolerance):
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance, err_msg=what)

"""Two replicas of a MirroredStrategy equal one process on the same global batches.

Devices can be configured only before TensorFlow is used, so the replicas run in a process of their
own; the single process is this one.
"""

import pytest

from tests import fresh_process
from tests.distribution import device_scenarios, scenarios, teacher_scenarios  # noqa: F401
from tests.distribution.comparison import TOLERANCE, assert_same_training

pytestmark = pytest.mark.slow

# Sums in another order may round an activation to the neighbouring integer.
TOLERANCES = {"aware_int8": 2e-3}


@pytest.fixture(scope="module")
def replicas(tmp_path_factory):
    """`{scenario: outcome}` of two replicas."""
    output = tmp_path_factory.mktemp("mirrored") / "outcomes.json"
    return fresh_process.run_json("tests.distribution.scripts.mirrored", output)


@pytest.mark.parametrize("name", scenarios.SCENARIOS)
def test_two_replicas_equal_one_process(name, replicas, request):
    if name == "native_kernel":
        request.getfixturevalue("native")
    tolerance = TOLERANCES.get(name, TOLERANCE)
    assert_same_training(replicas[name], scenarios.single_process(name), tolerance)


@pytest.mark.parametrize("setting", ["steps_per_execution", "gradient_accumulation"])
def test_what_replicas_cannot_run_is_refused(setting, replicas):
    message = replicas["refusals"][setting]
    assert message is not None, "it was accepted, and fit would fail inside TensorFlow"
    assert setting in message
    assert "MirroredStrategy" in message

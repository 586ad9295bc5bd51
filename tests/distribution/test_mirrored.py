"""Two replicas of a MirroredStrategy equal one process on the same global batches.

Devices can be configured only before TensorFlow is used, so the replicas run in a process of their
own; the single process is this one.
"""

import json

import pytest

from tests import fresh_process
from tests.distribution import scenarios
from tests.distribution.comparison import assert_same_training

pytestmark = [pytest.mark.slow, pytest.mark.in_turn(4)]
MODULE = scenarios.__name__


@pytest.fixture(scope="module")
def replicas(tmp_path_factory):
    """`{scenario: outcome}` of two replicas."""
    output = tmp_path_factory.mktemp("mirrored") / "outcomes.json"
    fresh_process.run_preloaded(["-m", "tests.distribution.scripts.mirrored", output, MODULE])
    return json.loads(output.read_text())


@pytest.mark.parametrize("name", scenarios.names_in(MODULE))
def test_two_replicas_equal_one_process(name, replicas, request):
    if name == "native_kernel":
        request.getfixturevalue("native")
    assert_same_training(replicas[name], scenarios.single_process(name))


@pytest.mark.parametrize("setting", ["steps_per_execution", "gradient_accumulation"])
def test_what_replicas_cannot_run_is_refused(setting, replicas):
    message = replicas["refusals"][setting]
    assert message is not None, "it was accepted, and fit would fail inside TensorFlow"
    assert setting in message
    assert "MirroredStrategy" in message

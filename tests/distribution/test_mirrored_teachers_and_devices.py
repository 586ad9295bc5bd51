"""As `test_mirrored.py`, with other teachers than a Keras model, and students made for devices."""

import json

import pytest

from tests import fresh_process
from tests.distribution import device_scenarios, scenarios, teacher_scenarios
from tests.distribution.comparison import TOLERANCE, assert_same_training

pytestmark = [pytest.mark.slow, pytest.mark.in_turn(4)]
MODULES = [teacher_scenarios.__name__, device_scenarios.__name__]
# Sums in another order may round an activation to the neighboring integer.
TOLERANCES = {"aware_int8": 2e-3}


@pytest.fixture(scope="module")
def replicas(tmp_path_factory):
    """`{scenario: outcome}` of two replicas."""
    output = tmp_path_factory.mktemp("mirrored") / "outcomes.json"
    fresh_process.run_preloaded(["-m", "tests.distribution.scripts.mirrored", output, *MODULES])
    return json.loads(output.read_text())


@pytest.mark.parametrize("name", [name for each in MODULES for name in scenarios.names_in(each)])
def test_two_replicas_equal_one_process(name, replicas):
    tolerance = TOLERANCES.get(name, TOLERANCE)
    assert_same_training(replicas[name], scenarios.single_process(name), tolerance)

"""A Ray cluster of this machine, on loopback, for the tests of a file."""

import contextlib
import os
import pathlib

import pytest

from tests import extras

ROOT = pathlib.Path(__file__).parents[1]
# Ray's own raylet gives up after 30 seconds on a machine that is busy with other tests.
_SETTINGS = {
    "RAY_raylet_start_wait_time_s": "300",
    "RAY_USAGE_STATS_ENABLED": "0",
    "CUDA_VISIBLE_DEVICES": "-1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    # Workers import what the tests import.
    "PYTHONPATH": os.fspath(ROOT),
}


@contextlib.contextmanager
def cluster(cpus):
    """Connects this process to a cluster with so many CPUs, however many the machine has."""
    ray = extras.require("ray")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in _SETTINGS.items():
            patch.setenv(name, value)
        ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            _node_ip_address="127.0.0.1",
        )
        try:
            yield ray
        finally:
            ray.shutdown()

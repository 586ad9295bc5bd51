"""Runs every scenario in two replicas, on two logical CPUs: `python -m ... OUTPUT.json`."""

import json
import pathlib
import sys

import tensorflow as tf


def main():
    cpu = tf.config.list_physical_devices("CPU")[0]
    halves = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, halves)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    assert strategy.num_replicas_in_sync == 2

    from tests.distribution import device_scenarios, scenarios, teacher_scenarios  # noqa: F401

    results = scenarios.run_all(scenarios.SCENARIOS, strategy)
    results["refusals"] = scenarios.refusals(strategy)
    pathlib.Path(sys.argv[1]).write_text(json.dumps(results))


if __name__ == "__main__":
    main()

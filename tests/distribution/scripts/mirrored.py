"""Runs scenarios in two replicas, on two logical CPUs: `python -m ... OUTPUT.json MODULE...`."""

import importlib
import json
import pathlib
import sys

import tensorflow as tf


def main(output, *modules):
    cpu = tf.config.list_physical_devices("CPU")[0]
    halves = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, halves)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    assert strategy.num_replicas_in_sync == 2

    from tests.distribution import scenarios

    results = {"refusals": scenarios.refusals(strategy)}
    for module in modules:
        importlib.import_module(module)
        results |= scenarios.run_all(scenarios.names_in(module), strategy)
    pathlib.Path(output).write_text(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""One of two workers: `python -m ... OUTPUT.json`, with its place in TF_CONFIG."""

import json
import pathlib
import sys

import tensorflow as tf


def main():
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    assert strategy.num_replicas_in_sync == 2

    from tests.distribution import scenarios

    results = scenarios.run_all(scenarios.MULTI_WORKER, strategy)
    results["refusals"] = scenarios.refusals(strategy)
    results["keras"] = scenarios.plain_keras(strategy)
    pathlib.Path(sys.argv[1]).write_text(json.dumps(results))


if __name__ == "__main__":
    main()

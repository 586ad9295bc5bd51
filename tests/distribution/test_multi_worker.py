"""Two processes of a MultiWorkerMirroredStrategy on this machine equal a single process."""

import json
import socket

import pytest

from tests import fresh_process
from tests.distribution import scenarios
from tests.distribution.comparison import assert_same_training

WORKERS = 2
pytestmark = [pytest.mark.slow, pytest.mark.in_turn(4)]


def _free_ports():
    sockets = [socket.socket() for _ in range(WORKERS)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    """The `{scenario: outcome}` of each worker."""
    folder = tmp_path_factory.mktemp("workers")
    cluster = {"worker": [f"127.0.0.1:{port}" for port in _free_ports()]}
    outputs = [folder / f"{index}.json" for index in range(WORKERS)]
    processes = []
    for index, output in enumerate(outputs):
        config = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
        env = fresh_process.environment(TF_CONFIG=config)
        processes.append(
            fresh_process.start(["-m", "tests.distribution.scripts.worker", output], env)
        )
    fresh_process.finish(processes)
    return [json.loads(output.read_text()) for output in outputs]


@pytest.mark.parametrize("name", scenarios.MULTI_WORKER)
def test_two_workers_equal_one_process(name, workers):
    for worker in workers:
        assert_same_training(worker[name], scenarios.single_process(name))


@pytest.mark.parametrize("name", scenarios.MULTI_WORKER)
def test_workers_are_identical(name, workers):
    first, second = (worker[name] for worker in workers)
    assert "error" not in first
    assert first == second


@pytest.mark.parametrize("setting", ["steps_per_execution", "gradient_accumulation"])
def test_what_workers_cannot_run_is_refused(setting, workers):
    for worker in workers:
        message = worker["refusals"][setting]
        assert message is not None, "it was accepted, and fit would fail inside TensorFlow"
        assert setting in message
        assert "MultiWorkerMirroredStrategy" in message


def test_keras_alone_fails_there(workers):
    """Fault 13 of `keras.distillation`; once Keras can do it, `MultiWorkerFit` may go."""
    for worker in workers:
        assert worker["keras"] is not None, "Keras has learned it: remove replicas.MultiWorkerFit"

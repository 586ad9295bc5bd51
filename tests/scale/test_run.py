"""`kd.scale.run`: workers in processes of their own, on a Ray instance of this machine."""

import functools
import os
import pathlib
import random

import pytest
import tensorflow as tf

import keras_kd as kd
from tests import extras, ray_cluster
from tests.distribution import scenarios
from tests.distribution.comparison import assert_same_training
from tests.scale import trainings

extras.require("ray")
pytestmark = [pytest.mark.slow, pytest.mark.in_turn(2)]
KILLS = int(os.environ.get("KERAS_KD_SCALE_KILLS", "2"))
ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def ray():
    """One instance for the file, reached on loopback only."""
    with ray_cluster.cluster(4) as ray:
        yield ray


@pytest.fixture(scope="module")
def compared(tmp_path_factory, ray):
    """What two workers give that nothing disturbs."""
    folder = tmp_path_factory.mktemp("compared") / "backup"
    results = kd.scale.run(functools.partial(trainings.compare, folder=str(folder)), 2, verbose=0)
    assert not folder.exists()
    return results


@pytest.mark.parametrize("name", trainings.SCENARIOS)
def test_two_workers_equal_one_process(name, compared):
    first, second = (worker[name] for worker in compared)
    assert_same_training(first, scenarios.single_process(name))
    assert first == second


def test_killed_workers_end_with_the_same_weights(tmp_path, compared, capsys):
    rng = random.Random(20)
    kills = [(rng.randrange(2), rng.randrange(1, trainings.STEPS - 1)) for _ in range(KILLS)]
    kills.sort(key=lambda kill: kill[1])  # each one comes, or is before the backup of the last
    folder = str(tmp_path / "backup")
    function = functools.partial(trainings.train_and_die, folder=folder, kills=kills)
    results = kd.scale.run(function, 2, retries=KILLS)
    for result, other in zip(results, compared, strict=True):
        assert result["weights"] == other["undisturbed"]["weights"]
        # Of the epochs of the last attempt; sums of an epoch that goes on are rounded once more.
        for key, values in result["history"].items():
            whole = other["undisturbed"]["history"][key][-len(values) :]
            assert values == pytest.approx(whole, rel=1e-6), key
    printed = capsys.readouterr().out
    assert printed.count("SIGKILL") == KILLS
    assert f"restarts: {KILLS}" in printed
    assert not os.path.exists(folder)


def test_backups_that_are_not_shared_are_refused(tmp_path):
    """Worker 0 would find that all is trained already, and worker 1 that nothing is."""
    trainings.train(tf.distribute.get_strategy(), str(tmp_path / "0"), [], keep=True)
    (tmp_path / "1").mkdir()
    function = functools.partial(trainings.refused, folder=str(tmp_path))
    first, second = kd.scale.run(function, 2, verbose=0)
    assert first == second
    assert "Workers have restored different backups" in first[0]
    assert "Workers have different numbers of keras.callbacks.BackupAndRestore: [1, 0]" in first[1]
    assert (tmp_path / "0" / "latest.weights.h5").exists()


def test_error_of_the_function_is_raised_and_not_tried_again(tmp_path):
    function = functools.partial(trainings.raise_in_step, folder=str(tmp_path))
    with pytest.raises(kd.scale.WorkerError, match="Worker 1 of 2 raised KeyError") as caught:
        kd.scale.run(function, 2, verbose=0)
    assert "in on_train_batch_end" in str(caught.value)
    assert "the last words of worker 1" in str(caught.value)
    assert caught.value.index == 1
    assert isinstance(caught.value.__cause__, KeyError)
    assert sorted(path.name for path in tmp_path.glob("?-?")) == ["0-0", "1-0"]


def test_retries_are_used_up(capsys):
    with pytest.raises(kd.scale.WorkerError) as caught:
        kd.scale.run(trainings.end_badly, 1, retries=2, timeout=3, verbose=2)
    message = str(caught.value)
    assert "Worker 0 of 1 was lost: its process ended with exit code 3" in message
    assert "retries=2 are used up" in message
    assert "no sign of life for" in message
    assert "Ray lost its node, or the process there" in message
    assert message.endswith("  attempt 2")
    assert caught.value.output[-1] == "attempt 2"
    assert "worker 0: attempt 0" in capsys.readouterr().out


def test_other_versions_are_refused(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import keras\nkeras.__version__ = '3.11.9'\n")
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    with pytest.raises(kd.scale.WorkerError, match="other versions than this process") as caught:
        kd.scale.run(trainings.place, 1, env={"PYTHONPATH": paths}, verbose=0)
    import keras

    assert f"worker 0 (on 127.0.0.1): keras 3.11.9 there, {keras.__version__} here" in str(
        caught.value
    )


def test_workers_know_their_place_and_silence_is_silent(capfd):
    """Functions of `__main__` or of another function are sent with what they hold."""
    factor = 3

    def function(worker):
        return factor * worker.index, trainings.place(worker)

    results = kd.scale.run(function, 2, env={"OWN": "x"}, resources={"CPU": 0.5}, verbose=0)
    assert [result[0] for result in results] == [0, 3]
    for index, (_, place) in enumerate(results):
        assert place[:3] == (index, True, "x")
        assert place[3].tolist() == [0, 1]
    assert capfd.readouterr() == ("", "")

"""Experiment trackers get everything that a distillation has: read back from what they wrote.

TensorBoard, Weights & Biases (offline) and MLflow (its files) themselves; the guide to experiment
trackers shows the same lines.
"""

import collections
import os

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from tests import extras
from tests.distiller import linear
from tests.distiller.linear import Loop, compiled, logits_of
from tests.report import made_up

BATCH, STEPS, EPOCHS = 4, 3, 2
X, Y = linear.data(BATCH * STEPS)
TEMPERATURES, ALPHA, BETA = (5.0, 1.0), 0.1, 0.9
ROUNDING = {"rel": 2e-5, "abs": 1e-7}


def rate(step):
    """`InverseTimeDecay(0.1, STEPS, 1.0)`."""
    return 0.1 / (1.0 + step / STEPS)


def distiller():
    schedule = keras.optimizers.schedules.InverseTimeDecay(0.1, STEPS, 1.0)
    options = {"compile_args": {"optimizer": keras.optimizers.SGD(schedule)}}
    return compiled(*linear.pair(), alpha=ALPHA, beta=BETA, **options)


def fit(made, *trackers):
    callbacks = [
        kd.callbacks.TemperatureSchedule(*TEMPERATURES),
        kd.callbacks.LogHyperparameters(),
        kd.callbacks.DistillationMonitor(X),
        *trackers,
    ]
    options = {"batch_size": BATCH, "epochs": EPOCHS, "shuffle": False, "verbose": 0}
    made.fit(X, Y, callbacks=callbacks, **options)


def expected():
    """What each epoch logs, `{name: [a value for each epoch]}`, in NumPy."""
    teacher, student = linear.pair()
    loop = Loop(teacher, student, alpha=ALPHA, beta=BETA)
    found = collections.defaultdict(list)
    for epoch, loop.temperature in enumerate(TEMPERATURES):
        losses = []
        for step in range(STEPS):
            loop.learning_rate = rate(epoch * STEPS + step)
            rows = slice(step * BATCH, (step + 1) * BATCH)
            losses.append(loop.step(X[rows], Y[rows]))
        student = np.float64(X) @ loop.weights[0] + loop.weights[1]
        same = logits_of(teacher, X).argmax(-1) == student.argmax(-1)
        epoch_values = {
            **{name: np.mean([each[name] for each in losses]) for name in losses[0]},
            "temperature": loop.temperature,
            "alpha": ALPHA,
            "beta": BETA,
            "soft_targets_weight": 1.0,
            "learning_rate": rate((epoch + 1) * STEPS),
            "probe_agreement": same.mean(),
        }
        for name, value in epoch_values.items():
            found[name].append(value)
    return dict(found)


@pytest.fixture
def report():
    truth = made_up.labels()
    sides = {"baseline": [40, 44], "student": [20, 28]}
    return made_up.report(
        **{side: made_up.with_errors(truth, counts) for side, counts in sides.items()}
    )


# Means of 40 and 44, of 20 and 28 wrong ones of 400.
ACCURACIES = {"labels only/accuracy": 1 - 42 / 400, "distilled/accuracy": 1 - 24 / 400}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where trackers write all that they write; the environment is put back."""
    before = set(os.environ)
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR"):
        monkeypatch.setenv(name, os.fspath(tmp_path / "wandb_own"))
    # Nothing is sent, nothing but the test's folder is looked at.
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("GIT_PYTHON_REFRESH", "quiet")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in set(os.environ) - before:
        del os.environ[name]


def summaries(folder):
    """`{tag: {step: value}}` of all event files in a folder."""
    found = collections.defaultdict(dict)
    for path in sorted(folder.rglob("events.out.tfevents.*")):
        for record in tf.data.TFRecordDataset(os.fspath(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                found[value.tag][event.step] = value
    return found


def numbers(by_step):
    return [float(tf.make_ndarray(each.tensor)) for _, each in sorted(by_step.items())]


def test_tensorboard(folder, report):
    hparams = extras.require("tensorboard.plugins.hparams.api")
    made = distiller()
    settings = made.settings()
    fit(made, keras.callbacks.TensorBoard(folder / "run"))
    with tf.summary.create_file_writer(os.fspath(folder / "run" / "train")).as_default():
        hparams.hparams(settings)
        for name, value in report.scalars().items():
            tf.summary.scalar(name, value, step=EPOCHS)
        tf.summary.text("report", report.to_markdown(), step=EPOCHS)
    found = summaries(folder / "run")
    for name, values in expected().items():
        assert numbers(found[f"epoch_{name}"]) == pytest.approx(values, **ROUNDING), name
    for name, value in ACCURACIES.items():
        assert numbers(found[name]) == pytest.approx([value], rel=1e-6)
    text = tf.make_ndarray(found["report"][EPOCHS].tensor).item().decode()
    assert report.verdict.split()[0] in text
    (given,) = found["_hparams_/session_start_info"].values()
    assert b"losses/soft_targets/temperature" in given.metadata.plugin_data.content


def test_weights_and_biases(folder, report):
    wandb = extras.require("wandb")
    keras_side = extras.require("wandb.integration.keras")
    made = distiller()
    options = wandb.Settings(silent=True, console="off", disable_git=True, save_code=False)
    with wandb.init(
        project="p", mode="offline", dir=folder, config=made.settings(), settings=options
    ) as run:
        fit(made, keras_side.WandbMetricsLogger())
        run.summary.update(report.scalars())
        report.save_html("report.html")
        run.log({"report": wandb.Html("report.html")})
        summary, config = dict(run.summary), dict(run.config)
        pages = list((folder / "wandb").rglob("media/html/report*.html"))
    wandb.teardown()
    # An offline run shows the last epoch.
    last = {f"epoch/{name}": values[-1] for name, values in expected().items()}
    # wandb reads the rate itself: by its own count of steps.
    assert summary["epoch/learning_rate"] == pytest.approx(last.pop("epoch/learning_rate"))
    assert {name: summary.get(name) for name in last} == pytest.approx(last, **ROUNDING)
    assert {name: summary.get(name) for name in ACCURACIES} == pytest.approx(ACCURACIES)
    assert config["losses/soft_targets/temperature"] == 4.0
    assert [report.title in page.read_text(encoding="utf-8") for page in pages] == [True]


@pytest.fixture
def mlflow(folder):
    """MLflow, which writes files into the folder; its global settings are put back."""
    mlflow = extras.require("mlflow")
    mlflow.set_tracking_uri((folder / "mlruns").as_uri())
    yield mlflow
    mlflow.set_tracking_uri(None)


def log_epoch(mlflow):
    """The callback of the guide."""
    return keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: mlflow.log_metrics(logs, step=epoch)
    )


def test_mlflow(mlflow, report):
    made = distiller()
    settings = made.settings()
    with mlflow.start_run() as run:
        mlflow.log_params(settings)
        fit(made, log_epoch(mlflow))
        mlflow.log_metrics(report.scalars())
        report.save_html("report.html")
        mlflow.log_artifact("report.html")
    client, number = mlflow.MlflowClient(), run.info.run_id
    for name, values in expected().items():
        found = sorted(client.get_metric_history(number, name), key=lambda each: each.step)
        assert [each.value for each in found] == pytest.approx(values, **ROUNDING), name
    data = client.get_run(number).data
    assert data.params == {name: str(value) for name, value in settings.items()}
    assert {name: data.metrics.get(name) for name in ACCURACIES} == pytest.approx(ACCURACIES)
    assert [each.path for each in client.list_artifacts(number)] == ["report.html"]


def test_peers_in_mlflow(mlflow):
    """Their learning rates stand apart; their settings have no key that is another's folder."""
    made = kd.MutualDistiller([linear.linear(1), linear.linear(2)])
    rates = [keras.optimizers.SGD(value) for value in (0.25, 0.5)]
    made.compile(rates, linear.from_logits(), run_eagerly=True)
    with mlflow.start_run() as run:
        mlflow.log_params(made.settings())
        callbacks = [kd.callbacks.LogHyperparameters(), log_epoch(mlflow)]
        made.fit(X, Y, callbacks=callbacks, verbose=0)
    found = mlflow.MlflowClient().get_run(run.info.run_id).data
    given = {"peer_0_learning_rate": 0.25, "peer_1_learning_rate": 0.5, "temperature": 1.0}
    assert {name: found.metrics.get(name) for name in given} == given
    assert found.params["peers/0/class"] == "Sequential"

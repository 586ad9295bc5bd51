"""A step calls its collaborators in the order in which `training/step.py` has them."""

import keras
import numpy as np
import pytest

import keras_kd as kd


def dense(name, units=3):
    layers = [keras.Input((4,)), keras.layers.Dense(units, name=f"{name}_out")]
    return keras.Sequential(layers, name=name)


class Recording:
    """Notes when methods of a distiller's collaborators are called."""

    def __init__(self, monkeypatch):
        self.calls, self._monkeypatch = [], monkeypatch

    def watch(self, owner, *names):
        for name in names:
            self._monkeypatch.setattr(owner, name, self._noted(name, getattr(owner, name)))

    def _noted(self, name, method):
        def noted(*args, **kwargs):
            self.calls.append(name)
            return method(*args, **kwargs)

        return noted


@pytest.fixture
def distiller():
    # Two losses of outputs, so that no sweep computes hard and soft loss at once.
    losses = [kd.losses.SoftTargets(), kd.losses.LogitsMSE()]
    distiller = kd.Distiller(dense("teacher"), dense("student"), losses)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile(keras.optimizers.SGD(0.1), loss, run_eagerly=True)
    distiller.build_optimizer()
    return distiller


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return rng.normal(size=(8, 4)).astype("float32"), rng.integers(3, size=8)


def watched(distiller, monkeypatch):
    recording = Recording(monkeypatch)
    recording.watch(distiller.fit_labels, "require")
    recording.watch(distiller.shape_checks, "on_batch")
    recording.watch(distiller.forward_passes, "student_forward", "teacher_forward")
    recording.watch(distiller.objective, "terms", "regularizers")
    recording.watch(distiller.optimizer, "apply")
    recording.watch(distiller.source, "update")
    recording.watch(distiller.loss_metrics, "update")
    recording.watch(distiller, "compute_metrics")
    return recording.calls


def test_a_step_of_training(distiller, batch, monkeypatch):
    calls = watched(distiller, monkeypatch)
    distiller.train_step(batch)
    assert calls == [
        "require",
        "on_batch",
        "student_forward",
        "terms",
        "teacher_forward",
        "regularizers",
        "apply",
        "update",  # the teacher
        "update",  # the metrics
        "compute_metrics",
    ]


def test_a_step_of_evaluation_runs_no_teacher(distiller, batch, monkeypatch):
    calls = watched(distiller, monkeypatch)
    distiller.test_step(batch)
    assert calls == ["student_forward", "terms", "regularizers", "update", "compute_metrics"]


def test_a_step_of_evaluation_with_the_teacher(distiller, batch, monkeypatch):
    distiller.evaluate_with_teacher = True
    calls = watched(distiller, monkeypatch)
    distiller.test_step(batch)
    assert calls[:4] == ["on_batch", "student_forward", "terms", "teacher_forward"]


def test_fit_prepares_in_the_written_order(distiller, batch, monkeypatch):
    calls = []

    def noted(prepare):
        def note(model, call):
            calls.append(prepare.__name__)
            prepare(model, call)

        return note

    preparation = kd.Distiller.preparation
    monkeypatch.setattr(kd.Distiller, "preparation", tuple(map(noted, preparation)))
    distiller.fit(*batch, verbose=0)
    assert calls == [
        "require_teacher",
        "take_every_step",
        "track_progress",
        "require_labels_of_weights",
        "attach_callback_losses",
        "require_batch_size",
        "build_optimizer",
        "require_labels",
        "require_validation_labels",
        "require_samples",
        "prefetch_teacher",
        "inspect_first_batch",
    ]

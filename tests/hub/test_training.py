"""KerasHub's models are distilled, evaluated, saved and loaded; padding counts nowhere."""

import dataclasses
import functools
import warnings

import keras
import numpy as np
import pytest

import keras_kd as kd
from tests import reference
from tests.distiller.linear import assert_same_values
from tests.hub import models
from tests.hub.cases import ALPHA, CASES, TEMPERATURE, hints

pytestmark = pytest.mark.in_turn(4)

EPOCHS = 12
OF_LOGITS = ["bert", "gpt2", "llama3", "whisper"]


class Trained:
    """A case and its distiller, which was trained once, with what there was before and after."""

    def __init__(self, kind):
        self.case = CASES[kind]()
        self.first = self.logits()
        self.distiller = self.case.distiller()
        self.distiller.optimizer.build(self.distiller.trainable_variables)
        self.before = self.state()
        self.history = self.fit(self.case.data)
        self.after = self.state()

    def fit(self, data):
        return self.distiller.fit(*data, epochs=EPOCHS, shuffle=False, verbose=0).history

    def evaluate(self, data=None, **options):
        data = self.case.data if data is None else data
        return self.distiller.evaluate(*data, return_dict=True, verbose=0, **options)

    def logits(self):
        """Of the student and of the teacher, in inference."""
        return [
            keras.tree.map_structure(np.float64, model({k: self.case.x[k] for k in model.input}))
            for model in (self.case.student, self.case.teacher)
        ]

    def variables(self):
        """All that a step reads and moves: weights, seeds, metrics, the optimizer's."""
        return [*self.distiller.variables, *self.distiller.optimizer.variables]

    def state(self):
        return [variable.numpy() for variable in self.variables()]

    def restore(self, state):
        for variable, value in zip(self.variables(), state, strict=True):
            variable.assign(value)


@pytest.fixture(scope="module")
def trained():
    """Each case once, by kind."""
    return functools.cache(Trained)


def expected(of_kind, outputs, reported):
    """What the distiller reports of logits, in float64; the hints as they were reported."""
    case = of_kind.case
    student, teacher = outputs
    y = case.y
    if case.y_of_tokens:
        student, teacher, y = (each[case.counts] for each in (student, teacher, y))
    hard = reference.hard_loss(student, y).mean()
    soft = reference.soft_target_loss(student, teacher, TEMPERATURE).mean()
    hints = set(of_kind.distiller.losses_by_name) - {"soft_targets"}
    return {
        "hard_loss": hard,
        "soft_targets": soft,
        "accuracy": (student.argmax(-1) == y).mean(),
        "loss": ALPHA * hard + soft + sum(reported[name] for name in hints),
    }


@pytest.mark.parametrize("kind", CASES)
def test_the_losses_fall(kind, trained):
    history = trained(kind).history
    for name in ("loss", *trained(kind).distiller.losses_by_name):
        assert history[name][-1] < 0.9 * history[name][0], name


@pytest.mark.parametrize("kind", OF_LOGITS)
def test_fit_and_evaluate_report_means_without_padding(kind, trained):
    of_kind = trained(kind)
    first = {name: values[0] for name, values in of_kind.history.items()}
    assert_same_values(first, expected(of_kind, of_kind.first, first))
    now = expected(of_kind, of_kind.logits(), of_kind.evaluate(with_teacher=True))
    assert_same_values(of_kind.evaluate(with_teacher=True), now)
    assert_same_values(of_kind.evaluate(), {"loss": now["hard_loss"], "accuracy": now["accuracy"]})


@pytest.mark.parametrize("kind", CASES)
def test_what_is_under_the_padding_changes_not_a_bit(kind, trained):
    of_kind = trained(kind)
    other = of_kind.case.data_of_other_padding
    evaluated = of_kind.evaluate(with_teacher=True)
    assert of_kind.evaluate(other, with_teacher=True) == evaluated
    of_kind.restore(of_kind.before)
    assert of_kind.fit(other) == of_kind.history
    for variable, one, two in zip(of_kind.variables(), of_kind.after, of_kind.state(), strict=True):
        np.testing.assert_array_equal(one, two, err_msg=variable.path)
    moved = [(a != b).any() for a, b in zip(of_kind.before, of_kind.after, strict=True)]
    assert np.mean(moved) > 0.5


@pytest.mark.parametrize("kind", CASES)
def test_predict_and_a_loaded_file(kind, trained, tmp_path):
    of_kind = trained(kind)
    predicted = of_kind.distiller.predict(of_kind.case.x, verbose=0)
    for one, other in zip(
        keras.tree.flatten(predicted), keras.tree.flatten(of_kind.logits()[0]), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    of_kind.distiller.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    assert type(loaded.student) is type(of_kind.case.student)
    assert type(loaded.teacher) is type(of_kind.case.teacher)
    keras.tree.map_structure(
        np.testing.assert_array_equal, loaded.predict(of_kind.case.x, verbose=0), predicted
    )
    if kind == "bert":  # of two inputs that the models do not share, once more in the file
        logs = loaded.evaluate(*of_kind.case.data, verbose=0, return_dict=True, with_teacher=True)
        assert_same_values(logs, of_kind.evaluate(with_teacher=True))


def test_a_task_that_was_compiled_otherwise_warns(tmp_path):
    """A task compiles itself when it is made; Keras loads no other `compile` of it."""
    case = CASES["bert"]()
    case.student.compile(optimizer=keras.optimizers.SGD(0.1))
    case.distiller().save(tmp_path / "distiller.keras")
    with pytest.warns(UserWarning, match="was not called as part of model loading"):
        keras.saving.load_model(tmp_path / "distiller.keras")


def test_tasks_among_peers_and_in_an_ensemble_are_loaded(tmp_path):
    peers = [models.gpt2(layers=1, width=8, seed=seed) for seed in range(3)]
    ensemble = kd.Distiller(kd.teachers.Ensemble(peers[:2]), peers[2])
    for distiller in (kd.MutualDistiller(peers), ensemble):
        distiller.save(tmp_path / "file.keras")
        loaded = keras.saving.load_model(tmp_path / "file.keras")
        for one, other in zip(distiller.weights, loaded.weights, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_student_of_lora_trains_its_adapters_alone(tmp_path):
    case = CASES["gpt2"]()
    student = case.student
    student.backbone.enable_lora(2)
    adapters = {weight.path for weight in student.trainable_weights}
    # Keras leaves the biases of the layers that have adapters trainable.
    endings = ["bias", "lora_kernel_a", "lora_kernel_b"] * 2
    assert sorted(path.split("/")[-1] for path in adapters) == sorted(endings)
    before = {weight.path: weight.numpy() for weight in student.weights}
    case.losses = case.losses[:1]
    distiller = case.distiller(learning_rate=0.05, run_eagerly=True)
    assert {weight.path for weight in distiller.trainable_weights} == adapters
    history = distiller.fit(*case.data, epochs=4, verbose=0).history
    assert history["soft_targets"][-1] < history["soft_targets"][0]
    moved = {w.path for w in student.weights if (w.numpy() != before[w.path]).any()}
    assert moved == adapters
    predicted = distiller.predict(case.x, verbose=0)
    distiller.save(tmp_path / "distiller.keras")
    # A backbone's configuration has no adapters: Keras merges them into the kernels of the file.
    with pytest.warns(UserWarning, match="optimizer .* variables whereas the saved"):
        loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    np.testing.assert_allclose(loaded.predict(case.x, verbose=0), predicted, atol=1e-5)


def padding_warnings(kind, **changes):
    """The warnings about padding of two calls of `fit`, of a case with some changes."""
    case = dataclasses.replace(CASES[kind](), **changes)
    distiller = case.distiller(run_eagerly=True)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for _ in range(2):
            distiller.fit(*case.data, verbose=0)
    return [str(w.message) for w in found if "padding" in str(w.message)]


def test_padding_that_no_loss_honors_warns_once():
    assert padding_warnings("gpt2") == []
    (message,) = padding_warnings("gpt2", options={})
    assert "'padding_mask' says that 50 of 96 positions are padding" in message
    assert "mask_input='padding_mask' to Distiller" in message


def test_padding_of_a_classifier_warns_where_hints_count_it():
    assert padding_warnings("bert") == []
    assert padding_warnings("bert", losses=[kd.losses.SoftTargets()]) == []
    (message,) = padding_warnings("bert", losses=[kd.losses.SoftTargets(), *hints()])
    assert "inner layers 'hidden_states', 'attention_maps'" in message


def test_padding_of_encoder_and_decoder_warns_with_its_name():
    assert padding_warnings("t5") == []
    # Both are as long: either may be meant.
    loss = kd.losses.RegressionKD(output="decoder_sequence_output")
    assert len(padding_warnings("t5", losses=[loss])) == 2

"""Sparse cross-entropy and `SoftTargets` come from one sweep; its numbers are the usual ones."""

import keras
import numpy as np
import pytest

import keras_kd as kd
from tests.distiller import linear
from tests.distiller.linear import assert_same_values, compiled


@pytest.fixture
def sweeps(monkeypatch):
    """A list that grows whenever the fused operation is called (or traced)."""
    calls, fused = [], kd.ops.combined_loss

    def spy(*args, **kwargs):
        calls.append(args)
        return fused(*args, **kwargs)

    monkeypatch.setattr(kd.ops, "combined_loss", spy)
    return calls


def train(loss, mode="eager", y=None, sample_weight=None, alpha=0.3, **compile_args):
    """Logs of the last of two steps, and the weights after them."""
    teacher, student = linear.pair()
    x, labels = linear.data()
    compile_args["loss"] = loss
    distiller = compiled(teacher, student, alpha=alpha, mode=mode, compile_args=compile_args)
    for _ in range(2):
        logs = distiller.train_on_batch(
            x, labels if y is None else y(labels), sample_weight, return_dict=True
        )
    return logs, student.get_weights()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("mode", linear.MODES)
def test_fused_and_separate_give_the_same_numbers(mode, weighted, sweeps):
    sample_weight = linear.weights_of() if weighted else None
    logs, weights = train(linear.from_logits(), mode, sample_weight=sample_weight)
    assert sweeps, "the fused operation was not used"
    sweeps.clear()
    # A list of one loss means the same and is not recognized.
    expected_logs, expected_weights = train([linear.from_logits()], mode, None, sample_weight)
    assert not sweeps
    assert_same_values(logs, expected_logs)
    for actual, expected in zip(weights, expected_weights, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize(
    "form",
    [
        lambda y: y[:, None],
        lambda y: y.astype("uint8"),
        lambda y: y.astype("int32"),
        lambda y: y.astype("float32"),
    ],
    ids=["column", "uint8", "int32", "float32"],
)
def test_labels_may_have_any_form_that_keras_takes(form, sweeps):
    logs, _ = train(linear.from_logits(), y=form)
    assert len(sweeps) == 2
    assert_same_values(logs, train(linear.from_logits())[0])


class Focal(keras.losses.SparseCategoricalCrossentropy):
    """A subclass may compute anything."""

    def call(self, y_true, y_pred):
        return 2.0 * super().call(y_true, y_pred)


@pytest.mark.parametrize(
    "loss",
    [
        keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum"),
        keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, reduction="mean_with_sample_weight"
        ),
        Focal(from_logits=True),
    ],
    ids=["sum", "mean_with_sample_weight", "subclass"],
)
def test_another_hard_loss_is_never_replaced(loss, sweeps):
    _logs, _ = train(loss)
    assert not sweeps
    expected = loss(linear.data()[1], linear.pair()[1](linear.data()[0]))
    teacher, student = linear.pair()
    distiller = compiled(teacher, student, alpha=0.3, compile_args={"loss": loss})
    first = distiller.train_on_batch(*linear.data(), return_dict=True)
    np.testing.assert_allclose(first["hard_loss"], expected, rtol=1e-5)
    np.testing.assert_allclose(
        first["loss"], 0.3 * expected + 0.5 * first["soft_targets"], rtol=1e-5
    )


@pytest.mark.parametrize("positional", [False, True])
def test_loss_weights_multiply_the_hard_loss(positional):
    teacher, student = linear.pair()
    distiller = kd.Distiller(teacher, student)
    if positional:
        distiller.compile("sgd", linear.from_logits(), [3.0], run_eagerly=True)
    else:
        distiller.compile("sgd", linear.from_logits(), loss_weights=[3.0], run_eagerly=True)
    logs = distiller.train_on_batch(*linear.data(), return_dict=True)
    expected, _ = linear.Loop(teacher, linear.linear(2)).gradients(*linear.data())
    assert_same_values(logs, {"hard_loss": 3.0 * expected["hard_loss"]})
    total = 0.5 * 3.0 * expected["hard_loss"] + 0.5 * expected["soft_targets"]
    assert_same_values(logs, {"loss": total})


@pytest.mark.parametrize("mode", linear.MODES)
@pytest.mark.parametrize(("alpha", "weight"), [(0.0, 1.0), (0.5, 0.0)])
def test_a_loss_of_factor_zero_is_still_reported(alpha, weight, mode):
    teacher, student = linear.pair()
    loop = linear.Loop(teacher, student, alpha=alpha, weight=weight)
    loss = kd.losses.SoftTargets(weight=weight)
    distiller = compiled(teacher, student, loss, alpha=alpha, mode=mode)
    logs = distiller.train_on_batch(*linear.data(), return_dict=True)
    assert_same_values(logs, loop.step(*linear.data()))
    linear.assert_same_weights(student, loop)


def test_a_teacher_whose_one_output_is_in_a_dict(sweeps):
    teacher, student = linear.pair()
    inputs = keras.Input((5,))
    of_dict = keras.Model(inputs, {"logits": teacher(inputs)})
    x, y = linear.data()
    logs = []
    for each in (teacher, of_dict):
        student.set_weights(linear.pair()[1].get_weights())
        logs.append(compiled(each, student).train_on_batch(x, y, return_dict=True))
    assert sweeps
    assert_same_values(logs[1], logs[0])

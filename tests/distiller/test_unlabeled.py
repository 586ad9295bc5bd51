"""Data without labels: trained on, distinguished from mistakes, and reported as what it is."""

import keras
import pytest
import tensorflow as tf

import keras_kd as kd
from tests.distiller import linear

ROWS = 24


class Sequence(keras.utils.PyDataset):
    """The rows in batches of 8; by Keras' interface, which has no `len`."""

    @property
    def num_batches(self):
        return ROWS // 8

    def __getitem__(self, i):
        return (linear.data(ROWS)[0][8 * i : 8 * i + 8],)


def generator():
    x = linear.data(ROWS)[0]
    for start in range(0, ROWS, 8):
        yield (x[start : start + 8],)


KINDS = {
    "arrays": lambda: linear.data(ROWS)[0],
    "dataset": lambda: tf.data.Dataset.from_tensor_slices(linear.data(ROWS)[0]).batch(8),
    "tuples": lambda: tf.data.Dataset.from_tensor_slices((linear.data(ROWS)[0],)).batch(8),
    "PyDataset": Sequence,
    "generator": generator,
}


def options_of(kind):
    """Of `fit`: what keeps Keras from warning of data that it cannot shuffle or count."""
    steps = {"steps_per_epoch": ROWS // 8} if kind == "generator" else {}
    return {"shuffle": False, "verbose": 0, **steps}


def make(mode="graph", **numbers):
    numbers = {"alpha": 0.0, **numbers}
    metrics = {"metrics": ["accuracy"]}
    return linear.compiled(*linear.pair(), mode=mode, compile_args=metrics, **numbers)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", linear.MODES)
def test_metrics_of_labels_are_of_the_validation_alone(kind, mode):
    made = make(mode)
    fit = {"validation_data": linear.data(ROWS), **options_of(kind)}
    history = made.fit(KINDS[kind](), **fit).history
    assert {"loss", "soft_targets", "val_accuracy"} <= set(history)
    # Once more: the metric has seen the labels of the validation by now.
    assert "accuracy" not in made.fit(KINDS[kind](), **fit).history
    assert history["loss"] == pytest.approx([0.5 * value for value in history["soft_targets"]])
    assert "accuracy" in made.fit(*linear.data(ROWS), verbose=0).history


def test_evaluation_with_the_teacher():
    made = make()
    x, y = linear.data(ROWS)
    logs = made.evaluate(x, with_teacher=True, return_dict=True, verbose=0)
    assert set(logs) == {"loss", "hard_loss", "soft_targets"}
    assert "accuracy" in made.evaluate(x, y, return_dict=True, verbose=0)
    assert "accuracy" not in made.evaluate(x, with_teacher=True, return_dict=True, verbose=0)


@pytest.mark.parametrize("kind", KINDS)
def test_each_fit_is_checked_not_each_tracing(kind):
    made = make()
    made.fit(KINDS[kind](), **options_of(kind))  # this step is traced now
    made.alpha = 0.5  # no fit runs: the next one may have labels
    made.fit(*linear.data(ROWS), verbose=0)
    with pytest.raises(ValueError, match=r"no labels, but alpha=0\.5"):
        made.fit(KINDS[kind](), **options_of(kind))


def test_a_batch_without_labels():
    made = make()
    x, y = linear.data(ROWS)
    made.train_on_batch(x)
    made.alpha = 0.5
    made.train_on_batch(x, y)
    with pytest.raises(ValueError, match=r"no labels, but alpha=0\.5"):
        made.train_on_batch(x)


def test_a_generator_loses_nothing_by_being_looked_at():
    made, expected = make("eager"), make("eager")
    made.fit(generator(), **options_of("generator"))
    expected.fit(KINDS["arrays"](), batch_size=8, shuffle=False, verbose=0)
    assert int(made.optimizer.iterations) == 3
    for one, other in zip(made.student.get_weights(), expected.student.get_weights(), strict=True):
        assert one == pytest.approx(other, abs=1e-6)


@pytest.mark.parametrize("kind", ["arrays", "dataset"])
def test_validation_data_without_labels_raises_before_training(kind):
    made = make(alpha=0.5)
    with pytest.raises(ValueError, match="The evaluation data has no labels"):
        made.fit(*linear.data(ROWS), validation_data=KINDS[kind](), verbose=0)
    assert int(made.optimizer.iterations) == 0
    made.evaluate_with_teacher = True
    assert (
        "val_loss" in made.fit(*linear.data(ROWS), validation_data=KINDS[kind](), verbose=0).history
    )


def test_peers():
    peers = kd.MutualDistiller(list(linear.pair()), alpha=0.0)
    peers.compile("sgd", linear.from_logits(), metrics=["accuracy"])
    x, y = linear.data(ROWS)
    for _ in range(2):
        history = peers.fit(x, validation_data=(x, y), verbose=0).history
        assert "peer_0_accuracy" not in history
        assert "val_peer_0_accuracy" in history
    peers.alpha = 1.0
    assert "peer_1_accuracy" in peers.fit(x, y, verbose=0).history
    with pytest.raises(ValueError, match=r"no labels, but alpha=1\.0"):
        peers.fit(x, verbose=0)


def test_a_fit_that_was_refused_leaves_nothing_behind():
    made = make(alpha=0.5)
    with pytest.raises(ValueError, match="no labels"):
        made.fit(KINDS["arrays"](), verbose=0)
    made.alpha = 0.7
    rows = generator()
    stop = kd.callbacks.EarlyStopDistillation("val_loss")
    with pytest.raises(ValueError, match="no validation data"):
        made.fit(rows, callbacks=[stop], **options_of("generator"))
    assert len(list(rows)) == 3


def test_evaluations_without_labels_are_traced_once():
    made = make(alpha=0.0)
    made.evaluate_with_teacher = True
    traced, step = [], made.test_step
    made.test_step = lambda data: (traced.append(1), step(data))[1]
    x = KINDS["arrays"]()
    made.fit(x, validation_data=(x,), epochs=3, verbose=0)
    assert len(traced) == 1


class LabelsOfItsOwn(kd.Distiller):
    """Makes labels in its step."""

    def train_step(self, data):
        return super().train_step((data, tf.zeros(tf.shape(data)[:1], "int32")))


def test_a_step_that_makes_labels():
    made = LabelsOfItsOwn(*linear.pair())
    made.compile("sgd", linear.from_logits())
    assert made.fit(KINDS["arrays"](), verbose=0).history["hard_loss"][0] > 0

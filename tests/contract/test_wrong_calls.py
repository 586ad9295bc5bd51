"""Wrong calls raise before any step of training, and the remedies that are named work."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from tests.contract import fits
from tests.contract import wrong_calls as of_data
from tests.contract import wrong_calls_of_distillers as of_distillers
from tests.contract import wrong_calls_of_training as of_training
from tests.contract.arguments import dataset
from tests.contract.wrong_calls import batches, vectors

TABLE = {
    f"{room}: {name}": row
    for room, rows in {
        "schedules": of_data.OF_SCHEDULES,
        "weighting": of_data.OF_WEIGHTINGS,
        "data": of_data.OF_DATA,
        "teachers": of_data.OF_TEACHERS,
        "callbacks": of_training.OF_CALLBACKS,
        "losses": of_training.OF_LOSSES,
        "sequences": of_training.OF_SEQUENCES,
        "distiller": of_distillers.OF_DISTILLER,
        "taps": of_distillers.OF_TAPS,
        "fit": of_distillers.OF_FIT,
        "peers": of_distillers.OF_PEERS,
    }.items()
    for name, row in rows.items()
}


@pytest.fixture
def steps(monkeypatch):
    """How often an optimizer has been asked to change weights."""
    seen = []
    apply = keras.optimizers.SGD.apply

    def counted(self, *args, **kwargs):
        seen.append(self)
        return apply(self, *args, **kwargs)

    monkeypatch.setattr(keras.optimizers.SGD, "apply", counted)
    return seen


@pytest.mark.parametrize("name", TABLE)
def test_wrong_calls_raise_before_any_step(name, steps):
    call, message = TABLE[name]
    with pytest.raises(ValueError, match=f"(?s){message}"):
        call()
    assert not steps


def errors_of(call):
    with pytest.raises(ValueError, match=".") as found:
        call()
    return str(found.value)


def test_the_classes_that_mixing_names_are_those_of_the_data():
    for mix in (kd.data.mixup, kd.data.cutmix):
        with pytest.raises(tf.errors.InvalidArgumentError, match="num_classes=2.*labels.*2"):
            list(mix(dataset(), 2))
        for _, labels in mix(dataset(), 3):  # the remedy
            np.testing.assert_allclose(np.sum(labels, axis=1), 1.0, rtol=1e-6)


def test_a_dataset_of_single_rows_is_batched():
    assert "dataset.batch(batch_size)" in errors_of(lambda: kd.data.mixup(vectors(), 3))
    assert len(list(kd.data.mixup(vectors().batch(4), 3))) == 2


def test_integers_are_cast():
    data = batches(dtype="int32")
    assert "dataset.map(lambda x, y: (tf.cast(x, 'float32'), y))" in errors_of(
        lambda: kd.data.noise(data, 0.1)
    )
    list(kd.data.noise(data.map(lambda x, y: (tf.cast(x, "float32"), y)), 0.1))


def test_vectors_are_mixed_by_mixup():
    assert "keras_kd.data.mixup" in errors_of(lambda: kd.data.cutmix(batches(), 3))
    list(kd.data.mixup(batches(), 3))


def test_labels_are_cast_and_chosen():
    numbers = batches().map(lambda x, y: (x, tf.cast(y, "float32")))
    assert "tf.cast(labels, 'int32')" in errors_of(lambda: kd.data.mixup(numbers, 3))
    list(kd.data.mixup(numbers.map(lambda x, y: (x, tf.cast(y, "int32"))), 3))
    named = batches().map(lambda x, y: (x, {"a": y}))
    assert "dataset.map(lambda x, y: (x, y[key]))" in errors_of(lambda: kd.data.mixup(named, 3))
    list(kd.data.mixup(named.map(lambda x, y: (x, y["a"])), 3))


def test_labels_of_unlabeled_rows_are_left_out():
    message = errors_of(lambda: kd.data.with_unlabeled(batches(), batches()))
    assert "unlabeled.map(lambda x, *_: x)" in message
    list(kd.data.with_unlabeled(batches(), batches().map(lambda x, *_: x)))


def test_the_average_of_another_student_is_made_of_the_student():
    other, student = fits.network(1), fits.network(2)
    message = errors_of(lambda: kd.Distiller(kd.teachers.EMA(other), student))
    assert "keras_kd.teachers.EMA(student)" in message
    assert "keras_kd.teachers.EMA(model, copy=False)" in message
    kd.Distiller(kd.teachers.EMA(student), student)
    kd.Distiller(kd.teachers.EMA(other, copy=False), student)


def test_the_average_of_a_copy_with_the_same_weights_is_taken():
    student = fits.network(2)
    copy = keras.models.clone_model(student)
    copy.set_weights(student.get_weights())
    kd.Distiller(kd.teachers.EMA(copy), student)


def test_a_schedule_of_a_way_to_zero():
    assert "kd.schedules.Linear or Cosine" in errors_of(lambda: kd.schedules.Exponential(1.0, 0.0))
    assert kd.schedules.Linear(1.0, 0.0)(4, 5) == kd.schedules.Cosine(1.0, 0.0)(4, 5) == 0.0


def test_a_hint_between_the_same_layers_takes_its_name():
    def hinted(name):
        hint = kd.losses.FeatureHint("deep", "deep", name="hint")
        made = fits.distiller(fits.network(1), fits.network(2), hint)
        callback = kd.callbacks.FeatureHint("deep", "deep", name=name)
        return made.fit(*fits.data(), callbacks=[callback], verbose=0).history

    assert "Pass name='hint', or leave it out" in errors_of(lambda: hinted("other"))
    assert "hint_weight" in hinted("hint")
    assert "hint_weight" in hinted(None)


def test_a_weighting_of_probabilities_says_so():
    def distiller(weighting):
        loss = kd.losses.SoftTargets(from_logits=False)
        return kd.Distiller(fits.softmax(1), fits.softmax(2), loss, weighting=weighting)

    message = errors_of(lambda: distiller(kd.weighting.TeacherEntropy()))
    assert "TeacherEntropy(from_logits=False)" in message
    distiller(kd.weighting.TeacherEntropy(from_logits=False))


def test_exits_are_added_to_a_model_with_one_output():
    model = fits.heads_of_one()
    message = errors_of(lambda: kd.Distiller(kd.teachers.DeepestExit(), model))
    assert "keras_kd.students.add_exits(student, layers)" in message
    kd.Distiller(kd.teachers.DeepestExit(), kd.students.add_exits(fits.network(1), ["deep"]))


def test_one_output_is_chosen_for_monitor_and_weighting():
    x, y = fits.data()
    kd.Distiller(fits.heads(1), fits.heads(2), weighting=kd.weighting.TeacherEntropy(output="a"))
    monitor = kd.callbacks.DistillationMonitor(x, output="b")
    made = fits.distiller(fits.heads(1), fits.heads(2))
    assert "probe_kl" in made.fit(x, {"a": y, "b": y}, callbacks=[monitor], verbose=0).history

"""A distiller that is saved, loaded, interrupted and resumed trains as one that was not."""

import keras
import numpy as np
import pytest

import keras_kd as kd
from tests.distiller import linear


def network(units, seed):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((linear.FEATURES,)),
            keras.layers.Dense(units, "relu", kernel_regularizer="l2"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(linear.CLASSES),
        ]
    )


def distiller():
    teacher = network(9, 1)
    made = kd.Distiller(teacher, network(6, 2), kd.losses.SoftTargets(3.0, weight=0.7), alpha=0.3)
    made.compile(keras.optimizers.Adam(0.01), loss=linear.from_logits(), metrics=["accuracy"])
    return made


class Schedule(keras.callbacks.Callback):
    """Changes every live number, by the epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        self.model.alpha, self.model.beta = 0.2 + 0.1 * epoch, 0.9 - 0.1 * epoch
        self.model.temperature = 5.0 - epoch


class InterruptedFit(Exception):  # noqa: N818
    pass


class Interrupt(keras.callbacks.Callback):
    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise InterruptedFit


def fit(model, epochs, *callbacks, **kwargs):
    x, y = linear.data(60)
    options = {"batch_size": 16, "shuffle": False, "verbose": 0, **kwargs}
    return model.fit(x, y, epochs=epochs, callbacks=[Schedule(), *callbacks], **options).history


@pytest.fixture(scope="module")
def uninterrupted():
    model = distiller()
    history = fit(model, 4)
    return model, history


def assert_same(model, history, expected):
    np.testing.assert_equal(model.student.get_weights(), expected[0].student.get_weights())
    for key, values in history.items():
        assert values == expected[1][key][-len(values) :], key
    assert (model.alpha, model.beta) == (expected[0].alpha, expected[0].beta)
    assert model.temperature == expected[0].temperature


def test_saved_loaded_and_continued(tmp_path, uninterrupted):
    first = distiller()
    fit(first, 2)
    first.save(tmp_path / "distiller.keras")
    loaded = keras.models.load_model(tmp_path / "distiller.keras")
    assert loaded.distillation_losses[0].weight == np.float32(0.7)
    np.testing.assert_equal(loaded.teacher.get_weights(), first.teacher.get_weights())
    x = linear.data(60)[0]
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), first.predict(x, verbose=0))
    assert_same(loaded, fit(loaded, 4, initial_epoch=2), uninterrupted)


def test_backup_and_restore(tmp_path, uninterrupted):
    with pytest.raises(InterruptedFit):
        fit(distiller(), 4, keras.callbacks.BackupAndRestore(tmp_path / "backup"), Interrupt(2))
    resumed = distiller()
    history = fit(resumed, 4, keras.callbacks.BackupAndRestore(tmp_path / "backup"))
    assert len(history["loss"]) == 2
    assert_same(resumed, history, uninterrupted)


@pytest.mark.parametrize("weights_only", [False, True])
def test_model_checkpoint(tmp_path, uninterrupted, weights_only):
    path = tmp_path / ("c.weights.h5" if weights_only else "c.keras")
    checkpoint = keras.callbacks.ModelCheckpoint(path, save_weights_only=weights_only)
    fit(distiller(), 2, checkpoint)
    resumed = distiller()
    if weights_only:
        resumed.load_weights(path)
    else:
        resumed = keras.models.load_model(path)
    assert_same(resumed, fit(resumed, 4, initial_epoch=2), uninterrupted)


def test_a_teacher_that_keras_cannot_name_is_refused(tmp_path):
    teacher = network(9, 1)
    made = kd.Distiller(lambda x: teacher(x, training=False), network(6, 2))
    with pytest.raises(ValueError, match="register_keras_serializable"):
        made.save(tmp_path / "distiller.keras")
    assert not (tmp_path / "distiller.keras").exists()

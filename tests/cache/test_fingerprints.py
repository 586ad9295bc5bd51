"""A teacher's fingerprint tells it from others, and not from itself in another process."""

import keras
import numpy as np

import keras_kd as kd
from keras_kd.teachers import keras_model
from keras_kd.teachers.cache import fingerprints
from tests.cache import caches


def of(teacher):
    return fingerprints.fingerprint_teacher(keras_model.adapt(teacher))


def network(activation="tanh", dtype=None, slope=0.3):
    inputs = keras.Input((caches.FEATURES,))
    hidden = keras.layers.Dense(6, activation=activation, dtype=dtype)(inputs)
    hidden = keras.layers.LeakyReLU(slope)(hidden)
    built = keras.Model(inputs, keras.layers.Dense(3)(hidden) + 1.0)
    built.set_weights([np.full(w.shape, 0.5) for w in built.weights])
    return built


def test_names_do_not_count():
    assert of(network()) == of(network())
    assert network().layers[1].name != network().layers[1].name


def test_weights_and_configurations_do():
    other = network()
    weights = other.get_weights()
    weights[-1][0] = np.nextafter(weights[-1][0], np.float32(1))
    other.set_weights(weights)
    changed = [other, network("relu"), network(dtype="mixed_bfloat16"), network(slope=0.2)]
    assert len({of(network()), *map(of, changed)}) == 5


def test_of_ensembles_how_they_combine_counts():
    members = [caches.model(1), caches.model(2)]
    ensembles = [
        kd.teachers.Ensemble(members),
        kd.teachers.Ensemble(members, combine="confidence"),
        kd.teachers.Ensemble(members, weights=[1, 2]),
        kd.teachers.Ensemble(members, temperatures=[1, 2]),
        kd.teachers.Ensemble(members[::-1]),
    ]
    assert len(set(map(of, ensembles))) == 5
    assert of(kd.teachers.Ensemble(members)) == of(ensembles[0])


def test_functions_have_none():
    assert of(lambda x: x) is None
    assert of(kd.teachers.KerasTeacher(network(), preprocess=lambda x: x)) is None
    assert of(kd.teachers.Ensemble([caches.model(1), lambda x: x])) is None


@keras.saving.register_keras_serializable("tests.fingerprints")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.head = keras.layers.Dense(3, kernel_initializer="ones")

    def call(self, x):
        return self.head(x)


def test_how_it_was_trained_does_not_count():
    """A teacher fine-tuned here is the one that another process loads, whatever optimizer it had."""

    def compiled(optimizer):
        made = Subclassed()
        made(np.zeros((1, caches.FEATURES), "float32"))
        if optimizer:
            made.compile(optimizer, "mse", metrics=["accuracy"])
        return kd.teachers.KerasTeacher(made)

    assert len({of(compiled(optimizer)) for optimizer in (None, "adam", "sgd")}) == 1

"""Scenarios with other teachers than a Keras model; imported, they join `scenarios.SCENARIOS`."""

import pathlib
import tempfile

import keras
import numpy as np
import tensorflow as tf

import keras_kd as kd
from tests.distribution import scenarios
from tests.distribution.scenarios import BATCH, CLASSES, FEATURES, distiller_for, scenario, train


@scenario
def ensemble(strategy):
    def models():
        members = [scenarios.network(8), scenarios.network(4)]
        return kd.teachers.Ensemble(members, combine="confidence"), scenarios.network(6)

    return train(distiller_for(strategy, models=models), *scenarios.data(71), evaluate=True)


@scenario
def ema(strategy):
    """The running average is the same on all replicas, and that of one process."""

    def models():
        inputs = keras.Input((FEATURES,))
        normal = keras.layers.BatchNormalization()(keras.layers.Dense(6)(inputs))
        student = keras.Model(inputs, keras.layers.Dense(CLASSES)(normal))
        return kd.teachers.EMA(student, 0.8), student

    distiller = distiller_for(strategy, models=models)
    # Full batches: Keras' batch normalization averages over replicas, not over their rows.
    result = train(distiller, *np_repeated(64))
    own = [weight.numpy().tolist() for weight in distiller.teacher.model.trainable_weights]
    return {**result, "weights": own}


def np_repeated(rows):
    """Each row twice, next to the other, so that both replicas see the same statistics."""
    x, y, weight = scenarios.data(rows // 2)
    order = np.concatenate([np.tile(part, 2) for part in np.split(np.arange(rows // 2), 4)])
    return x[order], y[order], weight[order]


@scenario
def host(strategy):
    class Host(kd.teachers.HostTeacher):
        def predict(self, inputs, layers=()):
            return np.tanh(inputs[:, :CLASSES] * 3.0), {}

    distiller = distiller_for(strategy, models=lambda: (Host(), scenarios.network(6)))
    return train(distiller, *scenarios.data(71), evaluate=True)


FORMS = (
    {"dtype": "float32", "taps": ["hidden"]},
    {"top_k": 2},
    {"top_k": 2, "dtype": "compact"},
)


@scenario
def cached(strategy, forms=FORMS):
    """From disk, with a hint of a layer that was kept, and top-k logits in further runs."""
    x, y, _ = scenarios.data(71)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH)
    results = []
    with tempfile.TemporaryDirectory() as name:
        for options in forms:
            path = pathlib.Path(name) / str(len(results))
            kd.cache_teacher(fixed_teacher(), data, path, verbose=0, **options)
            joined = kd.load_cache(path, data)
            losses = [kd.losses.SoftTargets()]
            if "taps" in options:
                losses.append(kd.losses.FeatureHint("hidden", "hidden", name="hint"))
            distiller = distiller_for(
                strategy,
                models=lambda path=path: (kd.teachers.Cached(path), scenarios.network(6)),
                losses=lambda losses=losses: losses,
            )
            history = distiller.fit(joined, epochs=2, shuffle=False, verbose=0)
            results.append(scenarios.outcome(distiller, history, {}))
    return {
        "weights": [weight for result in results for weight in result["weights"]],
        "history": {f"{k} {i}": v for i, r in enumerate(results) for k, v in r["history"].items()},
        "evaluate": {},
    }


def fixed_teacher():
    """Outside of any strategy, and the same whatever was made before it."""
    teacher = scenarios.network(8)
    rng = np.random.default_rng(5)
    teacher.set_weights([rng.normal(size=weight.shape) for weight in teacher.weights])
    return teacher

"""Students that are made for devices while a strategy trains them: rounded, pruned, clustered."""

import keras
from keras import layers

import keras_kd as kd
from tests.distribution import scenarios


def aware(strategy, scheme):
    """With BatchNormalization, whose statistics pass through the scope of the rounded weights."""
    x, y, weight = scenarios.data(71)

    def models():
        inputs = keras.Input((scenarios.FEATURES,))
        hidden = layers.Dense(6, use_bias=False, name="hidden")(inputs)
        normal = layers.BatchNormalization(synchronized=True, name="normal")(hidden)
        outputs = layers.Dense(scenarios.CLASSES, name="logits")(layers.ReLU(name="relu")(normal))
        student = keras.Model(inputs, outputs)
        # Frozen from the start: batches that are cut in two have other extremes than whole ones.
        return scenarios.network(8), kd.quantization_aware(student, scheme, x, observe_steps=0)

    distiller = scenarios.distiller_for(strategy, models=models)
    return scenarios.train(distiller, x[:64], y[:64], weight[:64], evaluate=True)


@scenarios.scenario
def aware_int8(strategy):
    return aware(strategy, "int8")


@scenarios.scenario
def aware_int4(strategy):
    return aware(strategy, "int4")


@scenarios.scenario
def moving_ranges(strategy):
    """Replicas see halves of a batch; what they agree on is the mean of their ranges."""
    x, y, _ = scenarios.data(64)
    halves = x.reshape(4, scenarios.BATCH, -1)
    halves[:, : scenarios.BATCH // 2] = halves[:, scenarios.BATCH // 2 :]  # both see the same

    def models():
        student = kd.quantization_aware(scenarios.network(6), "int8", x, observe_steps=3)
        return scenarios.network(8), student

    return scenarios.train(scenarios.distiller_for(strategy, models=models), x, y)


@scenarios.scenario
def pruned(strategy):
    distiller = scenarios.distiller_for(strategy)
    callback = kd.sparsify(distiller.student, 0.5, end_step=4, frequency=1)
    return scenarios.train(distiller, *scenarios.data(71)[:2], callbacks=[callback])


@scenarios.scenario
def clustered(strategy):
    distiller = scenarios.distiller_for(strategy)
    callback = kd.cluster(distiller.student, clusters=4)
    return scenarios.train(distiller, *scenarios.data(71)[:2], callbacks=[callback])

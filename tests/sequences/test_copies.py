"""Copies have the architecture of their template, and nothing of its state."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_kd.models import cloning
from tests.distribution.scenarios import Subclassed


def seeded(seed):
    return keras.initializers.RandomNormal(seed=seed)


def functional():
    """A nested model, and a layer that is called twice."""
    inner = keras.Sequential([keras.Input((5,)), layers.Dense(5, kernel_initializer=seeded(1))])
    inputs = keras.Input((5,))
    shared = layers.Dense(5, kernel_initializer=seeded(2))
    return keras.Model(inputs, shared(inner(shared(inputs))))


def subclassed():
    model = Subclassed()
    model(np.zeros((2, 5), "float32"))
    return model


def frozen():
    model = keras.Sequential([keras.Input((5,)), layers.Dense(3), layers.BatchNormalization()])
    model.layers[0].trainable = False
    return model


@pytest.mark.parametrize("make", [functional, subclassed, frozen])
def test_the_architecture_is_the_same_and_the_weights_are_not(make):
    template = make()
    template.set_weights([weight + 7.0 for weight in template.get_weights()])
    copy = cloning.clone_model(template, 1)
    assert type(copy) is type(template)
    assert len(copy.trainable_weights) == len(template.trainable_weights)
    assert [tuple(w.shape) for w in copy.weights] == [tuple(w.shape) for w in template.weights]
    for one, other in zip(copy.get_weights(), template.get_weights(), strict=True):
        assert (one != other).all()


def test_seeds_of_initializers_differ_by_number():
    template = functional()
    first = [cloning.clone_model(template, number).get_weights() for number in (0, 0, 1, 2)]
    np.testing.assert_equal(first[0], template.get_weights())
    np.testing.assert_equal(first[1], first[0])
    kernels = [weights[i] for weights in first[1:] for i in (0, 2)]
    for i, one in enumerate(kernels):
        assert all((one != other).any() for other in kernels[:i])


def test_copies_of_optimizers_and_metrics_start_from_scratch():
    optimizer = keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.5, 10, 0.9), 0.3)
    optimizer.build([keras.Variable(1.0)])
    optimizer.iterations.assign(5)
    copy = cloning.clone_optimizer(optimizer)
    assert (copy.iterations, copy.momentum, copy.built) == (0, 0.3, False)
    assert copy.get_config()["learning_rate"] == optimizer.get_config()["learning_rate"]
    metric = keras.metrics.Mean("m")
    metric.update_state(3.0)
    made = cloning.copies_of({"a": [metric, "accuracy", None]})
    assert made["a"][1:] == ["accuracy", None]
    assert (made["a"][0].name, float(made["a"][0].result())) == ("m", 0.0)


def test_what_layers_adapted_to_is_taken_over():
    x = np.random.default_rng(0).normal(5, 3, size=(64, 5)).astype("float32")
    normal = layers.Normalization()
    normal.adapt(x)
    template = keras.Sequential([keras.Input((5,)), normal, layers.Dense(3)])
    copy = cloning.clone_model(template, 1)
    np.testing.assert_allclose(copy.layers[0](x), normal(x), rtol=1e-6)
    assert np.abs(copy.layers[1].kernel - template.layers[1].kernel).max() > 0


def test_vocabularies_are_taken_over():
    texts = layers.TextVectorization(output_mode="multi_hot")
    texts.adapt(["a b c", "b c d"])
    template = keras.Sequential([keras.Input((1,), dtype="string"), texts, layers.Dense(3)])
    said = tf.constant([["a b"], ["d"]])
    np.testing.assert_allclose(cloning.with_weights(template)(said), template(said), rtol=1e-6)
    assert cloning.clone_model(template, 1).layers[0].get_vocabulary() == texts.get_vocabulary()


def test_word_weights_that_keras_cannot_copy_raise():
    texts = layers.TextVectorization(output_mode="tf_idf", name="texts")
    texts.adapt(["a b c", "b c d"])
    template = keras.Sequential([keras.Input((1,), dtype="string"), texts, layers.Dense(3)])
    with pytest.raises(ValueError, match="'texts' counts words by tf-idf"):
        cloning.with_weights(template)

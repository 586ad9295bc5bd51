"""Models with several inputs, models without known shapes, teachers that see other inputs."""

import keras
import numpy as np
import pytest
from keras import layers

from tests import matrix
from tests.distiller import linear
from tests.distiller.linear import Loop, assert_same_values, assert_same_weights, compiled


def halves(structure):
    """A linear model whose five inputs come in two parts."""
    a, b = keras.Input((2,), name="a"), keras.Input((3,), name="b")
    joined = layers.Concatenate()([a, b])
    return keras.Model(structure(a, b), layers.Dense(linear.CLASSES)(joined))


STRUCTURES = {"dict": lambda a, b: {"a": a, "b": b}, "list": lambda a, b: [a, b]}


@pytest.mark.parametrize("kind", STRUCTURES)
@pytest.mark.parametrize("mode", matrix.modes("eager", "graph"))
def test_several_inputs(mode, kind):
    teacher, student = linear.pair()
    models = halves(STRUCTURES[kind]), halves(STRUCTURES[kind])
    for model, flat in zip(models, (teacher, student), strict=True):
        model.set_weights(flat.get_weights())
    x, y = linear.data()
    inputs, loop = STRUCTURES[kind](x[:, :2], x[:, 2:]), Loop(teacher, student)
    distiller = compiled(*models, mode=mode)
    history = distiller.fit(inputs, y, batch_size=8, shuffle=False, verbose=0).history
    assert_same_values(history, loop.fit(x, y))
    assert_same_weights(models[1], loop)
    np.testing.assert_allclose(
        distiller.predict(inputs, verbose=0), linear.logits_of(models[1], x), rtol=1e-4, atol=1e-5
    )


def test_an_optional_input_that_is_missing():
    def model():
        a, b = keras.Input((5,), name="a", optional=True), keras.Input((5,), name="b")
        return keras.Model({"a": a, "b": b}, layers.Dense(linear.CLASSES)(b))

    teacher, student = model(), model()
    x, y = linear.data()
    loop = Loop(teacher, student)
    distiller = compiled(teacher, student)
    distiller.fit({"a": None, "b": x}, y, batch_size=8, shuffle=False, verbose=0)
    loop.fit(x, y)
    assert_same_weights(student, loop)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(linear.CLASSES)

    def call(self, inputs):
        return self.dense(inputs)


MAKES = {"subclassed": Subclassed, "sequential": lambda: keras.Sequential([layers.Dense(4)])}


@pytest.mark.parametrize("make", MAKES)
def test_a_student_whose_shapes_are_known_only_from_the_data(make):
    teacher, student = linear.linear(1), MAKES[make]()
    x, y = linear.data()
    distiller = compiled(teacher, student, mode="graph")
    student(x[:1])
    loop = Loop(teacher, student)
    history = distiller.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0).history
    assert_same_values(history, loop.fit(x, y, epochs=2))
    assert_same_weights(student, loop)


@pytest.mark.parametrize("make", MAKES)
def test_a_student_that_fit_builds(make):
    x, y = linear.data()
    student = MAKES[make]()
    distiller = compiled(linear.linear(1), student, mode="graph")
    distiller.fit(x, y, verbose=0)
    assert [weight.shape for weight in student.weights] == [(5, 4), (4,)]
    assert len(distiller.trainable_variables) == 2


def test_a_function_teaches_and_sees_preprocessed_inputs():
    teacher, student = linear.pair()
    x, y = linear.data()
    seen = []

    def twice(inputs):
        seen.append(inputs)
        return teacher(inputs / 2.0)

    loop = Loop(teacher, student)
    distiller = compiled(twice, student, teacher_preprocess=lambda inputs: inputs * 2.0)
    logs = distiller.train_on_batch(x, y, return_dict=True)
    np.testing.assert_array_equal(seen[-1], 2 * x)
    assert_same_values(logs, loop.step(x, y))
    assert_same_weights(student, loop)


def test_teacher_preprocess_may_pick_one_of_several_inputs():
    teacher, small = linear.pair()
    a, b = keras.Input((5,), name="a"), keras.Input((3, 2), name="b")
    student = keras.Model({"a": a, "b": b}, layers.Dense(linear.CLASSES)(a))
    student.set_weights(small.get_weights())
    x, y = linear.data()
    loop = Loop(teacher, student)
    distiller = compiled(teacher, student, teacher_preprocess=lambda inputs: inputs["a"])
    inputs = {"a": x, "b": np.zeros((len(x), 3, 2), "float32")}
    assert_same_values(distiller.train_on_batch(inputs, y, return_dict=True), loop.step(x, y))
    assert_same_weights(student, loop)


class OfDict(keras.Model):
    """Takes a dict and, as a plain `call` does, no mask."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(linear.CLASSES)

    def call(self, inputs):
        return self.dense(inputs["x"])


def test_a_subclassed_student_of_a_dict_that_takes_no_mask():
    x, y = linear.data()
    distiller = compiled(OfDict(), OfDict())
    history = distiller.fit({"x": x}, y, batch_size=8, epochs=3, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]

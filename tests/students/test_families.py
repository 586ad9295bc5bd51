"""What holds for a student of each family of models."""

import keras
import numpy as np
import pytest

import keras_kd as kd
from tests.students import networks


@pytest.fixture(params=networks.FAMILIES)
def teacher(request):
    keras.utils.set_random_seed(0)
    model = networks.FAMILIES[request.param]()
    networks.randomize(model)
    return model


def outputs(model, x):
    return [np.asarray(y) for y in keras.tree.flatten(model(x, training=False))]


def shrink(teacher, **kwargs):
    return kd.students.shrink(teacher, print_fn=None, **kwargs)


def test_a_whole_copy_computes_the_same(teacher):
    student, x = shrink(teacher), networks.data(teacher)
    for expected, received in zip(outputs(teacher, x), outputs(student, x), strict=True):
        np.testing.assert_array_equal(received, expected)
    names = [layer.name for layer in teacher.layers]
    assert [layer.name for layer in student.layers] == names
    assert student.name == teacher.name + "_student"
    assert type(student) is type(teacher)


def test_a_narrow_student_is_what_was_planned(teacher):
    config, weights = teacher.get_config(), teacher.get_weights()
    rows = kd.students.plan(teacher, width=0.5)
    student = shrink(teacher, width=0.5)
    made = {row["layer"]: kd.models.paths.find_layer(student, row["layer"]).weights for row in rows}
    for row in rows:
        assert [tuple(weight.shape) for weight in made[row["layer"]]] == row["student_shape"]
    assert sum(len(weights) for weights in made.values()) == len(student.weights)
    assert student.count_params() < 0.6 * teacher.count_params()

    x = networks.data(teacher)
    for expected, received in zip(outputs(teacher, x), outputs(student, x), strict=True):
        assert received.shape == expected.shape
        assert np.isfinite(received).all()
    assert teacher.get_config() == config
    for before, after in zip(weights, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    assert not {id(weight) for weight in teacher.weights} & {id(w) for w in student.weights}


def test_the_plan_says_where_the_weights_come_from(teacher):
    plans = {
        copy: kd.students.plan(teacher, width=0.5, copy=copy) for copy in ("slice", "average", None)
    }
    for sliced, averaged, new in zip(*plans.values(), strict=True):
        assert new["how"] == "new"
        is_narrowed = sliced["student_shape"] != sliced["teacher_shape"]
        assert sliced["how"] == ("sliced" if is_narrowed else "copied")
        assert averaged["how"] == ("averaged" if is_narrowed else "copied")
        assert sliced["student_shape"] == averaged["student_shape"] == new["student_shape"]


def test_a_student_is_saved_and_loaded(teacher, tmp_path):
    student, x = shrink(teacher, width=0.5), networks.data(teacher)
    student.save(tmp_path / "student.keras")
    loaded = keras.saving.load_model(tmp_path / "student.keras")
    for expected, received in zip(outputs(student, x), outputs(loaded, x), strict=True):
        np.testing.assert_allclose(received, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("teacher", ["mlp", "densenet", "various"], indirect=True)
def test_a_student_is_trained(teacher):
    student, x = shrink(teacher, width=0.5), networks.data(teacher)
    targets = keras.tree.map_structure(np.zeros_like, teacher(x))
    student.compile(keras.optimizers.Adam(0.01), loss="mse", run_eagerly=True)
    losses = student.fit(x, targets, epochs=6, verbose=0).history["loss"]
    assert losses[-1] < 0.9 * losses[0]

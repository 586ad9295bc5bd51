"""The engine of tensorflow-model-optimization, in a process of its own: its import has effects."""

import pytest

from tests import extras, fresh_process

pytestmark = pytest.mark.in_turn(4)

extras.require_in_a_process("tensorflow_model_optimization", "tf_keras", "sklearn")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    output = tmp_path_factory.mktemp("tfmot") / "found.json"
    return fresh_process.run_json("tests.quantization.tfmot_runs", output)


def test_the_copy_in_tf_keras_computes_the_same(found):
    # Layers named as tfmot names its own ("conv2d", "depthwise_conv2d") are among them.
    assert found["parity"] < 1e-4
    assert found["kept"], "the student of the caller has changed"


def test_accuracy_within_two_points_of_float(found):
    assert found["float_accuracy"] > 0.9
    assert found["accuracy"] > found["float_accuracy"] - 0.02
    assert found["history"][-1] < found["history"][0]


def test_file_is_integer_and_agrees_with_student(found):
    assert set(found["types"]) <= {"int8", "int32"}
    assert found["agreement"] >= 0.99
    assert found["exported_agreement"] == found["agreement"]
    assert found["file_accuracy"] > found["float_accuracy"] - 0.02


def test_the_teacher_teaches(found):
    assert found["unlike"] < 0.6
    assert found["alike"] > 0.9


def test_a_model_of_tf_keras_is_taken_as_it_is(found):
    assert found["of_tf_keras"] == []


def test_the_environment_is_as_before(found):
    assert found["environment"]


def test_all_layers_of_the_table_become_integers(found):
    assert found["many_layers"] == []
    assert found["many_layers_difference"] < 8.0  # steps of the output


def test_weights_of_rows_count_in_either_shape(found):
    equal, plain, column = found["weights"]
    assert plain == pytest.approx(column, rel=1e-6)
    assert abs(plain[0] - equal[0]) > 0.05


def test_two_inputs_are_taken_as_a_list(found):
    assert found["two_inputs"] > 0.8


def test_one_logit_is_refused(found):
    assert "has one logit, whose softmax is always 1" in found["one_logit"]

"""uint8 inputs and outputs by the route of ai-edge-quantizer."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_kd as kd
from keras_kd.runtimes import TFLiteFile

ROWS = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")


def of_two():
    numbers, ids = keras.Input((8,), name="numbers"), keras.Input((3,), dtype="int32", name="ids")
    table = layers.Flatten()(layers.Embedding(9, 4)(ids))
    x = layers.Dense(8, activation="relu")(layers.Concatenate()([numbers, table]))
    outputs = {"kind": layers.Dense(4, name="kind")(x), "size": layers.Dense(2, name="size")(x)}
    return keras.Model({"numbers": numbers, "ids": ids}, outputs)


def integers(path, rows):
    """What LiteRT itself gives for real numbers: `{output: (integers, detail)}`, all as int16."""
    from ai_edge_litert import interpreter as litert

    runner = litert.Interpreter(model_path=str(path)).get_signature_runner()
    found = []
    for i in range(len(next(iter(rows.values())))):
        given = {}
        for name, detail in runner.get_input_details().items():
            value, (scale, zero) = rows[name][i : i + 1], detail["quantization"]
            if scale:
                limits = np.iinfo(detail["dtype"])
                value = np.clip(np.rint(value / np.float32(scale)) + zero, limits.min, limits.max)
            given[name] = value.astype(detail["dtype"])
        found.append(runner(**given))
    details = runner.get_output_details()
    stacked = {k: np.concatenate([each[k] for each in found]).astype("int16") for k in details}
    return stacked, runner.get_input_details(), details


@pytest.mark.parametrize("is_aware", [False, True], ids=["plain", "aware"])
def test_the_integers_are_128_higher(tmp_path, is_aware):
    keras.utils.set_random_seed(0)
    ids = np.random.default_rng(1).integers(9, size=(64, 3)).astype("int32")
    rows = {"numbers": ROWS, "ids": ids}
    student = of_two()
    if is_aware:
        student = kd.quantization_aware(student, "int8", rows)

    def made(**kwargs):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.tflite"
        route = "edge_quantizer"
        return kd.export.to_tflite(
            student, path, "int8", representative_data=rows, route=route, **kwargs
        )

    signed = made()
    both = made(input_dtype="uint8", output_dtype="uint8")
    assert {x.name: x.dtype for x in both.inputs} == {"numbers": "uint8", "ids": "int32"}
    assert {x.dtype for x in both.outputs} == {"uint8"}
    assert both.operators["QUANTIZE"] == signed.operators.get("QUANTIZE", 0) + 3
    assert both.agreement == signed.agreement
    assert both.worst_difference == signed.worst_difference
    assert both.float_operators == both.notes == []
    expected, inputs, outputs = integers(signed.path, rows)
    found, unsigned_inputs, unsigned_outputs = integers(both.path, rows)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values + 128)
        scale, zero = outputs[name]["quantization"]
        assert unsigned_outputs[name]["quantization"] == (scale, zero + 128)
    scale, zero = inputs["numbers"]["quantization"]
    assert unsigned_inputs["numbers"]["quantization"] == (scale, zero + 128)


PAIRS = [
    ("int8", "int8"),
    ("uint8", "int8"),
    ("int8", "uint8"),
    ("uint8", "float32"),
    ("float32", "uint8"),
]


def test_types_of_inputs_and_outputs_in_pairs(tmp_path):
    keras.utils.set_random_seed(0)
    student = keras.Sequential([keras.Input((8,)), layers.Dense(4)])
    aware = kd.quantization_aware(student, "int8", ROWS)
    found = []
    for input_dtype, output_dtype in PAIRS:
        done = kd.export.to_tflite(
            aware,
            tmp_path / "s.tflite",
            representative_data=ROWS,
            input_dtype=input_dtype,
            output_dtype=output_dtype,
            overwrite=True,
        )
        file = TFLiteFile(done.path)
        assert (file.inputs[0].dtype, file.outputs[0].dtype) == (input_dtype, output_dtype)
        found.append(file.run(ROWS)[0])
    for each in found[1:]:
        np.testing.assert_allclose(each, found[0], rtol=1e-6)


def test_another_way_around_the_file_is_kept(tmp_path):
    """Metadata, and an input that is an output."""
    inputs = keras.Input((8,), name="numbers")
    student = keras.Model(inputs, [layers.Dense(2, name="a")(inputs), layers.Identity()(inputs)])
    done = kd.export.to_tflite(
        student,
        tmp_path / "s.tflite",
        "int8",
        representative_data=ROWS,
        input_dtype="uint8",
        output_dtype="uint8",
        user_metadata={"classes": ["a", "b"]},
    )
    assert kd.export.read_metadata(done.path)["user"] == {"classes": ["a", "b"]}
    assert done.route == "edge_quantizer"
    copied = TFLiteFile(done.path).run(ROWS)[1]
    np.testing.assert_allclose(copied, ROWS, atol=0.51 * done.inputs[0].scale)

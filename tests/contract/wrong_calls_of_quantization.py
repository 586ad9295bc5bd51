"""Wrong calls of quantization and compression, and what the error must say."""

import functools

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import keras_kd as kd
from keras_kd.quantization import tfmot
from tests.contract import fits
from tests.contract.calls import NAN, argument, fit, values

X, Y = fits.data()
ROWS = np.random.default_rng(0).normal(size=(32, 3)).astype("float32")
aware_of, recalibrate = kd.quantization_aware, kd.quantization.recalibrate
Aware, Cluster, Sparsify = (
    kd.quantization.QuantizationAware,
    kd.callbacks.Cluster,
    kd.callbacks.Sparsify,
)


@functools.cache
def student():
    return fits.network(2)


@functools.cache
def weights_only():
    return aware_of(student(), "int4")


@functools.cache
def integers():
    return aware_of(student(), "int8", ROWS)


def around(layer, shape=(3,), **options):
    return keras.Sequential([keras.Input(shape, **options), layer, layers.Dense(5)])


def with_lora():
    made = fits.network(2)
    made.get_layer("deep").enable_lora(2)
    return made


def quantized_by_keras():
    made = fits.network(2)
    made.get_layer("deep").quantize("int8")
    return made


class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(3)

    def call(self, inputs):
        return self.dense(inputs)


class Kernel(layers.Layer):
    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 5), name="kernel")

    def call(self, inputs):
        return inputs @ self.kernel


class Unmade(layers.Layer):
    """Keras cannot make it again."""

    def __init__(self, function):
        super().__init__(name="unmade")
        self.function = function

    def call(self, inputs):
        return self.function(inputs)


def called(model):
    model(ROWS)
    return model


def of_nothing_known():
    return kd.quantization_aware(called(Subclassed()), "int4")


def ids(dtype):
    table = layers.Embedding(7, 4)
    return keras.Sequential(
        [keras.Input((4,), dtype=dtype), table, layers.Flatten(), layers.Dense(5)]
    )


def exported(aware, **options):
    return kd.export.to_tflite(aware, "never_written.tflite", **options)


OF_AWARE = {
    **values(aware_of, "scheme", "one of .*int8.*int4", ["int3", None, ["int8"], 8], student=None),
    **values(
        aware_of, "observe_steps", "an integer, at least 0", [-1, 1.5, True, "9"], student=None
    ),
    **values(aware_of, "name", "a name, or None", [3, ""], student=None, scheme="int4"),
    "no model": (lambda: aware_of("student", "int4"), "`student` must be a keras.Model"),
    "a distiller": (
        lambda: aware_of(fits.of_models(), "int4"),
        "Pass the model that it trains: distiller.student",
    ),
    "a student that is aware": (
        lambda: aware_of(weights_only(), "int4"),
        "quantization-aware already.* student.student",
    ),
    "a student without weights": (
        lambda: aware_of(keras.Sequential([layers.Dense(3)]), "int4"),
        "has no weights yet. Call it on a batch, or give it an Input",
    ),
    "a student that does not know its inputs": (of_nothing_known, "has no input signature.*Make a"),
    "a student that Keras quantized": (
        lambda: aware_of(quantized_by_keras(), "int4"),
        "model.quantize has changed layers",
    ),
    "LoRA": (lambda: aware_of(with_lora(), "int8", ROWS), r"'deep'.*have LoRA enabled.*merged ="),
    "LoRA, weights alone": (lambda: aware_of(with_lora(), "int4"), "have LoRA enabled"),
    "leave as a text": (
        lambda: aware_of(student(), "int4", leave="deep"),
        argument("leave", "a list of paths of layers", "'deep'"),
    ),
    "leave of no layer": (
        lambda: aware_of(student(), "int4", leave=["dep"]),
        r"has no layer 'dep'. Close to it: \['deep'",
    ),
    "an unknown kernel": (
        lambda: aware_of(around(Kernel(name="mine")), "int4"),
        r"'mine' of type Kernel.*leave=\['mine'\]",
    ),
    "what cannot be copied": (
        lambda: aware_of(around(Unmade(tf.identity)), "int4"),
        "cannot be copied.*get_config",
    ),
    "no data": (lambda: aware_of(student(), "int8"), "`representative_data` is missing.*take"),
    "few rows": (lambda: aware_of(student(), "int8", ROWS[:4]), "has 4 samples; fewer than 10"),
    "data of one number": (
        lambda: aware_of(student(), "int8", np.ones((32, 3), "float32")),
        "is 1.0 everywhere",
    ),
    "data of another shape": (
        lambda: aware_of(student(), "int8", ROWS[:, :2]),
        r"must have the shape \(None, 3\)",
    ),
    "data of another shape, weights alone": (
        lambda: aware_of(student(), "int4", ROWS[:, :2]),
        r"must have the shape \(None, 3\)",
    ),
    "data with NaN": (lambda: aware_of(student(), "int8", NAN * ROWS), "holds NaN or infinity"),
    "data without an end": (
        lambda: aware_of(student(), "int8", tf.data.Dataset.from_tensors(ROWS).repeat()),
        r"endless.*dataset.take\(8\)",
    ),
    "indices as real numbers": (
        lambda: aware_of(ids("float32"), "int8", np.ones((32, 4), "float32")),
        "must be|which an Embedding reads.*dtype='int32'",
    ),
    "indices beyond the table": (
        lambda: aware_of(ids("int32"), "int8", np.full((32, 4), 7)),
        "goes from 7 to 7, beyond the embedding",
    ),
    "a loop": (
        lambda: aware_of(around(layers.GRU(4), (5, 3)), "int8", np.ones((32, 5, 3), "float32")),
        "recurrent layers.*unroll=True",
    ),
    "a parametric ReLU": (
        lambda: aware_of(around(layers.PReLU(name="sloped")), "int8", ROWS),
        r"'sloped' \(PReLU\).*PRELU.*ReLU for an activation.*scheme='int4'",
    ),
    "a normalization of groups": (
        lambda: aware_of(around(layers.GroupNormalization(1, name="groups")), "int8", ROWS),
        r"'groups' \(GroupNormalization\).*LayerNormalization",
    ),
    "pixels as integers": (
        lambda: aware_of(
            around(layers.Rescaling(0.1), dtype="uint8"), "int8", np.abs(ROWS * 99).astype("uint8")
        ),
        "'CAST'.*'float32' for pixels.*input_dtype='uint8'",
    ),
}

OF_CLASSES = {
    **values(Aware, "student", "a built keras.Model", ["student", None]),
    "QuantizationAware(scheme='int2')": (
        lambda: Aware(student(), "int2"),
        argument("scheme", "one of", "'int2'"),
    ),
    "QuantizationAware(observe_steps=0.5)": (
        lambda: Aware(student(), observe_steps=0.5),
        argument("observe_steps", "an integer, at least 0", "0.5"),
    ),
    "roundings of another student": (
        lambda: Aware(fits.heads_of_one(), roundings=integers().get_config()["roundings"]),
        argument("roundings", "layers of 'functional", "'deep'"),
    ),
    "operands of another student": (
        lambda: Aware(student(), operands=[["table", 0]]),
        argument("operands", "layers of", "'table'"),
    ),
    "LoRA that came later": (lambda: lora_later()(ROWS), "have LoRA enabled"),
}


def lora_later():
    aware = aware_of(fits.network(3), "int4")
    aware.student.get_layer("deep").enable_lora(2)
    return aware


def batches():
    return tf.data.Dataset.from_tensor_slices(X).batch(4)


OF_RECALIBRATION = {
    "no model to recalibrate": (lambda: recalibrate("model", batches()), argument("model", "a k")),
    "arrays": (
        lambda: recalibrate(student(), X),
        argument("data", "a batched tf.data.Dataset", "ndarray"),
    ),
    "single rows": (
        lambda: recalibrate(student(), tf.data.Dataset.from_tensor_slices(X)),
        r"call data.batch\(batch_size\) first.*\(3,\)",
    ),
    **{
        f"max_batches={value!r}": (
            lambda value=value: recalibrate(student(), batches(), value),
            argument("max_batches", "an integer, at least 1"),
        )
        for value in (0, 2.5, None)
    },
    "no batches": (
        lambda: recalibrate(around(layers.BatchNormalization()), batches().take(0)),
        "The data is empty",
    ),
}

OF_EXPORTS = {
    "another quantization": (
        lambda: exported(integers(), quantization="dynamic", representative_data=ROWS),
        "trained for 'int8', so its file is.*pass the student itself: aware.student",
    ),
    "a float file": (
        lambda: exported(weights_only(), quantization="float16"),
        "trained for 'int4'",
    ),
    "no data for the file": (lambda: exported(integers()), "`representative_data` is missing"),
    "integers of a file of floats": (
        lambda: exported(weights_only(), input_dtype="int8"),
        "computes with floats",
    ),
    "the converter": (
        lambda: exported(integers(), representative_data=ROWS, route="converter"),
        argument("route", "'auto' or one of .*edge_quantizer"),
    ),
    "an unknown type": (
        lambda: exported(integers(), representative_data=ROWS, output_dtype="int4"),
        argument("output_dtype", "one of"),
    ),
    "an aware student to ONNX": (
        lambda: kd.export.to_onnx(integers(), "never_written.onnx"),
        r"Only kd.export.to_tflite.*student.rounded_student\(\)",
    ),
}


def distill(data=(X, Y), teacher=None, learner=None, **options):
    return tfmot.distill(teacher or fits.network(1), learner or fits.network(2), data, **options)


OF_TFMOT = {
    **values(distill, "epochs", "an integer, at least 1", [0, 1.5]),
    **values(distill, "batch_size", "an integer, at least 1", [0, None]),
    **values(distill, "learning_rate", "a (finite )?number", [0, -1.0, "fast"]),
    **values(distill, "seed", "an integer, at least 0", [-1, "one"]),
    "temperature of 0": (lambda: distill(temperature=0), "temperature"),
    "no student of Keras": (
        lambda: distill(learner="student"),
        argument("student", "a Keras model, or one of tf_keras", "'student'"),
    ),
    "layers that tfmot lacks": (
        lambda: distill(learner=around(layers.LayerNormalization(name="norm"))),
        "(?i)norm",
    ),
    "data of one array": (lambda: distill(X), "a batched tf.data.Dataset or a tuple of arrays"),
    "rows that differ": (lambda: distill((X, Y[:4])), r"same number of samples.*\[4, 8\]"),
    "no labels": (lambda: distill(batches()), "has no labels, but alpha=0.5. Pass alpha=0"),
}

OF_COMPRESSION = {
    **values(Cluster, "clusters", "an integer, at least 2", [1, 2.5, "4"]),
    **values(Cluster, "initial", "one of .*kmeans", ["random", None]),
    **values(Cluster, "preserve_sparsity", "True or False", [1, "yes", None]),
    **values(Cluster, "layers", "a list of names of layers", ["deep", 3, [], [1]]),
    **values(Cluster, "student", "a keras.Model, or None", ["student", 1]),
    **values(Sparsify, "sparsity", "a number above 0 and below 1", [0, 1, NAN, "1:4", True]),
    **values(Sparsify, "frequency", "an integer, at least 1", [0, 0.5]),
    **values(Sparsify, "begin_step", "an integer, at least 0", [-1, None]),
    **values(Sparsify, "layers", "a list of names of layers", ["deep", {"deep": 1}]),
    **values(Sparsify, "student", "a keras.Model, or None", [layers.Dense(1)]),
    "an end before the beginning": (
        lambda: Sparsify(begin_step=5, end_step=2),
        argument("end_step", "an integer, at least 5", "2"),
    ),
    "more zeros at the beginning": (
        lambda: Sparsify(0.5, initial_sparsity=0.7),
        "`initial_sparsity` must not be above `sparsity`",
    ),
    "a schedule of 2:4": (lambda: Sparsify("2:4", "linear"), "has no schedule: leave `schedule`"),
    "cluster: no model": (lambda: kd.cluster("student"), argument("student", "a keras.Model")),
    "sparsify: no model": (lambda: kd.sparsify(None), argument("student", "a keras.Model")),
    "sparsity_of: no model": (
        lambda: kd.compression.sparsity_of([student()]),
        argument("student", "a keras.Model"),
    ),
    "cluster: a model without weights": (
        lambda: kd.cluster(keras.Sequential([layers.Dense(3)])),
        "has no weights yet",
    ),
    "cluster: a layer that is not there": (
        lambda: kd.cluster(student(), layers=["dep"]),
        r"has no layer 'dep'. Close to it: \['deep'",
    ),
    "sparsify: a layer without kernels": (
        lambda: kd.sparsify(around(layers.ReLU(name="relu")), layers=["relu"]),
        "no kernel that is trained in the layers",
    ),
    "a model that fit does not train": (
        lambda: fit(Cluster(4, student=fits.network(9))),
        "this fit trains none of its weights",
    ),
    "fit ends too early": (lambda: fit(Sparsify(end_step=99)), "fit ends after 3 steps.*Lower"),
    "two of them in one fit": (
        lambda: fit(Cluster(4), callbacks=[Cluster(4), Sparsify(end_step=1)]),
        r"undo each other's work.*Sparsify, then Cluster\(preserve_sparsity=True\)",
    ),
}

TABLE = {
    f"{room}: {name}": row
    for room, rows in {
        "quantization_aware": OF_AWARE,
        "QuantizationAware": OF_CLASSES,
        "recalibrate": OF_RECALIBRATION,
        "to_tflite": OF_EXPORTS,
        "tfmot": OF_TFMOT,
        "compression": OF_COMPRESSION,
    }.items()
    for name, row in rows.items()
}

"""What `test_tfmot.py` looks at, run in a process of its own; writes JSON to its argument."""

import inspect
import json
import os
import pathlib
import re
import sys
import tempfile

import keras
import numpy as np
from keras import layers
from sklearn import datasets

from keras_kd.export.student import ExportableModel
from keras_kd.quantization import tfmot
from keras_kd.quantization.tfmot import convert, setup
from keras_kd.runtimes import TFLiteFile


def norm():
    return layers.BatchNormalization(momentum=0.9)


def network(width):
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(width, 3, padding="same", use_bias=False, name="conv2d")(inputs)
    x = first = layers.ReLU(6.0)(norm()(x))
    x = layers.ReLU()(norm()(layers.DepthwiseConv2D(3, padding="same", name="depthwise_conv2d")(x)))
    x = norm()(layers.SeparableConv2D(width, 3, padding="same")(x))
    x = layers.Dropout(0.1)(layers.MaxPooling2D()(layers.ReLU()(x + first)))
    return keras.Model(inputs, layers.Dense(10)(layers.Flatten()(x)))


def fit(model, x, y):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(5e-3), loss, jit_compile=False)
    model.fit(x, y, batch_size=64, epochs=6, verbose=0)


def digits():
    x, y = datasets.load_digits(return_X_y=True)
    x = (x.reshape(-1, 8, 8, 1) / 16).astype("float32")
    rows = np.random.default_rng(0).permutation(len(x))
    return (x[rows[:1200]], y[rows[:1200]]), (x[rows[1200:]], y[rows[1200:]])


def learns(found):
    train, (x, y) = digits()
    student, teacher = network(8), network(16)
    fit(teacher, *train)
    fit(student, *train)
    before = [np.copy(weight) for weight in student.get_weights()]
    float_logits = student.predict(x, verbose=0)

    exportable = ExportableModel.from_keras(student, "tfmot.distill")
    nodes = convert.nodes_of(student)
    copy = convert.to_tf_keras(exportable, nodes, setup.load().tf_keras)
    parity = np.abs(np.asarray(copy(x, training=False)) - float_logits).max()
    done = tfmot.distill(teacher, student, train, epochs=2)
    path = pathlib.Path(tempfile.mkdtemp()) / "student.tflite"
    exported = done.to_tflite(path, data=(x, y))
    file = TFLiteFile(path)
    logits, in_file = done.predict(x), file.run(x)[0]
    found.update(
        parity=float(parity),
        history=done.history,
        float_accuracy=float(np.mean(float_logits.argmax(-1) == y)),
        accuracy=float(np.mean(logits.argmax(-1) == y)),
        file_accuracy=float(np.mean(in_file.argmax(-1) == y)),
        agreement=float(np.mean(in_file.argmax(-1) == logits.argmax(-1))),
        exported_agreement=exported.agreement,
        types=sorted({t for o in file.operators for t in (*o.inputs, *o.outputs)}),
        kept=all(map(np.array_equal, before, student.get_weights())),
    )


def teaches(found):
    """Without labels a student comes to say what a teacher of other weights says."""
    x = np.random.default_rng(0).normal(size=(512, 6)).astype("float32")
    keras.utils.set_random_seed(1)
    teacher = keras.Sequential([keras.Input((6,)), layers.Dense(4)])
    student = keras.Sequential([keras.Input((6,)), layers.Dense(4)])
    data = tf_data(x)
    done = tfmot.distill(teacher, student, data, alpha=0.0, epochs=8, learning_rate=3e-2)
    wanted = teacher.predict(x, verbose=0).argmax(-1)
    found["unlike"] = float(np.mean(student.predict(x, verbose=0).argmax(-1) == wanted))
    found["alike"] = float(np.mean(done.predict(x).argmax(-1) == wanted))


def tf_data(x):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(x).batch(64)


def of_tf_keras(found):
    tf_keras = setup.load().tf_keras
    names = tf_keras.layers
    student = tf_keras.Sequential([names.InputLayer((6,)), names.Dense(8, "relu"), names.Dense(3)])
    teacher = keras.Sequential([keras.Input((6,)), layers.Dense(3)])
    x = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
    done = tfmot.distill(teacher, student, (x, np.arange(64) % 3), epochs=1)
    path = pathlib.Path(tempfile.mkdtemp()) / "student.tflite"
    found["of_tf_keras"] = done.to_tflite(path).float_operators


def of_many_layers(found):
    """Every layer of the table that the other runs leave out."""
    inputs = keras.Input((8, 8, 4))
    x = layers.Cropping2D(1)(layers.ZeroPadding2D(2)(inputs))
    x = layers.LeakyReLU(negative_slope=0.1)(layers.Conv2D(4, 3)(x))
    x = layers.Concatenate()([x, layers.Activation("silu")(layers.Conv2D(4, 1)(x))])
    x = layers.AveragePooling2D(2)(layers.Conv2D(4, 1, activation="relu")(x))
    x = layers.UpSampling2D()(layers.Conv2D(4, 1, activation="relu")(x))
    x = layers.SpatialDropout2D(0.1)(layers.Conv2D(4, 1, activation="gelu")(x))
    x = layers.Permute((2, 1, 3))(layers.Conv2D(8, 1, activation="tanh")(x))
    x = layers.Reshape((8, 8, 8))(layers.Softmax()(layers.Conv2D(8, 3, padding="same")(x)))
    x = layers.GlobalAveragePooling2D(keepdims=True)(x)
    student = keras.Model(inputs, layers.Dense(3)(layers.GlobalMaxPooling2D()(x)))
    x = np.random.default_rng(0).normal(size=(64, 8, 8, 4)).astype("float32")
    teacher = keras.Sequential([keras.Input((8, 8, 4)), layers.Flatten(), layers.Dense(3)])
    done = tfmot.distill(teacher, student, (x, np.arange(64) % 3), epochs=1)
    exported = done.to_tflite(pathlib.Path(tempfile.mkdtemp()) / "student.tflite")
    found["many_layers"] = exported.float_operators
    found["many_layers_difference"] = exported.worst_difference / exported.outputs[0].scale


def weighs(found):
    """Weights of the rows count, as `[rows]` and as `[rows, 1]`."""
    x = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
    y = np.arange(64) % 3
    keras.utils.set_random_seed(2)
    student = keras.Sequential([keras.Input((6,)), layers.Dense(3)])
    weights = np.where(y == 0, 4.0, 0.5).astype("float32")
    found["weights"] = [
        tfmot.distill(student, student, (x, y, each), alpha=1.0, beta=0.0, epochs=1).history
        for each in (np.ones(64, "float32"), weights, weights[:, None])
    ]


def of_two_inputs(found):
    x = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
    one, other = keras.Input((6,)), keras.Input((6,))
    student = keras.Model([one, other], layers.Dense(3)(layers.Concatenate()([one, other])))
    done = tfmot.distill(student, student, ([x, -x], np.arange(64) % 3), epochs=1)
    expected = student.predict([x, -x], verbose=0)
    same = done.predict([x, -x]).argmax(-1) == expected.argmax(-1)
    found["two_inputs"] = float(np.mean(same))


def refuses_one_logit(found):
    student = keras.Sequential([keras.Input((6,)), layers.Dense(1)])
    try:
        tfmot.distill(student, student, (np.ones((64, 6), "float32"), np.ones((64, 1))))
    except ValueError as error:
        found["one_logit"] = str(error)


def run_examples():
    for symbol in (tfmot.distil, tfmot.TfmotStudent):
        for example in re.findall(r"```python\n(.*?)```", inspect.getdoc(symbol), re.DOTALL):
            exec(compile(example, symbol.__name__, "exec"), {"__name__": "example"})


def main(output):
    before = os.environ.get("TF_USE_LEGACY_KERAS")
    keras.utils.set_random_seed(0)
    found = {}
    learns(found)
    teaches(found)
    of_tf_keras(found)
    of_many_layers(found)
    weighs(found)
    of_two_inputs(found)
    refuses_one_logit(found)
    run_examples()
    found["environment"] = os.environ.get("TF_USE_LEGACY_KERAS") == before
    pathlib.Path(output).write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])

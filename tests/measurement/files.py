"""Small models, and files of them."""

import warnings

import keras
import numpy as np
import tensorflow as tf

FEATURES, CLASSES = 5, 4


def arrays(rows=37, seed=0):
    """Inputs, and labels that `classifier` half knows."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, FEATURES)).astype("float32")
    known = np.argmax(np.asarray(classifier()(x)), axis=-1)
    return x, np.where(rng.random(rows) < 0.5, known, rng.integers(CLASSES, size=rows))


def classifier(seed=1, classes=CLASSES, activation=None):
    return filled(
        keras.Sequential(
            [
                keras.Input((FEATURES,)),
                keras.layers.Dense(6, activation="tanh", name="h"),
                keras.layers.Dense(classes, activation=activation, name="logits"),
            ],
            name="classifier",
        ),
        seed,
    )


def filled(model, seed=0):
    """The model with weights of a size at which its parts differ."""
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(size=weight.shape) for weight in model.weights])
    return model


def tflite(model, path, samples=None, configure=None):
    """A `.tflite` file; int8 throughout where `samples` (inputs, a list of arrays) are given."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converter's own
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        if samples is not None:
            rows = zip(*samples, strict=True)
            batches = [[row[None] for row in each] for each in rows]
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: iter(batches)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = tf.int8
        if configure is not None:
            configure(converter)
        path.write_bytes(converter.convert())
    return path


def onnx(path, model=None, rows="rows", outputs=("logits", "hidden")):
    """`classifier` by hand, as an ONNX file."""
    from onnx import TensorProto, helper, numpy_helper, save

    weights = (model or classifier()).get_weights()
    names = ("kernel_h", "bias_h", "kernel", "bias")
    nodes = [
        helper.make_node("MatMul", ["x", "kernel_h"], ["a"]),
        helper.make_node("Add", ["a", "bias_h"], ["b"]),
        helper.make_node("Tanh", ["b"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "kernel"], ["c"]),
        helper.make_node("Add", ["c", "bias"], ["logits"]),
    ]
    sizes = {"x": FEATURES, "logits": weights[-1].size, "hidden": 6}
    value = lambda name: helper.make_tensor_value_info(  # noqa: E731
        name, TensorProto.FLOAT, [rows, sizes[name]]
    )
    graph = helper.make_graph(
        nodes,
        "classifier",
        [value("x")],
        [value(name) for name in outputs],
        [numpy_helper.from_array(w, n) for w, n in zip(weights, names, strict=True)],
    )
    opsets = [helper.make_opsetid("", 17)]
    save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path

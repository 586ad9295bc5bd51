"""Models to prune and cluster, and a small task that another implementation solves too."""

import keras
import numpy as np

import keras_kd as kd

EPOCHS, BATCH, RATE = 2, 4, 0.2
STEPS = 20
DECAY = {"initial_sparsity": 0.1, "final_sparsity": 0.75, "begin_step": 2, "end_step": 14}
DECAY["frequency"] = 3


def from_logits():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def cnn(width):
    layers = [
        keras.Input((8, 8, 1)),
        keras.layers.Conv2D(width, 3, padding="same", use_bias=False),
        keras.layers.BatchNormalization(momentum=0.9),
        keras.layers.ReLU(),
        keras.layers.SeparableConv2D(width, 3, strides=2, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(10, name="logits"),
    ]
    return keras.Sequential(layers)


def distiller(teacher, student, optimizer="adam", **options):
    made = kd.Distiller(teacher, student, kd.losses.SoftTargets(3.0))
    made.compile(optimizer, from_logits(), metrics=["accuracy"], **options)
    return made


def many_kinds():
    """Attention, a recurrent layer in both directions, an embedding, a nested model."""
    tokens = keras.Input((4,), dtype="int32")
    x = keras.layers.Embedding(12, 8, name="table")(tokens)
    x = keras.layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    x = keras.layers.Bidirectional(keras.layers.LSTM(4), name="both")(x)
    inner = [keras.Input((8,)), keras.layers.Dense(8, name="hidden")]
    x = keras.Sequential(inner, name="inner")(x)
    return keras.Model(tokens, keras.layers.Dense(3, name="logits")(x))


def small():
    layers = [keras.Input((8,)), keras.layers.Dense(6, "tanh"), keras.layers.Dense(3)]
    return keras.Sequential(layers)


def task():
    """What is to be learned by gradient descent, as JSON has it."""
    rng = np.random.default_rng(0)

    def numbers(*shape):
        return rng.normal(size=shape).round(3).tolist()

    return {
        "weights": [numbers(*weight.shape) for weight in small().get_weights()],
        "x": numbers(STEPS // EPOCHS * BATCH, 8),
        "y": numbers(STEPS // EPOCHS * BATCH, 3),
        "rate": RATE,
        "batch": BATCH,
        "epochs": EPOCHS,
        "decay": DECAY,
    }


def solved(given, *callbacks, optimizer=None, **options):
    """The model of the task after `fit`."""
    model = small()
    model.set_weights([np.float32(weight) for weight in given["weights"]])
    model.compile(optimizer or keras.optimizers.SGD(given["rate"]), "mse")
    x, y = np.float32(given["x"]), np.float32(given["y"])
    fit = {"batch_size": given["batch"], "epochs": given["epochs"], "shuffle": False, **options}
    model.fit(x, y, callbacks=list(callbacks), verbose=0, **fit)
    return model


def zeros(weight):
    return int(np.sum(np.asarray(weight) == 0))


def groups_of_four(rows):
    """Rows in groups of four; what is missing of the last is zero."""
    padded = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))
    return padded.reshape(-1, 4)

"""Small trainings that every tf.distribute strategy must run like a single process.

Each scenario builds its models and data from fixed seeds and returns what `outcome` takes down.
The scripts in `scripts/` run them in replicas, the tests run them again in their own process.
"""

import traceback

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import keras_kd as kd

FEATURES, CLASSES, STEPS = 5, 3, 6
BATCH = 16
SCENARIOS = {}


def scenario(function):
    SCENARIOS[function.__name__] = function
    return function


def run_all(names, strategy):
    """`{name: outcome}`; a scenario that raises gives `{"error": traceback}`."""
    results = {}
    for name in names:
        keras.utils.set_random_seed(0)
        try:
            results[name] = SCENARIOS[name](strategy)
        except Exception:  # noqa: BLE001 the test that asks for this scenario fails with it
            results[name] = {"error": traceback.format_exc()[-4000:]}
    return results


def data(rows, steps=None, seed=1):
    """Inputs, labels and sample weights; some weights are zero."""
    rng = np.random.default_rng([seed, rows])
    shape = (rows,) if steps is None else (rows, steps)
    x = rng.standard_normal((*shape, FEATURES), np.float32)
    y = rng.integers(CLASSES, size=shape)
    weight = np.float32(rng.integers(0, 4, size=rows) / 2)
    return x, y, weight


def network(width, inputs=None, regulariser=None, name=None):
    inputs = keras.Input((FEATURES,)) if inputs is None else inputs
    hidden = layers.Dense(
        width, activation="relu", kernel_regularizer=regulariser, name="hidden"
    )(inputs)
    return keras.Model(inputs, layers.Dense(CLASSES, name="logits")(hidden), name=name)


def cross_entropy(**kwargs):
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, **kwargs)


@keras.saving.register_keras_serializable(package="keras_kd_tests")
class Hint(kd.losses.DistillationLoss):
    """Mean squared error to an inner layer of the teacher, through a projector."""

    def build(self, teacher_shape, student_shape):
        self.projector = layers.Dense(teacher_shape[-1], name="projector")
        self.projector.build(student_shape)

    def call(self, teacher_outputs, student_outputs):
        return keras.ops.mean((teacher_outputs - self.projector(student_outputs)) ** 2, axis=-1)


class Subclassed(keras.Model):
    """A student whose shapes are unknown until it sees data."""

    def __init__(self):
        super().__init__()
        self.hidden = layers.Dense(6, activation="relu", name="hidden")
        self.logits = layers.Dense(CLASSES, name="logits")

    def call(self, inputs):
        return self.logits(self.hidden(inputs))


def outcome(distiller, history, evaluated):
    """What is compared, as lists and floats."""
    state = distiller.student.weights + [
        weight for loss in distiller.distillation_losses for weight in loss.weights
    ]
    return {
        "weights": [keras.ops.convert_to_numpy(weight).tolist() for weight in state],
        "history": history.history,
        "evaluate": evaluated,
    }


def train(
    strategy,
    rows,
    *,
    models=None,
    losses=None,
    loss="default",
    optimizer="sgd",
    numbers=None,
    weighted=False,
    labels=True,
    steps=None,
    dataset=False,
    callbacks=(),
    fit=None,
    **compile_arguments,
):
    """Two epochs in global batches of 16, and an evaluation."""
    with strategy.scope():
        teacher, student = models() if models else (network(8), network(6, regulariser="l2"))
        distiller = kd.Distiller(teacher, student, losses() if losses else None, **(numbers or {}))
        optimizers = {
            "sgd": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
            "adam": lambda: keras.optimizers.Adam(0.01),
        }
        distiller.compile(
            optimizers[optimizer](),
            loss=cross_entropy() if loss == "default" else loss,
            **compile_arguments,
        )
    x, y, weight = data(rows, steps)
    columns = [x, *([y] if labels else []), *([weight] if weighted else [])]
    common = {"verbose": 0}
    if dataset:
        columns = [tf.data.Dataset.from_tensor_slices(tuple(columns)).batch(BATCH)]
    else:
        common["batch_size"] = BATCH
        if weighted:
            common["sample_weight"] = columns.pop()
    arguments = {**common, "epochs": 2, "callbacks": [*callbacks], **(fit or {})}
    if not dataset:
        arguments["shuffle"] = False
    history = distiller.fit(*columns, **arguments)
    evaluated = distiller.evaluate(*columns, return_dict=True, with_teacher=True, **common)
    return outcome(distiller, history, evaluated)


@scenario
def even(strategy):
    return train(strategy, 64, metrics=["accuracy"])


@scenario
def uneven(strategy):
    """71 rows: the last batch has 7, four for one replica and three for the other."""
    return train(strategy, 71, optimizer="adam", metrics=["accuracy"])


@scenario
def empty_replica(strategy):
    """65 rows: the last batch has one, and a replica gets none."""
    return train(strategy, 65, metrics=["accuracy"])


@scenario
def from_dataset(strategy):
    x, y, _ = data(71, seed=2)
    validation = tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH)
    return train(
        strategy, 71, dataset=True, metrics=["accuracy"], fit={"validation_data": validation}
    )


@scenario
def sample_weight(strategy):
    return train(
        strategy,
        71,
        weighted=True,
        optimizer="adam",
        weighted_metrics=["accuracy", cross_entropy(name="weighted_ce")],
    )


@scenario
def class_weight(strategy):
    return train(strategy, 71, fit={"class_weight": {0: 1.0, 1: 0.0, 2: 2.5}})


@scenario
def projector(strategy):
    """A loss that owns trained weights and reads inner layers, beside soft targets."""
    hint = lambda: Hint(weight=0.3, teacher_layer="hidden", student_layer="hidden", name="hint")  # noqa: E731
    return train(
        strategy, 71, losses=lambda: [kd.losses.SoftTargets(2.0), hint()], optimizer="adam"
    )


@scenario
def unknown_shapes(strategy):
    """Nothing can be built before the first batch, which comes in replicas."""
    return train(strategy, 71, models=lambda: (network(8), Subclassed()), optimizer="adam")


@scenario
def keras_losses(strategy):
    return train(
        strategy,
        71,
        losses=lambda: [
            keras.distillation.LogitsDistillation(temperature=3.0),
            keras.distillation.FeatureDistillation("mse", "logits", "logits"),
        ],
    )


@scenario
def no_labels(strategy):
    return train(strategy, 71, loss=None, labels=False, numbers={"alpha": 0, "beta": 1})


class Schedule(keras.callbacks.Callback):
    """Changes every live number while `fit` runs; beta is zero for some of the steps."""

    def on_train_batch_begin(self, batch, logs=None):
        self.model.alpha = 0.2 + 0.1 * (batch % 3)
        self.model.beta = (batch % 2) * 0.7
        self.model.temperature = 2.0 + batch
        self.model.distillation_losses[0].weight = 1.0 + batch / 10


@scenario
def live_numbers(strategy):
    return train(strategy, 71, callbacks=[Schedule()])


@scenario
def two_outputs(strategy):
    def model(width):
        inputs = keras.Input((FEATURES,))
        body = network(width, inputs).get_layer("hidden").output
        heads = {name: layers.Dense(CLASSES, name=name)(body) for name in ("first", "second")}
        return keras.Model(inputs, heads)

    with strategy.scope():
        distiller = kd.Distiller(
            model(8),
            model(6),
            {"first": kd.losses.SoftTargets(2.0), "second": kd.losses.SoftTargets(3.0, "jsd")},
        )
        distiller.compile(
            keras.optimizers.SGD(0.1), loss={"first": cross_entropy(), "second": cross_entropy()}
        )
    x, y, _ = data(71)
    labels = {"first": y, "second": (y + 1) % CLASSES}
    common = {"batch_size": BATCH, "verbose": 0}
    history = distiller.fit(x, labels, epochs=2, shuffle=False, **common)
    # Keras does not weight the losses of single outputs by the rows of the batch.
    for name in ("first_loss", "second_loss"):
        history.history.pop(name)
    evaluated = distiller.evaluate(x, labels, return_dict=True, **common)
    return outcome(distiller, history, {"loss": evaluated["loss"]})


def tagger(width):
    return network(width, keras.Input((STEPS, FEATURES)))


@scenario
def sequences(strategy):
    return train(strategy, 71, models=lambda: (tagger(8), tagger(6)), steps=STEPS, weighted=True)


@scenario
def masked_sequences(strategy):
    """Replicas with different numbers of valid tokens."""

    def model(width):
        return keras.Sequential(
            [
                keras.Input((STEPS,), dtype="int32"),
                layers.Embedding(7, FEATURES, mask_zero=True),
                layers.Dense(width, activation="relu"),
                layers.Dense(CLASSES),
            ]
        )

    with strategy.scope():
        distiller = kd.Distiller(model(8), model(6))
        distiller.compile(keras.optimizers.SGD(0.5), loss=cross_entropy())
    rng = np.random.default_rng(3)
    x = rng.integers(1, 7, size=(71, STEPS))
    x[np.arange(STEPS) >= rng.integers(1, STEPS + 1, size=(71, 1))] = 0
    y = rng.integers(CLASSES, size=(71, STEPS))
    common = {"batch_size": BATCH, "verbose": 0}
    history = distiller.fit(x, y, epochs=2, shuffle=False, **common)
    evaluated = distiller.evaluate(x, y, return_dict=True, with_teacher=True, **common)
    return outcome(distiller, history, evaluated)


@scenario
def mean_with_sample_weight(strategy):
    """A reduction that divides by the sum of the sample weights."""
    loss = cross_entropy(reduction="mean_with_sample_weight")
    return train(strategy, 71, loss=loss, weighted=True, numbers={"beta": 0.0})


@scenario
def sum_reduction(strategy):
    return train(strategy, 71, loss=cross_entropy(reduction="sum"), numbers={"alpha": 0.02})


def _with_kernel(kernel, strategy):
    with kd.ops.use_kernel(kernel):
        return train(strategy, 71, losses=lambda: kd.losses.SoftTargets(3.0, "reverse_kl"))


@scenario
def native_kernel(strategy):
    return _with_kernel("native", strategy)


@scenario
def tensorflow_kernel(strategy):
    return _with_kernel("tensorflow", strategy)


def refusals(strategy):
    """What `compile` or `fit` says to settings that no strategy of TensorFlow can run."""
    x, y, _ = data(32)
    messages = {}
    for name, compile_arguments, optimizer_arguments in (
        ("steps_per_execution", {"steps_per_execution": 2}, {}),
        ("gradient_accumulation", {}, {"gradient_accumulation_steps": 2}),
    ):
        messages[name] = None
        with strategy.scope():
            distiller = kd.Distiller(network(8), network(6))
            optimizer = keras.optimizers.SGD(0.1, **optimizer_arguments)
            try:
                distiller.compile(optimizer, loss=cross_entropy(), **compile_arguments)
            except ValueError as error:
                messages[name] = str(error)
    return messages


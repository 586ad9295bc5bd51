"""Small trainings that every tf.distribute strategy must run like a single process.

Each scenario builds its models and data from fixed seeds and returns what `outcome` takes down.
The scripts in `scripts/` run them in replicas, the tests run them again in their own process.
"""

import functools
import traceback

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import keras_kd as kd
from tests.callbacks import together

FEATURES, CLASSES, STEPS = 5, 3, 6
BATCH = 16
SCENARIOS = {}


def scenario(function):
    SCENARIOS[function.__name__] = function
    return function


def names_in(module):
    """The names of the scenarios that a module, of this name, defines."""
    return [name for name, function in SCENARIOS.items() if function.__module__ == module]


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


@functools.cache
def single_process(name):
    """The outcome of one scenario in this process."""
    return run_all([name], tf.distribute.get_strategy())[name]


def data(rows):
    """Inputs, labels and sample weights; some weights are zero."""
    rng = np.random.default_rng([1, rows])
    x = rng.standard_normal((rows, FEATURES), np.float32)
    return x, rng.integers(CLASSES, size=rows), np.float32(rng.integers(0, 4, size=rows) / 2)


def network(width, regularizer=None):
    inputs = keras.Input((FEATURES,))
    hidden = layers.Dense(width, activation="relu", kernel_regularizer=regularizer, name="hidden")(
        inputs
    )
    return keras.Model(inputs, layers.Dense(CLASSES, name="logits")(hidden))


def cross_entropy(**kwargs):
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, **kwargs)


def cross_entropy_metric():
    return keras.metrics.SparseCategoricalCrossentropy(from_logits=True, name="cross_entropy")


@keras.saving.register_keras_serializable(package="keras_kd_tests")
class Hint(kd.losses.DistillationLoss):
    """Mean squared error to an inner layer of the teacher, through a projector."""

    def build(self, teacher_outputs_shape, student_outputs_shape):
        self.projector = layers.Dense(teacher_outputs_shape[-1], name="projector")
        self.projector.build(student_outputs_shape)

    def call(self, teacher_outputs, student_outputs):
        return keras.ops.mean((teacher_outputs - self.projector(student_outputs)) ** 2, axis=-1)


@keras.saving.register_keras_serializable(package="keras_kd_tests")
class LogitsMSE(kd.losses.DistillationLoss):
    """A loss that has nothing to build."""

    def call(self, teacher, student):
        return keras.ops.mean((teacher - student) ** 2, axis=-1)


@keras.saving.register_keras_serializable(package="keras_kd_tests")
class Subclassed(keras.Model):
    """A student whose shapes are unknown until it sees data."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
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
        "weights": [weight.numpy().tolist() for weight in state],
        "history": history.history,
        "evaluate": evaluated,
    }


def distiller_for(strategy, models=None, losses=None, numbers=None, optimizer="sgd", **compiled):
    """A distiller made and compiled in the strategy's scope."""
    with strategy.scope():
        teacher, student = models() if models else (network(8), network(6, regularizer="l2"))
        distiller = kd.Distiller(teacher, student, losses() if losses else None, **(numbers or {}))
        if optimizer == "sgd":
            optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
        elif optimizer == "adam":
            optimizer = keras.optimizers.Adam(0.01)
        compiled.setdefault("loss", cross_entropy())
        distiller.compile(optimizer, **compiled)
    return distiller


def train(distiller, x, y=None, weight=None, evaluate=False, epochs=2, **fit):
    """Epochs in global batches of 16, and an evaluation where it is asked for."""
    options = {"batch_size": BATCH, "verbose": 0, "sample_weight": weight}
    history = distiller.fit(x, y, epochs=epochs, shuffle=False, **options, **fit)
    if not evaluate:
        return outcome(distiller, history, {})
    distiller.evaluate_with_teacher = True
    return outcome(distiller, history, distiller.evaluate(x, y, return_dict=True, **options))


@scenario
def plain(strategy):
    """The last batch is full; has 7 rows, 4 and 3; has one row, so that one replica has none."""
    distiller = distiller_for(strategy, optimizer="adam", metrics=["accuracy"])
    results = [train(distiller, *data(rows)[:2], evaluate=True) for rows in (64, 71, 65)]
    return {
        "weights": [weight for result in results for weight in result["weights"]],
        **{
            part: {f"{key} {i}": v for i, r in enumerate(results) for key, v in r[part].items()}
            for part in ("history", "evaluate")
        },
    }


@scenario
def from_dataset(strategy):
    distiller = distiller_for(strategy, metrics=["accuracy"])
    train_data, validation = (
        tf.data.Dataset.from_tensor_slices(data(rows)[:2]).batch(BATCH) for rows in (71, 23)
    )
    history = distiller.fit(
        train_data, epochs=2, shuffle=False, verbose=0, validation_data=validation
    )
    return outcome(distiller, history, {})


@scenario
def losses_with_weights(strategy):
    """A trained projector between inner layers, beside a loss of `keras.distillation`."""

    def losses():
        hint = Hint(weight=0.3, teacher_layer="hidden", student_layer="hidden", name="hint")
        return [keras.distillation.LogitsDistillation(temperature=3.0), hint]

    distiller = distiller_for(strategy, losses=losses, optimizer="adam")
    return train(distiller, *data(71), evaluate=True)


@scenario
def unknown_shapes(strategy):
    """Nothing can be built before the first batch, which comes in replicas."""
    distiller = distiller_for(
        strategy,
        models=lambda: (network(8), Subclassed()),
        losses=lambda: Hint(teacher_layer="hidden", student_layer="hidden"),
        optimizer="adam",
    )
    return train(distiller, *data(71)[:2])


@scenario
def synchronized_batch_norm(strategy):
    """The replicas wait for each other inside of the forward pass that the losses listen to."""

    def models():
        inputs = keras.Input((FEATURES,))
        hidden = layers.Dense(6, name="hidden")(inputs)
        normal = layers.BatchNormalization(synchronized=True, name="normal")(hidden)
        return network(8), keras.Model(inputs, layers.Dense(CLASSES)(normal))

    hint = lambda: Hint(teacher_layer="hidden", student_layer="normal")  # noqa: E731
    distiller = distiller_for(strategy, models=models, losses=hint)
    return train(distiller, *data(64)[:2])


@scenario
def no_labels(strategy):
    distiller = distiller_for(strategy, loss=None, numbers={"alpha": 0, "beta": 1})
    return train(distiller, data(71)[0])


class Schedule(keras.callbacks.Callback):
    """Changes hyperparameters while `fit` runs; beta is zero for some of the steps."""

    def on_train_batch_begin(self, batch, logs=None):
        self.model.alpha = 0.2 + 0.1 * (batch % 3)
        self.model.beta = (batch % 2) * 0.7
        self.model.temperature = 2.0 + batch
        self.model.distillation_losses[0].weight = 1.0 + batch / 10


@scenario
def changed_hyperparameters(strategy):
    return train(distiller_for(strategy), *data(71)[:2], callbacks=[Schedule()])


@scenario
def two_outputs(strategy):
    def model(width):
        body = network(width).get_layer("hidden")
        heads = {name: layers.Dense(CLASSES, name=name)(body.output) for name in ("a", "b")}
        return keras.Model(body.input, heads)

    distiller = distiller_for(
        strategy,
        models=lambda: (model(8), model(6)),
        losses=lambda: {"a": kd.losses.SoftTargets(2.0), "b": kd.losses.SoftTargets(3.0, "jsd")},
        loss={"a": cross_entropy(), "b": cross_entropy()},
    )
    x, y, weight = data(71)
    result = train(distiller, x, {"a": y, "b": (y + 1) % CLASSES}, weight)
    # Keras does not weight these by the rows of the batch.
    del result["history"]["a_loss"], result["history"]["b_loss"]
    return result


@scenario
def masked_sequences(strategy):
    """Replicas have different numbers of valid tokens."""

    def model(width):
        return keras.Sequential(
            [
                keras.Input((STEPS,), dtype="int32"),
                layers.Embedding(7, FEATURES, mask_zero=True),
                layers.Dense(width, activation="relu"),
                layers.Dense(CLASSES),
            ]
        )

    distiller = distiller_for(strategy, models=lambda: (model(8), model(6)))
    rng = np.random.default_rng(3)
    x = rng.integers(1, 7, size=(71, STEPS))
    x[np.arange(STEPS) >= rng.integers(1, STEPS + 1, size=(71, 1))] = 0
    return train(distiller, x, rng.integers(CLASSES, size=(71, STEPS)))


@scenario
def masked_hints(strategy):
    """Losses of inner layers, over as many valid positions and pairs as the replica has."""

    def model(width):
        inputs = keras.Input((STEPS,), dtype="int32")
        x = layers.Embedding(7, width, mask_zero=True, name="embedding")(inputs)
        x = layers.MultiHeadAttention(2, 4, name="attention")(x, x)
        x = layers.GlobalAveragePooling1D(name="pooled")(
            layers.Dense(width, "tanh", name="states")(x)
        )
        return keras.Model(inputs, layers.Dense(CLASSES)(x))

    def losses():
        return [
            kd.losses.SoftTargets(),
            kd.losses.HiddenStates("embedding", "embedding", name="embeddings"),
            kd.losses.HiddenStates("states", "states"),
            kd.losses.AttentionMaps("attention", "attention"),
            kd.losses.AttentionMaps("attention", "attention", "kl", name="divergence"),
            kd.losses.FeatureHint("pooled", "pooled"),
        ]

    distiller = distiller_for(strategy, models=lambda: (model(8), model(6)), losses=losses)
    rng = np.random.default_rng(3)
    x = rng.integers(1, 7, size=(71, STEPS))
    x[np.arange(STEPS) >= rng.integers(1, STEPS + 1, size=(71, 1))] = 0
    return train(distiller, x, rng.integers(CLASSES, size=71), evaluate=True)


@scenario
def tokens_without_logits(strategy):
    """Language models; replicas have different numbers of labels that count, and weights."""

    def model(width):
        ids = keras.Input((STEPS,), dtype="int32")
        hidden = layers.Embedding(9, width, mask_zero=True, name="embedding")(ids)
        return keras.Model(ids, layers.Dense(9, name="head")(hidden))

    def losses():
        return [
            kd.losses.TokenKD(2.0, memory_mb=1e-3),
            kd.losses.HiddenStates("embedding", "embedding"),
        ]

    distiller = distiller_for(
        strategy,
        models=lambda: (model(8), model(6)),
        losses=losses,
        loss=cross_entropy(ignore_class=-100),
    )
    rng = np.random.default_rng(3)
    x = rng.integers(1, 9, size=(71, STEPS))
    y = rng.integers(9, size=(71, STEPS))
    y[np.arange(STEPS) >= rng.integers(1, STEPS + 1, size=(71, 1))] = -100
    return train(distiller, x, y, np.float32(rng.integers(0, 4, y.shape) / 2), evaluate=True)


@scenario
def mean_with_sample_weight(strategy):
    """A reduction that divides by the sum of the sample weights."""
    loss = cross_entropy(reduction="mean_with_sample_weight")
    return train(distiller_for(strategy, loss=loss), *data(71))


@scenario
def sum_reduction(strategy):
    loss = cross_entropy(reduction="sum")
    distiller = distiller_for(strategy, loss=loss, numbers={"alpha": 0.02})
    return train(distiller, *data(71)[:2])


@scenario
def native_kernel(strategy):
    """With class weights."""
    weights = {0: 1.0, 1: 0.0, 2: 2.5}
    with kd.ops.use_kernel("native"):
        return train(distiller_for(strategy), *data(71)[:2], class_weight=weights)


@scenario
def tensorflow_kernel(strategy):
    """With sample weights."""
    with kd.ops.use_kernel("tensorflow"):
        metrics = ["accuracy", cross_entropy_metric()]
        distiller = distiller_for(strategy, optimizer="adam", weighted_metrics=metrics)
        return train(distiller, *data(71), evaluate=True)


@scenario
def everything_at_once(strategy):
    """Schedules, weights by confidence, hints between layers and one that joins for `fit`."""
    with strategy.scope():
        teacher = together.network(8, FEATURES, CLASSES, "t")
        student = together.network(4, FEATURES, CLASSES, "s")
        distiller = kd.Distiller(teacher, student, **together.arguments(teacher, student))
        distiller.compile(keras.optimizers.Adam(0.02), cross_entropy(), jit_compile=False)
    callbacks = together.callbacks()
    return train(distiller, *data(71), epochs=together.EPOCHS, callbacks=callbacks)


@scenario
def mutual(strategy):
    """Peers that teach each other; sample weights, and a last batch of 7 rows."""
    with strategy.scope():
        peers = [network(8), network(6, regularizer="l2"), network(4)]
        distiller = kd.MutualDistiller(peers, alpha=0.7)
        optimizers = [keras.optimizers.Adam(0.01), keras.optimizers.SGD(0.1), "rmsprop"]
        metrics = {"metrics": ["accuracy"], "weighted_metrics": [cross_entropy_metric()]}
        distiller.compile(optimizers, cross_entropy(), **metrics)
    x, y, weight = data(71)
    options = {"batch_size": BATCH, "verbose": 0, "sample_weight": weight}
    history = distiller.fit(x, y, epochs=2, shuffle=False, **options)
    weights = [w.numpy().tolist() for peer in peers for w in peer.weights]
    evaluated = distiller.evaluate(x, y, return_dict=True, **options)
    return {"weights": weights, "history": history.history, "evaluate": evaluated}


# Two processes have to be waited for: those that differ from the others in how data or losses come.
MULTI_WORKER = [
    "plain",
    "from_dataset",
    "losses_with_weights",
    "unknown_shapes",
]


def refusals(strategy):
    """What `compile` says to settings that no strategy of TensorFlow can run; `None` if nothing."""
    settings = {
        "steps_per_execution": ({"steps_per_execution": 2}, {}),
        "gradient_accumulation": ({}, {"gradient_accumulation_steps": 2}),
    }
    messages = {}
    for name, (compile_arguments, optimizer_arguments) in settings.items():
        messages[name] = None
        with strategy.scope():
            optimizer = keras.optimizers.SGD(0.1, **optimizer_arguments)
        try:
            distiller_for(strategy, optimizer=optimizer, **compile_arguments)
        except ValueError as error:
            messages[name] = str(error)
    return messages


def plain_keras(strategy):
    """The error of a Keras model without a distiller, or `None` where it trains."""
    with strategy.scope():
        model = network(6)
        model.compile("sgd", loss=cross_entropy())
    try:
        model.fit(*data(32)[:2], batch_size=BATCH, shuffle=False, verbose=0)
    except Exception as error:  # noqa: BLE001 whichever it is, Keras does not train here
        return f"{type(error).__name__}: {error}"
    return None

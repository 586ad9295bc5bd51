"""Looks leave everything as it was: variables, states, seeds, optimizer, the order of the data."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_kd as kd
from tests import reference
from tests.distiller import linear
from tests.distiller.linear import MODES

BATCH, TIME, FEATURES, CLASSES = 8, 6, 4, 5


class Counter(layers.Layer):
    """Counts its calls in a variable, also those in inference, and adds noise of a seed."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seeds = keras.random.SeedGenerator(7)

    def build(self, shape):
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)
        self.built = True

    def call(self, inputs):
        self.calls.assign_add(1.0)
        return inputs + 0.01 * keras.random.normal(keras.ops.shape(inputs), seed=self.seeds)


def stateful(width, seed):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((TIME, FEATURES), batch_size=BATCH),
            layers.LSTM(width, stateful=True),
            layers.BatchNormalization(),
            Counter(),
            layers.Dropout(0.3, seed=3),
            layers.Dense(CLASSES),
        ]
    )


def data(rows=2 * BATCH):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(rows, TIME, FEATURES)).astype("float32")
    return x, rng.integers(CLASSES, size=rows)


def state_of(*models):
    return [np.array(variable) for model in models for variable in model.variables]


def assert_equal(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


# How the batch is kept does not depend on the mode.
@pytest.mark.parametrize(
    ("kind", "mode"),
    [("arrays", "eager"), ("sequence", "eager"), *(("dataset", mode) for mode in MODES)],
)
def test_training_is_the_same_to_the_last_bit_with_and_without_the_look(kind, mode):
    def run(look):
        teacher, student = stateful(8, 1), stateful(3, 2)
        distiller = kd.Distiller(teacher, student)
        distiller.checks_first_batch = look
        distiller.compile(keras.optimizers.Adam(0.01), linear.from_logits(), **MODES[mode])
        x, y = data()
        given = {
            "arrays": {"x": x, "y": y, "batch_size": BATCH},
            "dataset": {"x": tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH)},
            "sequence": {"x": Batches(x, y)},
        }[kind]
        history = distiller.fit(**given, epochs=2, shuffle=False, verbose=0).history
        return history, state_of(teacher, student, distiller.optimizer), np.random.uniform()

    np.random.seed(0)
    with_look = run(True)
    np.random.seed(0)
    without = run(False)
    assert with_look[0] == without[0]
    assert_equal(with_look[1], without[1])
    assert with_look[2] == without[2]


class Batches(keras.utils.PyDataset):
    """Each batch that is drawn is another one, as with random augmentation."""

    def __init__(self, x, y):
        super().__init__()
        self.x, self.y, self.drawn = x, y, 0

    @property
    def num_batches(self):
        return len(self.x) // BATCH

    def __getitem__(self, index):
        self.drawn += 1
        rows = slice(index * BATCH, (index + 1) * BATCH)
        return self.x[rows] + 0.1 * self.drawn, self.y[rows]


def test_batches_of_a_sequence_are_drawn_as_often_as_by_keras():
    drawn = []
    for student in (stateful(3, 2), kd.Distiller(stateful(8, 1), stateful(3, 2))):
        batches = Batches(*data())
        student.compile("sgd", linear.from_logits())
        student.fit(batches, epochs=2, shuffle=False, verbose=0)
        drawn.append(batches.drawn)
    assert drawn[0] == drawn[1]


def test_states_of_the_first_step_are_those_of_the_data():
    """Not those of a batch that was seen before it: float64, a recurrent layer without gates."""

    def network(width, seed):
        keras.utils.set_random_seed(seed)
        recurrent = layers.SimpleRNN(width, activation="linear", stateful=True)
        return keras.Sequential(
            [keras.Input((TIME, FEATURES), batch_size=BATCH), recurrent, layers.Dense(CLASSES)]
        )

    def forward(model, batches):
        kernel, recurrent, bias, dense, offset = (np.float64(w) for w in model.get_weights())
        state, found = np.zeros((BATCH, kernel.shape[1])), []
        for batch in batches:
            for t in range(TIME):
                state = np.float64(batch[:, t]) @ kernel + bias + state @ recurrent
            found.append(state @ dense + offset)
        return np.concatenate(found)

    teacher, student = network(8, 1), network(3, 2)
    x, y = data()
    batches = np.split(x, 2)
    expected = reference.soft_target_loss(forward(student, batches), forward(teacher, batches), 4.0)
    distiller = kd.Distiller(teacher, student)
    distiller.compile(keras.optimizers.SGD(0.0), linear.from_logits())
    history = distiller.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0).history
    assert history["soft_targets"][0] == pytest.approx(expected.mean(), rel=1e-4)


def subclassed(width):
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden, self.count = layers.Dense(width), Counter()
            self.head = layers.Dense(CLASSES)

        def call(self, inputs):
            return self.head(self.count(self.hidden(keras.ops.mean(inputs, axis=1))))

    return Net()


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_the_check_of_shapes_moves_nothing(mode):
    """Of subclassed models it is made on the first batch: each layer counts its steps only."""
    teacher, student = subclassed(6), subclassed(3)
    x, y = data()
    teacher(x[:1])
    teacher.count.calls.assign(0.0)
    losses = [kd.losses.SoftTargets(), kd.losses.FeatureHint("hidden", "hidden")]
    distiller = kd.Distiller(teacher, student, losses)
    distiller.compile("sgd", linear.from_logits(), **MODES[mode])
    distiller.fit(x, y, batch_size=BATCH, verbose=0)
    assert [float(model.count.calls) for model in (teacher, student)] == [2.0, 2.0]


@pytest.mark.parametrize(
    "look",
    [
        lambda teacher, student: kd.Distiller(teacher, student),
        lambda teacher, student: kd.taps.summary(teacher, print_fn=None),
        lambda teacher, student: kd.pair_layers(teacher, student, "depth"),
    ],
    ids=["Distiller", "summary", "pair_layers"],
)
def test_looks_before_training_leave_every_variable(look):
    models = stateful(8, 1), stateful(3, 2)
    before = state_of(*models)
    look(*models)
    assert_equal(before, state_of(*models))

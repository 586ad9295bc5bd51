"""What messages of the distillers, of taps and of `fit` advise works."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_kd as kd
from tests.contract import wrong_calls_of_distillers as table
from tests.distiller import linear

X, Y = linear.data(8)
SOFT = kd.losses.SoftTargets


def fits(distiller, x=X, y=Y, loss=True, **options):
    distiller.compile(keras.optimizers.SGD(0.1), linear.from_logits() if loss else None)
    history = distiller.fit(x, y, verbose=0, **options).history
    assert np.isfinite(history["loss"]).all()
    return history


def ends_in(activation, seed=1):
    return linear.linear(seed, activation=activation)


def without(activation):
    """A model whose last layer has lost its activation."""
    model = ends_in(activation)
    model.layers[-1].activation = None
    return model


def reshaping(teacher, shape):
    return lambda x: keras.ops.reshape(teacher(x), shape)


# What the messages of the table advise, each as a user would do it.
REMEDIES = {
    "clone_model": lambda: fits(_cloned()),
    "alpha=w, beta=1-w": lambda: fits(table.made(alpha=0.3, beta=0.7)),
    "SoftTargets in place of a loss of Keras": lambda: fits(table.made(SOFT(4.0))),
    "two losses in place of one twice": lambda: fits(table.made(SOFT(), SOFT(2.0))),
    "teacher_preprocess": lambda: fits(
        kd.Distiller(
            linear.linear(1, features=7),
            linear.linear(2),
            teacher_preprocess=lambda x: keras.ops.pad(x, ((0, 0), (0, 2))),
        )
    ),
    "SigmoidKD for one value": lambda: fits(
        kd.Distiller(*linear.pair(classes=1), kd.losses.SigmoidKD(), alpha=0.0), loss=False
    ),
    "RegressionKD for one value": lambda: fits(
        kd.Distiller(*linear.pair(classes=1), kd.losses.RegressionKD(), alpha=0.0), loss=False
    ),
    "reshape": lambda: kd.Distiller(
        reshaping(_wide(24), (-1, 6, 4)), table._positions(6, 4), SOFT()
    ),
    "resize": lambda: kd.Distiller(
        _resizing(table._positions(6, 4, step=2)), table._positions(6, 4), SOFT()
    ),
    "activation=None, teacher": lambda: fits(kd.Distiller(without("softmax"), linear.linear(2))),
    "activation=None, student": lambda: fits(kd.Distiller(linear.linear(2), without("sigmoid"))),
    "teacher_from_logits=False": lambda: fits(
        kd.Distiller(ends_in("softmax"), linear.linear(2), SOFT(teacher_from_logits=False))
    ),
    "from_logits=False": lambda: kd.Distiller(
        ends_in("softmax"), ends_in("softmax", 2), SOFT(from_logits=False)
    ),
    "teacher_from_logits=True": lambda: kd.Distiller(
        linear.linear(1), ends_in("softmax"), SOFT(from_logits=False, teacher_from_logits=True)
    ),
    "SigmoidKD for sigmoid": lambda: kd.Distiller(
        ends_in("sigmoid"), ends_in("sigmoid"), kd.losses.SigmoidKD(from_logits=False)
    ),
    "output": lambda: kd.Distiller(linear.linear(1), table.heads("a", "b"), SOFT(output="b")),
    "teacher_output": lambda: kd.Distiller(
        table.heads("a", "b"), table.heads("a", "c"), SOFT(output="c", teacher_output="b")
    ),
    "a loss for each output": lambda: kd.Distiller(
        table.heads("a", "b"), table.heads("a", "b"), {"a": SOFT(), "b": SOFT()}
    ),
    "the same names": lambda: kd.Distiller(table.heads("a", "b"), table.heads("b", "a")),
    "a per-sample loss": lambda: fits(table.made(_Rows())),
    "compute_loss of the student": lambda: fits(kd.Distiller(linear.linear(1), _with_loss())),
    "train_step of the distiller": lambda: fits(_Stepping(*linear.pair())),
    "taps.summary": lambda: table.hinted(
        table.hidden(5),
        table.hidden(3),
        kd.taps.summary(table.hidden(5), print_fn=None)[0]["layer"],
        "hidden",
    ),
    "a path for a layer of a copy": lambda: _by_path(),
    "inputs of summary": lambda: kd.taps.summary(table._subclassed(), X, print_fn=None),
    "projector='auto'": lambda: table.hinted(
        table.hidden(5), table.hidden(3), "hidden", "hidden", projector="auto"
    ),
    "a layer as projector": lambda: table.hinted(
        table._flat(6, 4),
        table._positions(6, 4),
        "hidden",
        "hidden",
        projector=layers.Flatten(),
    ),
    "alpha=0": lambda: fits(table.made(alpha=0.0), loss=False),
    "metrics by name": lambda: table.made().compile(
        "sgd", linear.from_logits(), metrics=["accuracy"]
    ),
    "another name of a metric": lambda: table.made().compile(
        "sgd", linear.from_logits(), metrics=[keras.metrics.Mean(name="mine")]
    ),
    "alpha=0 without labels": lambda: fits(table.made(alpha=0.0), y=None, loss=False),
    "evaluate_with_teacher": lambda: _validated_without_labels(),
    "a dataset of (x, y, weights)": lambda: fits(
        table.made(alpha=0.0),
        tf.data.Dataset.from_tensor_slices((X, Y, np.ones(8))).batch(4),
        None,
        loss=False,
        shuffle=False,
    ),
    "distiller.alpha = 1.0": lambda: _learning_from_labels(),
    "(inputs, labels)": lambda: fits(table.made(kd.losses.DecoupledKD(), alpha=0.0), loss=False),
    "a larger batch_size": lambda: fits(table.made(kd.losses.DIST()), batch_size=2),
    "a loss to compile": lambda: _alpha_after_compile(),
    "compile again": lambda: _compiled_again(),
    "pass x": lambda: table.compiled().compute_loss(X, Y),
    "a name of the inputs": lambda: _masked_by_name(),
    "weights of the outputs' positions": lambda: fits(
        table.made(alpha=0.0), loss=False, sample_weight=np.ones(8)
    ),
    "peers of outputs": lambda: table.peers(SOFT(1.0)),
    "peers that were called": lambda: _called_peers(),
    "alpha=0 of peers": lambda: kd.MutualDistiller([*linear.pair()], alpha=0.0).compile("sgd"),
    "a callback of peers": lambda: table._peers_with(kd.callbacks.TemperatureSchedule(2.0, 1.0)),
    "one optimizer for all peers": lambda: table.peers().compile("sgd", linear.from_logits()),
}


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
@pytest.mark.parametrize("name", REMEDIES)
def test_the_remedy_works(name):
    REMEDIES[name]()


def _cloned():
    teacher = linear.linear(1)
    return kd.Distiller(teacher, keras.models.clone_model(teacher))


def _wide(units):
    inputs = keras.Input((6, 2))
    return keras.Model(inputs, layers.Dense(units)(layers.Flatten()(inputs)))


def _resizing(teacher):
    def resized(x):
        outputs = keras.ops.image.resize(teacher(x)[:, :, None], (6, 1))
        return outputs[:, :, 0]

    return resized


class _Rows(kd.losses.DistillationLoss):
    def call(self, teacher_outputs, student_outputs):
        return keras.ops.mean(teacher_outputs - student_outputs, axis=-1)


def _with_loss():
    class Student(keras.Sequential):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return 2.0 * super().compute_loss(x, y, y_pred, sample_weight, training)

    return Student([keras.Input((linear.FEATURES,)), layers.Dense(linear.CLASSES)])


class _Stepping(kd.Distiller):
    def train_step(self, data):
        return super().train_step(data)


def _by_path():
    teacher = table.hidden(5)
    copy = keras.models.clone_model(teacher)
    copied = copy.get_layer("hidden")
    return kd.Distiller(teacher, table.hidden(3), kd.losses.FeatureHint(copied.name, "hidden"))


def _validated_without_labels():
    distiller = table.made()
    distiller.evaluate_with_teacher = True
    return fits(distiller, validation_data=(X,))


def _learning_from_labels():
    distiller = table.made(alpha=0.0, beta=0.0)
    distiller.alpha = 1.0
    return fits(distiller)


def _alpha_after_compile():
    distiller = table.made(alpha=0.0)
    distiller.compile("sgd", linear.from_logits())
    distiller.alpha = 1.0
    distiller.fit(X, Y, verbose=0)


def _compiled_again():
    distiller = kd.Distiller(table.hidden(5), table.hidden(3))
    distiller.compile("sgd", linear.from_logits())
    x = np.ones((8, 6), "float32")
    distiller.fit(x, Y, verbose=0)
    distiller.compile("sgd", linear.from_logits())
    distiller.attach(kd.losses.FeatureHint("hidden", "hidden"))
    distiller.fit(x, Y, verbose=0)


def _masked_by_name():
    x, mask = keras.Input((3, 2), name="x"), keras.Input((3,), name="mask")
    pair = [keras.Model({"x": x, "mask": mask}, layers.Dense(4)(x)) for _ in "ts"]
    return kd.Distiller(*pair, mask_input="mask")


def _called_peers():
    late = keras.Sequential([layers.Dense(linear.CLASSES)])
    late(X)
    return kd.MutualDistiller([linear.linear(1), late])

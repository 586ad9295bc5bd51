"""Wrong models, losses and numbers raise at once, with a clear message."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from tests import matrix, reference
from tests.distiller import heads, linear
from tests.distiller.linear import compiled

SoftTargets = kd.losses.SoftTargets


def softmax_model(seed=1, classes=linear.CLASSES):
    return linear.linear(seed, classes, activation="softmax")


def wide():
    """`[batch, 1, classes]`: another rank."""
    return keras.Sequential(
        [keras.Input((5,)), keras.layers.Reshape((1, 5)), keras.layers.Dense(linear.CLASSES)]
    )


# Models


@pytest.mark.parametrize("teacher", [None, 3, "teacher.keras", keras.Sequential, [linear.linear]])
def test_a_teacher_that_is_neither_model_nor_function(teacher):
    with pytest.raises(ValueError, match="`teacher` must be a keras.Model, .* or a callable"):
        kd.Distiller(teacher, linear.linear(2))


@pytest.mark.parametrize("student", [None, lambda x: x, keras.layers.Dense(4)])
def test_a_student_that_is_not_a_model(student):
    with pytest.raises(ValueError, match="`student`. Expected a keras.Model"):
        kd.Distiller(linear.linear(1), student)


def test_teacher_and_student_are_the_same_model():
    model = linear.linear(1)
    with pytest.raises(ValueError, match="the same model; it would teach itself"):
        kd.Distiller(model, model)


def test_teacher_and_student_share_weights_that_are_trained():
    inputs = keras.Input((5,))
    shared = keras.layers.Dense(6, name="shared")
    teacher, student = (
        keras.Model(inputs, keras.layers.Dense(linear.CLASSES)(shared(inputs))) for _ in range(2)
    )
    with pytest.raises(ValueError, match="share weights that training would change.*shared/kernel"):
        kd.Distiller(teacher, student)
    shared.trainable = False
    kd.Distiller(teacher, student)


def test_class_counts_that_differ():
    with pytest.raises(ValueError, match="different numbers of classes.* is 4.* 7"):
        kd.Distiller(linear.linear(1, classes=7), linear.linear(2))


def test_class_counts_of_a_function_and_of_an_output_that_differ():
    with pytest.raises(ValueError, match="different numbers of classes"):
        kd.Distiller(lambda x: x, linear.linear(2))
    with pytest.raises(ValueError, match="different numbers of classes"):
        kd.Distiller(lambda x: [x, x], heads.model(2, "list"))


def test_ranks_that_differ():
    with pytest.raises(ValueError, match="must have the same rank"):
        kd.Distiller(wide(), linear.linear(2))


def test_numbers_of_outputs_that_differ():
    with pytest.raises(ValueError, match="reads 2 outputs of the teacher and 1 of the student"):
        kd.Distiller(heads.model(1), linear.linear(2))


def test_names_of_outputs_that_differ():
    inputs = keras.Input((5,))
    outputs = {name: keras.layers.Dense(4)(inputs) for name in ("x", "y")}
    student = keras.Model(inputs, {name: keras.layers.Dense(4)(inputs) for name in ("x", "z")})
    with pytest.raises(ValueError, match="teacher's outputs are .*'y'.*, the student's .*'z'"):
        kd.Distiller(keras.Model(inputs, outputs), student)
    kd.Distiller(keras.Model(inputs, outputs), student, SoftTargets(output="x"))


def test_class_counts_that_only_the_data_tells():
    class Unbuilt(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(7)

        def call(self, inputs):
            return self.dense(inputs)

    distiller = compiled(linear.linear(1), Unbuilt())
    with pytest.raises(ValueError, match="different numbers of classes"):
        distiller.fit(*linear.data(), verbose=0)


def test_integer_logits():
    with pytest.raises(ValueError, match="Expected logits.*int32"):
        kd.Distiller(lambda x: keras.ops.cast(x[:, :4], "int32"), linear.linear(2))


# Probabilities where logits are expected


def ends_in(kind):
    inputs = keras.Input((5,))
    logits = keras.layers.Dense(linear.CLASSES)(inputs)
    ends = {
        "activation": lambda: keras.layers.Activation("softmax")(logits),
        "layer": lambda: keras.layers.Softmax()(logits),
        "op": lambda: keras.ops.softmax(logits),
        "identity": lambda: keras.layers.Identity()(keras.layers.Softmax()(logits)),
        "nested": lambda: keras.Model(inputs, keras.layers.Softmax()(logits))(inputs),
    }
    return keras.Model(inputs, ends[kind]())


@pytest.mark.parametrize("kind", ["activation", "layer", "op", "identity", "nested"])
def test_a_model_that_ends_in_softmax_is_recognized(kind):
    with pytest.raises(ValueError, match=r"student.* ends in softmax.*from_logits=False"):
        kd.Distiller(linear.linear(1), ends_in(kind))


@pytest.mark.parametrize("losses", [None, keras.distillation.LogitsDistillation()])
def test_probabilities_are_refused_with_the_remedy(losses):
    with pytest.raises(ValueError, match=r"teacher.* ends in softmax.*from_logits=False"):
        kd.Distiller(softmax_model(), linear.linear(2), losses)


def test_probabilities_of_one_of_several_outputs():
    inputs = keras.Input((5,))
    outputs = {"a": keras.layers.Dense(3)(inputs), "b": keras.layers.Dense(4, "softmax")(inputs)}
    model = keras.Model(inputs, outputs)
    with pytest.raises(ValueError, match=r"teacher \(output .*\) ends in softmax"):
        kd.Distiller(model, heads.model(2))
    kd.Distiller(model, heads.model(2), {"a": SoftTargets(), "b": None})


def test_probabilities_with_from_logits_false():
    x, y = linear.data()
    logits = [linear.logits_of(model, x) for model in (softmax_model(2), softmax_model(1))]
    loss = keras.losses.SparseCategoricalCrossentropy()
    models = softmax_model(1), softmax_model(2)
    distiller = compiled(*models, SoftTargets(from_logits=False), compile_args={"loss": loss})
    logs = distiller.train_on_batch(x, y, return_dict=True)
    expected = reference.soft_target_loss(*logits, 4.0).mean()
    np.testing.assert_allclose(logs["soft_targets"], expected, rtol=1e-5)


# Losses


@pytest.mark.parametrize("loss", ["kl_divergence", keras.losses.KLDivergence(), print, 3])
def test_a_loss_that_is_not_a_distillation_loss(loss):
    with pytest.raises(ValueError, match="must be a keras_kd.losses.DistillationLoss"):
        kd.Distiller(*linear.pair(), loss)


def test_no_losses():
    with pytest.raises(ValueError, match="`distillation_losses` is empty"):
        kd.Distiller(*linear.pair(), [])
    with pytest.raises(ValueError, match="`distillation_losses` is empty"):
        kd.Distiller(heads.model(1), heads.model(2), {"a": None, "b": None})


def test_an_output_that_does_not_exist():
    with pytest.raises(ValueError, match="names output 'c'; the student's outputs are .*'a', 'b'"):
        kd.Distiller(heads.model(1), heads.model(2), {"c": SoftTargets()})
    for output in ("c", 5):
        with pytest.raises(
            ValueError, match=f"reads output {output!r}, which the (teacher|student) does not"
        ):
            kd.Distiller(heads.model(1), heads.model(2), SoftTargets(output=output))


@pytest.mark.parametrize("weights", [[1.0], [1.0, 2.0, 3.0], 1.0])
def test_a_number_of_weights_that_differs(weights):
    losses = [SoftTargets(), SoftTargets(name="second")]
    with pytest.raises(ValueError, match="one number for each of the 2 distillation losses"):
        kd.Distiller(*linear.pair(), losses, weights)


RETURNS = {
    "scalar": lambda gap: keras.ops.mean(gap),
    "mean over the rows": lambda gap: keras.ops.mean(gap, axis=0),
}


@pytest.mark.parametrize("kind", RETURNS)
def test_a_loss_that_returns_the_wrong_shape(kind):
    class Wrong(kd.losses.DistillationLoss):
        def call(self, teacher_outputs, student_outputs):
            return RETURNS[kind](teacher_outputs - student_outputs)

    with pytest.raises(ValueError, match=r"Wrong.call must return one value for each row"):
        kd.Distiller(*linear.pair(), Wrong())


class Gap(kd.losses.DistillationLoss):
    def call(self, teacher_outputs, student_outputs):
        return keras.ops.mean((teacher_outputs - student_outputs) ** 2, axis=-1)


def test_a_layer_that_does_not_exist():
    with pytest.raises(ValueError, match="has no layer 'dens'. Close to it: .*dense"):
        kd.Distiller(*linear.pair(), Gap(teacher_layer="dense", student_layer="dens"))
    with pytest.raises(ValueError, match="the teacher is a callable without layers"):
        kd.Distiller(linear.linear(1).call, linear.linear(2), Gap(teacher_layer="dense"))


# Numbers

BAD_NUMBERS = [-1.0, float("nan"), float("inf"), "1", True, None]


@pytest.mark.parametrize("value", BAD_NUMBERS[:-1])
@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_bad_factors(name, value):
    with pytest.raises(ValueError, match=f"argument `{name}`.*Received: {name}="):
        kd.Distiller(*linear.pair(), **{name: value})
    distiller = kd.Distiller(*linear.pair())
    with pytest.raises(ValueError, match=f"argument `{name}`"):
        setattr(distiller, name, value)
    assert getattr(distiller, name) == 0.5


@pytest.mark.parametrize("value", BAD_NUMBERS)
def test_bad_weights(value):
    with pytest.raises(ValueError, match="argument `weight`"):
        SoftTargets(weight=value)
    with pytest.raises(ValueError, match="argument `distillation_loss_weights`"):
        kd.Distiller(*linear.pair(), [SoftTargets()], [value])
    loss = SoftTargets()
    with pytest.raises(ValueError, match="argument `weight`"):
        loss.weight = value


@pytest.mark.parametrize("value", [0, *BAD_NUMBERS])
def test_bad_temperatures(value):
    with pytest.raises(ValueError, match="temperature.*positive, finite"):
        SoftTargets(temperature=value)
    distiller = kd.Distiller(*linear.pair())
    with pytest.raises(ValueError, match="temperature.*positive, finite"):
        distiller.temperature = value
    assert distiller.temperature == 4.0


def test_bad_divergences():
    with pytest.raises(ValueError, match="argument `divergence`. Expected one of .*forward_kl"):
        SoftTargets(divergence="kl")
    with pytest.raises(ValueError, match="argument `mixing_weight`"):
        SoftTargets(divergence="jsd", mixing_weight=1.0)


@pytest.mark.parametrize("other", [{"alpha": 0.5}, {"beta": 0.5}, {"alpha": 0.0, "beta": 1.0}])
def test_alpha_and_student_loss_weight_together(other):
    with pytest.raises(ValueError, match="`student_loss_weight=w` is another spelling"):
        kd.Distiller(*linear.pair(), student_loss_weight=0.5, **other)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), "0.5"])
def test_bad_student_loss_weights(value):
    with pytest.raises(ValueError, match="student_loss_weight"):
        kd.Distiller(*linear.pair(), student_loss_weight=value)


def test_a_temperature_where_no_loss_has_one():
    distiller = kd.Distiller(*linear.pair(), Gap())
    with pytest.raises(AttributeError, match="None of the distillation losses has a temperature"):
        distiller.temperature = 2.0


# Labels and data


def test_no_loss_although_alpha_gives_it_a_factor():
    distiller = kd.Distiller(*linear.pair())
    with pytest.raises(ValueError, match="`loss` is None, but alpha=0.5"):
        distiller.compile("sgd")


def test_alpha_cannot_be_raised_where_no_loss_was_compiled():
    distiller = kd.Distiller(*linear.pair(), alpha=0.0)
    distiller.compile("sgd")
    with pytest.raises(ValueError, match="loss"):
        distiller.alpha = 0.5


@pytest.mark.parametrize("mode", linear.MODES)
def test_no_labels_although_alpha_gives_the_hard_loss_a_factor(mode):
    distiller = compiled(*linear.pair(), mode=mode)
    with pytest.raises(ValueError, match="no labels, but alpha=0.5"):
        distiller.fit(linear.data()[0], verbose=0)


def test_alpha_cannot_be_raised_while_there_are_no_labels():
    distiller = compiled(*linear.pair(), alpha=0.0, mode="graph")
    raise_it = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: setattr(distiller, "alpha", 0.5 * epoch)
    )
    with pytest.raises(ValueError, match="alpha=0.5 needs labels"):
        distiller.fit(linear.data()[0], epochs=2, callbacks=[raise_it], verbose=0)


@pytest.mark.parametrize("label", [-1, linear.CLASSES])
@pytest.mark.parametrize("mode", matrix.modes("eager", "graph"))
def test_labels_out_of_range_are_named(mode, label):
    x, y = linear.data()
    y[3] = label
    distiller = compiled(*linear.pair(), mode=mode)
    with pytest.raises(
        Exception, match=f"Label {label} at row 3 is out of range.*< {linear.CLASSES}"
    ):
        distiller.train_on_batch(x, y)


def empty(kind):
    x, y = linear.data(8)
    rows = tf.data.Dataset.from_tensor_slices((x, y))
    return {
        "filtered": rows.filter(lambda x, y: False).batch(4),
        "taken": rows.batch(4).take(0),
        "dropped": rows.batch(9, drop_remainder=True),
    }[kind]


@pytest.mark.filterwarnings("ignore:Your input ran out of data", "ignore:.*`shuffle=True`")
@pytest.mark.parametrize("validated", [False, True])
@pytest.mark.parametrize("kind", ["filtered", "taken", "dropped"])
def test_data_without_any_batch(kind, validated):
    distiller = compiled(*linear.pair())
    validation = linear.data(8) if validated else None
    with pytest.raises(ValueError, match="training data is empty"):
        distiller.fit(empty(kind), validation_data=validation, verbose=0)


# NaN


@pytest.mark.parametrize("mode", linear.MODES)
@pytest.mark.parametrize("hard_loss", [linear.from_logits, lambda: [linear.from_logits()]])
def test_nan_stays_nan_and_training_can_be_stopped(mode, hard_loss):
    x, y = linear.data(32)
    x[17] = np.nan
    distiller = compiled(*linear.pair(), mode=mode, compile_args={"loss": hard_loss()})
    seen = []
    count = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(logs))
    stop = keras.callbacks.TerminateOnNaN()
    options = {"batch_size": 8, "shuffle": False, "verbose": 0, "callbacks": [count, stop]}
    distiller.fit(x, y, **options)
    assert len(seen) == 3
    assert np.isfinite(seen[1]["loss"])
    assert all(np.isnan(seen[2][key]) for key in ("loss", "hard_loss", "soft_targets"))


def test_weights_that_keras_would_drop_for_want_of_labels():
    x, _ = linear.data()
    distiller = compiled(*linear.pair(), alpha=0.0)
    with pytest.raises(ValueError, match="`sample_weight` without `y`.*dataset of"):
        distiller.fit(x, sample_weight=np.zeros(len(x)), verbose=0)


# Names in the history


@pytest.mark.parametrize(
    "metrics",
    [
        {"metrics": [keras.metrics.SparseCategoricalAccuracy(name="soft_targets")]},
        {"weighted_metrics": ["accuracy", keras.metrics.Mean(name="hard_loss")]},
        {"metrics": [keras.metrics.SparseCategoricalAccuracy(name="loss")]},
    ],
)
def test_a_metric_that_is_called_as_a_loss_is(metrics):
    distiller = kd.Distiller(*linear.pair())
    with pytest.raises(ValueError, match="the history has one entry for both.*another name"):
        distiller.compile("sgd", linear.from_logits(), **metrics)


def test_a_loss_that_joins_under_the_name_of_a_metric():
    distiller = kd.Distiller(*linear.pair())
    metrics = [keras.metrics.SparseCategoricalAccuracy(name="hint")]
    distiller.compile("sgd", linear.from_logits(), metrics=metrics)
    hint = kd.losses.FeatureHint("dense", "dense", name="hint")
    with pytest.raises(ValueError, match="A metric is called 'hint'"):
        distiller.attach(hint)
    assert len(distiller.distillation_losses) == 1
    distiller.attach(kd.losses.FeatureHint("dense", "dense", name="other"))
    assert {"hint", "other"} <= set(distiller.fit(*linear.data(), verbose=0).history)

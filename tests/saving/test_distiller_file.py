"""What a `.keras` file of a distiller holds: everything that `fit` needs to go on."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_kd as kd
from tests import fresh_process
from tests.distribution import scenarios
from tests.distribution.scenarios import Hint, LogitsMSE, cross_entropy, network

X, Y, WEIGHT = scenarios.data(40)


def made(*losses, models=None, compiled=True, eager=True, **kwargs):
    """A distiller, compiled where it is wanted; always from the same seed.

    Eager, because a few steps are quicker than tracing one.
    """
    keras.utils.set_random_seed(3)
    teacher, student = models() if models else (network(8), network(6, "l2"))
    distiller = kd.Distiller(teacher, student, list(losses) or None, **kwargs)
    if compiled:
        distiller.compile(
            keras.optimizers.Adam(0.02),
            loss=cross_entropy(),
            metrics=["accuracy"],
            run_eagerly=eager,
        )
    return distiller


def fit(distiller, epochs=1, **kwargs):
    options = {"batch_size": 16, "shuffle": False, "verbose": 0, **kwargs}
    return distiller.fit(X, Y, epochs=epochs, **options).history


def reloaded(distiller, folder):
    distiller.save(folder / "distiller.keras")
    return keras.models.load_model(folder / "distiller.keras")


def assert_same_weights(actual, expected):
    """Of models, losses or optimizers: the same variables in the same order."""
    assert len(actual.variables) == len(expected.variables)
    for one, other in zip(actual.variables, expected.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy(), err_msg=other.path)


def assert_goes_on_alike(actual, expected):
    """Both predict the same, train on the same, and end up the same."""
    np.testing.assert_array_equal(actual.predict(X, verbose=0), expected.predict(X, verbose=0))
    assert_same_weights(actual.optimizer, expected.optimizer)
    assert fit(actual) == fit(expected)
    assert_same_weights(actual.student, expected.student)
    assert_same_weights(actual.optimizer, expected.optimizer)
    for one, other in zip(actual.distillation_losses, expected.distillation_losses, strict=True):
        assert_same_weights(one, other)


@pytest.mark.parametrize("eager", [False, True])
def test_training_goes_on_after_loading(tmp_path, eager):
    distiller = made(eager=eager)
    fit(distiller)
    assert_goes_on_alike(reloaded(distiller, tmp_path), distiller)


def test_a_distiller_that_never_trained(tmp_path):
    """The optimizer's variables are there too; Keras would warn if they were not."""
    distiller = made()
    assert_goes_on_alike(reloaded(distiller, tmp_path), distiller)


def test_a_distiller_that_is_not_compiled(tmp_path):
    distiller = made(compiled=False, alpha=0.1)
    loaded = reloaded(distiller, tmp_path)
    assert not loaded.compiled
    assert loaded.alpha == np.float32(0.1)
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), distiller.predict(X, verbose=0))


def test_numbers_are_those_at_the_time_of_saving(tmp_path):
    distiller = made(kd.losses.SoftTargets(2.0, weight=0.5), alpha=0.9, beta=0.1)
    distiller.alpha, distiller.beta, distiller.temperature = 0.25, 0.75, 3.5
    distiller.distillation_losses[0].weight = 1.5
    loaded = reloaded(distiller, tmp_path)
    assert (loaded.alpha, loaded.beta, loaded.temperature) == (0.25, 0.75, 3.5)
    assert loaded.distillation_losses[0].weight == 1.5


def test_weights_alone_hold_the_numbers_too(tmp_path):
    distiller = made(kd.losses.SoftTargets(2.0))
    fit(distiller)
    distiller.alpha, distiller.beta, distiller.temperature = 0.25, 0.75, 3.5
    distiller.save_weights(tmp_path / "distiller.weights.h5")
    other = made(kd.losses.SoftTargets(2.0))
    other.load_weights(tmp_path / "distiller.weights.h5")
    assert (other.alpha, other.beta, other.temperature) == (0.25, 0.75, 3.5)
    assert_same_weights(other.student, distiller.student)
    assert_same_weights(other.teacher, distiller.teacher)


def test_compile_arguments(tmp_path):
    distiller = made(compiled=False)
    distiller.compile(
        keras.optimizers.SGD(0.3, momentum=0.9, clipnorm=1.0),
        loss=cross_entropy(ignore_class=2),
        loss_weights=[0.5],
        weighted_metrics=["accuracy"],
        steps_per_execution=2,
    )
    loaded = reloaded(distiller, tmp_path)
    assert type(loaded.loss) is keras.losses.SparseCategoricalCrossentropy
    assert loaded.loss.get_config() == distiller.loss.get_config()
    assert loaded.optimizer.get_config() == distiller.optimizer.get_config()
    assert loaded.steps_per_execution == 2
    assert_goes_on_alike(loaded, distiller)


def test_labels_are_not_needed_after_loading_either(tmp_path):
    distiller = made(compiled=False, alpha=0, beta=1)
    distiller.compile("sgd", run_eagerly=True)
    loaded = reloaded(distiller, tmp_path)
    options = {"batch_size": 16, "shuffle": False, "verbose": 0}
    assert loaded.fit(X, **options).history == distiller.fit(X, **options).history


def test_the_teacher_is_saved_as_it_is(tmp_path):
    """Its statistics and flags included, and nothing of it is trained after loading."""

    def models():
        teacher = keras.Sequential(
            [keras.Input((5,)), layers.Dense(8), layers.BatchNormalization(), layers.Dense(3)]
        )
        teacher.layers[0].trainable = False
        for variable in teacher.layers[1].non_trainable_variables:
            variable.assign(variable + 0.5)
        return teacher, network(6)

    distiller = made(models=models)
    before = distiller.teacher.get_weights()
    fit(distiller)
    loaded = reloaded(distiller, tmp_path)
    fit(loaded)
    for teacher in (distiller.teacher, loaded.teacher):
        np.testing.assert_equal(teacher.get_weights(), before)
        assert [layer.trainable for layer in teacher.layers] == [False, True, True]
    assert len(loaded.trainable_variables) == len(loaded.student.trainable_variables)


def test_mixed_precision(tmp_path):
    """The student's policy and the state of the loss scale survive, whatever the global policy."""

    def models():
        keras.config.set_dtype_policy("mixed_float16")
        student = network(6)
        keras.config.set_dtype_policy("float32")
        return network(8), student

    distiller = made(models=models)
    fit(distiller)
    loaded = reloaded(distiller, tmp_path)
    assert type(loaded.optimizer) is keras.optimizers.LossScaleOptimizer
    assert loaded.student.layers[-1].compute_dtype == "float16"
    assert loaded.teacher.layers[-1].compute_dtype == "float32"
    assert_goes_on_alike(loaded, distiller)


def test_losses(tmp_path):
    """Several, so that none takes another's place in the file; one has trained weights."""
    layer = {"teacher_layer": "hidden", "student_layer": "hidden"}
    distiller = made(
        kd.losses.SoftTargets(2.0, "reverse_kl", weight=0.3, name="other"),
        kd.losses.SoftTargets(3.0, "jsd", mixing_weight=0.2),
        Hint(weight=0.3, **layer, name="hint"),
        Hint(weight=0.1, **layer, name="hint"),
        LogitsMSE(weight=0.2),
        keras.distillation.LogitsDistillation(temperature=2.5),
        keras.distillation.LogitsDistillation(loss=keras.losses.KLDivergence()),
        keras.distillation.FeatureDistillation("mse", "logits", "logits"),
    )
    fit(distiller)
    loaded = reloaded(distiller, tmp_path)
    for one, other in zip(loaded.distillation_losses, distiller.distillation_losses, strict=True):
        assert type(one) is type(other)
        assert one.name == other.name
        assert one.get_config().keys() == other.get_config().keys()
    assert_goes_on_alike(loaded, distiller)


def test_live_temperature_of_a_keras_loss(tmp_path):
    distiller = made(keras.distillation.LogitsDistillation(temperature=2.5))
    distiller.temperature = 6.0
    assert reloaded(distiller, tmp_path).temperature == 6.0


def test_losses_of_several_outputs(tmp_path):
    def model(width):
        body = network(width).get_layer("hidden")
        heads = {name: layers.Dense(3, name=name)(body.output) for name in ("a", "b", "c")}
        return keras.Model(body.input, heads)

    losses = {"a": kd.losses.SoftTargets(2.0), "b": kd.losses.SoftTargets(3.0), "c": None}
    distiller = kd.Distiller(model(8), model(6), losses)
    targets = {"a": cross_entropy(), "b": "mse", "c": cross_entropy()}
    distiller.compile(keras.optimizers.Adam(0.02), loss=targets, run_eagerly=True)
    labels = {"a": Y, "b": keras.utils.to_categorical(Y), "c": Y}
    options = {"batch_size": 16, "shuffle": False, "verbose": 0}
    distiller.fit(X, labels, **options)
    loaded = reloaded(distiller, tmp_path)
    assert [loss.output_key for loss in loaded.distillation_losses] == ["a", "b"]
    assert loaded.fit(X, labels, **options).history == distiller.fit(X, labels, **options).history
    assert_same_weights(loaded.student, distiller.student)


def test_probabilities(tmp_path):
    def models():
        return [
            keras.Sequential([keras.Input((5,)), layers.Dense(3, activation="softmax")])
            for _ in range(2)
        ]

    distiller = made(kd.losses.SoftTargets(from_logits=False), models=models, compiled=False)
    distiller.compile("sgd", loss="sparse_categorical_crossentropy", run_eagerly=True)
    fit(distiller)
    assert_goes_on_alike(reloaded(distiller, tmp_path), distiller)


def test_a_subclassed_student(tmp_path):
    """Its weights exist from the first batch on, and in the file they have to be found."""
    distiller = made(
        kd.losses.SoftTargets(),
        Hint(teacher_layer="hidden", student_layer="hidden"),
        models=lambda: (network(8), scenarios.Subclassed()),
    )
    fit(distiller)
    assert_goes_on_alike(reloaded(distiller, tmp_path), distiller)


def test_a_subclassed_student_without_weights(tmp_path):
    distiller = made(models=lambda: (network(8), scenarios.Subclassed()))
    with pytest.warns(UserWarning, match="has not yet been built"):
        loaded = reloaded(distiller, tmp_path)
    assert set(fit(loaded)) == {"accuracy", "hard_loss", "loss", "soft_targets"}


def test_a_subclassed_teacher(tmp_path):
    distiller = made(models=lambda: (scenarios.Subclassed(), network(6)))
    fit(distiller)
    loaded = reloaded(distiller, tmp_path)
    assert_same_weights(loaded.teacher, distiller.teacher)
    assert_goes_on_alike(loaded, distiller)


@keras.saving.register_keras_serializable(package="keras_kd_tests")
def registered_teacher(x):
    return keras.ops.stack([x[:, 0], x[:, 1], -x[:, 2]], axis=-1)


@keras.saving.register_keras_serializable(package="keras_kd_tests")
def doubled(x):
    return 2.0 * x


def test_registered_functions(tmp_path):
    distiller = made(models=lambda: (registered_teacher, network(6)), teacher_preprocess=doubled)
    fit(distiller)
    loaded = reloaded(distiller, tmp_path)
    assert loaded.teacher is registered_teacher
    assert loaded.teacher_preprocess is doubled
    assert_goes_on_alike(loaded, distiller)


@pytest.mark.parametrize("argument", ["teacher", "teacher_preprocess"])
def test_unregistered_functions_raise(tmp_path, argument):
    models = {"models": lambda: (lambda x: x[:, :3], network(6))} if argument == "teacher" else {}
    other = {} if argument == "teacher" else {"teacher_preprocess": lambda x: x}
    with pytest.raises(ValueError, match=rf"its {argument} .*register_keras_serializable"):
        made(**models, **other).save(tmp_path / "distiller.keras")
    assert not (tmp_path / "distiller.keras").exists()


LOAD = """
import sys
import keras
import numpy as np
import keras_kd

distiller = keras.models.load_model(sys.argv[1] + "/distiller.keras")
assert type(distiller) is keras_kd.Distiller
predicted = distiller.predict(np.load(sys.argv[1] + "/x.npy"), verbose=0)
np.save(sys.argv[1] + "/predicted.npy", predicted)
"""


def test_loads_in_fresh_process_without_custom_objects(tmp_path):
    distiller = made(
        kd.losses.SoftTargets(), keras.distillation.FeatureDistillation("mse", "logits", "logits")
    )
    fit(distiller)
    distiller.save(tmp_path / "distiller.keras")
    np.save(tmp_path / "x.npy", X)
    fresh_process.run_preloaded(["-c", LOAD, tmp_path])
    np.testing.assert_allclose(
        np.load(tmp_path / "predicted.npy"), distiller.predict(X, verbose=0), rtol=1e-6
    )


def test_config_is_enough_to_make_another(tmp_path):
    distiller = made(kd.losses.SoftTargets(2.0), alpha=0.2, name="my_distiller")
    other = kd.Distiller.from_config(distiller.get_config())
    assert other.get_config() == distiller.get_config()
    assert other.name == "my_distiller"
    assert other.alpha == np.float32(0.2)

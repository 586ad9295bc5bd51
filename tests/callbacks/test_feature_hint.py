"""Hints of a `fit`: their weights by epoch, attaching, steering, resuming, errors."""

import keras
import numpy as np
import pytest

import keras_kd as kd
from tests.distiller import counters, linear
from tests.distiller.linear import compiled
from tests.distiller.test_live import counting

EPOCHS = 5


def network(width, seed):
    keras.utils.set_random_seed(seed)
    layers = [
        keras.Input((linear.FEATURES,)),
        keras.layers.Dense(width, "tanh", name="features"),
        keras.layers.Dense(linear.CLASSES),
    ]
    return keras.Sequential(layers)


def models():
    return network(8, 1), network(3, 2)


def hint(**options):
    return kd.callbacks.FeatureHint("features", "features", **options)


def fit(distiller, *callbacks, epochs=EPOCHS, **options):
    keras.utils.set_random_seed(7)
    x, y = linear.data(24)
    options = {"batch_size": 8, "shuffle": False, "verbose": 0, **options}
    return distiller.fit(x, y, epochs=epochs, callbacks=list(callbacks), **options).history


@pytest.mark.parametrize(
    ("options", "weights"),
    [
        ({}, [1, 1, 1, 1, 1]),
        ({"weight": 0.5, "start_epoch": 3}, [0, 0, 0, 0.5, 0.5]),
        ({"start_epoch": 1, "stop_epoch": 3}, [0, 1, 1, 0, 0]),
        ({"start_epoch": 1, "ramp_epochs": 3}, [0, 0.25, 0.5, 0.75, 1]),
        ({"ramp_epochs": 1, "stop_epoch": 4}, [0.5, 1, 1, 1, 0]),
    ],
)
def test_the_weight_of_each_epoch(options, weights):
    made = compiled(*models())
    history = fit(made, hint(**options))
    assert history["hint_features_weight"] == weights
    assert len(history["hint_features"]) == EPOCHS
    assert made.distillation_losses[1].weight == 0.0


@pytest.mark.parametrize("mode", linear.MODES)
def test_it_equals_a_compiled_hint_whose_weight_is_set(mode):
    teacher, student = models()
    keras.utils.set_random_seed(3)
    attached = compiled(teacher, student, mode=mode)
    fit(attached, hint(weight=0.7, start_epoch=2))
    teacher, other = models()
    keras.utils.set_random_seed(3)
    loss = kd.losses.FeatureHint("features", "features", weight=0.0, name="hint")
    known = compiled(teacher, other, [kd.losses.SoftTargets(4.0), loss], mode=mode)
    # The same projector: it was made by another random number.
    projector = attached.distillation_losses[1].weights

    class Set(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            loss.weight = 0.7 if epoch >= 2 else 0.0

    attached_start = network_projector(mode)
    for variable, value in zip(
        known.distillation_losses[1].trainable_weights, attached_start, strict=True
    ):
        variable.assign(value)
    fit(known, Set())
    assert len(projector) == 3
    for a, b in zip(student.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def network_projector(mode):
    """The projector that the first `fit` of `test_it_equals...` begins with."""
    teacher, student = models()
    keras.utils.set_random_seed(3)
    made = compiled(teacher, student, mode=mode)
    keras.utils.set_random_seed(7)
    callback = hint()
    callback.prepare(made, [callback])
    return [w.numpy() for w in made.distillation_losses[1].trainable_weights]


def test_the_hint_trains_and_the_projector_too():
    made = compiled(*models(), alpha=0.0, beta=1.0, learning_rate=0.3, mode="graph")
    made.distillation_losses[0].weight = 0.0
    history = fit(made, hint(), epochs=12)
    assert history["hint_features"][-1] < 0.6 * history["hint_features"][0]
    assert len(made.student.trainable_weights) == 4
    assert len(made.trainable_weights) == 6


@pytest.mark.parametrize("attached", [False, True])
def test_it_steers_the_hint_that_is_there(attached):
    losses = [kd.losses.SoftTargets(4.0), kd.losses.FeatureHint("features", "features", weight=0.2)]
    made = compiled(*models(), None if attached else losses)
    name = "hint_features" if attached else "feature_hint"
    if attached:
        fit(made, hint(), epochs=1)
    history = fit(made, hint(weight=0.9, start_epoch=1), epochs=3)
    assert len(made.distillation_losses) == 2
    assert history[f"{name}_weight"] == pytest.approx([0.0, 0.9, 0.9])
    assert made.distillation_losses[1].weight == pytest.approx(0.0 if attached else 0.2)


def test_no_retracing():
    calls = []
    teacher, student = models()
    made = compiled(counted(teacher, calls), student, mode="graph")
    traced = []
    count = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: traced.append(len(calls)))
    fit(made, hint(start_epoch=2, ramp_epochs=1), count)
    assert traced == [traced[0]] * EPOCHS


def counted(model, calls):
    """As `counting`, a functional model so that it has layers."""
    inputs = keras.Input((linear.FEATURES,))
    outer = counting(model.layers[0], calls)
    x = keras.layers.Lambda(outer, output_shape=(8,), name="counted")(inputs)
    x = keras.layers.Activation("linear", name="features")(x)
    return keras.Model(inputs, keras.layers.Dense(linear.CLASSES)(x))


def test_each_model_runs_once_a_step():
    teacher, student = counters.model(), counters.model()
    made = linear.compiled(teacher, student, mode="eager")
    x, y = linear.data(8)
    callbacks = [
        kd.callbacks.FeatureHint("n", "n"),
        kd.callbacks.FeatureHint("head", "head", "cosine"),
    ]
    made.fit(x, y, batch_size=8, epochs=1, callbacks=callbacks, verbose=0)
    for counted_model in (teacher, student):
        counters.reset(counted_model)
    made.fit(x, y, batch_size=8, epochs=3, callbacks=callbacks, verbose=0)
    assert counters.calls(teacher) == counters.calls(student) == 3
    counters.reset(teacher)
    before = [w.numpy() for w in student.get_layer("n").weights]
    made.evaluate(x, y, verbose=0)
    assert counters.calls(teacher) == 0
    for a, b in zip(before, student.get_layer("n").weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_resumed_fit_gives_the_same_numbers(tmp_path):
    def made():
        distiller = compiled(*models(), compile_args={"optimizer": keras.optimizers.Adam(0.01)})
        start = network_projector("graph")
        callback = hint(weight=0.7, start_epoch=1, ramp_epochs=2)
        callback.prepare(distiller, [callback])
        pairs = zip(distiller.distillation_losses[1].trainable_weights, start, strict=True)
        for variable, value in pairs:
            variable.assign(value)
        return distiller, callback

    whole, callback = made()
    expected = fit(whole, callback)
    first, callback = made()
    backup = tmp_path / "backup"

    class Interrupt(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(first, callback, keras.callbacks.BackupAndRestore(backup), Interrupt())
    second, callback = made()
    history = fit(second, callback, keras.callbacks.BackupAndRestore(backup))
    for key, values in history.items():
        assert values == expected[key][2:], key
    for a, b in zip(whole.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("how", ["file", "again", "by hand"])
def test_a_resumed_fit_leaves_the_weight_it_had_before(how, tmp_path):
    class Interrupt(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    loss = kd.losses.FeatureHint("features", "features", weight=0.2)
    made = compiled(*models(), [kd.losses.SoftTargets(), loss])
    save = keras.callbacks.ModelCheckpoint(tmp_path / "distiller.keras")
    with pytest.raises(KeyboardInterrupt):
        fit(made, hint(weight=0.7), save, Interrupt())
    assert loss.weight == pytest.approx(0.7)
    if how == "file":
        made = keras.saving.load_model(tmp_path / "distiller.keras")
    if how == "by hand":
        loss.weight = 0.4
    fit(made, hint(weight=0.7), initial_epoch=2)
    expected = 0.4 if how == "by hand" else 0.2
    assert made.distillation_losses[1].weight == pytest.approx(expected)
    assert made.callback_states == {}


def test_hints_that_share_a_name_are_distinguished():
    layers = [(8, "a"), (8, "b")]

    def network():
        hidden = [keras.layers.Dense(width, "tanh", name=name) for width, name in layers]
        return keras.Sequential(
            [keras.Input((linear.FEATURES,)), *hidden, keras.layers.Dense(linear.CLASSES)]
        )

    hints = [kd.losses.FeatureHint(name, name) for _, name in layers]
    made = compiled(network(), network(), hints)
    history = fit(
        made,
        kd.callbacks.LossWeightSchedule("feature_hint", 0.0, 1.0),
        kd.callbacks.FeatureHint("b", "b", weight=0.5, start_epoch=1),
        epochs=2,
    )
    assert history["feature_hint_weight"] == [0.0, 1.0]
    assert history["feature_hint_1_weight"] == [0.0, 0.5]
    fit(made, kd.callbacks.LossWeightSchedule("feature_hint_1", 0.0, 3.0), epochs=2)
    assert [loss.weight for loss in made.distillation_losses] == [1.0, 3.0]


def test_an_equal_projector_is_no_contradiction():
    made = compiled(*models())
    fit(made, hint(projector=keras.layers.Dense(8)), epochs=1)
    fit(made, hint(projector=keras.layers.Dense(8)), epochs=1)
    with pytest.raises(ValueError, match="contradicts"):
        fit(made, hint(projector=keras.layers.Dense(8, use_bias=False)), epochs=1)


def test_a_saved_distiller_goes_on_with_its_hint(tmp_path):
    made = compiled(*models(), mode="graph")
    fit(made, hint(), epochs=2)
    made.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    histories = [fit(each, hint(), epochs=2) for each in (made, loaded)]
    assert histories[0] == histories[1]
    made.student.save(tmp_path / "student.keras")
    assert len(keras.saving.load_model(tmp_path / "student.keras").weights) == 4


def test_a_projector_that_comes_too_late_is_refused():
    made = compiled(*models())
    fit(made, epochs=1)
    before = made.student.get_weights()
    with pytest.raises(ValueError, match=r"'hint_features' has weights of its own.*Compile the"):
        fit(made, hint())
    assert len(made.distillation_losses) == 1
    for a, b in zip(before, made.student.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    fit(made, epochs=1)  # goes on as before
    made.compile("sgd", linear.from_logits())
    fit(made, hint())


def test_a_hint_without_projector_may_come_late():
    made = compiled(network(4, 1), network(4, 2))
    fit(made, epochs=1)
    history = fit(made, hint(projector=None), epochs=1)
    assert history["hint_features_weight"] == [1.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "cosine"}, r"loss='cosine'\) contradicts.*has loss='mse'"),
        ({"projector": "linear"}, r"projector='linear'\) contradicts.*has projector='auto'"),
    ],
)
def test_options_that_contradict_the_loss_raise(options, message):
    losses = [kd.losses.SoftTargets(), kd.losses.FeatureHint("features", "features")]
    with pytest.raises(ValueError, match=message):
        fit(compiled(*models(), losses), hint(**options))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start_epoch": 3, "stop_epoch": 3}, "start_epoch=3.*stop_epoch=3"),
        ({"start_epoch": 1, "ramp_epochs": 4, "stop_epoch": 5}, "ramp_epochs=4"),
        ({"ramp_epochs": -1}, "ramp_epochs=-1"),
        ({"weight": -1}, "weight=-1"),
        ({"start_epoch": -2}, "start_epoch=-2"),
        ({"loss": "l2"}, "loss='l2'"),
        ({"projector": "dense"}, "projector='dense'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        hint(**arguments)


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        ([kd.callbacks.FeatureHint("features", "feature")], "no layer 'feature'.*'features'"),
        ([hint(start_epoch=EPOCHS)], f"begins with epoch {EPOCHS}"),
        ([hint(), hint()], "'hint_features_weight': FeatureHint and FeatureHint. Pass one"),
        (
            [hint(), kd.callbacks.LossWeightSchedule("hint_features", 0.0, 1.0)],
            "'hint_features_weight': FeatureHint and LossWeightSchedule",
        ),
    ],
)
def test_what_does_not_fit_the_run(callbacks, message):
    with pytest.raises(ValueError, match=message):
        fit(compiled(*models()), *callbacks)


def test_a_subclassed_student():
    from tests.taps import networks

    teacher, student = networks.Subclassed(), networks.Subclassed()
    x, y = linear.data(24)
    teacher(x)
    made = compiled(teacher, student, mode="graph")
    callback = kd.callbacks.FeatureHint("blocks/1", "blocks/0", projector="linear")
    history = made.fit(x, y, epochs=2, batch_size=8, callbacks=[callback], verbose=0).history
    assert len(history["hint_blocks_0"]) == 2
    assert len(made.trainable_weights) == len(student.trainable_weights) + 2
    moved = made.distillation_losses[1].trainable_weights[1].numpy()
    assert np.abs(moved).max() > 0

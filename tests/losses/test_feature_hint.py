"""`FeatureHint` against NumPy in float64; projectors; training, saving, errors."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from tests.distiller import counters, linear
from tests.losses import checks

RNG = np.random.default_rng(0)


def truth(kind, teacher, student):
    """Per-row values of a kind, before they are averaged over positions."""
    t, s = np.float64(teacher), np.float64(student)
    if kind == "mse":
        return ((t - s) ** 2).mean(-1)
    if kind == "cosine":
        return 1 - (t * s).sum(-1) / np.linalg.norm(t, axis=-1) / np.linalg.norm(s, axis=-1)
    d = np.abs(t - s)
    return np.where(d < 1, d * d / 2, d - 0.5).mean(-1)


def rows_of(values):
    """What a loss returns: one value per sample, also of images."""
    return values.mean(axis=(1, 2)) if values.ndim == 3 else values


def hint(loss="mse", **options):
    return kd.losses.FeatureHint("t", "s", loss=loss, **options)


def run(function, jit_compile, *arguments):
    if jit_compile is None:
        return function(*arguments)
    return tf.function(function, jit_compile=jit_compile)(*arguments)


@pytest.mark.parametrize("mode", checks.MODES)
@pytest.mark.parametrize("shape", [(3, 5), (3, 4, 5), (3, 2, 2, 5)])
@pytest.mark.parametrize("kind", ["mse", "cosine", "smooth_l1"])
def test_values_and_gradients(kind, shape, mode):
    teacher, student = RNG.normal(0, 1.5, (2, *shape)).astype("float32")
    loss = hint(kind)

    def value_and_gradient(teacher, student):
        with tf.GradientTape() as tape:
            tape.watch(student)
            value = loss(teacher, student)
        return value, tape.gradient(value, student)

    value, gradient = run(
        value_and_gradient, checks.MODES[mode], *map(tf.constant, (teacher, student))
    )
    expected = rows_of(truth(kind, teacher, student))
    assert value.shape == expected.shape
    np.testing.assert_allclose(value, expected, rtol=2e-6, atol=1e-7)
    # Central differences of the float64 truth: their error is about 1e-9.
    for index in [(0,) * len(shape), tuple(n - 1 for n in shape)]:
        step = np.zeros(shape)
        step[index] = 1e-5
        both = [rows_of(truth(kind, teacher, student + sign * step)).sum() for sign in (1, -1)]
        assert gradient.numpy()[index] == pytest.approx((both[0] - both[1]) / 2e-5, abs=2e-6)


@pytest.mark.parametrize("kind", ["mse", "cosine", "smooth_l1"])
def test_zero_where_the_features_are_equal(kind):
    features = RNG.normal(size=(4, 6)).astype("float32")
    np.testing.assert_allclose(hint(kind)(features, features), np.zeros(4), atol=5e-7)


def test_a_zero_vector_has_no_direction():
    student = tf.Variable(np.zeros((2, 3), "float32"))
    with tf.GradientTape() as tape:
        value = hint("cosine")(np.ones((2, 3), "float32"), student)
    np.testing.assert_array_equal(value, [1.0, 1.0])
    np.testing.assert_array_equal(tape.gradient(value, student), np.zeros((2, 3)))


def test_a_keras_loss_and_a_function():
    teacher, student = RNG.normal(size=(2, 4, 6)).astype("float32")
    expected = np.abs(teacher - student).mean(-1)
    for loss in [keras.losses.MeanAbsoluteError(), keras.losses.mean_absolute_error]:
        np.testing.assert_allclose(hint(loss)(teacher, student), expected, rtol=1e-6)
    with pytest.raises(ValueError, match="one number for the batch"):
        hint(lambda t, s: keras.ops.mean(t - s))(teacher, student)


@pytest.mark.parametrize(
    ("student", "teacher", "kinds"),
    [
        ((2, 4), (2, 4), []),
        ((2, 4), (2, 7), ["Dense"]),
        ((2, 5, 4), (2, 5, 7), ["Dense"]),
        ((2, 8, 8, 3), (2, 4, 4, 3), ["AveragePooling2D"]),
        ((2, 8, 8, 3), (2, 4, 4, 6), ["AveragePooling2D", "Conv2D"]),
        ((2, 5, 5, 3), (2, 7, 7, 6), ["Resizing", "Conv2D"]),
        ((2, 4, 4, 3), (2, 4, 4, 6), ["Conv2D"]),
    ],
)
def test_the_projector_that_the_shapes_need(student, teacher, kinds):
    loss = hint()
    value = loss(np.ones(teacher, "float32"), np.ones(student, "float32"))
    assert [type(layer).__name__ for layer in loss.projection_layers] == kinds
    assert value.shape == ((2, 5) if len(teacher) == 3 else (2,))
    assert bool(loss.trainable_weights) == bool({"Dense", "Conv2D"} & set(kinds))


def test_linear_projects_also_where_widths_agree():
    loss = hint(projector="linear")
    loss(np.ones((2, 4), "float32"), np.ones((2, 4), "float32"))
    assert [type(layer).__name__ for layer in loss.projection_layers] == ["Dense"]


@pytest.mark.parametrize(
    ("student", "teacher", "options", "message"),
    [
        ((2, 4), (2, 3, 4), {}, r"No projector.*\(2, 4\).*\(2, 3, 4\)"),
        ((2, 5, 4), (2, 3, 4), {}, "lengths differ"),
        ((2, 4), (2, 7), {"projector": None}, r"shape \(2, 4\).*\(2, 7\).*projector='auto'"),
        ((2, 4), (2, 7), {"projector": keras.layers.Dense(6)}, r"\(2, 6\) after the projector"),
    ],
)
def test_shapes_that_nothing_bridges(student, teacher, options, message):
    with pytest.raises(ValueError, match=message):
        hint(**options)(np.ones(teacher, "float32"), np.ones(student, "float32"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("t", "s", "l2"), r"one of \('mse', 'cosine', 'smooth_l1'\).*loss='l2'"),
        (("t", "s", None), "loss=None"),
        (("t", "s", "mse", "dense"), "projector='dense'"),
        ((3, "s"), "teacher_layer=3"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        kd.losses.FeatureHint(*arguments)


def network(width, seed=0, mask=False):
    keras.utils.set_random_seed(seed)
    layers = [keras.Input((linear.FEATURES,)), keras.layers.Dense(width, "tanh", name="features")]
    return keras.Sequential([*layers, keras.layers.Dense(linear.CLASSES)])


def distiller(*losses, mode="graph", **options):
    return linear.compiled(network(12, 1), network(6, 2), list(losses), mode=mode, **options)


def test_an_unknown_layer_raises_with_close_names():
    with pytest.raises(ValueError, match=r"no layer 'feature'.*'features'"):
        distiller(kd.losses.FeatureHint("feature", "features"))


@pytest.mark.parametrize("mode", linear.MODES)
@pytest.mark.parametrize("kind", ["mse", "cosine", "smooth_l1"])
def test_fit_lowers_it_and_trains_the_projector(kind, mode):
    x, y = linear.data(64)
    made = distiller(kd.losses.FeatureHint("features", "features", kind), mode=mode, alpha=0.0)
    before = made.distillation_losses[0].trainable_weights[0].numpy()
    student = made.student.get_weights()
    made.optimizer.learning_rate = 0.3
    history = made.fit(x, y, epochs=15, batch_size=16, verbose=0).history
    assert history["feature_hint"][-1] < 0.5 * history["feature_hint"][0]
    assert np.abs(made.distillation_losses[0].trainable_weights[0].numpy() - before).max() > 0.01
    assert np.abs(made.student.get_weights()[0] - student[0]).max() > 0.01
    # The hint does not train the layers above it.
    np.testing.assert_array_equal(made.student.get_weights()[-1], student[-1])


def test_a_projector_that_another_distiller_trained_is_no_fresh_start():
    used = kd.losses.FeatureHint("features", "features")
    distiller(used)
    with pytest.warns(UserWarning, match="'feature_hint' has weights of another distiller"):
        distiller(used)
    fresh = used.from_config(used.get_config())
    made = distiller(fresh)  # without a warning, which would be an error
    kernels = [loss.trainable_variables[0] for loss in (used, made.distillation_losses[0])]
    assert kernels[0] is not kernels[1]


def test_each_model_runs_once_a_step_with_two_hints():
    teacher, student = counters.model(), counters.model()
    hints = [
        kd.losses.FeatureHint("n", "n"),
        kd.losses.FeatureHint("head", "head", "cosine", name="second"),
    ]
    losses = [kd.losses.SoftTargets(), *hints]
    made = linear.compiled(teacher, student, losses, mode="eager")
    x, y = linear.data(8)
    made.train_on_batch(x, y)
    for counted in (teacher, student):
        counters.reset(counted)
    made.train_on_batch(x, y)
    assert counters.calls(teacher) == counters.calls(student) == 1


def test_the_projector_is_saved_with_the_distiller_and_not_with_the_student(tmp_path):
    x, y = linear.data(32)
    made = distiller(
        kd.losses.SoftTargets(), kd.losses.FeatureHint("features", "features", weight=0.3)
    )
    made.fit(x, y, epochs=1, verbose=0)
    made.save(tmp_path / "distiller.keras")
    loaded = keras.models.load_model(tmp_path / "distiller.keras")
    assert loaded.distillation_losses[1].weight == pytest.approx(0.3)
    for a, b in zip(made.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    made.student.save(tmp_path / "student.keras")
    student = keras.models.load_model(tmp_path / "student.keras")
    assert student.count_params() == made.student.count_params()
    a, b = (model.fit(x, y, epochs=1, shuffle=False, verbose=0).history for model in (made, loaded))
    assert a == b


@pytest.mark.parametrize(
    "options",
    [{"loss": keras.losses.Huber()}, {"projector": keras.layers.Dense(12)}, {"loss": "cosine"}],
)
def test_config(options):
    loss = kd.losses.FeatureHint("a/b", "c", weight=0.5, name="hint", **options)
    copy = kd.losses.FeatureHint.from_config(loss.get_config())
    assert copy.get_config() == loss.get_config()
    assert copy.teacher_layer == "a/b"


@pytest.mark.parametrize("mode", linear.MODES)
def test_a_hint_of_weight_0_does_not_count_where_it_is_infinite(mode):
    def network(scale):
        features = keras.layers.Dense(3, kernel_initializer="ones", name="features")
        layers = [features, keras.layers.Rescaling(scale, name="scaled"), keras.layers.Dense(4)]
        return keras.Sequential([keras.Input((linear.FEATURES,)), *layers])

    hint = kd.losses.FeatureHint("scaled", "scaled", weight=0.0)
    made = linear.compiled(network(1e25), network(1.0), [hint], mode=mode)
    x, y = linear.data(6)
    history = made.fit(x, y, verbose=0).history
    assert history["feature_hint"] == [np.inf]
    assert history["loss"][0] == pytest.approx(0.5 * history["hard_loss"][0])
    assert all(np.isfinite(w).all() for w in made.student.get_weights())


def test_features_that_do_not_fit_raise_without_keras_prefix():
    hint = kd.losses.FeatureHint("dense", "dense", projector=None)
    with pytest.raises(
        ValueError, match=r"^Distillation loss 'feature_hint': the features"
    ) as raised:
        kd.Distiller(linear.linear(1), linear.linear(2, classes=3), hint)
    assert "Exception encountered" not in str(raised.value)


def test_masked_positions_do_not_count():
    def model(width, seed):
        keras.utils.set_random_seed(seed)
        tokens = keras.Input((6,), dtype="int32")
        x = keras.layers.Embedding(9, width, mask_zero=True)(tokens)
        x = keras.layers.Dense(width, name="features")(x)
        return keras.Model(tokens, keras.layers.Dense(3)(x))

    teacher, student = model(5, 1), model(5, 2)
    losses = [kd.losses.SoftTargets(), kd.losses.FeatureHint("features", "features")]
    made = kd.Distiller(teacher, student, losses, alpha=0.0, beta=1.0)
    made.compile(keras.optimizers.SGD(0.0))
    tokens = np.array([[1, 2, 3, 0, 0, 0], [4, 5, 6, 7, 8, 0]], "int32")
    history = made.fit(tokens, epochs=1, verbose=0).history

    def features(model):
        return keras.Model(model.inputs[0], model.get_layer("features").output)(tokens).numpy()

    rows = truth("mse", features(teacher), features(student))
    expected = rows[tokens != 0].mean()
    assert history["feature_hint"][0] == pytest.approx(expected, rel=1e-5)

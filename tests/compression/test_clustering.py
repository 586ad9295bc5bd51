"""Clustering in `fit`: the algorithm, how many values there are, resuming, errors."""

import keras
import numpy as np
import pytest

import keras_kd as kd
from tests.compression import networks
from tests.compression.networks import solved
from tests.distiller import linear
from tests.distiller.test_live import counting

pytestmark = pytest.mark.in_turn(4)

Cluster = kd.callbacks.Cluster


def values(weight):
    return len(np.unique(np.asarray(weight)))


class TestAlgorithm:
    def test_the_weights_are_those_of_tfmot(self, tfmot):
        given, found = tfmot
        model = solved(given, Cluster(5, initial="linear"))
        for mine, other in zip(model.get_weights(), found["clustered"], strict=True):
            np.testing.assert_allclose(mine, other, atol=2e-6)
        assert values(np.float32(found["clustered"][0])) == 5

    def test_a_loop_in_float64(self):
        given = networks.task()
        x, y = np.array(given["x"]), np.array(given["y"])
        w = np.array(given["weights"][0])[:, :3]
        model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3, use_bias=False)])
        model.set_weights([w])
        centers = np.linspace(w.min(), w.max(), 4)
        for step in range(10):
            nearest = np.abs(w[..., None] - centers).argmin(-1)
            rows = slice(4 * step, 4 * step + 4)
            error = x[rows] @ centers[nearest] - y[rows]
            d = -0.1 * x[rows].T @ error * 2 / (4 * 3)
            w = w + d
            for j in range(4):
                if np.any(nearest == j):
                    centers[j] += d[nearest == j].mean()
        model.compile(keras.optimizers.SGD(0.1), "mse")
        options = {"batch_size": 4, "shuffle": False, "verbose": 0}
        model.fit(x, y, callbacks=[Cluster(4, initial="linear")], **options)
        expected = centers[np.abs(w[..., None] - centers).argmin(-1)]
        np.testing.assert_allclose(model.get_weights()[0], expected, atol=1e-6)

    @pytest.mark.parametrize("initial", ["kmeans", "linear", "density"])
    def test_where_the_values_begin(self, initial):
        given = {**networks.task(), "rate": 0.0}
        weights = np.array(given["weights"][0])
        found = np.unique(solved(given, Cluster(6, initial=initial)).get_weights()[0])
        expected = {
            "linear": np.linspace(weights.min(), weights.max(), 6),
            "density": np.quantile(weights, (np.arange(6) + 0.5) / 6),
        }
        if initial != "kmeans":
            np.testing.assert_allclose(found, expected[initial], atol=1e-6)
            return
        # Lloyd's fixed point: each value is the mean of the weights that are nearest to it.
        nearest = np.abs(weights[..., None] - found).argmin(-1)
        for j in range(6):
            assert found[j] == pytest.approx(weights[nearest == j].mean(), abs=1e-5)

    def test_k_means_is_nearer_than_the_others(self):
        given = {**networks.task(), "rate": 0.0}
        exact, errors = np.array(given["weights"][0]), {}
        for initial in ("kmeans", "linear", "density"):
            found = solved(given, Cluster(6, initial=initial)).get_weights()[0]
            errors[initial] = np.mean((found - exact) ** 2)
        assert errors["kmeans"] < 0.9 * min(errors["linear"], errors["density"])


def test_a_student_learns_digits_while_it_is_clustered(digits, teacher, tmp_path):
    train, test = digits
    keras.utils.set_random_seed(2)
    student = networks.cnn(16)
    distiller = networks.distiller(teacher, student, keras.optimizers.Adam(0.005))
    distiller.fit(*train, batch_size=64, epochs=5, verbose=0)
    before = np.mean(np.argmax(student.predict(test[0], verbose=0), -1) == test[1])
    distiller.compile(keras.optimizers.Adam(0.0005), networks.from_logits(), metrics=["accuracy"])
    history = distiller.fit(
        *train,
        validation_data=test,
        batch_size=64,
        epochs=2,
        callbacks=[kd.cluster(student, clusters=16)],
        verbose=0,
    ).history
    student.save(tmp_path / "student.keras")
    loaded = keras.models.load_model(tmp_path / "student.keras")
    kernels = [loaded.layers[0].kernel, loaded.layers[3].pointwise_kernel, loaded.layers[-1].kernel]
    assert [values(kernel) for kernel in kernels] == [16, 16, 16]
    assert values(loaded.layers[3].depthwise_kernel) > 16
    accuracy = np.mean(np.argmax(loaded.predict(test[0], verbose=0), -1) == test[1])
    assert accuracy == pytest.approx(history["val_accuracy"][-1], abs=1e-6)
    assert accuracy > max(before - 0.02, 0.93)


def test_every_kind_of_layer():
    student = networks.many_kinds()
    student.compile("sgd", networks.from_logits())
    tokens, labels = np.arange(80).reshape(20, 4) % 12, np.arange(20) % 3
    student.fit(tokens, labels, batch_size=4, callbacks=[Cluster(3)], verbose=0)
    many = {w.path: values(w) for w in student.trainable_variables if len(w.shape) > 1}
    biases = [path for path in many if path.endswith("bias")]  # of attention
    kernels = {path: count for path, count in many.items() if path not in biases}
    assert len(kernels) == 1 + 4 + 4 + 1 + 1
    assert set(kernels.values()) == {3}


def test_fewer_weights_than_values_stay_as_they_are():
    given = {**networks.task(), "rate": 0.0}
    model = solved(given, Cluster(100))
    for mine, weight in zip(model.get_weights(), given["weights"], strict=True):
        np.testing.assert_array_equal(mine, np.float32(weight))


def test_a_pruned_student_keeps_its_zeros():
    given = networks.task()
    pruned = solved(given, kd.callbacks.Sparsify(0.5, end_step=10))
    given["weights"] = [weight.tolist() for weight in pruned.get_weights()]
    model = solved(given, Cluster(5, preserve_sparsity=True))
    for before, after in zip(pruned.get_weights()[::2], model.get_weights()[::2], strict=True):
        assert np.all(after[before == 0] == 0)
        assert 4 <= values(after) <= 5
        assert np.any(after < 0)
        assert np.any(after > 0)
    other = solved(given, Cluster(5))
    assert not np.all(other.get_weights()[0][pruned.get_weights()[0] == 0] == 0)


def test_no_retracing():
    calls = []
    teacher, student = linear.pair()
    distiller = linear.compiled(counting(teacher, calls), student, mode="graph")
    traced = []
    count = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: traced.append(len(calls)))
    x, y = linear.data(24)
    distiller.fit(x, y, batch_size=4, epochs=3, callbacks=[Cluster(3), count], verbose=0)
    assert traced == [traced[0]] * 3


class InterruptedFit(Exception):  # noqa: N818
    pass


class Interrupt(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise InterruptedFit


@pytest.mark.parametrize("is_first", [True, False])
def test_a_resumed_distiller_is_that_of_one_that_was_not_interrupted(is_first, tmp_path):
    def run(model, *callbacks):
        x, y = linear.data(24)
        options = {"batch_size": 4, "shuffle": False, "verbose": 0, "epochs": 4}
        callbacks = [Cluster(3), *callbacks] if is_first else [*callbacks, Cluster(3)]
        return model.fit(x, y, callbacks=callbacks, **options)

    # Quick enough that weights change to other values.
    whole, parts, other = (
        networks.distiller(*linear.pair(), keras.optimizers.Adam(0.1), run_eagerly=True)
        for _ in range(3)
    )
    run(whole)
    with pytest.raises(InterruptedFit):
        run(parts, keras.callbacks.BackupAndRestore(tmp_path), Interrupt())
    run(other, keras.callbacks.BackupAndRestore(tmp_path))
    for a, b in zip(whole.student.get_weights(), other.student.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert other.callback_states == {}


def test_what_an_interrupted_run_left_is_not_taken_for_other_weights():
    distiller = networks.distiller(*linear.pair())
    x, y = linear.data(24)
    options = {"batch_size": 4, "epochs": 3, "verbose": 0}
    with pytest.raises(InterruptedFit):
        distiller.fit(x, y, callbacks=[Cluster(3), Interrupt()], **options)
    other = [weight + 5 for weight in distiller.student.get_weights()]
    distiller.student.set_weights(other)
    distiller.optimizer.learning_rate = 0.0
    distiller.fit(x, y, callbacks=[Cluster(3)], **options)
    kernel = distiller.student.get_weights()[0]
    assert np.all((kernel >= other[0].min()) & (kernel <= other[0].max()))


def test_an_optimizer_that_averages_weights_keeps_to_the_values():
    optimizer = keras.optimizers.SGD(0.2, use_ema=True, ema_momentum=0.9)
    model = solved(networks.task(), Cluster(4), optimizer=optimizer)
    assert all(values(kernel) <= 4 for kernel in model.get_weights()[::2])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Cluster(1), "`clusters`.*at least 2"),
        (lambda: Cluster(2.5), "clusters=2.5"),
        (lambda: Cluster(initial="random"), "'kmeans', 'linear', 'density'.*initial='random'"),
        (lambda: kd.cluster(networks.small(), layers=["none"]), "no layer 'none'"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_callback_of_another_student():
    with pytest.raises(ValueError, match="Cluster was made for.*trains none of its weights"):
        solved(networks.task(), kd.cluster(networks.small()))

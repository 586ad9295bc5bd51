"""Pruning in `fit`: the algorithm, what is promised at its end, resuming, errors."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from tests.compression import networks
from tests.compression.networks import STEPS, solved, zeros
from tests.distiller import linear
from tests.distiller.test_live import counting

Sparsify = kd.callbacks.Sparsify


class TestAlgorithm:
    def test_the_schedule_is_that_of_tfmot(self, tfmot):
        given, found = tfmot
        decay = given["decay"]
        begin, end = decay["begin_step"], decay["end_step"]
        schedule = kd.schedules.Polynomial(decay["initial_sparsity"], decay["final_sparsity"])
        mine = [schedule(step - begin, end - begin + 1) for step in range(end + 2)]
        np.testing.assert_allclose(mine, found["sparsity"], rtol=1e-6)
        due = [step for step, is_due in enumerate(found["is_due"]) if is_due]
        assert due == [2, 5, 8, 11, 14]

    def test_the_weights_are_those_of_tfmot(self, tfmot):
        given, found = tfmot
        # Its step t chooses before the t-th batch, after t - 1 of them.
        prune = Sparsify(0.75, begin_step=1, end_step=13, frequency=3, initial_sparsity=0.1)
        for mine, other in zip(solved(given, prune).get_weights(), found["pruned"], strict=True):
            np.testing.assert_allclose(mine, other, atol=1e-6)
        assert zeros(found["pruned"][0]) == 36

    def test_two_of_four_is_that_of_tfmot(self, tfmot):
        given, found = tfmot  # which chooses once, before the first step
        prune = Sparsify("2:4", end_step=0)
        weights = solved(given, prune).get_weights()
        for mine, other in zip(weights, found["two_of_four"], strict=True):
            np.testing.assert_allclose(mine, other, atol=1e-6)

    def test_a_loop_in_float64(self):
        given = networks.task()
        x, y = np.array(given["x"]), np.array(given["y"])
        # One layer without bias: mean squared error of x w.
        w = np.array(given["weights"][0])[:, :3]
        model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3, use_bias=False)])
        model.set_weights([w])
        mask, shares = np.ones_like(w), {2: 0.0, 6: 0.75 * (1 - 0.5**3), 10: 0.75}
        for step in range(12):
            if step in shares:
                stay = round(24 * (1 - shares[step]))
                mask = np.abs(w) >= np.sort(np.abs(w), axis=None)[24 - stay]
            w = w * mask
            rows = slice(4 * (step % 10), 4 * (step % 10) + 4)
            w = w - 0.1 * x[rows].T @ (x[rows] @ w - y[rows]) * 2 / (4 * 3)
        w = w * mask
        model.compile(keras.optimizers.SGD(0.1), "mse")
        prune = Sparsify(0.75, begin_step=2, end_step=10, frequency=4)
        data = tf.data.Dataset.from_tensor_slices((np.float32(x), np.float32(y))).batch(4)
        model.fit(data.repeat().take(12), shuffle=False, callbacks=[prune], verbose=0)
        np.testing.assert_allclose(model.get_weights()[0], w, atol=1e-6)
        assert zeros(w) == 18

    @pytest.mark.parametrize("sparsity", [0.1, 0.85, 0.999])
    def test_each_kernel_has_the_zeros_that_are_promised(self, sparsity):
        model = solved(networks.task(), Sparsify(sparsity, frequency=2))
        for kernel in model.get_weights()[::2]:
            assert zeros(kernel) == kernel.size - max(round(kernel.size * (1 - sparsity)), 1)
        assert all(zeros(bias) == 0 for bias in model.get_weights()[1::2])

    def test_equal_weights(self):
        given = {**networks.task(), "rate": 0.0}
        given["weights"] = [np.ones(np.shape(weight)) for weight in given["weights"]]
        kernel = solved(given, Sparsify(0.5)).get_weights()[0]
        np.testing.assert_array_equal(kernel.ravel(), [1.0] * 24 + [0.0] * 24)


def test_a_student_learns_digits_while_it_is_pruned(digits, teacher):
    train, test = digits
    keras.utils.set_random_seed(2)
    student = networks.cnn(16)
    prune = kd.sparsify(student, 0.8, end_step=60, frequency=10)
    distiller = networks.distiller(teacher, student, keras.optimizers.Adam(0.01))
    history = distiller.fit(
        *train, validation_data=test, batch_size=64, epochs=6, callbacks=[prune], verbose=0
    ).history
    assert history["sparsity"] == sorted(history["sparsity"])
    assert history["sparsity"][-1] == pytest.approx(0.8, abs=1e-3)
    sparsity = kd.compression.sparsity_of(student)
    assert list(sparsity.kernels) == [
        f"{student.layers[0].name}/kernel",
        f"{student.layers[3].name}/pointwise_kernel",
        "logits/kernel",
    ]
    for share, weight in zip(
        sparsity.kernels.values(),
        [student.layers[0].kernel, student.layers[3].pointwise_kernel, student.layers[-1].kernel],
        strict=True,
    ):
        assert share == zeros(weight) / weight.numpy().size == pytest.approx(0.8, abs=0.003)
    # As it stands it says what was validated.
    accuracy = np.mean(np.argmax(student.predict(test[0], verbose=0), -1) == test[1])
    assert accuracy == pytest.approx(history["val_accuracy"][-1], abs=1e-6)
    assert accuracy > 0.93
    assert f"{sparsity.total:.2%}" in str(sparsity)


def test_two_of_four_in_every_kind_of_layer(tmp_path):
    student = networks.many_kinds()
    student.compile("sgd", networks.from_logits())
    tokens, labels = np.arange(80).reshape(20, 4) % 12, np.arange(20) % 3
    student.fit(tokens, labels, batch_size=4, callbacks=[Sparsify("2:4")], verbose=0)
    student.save(tmp_path / "student.keras")
    loaded = keras.models.load_model(tmp_path / "student.keras")
    attention, both = loaded.get_layer("attention"), loaded.get_layer("both")
    query, value = attention.query_dense.kernel, attention.output_dense.kernel
    rows = {
        "query": np.reshape(query, (8, 8)).T,  # [model, head, size]: summed over model
        "output": np.moveaxis(np.asarray(value), 1, -1).reshape(-1, 4),  # over head and size
        "forward": np.asarray(both.forward_layer.cell.kernel).T,
        "recurrent": np.asarray(both.backward_layer.cell.recurrent_kernel).T,
        "inner": np.asarray(loaded.get_layer("inner").get_layer("hidden").kernel).T,
        "logits": np.asarray(loaded.get_layer("logits").kernel).T,
    }
    for name, kernel in rows.items():
        assert np.all(np.sum(networks.groups_of_four(kernel) != 0, -1) == 2), name
    assert zeros(loaded.get_layer("table").embeddings) == 0
    assert kd.compression.sparsity_of(loaded).two_of_four
    assert not kd.compression.sparsity_of(networks.many_kinds()).two_of_four


def test_two_of_four_in_convolutions():
    layers = [keras.layers.Conv2D(5, 3), keras.layers.Conv2DTranspose(3, 2)]
    student = keras.Sequential([keras.Input((6, 6, 6)), *layers])
    student.compile("sgd", "mse")
    x, y = np.ones((4, 6, 6, 6)), np.zeros((4, 5, 5, 3))
    student.fit(x, y, batch_size=2, callbacks=[Sparsify("2:4", end_step=1)], verbose=0)
    forward, back = (np.asarray(layer.kernel) for layer in layers)
    for kernel in (np.moveaxis(forward, 2, -1), back):  # [..., in, out]; [..., out, in]
        counts = np.sum(networks.groups_of_four(kernel.reshape(-1, kernel.shape[-1])) != 0, -1)
        # 6 inputs: two of the first four stay, and the other two; 5: two of four, and one.
        expected = [2, 2] if kernel.shape[-1] == 6 else [2, 1]
        np.testing.assert_array_equal(counts.reshape(-1, 2), [expected] * (len(counts) // 2))


class TestSteps:
    def shares(self, prune):
        """The share of zeros after each step, counted before the next."""
        seen = []

        def look(batch, logs):
            seen.append(zeros(prune.kernels[0].variable) / 48)

        look = keras.callbacks.LambdaCallback(on_train_batch_begin=look)
        solved(networks.task(), prune, look)
        return seen

    def test_nothing_happens_before_it_begins(self):
        prune = Sparsify(0.5, "linear", begin_step=4, end_step=12, frequency=4)
        expected = [0.0] * 4 + [0.0] * 4 + [0.25] * 4 + [0.5] * 8
        assert self.shares(prune) == expected

    def test_the_end_is_reached_between_two_choices_too(self):
        prune = Sparsify(0.5, 0.5, begin_step=2, end_step=5, frequency=100)
        assert self.shares(prune) == [0.0] * 2 + [0.5] * 18
        prune = Sparsify(0.5, end_step=7, frequency=100)
        assert self.shares(prune) == [0.0] * 7 + [0.5] * 13

    def test_by_default_the_last_choice_is_after_sixty_percent(self):
        seen = self.shares(Sparsify(0.5, "linear", frequency=1))
        assert seen[11] == 22 / 48
        assert seen[12:] == [0.5] * 8

    def test_one_choice(self):
        prune = Sparsify(0.75, begin_step=3, end_step=3)
        assert self.shares(prune) == [0.0] * 3 + [0.75] * 17

    def test_several_steps_an_execution(self):
        given = networks.task()
        prune = Sparsify(0.5, end_step=7, frequency=1)
        model = networks.small()
        model.compile("sgd", "mse", steps_per_execution=5)
        x, y = np.float32(given["x"]), np.float32(given["y"])
        model.fit(x, y, batch_size=4, callbacks=[prune], verbose=0)
        assert kd.compression.sparsity_of(model).total == 0.5

    # Keras says so at the end of each first epoch of such a dataset.
    @pytest.mark.filterwarnings("ignore:Your input ran out of data")
    def test_a_dataset_of_unknown_length(self):
        x, y = linear.data(12)
        data = tf.data.Dataset.from_tensor_slices((x, y)).batch(4).filter(lambda x, y: True)
        _, student = linear.pair()
        student.compile("sgd", linear.from_logits())
        options = {"epochs": 2, "shuffle": False, "verbose": 0}
        with pytest.raises(ValueError, match="Pass end_step, or steps_per_epoch"):
            student.fit(data, callbacks=[Sparsify(0.5)], **options)
        options["callbacks"] = [Sparsify(0.5, end_step=6)]
        student.fit(data, **options)
        assert kd.compression.sparsity_of(student).total == pytest.approx(0.5, abs=0.05)
        with pytest.raises(ValueError, match="before epoch 1 had. Pass steps_per_epoch"):
            student.fit(data, initial_epoch=1, **options)


def test_no_retracing():
    calls = []
    teacher, student = linear.pair()
    distiller = linear.compiled(counting(teacher, calls), student, mode="graph")
    traced = []
    count = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: traced.append(len(calls)))
    x, y = linear.data(24)
    prune = Sparsify(0.5, frequency=1)
    distiller.fit(x, y, batch_size=4, epochs=3, callbacks=[prune, count], verbose=0)
    assert traced == [traced[0]] * 3


def test_a_resumed_run_is_that_of_one_that_was_not_interrupted(tmp_path):
    def run(model, *callbacks, **options):
        x, y = linear.data(24)
        callbacks = [Sparsify(0.7, frequency=2, end_step=14), *callbacks]
        options = {"batch_size": 4, "shuffle": False, "verbose": 0, "epochs": 4, **options}
        return model.fit(x, y, callbacks=callbacks, **options)

    whole, parts = (networks.distiller(*linear.pair(), run_eagerly=True) for _ in range(2))
    run(whole)
    stop = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: setattr(parts, "stop_training", epoch == 1)
    )
    with pytest.warns(UserWarning, match=r"ended after 12 steps, before end_step=14.*not 0\.7"):
        run(parts, stop)
    parts.save(tmp_path / "distiller.keras")
    parts = keras.models.load_model(tmp_path / "distiller.keras")
    run(parts, initial_epoch=2)
    for a, b in zip(whole.student.get_weights(), parts.student.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_optimizer_that_averages_weights_keeps_the_zeros():
    optimizer = keras.optimizers.SGD(0.2, use_ema=True, ema_momentum=0.9)
    model = solved(networks.task(), Sparsify(0.75, end_step=18, frequency=6), optimizer=optimizer)
    assert [zeros(kernel) for kernel in model.get_weights()[::2]] == [36, 14]


class TestChoice:
    def test_layers(self):
        student = networks.many_kinds()
        student.compile("sgd", networks.from_logits())
        prune = Sparsify(0.5, layers=["inner/hidden", "attention"], end_step=1)
        student.fit(np.zeros((8, 4), "int32"), np.zeros(8), callbacks=[prune], verbose=0)
        shares = kd.compression.sparsity_of(student).kernels
        halved = {path for path, share in shares.items() if share == 0.5}
        assert len(halved) == 5
        assert all(path.split("/")[0] in ("inner", "attention") for path in halved)
        assert sum(shares.values()) == 2.5
        found = kd.compression.sparsity_of(student, layers=["inner"])
        assert found.total == 0.5

    def test_a_layer_that_is_never_called_has_nothing_to_prune(self):
        class Spare(keras.Model):
            def __init__(self):
                super().__init__()
                self.used, self.spare = keras.layers.Dense(4), keras.layers.Dense(4)

            def build(self, input_shape):
                self.used.build(input_shape)

            def call(self, inputs):
                return self.used(inputs)

        student = Spare()
        x, y = np.random.default_rng(0).normal(size=(8, 8)), np.arange(8) % 4
        student(x)
        student.compile("sgd", networks.from_logits())
        student.fit(x, y, callbacks=[kd.sparsify(student, 0.5, end_step=1)], verbose=0)
        assert kd.compression.sparsity_of(student).kernels == {"used/kernel": 0.5}

    def test_what_is_frozen_stays(self):
        student = networks.small()
        student.layers[0].trainable = False
        student.compile("sgd", "mse")
        student.fit(
            np.ones((8, 8)), np.ones((8, 3)), callbacks=[Sparsify(0.5, end_step=1)], verbose=0
        )
        assert zeros(student.layers[0].kernel) == 0
        assert zeros(student.layers[1].kernel) == 9

    def test_one_of_two_peers(self):
        peers = [linear.pair()[1] for _ in range(2)]
        distiller = kd.MutualDistiller(peers)
        distiller.compile("sgd", linear.from_logits())
        x, y = linear.data(8)
        prune = kd.sparsify(peers[1], 0.5, end_step=1)
        distiller.fit(x, y, batch_size=4, callbacks=[prune], verbose=0)
        assert kd.compression.sparsity_of(peers[0]).total == 0.0
        assert kd.compression.sparsity_of(peers[1]).total > 0.4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sparsify(0.0), "above 0 and below 1, or '2:4'. Received: sparsity=0.0"),
        (lambda: Sparsify(1.0), "below 1"),
        (lambda: Sparsify("1:4"), "Received: sparsity='1:4'"),
        (lambda: Sparsify(True), "sparsity=True"),
        (lambda: Sparsify(0.5, "steps"), "schedule='steps'"),
        (lambda: Sparsify(0.5, initial_sparsity=0.6), "initial_sparsity=0.6, sparsity=0.5"),
        (lambda: Sparsify("2:4", "linear"), "has no schedule"),
        (lambda: Sparsify(0.5, begin_step=-1), "begin_step=-1"),
        (lambda: Sparsify(0.5, begin_step=9, end_step=8), "`end_step`.*at least 9"),
        (lambda: Sparsify(0.5, frequency=0), "frequency=0"),
        (lambda: kd.sparsify(networks.small(), layers=["dens"]), "no layer 'dens'. Close to it"),
        (lambda: kd.sparsify(networks.small(), layers="dense"), "Expected a list of names"),
        (lambda: kd.sparsify(keras.Sequential([keras.layers.Dense(1)])), "no weights yet"),
        (
            lambda: kd.compression.sparsity_of(
                keras.Sequential([keras.Input((2,)), keras.layers.BatchNormalization()])
            ),
            "has no kernel that is trained",
        ),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        ([Sparsify(0.5, end_step=STEPS + 1)], "ends after 20 steps.*end_step=21.*raise epochs"),
        ([Sparsify(0.5, begin_step=30)], "ends after 20 steps.*begin_step=30"),
        ([Sparsify(0.5, kd.schedules.Linear(0.0, 0.4))], "ends with 0.4, but sparsity=0.5"),
        ([Sparsify(0.5, student=networks.small())], "this fit trains none of its weights"),
    ],
)
def test_schedules_that_do_not_fit_the_run_raise_before_it(callbacks, message):
    given = networks.task()
    with pytest.raises(ValueError, match=message):
        solved(given, *callbacks)


def test_two_that_undo_each_other_are_refused():
    distiller = networks.distiller(*linear.pair())
    x, y = linear.data(8)
    callbacks = [Sparsify(0.5), kd.callbacks.Cluster(4)]
    with pytest.raises(ValueError, match="Sparsify and Cluster would undo each other"):
        distiller.fit(x, y, callbacks=callbacks, verbose=0)

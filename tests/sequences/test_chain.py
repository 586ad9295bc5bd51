"""Teacher, assistant, student: equal to the same done by hand, reported, resumed."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from keras_kd.schemes import generation
from tests.sequences import common
from tests.sequences.common import assert_same_weights, digits, fit_arguments, network

STEPS = r"`(x|data)` never ends. .*steps_per_epoch=.*(\.take\(|`num_batches`)"
VALIDATION_STEPS = STEPS.replace("(x|data)", "validation_data").replace(
    "steps_per_epoch", "validation_steps"
)
WIDTHS = {"large": 48, "middle": 24, "small": 8}


@pytest.fixture(scope="module")
def trained():
    """The weights of a teacher that knows the digits."""
    keras.utils.set_random_seed(1)
    teacher = network(WIDTHS["large"])
    teacher.compile(**common.compile_arguments())
    teacher.fit(*digits()[0], **fit_arguments(epochs=8))
    return teacher.get_weights()


def models(trained, names=("large", "middle", "small")):
    keras.utils.set_random_seed(2)
    made = [network(WIDTHS[name], name=name) for name in names]
    made[0].set_weights(trained)
    return made


def chain(made, fit=None, compile=None, **kwargs):
    options = {"validation_data": digits()[1], **kwargs}
    compile = common.compile_arguments() if compile is None else compile
    fit = fit_arguments(**(fit or {})) if fit is None or isinstance(fit, dict) else fit
    return kd.distill_chain(made, digits()[0], compile=compile, fit=fit, **options)


@pytest.fixture(scope="module")
def whole(trained):
    made = models(trained)
    keras.utils.set_random_seed(5)
    return made, chain(made)


def seeds(count):
    """What distill_chain draws after `set_random_seed(5)`."""
    import random

    keras.utils.set_random_seed(5)
    first = random.randrange(2**32)
    return [first + number for number in range(count)]


def test_equals_the_same_by_hand(whole, trained):
    by_hand = models(trained)
    for number, seed in enumerate(seeds(3)):
        if number > 0:
            keras.utils.set_random_seed(seed % 2**32)
            history = common.by_hand(by_hand[number], by_hand[number - 1])
            for key, values in whole[1].histories[number - 1].items():
                np.testing.assert_allclose(values, history[key], rtol=1e-6, err_msg=key)
    for one, other in zip(whole[0], by_hand, strict=True):
        assert_same_weights(one, other)


def test_the_first_teacher_is_untouched(whole, trained):
    np.testing.assert_equal(whole[0][0].get_weights(), trained)
    assert not whole[0][0].compiled
    assert whole[0][0].trainable


def test_the_report(whole):
    made, report = whole
    assert report.students == made[1:]
    x, y = digits()[1]
    classes = [model.predict(x, verbose=0).argmax(-1) for model in made]
    accuracies = [np.mean(each == y) for each in classes]
    assert min(accuracies) > 0.4
    for i, row in enumerate(report.rows):
        assert row["model"] == list(WIDTHS)[i]
        assert row["parameters"] == made[i].count_params()
        np.testing.assert_allclose(row["accuracy"], accuracies[i], rtol=1e-6)
        if i == 0:
            assert row["teacher"] is row["gain"] is row["agreement_with_first"] is None
            continue
        assert row["teacher"] == list(WIDTHS)[i - 1]
        assert row["agreement_with_first"] == np.mean(classes[i] == classes[0])
        assert row["agreement_with_teacher"] == np.mean(classes[i] == classes[i - 1])
        np.testing.assert_allclose(row["gain"], accuracies[i] - accuracies[i - 1], atol=1e-6)
    assert report.rows[2]["agreement_with_first"] != report.rows[2]["agreement_with_teacher"]


def test_the_table(whole):
    text = str(whole[1]).splitlines()
    assert text[2].split()[:3] == ["large", "-", "3,610"]
    assert text[4].split()[:2] == ["small", "middle"]
    assert whole[1].markdown().splitlines()[2].startswith("| large | - | 3,610 |")


def test_datasets_and_arguments_for_each_step(trained):
    """A shuffled validation set: all models see the same rows."""
    made = models(trained)
    train = tf.data.Dataset.from_tensor_slices(digits()[0]).batch(32)
    validation = tf.data.Dataset.from_tensor_slices(digits()[1]).shuffle(400).batch(50)
    seen = []

    def callbacks(number):
        return [keras.callbacks.LambdaCallback(on_train_end=lambda logs: seen.append(number))]

    report = kd.distill_chain(
        made,
        train,
        validation_data=validation,
        compile=[common.compile_arguments(metrics=None) for _ in range(2)],
        fit=[{"epochs": n, "verbose": 0, "shuffle": False, "callbacks": callbacks} for n in (1, 2)],
        distillation_losses=kd.losses.SoftTargets(2.0),
        alpha=0.0,
        beta=1.0,
    )
    assert [len(history["loss"]) for history in report.histories] == [1, 2]
    assert seen == [1, 2]
    x = digits()[1][0]
    first, last = (model.predict(x, verbose=0).argmax(-1) for model in (made[0], made[2]))
    assert report.rows[2]["agreement_with_first"] == np.mean(first == last)
    # Without a metric that is an accuracy, a gain is a lower loss.
    losses = [row["loss"] for row in report.rows]
    np.testing.assert_allclose(report.rows[2]["gain"], losses[1] - losses[2], rtol=1e-6)


def test_an_interrupted_chain_goes_on(tmp_path, whole, trained):
    made = models(trained)
    keras.utils.set_random_seed(5)
    with pytest.raises(common.InterruptedFit):
        chain(
            made,
            fit={"callbacks": lambda number: [common.Interrupt()] if number == 2 else []},
            directory=tmp_path / "chain",
        )
    started = []

    def callbacks(number):
        return [keras.callbacks.LambdaCallback(on_train_begin=lambda logs: started.append(number))]

    made = models(trained)
    report = chain(made, fit={"callbacks": callbacks}, directory=tmp_path / "chain")
    assert started == [2]
    for one, other in zip(made, whole[0], strict=True):
        assert_same_weights(one, other)
    assert report.rows == whole[1].rows
    # Another teacher taught other models.
    other = models([weight + 0.1 for weight in trained])
    with pytest.raises(ValueError, match="these differ: teacher's weights. Use another directory"):
        chain(other, directory=tmp_path / "chain")
    # A chain may become longer, and its middle may not be another model.
    with pytest.raises(ValueError, match=r"these differ: models\[2\]"):
        chain([*made[:2], network(9)], directory=tmp_path / "chain")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: chain(m[:1]), "`models`. Expected a list of at least two"),
        (lambda m: chain([m[0], "student"]), r"`models\[1\]`. Expected a keras.Model"),
        (lambda m: chain([m[0], m[1], m[0]]), r"models\[0\] and models\[2\] are the same"),
        (lambda m: chain([m[0], keras.Model(m[0].inputs, m[0].outputs)]), "share weights"),
        (
            lambda m: chain([*m, keras.Sequential([keras.Input((64,)), keras.layers.Dense(9)])]),
            r"outputs of one shape.*models\[3\] with \[\(None, 9\)\]",
        ),
        (lambda m: chain([m[0], keras.Sequential([keras.layers.Dense(10)])]), "no weights yet"),
        (lambda m: chain(m, compile=[{}]), "`compile`. Expected a dict, or a list of 2 dicts"),
        (lambda m: chain(m, compile={}), "`loss` is None"),
        (lambda m: chain(m, fit={"x": 1}), r"`fit` has \['x'\]"),
        (lambda m: chain(m, fit={"validation_split": 0.1}), "instead of validation_split"),
        (lambda m: chain(m, validation_data=iter([])), "`validation_data` must be"),
        (lambda m: chain(m, alpha=-1), "`alpha`"),
        (
            lambda m: chain(m, distillation_losses=kd.losses.FeatureHint("hidden", "nowhere")),
            "nowhere",
        ),
    ],
)
def test_bad_arguments_raise_before_any_training(trained, make, message):
    made = models(trained)
    before = [model.get_weights() for model in made]
    with pytest.raises(ValueError, match=message):
        make(made)
    for model, weights in zip(made, before, strict=True):
        np.testing.assert_equal(model.get_weights(), weights)


def batches():
    return tf.data.Dataset.from_tensor_slices(digits()[0]).batch(32)


class Endless(keras.utils.PyDataset):
    """Batches of digits without an end."""

    def __init__(self, num_batches=None):
        super().__init__()
        self._count = num_batches

    @property
    def num_batches(self):
        return self._count

    def __getitem__(self, index):
        return tuple(each[:32] for each in digits()[0])


@pytest.mark.parametrize("make", [Endless, lambda: batches().repeat()])
def test_endless_data_is_refused_before_any_training(make, trained, monkeypatch):
    data, made = make(), models(trained)[1:]
    few = {"epochs": 1, "verbose": 0, "shuffle": False}
    short = {"steps_per_epoch": 2, "validation_steps": 2}
    compile = {**common.compile_arguments(), "run_eagerly": True}

    def both(data, validation, **fit):
        options = {"validation_data": validation, "compile": compile}
        kd.distill_chain(made, data, **options, fit={**few, **fit})

    def born_again(data, validation, **fit):
        again = kd.BornAgain(made[1], generations=2)
        again.compile(**compile)
        again.fit(data, validation_data=validation, **few, **fit)

    limited = batches().take(2)
    with monkeypatch.context() as patched:
        patched.setattr(generation.Recipe, "train", lambda *args: pytest.fail("trained"))
        for call in (both, born_again):
            with pytest.raises(ValueError, match=STEPS):
                call(data, limited)
            with pytest.raises(ValueError, match=VALIDATION_STEPS):
                call(limited, data)
    for call in (both, born_again):
        call(data, data, **short)  # the remedy
    limited = data.take(2) if isinstance(data, tf.data.Dataset) else Endless(num_batches=2)
    both(limited, limited)  # the other one


def test_agreement_of_models_with_two_inputs():
    from keras_kd.schemes import history

    def two():
        one, other = keras.Input((4,)), keras.Input((4,))
        return keras.Model([one, other], keras.layers.Dense(3)(keras.layers.Add()([one, other])))

    model, x = two(), np.random.default_rng(0).normal(size=(20, 4)).astype("float32")
    found = history.agreements([model, model], {"validation_data": ([x, -x], np.zeros(20))})
    assert found[1] == {"agreement_with_first": 1.0, "agreement_with_teacher": 1.0}

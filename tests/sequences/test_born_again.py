"""Generations: equal to the same done by hand, resumed where they were interrupted."""

import json

import keras
import numpy as np
import pytest

import keras_kd as kd
from tests.sequences import common
from tests.sequences.common import assert_same_weights, digits, fit_arguments, network

pytestmark = pytest.mark.in_turn(4)


def born_again(student=None, generations=3, compiled=None, **kwargs):
    made = kd.BornAgain(student or network(16), generations, **kwargs)
    made.compile(**(compiled or common.compile_arguments()))
    return made


def fit(made, **kwargs):
    return made.fit(*digits()[0], **fit_arguments(validation_data=digits()[1], **kwargs))


@pytest.fixture(scope="module")
def whole():
    keras.utils.set_random_seed(3)
    return fit(born_again())


def test_it_learns_and_reports(whole):
    assert len(whole.students) == len(whole.histories) == len(whole.rows) == 3
    for row, student, history in zip(whole.rows, whole.students, whole.histories, strict=True):
        x, y = digits()[1]
        accuracy = np.mean(student.predict(x, verbose=0).argmax(-1) == y)
        assert accuracy > 0.7
        np.testing.assert_allclose(row["accuracy"], accuracy, rtol=1e-6)
        np.testing.assert_allclose(row["accuracy"], history["val_accuracy"][-1], rtol=1e-6)
        np.testing.assert_allclose(row["gain"], accuracy - whole.rows[0]["accuracy"], atol=1e-6)
        assert row["parameters"] == 16 * 65 + 10 * 17
        assert not student.compiled
    assert [row["teacher"] for row in whole.rows] == ["labels", "generation 0", "generation 1"]


def test_the_table(whole):
    lines = str(whole).splitlines()
    assert lines[0].split()[:3] == ["model", "teacher", "parameters"]
    assert lines[2].startswith("generation 0  labels")
    assert "1,210" in lines[3]
    markdown = whole.markdown().splitlines()
    assert markdown[0].startswith("| model | teacher | parameters | ")
    assert len(markdown) == len(lines) == 5


def test_equals_the_same_by_hand(whole):
    teacher = None
    for number, row in enumerate(whole.rows):
        keras.utils.set_random_seed(row["seed"])
        student = network(16)
        history = common.by_hand(student, teacher)
        assert_same_weights(whole.students[number], student)
        for key, values in whole.histories[number].items():
            np.testing.assert_allclose(values, history[key], rtol=1e-6, err_msg=key)
        teacher = student


def test_the_random_seed_repeats_it(whole):
    keras.utils.set_random_seed(3)
    again = fit(born_again(generations=2))
    for one, other in zip(again.students, whole.students, strict=False):
        assert_same_weights(one, other)


def test_the_template_is_untouched_and_seeds_differ():
    """Also where the initializer has a seed of its own."""
    student = network(16, seed=5)
    student.compile("sgd", "mse")
    optimizer, before = student.optimizer, student.get_weights()
    still = common.compile_arguments(optimizer=keras.optimizers.SGD(0.0))
    result = fit(born_again(student, 3, compiled=still), epochs=1)
    assert student.optimizer is optimizer
    assert optimizer.iterations == 0
    np.testing.assert_equal(student.get_weights(), before)
    kernels = [each.get_weights()[0] for each in result.students]
    np.testing.assert_array_equal(kernels[0], before[0])
    assert abs(kernels[1] - kernels[0]).max() > 0.1
    assert abs(kernels[2] - kernels[1]).max() > 0.1


def test_a_teacher_of_generation_0():
    teacher = network(32)
    before = teacher.get_weights()
    result = fit(born_again(generations=1, teacher=teacher, alpha=0.1, beta=0.9))
    np.testing.assert_equal(teacher.get_weights(), before)
    assert result.rows[0]["teacher"] == "teacher"
    keras.utils.set_random_seed(result.rows[0]["seed"])
    student = network(16)
    common.by_hand(student, teacher, alpha=0.1, beta=0.9)
    assert_same_weights(result.students[0], student)


def test_nothing_of_a_generation_leaks_into_the_next():
    """A caller's optimizer, loss and callbacks stay as they are; each generation has its own."""

    class Count(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.epochs = 0

        def on_epoch_end(self, epoch, logs=None):
            self.epochs += 1
            logs["seen"] = self.epochs

    arguments, count = common.compile_arguments(), Count()
    loss = kd.losses.SoftTargets(3.0, weight=0.5)
    made = born_again(generations=2, distillation_losses=loss, compiled=arguments)
    result = fit(made, callbacks=[count])
    assert [history["seen"] for history in result.histories] == [[1, 2], [1, 2]]
    assert count.epochs == 0
    assert not arguments["optimizer"].built
    seen = []

    def callbacks(number):
        if number == 0:
            return []
        return [
            kd.callbacks.TemperatureSchedule(5.0, 1.0),
            keras.callbacks.LambdaCallback(on_train_end=lambda logs: seen.append(number)),
        ]

    result = fit(made, callbacks=callbacks)
    assert result.histories[1]["temperature"] == [5.0, 1.0]
    assert loss.temperature == 3.0
    assert seen == [1]


def interrupted(directory, generation):
    """Runs until the end of the first epoch of a generation; counts the trained ones."""
    keras.utils.set_random_seed(3)
    with pytest.raises(common.InterruptedFit):
        fit(
            born_again(directory=directory),
            callbacks=lambda number: [common.Interrupt()] if number == generation else [],
        )


def test_an_interrupted_run_goes_on(tmp_path, whole):
    interrupted(tmp_path / "run", 1)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "model_0.json",
        "model_0.keras",
        "settings.json",
    ]
    trained = []

    def callbacks(number):
        return [keras.callbacks.LambdaCallback(on_train_begin=lambda logs: trained.append(number))]

    keras.utils.set_random_seed(99)
    resumed = fit(born_again(directory=tmp_path / "run"), callbacks=callbacks)
    assert trained == [1, 2]
    for one, other in zip(resumed.students, whole.students, strict=True):
        assert_same_weights(one, other)
    assert resumed.rows == whole.rows
    assert resumed.histories == whole.histories
    # More generations than before, and none of the finished ones again.
    more = fit(born_again(generations=4, directory=tmp_path / "run"), callbacks=callbacks)
    assert trained == [1, 2, 3]
    assert len(more.students) == 4
    saved = keras.models.load_model(tmp_path / "run" / "model_2.keras")
    assert_same_weights(saved, whole.students[2])


def test_a_generation_goes_on_within_itself(tmp_path, whole):
    def callbacks(number):
        backup = keras.callbacks.BackupAndRestore(tmp_path / f"backup_{number}")
        return [backup, common.Interrupt()] if number == 1 else [backup]

    directory = tmp_path / "run"
    keras.utils.set_random_seed(3)
    with pytest.raises(common.InterruptedFit):
        fit(born_again(directory=directory), callbacks=callbacks, shuffle=False)
    backup = lambda n: [keras.callbacks.BackupAndRestore(tmp_path / f"backup_{n}")]  # noqa: E731
    resumed = fit(born_again(directory=directory), callbacks=backup, shuffle=False)
    keras.utils.set_random_seed(3)
    expected = fit(born_again(), shuffle=False)
    assert len(resumed.histories[1]["loss"]) == common.EPOCHS - 1
    for one, other in zip(resumed.students, expected.students, strict=True):
        assert_same_weights(one, other)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"student": lambda: network(17)}, "student"),
        ({"alpha": 0.25}, "alpha"),
        ({"distillation_losses": kd.losses.SoftTargets(2.0)}, "distillation_losses"),
        ({"teacher": lambda: network(8)}, "teacher"),
        ({"compiled": {"optimizer": "sgd", "loss": "mse"}}, "compile"),
        ({"fit": {"epochs": 3}}, "fit"),
        ({"fit": {"x": np.zeros((480, 64), "float32")}}, "data"),
    ],
)
def test_a_directory_of_other_settings_is_refused(tmp_path, change, name):
    (tmp_path / "model_0.json").write_text("{}")
    with pytest.raises(ValueError, match="holds other files and no settings.json"):
        fit(born_again(directory=tmp_path))
    (tmp_path / "model_0.json").unlink()
    interrupted(tmp_path, 0)
    before = json.loads((tmp_path / "settings.json").read_text())
    change = {
        key: value() if callable(value) and key != "distillation_losses" else value
        for key, value in change.items()
    }
    options = fit_arguments(**change.pop("fit", {}))
    x, y = digits()[0]
    with pytest.raises(ValueError, match=rf"these differ: {name}\. Use another directory"):
        born_again(directory=tmp_path, **change).fit(options.pop("x", x), y, **options)
    assert json.loads((tmp_path / "settings.json").read_text()) == before


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match=r"`student`. Expected a keras.Model"):
        kd.BornAgain("student")
    with pytest.raises(ValueError, match=r"`teacher`. Expected a keras.Model"):
        kd.BornAgain(network(8), teacher=lambda x: x)
    with pytest.raises(ValueError, match="`generations`. Expected an integer, at least 2"):
        kd.BornAgain(network(8), generations=1)
    with pytest.raises(ValueError, match="no weights yet"):
        kd.BornAgain(keras.Sequential([keras.layers.Dense(3)]))
    with pytest.raises(ValueError, match="Call compile"):
        kd.BornAgain(network(8)).fit(*digits()[0])
    with pytest.raises(ValueError, match="generation 0 learns from the labels"):
        kd.BornAgain(network(8)).compile("sgd")
    wrong = kd.losses.FeatureHint("nowhere", "hidden")
    with pytest.raises(ValueError, match="nowhere"):
        born_again(distillation_losses=wrong)
    with pytest.raises(ValueError, match="pass validation_data instead"):
        born_again().fit(*digits()[0], validation_split=0.1)
    with pytest.raises(ValueError, match="ModelCheckpoint writes files"):
        fit(born_again(), callbacks=[keras.callbacks.ModelCheckpoint(tmp_path / "c.keras")])
    with pytest.raises(ValueError, match="TemperatureSchedule steers a distillation"):
        fit(born_again(), callbacks=[kd.callbacks.TemperatureSchedule(5.0, 1.0)])

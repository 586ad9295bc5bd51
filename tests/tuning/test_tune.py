"""`kd.tune`: what it finds, what it counts, what it refuses."""

import json

import keras
import numpy as np
import pytest

import keras_kd as kd
from tests import extras
from tests.tuning.tasks import ROWS, TEST, TRAIN, VALIDATION, Counting, network, perfect_teacher

extras.require("optuna")
RATES = {"low": 0.003, "high": 0.1, "log": True}
SPACE = {"temperature": {"low": 1.0, "high": 8.0}, "alpha": [0.0, 0.5], "learning_rate": RATES}


def tuned(path, **options):
    given = {"trials": 4, "epochs": 4, "seeds": 2, "space": SPACE, "verbose": 0, **options}
    return kd.tune(perfect_teacher(), network, TRAIN, VALIDATION, directory=path, **given)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    path = tmp_path_factory.mktemp("search")
    counting = Counting()
    x = keras.Input((6,))
    teacher = keras.Model(x, perfect_teacher()(counting(x)))
    result = kd.tune(
        teacher,
        network,
        TRAIN,
        VALIDATION,
        test=TEST,
        space=SPACE,
        trials=6,
        epochs=4,
        seeds=2,
        directory=path,
        verbose=0,
    )
    rows_in_training = sum(counting.rows) - ROWS  # the report runs it over the test data
    return result, rows_in_training


def test_teacher_runs_once_over_the_training_data(found):
    result, rows = found
    assert rows == result.cost.teacher_rows == ROWS


def test_best_trial_is_that_of_the_history(found):
    result, _ = found
    complete = [row for row in result.trials if row["state"] == "complete"]
    assert result.value == max(row["accuracy"] for row in complete)
    assert result.settings.keys() == set(SPACE)
    assert [row["number"] for row in result.front] == [result.number]
    model = result.student()
    accuracy = np.mean(np.argmax(model.predict(VALIDATION[0], verbose=0), -1) == VALIDATION[1])
    assert accuracy == pytest.approx(result.value, abs=1e-6)


def test_first_trial_has_the_defaults(found):
    result, _ = found
    first = result.trials[0]
    # 0.001 is not in the space: the middle of 0.003 and 0.1, on its scale.
    assert (first["temperature"], first["alpha"]) == (4.0, 0.5)
    assert first["learning_rate"] == pytest.approx((0.003 * 0.1) ** 0.5)


def test_labels_alone_are_searched_as_long_over_what_they_read(found):
    result, _ = found
    assert len(result.labels_only) == len(result.trials) == 6
    assert result.labels_only_settings.keys() == {"learning_rate"}


def test_poor_trials_end_early_and_epochs_are_counted(found):
    result, _ = found
    rows = [*result.trials, *result.labels_only]
    assert any(row["state"] == "pruned" and row["epochs"] < 4 for row in rows)
    assert all(row["epochs"] == 4 for row in rows if row["state"] == "complete")
    assert result.cost.epochs == sum(row["epochs"] for row in rows) < result.cost.whole_epochs
    assert result.cost.whole_epochs == 12 * 4


def test_gains_are_measured_on_test_data(found):
    result, _ = found
    tuned_students, labels = result.report.students, result.report.baselines
    assert len(tuned_students) == len(labels) == 2

    def accuracy(model):
        return np.mean(np.argmax(model.predict(TEST[0], verbose=0), -1) == TEST[1])

    gains = [accuracy(s) - accuracy(b) for s, b in zip(tuned_students, labels, strict=True)]
    assert result.report.difference.by_seed == pytest.approx(gains, abs=1e-6)
    assert (result.over_defaults is None) == (result.number == 0)
    text = str(result)
    assert "On test data that no trial saw" in text
    assert "the teacher ran once over 64 rows" in text
    assert 1 <= result.flatness.trials <= len(result.trials)
    assert result.flatness.noise > 0


def test_written_results(found, tmp_path):
    result, _ = found
    result.save_json(tmp_path / "found.json")
    written = json.loads((tmp_path / "found.json").read_text())
    assert written["settings"] == pytest.approx(result.settings)
    assert len(written["trials"]) == 6
    result.save_markdown(tmp_path / "found.md")
    assert "## Trials with labels only" in (tmp_path / "found.md").read_text()


def test_search_goes_on_with_more_trials(tmp_path):
    first = tuned(tmp_path, trials=2, labels_only=False)
    more = tuned(tmp_path, trials=4, labels_only=False)
    assert [dict(row) for row in more.trials[:2]] == [dict(row) for row in first.trials]
    assert len(more.trials) == 4
    again = tuned(tmp_path, trials=4, labels_only=False)
    assert [dict(row) for row in again.trials] == [dict(row) for row in more.trials]
    with pytest.raises(ValueError, match="holds another search \\(epochs: 4 there, 3 now\\)"):
        tuned(tmp_path, epochs=3, labels_only=False)


def test_resumed_search_draws_what_an_uninterrupted_one_does(tmp_path):
    tuned(tmp_path / "a", trials=2, labels_only=False, sampler="random")
    parts = tuned(tmp_path / "a", trials=4, labels_only=False, sampler="random")
    whole = tuned(tmp_path / "b", trials=4, labels_only=False, sampler="random")
    settings = [[{name: row[name] for name in SPACE} for row in x.trials] for x in (parts, whole)]
    assert settings[0] == settings[1]
    assert len({row["learning_rate"] for row in whole.trials}) == 4


def test_without_test_data_no_gain_is_reported(tmp_path):
    result = tuned(tmp_path, trials=2, labels_only=False)
    assert result.report is result.over_defaults is None
    assert "No test data: no gain is reported" in str(result)


def test_failing_trials_are_recorded_and_do_not_end_the_search(tmp_path):
    def compile_model(model, settings):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        rate = settings["learning_rate"]
        model.compile(keras.optimizers.SGD(rate), loss=loss, metrics=["accuracy"])

    result = kd.tune(
        perfect_teacher(),
        network,
        TRAIN,
        VALIDATION,
        space={"learning_rate": [0.01, 0.02, 1e30]},
        compile_model=compile_model,
        trials=3,
        epochs=1,
        labels_only=False,
        directory=tmp_path,
        sampler="random",
        verbose=0,
    )
    by_rate = {row["learning_rate"]: row for row in result.trials}
    assert by_rate[0.01]["state"] == "complete"
    assert by_rate[1e30]["state"] == "failed"
    assert "not finite" in by_rate[1e30]["failure"]
    assert len(result.trials) == 3


def test_three_failures_at_first_end_it(tmp_path):
    def callbacks(settings):
        settings["learning_rate"]
        return [keras.callbacks.LambdaCallback(on_train_begin=_refuse)]

    with pytest.raises(ValueError, match="first 3 trials all failed, the last one with: ValueErr"):
        tuned(tmp_path, callbacks=callbacks, labels_only=False)


def _refuse(logs):
    raise ValueError("no training today")


def test_front_of_accuracy_and_costs(tmp_path):
    result = kd.tune(
        perfect_teacher(),
        lambda settings: network(settings["units"]),
        TRAIN,
        VALIDATION,
        space={"units": [2, 8, 32], "learning_rate": [0.03]},
        objective=["accuracy", "bytes", "macs"],
        trials=6,
        epochs=6,
        labels_only=False,
        directory=tmp_path,
        verbose=0,
    )
    by_units = {row["units"]: row for row in result.trials}
    for units, row in by_units.items():
        assert row["macs"] == 6 * units + units * 3
        assert row["state"] == "complete"
    points = [(row["accuracy"], -row["bytes"], -row["macs"]) for row in result.trials]
    front = [(row["accuracy"], -row["bytes"], -row["macs"]) for row in result.front]
    for point in points:
        beaten = any(all(np.greater_equal(x, point)) and x != point for x in points)
        assert beaten != (point in front)
    assert "No trial ended early" in str(result)
    cheapest = min(result.front, key=lambda row: row["bytes"])
    assert result.student(cheapest["number"]).count_params() == 6 * 2 + 2 + 2 * 3 + 3
    with pytest.raises(ValueError, match="students of the front alone are kept"):
        result.student(99)


def test_students_are_shrunk_from_the_teacher(tmp_path):
    teacher = network(16, name="teacher")
    result = kd.tune(
        teacher,
        None,
        TRAIN,
        VALIDATION,
        space={"width": [0.25, 0.5], "learning_rate": [0.03]},
        trials=2,
        epochs=1,
        labels_only=False,
        directory=tmp_path,
        verbose=0,
    )
    width = result.settings["width"]
    assert result.student().get_layer("hidden").units == 16 * width


def test_losses_hints_and_schedules_of_the_space(tmp_path):
    seen = []

    class Watching(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            temperature = getattr(self.model, "temperature", None)
            seen.append((sorted(self.model.losses_by_name), temperature))

    result = kd.tune(
        perfect_teacher(),
        network,
        TRAIN,
        VALIDATION,
        space={
            "loss": ["SoftTargets", "DIST"],
            "hint": [None, "hidden -> hidden"],
            "temperature": 3.0,
            "temperature_end": 1.0,
            "alpha": 0.25,
        },
        callbacks=lambda settings: [Watching()],
        trials=6,
        epochs=2,
        labels_only=False,
        directory=tmp_path,
        sampler="random",
        prune=False,
        verbose=0,
    )
    assert all(row["state"] == "complete" for row in result.trials)
    names = {tuple(names) for names, _ in seen}
    assert {len(each) for each in names} == {1, 2}
    assert {each[-1] for each in names} >= {"soft_targets"}
    assert {temperature for _, temperature in seen} == {1.0}


def test_interrupted_search_goes_on_however_often(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # also where the directory is relative
    left = [5]

    class Interrupting(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            left[0] -= 1
            if left[0] >= 0:
                raise KeyboardInterrupt

    def run():
        options = {"trials": 2, "labels_only": False, "prune": False}
        return tuned("search", callbacks=lambda settings: [Interrupting()], **options)

    for _ in range(5):
        with pytest.raises(KeyboardInterrupt):
            run()
    result = run()
    assert [row["state"] for row in result.trials] == ["complete", "complete"]
    assert (result.trials[0]["temperature"], result.trials[0]["alpha"]) == (4.0, 0.5)


def test_no_settings_are_tried_twice_and_a_small_space_ends(tmp_path):
    space = {"alpha": [0.0, 0.5], "temperature": [2.0, 4.0], "learning_rate": 0.01}
    options = {"space": space, "epochs": 1, "labels_only": False, "sampler": "random"}
    three = tuned(tmp_path, trials=3, **options)
    pairs = {(row["alpha"], row["temperature"]) for row in three.trials}
    assert len(pairs) == len(three.trials) == 3
    all_of_them = tuned(tmp_path, trials=9, **options)
    assert len(all_of_them.trials) == 4
    assert "The space has no more than 4 different settings" in str(all_of_them)
    assert len(tuned(tmp_path, trials=2, **options).trials) == 4


def test_directory_of_another_search_is_refused(tmp_path):
    options = {"trials": 1, "epochs": 1, "labels_only": False}
    tuned(tmp_path, **options)
    x, y = TRAIN
    others = {
        "validation: .* there": {"validation": TEST},
        "train: .* there": {"train": (x, (y + 1) % 3)},
        "optimizer": {"compile_model": _with_sgd},
        "activation|shapes": {"make_student": lambda: network(5)},
    }
    for message, other in others.items():
        given = {"make_student": network, "train": TRAIN, "validation": VALIDATION, **other}
        with pytest.raises(ValueError, match=f"(?s)holds another search.*{message}"):
            kd.tune(
                perfect_teacher(), **given, space=SPACE, directory=tmp_path, verbose=0, **options
            )
    teacher = network(8, name="teacher")
    with pytest.raises(ValueError, match="holds a(nother)? search"):
        kd.tune(
            teacher,
            network,
            TRAIN,
            VALIDATION,
            space=SPACE,
            directory=tmp_path,
            verbose=0,
            **options,
        )


def _with_sgd(model, settings):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(settings["learning_rate"]), loss, metrics=["accuracy"])


def test_search_by_one_metric_and_report_by_another(tmp_path):
    result = tuned(tmp_path, trials=1, epochs=1, objective="loss", test=TEST, labels_only=False)
    text = str(result)
    assert "The search was by 'loss' on validation data" in text
    assert "labels_only=True" in text
    assert "baseline" not in text


def test_few_trials_that_all_fail(tmp_path):
    def callbacks(settings):
        return [keras.callbacks.LambdaCallback(on_train_begin=_refuse)]

    with pytest.raises(ValueError, match="No trial of 'distilled' came to its end.*no training"):
        tuned(tmp_path, trials=2, callbacks=callbacks, labels_only=False)


REFUSED = {
    "unread": ({"space": {"units": [1, 2], **SPACE}}, r"holds \['units'\], which nothing reads"),
    "metric": ({"objective": "val_f1_score"}, "'f1_score', which validation does not measure"),
    "unknown score": ({"objective": "my_score"}, "'my_score', which validation does not measure"),
    "cost alone": ({"objective": "bytes"}, "first objective must be a metric"),
    "two metrics": ({"objective": ["accuracy", "loss"]}, "takes one metric"),
    "twice": ({"objective": ["accuracy", "val_accuracy"]}, "names the same twice"),
    "max bytes": ({"objective": {"accuracy": "max", "bytes": "max"}}, "costs are 'min'"),
    "no objective": ({"objective": []}, "a metric such as 'accuracy'"),
    "export": ({"export": lambda student, path: None}, "there are none of"),
    "trials": ({"trials": 0}, "trials"),
    "epochs": ({"epochs": 1.5}, "epochs"),
    "sampler": ({"sampler": "grid"}, "sampler"),
    "defaults": ({"defaults": {"temperature": 9.0}}, "does not lie in the space"),
    "another default": ({"defaults": {"hint_weight": 4.0}}, "which is not in the space"),
    "alpha": ({"space": {**SPACE, "alpha": [0.5, 2.0]}}, "an alpha above 1"),
    "unread end": (
        {
            "space": {**SPACE, "temperature_end": [1.0, 2.0]},
            "distiller": lambda teacher, student, s: kd.Distiller(
                teacher, student, alpha=s["alpha"], beta=s["temperature"]
            ),
        },
        r"holds \['temperature_end'\], which nothing reads",
    ),
    "fixed default": (
        {"space": {**SPACE, "alpha": 0.1}, "defaults": {"alpha": 0.2}},
        "`space` fixes 'alpha' to 0.1",
    ),
    "loss": ({"space": {"loss": ["SoftTargets", "CRD"], **SPACE}}, r"space\['loss'\]"),
    "hint": ({"space": {"hint": [None, "hidden"], **SPACE}}, "such as 'block4_out -> block3_out'"),
    "labels": (
        {"space": {"temperature": [1.0, 2.0]}},
        "reads none of the settings that are searched",
    ),
    "metric without test": ({"metric": "accuracy"}, "compared on `test`, which is missing"),
    "distiller": ({"distiller": lambda teacher, student: None}, "distiller"),
    "no distiller": ({"distiller": lambda t, student, s: student}, "returns a kd.Distiller"),
    "no compile": ({"compile_model": lambda model, settings: None}, "did not compile"),
    "callbacks": ({"callbacks": lambda settings: None}, "a list of callbacks"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_before_any_work(name, tmp_path):
    options, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        tuned(tmp_path / "search", **options)
    assert not (tmp_path / "search" / "teacher").exists()


NUMBERS = TRAIN[0], TRAIN[1].astype("float32")
DATA = {
    "make_student": ({"make_student": None}, "`make_student` is missing"),
    "a model": ({"make_student": network()}, "make_student"),
    "train": ({"train": None}, "`train` is missing"),
    "validation": ({"validation": TRAIN[0]}, "validation"),
    "no labels": ({"train": (TRAIN[0],)}, "train"),
    "numbers": ({"train": NUMBERS, "validation": NUMBERS}, "Pass compile_model=lambda"),
    "two kinds": ({"validation": NUMBERS}, "labels of different kinds"),
    "test": ({"test": (TEST[0], TEST[1][:3])}, "the same number of samples|samples"),
}


@pytest.mark.parametrize("name", DATA)
def test_refused_data(name, tmp_path):
    options, message = DATA[name]
    given = {"make_student": network, "train": TRAIN, "validation": VALIDATION, **options}
    with pytest.raises(ValueError, match=message):
        kd.tune(perfect_teacher(), **given, directory=tmp_path / "search", verbose=0)

"""From functions to a page: tiny models on real data, two seeds, a file for the device."""

import json
import pathlib

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

import keras_kd as kd
from keras_kd import __main__
from tests import extras
from tests.report import browser, tiny

extras.require("ai_edge_litert")


def to_float16(student, path):
    converter = tf.lite.TFLiteConverter.from_keras_model(student)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]
    pathlib.Path(path).write_bytes(converter.convert())


def is_dark(x, y):
    del y
    return np.where(x.mean(axis=1) > 0.3, "dark", "light")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("digits")


@pytest.fixture(scope="module")
def report(folder):
    _, test = tiny.digits()
    return kd.report(
        tiny.teacher(),
        make_student=tiny.student,
        train=tiny.fit,
        distiller=lambda teacher, student: kd.Distiller(teacher, student, alpha=0.1, beta=0.9),
        seeds=(0, 1),
        exports={"float16": to_float16},
        data=tf.data.Dataset.from_tensor_slices(test).batch(300),
        slices={"ink": is_dark},
        directory=folder,
        runs=5,
        warmup=1,
        verbose=False,
    )


def accuracy(model):
    _, (x, y) = tiny.digits()
    return np.mean(model.predict(x, verbose=0).argmax(axis=-1) == y)


def test_scores_are_those_of_the_models(report):
    rows = {row["name"]: row for row in report.rows}
    assert list(rows) == ["teacher", "labels only", "distilled", "float16"]
    assert rows["teacher"]["values"] == pytest.approx([accuracy(tiny.teacher())])
    assert rows["labels only"]["values"] == pytest.approx([*map(accuracy, report.baselines)])
    assert rows["distilled"]["values"] == pytest.approx([*map(accuracy, report.students)])
    # Half precision changes no more than a row or two of 897.
    assert rows["float16"]["values"] == pytest.approx(rows["distilled"]["values"], abs=0.003)
    assert rows["distilled"]["parameters"] == 64 * 8 + 8 + 8 * 10 + 10


def test_the_test_is_scipys(report):
    sides = [[*map(accuracy, models)] for models in (report.students, report.baselines)]
    expected = scipy.stats.ttest_rel(*sides)
    assert report.difference.p == pytest.approx(expected.pvalue)
    assert report.difference.mean == pytest.approx(np.mean(sides[0]) - np.mean(sides[1]))


def test_agreement_with_the_teacher(report):
    _, (x, _) = tiny.digits()
    said = [model.predict(x, verbose=0).argmax(-1) for model in (tiny.teacher(), *report.students)]
    rows = {row["name"]: row for row in report.rows}
    expected = np.mean([np.mean(said[0] == each) for each in said[1:]])
    assert rows["distilled"]["agreement"] == pytest.approx(expected)


def test_mistakes_and_slices(report):
    _, (x, y) = tiny.digits()
    said = [model.predict(x, verbose=0).argmax(-1) for model in (tiny.teacher(), *report.students)]
    wrong = said[0] != y
    assert report.mistakes.teacher_mistakes == wrong.sum()
    repeated = np.mean([np.mean(each[wrong] == said[0][wrong]) for each in said[1:]])
    assert report.mistakes.student == pytest.approx(repeated)
    dark = is_dark(x, y) == "dark"
    (row,) = [row for row in report.slices if row["value"] == "dark"]
    assert row["samples"] == dark.sum()
    assert row["scores"]["teacher"] == pytest.approx(np.mean((said[0] == y)[dark]))


def test_files_stay(report, folder):
    names = {path.name for path in folder.iterdir()}
    assert {f"float16-{i}.tflite" for i in (0, 1)} <= names
    row = report.rows[-1]
    sizes = [(folder / f"float16-{i}.tflite").stat().st_size for i in (0, 1)]
    assert row["bytes"] == pytest.approx(np.mean(sizes))
    assert row["median_us"] > 0


def test_page(report, folder):
    browser.needed()
    page = folder / "report.html"
    report.save_html(page)
    assert browser.html_faults(page) == []
    (view,) = browser.look(page, [(400, "light", True)])
    assert view["faults"] == []
    assert view["scrollWidth"] <= 400
    assert report.verdict in view["text"]
    assert str(folder) not in page.read_text(encoding="utf-8")


def test_command_line(report, folder, tmp_path, monkeypatch, capsys):
    tiny.teacher().save(folder / "teacher.keras")
    (tmp_path / "my_digits.py").write_text(
        "from tests.report import tiny\n\ndef test_set():\n    return tiny.digits()[1]\n\n"
        "def ink(x, y):\n    return ['dark' if ink > 0.3 else 'light' for ink in x.mean(1)]\n"
    )
    monkeypatch.chdir(tmp_path)
    both = [
        word
        for seed in (0, 1)
        for word in (
            *("--student", str(folder / f"distilled-{seed}.keras")),
            *("--baseline", str(folder / f"labels-only-{seed}.keras")),
            *("--export", f"float16={folder / f'float16-{seed}.tflite'}"),
        )
    ]
    data = ["--data", "my_digits:test_set", "--slices", "my_digits:ink", "--no-latency"]
    files = ["--out", "page.html", "--json", "report.json", "--markdown", "report.md"]
    status = __main__.main(
        ["report", "--teacher", str(folder / "teacher.keras"), *both, *data, *files]
    )
    assert status == 0
    printed, errors = capsys.readouterr()
    assert report.verdict.split()[:8] == printed.split()[:8]
    # The teacher; two seeds with labels only, distilled, and as a file.
    assert "report 7/7: measuring float16 (2 of 2) - " in errors
    found = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert found["difference"]["by_seed"] == pytest.approx(report.difference.by_seed)
    assert {row["value"] for row in found["slices"]} == {"dark", "light"}
    for name in ("page.html", "report.md"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert "float16" in text
        assert str(folder) not in text


def test_quiet(report, folder, capsys):
    student = ["--student", str(folder / "distilled-0.keras")]
    words = ["report", *student, "--data", "tests.report.tiny:test_set", "--no-latency"]
    assert __main__.main(words) == 0
    loud, progress = capsys.readouterr()
    assert progress.startswith("report 1/1: measuring distilled\nmeasure: ")
    assert __main__.main([*words, "-q"]) == 0
    assert capsys.readouterr() == (loud, "")


def test_a_teacher_of_probabilities_on_the_command_line(report, folder, tmp_path, capsys):
    keras.Sequential([tiny.teacher(), keras.layers.Softmax()]).save(tmp_path / "teacher.keras")
    models = str(tmp_path / "teacher.keras"), str(folder / "distilled-0.keras")
    words = ["report", "--teacher", models[0], "--student", models[1], "--no-latency"]
    words += ["--data", "tests.report.tiny:test_set"]
    assert __main__.main(words) == 2
    assert "from_logits" in capsys.readouterr().err
    found = tmp_path / "report.json"
    assert __main__.main([*words, "--json", str(found), "--teacher-probabilities"]) == 0
    rows = {row["role"]: row for row in json.loads(found.read_text(encoding="utf-8"))["rows"]}
    expected = kd.measure(tiny.teacher(), tiny.test_set(), latency=False).quality
    assert rows["teacher"]["ece"] == pytest.approx(expected["ece"], abs=1e-6)
    assert rows["teacher"]["mean"] == pytest.approx(expected["accuracy"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "json"], "--data must be MODULE:FUNCTION"),
        (["--data", "json:nothing"], "no function 'json:nothing'"),
        (
            ["--data", "tests.report.tiny:test_set", "--export", "int8"],
            "--export must be NAME=FILE",
        ),
        (
            ["--data", "tests.report.tiny:test_set", "--slices", "json:x"],
            "no 'json:x' for --slices",
        ),
        (["--data", "tests.report.tiny:digits"], "arrays of `data` must have one length"),
        (["--data", "tests.report.tiny:test_set", "--out", "."], "--out: '.' is a folder"),
        (
            ["--data", "tests.report.tiny:test_set", "--json", "/proc/none/r.json"],
            "--json: '/proc/none/r.json' cannot be written",
        ),
    ],
)
def test_command_line_that_makes_no_sense(words, message, report, folder, capsys):
    student = ["--student", str(folder / "distilled-0.keras")]
    assert __main__.main(["report", *student, *words]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert message in printed.err
    assert not printed.out


def test_a_file_given_twice_is_no_second_seed(folder, capsys):
    student = str(folder / "distilled-0.keras")
    again = str(folder / ".." / folder.name / "distilled-0.keras")
    words = ["--data", "tests.report.tiny:test_set", "--student", student]
    for option in ("--student", "--baseline"):
        assert __main__.main(["report", *words, option, again]) == 2
        assert "is given twice" in capsys.readouterr().err


def test_given_models(report):
    _, test = tiny.digits()
    found = kd.report(
        tiny.teacher(),
        report.students,
        report.baselines,
        data=test,
        latency=False,
        verbose=False,
    )
    assert found.difference.by_seed == pytest.approx(report.difference.by_seed)
    other = kd.report(None, report.students, data=test, latency=False, verbose=False)
    assert other.finding == "nothing to compare"


@pytest.mark.parametrize(
    ("student", "baseline", "message"),
    [
        (None, None, "no student to report on"),
        ([0, 1], [0], r"`student` has 2 model\(s\) and `baseline` 1"),
        ([0, 0], [0, 1], "same model twice"),
        ("file.keras", None, "`student`. Expected a trained keras.Model"),
    ],
)
def test_models_that_do_not_fit(student, baseline, message, report):
    def models(numbers, those):
        return [those[i] for i in numbers] if isinstance(numbers, list) else numbers

    with pytest.raises(ValueError, match=message):
        kd.report(
            student=models(student, report.students),
            baseline=models(baseline, report.baselines),
            data=tiny.digits()[1],
        )


def test_files_of_some_students_only(report, folder):
    with pytest.raises(ValueError, match=r"exports\['float16'\] has 1 file\(s\) for 2 student"):
        kd.report(
            student=report.students,
            exports={"float16": folder / "float16-0.tflite"},
            data=tiny.digits()[1],
        )


def test_a_teacher_that_is_not_a_model(report):
    _, test = tiny.digits()
    ensemble = kd.teachers.Ensemble([tiny.teacher(), tiny.teacher()])
    found = kd.report(ensemble, report.students[:1], data=test, latency=False, verbose=False)
    assert found.rows[0]["values"] == pytest.approx([accuracy(tiny.teacher())])


def test_data_in_another_order_each_time(report):
    _, (x, y) = tiny.digits()
    shuffled = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(y)).batch(300)
    keras.utils.set_random_seed(0)
    with pytest.raises(ValueError, match="Leave out shuffle"):
        kd.report(
            None, report.students, report.baselines, data=shuffled, latency=False, verbose=False
        )

"""Wrong calls of measure, report, diagnose, shrink and sequences raise before any work."""

import os

import keras
import pytest
import tensorflow as tf

import keras_kd as kd
from keras_kd.diagnosis.tallies import DiagnosedModels
from keras_kd.measurement.subjects import FileSubject, FunctionSubject, KerasSubject, TextsSubject
from tests.contract import tool_worlds as worlds
from tests.contract import wrong_calls_of_models as of_models
from tests.contract import wrong_calls_of_reports as of_reports
from tests.contract import wrong_calls_of_tools as of_tools

TABLE = {
    f"{room}: {name}": row
    for room, rows in {
        "measure": of_tools.OF_MEASURE,
        "files": of_tools.OF_FILES,
        "diagnose": of_tools.OF_DIAGNOSE,
        "findings": of_tools.OF_FINDINGS,
        "data": of_tools.OF_DATA,
        "report": of_reports.OF_REPORT,
        "report trains": of_reports.OF_TRAINING_REPORT,
        "report's files": of_reports.OF_REPORTS_FILES,
        "students": of_models.OF_STUDENTS,
        "layers": of_models.OF_LAYERS,
        "sequences": of_models.OF_SEQUENCES,
    }.items()
    for name, row in rows.items()
}
# What runs a model on data, changes weights, or writes one.
WORK = (
    (KerasSubject, "predict"),
    (FileSubject, "predict"),
    (FunctionSubject, "predict"),
    (TextsSubject, "predict"),
    (DiagnosedModels, "teacher_outputs"),
    (DiagnosedModels, "student_outputs"),
    (keras.optimizers.SGD, "apply"),
    (keras.Model, "save"),
)


@pytest.fixture
def work(monkeypatch):
    """What has been run, trained or saved."""
    done = []

    def watched(owner, name):
        original = getattr(owner, name)

        def call(*args, **kwargs):
            done.append(f"{owner.__name__}.{name}")
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    for owner, name in WORK:
        watched(owner, name)
    return done


@pytest.mark.parametrize("name", TABLE)
def test_wrong_calls_raise_before_work(name, work, tmp_path, monkeypatch):
    call, message = TABLE[name]
    worlds.folder()
    work.clear()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        call()
    assert not work
    assert not os.listdir(tmp_path)


def test_the_table_is_long_and_its_messages_differ():
    assert len(TABLE) >= 500
    assert len({message for _, message in TABLE.values()}) >= 200


def drawn(calls):
    """A dataset that counts its batches in a list."""

    def count(x, y):
        tf.py_function(lambda: calls.append(1), [], [])
        return x, y

    return worlds.batches().map(count)


@pytest.mark.parametrize(
    "call",
    [
        lambda data: kd.measure(worlds.of_other_inputs(), data),
        lambda data: kd.measure(worlds.model(), data, class_names=["a"]),
        lambda data: kd.measure(worlds.model(), data, top_k=(99,)),
        lambda data: kd.measure(worlds.model(), data, output="none"),
        lambda data: kd.measure(worlds.model(), data.repeat()),
        lambda data: kd.diagnose(worlds.model(2), worlds.of_other_inputs(), data),
        lambda data: kd.diagnose(worlds.model(2), worlds.model(1), data.repeat()),
        lambda data: kd.diagnose(worlds.model(3, 1), None, data),
        lambda data: kd.report(None, worlds.of_other_inputs(), data=data),
        lambda data: kd.report(None, worlds.model(), data=data, class_names=["a"]),
    ],
)
def test_no_batch_is_drawn_for_what_shapes_tell(call):
    calls = []
    with pytest.raises(ValueError, match=r"cannot take|1 names|up to|outputs|never ends"):
        call(drawn(calls))
    assert not calls


@pytest.mark.parametrize("teacher", [worlds.model(9), kd.teachers.VirtualTeacher(0.9)])
def test_students_of_logits_raise_before_they_are_trained(teacher):
    """One batch of a new student shows it; it raised only after all trainings."""
    teacher_says = {"teacher_from_logits": True} if isinstance(teacher, keras.Sequential) else {}
    with pytest.raises(ValueError, match=r"outputs of classifier are no probabilities"):
        of_reports.trains(teacher=teacher, from_logits=False, **teacher_says)


def test_a_teacher_that_looks_at_the_student_is_left_out_of_a_report():
    """It was refused only after all trainings."""
    x, y = worlds.arrays()

    def train(model):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("sgd", loss, run_eagerly=True)
        model.fit(x, y, verbose=0)

    found = kd.report(
        kd.teachers.VirtualTeacher(0.9),
        make_student=of_reports.new_student,
        train=train,
        seeds=1,
        data=(x, y),
        latency=False,
        verbose=False,
    )
    assert [row["name"] for row in found.rows] == ["labels only", "distilled"]
    assert "teacher: not measured by itself; it looks at the student." in found.notes


@pytest.mark.parametrize("mix", [kd.data.mixup, kd.data.cutmix])
@pytest.mark.parametrize("wrong", [-1.0, 2.0, float("nan")])
def test_labels_that_are_not_probabilities_are_not_mixed(mix, wrong):
    labels = keras.utils.to_categorical([0, 1, 2, 3] * 2, 4)
    good = list(mix(of_tools.images(labels), 4))
    assert all(abs(float(tf.reduce_sum(y, -1)[0]) - 1) < 1e-6 for _, y in good)
    with pytest.raises(tf.errors.InvalidArgumentError, match="probabilities from 0 to 1"):
        list(mix(of_tools.images(labels * wrong), 4))

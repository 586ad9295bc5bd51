"""Each check speaks on a case made for it, and is silent on a healthy one."""

import keras
import numpy as np
import pytest

import keras_kd as kd
from keras_kd.diagnosis import teacher_checks
from tests import extras, reference
from tests.diagnosis import made_up
from tests.diagnosis.made_up import diagnose, finding, severities

ROWS, CLASSES = 600, 6
LABELS = made_up.balanced(ROWS, CLASSES)


def healthy(seed=0, accuracy=0.9):
    return made_up.answers(LABELS, CLASSES, accuracy, seed=seed)


def probabilities(logits):
    return np.exp(reference.log_softmax(logits)).astype("float32")


def test_a_healthy_teacher_and_student_are_left_alone():
    diagnosis = diagnose(healthy(), LABELS, healthy(1, 0.8), (healthy(2), LABELS))
    assert set(severities(diagnosis)) == {
        *("teacher's outputs", "classes", "accuracy", "class order", "weak classes"),
        *("calibration", "soft targets", "memorised", "student's outputs", "student"),
    }
    assert set(severities(diagnosis).values()) == {"ok"}
    assert diagnosis.problems == []


@pytest.mark.parametrize("role", ["teacher", "student"])
class TestOutputs:
    def given(self, role, outputs, **kwargs):
        pair = {"teacher": healthy(), "student": healthy(1, 0.8), role: outputs}
        diagnosis = diagnose(pair["teacher"], LABELS, pair["student"], **kwargs)
        return finding(diagnosis, f"{role}'s outputs")

    @pytest.mark.parametrize("dtype", ["float32", "float16"])
    def test_softmax_where_logits_are_expected(self, role, dtype):
        found = self.given(role, probabilities(healthy()).astype(dtype))
        assert found.severity == "error"
        assert f"The {role} ends in softmax: each of 600 rows" in found.message
        assert "SoftTargets(from_logits=False)" in found.remedy

    def test_one_row_that_is_not_a_probability_is_enough(self, role):
        outputs = probabilities(healthy())
        outputs[-1, 0] += 0.5
        assert self.given(role, outputs).severity == "ok"

    def test_logits_where_probabilities_are_expected(self, role):
        pair = {"teacher": probabilities(healthy()), "student": probabilities(healthy(1, 0.8))}
        pair[role] = healthy(2)
        diagnosis = diagnose(pair["teacher"], LABELS, pair["student"], from_logits=False)
        found = finding(diagnosis, f"{role}'s outputs")
        assert found.severity == "error"
        assert f"The {role} returns no probabilities" in found.message
        other = {"teacher": "student", "student": "teacher"}[role]
        assert severities(diagnosis)[f"{other}'s outputs"] == "ok"

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_not_finite(self, role, bad):
        outputs = healthy()
        outputs[3, 2] = outputs[400, 0] = bad
        found = self.given(role, outputs)
        assert found.severity == "error"
        assert "2 of 600 rows" in found.message
        assert found.values["not_finite"] == 2

    def test_a_masked_class_is_no_fault(self, role):
        outputs = np.concatenate([healthy(), np.full((ROWS, 1), -np.inf, "float32")], axis=-1)
        diagnosis = diagnose(outputs, LABELS, outputs)
        assert severities(diagnosis)[f"{role}'s outputs"] == "ok"
        assert not diagnosis.problems

    def test_the_same_for_all_rows(self, role):
        found = self.given(role, np.tile(np.float32([1, 2, 3, 4, 5, 6]), (ROWS, 1)))
        assert found.severity == {"teacher": "error", "student": "note"}[role]
        assert "the same outputs for all 600 rows" in found.message

    def test_all_classes_alike(self, role):
        outputs = healthy()
        outputs[:60] = 7.0
        found = self.given(role, outputs)
        assert found.severity == {"teacher": "warning", "student": "note"}[role]
        assert "all classes the same value in 10.0 % of the rows" in found.message


def test_errors_of_the_teacher_leave_its_probabilities_out():
    diagnosis = diagnose(probabilities(healthy()), LABELS)
    assert finding(diagnosis, "calibration").severity == "note"
    assert "not measured" in finding(diagnosis, "calibration").message
    assert "soft targets" not in severities(diagnosis)
    assert diagnosis.temperature is None


def test_labels_that_count_from_one():
    found = finding(diagnose(healthy(), LABELS + 1), "classes")
    assert found.severity == "error"
    assert "100 of 600 labels are no class of the teacher, which has 6 (0 to 5)" in found.message
    assert "subtract 1" in found.remedy


def test_labels_out_of_range():
    labels = LABELS.copy()
    labels[7] = 90
    found = finding(diagnose(healthy(), labels), "classes")
    assert (found.severity, found.values["largest"]) == ("error", 90)
    assert "1 of 600 labels" in found.message


def test_labels_of_another_width():
    found = finding(diagnose(healthy(), np.eye(8)[LABELS]), "classes")
    assert found.severity == "error"
    assert "each of 8 classes, and the teacher has 6" in found.message
    assert finding(diagnose(healthy(), np.eye(6)[LABELS]), "classes").severity == "ok"


def test_a_student_with_other_classes():
    student = made_up.answers(LABELS, 8, 0.8)
    diagnosis = diagnose(healthy(), LABELS, student)
    found = finding(diagnosis, "classes")
    assert found.severity == "error"
    assert "The teacher has 6 classes and the student 8" in found.message
    assert "LearningWithoutForgetting" in found.remedy
    assert "student" not in severities(diagnosis)


def test_classes_that_the_data_lacks_are_noted():
    labels = LABELS % 4
    found = finding(diagnose(made_up.answers(labels, CLASSES, 0.9), labels), "classes")
    assert found.severity == "note"
    assert "2 of them never occur" in found.message


def test_rows_without_a_label_are_noted_and_do_not_count():
    labels = np.where(np.arange(ROWS) < 100, -1, LABELS)
    diagnosis = diagnose(healthy(), labels)
    assert finding(diagnosis, "classes").severity == "note"
    assert "100 of 600 rows have no label" in finding(diagnosis, "classes").message
    expected = np.mean(healthy()[100:].argmax(-1) == LABELS[100:])
    assert finding(diagnosis, "accuracy").values["accuracy"] == pytest.approx(expected)


@pytest.mark.parametrize("classes", [2, 6, 50])
def test_a_teacher_that_guesses(classes):
    labels = made_up.balanced(1000, classes)
    logits = np.random.default_rng(classes).normal(0, 2, (1000, classes)).astype("float32")
    diagnosis = diagnose(logits, labels)
    assert finding(diagnosis, "accuracy").severity == "error"
    assert "may be guessing" in finding(diagnosis, "accuracy").message
    assert severities(diagnosis)["class order"] == "ok"
    able = 1 / classes + 0.3 * (1 - 1 / classes)
    found = finding(diagnose(made_up.answers(labels, classes, able), labels), "accuracy")
    assert found.severity == "ok"


def test_few_rows_do_not_tell_the_accuracy_from_chance():
    found = finding(diagnose(healthy()[:6], (LABELS + 1)[:6] % 6), "accuracy")
    assert found.severity == "note"
    assert "too few of them to tell" in found.message


def test_a_teacher_that_knows_little():
    found = finding(diagnose(healthy(accuracy=0.28), LABELS), "accuracy")
    assert found.severity == "warning"
    assert "little more than chance" in found.message
    # Of many classes a fifth is much: 20 times chance.
    labels = made_up.balanced(1000, 100)
    assert finding(diagnose(made_up.answers(labels, 100, 0.2), labels), "accuracy").severity == "ok"


def moved(order, accuracy=0.9, rows=ROWS):
    """A teacher whose class `order[label]` is the label's."""
    classes = len(order)
    labels = made_up.balanced(rows, classes)
    logits = made_up.answers(labels, classes, accuracy)
    turned = np.empty_like(logits)
    turned[:, order] = logits
    return turned, labels


@pytest.mark.parametrize(
    "order",
    [[1, 2, 3, 4, 5, 0], [1, 0, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [2, 0, 1, 3, 4, 5]],
    ids=["all", "two", "reversed", "three"],
)
@pytest.mark.parametrize("accuracy", [0.95, 0.75])
def test_classes_in_another_order(order, accuracy):
    logits, labels = moved(order, accuracy)
    diagnosis = diagnose(logits, labels)
    found = finding(diagnosis, "class order")
    assert found.severity == "error"
    expected = {i: j for i, j in enumerate(order) if i != j}
    assert found.values["order"] == expected
    first, other = next(iter(expected.items()))
    assert f"{first} -> {other} (" in found.message
    assert "weak classes" not in severities(diagnosis)
    # The remedy mends it.
    mended = severities(diagnose(np.take(logits, order, axis=-1), labels))
    assert mended["class order"] == mended["accuracy"] == mended["weak classes"] == "ok"


def test_labels_that_are_shifted_by_one():
    found = finding(diagnose(healthy(), LABELS + 1), "class order")
    assert found.severity == "error"
    assert found.values["order"] == {i + 1: i for i in range(5)}


@pytest.mark.parametrize(
    "logits",
    [
        np.random.default_rng(0).normal(size=(ROWS, CLASSES)),
        np.eye(CLASSES)[np.zeros(ROWS, int)] + 0.01 * np.random.default_rng(0).random((ROWS, 1)),
        moved([0, 1, 2, 3, 4, 5], 0.5)[0],
    ],
    ids=["random", "one answer", "weak"],
)
def test_other_faults_are_no_other_order(logits):
    labels = made_up.balanced(len(logits), CLASSES)
    assert severities(diagnose(logits.astype("float32"), labels))["class order"] == "ok"


def test_few_rows_tell_nothing_of_the_order():
    found = finding(diagnose(*moved([1, 0, 2, 3, 4, 5], rows=90)), "class order")
    assert found.severity == "note"
    assert "0 of 6 classes have the 20 rows" in found.message
    labels = np.concatenate([LABELS % 4, [4, 5]])
    found = finding(diagnose(made_up.answers(labels, CLASSES, 0.9), labels), "class order")
    assert found.severity == "ok"
    assert "4 of 6 classes have the 20 rows" in found.message


def test_two_classes_taken_for_a_third_are_no_other_order():
    predicted = np.where(np.isin(LABELS, [1, 2]), 5, LABELS)
    logits = made_up.answers(predicted, CLASSES, 0.95)
    diagnosis = diagnose(logits, LABELS)
    assert severities(diagnosis)["class order"] == "ok"
    found = finding(diagnosis, "weak classes")
    assert found.severity == "warning"
    assert sorted(found.values["weak"]) == [1, 2]
    assert "2 of 6 classes badly" in found.message
    assert "ClassShares" in found.remedy


def test_recall_against_sklearn():
    metrics = extras.require("sklearn.metrics")
    weights = np.random.default_rng(3).uniform(0, 2, ROWS)
    logits = healthy(accuracy=0.7)
    values = finding(diagnose(logits, LABELS, weights=weights), "weak classes").values
    expected = metrics.recall_score(LABELS, logits.argmax(-1), average=None, sample_weight=weights)
    worst = np.argsort(expected)[:5]
    assert values["worst"] == pytest.approx({c: expected[c] for c in worst.tolist()})
    assert values["mean_recall"] == pytest.approx(expected.mean())


def test_few_rows_make_no_class_weak():
    labels = np.concatenate([LABELS, [6, 6]])
    logits = made_up.answers(np.concatenate([LABELS, [0, 0]]), 7, 0.95)
    diagnosis = diagnose(logits, labels)
    assert severities(diagnosis)["weak classes"] == "ok"
    assert "(class 6)" in finding(diagnosis, "weak classes").message


def test_a_student_that_is_better():
    found = finding(diagnose(healthy(0, 0.7), LABELS, healthy(1, 0.9)), "student")
    assert found.severity == "warning"
    assert "right more often than the teacher" in found.message
    teacher, student = (x.argmax(-1) == LABELS for x in (healthy(0, 0.7), healthy(1, 0.9)))
    assert found.values["teacher_accuracy"] == pytest.approx(teacher.mean())
    assert found.values["student_accuracy"] == pytest.approx(student.mean())
    assert found.values["student_right_alone"] == pytest.approx((student & ~teacher).mean())


def test_students_that_are_as_good_are_no_better():
    for seed in range(20):
        diagnosis = diagnose(healthy(0, 0.8), LABELS, healthy(seed + 1, 0.8))
        assert severities(diagnosis)["student"] == "ok"


@pytest.mark.parametrize(
    ("temperature", "kind"), [(0.2, "nearly labels"), (25.0, "nearly uniform")]
)
def test_a_temperature_that_spoils_the_soft_targets(temperature, kind):
    logits = healthy(accuracy=0.95)
    found = finding(diagnose(logits, LABELS, temperature=temperature), "soft targets")
    assert found.severity == "warning"
    assert kind in found.remedy
    p = np.exp(reference.log_softmax(logits, temperature))
    assert found.values["others"] == pytest.approx(1 - p.max(-1).mean(), rel=1e-5)
    p = np.exp(reference.log_softmax(logits))
    assert found.values["sure_rows"] == pytest.approx(np.mean(p.max(-1) > 0.99))
    assert found.values["entropy"] == pytest.approx(-(p * np.log(p)).sum(-1).mean(), rel=1e-5)
    suggested = found.values["suggested_temperature"]
    p = np.exp(reference.log_softmax(logits, suggested))
    assert 1 - p.max(-1).mean() == pytest.approx(0.3 * (1 - 1 / CLASSES), abs=0.01)
    again = finding(diagnose(logits, LABELS, temperature=suggested), "soft targets")
    assert again.severity == "ok"


def test_the_temperature_is_that_of_soft_targets_by_default():
    assert finding(diagnose(healthy(), LABELS), "soft targets").values["temperature"] == 4.0


@pytest.mark.parametrize(("margin", "severity"), [(12.0, "warning"), (4.0, "note")])
def test_a_teacher_that_overfit_its_data(margin, severity):
    train = made_up.answers(LABELS, CLASSES, 1.0, margin)
    held_out = made_up.answers(LABELS, CLASSES, 0.75, margin)
    found = finding(diagnose(train, LABELS, validation=(held_out, LABELS)), "memorised")
    assert found.severity == severity
    assert "right in 100.0 % of the data" in found.message
    close = made_up.answers(LABELS, CLASSES, 0.95, margin)
    found = finding(diagnose(train, LABELS, validation=(close, LABELS)), "memorised")
    assert found.severity == "ok"


def test_few_validation_rows_do_not_show_overfitting():
    train = made_up.answers(LABELS, CLASSES, 0.9, 12.0)
    few = made_up.answers(LABELS[:20], CLASSES, 0.75, 12.0)
    found = finding(diagnose(train, LABELS, validation=(few, LABELS[:20])), "memorised")
    assert found.values["validation_accuracy"] < 0.8
    assert found.severity == "ok"


def sized(width, seed, knows=False):
    """A model of a hidden layer; `knows`: one that gives its inputs, in spite of its size."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((CLASSES,))
    hidden = keras.layers.Dense(width)(inputs)
    outputs = keras.layers.Dense(CLASSES, kernel_initializer="zeros" if knows else None)(hidden)
    return keras.Model(inputs, inputs + outputs if knows else outputs)


def test_a_teacher_far_larger_than_the_student():
    teacher, small, large = sized(900, 1, knows=True), sized(1, 2), sized(500, 3)
    data = healthy(), LABELS
    found = finding(kd.diagnose(teacher, small, data, print_fn=None), "capacity")
    assert found.severity == "note"
    assert found.values["ratio"] == pytest.approx(teacher.count_params() / small.count_params())
    assert "kd.distill_chain" in found.remedy
    assert "heuristic" in found.remedy
    assert found.values["agreement"] is None  # it knows nothing yet
    found = finding(kd.diagnose(teacher, large, data, print_fn=None), "capacity")
    assert found.severity == "ok"
    follows = sized(1, 4, knows=True)
    found = finding(kd.diagnose(teacher, follows, data, print_fn=None), "capacity")
    assert found.values["agreement"] == 1.0
    assert found.severity == "ok"


def test_a_trained_student_that_follows_needs_no_assistant():
    assert teacher_checks.check_capacity((10_000, 100), None).severity == "note"
    assert teacher_checks.check_capacity((10_000, 100), 0.5).severity == "note"
    assert teacher_checks.check_capacity((10_000, 100), 0.95).severity == "ok"
    assert "agree in 95.0 %" in teacher_checks.check_capacity((10_000, 100), 0.95).message

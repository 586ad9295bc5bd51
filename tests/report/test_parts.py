"""Classes, confusion, inherited mistakes, slices, calibration: counted by hand."""

import numpy as np
import pytest
import tensorflow as tf

from keras_kd._utils.formatting import MINUS
from keras_kd.reporting import breakdowns
from tests.report import made_up

# 3 classes, 4 rows each.
TRUTH = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2])
TEACHER = np.array([0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2])  # two mistakes: rows 3 and 7
BASELINES = [
    np.array([0, 0, 2, 2, 1, 1, 0, 2, 2, 2, 2, 2]),  # repeats row 7
    np.array([0, 0, 0, 0, 1, 1, 0, 0, 2, 2, 2, 2]),  # repeats none
]
STUDENTS = [
    np.array([0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 0]),  # repeats both
    np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 0]),  # repeats row 7
]


def several(said, **options):
    return [made_up.classifier(TRUTH, each, classes=3, **options) for each in said]


def compared(**options):
    return made_up.compared(
        teacher=several([TEACHER], **options),
        baseline=several(BASELINES, **options),
        student=several(STUDENTS, **options),
    )


def test_recall_of_each_class():
    changes = breakdowns.compare_classes(compared(names=["a", "b", "c"]))
    assert [(each.label, each.support) for each in changes] == [("a", 4), ("b", 4), ("c", 4)]
    assert [each.baseline for each in changes] == [0.75, 0.5, 1.0]
    assert [each.student for each in changes] == [0.875, 0.75, 0.75]
    assert [each.gain for each in changes] == [0.125, 0.25, -0.25]
    assert [each.teacher for each in changes] == [0.75, 0.75, 1.0]
    # By seed: a +1/4 and 0, b +1/4 and +1/4, c -1/4 and -1/4.
    np.testing.assert_allclose([each.deviation for each in changes], [0.25 / np.sqrt(2), 0, 0])


def test_a_change_of_one_row_is_not_called_clear():
    # Class c loses the same row in both seeds: no spread, but one row.
    assert not any(each.is_clear for each in breakdowns.compare_classes(compared()))


def test_remarks_name_the_classes_that_gained_and_lost():
    truth = made_up.labels(4000)
    lost = [np.where((truth == 1) & (np.arange(4000) < 400 + 8 * i), 2, truth) for i in range(3)]
    found = made_up.report(
        baseline=made_up.with_errors(truth, [200, 208, 204]),
        student=[made_up.classifier(truth, said) for said in lost],
    )
    # Rows 0 to 199 were wrong, 50 of each class; now 100 and some of class 1.
    assert found.remarks[0].startswith("Classes that gained most, in points of recall: 0 +5.1 ±")
    assert found.remarks[1].startswith(
        f"Classes that lost most, in points of recall: 1 {MINUS}5.1 ±"
    )


def test_confusion_distilled_minus_labels_only():
    change = breakdowns.compare_confusion(compared())
    expected = np.array([[0.5, 0.5, -1.0], [-1.5, 1.0, 0.5], [1.0, 0.0, -1.0]])
    np.testing.assert_array_equal(change["difference"], expected)
    assert change["labels"] == [0, 1, 2]


def test_mistakes_of_the_teacher():
    found = breakdowns.count_inherited(compared())
    assert found.teacher_mistakes == 2
    assert found.student == pytest.approx(0.75)
    assert found.baseline == pytest.approx(0.25)
    assert found.student_deviation == pytest.approx(0.5 / np.sqrt(2))
    assert found.corrected == pytest.approx(0.25)  # row 3, in the second seed
    report = made_up.report(
        teacher=several([TEACHER]), baseline=several(BASELINES), student=several(STUDENTS)
    )
    assert (
        "Of the teacher's 2 mistakes the distilled student repeats 75 % (labels only, without a "
        "teacher: 25 %) and gets 25 % right."
    ) in report.remarks


def test_a_teacher_without_mistakes_has_none_to_inherit():
    found = made_up.compared(teacher=several([TRUTH]), student=several(STUDENTS))
    assert breakdowns.count_inherited(found) is None


def test_slices_of_an_array_and_of_a_function():
    x = np.arange(12.0)[:, None]
    keys = breakdowns.read_slices(
        {
            "half": ["first"] * 6 + ["second"] * 6,
            "class": lambda x, y: y,
            "large": lambda x, y: x[:, 0] > 5,
        },
        (x, TRUTH),
    )
    rows = breakdowns.compare_slices(compared(), keys)
    found = {(row["slice"], row["value"]): row for row in rows}
    assert list(found) == [
        *(("half", value) for value in ("first", "second")),
        *(("class", value) for value in (0, 1, 2)),
        *(("large", value) for value in (False, True)),
    ]
    second = found["half", "second"]
    assert second["samples"] == 6
    assert second["scores"]["teacher"] == pytest.approx(5 / 6)
    assert second["scores"]["labels only"] == pytest.approx(4 / 6)
    assert second["scores"]["distilled"] == pytest.approx(4 / 6)
    assert second["gain"] == pytest.approx(0)
    assert found["class", 2]["gain"] == pytest.approx(-0.25)
    assert found["large", True]["scores"] == second["scores"]


def test_rows_that_do_not_count_are_left_out_of_slices_and_weights_count():
    truth = np.zeros(4)
    weights, counted = np.array([3.0, 1.0, 1.0, 1.0]), np.array([1, 1, 0, 1, 1, 0], bool)
    options = {"weights": weights, "counted": counted}
    found = made_up.compared(
        baseline=[made_up.regression(truth, [1, 5, 2, 4], **options)],
        student=[made_up.regression(truth, [1, 1, 2, 2], **options)],
    )
    data = tf.data.Dataset.from_tensor_slices(
        (np.zeros((6, 1)), [b"DE", b"DE", b"FR", b"FR", b"FR", b"DE"])
    )
    keys = breakdowns.read_slices(
        {"land": lambda x, y: np.char.add(y.astype(bytes), b"!")}, data.batch(4)
    )
    rows = breakdowns.compare_slices(found, keys)
    assert [(row["value"], row["samples"]) for row in rows] == [("DE!", 2), ("FR!", 2)]
    assert rows[0]["scores"]["labels only"] == pytest.approx((3 * 1 + 5) / 4)
    assert rows[1]["scores"]["labels only"] == pytest.approx((2 + 4) / 2)


def test_numbers_that_are_missing_are_one_slice():
    keys = breakdowns.read_slices(
        np.array([1.0, np.nan, np.nan, 1.0]), (np.zeros((4, 1)), np.zeros(4))
    )
    assert set(keys["slice"]) == {1.0, "NaN"}


def test_mistakes_count_by_their_weights():
    weights = np.ones(len(TRUTH))
    weights[0] = 5.0
    wrong = made_up.predictions(TRUTH, slice(0, 2), classes=3)
    right = made_up.predictions(TRUTH, slice(0, 1), classes=3)
    found = made_up.compared(
        teacher=several([wrong], weights=weights),
        student=several([right], weights=weights),
        baseline=several([TRUTH], weights=weights),
    )
    assert breakdowns.count_inherited(found).student == pytest.approx(5 / 6)


def test_slices_of_a_regression_are_mean_absolute_errors():
    truth = np.zeros(4)
    found = made_up.compared(
        baseline=[made_up.regression(truth, [1, 1, 2, 4])],
        student=[made_up.regression(truth, [1, 0, 2, 2])],
    )
    rows = breakdowns.compare_slices(found, {"half": [0, 0, 1, 1]})
    assert [row["scores"] for row in rows] == [
        {"labels only": 1.0, "distilled": 0.5},
        {"labels only": 3.0, "distilled": 2.0},
    ]
    assert [row["gain"] for row in rows] == [0.5, 1.0]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (np.arange(12), "12 values, but the test data have 4 samples"),
        (np.zeros((12, 2)), "one value for each sample. Received: an array of shape"),
        (lambda x, y: y[:2], r"one value for each of the 12 samples of a batch.*\(2,\)"),
        (np.arange(60), "60 different values .* at most 50"),
    ],
)
def test_slices_that_do_not_fit(key, message):
    found = made_up.compared(student=[made_up.regression(np.zeros(4), [1, 1, 2, 4])])
    with pytest.raises(ValueError, match=message):
        breakdowns.compare_slices(found, breakdowns.read_slices(key, (np.zeros((12, 1)), TRUTH)))


def test_reliability_of_all_seeds_together():
    bins = [
        [{"low": 0.5, "high": 1.0, "count": 30, "confidence": 0.9, "accuracy": 0.8}],
        [
            {"low": 0.0, "high": 0.5, "count": 0, "confidence": None, "accuracy": None},
            {"low": 0.5, "high": 1.0, "count": 10, "confidence": 0.7, "accuracy": 0.6},
        ],
    ]
    found = made_up.candidates(student=[several([TRUTH], reliability=each)[0] for each in bins])
    (row,) = breakdowns.reliability_curve(found[0])
    assert row["count"] == 40
    assert row["confidence"] == pytest.approx(0.85)
    assert row["accuracy"] == pytest.approx(0.75)

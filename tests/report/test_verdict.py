"""What the report says of cases whose answer is known."""

import numpy as np
import pytest

from keras_kd._utils import formatting
from keras_kd._utils.formatting import MINUS
from tests.report import made_up

TRUTH = made_up.labels(2000)


def accuracies(*percents, **options):
    counts = [round(len(TRUTH) * (1 - percent / 100)) for percent in percents]
    return made_up.with_errors(TRUTH, counts, **options)


def report(**sides):
    return made_up.report(**sides)


def test_gain():
    found = report(
        teacher=accuracies(95),
        baseline=accuracies(91.0, 91.2, 91.1),
        student=accuracies(92.8, 93.3, 92.6),
        exports={"int8": accuracies(92.7, 93.2, 92.6)},
    )
    assert found.finding == "gain"
    assert found.verdict.startswith(
        "Distillation gained 1.8 ± 0.3 points of accuracy (91.1 to 92.9 %; 3 seeds, 95 % interval "
        "+1.1 to +2.5, paired t-test p = 0.009)."
    )
    assert "It closes 46 % of the gap to the teacher (95.0 %)." in found.verdict
    assert found.verdict.endswith("int8 keeps 96 % of it.")
    assert found.advice == []


def test_advice_explains_why_a_file_loses_the_gain():
    student = accuracies(92.8, 93.3, 92.6)
    worse = [
        made_up.classifier(TRUTH, made_up.predictions(one.predictions, slice(None, 240, 4)))
        for one in student
    ]
    found = report(baseline=accuracies(91.0, 91.2, 91.1), student=student, exports={"int8": worse})
    (kept,) = found.comparison.kept
    assert kept.share < 0.9
    # All rows that were changed are of class 0, and many of them were wrong before.
    assert f"int8 keeps {100 * kept.share:.0f} % of it." in found.verdict
    assert "answers otherwise in 3.0 % of the samples" in found.advice[0]
    assert "loses most in class 0" in found.advice[0]
    assert "kd.quantization_aware" in found.advice[1]


def test_no_gain_with_a_teacher_that_is_no_better():
    found = report(
        teacher=accuracies(90.1),
        baseline=accuracies(91.2, 91.6, 91.4),
        student=accuracies(91.3, 91.0, 91.2),
        exports={"int8": accuracies(91.2, 91.0, 91.2)},
    )
    assert found.finding == "no gain"
    assert found.verdict.startswith(
        f"No gain: {MINUS}0.2 ± 0.4 points of accuracy (91.4 to 91.2 %;"
    )
    assert "int8 differs from the float student by" in found.verdict
    assert "keeps" not in found.verdict
    assert "The teacher (90.1 %) is no better" in found.advice[0]
    assert "Try a better teacher" in found.advice[0]


def test_loss():
    found = report(
        teacher=accuracies(95),
        baseline=accuracies(92, 92.2, 92.1),
        student=accuracies(89, 89.3, 89),
    )
    assert found.finding == "loss"
    assert found.verdict.startswith("Loss: distillation cost 3.0 ± 0.1 points of accuracy")
    assert found.advice


def test_not_enough_evidence_for_want_of_seeds():
    found = report(teacher=accuracies(95), baseline=accuracies(90, 92), student=accuracies(91, 95))
    assert found.finding == "unclear"
    assert found.verdict.startswith("Not enough evidence of a gain: +2.0 ± 1.4 points of accuracy")
    (advice,) = [each for each in found.advice if "seeds spread" in each]
    # t(0.975, 1) = 12.71; 12.71 * 1.414 / sqrt(2) = 12.7. Five: 2.776 * 1.414 / sqrt(5) = 1.76 < 2.
    assert "2 of them show only gains above 12.7 points" in advice
    assert "about 5 would show it" in advice


def test_not_enough_evidence_for_want_of_rows():
    few = made_up.labels(40)
    found = report(
        teacher=made_up.with_errors(few, [5]),
        baseline=made_up.with_errors(few, [9, 10, 9, 10]),
        student=made_up.with_errors(few, [8, 9, 8, 8]),
    )
    assert found.finding == "unclear"
    (advice,) = [each for each in found.advice if "test data are few" in each]
    noise = found.difference.row_noise
    assert f"40 samples show only differences above {100 * noise.visible:.1f} points" in advice
    assert f"{noise.rows_needed():,}" in advice


def test_one_seed():
    found = report(teacher=accuracies(95), baseline=accuracies(91), student=accuracies(93))
    assert found.finding == "gain"
    # 40 rows of 2,000 are mended, none is spoilt: 2.0 ± 1.96 * 0.31 points.
    assert "1 seed, 95 % interval +1.4 to +2.6, McNemar's exact test p < 0.001" in found.verdict
    assert "only more seeds can show how much was luck" in found.verdict
    assert "train three or more" in found.advice[0]


def test_nothing_to_compare():
    found = report(teacher=accuracies(95), student=accuracies(92, 93))
    assert found.finding == "nothing to compare"
    assert "teacher 95.0 %, distilled 92.5 %" in found.verdict
    assert "pass baseline=" in found.verdict
    assert found.difference is None


@pytest.mark.parametrize(
    ("teacher", "words"),
    [
        (91.5, "Labels alone bring the student (91.0 %) close to the teacher (91.5 %)"),
        (93, None),
        (99, None),
    ],
)
def test_advice_by_the_gap_to_the_teacher(teacher, words):
    found = report(
        teacher=accuracies(teacher), baseline=accuracies(90.8, 91.2), student=accuracies(90.7, 91)
    )
    if words is None:
        assert "Try another temperature" in found.advice[0]
    else:
        assert words in found.advice[0]


def test_advice_on_a_teacher_that_is_out_of_reach():
    found = report(teacher=accuracies(99), baseline=accuracies(80, 81), student=accuracies(80, 80))
    assert "kd.distill_chain" in found.advice[0]


def test_advice_on_a_student_that_does_not_follow():
    def agreeing(share, *percents):
        return accuracies(*percents, teacher={"agreement": share, "kl": 0.1})

    sides = {"teacher": accuracies(94), "baseline": agreeing(0.915, 91, 91.4)}
    found = report(**sides, student=agreeing(0.917, 91.1, 91.2))
    assert "agrees with the teacher in 91.7 % of the samples" in found.advice[0]
    followed = report(**sides, student=agreeing(0.96, 91.1, 91.2))
    assert not any("agrees" in each for each in followed.advice)


def test_a_student_as_good_as_its_teacher():
    found = report(
        teacher=accuracies(92), baseline=accuracies(90, 90.1), student=accuracies(93, 93.2)
    )
    assert "as good as its teacher (92.0 %) or better" in found.verdict


def test_errors_are_lowered():
    rng = np.random.default_rng(0)
    truth, errors = rng.normal(size=(2, 500))

    def make(*noises):
        return [made_up.regression(truth, truth + noise * errors) for noise in noises]

    found = report(baseline=make(0.50, 0.52, 0.51), student=make(0.40, 0.41, 0.42))
    assert found.finding == "gain"
    assert found.verdict.startswith("Distillation lowered RMSE by 0.094 ± 0.009 (0.480 to 0.386;")
    assert " %" not in found.verdict.split(";")[0]
    low, high = found.difference.interval
    assert f"95 % interval {low:+.3f} to {high:+.3f}" in found.verdict
    assert "+ is better" in " ".join(str(found).split())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (formatting.p_value(0.0123), "p = 0.01"),
        (formatting.p_value(0.0062), "p = 0.006"),
        (formatting.p_value(1e-5), "p < 0.001"),
        (formatting.p_value(0.0512), "p = 0.051"),
        (formatting.size(36_400), "36.4 KB"),
        (formatting.size(512), "512 B"),
        (formatting.microseconds(43.21), "43.2 µs"),
        (formatting.microseconds(1234), "1.2 ms"),
        (formatting.fixed(-0.04, 1, "+"), "+0.0"),
        (formatting.spread(-1.26, 0.31, 1, "+"), f"{MINUS}1.3 ± 0.3"),
        (formatting.percent(0.956), "96 %"),
        (formatting.plural(1, "seed"), "1 seed"),
        (formatting.plural(1200, "class"), "1,200 classes"),
    ],
)
def test_numbers(text, expected):
    assert text == expected


def test_seeds_that_gain_exactly_as_much():
    """Their rows are tested, and no sentence says that there was one seed, or a t-test."""
    found = report(baseline=accuracies(91.0, 91.0), student=accuracies(92.0, 92.0))
    assert "2 seeds" in found.verdict
    assert "McNemar's exact test" in found.verdict
    assert "one pair" not in found.verdict
    text = " ".join(str(found).split())
    assert "p: McNemar's exact test" in text
    assert "t-test" not in text
    unclear = report(baseline=accuracies(91.0, 91.0), student=accuracies(91.1, 91.1))
    assert not any("The seeds spread" in each for each in unclear.advice)


def test_errors_are_said_to_be_lower():
    truth, errors = np.zeros(50), np.random.default_rng(0).normal(size=50)
    sides = {"baseline": (2.0, 2.1, 2.2), "student": (1.9, 2.2, 2.0), "teacher": (0.1,)}
    found = report(
        **{
            name: [made_up.regression(truth, scale * errors) for scale in scales]
            for name, scales in sides.items()
        }
    )
    assert found.finding == "unclear"
    assert " lower RMSE (" in found.verdict
    assert "+0" not in found.verdict.split("(")[0]
    assert any("is far below the student" in each for each in found.advice)


def test_a_legend_explains_no_column_that_is_not_there():
    assert "gain:" not in str(report(student=accuracies(91.0)))

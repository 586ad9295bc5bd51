"""The tests and intervals, against SciPy and against sums made here."""

import math

import numpy as np
import pytest
import scipy.stats

from keras_kd.reporting import statistics
from tests.report import made_up

TRUTH = made_up.labels(1000)


def difference(before, after, key="accuracy", make=None):
    make = make or (lambda counts: made_up.with_errors(TRUTH, counts))
    student, baseline = made_up.candidates(make(before), make(after))[::-1]
    return statistics.compare_paired(statistics.Metric(key), student, baseline)


def test_seeds_are_tested_with_the_paired_t_test():
    before, after = [100, 120, 90, 105], [60, 65, 70, 61]
    found = difference(before, after)
    scores = 1 - np.array([before, after]) / 1000
    gains = scores[1] - scores[0]
    np.testing.assert_allclose(found.by_seed, gains)
    assert found.mean == pytest.approx(gains.mean())
    assert found.deviation == pytest.approx(gains.std(ddof=1))
    assert found.p == pytest.approx(scipy.stats.ttest_rel(scores[1], scores[0]).pvalue)
    half = scipy.stats.t.ppf(0.975, 3) * gains.std(ddof=1) / 2
    assert found.interval == pytest.approx((gains.mean() - half, gains.mean() + half))
    assert (found.test, found.seeds) == ("paired t-test", 4)


def test_one_seed_is_tested_with_mcnemars_exact_test():
    before = made_up.classifier(TRUTH, made_up.predictions(TRUTH, slice(0, 12)))
    after = made_up.classifier(TRUTH, made_up.predictions(TRUTH, slice(9, 15)))
    student, baseline = made_up.candidates([before], [after])[::-1]
    found = statistics.compare_paired(statistics.Metric("accuracy"), student, baseline)
    # 9 rows that only the new model gets right, 3 that only the old one does.
    p = 2 * sum(math.comb(12, k) for k in range(4)) / 2**12
    assert found.p == pytest.approx(p)
    assert found.test == "McNemar's exact test"
    assert found.deviation is None


def test_mcnemar_of_models_that_are_right_in_the_same_rows():
    right = np.array([True, False, True])
    assert statistics.mcnemar(right, right) == 1.0


def test_gains_that_are_equal_in_all_seeds_are_tested_over_the_rows():
    # A t-test would say p = 0: it takes a spread of 0 at its word.
    found = difference([20, 30], [18, 28])
    assert found.test == "McNemar's exact test"
    assert found.p == pytest.approx(0.5)  # 2 rows of 2: 2 * 1 / 2^2
    assert not found.is_clear


def test_errors_count_the_other_way_round():
    truth = np.linspace(-1, 1, 200)

    def make(noises):
        rng = np.random.default_rng(0)
        errors = rng.normal(size=200)
        return [made_up.regression(truth, truth + noise * errors) for noise in noises]

    found = difference([0.5, 0.6, 0.55], [0.3, 0.35, 0.32], "rmse", make)
    assert found.mean > 0
    expected = [
        before.quality["rmse"] - after.quality["rmse"]
        for before, after in zip(make([0.5, 0.6, 0.55]), make([0.3, 0.35, 0.32]), strict=True)
    ]
    np.testing.assert_allclose(found.by_seed, expected)


def test_noise_of_the_rows_of_the_accuracy():
    before = made_up.with_errors(TRUTH, [100, 100])
    after = made_up.with_errors(TRUTH, [60, 80])
    found = statistics.row_noise(statistics.Metric("accuracy"), after, before)
    # Rows 60 to 79 are mended in one seed, 80 to 99 in both.
    gains = np.zeros(1000)
    gains[60:80], gains[80:100] = 0.5, 1.0
    assert found.mean == pytest.approx(0.03)
    assert found.error == pytest.approx(gains.std(ddof=1) / np.sqrt(1000))
    assert found.visible == pytest.approx(scipy.stats.norm.ppf(0.975) * found.error)
    assert found.rows_needed() == math.ceil(1000 * (found.visible / 0.03) ** 2)


@pytest.mark.parametrize("key", ["mae", "rmse"])
def test_noise_of_the_rows_of_a_regression_is_that_of_the_bootstrap(key):
    rng = np.random.default_rng(1)
    truth = rng.normal(size=600)
    before = made_up.regression(truth, truth + rng.normal(0, 1.0, 600))
    after = made_up.regression(truth, truth + rng.normal(0, 0.8, 600))
    found = statistics.row_noise(statistics.Metric(key), [after], [before])
    assert found.mean == pytest.approx(before.quality[key] - after.quality[key])

    def gain(rows):
        sides = [(one.predictions - one.labels)[rows] for one in (before, after)]
        if key == "mae":
            return abs(sides[0]).mean() - abs(sides[1]).mean()
        return np.sqrt((sides[0] ** 2).mean()) - np.sqrt((sides[1] ** 2).mean())

    again = [gain(rng.integers(0, 600, 600)) for _ in range(2000)]
    assert found.error == pytest.approx(np.std(again), rel=0.1)


def test_a_metric_that_is_not_a_mean_over_rows_has_no_noise_of_rows():
    pair = made_up.with_errors(TRUTH, [100, 60])
    assert statistics.row_noise(statistics.Metric("f1_macro"), pair[1:], pair[:1]) is None
    # McNemar's test would be one of the accuracy, which may even have fallen.
    assert statistics.p_over_samples(statistics.Metric("f1_macro"), *pair) == (None, None)


def heavy():
    """Four rows of weight 50 that one model gets right, forty of weight 1 the other: 200 rows."""
    truth, weights = made_up.labels(200), np.ones(200)
    weights[:4] = 50
    made = [
        made_up.classifier(truth, made_up.predictions(truth, wrong), weights=weights)
        for wrong in (slice(0, 4), slice(4, 44))
    ]
    for each in made:
        right = each.predictions == truth
        each.quality["accuracy"] = float(np.average(right, weights=weights))
    return (*made, weights)


def test_rows_count_by_their_weights():
    before, after, weights = heavy()
    gains = np.r_[np.ones(4), -np.ones(40), np.zeros(156)]
    mean = np.average(gains, weights=weights)
    error = np.sqrt((weights**2 * (gains - mean) ** 2).sum() * 200 / 199) / weights.sum()
    student, baseline = made_up.candidates([before], [after])[::-1]
    found = statistics.compare_paired(statistics.Metric("accuracy"), student, baseline)
    assert found.mean == pytest.approx(mean)
    assert mean > 0.3  # though one model is right in 36 rows more
    assert found.row_noise.error == pytest.approx(error)
    assert found.interval == pytest.approx((mean - 1.96 * error, mean + 1.96 * error), rel=1e-3)
    assert found.test == "paired t-test over the samples"
    assert found.p == pytest.approx(2 * scipy.stats.t.sf(mean / error, 199))


@pytest.mark.parametrize("key", ["mae", "rmse"])
def test_weights_of_errors_are_numbers_of_rows(key):
    rng = np.random.default_rng(0)
    truth, times = np.zeros(40), rng.integers(1, 4, 40)
    sides = [rng.normal(0, scale, 40) for scale in (1.0, 0.8)]

    def measured(said, repeated):
        rows = np.repeat(np.arange(40), times) if repeated else np.arange(40)
        weights = None if repeated else times.astype(float)
        return made_up.regression(truth[rows], said[rows], weights=weights)

    found, expected = (
        statistics.row_noise(statistics.Metric(key), *[[measured(x, again)] for x in sides[::-1]])
        for again in (False, True)
    )
    assert found.mean == pytest.approx(expected.mean)


def test_a_clear_gain_needs_seeds_and_rows():
    few = made_up.labels(40)

    def make(counts):
        return made_up.with_errors(few, counts)

    # The seeds agree, but each mends one row of 40.
    by_chance = difference([9, 10, 9, 10], [8, 9, 8, 8], make=make)
    assert by_chance.p < 0.05
    assert not by_chance.row_noise.excludes_zero
    assert not by_chance.is_clear
    assert difference([100, 120, 110], [60, 70, 65]).is_clear
    assert not difference([100, 120, 110], [60, 130, 90]).is_clear


def test_what_so_many_seeds_can_show():
    deviation = 0.01
    smallest = statistics.smallest_clear(deviation, 3)
    gains = smallest * 1.001 + deviation * np.array([-1, 0, 1])
    assert scipy.stats.ttest_1samp(gains, 0).pvalue < 0.05
    assert scipy.stats.ttest_1samp(gains - 0.01 * smallest, 0).pvalue > 0.05
    needed = statistics.seeds_needed(0.01, deviation)
    assert statistics.smallest_clear(deviation, needed) < 0.01
    assert statistics.smallest_clear(deviation, needed - 1) >= 0.01
    assert statistics.seeds_needed(1e-4, deviation) is None


def test_the_share_of_a_gain_that_a_file_keeps():
    found = made_up.compared(
        baseline=made_up.with_errors(TRUTH, [100, 104, 96]),
        student=made_up.with_errors(TRUTH, [60, 62, 58]),
        exports={"int8": made_up.with_errors(TRUTH, [62, 64, 60])},
    )
    kept = found.kept[0]
    assert kept.share == pytest.approx((0.1 - 0.062) / (0.1 - 0.06))
    assert kept.agreement == pytest.approx(1 - 0.002)
    assert kept.difference.mean == pytest.approx(-0.002)


def test_no_share_of_a_gain_within_the_noise():
    found = made_up.compared(
        baseline=made_up.with_errors(TRUTH, [100, 104, 96]),
        student=made_up.with_errors(TRUTH, [98, 104, 97]),
        exports={"int8": made_up.with_errors(TRUTH, [99, 104, 97])},
    )
    assert found.finding == "unclear"
    assert found.kept[0].share is None


def test_other_samples_raise():
    other = made_up.labels(1000)[::-1]
    with pytest.raises(ValueError, match="other samples .* leave out shuffle"):
        made_up.compared(
            baseline=made_up.with_errors(TRUTH, [10]), student=made_up.with_errors(other, [5])
        )


def test_small_errors_are_not_shown_as_0():
    found = statistics.Metric("rmse")
    assert found.number(2.345e-6) == "0.00000234" or found.number(2.345e-6) == "0.00000235"
    assert found.number(1.2345, 0.0001) == "1.2345 ± 0.0001"
    assert found.interval(1e-6, 3e-6) == "+0.0000010 to +0.0000030"

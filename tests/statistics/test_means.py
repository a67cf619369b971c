"""Means and ratios: what the guards do, against Student's interval, and in ratios that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from vlm_tune.records import Estimate
from vlm_tune.statistics import mean, mean_score, positive_mean, ratio


def test_it_is_students_interval_of_the_values_and_two_guards() -> None:
    values = np.random.default_rng(0).normal(0.3, 1, 40)
    far = np.abs(values - values.mean()).max()
    guarded = np.append(values, [values.mean() - far, values.mean() + far])
    theirs = stats.ttest_1samp(guarded, 0).confidence_interval(0.95)
    found = mean(values)
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high))
    assert found.value == pytest.approx(values.mean())
    assert found.n == 40


def test_of_a_handful_it_is_students_interval() -> None:
    values = np.random.default_rng(4).normal(0.3, 1, 5)
    theirs = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = mean(values)
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high))


def test_many_values_need_no_guards() -> None:
    values = np.random.default_rng(1).normal(0, 1, 50_000)
    theirs = stats.ttest_1samp(values, 0).confidence_interval(0.99)
    found = mean(values, level=0.99)
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), rel=5e-3, abs=1e-4)


def test_groups_of_equal_size_are_a_mean_of_their_means() -> None:
    values = np.random.default_rng(2).normal(1, 1, (30, 4))
    by_group = mean(values.ravel(), groups=np.repeat(np.arange(30), 4))
    of_means = mean(values.mean(axis=1))
    assert (by_group.low, by_group.high) == pytest.approx((of_means.low, of_means.high))
    assert by_group.n == 120
    assert by_group.method.endswith("clustered by group")


def test_positive_means_keep_positive_and_follow_the_unit() -> None:
    values = np.random.default_rng(3).lognormal(0, 1.5, 12)
    found, thousand = positive_mean(values), positive_mean(1000 * values)
    assert 0 < found.low < found.value < found.high
    assert (thousand.low, thousand.high) == pytest.approx((1000 * found.low, 1000 * found.high))
    assert math.log(found.high / found.value) == pytest.approx(math.log(found.value / found.low))


def test_on_the_logarithmic_scale_it_is_the_same_half_over_the_mean() -> None:
    values = np.random.default_rng(5).lognormal(0, 0.7, 40)
    plain, found = mean(values, level=0.9), positive_mean(values, level=0.9)
    assert found.value == plain.value
    assert math.log(found.high / found.value) == pytest.approx((plain.high - plain.value) / plain.value)


def test_a_score_has_students_interval_with_one_worst_score() -> None:
    theirs = stats.ttest_1samp([0.02] * 200 + [2.0], 0).confidence_interval(0.95)
    found = mean_score([0.02] * 200, worst=2.0)
    # Distances are taken to the mean of what there was, and not to that with the worst score.
    assert found.high - found.value == pytest.approx((theirs.high - theirs.low) / 2, rel=0.01)


def test_a_score_without_a_mistake_may_still_hide_some() -> None:
    flawless = mean_score([0.0] * 50, worst=2.0)
    assert (flawless.value, flawless.low) == (0.0, 0.0)
    assert 0.04 < flawless.high < 0.2
    assert mean_score([0.0] * 1000, worst=2.0).high < flawless.high / 10
    assert mean_score([2.0] * 5, worst=2.0).high == 2.0


def test_a_ratio_is_the_one_by_the_other() -> None:
    four, one = (Estimate(value=v, low=v / 1.1, high=v * 1.1, n=n, method="t") for v, n in ((4.0, 9), (1.0, 7)))
    found = ratio(four, one)
    factor = math.exp(math.sqrt(2) * math.log(1.1))
    assert (found.value, found.low, found.high, found.n) == pytest.approx((4.0, 4 / factor, 4 * factor, 7))
    turned = ratio(one, four)
    assert (turned.low, turned.high) == pytest.approx((1 / found.high, 1 / found.low))


def test_an_exact_quantity_adds_nothing() -> None:
    exact = Estimate(value=2.0, low=2.0, high=2.0, n=0, method="bill")
    measured = positive_mean([4.0, 5.0, 6.0])
    found = ratio(measured, exact)
    assert (found.low, found.high) == pytest.approx((measured.low / 2, measured.high / 2))


def test_what_has_no_interval_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two values"):
        mean([1.0])
    with pytest.raises(ValueError, match="not of one group"):
        mean([1.0, 2.0], groups=[3, 3])
    with pytest.raises(ValueError, match="is positive"):
        positive_mean([0.0, 0.0])
    with pytest.raises(ValueError, match="between 0 and 2"):
        mean_score([0.1, 2.5], worst=2.0)
    with pytest.raises(ValueError, match="positive limits"):
        ratio(Estimate(value=1, low=0, high=2, n=3, method=""), positive_mean([1.0, 2.0]))

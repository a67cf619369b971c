"""Exact intervals against scipy and statsmodels, and thresholds that keep their promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from statsmodels.stats.proportion import proportion_confint

from vlm_tune.statistics import clopper_pearson, safe_threshold


@given(st.integers(1, 300), st.data())
def test_clopper_pearson_is_that_of_scipy_and_statsmodels(n: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, n))
    found = clopper_pearson(hits, n)
    theirs = binomtest(hits, n).proportion_ci(0.95, method="exact")
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high))
    if 0 < hits < n:
        assert (found.low, found.high) == pytest.approx(proportion_confint(hits, n, method="beta"))


def test_the_published_interval() -> None:
    assert str(clopper_pearson(87, 98)) == "0.888 [0.808, 0.943] (n=98)"
    assert clopper_pearson(0, 0).low == 0
    with pytest.raises(ValueError, match="impossible"):
        clopper_pearson(3, 2)


def test_fifty_nine_without_a_mistake_are_the_fewest() -> None:
    assert safe_threshold([0.99] * 59, [1] * 59, accuracy=0.95).threshold is not None
    short = safe_threshold([0.99] * 58, [1] * 58, accuracy=0.95)
    assert (short.threshold, short.fewest) == (None, 59)


def test_the_bound_is_the_exact_one_sided_test() -> None:
    found = safe_threshold([0.9] * 200, [1] * 196 + [0] * 4, accuracy=0.95)
    assert (found.num_above, found.num_right) == (200, 196)
    assert found.least == pytest.approx(binomtest(196, 200, alternative="greater").proportion_ci(0.95).low)
    assert found.threshold == 0.0
    assert safe_threshold([0.9] * 200, [1] * 185 + [0] * 15, accuracy=0.95).threshold is None


def test_it_ends_where_the_mistakes_begin() -> None:
    sure = np.linspace(1.0, 0.0, 1000)
    found = safe_threshold(sure, np.arange(1000) < 600, accuracy=0.95)
    assert found.threshold is not None
    assert 600 <= found.num_above <= 640
    assert 0.95 <= found.least < 1
    assert np.count_nonzero(sure >= found.threshold) == found.num_above


def test_without_a_promise_it_is_the_lowest_that_was_good_enough() -> None:
    sure, right = [0.9, 0.8, 0.8, 0.7, 0.6], [1, 1, 0, 1, 1]
    found = safe_threshold(sure, right, accuracy=0.75, level=None)
    assert (found.threshold, found.num_above, found.num_right, found.least) == (0.6, 5, 4, 0.0)
    assert safe_threshold(sure, right, accuracy=0.9, level=None).num_above == 1
    assert safe_threshold([0.9], [0], accuracy=0.9, level=None).threshold is None


def test_the_promise_is_kept() -> None:
    """Of 150 validation sets at most 5 % may lead to a threshold that is not accurate enough on new photos."""
    rng = np.random.default_rng(0)
    broken = 0
    grid = 6 + 3 * rng.standard_normal(50_000)
    for _ in range(150):
        odds = 6 + 3 * rng.standard_normal(300)
        right = rng.random(300) < 1 / (1 + np.exp(-0.4 * odds))
        chosen = safe_threshold(1 / (1 + np.exp(-odds)), right, accuracy=0.9).threshold
        if chosen is not None:
            above = grid[1 / (1 + np.exp(-grid)) >= chosen]
            broken += (1 / (1 + np.exp(-0.4 * above))).mean() < 0.9
    assert broken <= 13


@pytest.mark.parametrize(
    "call",
    [
        lambda: safe_threshold([0.5], [1, 1], accuracy=0.9),
        lambda: safe_threshold([], [], accuracy=0.9),
        lambda: safe_threshold([1.5], [1], accuracy=0.9),
        lambda: safe_threshold([0.5], [1], accuracy=1.0),
        lambda: safe_threshold([0.5], [1], accuracy=0.9, level=0.0),
    ],
)
def test_what_does_not_fit_is_refused(call: object) -> None:
    with pytest.raises(ValueError):
        call()  # type: ignore[operator]

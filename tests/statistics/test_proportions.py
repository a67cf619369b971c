"""Shares against statsmodels, and what must hold for any counts."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm, t
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from vlm_tune.statistics import mean_of_proportions, wilson

SLACK = 1e-9


@st.composite
def proportions(draw: st.DrawFn) -> tuple[int, int]:
    n = draw(st.integers(1, 5000))
    return draw(st.integers(0, n)), n


def test_the_published_shares() -> None:
    assert (round(wilson(87, 98).low, 3), round(wilson(87, 98).high, 3)) == (0.810, 0.936)
    assert (round(wilson(81, 98).low, 3), round(wilson(81, 98).high, 3)) == (0.740, 0.889)


@given(proportions(), st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_is_statsmodels_wilson(counts: tuple[int, int], level: float) -> None:
    low, high = proportion_confint(*counts, alpha=1 - level, method="wilson")
    estimate = wilson(*counts, level=level)
    assert math.isclose(estimate.low, low, abs_tol=SLACK)
    assert math.isclose(estimate.high, high, abs_tol=SLACK)


@given(proportions())
def test_wilson_contains_its_value_and_mirrors(counts: tuple[int, int]) -> None:
    successes, n = counts
    estimate, mirrored = wilson(successes, n), wilson(n - successes, n)
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert math.isclose(estimate.low, 1 - mirrored.high, abs_tol=SLACK)


def test_nothing_is_known_without_observations() -> None:
    assert (wilson(0, 0).low, wilson(0, 0).high) == (0, 1)


@pytest.mark.parametrize("level", [0.999, 0.975, 0.95])
def test_the_method_names_its_level_exactly(level: float) -> None:
    assert wilson(1, 2, level=level).method == f"Wilson {100 * level:g}%"


@given(st.lists(proportions(), min_size=1, max_size=8))
def test_the_mean_of_proportions_contains_itself(counts: list[tuple[int, int]]) -> None:
    parts = [wilson(*count) for count in counts]
    mean = mean_of_proportions(parts)
    assert mean.low <= mean.value <= mean.high
    assert mean.low >= -SLACK
    assert mean.high <= 1 + SLACK
    assert mean.value == pytest.approx(sum(part.value for part in parts) / len(parts))


def test_the_mean_of_one_proportion_is_that_proportion() -> None:
    assert mean_of_proportions([wilson(9, 10)]).low == pytest.approx(wilson(9, 10).low)


def test_the_mean_of_two_is_half_of_newcombes_difference() -> None:
    """A + B is A - (1 - B) and one more; of halves no limit leans, so that Student's factor alone is added."""
    mean = mean_of_proportions([wilson(25, 50), wilson(20, 40)])
    low, high = confint_proportions_2indep(25, 50, 20, 40, method="newcomb", compare="diff")
    factor = t.ppf(0.975, 88) / norm.ppf(0.975)
    assert (mean.low, mean.high) == pytest.approx((0.5 + factor * low / 2, 0.5 + factor * high / 2), abs=1e-6)


def test_a_mean_is_no_surer_on_one_side_than_half_its_length() -> None:
    parts = [wilson(20, 20), wilson(19, 20), wilson(20, 20)]
    mean = mean_of_proportions(parts)
    half = math.hypot(*((part.high - part.low) / 2 for part in parts)) / 3
    below = math.hypot(*(part.value - part.low for part in parts)) / 3
    factor = t.ppf(0.975, 57) / norm.ppf(0.975)
    assert mean.value - mean.low == pytest.approx(factor * max(half, below))
    assert mean.high == min(1.0, mean.value + factor * half)


@pytest.mark.parametrize(
    "call", [lambda: wilson(3, 2), lambda: wilson(1, 2, level=1.0), lambda: mean_of_proportions([])]
)
def test_impossible_counts_are_refused(call: object) -> None:
    with pytest.raises(ValueError):
        call()  # type: ignore[operator]

"""Tests and intervals by group, against enumeration, scipy, statsmodels, and the same without groups."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import permutation_test
from statsmodels.regression.linear_model import OLS

from vlm_tune.statistics import (
    design_effect,
    mcnemar_by_group,
    mcnemar_exact,
    mcnemar_mid_p,
    tango,
    tango_by_group,
    wilson,
    wilson_by_group,
)
from vlm_tune.statistics.clustered import group_sums
from vlm_tune.statistics.proportions import quantile


def draw(seed: int, n: int, largest: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n), rng.integers(1, largest + 1, n))[:n]
    alike = rng.standard_normal(n)[groups]
    first, second = (alike + rng.standard_normal(n) < limit for limit in (1.2, 0.7))
    return first, second, rng.permutation(n)[groups]


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 20))
@settings(max_examples=40)
def test_groups_of_one_give_the_exact_mcnemar_test(wins: int, losses: int, ties: int) -> None:
    first = [1] * wins + [0] * losses + [1] * ties
    second = [0] * wins + [1] * losses + [1] * ties
    alone = range(len(first))
    if first:
        assert mcnemar_by_group(first, second, alone) == pytest.approx(mcnemar_exact(wins, losses), abs=1e-11)
        assert mcnemar_by_group(first, second, alone, mid=True) == pytest.approx(mcnemar_mid_p(wins, losses), abs=1e-11)


@pytest.mark.parametrize("seed", range(6))
def test_all_choices_of_signs_are_counted(seed: int) -> None:
    first, second, groups = draw(seed, 24, 4)
    sums = group_sums(first.astype(float) - second, groups)[0]
    sums = sums[sums != 0]
    signs = np.array(list(itertools.product([-1, 1], repeat=len(sums))))
    far = np.abs(signs @ np.abs(sums)) >= abs(sums.sum())
    assert mcnemar_by_group(first, second, groups) == pytest.approx(far.mean(), abs=1e-11)


def test_scipy_agrees() -> None:
    first, second, groups = draw(3, 20, 3)
    sums = group_sums(first.astype(float) - second, groups)[0]
    zero = np.zeros_like(sums)
    found = permutation_test(
        (sums, zero),
        lambda a, b: np.sum(a - b),
        permutation_type="samples",
        n_resamples=np.inf,
        alternative="two-sided",
    )
    assert mcnemar_by_group(first, second, groups) == pytest.approx(min(1.0, found.pvalue), abs=1e-9)


def test_half_a_million_groups_are_no_trouble() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random(400_000) < 0.5, rng.random(400_000) < 0.5
    assert 0 < mcnemar_by_group(first, second, np.arange(400_000) // 2) <= 1


@pytest.mark.parametrize("seed", range(5))
def test_the_variance_is_that_of_statsmodels(seed: int) -> None:
    first, second, groups = draw(seed, 90, 5)
    gap = first.astype(float) - second
    fitted = OLS(gap, np.ones(len(gap))).fit(cov_type="cluster", cov_kwds={"groups": groups})
    m = len(np.unique(groups))
    from scipy.stats import t

    few = t.ppf(0.975, m - 1) / quantile(0.95)
    # statsmodels' variance has m / (m - 1) too, and the plain one divides by n.
    plain = gap.var() / len(gap)
    assert design_effect(gap, groups) == pytest.approx(max(1.0, float(fitted.bse[0]) ** 2 / plain * few**2))


@pytest.mark.parametrize("seed", range(3))
def test_groups_of_one_change_no_interval(seed: int) -> None:
    first, second, _ = draw(seed, 98, 1)
    alone = np.arange(98)
    wins, losses = int(np.sum(first & ~second)), int(np.sum(second & ~first))
    plain, grouped = tango(wins, losses, 98), tango_by_group(first, second, alone)
    assert (grouped.value, grouped.low, grouped.high) == pytest.approx((plain.value, plain.low, plain.high))
    one, other = wilson(int(first.sum()), 98), wilson_by_group(first, alone)
    assert (other.value, other.low, other.high) == pytest.approx((one.value, one.low, one.high))
    assert grouped.method == f"{plain.method}, clustered by group"


def test_twins_say_as_much_as_one_of_them() -> None:
    first, second, _ = draw(1, 60, 1)
    twice = np.repeat(np.arange(60), 2)
    alone = tango_by_group(first, second, np.arange(60))
    twins = tango_by_group(np.repeat(first, 2), np.repeat(second, 2), twice)
    assert twins.value == alone.value
    assert twins.low <= alone.low
    assert twins.high >= alone.high
    assert twins.high - twins.low < 1.1 * (alone.high - alone.low)
    assert design_effect(np.repeat(first, 2), twice) == pytest.approx(2, rel=0.06)


def test_where_nothing_varies_each_group_counts_once() -> None:
    assert design_effect([1, 1, 1, 1], [0, 0, 1, 1]) == 2
    assert design_effect([1, 0, 1, 0], [7, 7, 7, 7]) == 4
    assert wilson_by_group([1] * 20, [0] * 20).low == pytest.approx(wilson(1, 1).low)


def test_nothing_is_known_without_examples() -> None:
    empty = np.zeros(0, dtype=int)
    assert (tango_by_group(empty, empty, empty).low, tango_by_group(empty, empty, empty).high) == (-1, 1)
    assert (wilson_by_group(empty, empty).low, wilson_by_group(empty, empty).high) == (0, 1)


def test_lists_of_other_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="lengths are"):
        mcnemar_by_group([1, 0], [1], [0, 1])
    with pytest.raises(ValueError, match="lengths are"):
        wilson_by_group([1, 0], [1])

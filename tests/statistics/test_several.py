"""Cochran's Q and Holm's correction against statsmodels, published values and enumeration."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import cochrans_q
from statsmodels.stats.multitest import multipletests

from vlm_tune.statistics import cochran_q, holm, mcnemar_exact


@pytest.mark.parametrize(("n", "k"), [(12, 3), (98, 4), (300, 7)])
def test_q_is_that_of_statsmodels(n: int, k: int) -> None:
    right = np.random.default_rng(n).random((n, k)) < np.linspace(0.5, 0.8, k)
    theirs = cochrans_q(right.astype(int))
    q, p = cochran_q(right)
    assert q == pytest.approx(theirs.statistic)
    assert p == pytest.approx(theirs.pvalue)


def test_q_of_two_systems_is_mcnemars_chi_squared() -> None:
    right = np.repeat([[1, 0], [0, 1], [1, 1], [0, 0]], [10, 4, 77, 7], axis=0)
    q, p = cochran_q(right)
    assert q == pytest.approx((10 - 4) ** 2 / 14)
    assert p == pytest.approx(0.1088, abs=1e-4)


def test_systems_that_always_agree_do_not_differ() -> None:
    assert cochran_q([[1, 1, 1], [0, 0, 0]]) == (0.0, 1.0)
    assert cochran_q([[1, 1, 1], [0, 0, 0]], groups=[1, 1]) == (0.0, 1.0)


def test_shuffled_groups_of_one_and_two_systems_give_the_exact_test() -> None:
    right = np.repeat([[1, 0], [0, 1], [1, 1], [0, 0]], [10, 4, 77, 7], axis=0)
    assert cochran_q(right, groups=range(98))[1] == pytest.approx(mcnemar_exact(10, 4), abs=0.012)


def test_groups_say_less_than_independent_examples() -> None:
    rng = np.random.default_rng(0)
    right = np.repeat(rng.random((30, 3)) < [0.5, 0.6, 0.85], 4, axis=0)
    groups = np.repeat(np.arange(30), 4)
    alone, grouped = cochran_q(right)[1], cochran_q(right, groups=groups)[1]
    once = cochran_q(right[::4])[1]
    assert alone < once / 5
    assert grouped == pytest.approx(once, abs=0.02)
    assert cochran_q(right, groups=groups) == cochran_q(right, groups=groups)


@pytest.mark.parametrize("number", [1, 2, 6, 20])
def test_holm_is_that_of_statsmodels(number: int) -> None:
    p_values = list(np.random.default_rng(number).random(number) ** 3)
    assert holm(p_values) == pytest.approx(list(multipletests(p_values, method="holm")[1]))


def test_holm_of_nothing_and_of_no_probability() -> None:
    assert holm([]) == []
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.2, 1.2])


def test_what_is_no_table_of_systems_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two systems"):
        cochran_q([[1], [0]])
    with pytest.raises(ValueError, match="as many groups"):
        cochran_q([[1, 0], [0, 1]], groups=[1])

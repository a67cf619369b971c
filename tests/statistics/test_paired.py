"""Every formula against scipy, statsmodels, brute force, and what must hold for any counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from statsmodels.stats.contingency_tables import mcnemar

from vlm_tune.statistics import (
    mcnemar_exact,
    mcnemar_mid_p,
    sample_size_for_power,
    tango,
)

SLACK = 1e-9


@st.composite
def pairs(draw: st.DrawFn) -> tuple[int, int, int]:
    n = draw(st.integers(1, 400))
    wins = draw(st.integers(0, n))
    return wins, draw(st.integers(0, n - wins)), n


def test_the_published_head_to_head() -> None:
    assert round(mcnemar_exact(10, 4), 3) == 0.180
    assert round(mcnemar_mid_p(10, 4), 3) == 0.118
    assert tango(10, 4, 98).points() == "+6.1 points [-1.5, +14.4]"
    needed = sample_size_for_power(difference=6 / 98, discordance=14 / 98)
    assert needed is not None
    assert 310 <= needed <= 325


def test_the_published_example_of_21_children() -> None:
    """Fagerland, Lydersen and Laake (2013, 2014), on airways before and after a transplantation: 1 against 7 of 21."""
    assert round(mcnemar_exact(1, 7), 4) == 0.0703
    assert round(mcnemar_mid_p(1, 7), 4) == 0.0391
    assert tango(1, 7, 21).points() == "-28.6 points [-51.7, -2.6]"


def test_nothing_is_known_without_observations() -> None:
    assert (tango(0, 0, 0).low, tango(0, 0, 0).high) == (-1, 1)
    assert mcnemar_exact(0, 0) == mcnemar_mid_p(0, 0) == 1


@pytest.mark.parametrize("level", [0.999, 0.975, 0.95])
def test_the_method_names_its_level_exactly(level: float) -> None:
    assert tango(1, 0, 2, level=level).method == f"Tango score {100 * level:g}%"


@given(st.integers(0, 200), st.integers(0, 200))
def test_exact_mcnemar_is_the_sign_test(wins: int, losses: int) -> None:
    table = [[5, wins], [losses, 5]]
    assert math.isclose(mcnemar_exact(wins, losses), mcnemar(table, exact=True).pvalue, abs_tol=SLACK)
    if wins + losses:
        assert math.isclose(mcnemar_exact(wins, losses), binomtest(wins, wins + losses).pvalue, abs_tol=SLACK)


@given(st.integers(0, 200), st.integers(0, 200))
def test_mid_p_lies_below_the_exact_p_and_is_symmetric(wins: int, losses: int) -> None:
    assert 0 < mcnemar_mid_p(wins, losses) <= mcnemar_exact(wins, losses) + SLACK
    assert mcnemar_mid_p(wins, losses) == pytest.approx(mcnemar_mid_p(losses, wins))


@given(st.integers(0, 100), st.integers(1, 100))
def test_one_more_win_for_the_leader_is_more_evidence(losses: int, lead: int) -> None:
    assert mcnemar_exact(losses + lead + 1, losses) < mcnemar_exact(losses + lead, losses) + SLACK
    assert mcnemar_mid_p(losses + lead + 1, losses) < mcnemar_mid_p(losses + lead, losses) + SLACK


def score_by_maximisation(wins: int, losses: int, n: int, delta: float) -> float:
    """Tango's statistic with q found by maximising the likelihood on a grid instead of by the formula."""
    grid = np.linspace(max(0.0, -delta), (1 - delta) / 2 if delta >= 0 else 1.0, 400_001)
    rest = 1 - 2 * grid - delta
    valid = (grid + delta >= 0) & (rest >= 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        likelihood = (
            np.where(wins > 0, wins * np.log(np.maximum(grid + delta, 0)), 0)
            + np.where(losses > 0, losses * np.log(grid), 0)
            + np.where(n > wins + losses, (n - wins - losses) * np.log(np.maximum(rest, 0)), 0)
        )
    q = grid[np.argmax(np.where(valid, likelihood, -np.inf))]
    return (wins - losses - n * delta) / math.sqrt(n * (2 * q + delta * (1 - delta)))


@pytest.mark.parametrize(("wins", "losses", "n"), [(10, 4, 98), (4, 10, 98), (1, 0, 20), (7, 7, 30), (20, 1, 25)])
def test_the_score_at_tangos_limits_is_the_critical_value(wins: int, losses: int, n: int) -> None:
    estimate = tango(wins, losses, n)
    assert score_by_maximisation(wins, losses, n, estimate.low) == pytest.approx(1.959964, abs=2e-3)
    assert score_by_maximisation(wins, losses, n, estimate.high) == pytest.approx(-1.959964, abs=2e-3)


@given(pairs())
def test_tango_contains_its_value_and_swaps(counts: tuple[int, int, int]) -> None:
    wins, losses, n = counts
    estimate, swapped = tango(wins, losses, n), tango(losses, wins, n)
    assert -1 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert math.isclose(estimate.low, -swapped.high, abs_tol=1e-8)
    assert math.isclose(estimate.high, -swapped.low, abs_tol=1e-8)


@given(pairs())
def test_tango_widens_with_the_level(counts: tuple[int, int, int]) -> None:
    narrow, wide = tango(*counts, level=0.8), tango(*counts, level=0.99)
    assert wide.low <= narrow.low + SLACK
    assert wide.high >= narrow.high - SLACK


@given(st.integers(1, 10_000))
def test_tango_without_disagreement_is_known_in_closed_form(n: int) -> None:
    z2 = 1.959963984540054**2
    assert tango(0, 0, n).high == pytest.approx(z2 / (n + z2), abs=1e-9)


@pytest.mark.parametrize(
    "call",
    [
        lambda: mcnemar_exact(-1, 2),
        lambda: mcnemar_mid_p(1, -2),
        lambda: tango(5, 6, 10),
    ],
)
def test_impossible_counts_are_refused(call: object) -> None:
    with pytest.raises(ValueError):
        call()  # type: ignore[operator]

"""Power and sample sizes against brute force, Connor's formula, and each other."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from vlm_tune.statistics import (
    connor_sample_size,
    mcnemar_exact,
    mcnemar_power,
    minimum_detectable_difference,
    sample_size_for_power,
)


def power_by_enumeration(n: int, difference: float, discordance: float) -> float:
    total = 0.0
    for discordant in range(n + 1):
        for wins in range(discordant + 1):
            if mcnemar_exact(wins, discordant - wins) < 0.05:
                rate = (discordance + difference) / (2 * discordance)
                total += binom.pmf(discordant, n, discordance) * binom.pmf(wins, discordant, rate)
    return float(total)


@pytest.mark.parametrize(("n", "difference", "discordance"), [(40, 0.2, 0.3), (25, -0.3, 0.4), (30, 0.3, 0.3)])
def test_power_is_the_sum_over_all_outcomes(n: int, difference: float, discordance: float) -> None:
    expected = power_by_enumeration(n, difference, discordance)
    assert mcnemar_power(n, difference=difference, discordance=discordance) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.02, 0.3), st.floats(1.0, 4.0))
def test_the_sample_size_reaches_its_power_near_connors(difference: float, ratio: float) -> None:
    discordance = min(1.0, difference * ratio)
    needed = sample_size_for_power(difference=difference, discordance=discordance)
    assert needed is not None
    assert mcnemar_power(needed, difference=difference, discordance=discordance) >= 0.8
    assert mcnemar_power(needed - 1, difference=difference, discordance=discordance) < 0.8
    connor = connor_sample_size(difference=difference, discordance=discordance)
    assert 0.9 * connor - 10 <= needed <= 1.3 * connor + 20
    assert needed == sample_size_for_power(difference=-difference, discordance=discordance)


def test_no_number_of_images_shows_that_equals_differ() -> None:
    assert sample_size_for_power(difference=0.0, discordance=0.2) is None
    with pytest.raises(ValueError, match="zero"):
        connor_sample_size(difference=0.0, discordance=0.2)


def test_the_detectable_difference_has_the_wanted_power() -> None:
    found = minimum_detectable_difference(98, discordance=14 / 98)
    assert found is not None
    assert mcnemar_power(98, difference=found, discordance=14 / 98) >= 0.8
    assert mcnemar_power(98, difference=found - 0.005, discordance=14 / 98) < 0.8
    assert minimum_detectable_difference(5, discordance=0.2) is None


@pytest.mark.parametrize("n", [10, 0])
def test_impossible_effects_are_refused(n: int) -> None:
    with pytest.raises(ValueError):
        mcnemar_power(n, difference=0.1 if n == 0 else 0.3, discordance=0.2)

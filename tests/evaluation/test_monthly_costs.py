"""A month's bill: stairs of whole GPUs, and the number from which on they pay."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vlm_tune.cost import Cost
from vlm_tune.evaluation import BreakEven
from vlm_tune.evaluation.monthly_costs import by_the_hour, cheaper_for_good


@pytest.mark.parametrize("rent", [200, 500, 700, 800, 930])
@pytest.mark.parametrize("once", [0, 100, 3000])
def test_for_good_means_at_every_number(rent: int, once: int) -> None:
    images = np.arange(1, 20_000) * 100
    cheaper = np.ceil(images / 10_000) * rent + once < 0.1 * images
    found = cheaper_for_good(0.1, rent=rent, capacity=10_000, once=once)
    assert found is not None
    last_dear = images[~cheaper].max()
    assert last_dear <= found + 1e-6
    assert found < last_dear + 100 + 1e-6


def test_the_band_of_the_break_even_covers_the_truth() -> None:
    """Both costs are drawn 4,000 times; the band holds the true number in at least 95 % of them."""
    draw, hits = np.random.default_rng(0), 0
    truth = 1000 / (2e-3 - 1e-3)
    for _ in range(4000):
        api, gpu = draw.normal(2e-3, 5e-5), draw.normal(1e-3, 5e-5)
        ends = [Cost(usd=one, low=one - 1.96 * 5e-5, high=one + 1.96 * 5e-5, basis="") for one in (api, gpu)]
        band = by_the_hour(1000, *ends)
        hits += (band.low or 0) <= truth <= (band.high or math.inf)
    assert hits / 4000 >= 0.95


def test_never_is_said_and_thousands_are_grouped() -> None:
    assert str(BreakEven(images=None, low=2500.2, high=None, basis="")) == "never [2,501, never]"

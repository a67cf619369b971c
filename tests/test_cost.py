"""Prices hold on their days only, thinking is paid as output, and an unknown price is no zero."""

from __future__ import annotations

from datetime import date

import pytest

from vlm_tune.cost import cost_of, gpu_cost, price_of, prices
from vlm_tune.records import Usage

DAY = date(2026, 11, 21)


def test_every_price_has_a_source_and_only_one_holds_on_a_day() -> None:
    assert all(price.source and price.valid_from <= date(2027, 1, 1) for price in prices())
    for day in {edge for price in prices() for edge in (price.valid_from, price.valid_until) if edge}:
        holding = [price.model for price in prices() if price.holds(day)]
        assert len(holding) == len(set(holding))


def test_a_price_that_changes_is_found_by_its_day() -> None:
    before, after = (price_of("gemini-3.8-flash", on=day) for day in (date(2026, 12, 31), date(2027, 1, 1)))
    assert before is not None
    assert after is not None
    assert (before.input_usd_per_million, after.input_usd_per_million) == (0.75, 1.5)


def test_a_withdrawn_and_an_unknown_model_have_no_price() -> None:
    assert price_of("gemini-2.0-flash", on=DAY) is None
    assert price_of("gemini-99", on=DAY) is None


def test_thinking_is_output_and_cached_tokens_are_counted_once() -> None:
    price = price_of("models/gemini-3-flash-preview", on=DAY)
    assert price is not None
    usage = Usage(input_tokens=1180, cached_tokens=1000, image_tokens=1120, output_tokens=5, thinking_tokens=300)
    expected = (1180 * 0.5 + 305 * 3.0) / 1e6
    assert cost_of(usage, price) == pytest.approx(expected)
    assert cost_of(usage, price, batch=True) == pytest.approx(expected / 2)


def test_gpu_time_says_what_was_multiplied() -> None:
    money = gpu_cost(1800, 2.0, "a provider, 2026-11-21")
    assert money.usd == pytest.approx(1.0)
    assert money.basis == "1800 s at $2/h (a provider, 2026-11-21)"
    with pytest.raises(ValueError, match="negative"):
        gpu_cost(-1, 2.0, "a provider")

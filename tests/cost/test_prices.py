"""Prices hold on their days only, thinking is paid as output, and an unknown price is no zero."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from vlm_tune.cost import (
    GpuPrice,
    Price,
    cost_of,
    gpu_cost,
    gpu_price_of,
    gpu_prices,
    load_prices,
    price_of,
    price_warning,
    prices,
)
from vlm_tune.errors import StorageError
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
    in_batch = price_of("gemini-3-flash-preview", on=DAY, batch=True)
    assert in_batch is not None
    assert cost_of(usage, in_batch, batch=True) == cost_of(usage, in_batch) == pytest.approx(expected / 2)


def test_cached_tokens_have_a_price_of_their_own_where_it_is_known() -> None:
    price = price_of("gpt-6-luna", on=DAY)
    assert price is not None
    usage = Usage(input_tokens=1000, cached_tokens=400, output_tokens=10)
    assert cost_of(usage, price) == pytest.approx((600 * 0.10 + 400 * 0.01 + 10 * 0.50) / 1e6)


def test_every_card_has_a_rent_with_provider_source_and_day() -> None:
    assert {"A10G", "L4", "A100", "H100", "H200"} <= {price.gpu for price in gpu_prices()}
    for price in gpu_prices():
        assert price.usd_per_hour > 0
        assert price.provenance.startswith(price.source)
        assert price.holds(DAY)
    assert gpu_price_of("T4", on=DAY) is None
    dearest = gpu_price_of("h100", on=DAY)
    assert dearest is not None
    assert dearest.usd_per_hour == max(price.usd_per_hour for price in gpu_prices() if price.gpu == "H100")
    runpod = gpu_price_of("H100", on=DAY, provider="RunPod")
    assert runpod is not None
    assert runpod.provider == "RunPod"


OWN = """
[[price]]
model = "gemini-3-flash-preview"
input_usd_per_million = 0.4
output_usd_per_million = 2.0
source = "our contract"
checked_on = 2026-11-01
valid_from = 2026-11-01

[[gpu]]
gpu = "H100"
provider = "our cellar"
usd_per_hour = 0.9
source = "our books"
checked_on = 2026-11-01
valid_from = 2026-11-01
"""


def test_prices_of_ones_own_go_first_from_a_file_or_as_records(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(OWN)
    for own in (path, str(path), load_prices(path)):
        price, rent = price_of("gemini-3-flash-preview", on=DAY, own=own), gpu_price_of("H100", on=DAY, own=own)
        assert price is not None
        assert rent is not None
        assert (price.input_usd_per_million, rent.provider) == (0.4, "our cellar")
    assert price_of("gemini-3.5-flash", on=DAY, own=path) == price_of("gemini-3.5-flash", on=DAY)
    before = price_of("gemini-3-flash-preview", on=date(2026, 10, 1), own=path)
    assert before is not None
    assert before.input_usd_per_million == 0.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[price]", "not valid TOML"),
        ("[[gpu]]\ngpu = 'H100'", "GpuPrice without a valid source"),
        (OWN.replace("0.4", "-1"), "input_usd_per_million"),
    ],
)
def test_a_file_that_is_no_price_list_says_why(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(text)
    with pytest.raises(StorageError, match=message):
        load_prices(path)
    with pytest.raises(StorageError, match="cannot read prices"):
        load_prices(tmp_path / "none.toml")


def test_an_unknown_an_old_and_an_expired_price_are_warned_of() -> None:
    known = price_of("gemini-3.8-flash", on=DAY)
    assert price_warning(known, "gemini-3.8-flash", on=DAY) is None
    assert "No price is known for x on 2026-11-21" in str(price_warning(None, "x", on=DAY))
    assert "does not hold on 2027-06-01" in str(price_warning(known, "x", on=date(2027, 6, 1)))
    old = GpuPrice(
        gpu="x", provider="y", usd_per_hour=1, source="z", checked_on=date(2026, 1, 1), valid_from=date(2026, 1, 1)
    )
    assert "was read 324 days ago (z, read 2026-01-01)" in str(price_warning(old, "x", on=DAY))
    assert isinstance(known, Price)
    assert known.third_party
    assert "(third party)" in known.provenance


def test_gpu_time_says_what_was_multiplied() -> None:
    money = gpu_cost(1800, 2.0, "a provider, 2026-11-21")
    assert money.usd == pytest.approx(1.0)
    assert money.basis == "1800 s at $2/h (a provider, 2026-11-21)"
    with pytest.raises(ValueError, match="negative"):
        gpu_cost(-1, 2.0, "a provider")

"""Dollars: dated prices with their sources, and what tokens and GPU seconds come to."""

from __future__ import annotations

import tomllib
from datetime import date
from functools import lru_cache
from importlib.resources import files

from pydantic import Field, NonNegativeFloat

from vlm_tune.records import Money, Record, Usage

__all__ = ["Price", "cost_of", "gpu_cost", "price_of", "prices"]


class Price(Record):
    """What a model's tokens cost between two days, and who says so."""

    model: str
    """The model's name at its vendor."""
    input_usd_per_million: NonNegativeFloat
    """Dollars per million prompt tokens, images included."""
    output_usd_per_million: NonNegativeFloat
    """Dollars per million tokens of answer and of thinking."""
    batch_discount: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share taken off in batch mode."""
    source: str
    """Where the price was read."""
    checked_on: date
    """When it was read."""
    valid_from: date
    """First day the price holds."""
    valid_until: date | None = None
    """Last day the price holds; None while no end is known."""

    def holds(self, on: date) -> bool:
        """Tell whether the price holds on a day."""
        return self.valid_from <= on and (self.valid_until is None or on <= self.valid_until)


@lru_cache
def prices() -> tuple[Price, ...]:
    """Return every price the library ships, past and announced ones included."""
    text = files("vlm_tune").joinpath("prices.toml").read_text(encoding="utf-8")
    return tuple(Price.model_validate(entry) for entry in tomllib.loads(text)["price"])


def price_of(model: str, *, on: date) -> Price | None:
    """Return a model's price on a day, or None where it is not known: never a silent zero.

    Args:
        model: The vendor's name, with or without the leading `models/`.
        on: The day of the call.

    Example:
        >>> price_of("gemini-3-flash-preview", on=date(2026, 11, 21)).output_usd_per_million
        3.0
    """
    name = model.removeprefix("models/")
    return next((price for price in prices() if price.model == name and price.holds(on)), None)


def cost_of(usage: Usage, price: Price, *, batch: bool = False) -> float:
    """Return the dollars of one answer.

    Thinking counts as output. Cached tokens are charged like fresh ones, so the figure is an upper bound
    where the vendor has a cache discount.

    Example:
        >>> price = price_of("gemini-3-flash-preview", on=date(2026, 11, 21))
        >>> round(cost_of(Usage(input_tokens=1180, output_tokens=5), price), 6)
        0.000605
    """
    tokens_in, tokens_out = usage.input_tokens, usage.output_tokens + usage.thinking_tokens
    dollars = (tokens_in * price.input_usd_per_million + tokens_out * price.output_usd_per_million) / 1e6
    return dollars * (1 - price.batch_discount) if batch else dollars


def gpu_cost(seconds: float, usd_per_hour: float, source: str) -> Money:
    """Return what GPU time comes to.

    Args:
        seconds: Time the GPU was held.
        usd_per_hour: Its rent.
        source: Who asks that rent, and when it was read.

    Raises:
        ValueError: A negative time or rent.

    Example:
        >>> print(gpu_cost(480, 3.0, "a provider, 2026-11-21"))
        $0.40
    """
    if seconds < 0 or usd_per_hour < 0:
        raise ValueError(f"time and rent cannot be negative: {seconds} s at ${usd_per_hour}/h")
    basis = f"{seconds:.0f} s at ${usd_per_hour:g}/h ({source})"
    return Money(usd=seconds / 3600 * usd_per_hour, basis=basis)

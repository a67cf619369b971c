"""From prices to dollars: one answer, a stretch of GPU time, and dollars with their interval."""

from __future__ import annotations

import math
from typing import Self

from pydantic import NonNegativeFloat, NonNegativeInt, model_validator

from vlm_tune.cost.prices import Price
from vlm_tune.records import Money, Record, Usage

__all__ = ["Cost", "cost_of", "dollars", "gpu_cost"]


class Cost(Record):
    """Dollars with their interval, and where they come from.

    Examples:
        >>> a_cent = Cost(usd=0.01, low=0.009, high=0.012, n=98, basis="a bill")
        >>> print(a_cent.times(1_000_000))
        $10,000 [9,000, 12,000]
    """

    usd: NonNegativeFloat
    """The amount in US dollars."""
    low: NonNegativeFloat
    """Lower end of the interval; the amount itself where there is none."""
    high: NonNegativeFloat
    """Upper end of the interval."""
    n: NonNegativeInt = 0
    """Number of observations behind it; 0 where it was not measured."""
    basis: str
    """What was multiplied with what, the prices' sources and dates, and how the interval was made."""
    system: str = ""
    """Whose answers were measured; empty where none were."""
    warnings: tuple[str, ...] = ()
    """What speaks against relying on it, such as an old price."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.low <= self.usd <= self.high < math.inf:
            raise ValueError(f"a cost needs finite low <= usd <= high, not {self.low} <= {self.usd} <= {self.high}")
        return self

    @classmethod
    def exact(cls, usd: float, *, basis: str) -> Cost:
        """Return an amount that is given, not measured."""
        return cls(usd=usd, low=usd, high=usd, basis=basis)

    def times(self, number: float) -> Cost:
        """Return what so many cost.

        Args:
            number: How many.

        Raises:
            ValueError: It is negative or not finite.
        """
        if not 0 <= number < math.inf:
            raise ValueError(f"a number of things that cost something is 0 or more, not {number}")
        ends = {name: getattr(self, name) * number for name in ("usd", "low", "high")}
        return self.model_validate({**self.model_dump(), **ends, "basis": f"{number:,.10g} x {self.basis}"})

    def __str__(self) -> str:
        if self.low == self.usd == self.high:
            return dollars(self.usd)
        return f"{dollars(self.usd)} [{dollars(self.low)[1:]}, {dollars(self.high)[1:]}]"

    def plus(self, other: Money) -> Cost:
        """Return the sum with an amount that is certain."""
        ends = {name: getattr(self, name) + other.usd for name in ("usd", "low", "high")}
        return self.model_validate({**self.model_dump(), **ends, "basis": f"{self.basis}; and {other.basis}"})


def dollars(usd: float) -> str:
    """Return an amount with as many digits as matter.

    Examples:
        >>> [dollars(value) for value in (0.0, 0.00060512, 0.4, 12.5, 10_000.4)]
        ['$0', '$0.000605', '$0.400', '$12.50', '$10,000']
    """
    if usd == 0:
        return "$0"
    if usd >= 1:
        return f"${usd:,.2f}" if usd < 100 else f"${usd:,.0f}"
    digits = 2
    while usd < 10.0 ** (2 - digits) and digits < 12:
        digits += 1
    return f"${usd:.{digits}f}"


def cost_of(usage: Usage, price: Price, *, batch: bool = False) -> float:
    """Return the dollars of one answer.

    Thinking counts as output. Cached tokens have a price of their own where it is known; where it is not they are
    charged like fresh ones, so that the figure is an upper bound.

    Examples:
        >>> from datetime import date
        >>> from vlm_tune.cost import price_of
        >>> price = price_of("gemini-3-flash-preview", on=date(2026, 11, 21))
        >>> round(cost_of(Usage(input_tokens=1180, output_tokens=5), price), 6)
        0.000605
    """
    price = price.in_batch() if batch else price
    cached = min(usage.cached_tokens, usage.input_tokens)
    cached_price = price.input_usd_per_million if price.cached_usd_per_million is None else price.cached_usd_per_million
    tokens_out = usage.output_tokens + usage.thinking_tokens
    return (
        (usage.input_tokens - cached) * price.input_usd_per_million
        + cached * cached_price
        + tokens_out * price.output_usd_per_million
    ) / 1e6


def gpu_cost(seconds: float, usd_per_hour: float, source: str) -> Money:
    """Return what GPU time comes to.

    Args:
        seconds: Time the GPU was held.
        usd_per_hour: Its rent.
        source: Who asks that rent, and when it was read.

    Raises:
        ValueError: A negative time or rent.

    Examples:
        >>> print(gpu_cost(480, 3.0, "a provider, 2026-11-21"))
        $0.40
    """
    if seconds < 0 or usd_per_hour < 0:
        raise ValueError(f"time and rent cannot be negative: {seconds} s at ${usd_per_hour}/h")
    basis = f"{seconds:.0f} s at ${usd_per_hour:g}/h ({source})"
    return Money(usd=seconds / 3600 * usd_per_hour, basis=basis)

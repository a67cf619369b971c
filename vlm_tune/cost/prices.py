"""What tokens and GPU hours cost, between which days, and who says so."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import Field, NonNegativeFloat, ValidationError

from vlm_tune.errors import StorageError
from vlm_tune.records import Record

__all__ = [
    "GpuPrice",
    "Price",
    "Prices",
    "gpu_price_of",
    "gpu_prices",
    "load_prices",
    "price_of",
    "price_warning",
    "prices",
]

_STALE_DAYS = 180


class _Dated(Record):
    """A price with its source and the days it holds."""

    source: str
    """Where the price was read."""
    third_party: bool = False
    """Whether the source quotes the vendor instead of being it."""
    checked_on: date
    """When it was read."""
    valid_from: date
    """First day the price holds."""
    valid_until: date | None = None
    """Last day the price holds; None while no end is known."""

    def holds(self, on: date) -> bool:
        """Tell whether the price holds on a day."""
        return self.valid_from <= on and (self.valid_until is None or on <= self.valid_until)

    @property
    def provenance(self) -> str:
        """The source and the day it was read."""
        return f"{self.source}{' (third party)' if self.third_party else ''}, read {self.checked_on}"


class Price(_Dated):
    """What a model's tokens cost between two days, and who says so."""

    model: str
    """The model's name at its vendor."""
    input_usd_per_million: NonNegativeFloat
    """Dollars per million prompt tokens, images included."""
    cached_usd_per_million: NonNegativeFloat | None = None
    """Dollars per million prompt tokens that came from a cache; None: like fresh ones, which is an upper bound."""
    output_usd_per_million: NonNegativeFloat
    """Dollars per million tokens of answer and of thinking."""
    batch_discount: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share taken off in batch mode."""

    def in_batch(self) -> Price:
        """Return the price in batch mode, with no discount left to take; cached tokens get none."""
        left = 1 - self.batch_discount
        fresh, cached = self.input_usd_per_million * left, self.cached_usd_per_million
        changes = {
            "input_usd_per_million": fresh,
            "cached_usd_per_million": None if cached is None else min(cached, fresh),
            "output_usd_per_million": self.output_usd_per_million * left,
            "batch_discount": 0.0,
        }
        return self.model_copy(update=changes)


class GpuPrice(_Dated):
    """What an hour of a GPU costs at one provider between two days, and who says so."""

    gpu: str
    """The card, such as `H100`."""
    provider: str
    """Who rents it out."""
    usd_per_hour: NonNegativeFloat
    """Dollars for one card for one hour, on demand."""


Prices: TypeAlias = Path | str | Sequence[Price | GpuPrice]
"""Prices of one's own, which go before those that the library ships: a TOML file like its own, or records."""


@lru_cache
def _shipped() -> tuple[Price | GpuPrice, ...]:
    text = files("vlm_tune").joinpath("prices.toml").read_text(encoding="utf-8")
    return _parsed(tomllib.loads(text))


def prices() -> tuple[Price, ...]:
    """Return every token price the library ships, past and announced ones included."""
    return tuple(price for price in _shipped() if isinstance(price, Price))


def gpu_prices() -> tuple[GpuPrice, ...]:
    """Return every GPU price the library ships."""
    return tuple(price for price in _shipped() if isinstance(price, GpuPrice))


def load_prices(path: Path | str) -> tuple[Price | GpuPrice, ...]:
    """Read prices of one's own: tables `[[price]]` and `[[gpu]]` with the fields of `Price` and `GpuPrice`.

    Raises:
        StorageError: The file is missing, is not TOML, or has an entry that is no price.
    """
    source = Path(path)
    try:
        return _parsed(tomllib.loads(source.read_text(encoding="utf-8")))
    except OSError as error:
        raise StorageError(f"cannot read prices from {source}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StorageError(f"{source} is not valid TOML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise StorageError(f"{source}: {error.title} without a valid {where}: {first['msg']}") from error


def price_of(model: str, *, on: date, batch: bool = False, own: Prices = ()) -> Price | None:
    """Return a model's price on a day, or None where it is not known: never a silent zero.

    Args:
        model: The vendor's name, with or without the leading `models/`.
        on: The day of the call.
        batch: Return the price in batch mode: the discount is taken off, and none is left to take.
        own: Prices of one's own, which go first.

    Examples:
        >>> price_of("gemini-3-flash-preview", on=date(2026, 11, 21)).output_usd_per_million
        3.0
    """
    name = model.removeprefix("models/")
    known = (price for price in _all(own) if isinstance(price, Price))
    price = next((price for price in known if price.model == name and price.holds(on)), None)
    return price.in_batch() if price is not None and batch else price


def gpu_price_of(gpu: str, *, on: date, provider: str | None = None, own: Prices = ()) -> GpuPrice | None:
    """Return what an hour of a GPU costs on a day, or None where it is not known.

    Without a provider the dearest counts, so that no saving is flattered; prices of one's own go first.

    Args:
        gpu: The card, such as `H100`; case does not matter.
        on: The day it is rented.
        provider: Who rents it out.
        own: Prices of one's own.

    Examples:
        >>> gpu_price_of("L4", on=date(2026, 11, 21)).provider
        'AWS'
    """

    def dearest(candidates: Iterable[Price | GpuPrice]) -> GpuPrice | None:
        fitting = [
            price
            for price in candidates
            if isinstance(price, GpuPrice)
            and price.gpu.casefold() == gpu.casefold()
            and provider in (None, price.provider)
            and price.holds(on)
        ]
        return max(fitting, key=lambda price: price.usd_per_hour, default=None)

    return dearest(_own(own)) or dearest(_shipped())


def price_warning(price: Price | GpuPrice | None, name: str, *, on: date) -> str | None:
    """Return what is wrong with relying on a price on a day, or None.

    Args:
        price: What `price_of` or `gpu_price_of` returned.
        name: The model or GPU.
        on: The day.

    Examples:
        >>> price_warning(None, "gemini-99", on=date(2026, 11, 21))
        'No price is known for gemini-99 on 2026-11-21: its cost is left open.'
    """
    if price is None:
        return f"No price is known for {name} on {on}: its cost is left open."
    if not price.holds(on):
        return f"The price of {name} does not hold on {on}: it is valid from {price.valid_from} to {price.valid_until}."
    if (age := (on - price.checked_on).days) > _STALE_DAYS:
        return f"The price of {name} was read {age} days ago ({price.provenance}): look whether it still holds."
    return None


def _own(own: Prices) -> Sequence[Price | GpuPrice]:
    return load_prices(own) if isinstance(own, str | Path) else own


def _all(own: Prices) -> tuple[Price | GpuPrice, ...]:
    return (*_own(own), *_shipped())


def _parsed(tables: Mapping[str, Any]) -> tuple[Price | GpuPrice, ...]:
    tokens = [Price.model_validate(entry) for entry in tables.get("price", ())]
    return (*tokens, *(GpuPrice.model_validate(entry) for entry in tables.get("gpu", ())))

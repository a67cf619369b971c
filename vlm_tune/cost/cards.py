"""What the GPUs that have a price can do: memory, and the rate of matrix products."""

from __future__ import annotations

import re
import tomllib
from functools import lru_cache
from importlib.resources import files

from pydantic import PositiveFloat

from vlm_tune.records import Record

__all__ = ["Card", "card_of", "cards"]


class Card(Record):
    """One kind of GPU."""

    gpu: str
    """Its name, as in `GpuPrice`."""
    memory_gb: PositiveFloat
    """Memory in 1e9 bytes."""
    bf16_tflops: PositiveFloat
    """Dense matrix products in bfloat16, in 1e12 operations per second, by the datasheet."""
    measured_tflops: PositiveFloat | None = None
    """What large products reached when they were measured; None where nobody has."""
    source: str
    """The datasheet."""

    @property
    def matmul_flops(self) -> float:
        """Operations per second that large products reach: measured, or the datasheet's by the share of an H200."""
        if self.measured_tflops is not None:
            return self.measured_tflops * 1e12
        return self.bf16_tflops * _measured_share() * 1e12


@lru_cache
def cards() -> tuple[Card, ...]:
    """Return every card with known figures."""
    text = files("vlm_tune").joinpath("gpus.toml").read_text(encoding="utf-8")
    return tuple(Card.model_validate(entry) for entry in tomllib.loads(text)["card"])


def card_of(name: str) -> Card | None:
    """Return the card of a name, or None where its figures are not known.

    Args:
        name: Short as in `GpuPrice`, or long as a driver gives it; case does not matter.

    Examples:
        >>> card_of("NVIDIA H100 80GB HBM3").gpu, card_of("abacus")
        ('H100', None)
    """
    words = re.split(r"[\s-]+", name.casefold())
    return next((card for card in cards() if card.gpu.casefold() in words), None)


@lru_cache
def _measured_share() -> float:
    """Return what share of the datasheet's rate was reached, on the cards where it was measured."""
    shares = [card.measured_tflops / card.bf16_tflops for card in cards() if card.measured_tflops is not None]
    return sum(shares) / len(shares)

"""The block of a report that shows pairs of photos side by side, and one laid on the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from vlm_tune.report.blocks import Block, Photo

__all__ = ["Pair", "Pairs", "Side"]


@dataclass(frozen=True)
class Side:
    """One photo of a pair, and where it is."""

    split: str
    example_id: str
    label: str
    photo: Photo | None
    outline: str = ""
    """Corners of what the other photo shows of it, as SVG points on its thumbnail."""


@dataclass(frozen=True)
class Pair:
    """Two photos side by side, and what was proved about them."""

    tier: str
    meaning: str
    evidence: str
    conflict: bool
    sides: tuple[Side, Side]
    laid: str = ""
    """SVG matrix that lays the first thumbnail on the second; empty where that is not known."""


@dataclass(frozen=True)
class Pairs(Block):
    """Pairs of photos that are alike, across splits."""

    kind = "pairs"
    anchor: str
    pairs: Sequence[Pair]
    left_out: int

    @property
    def tiers(self) -> dict[str, int]:
        """How many pairs shown are of each tier, for the tiers that there are."""
        return dict(Counter(pair.tier for pair in self.pairs))

    @property
    def conflicts(self) -> int:
        """How many pairs shown have different labels."""
        return sum(pair.conflict for pair in self.pairs)

"""Words for the linear layers of a model: regions, kinds, parts, and how much of a part patterns reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Coverage", "Kind", "Layers", "Part", "Region"]

Region = Literal["vision", "projector", "language"]
"""A third of a vision-language model."""

Kind = Literal["attention", "mlp", "conv"]
"""What a linear layer does in its block."""

Part = tuple[Region, Kind]
"""The linear layers of one kind in one region."""


@dataclass(frozen=True)
class Layers:
    """Where one part's linear layers are."""

    pattern: str
    """Pattern of the full names of the layers to adapt."""
    whole: str
    """Pattern of the full names of everything that belongs to the part, whether `pattern` reaches it or not."""


@dataclass(frozen=True)
class Coverage:
    """How much of one part the patterns reach in a given model."""

    hit: tuple[str, ...]
    """Linear layers that the pattern selects."""
    total: tuple[str, ...]
    """All linear layers of the part."""

    @property
    def missed(self) -> tuple[str, ...]:
        """Linear layers of the part that the pattern does not select."""
        chosen = set(self.hit)
        return tuple(name for name in self.total if name not in chosen)

    @property
    def complete(self) -> bool:
        """Whether there is something to select and all of it is selected."""
        return bool(self.hit) and not self.missed

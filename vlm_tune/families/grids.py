"""How many tokens stand for a photo: the arithmetic of the image processors, without the processors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

__all__ = ["CropGrid", "FixedGrid", "Grid", "PatchGrid", "PooledGrid", "TileGrid"]


class Grid(Protocol):
    """Counts the tokens of a photo."""

    def tokens(self, width: int, height: int) -> int | None:
        """Return how many tokens stand for a photo; None where the processor refuses it."""


@dataclass(frozen=True)
class PatchGrid:
    """One grid of patches over the whole photo: `Qwen2VLImageProcessor` with Qwen3-VL's published settings."""

    patch_size: int = 16
    merge_size: int = 2
    min_pixels: int = 65_536
    max_pixels: int = 16_777_216

    def tokens(self, width: int, height: int) -> int | None:
        """Return how many tokens stand for a photo; None where the processor refuses it as too long."""
        if max(width, height) > 200 * min(width, height):
            return None
        unit = self.patch_size * self.merge_size
        return math.prod(_cells(width, height, unit, (self.min_pixels, self.max_pixels), least=0))


@dataclass(frozen=True)
class TileGrid:
    """Tiles for large photos, and the whole one small: `Lfm2VlImageProcessor` with its published settings."""

    patch_size: int = 16
    downsample_factor: int = 2
    min_tokens: int = 64
    max_tokens: int = 256
    tile_size: int = 512
    min_tiles: int = 2
    max_tiles: int = 10
    tolerance: float = 2.0

    def tokens(self, width: int, height: int) -> int:
        """Return how many tokens stand for a photo, its tiles and the small whole together."""
        unit = self.patch_size * self.downsample_factor
        budget = (self.min_tokens * unit**2, self.max_tokens * unit**2)
        whole = math.prod(_cells(width, height, unit, budget, least=1))
        sides = (max(self.patch_size, round(side / unit) * unit) for side in (width, height))
        if math.prod(sides) <= budget[1] * self.tolerance:
            return whole
        per_side = math.ceil(self.tile_size // self.patch_size / self.downsample_factor)
        return _num_tiles(width, height, self.tile_size, (self.min_tiles, self.max_tiles)) * per_side**2 + whole


@dataclass(frozen=True)
class CropGrid:
    """Square crops, and the whole photo as one more: `GotOcr2ImageProcessor` as InternVL uses it."""

    tokens_per_crop: int = 256
    crop_size: int = 448
    max_crops: int = 12

    def tokens(self, width: int, height: int) -> int:
        """Return how many tokens stand for a photo, its crops and the small whole together."""
        crops = _num_tiles(width, height, self.crop_size, (1, self.max_crops))
        return self.tokens_per_crop * (crops + 1 if crops > 1 else 1)


@dataclass(frozen=True)
class PooledGrid:
    """As many pooled patches as a budget allows, in the photo's shape: `Gemma4ImageProcessor`."""

    patch_size: int = 16
    pooling: int = 3
    max_tokens: int = 280

    def tokens(self, width: int, height: int) -> int:
        """Return how many tokens stand for a photo."""
        unit = self.patch_size * self.pooling
        factor = math.sqrt(self.max_tokens * self.pooling**2 * self.patch_size**2 / (height * width))
        across, down = math.floor(factor * width / unit), math.floor(factor * height / unit)
        # A photo so long that a side rounds to nothing keeps one cell there.
        if not down:
            across, down = min(width // height, self.max_tokens), 1
        elif not across:
            across, down = 1, min(height // width, self.max_tokens)
        return across * down


@dataclass(frozen=True)
class FixedGrid:
    """The same for every photo, whatever its shape: `Gemma3ImageProcessor`, which squeezes it into a square."""

    number: int = 256

    def tokens(self, width: int, height: int) -> int:
        """Return how many tokens stand for a photo."""
        return self.number


def _num_tiles(width: int, height: int, tile_size: int, limits: tuple[int, int]) -> int:
    """Return how many tiles the layout has whose shape is nearest to the photo's."""
    low, high = limits
    sides = range(1, high + 1)
    best, smallest = 1, math.inf
    for across, down in sorted(((x, y) for x in sides for y in sides if low <= x * y <= high), key=math.prod):
        off = abs(width / height - across / down)
        # Of layouts with the same shape, a larger one is taken where the photo fills half of it.
        if off < smallest or (off == smallest and width * height > 0.5 * tile_size**2 * across * down):
            best, smallest = across * down, off
    return best


def _cells(width: int, height: int, unit: int, budget: tuple[int, int], *, least: int) -> tuple[int, int]:
    """Return the columns and rows of `unit` pixels that a photo is resized to, its area inside the budget.

    The order of the operations is that of transformers' `smart_resize`, so that roundings agree.
    """
    across, down = (max(least, round(side / unit)) for side in (width, height))
    pixels = across * unit * down * unit
    low, high = budget
    if pixels > high:
        beta = math.sqrt((height * width) / high)
        return max(1, math.floor(width / beta / unit)), max(1, math.floor(height / beta / unit))
    if pixels < low:
        beta = math.sqrt(low / (height * width))
        return math.ceil(width * beta / unit), math.ceil(height * beta / unit)
    return across, down

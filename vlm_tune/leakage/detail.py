"""How far two aligned photos agree in detail, block by block."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Agreement", "compare"]

Array = NDArray[np.float32]

BANDS = ((1.4, 2.8), (2.8, 5.6))
"""Widths of the detail looked at, as Gaussian sigmas in pixels: fine, and a little coarser."""
FLOOR = 1.5
"""Root mean square, in grey levels, below which a block's detail is lost in noise and compression."""
AGREES = 0.6
"""Correlation from which a block agrees."""
BLOCK = 16
"""Least side of a block, in pixels."""
MARGIN = 4
"""Pixels at the edge of the common area that are not compared."""
BLACK, BURNT = 4, 250
"""Grey levels beyond which detail is lost."""
MIN_FAINT = 12
"""Fewer blocks without detail than this say nothing about the grain."""


class Agreement(NamedTuple):
    """What a comparison found.

    Attributes:
        share: Share of the blocks with detail that agree, 0 to 1.
        blocks: Number of blocks with detail.
        grain: Mean correlation of the blocks without detail, where only noise is left; 0 where they are few.
            Of photos taken apart it stays below 0.15, even at low JPEG quality.
        ncc: Correlation of the detail over the whole common area, -1 to 1.
        overlap: Share of the first photo that the second shows, and the other way round.
    """

    share: float
    blocks: int
    grain: float
    ncc: float
    overlap: tuple[float, float]


def compare(first: NDArray[np.uint8], second: NDArray[np.uint8], matrix: NDArray[np.float64]) -> Agreement | None:
    """Compare two grey images under a transform.

    Args:
        first: Grey levels, shape (height, width).
        second: Grey levels, of any other shape.
        matrix: Affine transform, shape (2, 3), from pixels of the first to pixels of the second.

    Returns:
        Their agreement, or None where the common area is too small to look at.
    """
    import cv2

    scale = math.sqrt(abs(float(np.linalg.det(matrix[:, :2]))))
    if scale > 1.02:
        # Detail can only be compared where both have it: on the grid of the coarser photo.
        swapped = compare(second, first, np.asarray(cv2.invertAffineTransform(matrix)))
        return None if swapped is None else swapped._replace(overlap=swapped.overlap[::-1])
    warped, mask = _warp(first, matrix, second.shape, scale)
    common = float(mask.sum())
    overlap = min(1.0, common / (first.size * scale**2)), common / second.size
    inner = cv2.erode(mask, np.ones((2 * MARGIN + 1,) * 2, np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    usable = inner.astype(np.float32)
    if usable.sum() < 4 * BLOCK**2:
        return None
    warped, other = _clipped_alike(warped, second.astype(np.float32), inner > 0)
    side = max(BLOCK, min(second.shape) // 8)
    blocks = [_correlate(_band(warped, *band), _band(other, *band), usable, side) for band in BANDS]
    return _summary(blocks, overlap)


class _Blocks(NamedTuple):
    ncc: Array
    """Correlation in each block."""
    energy: Array
    """Root mean square of the detail in each block, in the photo with more; 0 where too little is usable."""
    whole: float
    """Correlation over everything usable."""


def _summary(bands: list[_Blocks], overlap: tuple[float, float]) -> Agreement:
    # Each block speaks in the finest band that rises above the noise.
    fine, coarse = bands
    has_fine, has_coarse = fine.energy >= FLOOR, coarse.energy >= FLOOR
    ncc = np.where(has_fine, fine.ncc, coarse.ncc)[has_fine | has_coarse]
    faint = fine.ncc[~(has_fine | has_coarse) & (fine.energy > 0)]
    return Agreement(
        share=float((ncc >= AGREES).mean()) if ncc.size else 0.0,
        blocks=int(ncc.size),
        grain=float(faint.mean()) if faint.size >= MIN_FAINT else 0.0,
        ncc=fine.whole,
        overlap=overlap,
    )


def _warp(
    image: NDArray[np.uint8], matrix: NDArray[np.float64], shape: tuple[int, ...], scale: float
) -> tuple[Array, NDArray[np.uint8]]:
    import cv2

    size = shape[1], shape[0]
    pixels = image.astype(np.float32)
    if scale < 0.95:
        # Shrinking without a blur first would fold fine detail into coarse.
        pixels = np.asarray(cv2.GaussianBlur(pixels, (0, 0), 0.5 * math.sqrt(1 / scale**2 - 1)), np.float32)
    warped = cv2.warpAffine(pixels, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    mask = cv2.warpAffine(np.ones(image.shape, np.uint8), matrix, size, flags=cv2.INTER_NEAREST)
    return np.asarray(warped, np.float32), np.asarray(mask, np.uint8)


def _clipped_alike(first: Array, second: Array, inside: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Burn out and black out as much of each photo as of the other: detail lost in one proves nothing."""
    x, y = first[inside], second[inside]
    burnt = max(float((values > BURNT).mean()) for values in (x, y))
    black = max(float((values < BLACK).mean()) for values in (x, y))
    if burnt + black < 0.005 or burnt + black > 0.95:
        return first, second
    limits = [np.quantile(values, (black, 1 - burnt)) for values in (x, y)]
    return np.clip(first, *limits[0]), np.clip(second, *limits[1])


def _band(pixels: Array, low: float, high: float) -> Array:
    import cv2

    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), low) - cv2.GaussianBlur(pixels, (0, 0), high), np.float32)


def _correlate(first: Array, second: Array, usable: Array, side: int) -> _Blocks:
    def sums(values: Array) -> Array:
        height, width = values.shape[0] // side * side, values.shape[1] // side * side
        tiles = values[:height, :width].reshape(height // side, side, width // side, side)
        return np.asarray(tiles.sum(axis=(1, 3)), np.float32)

    x, y = first * usable, second * usable
    n = np.maximum(sums(usable), 1)
    sx, sy = sums(x), sums(y)
    vx, vy = sums(x * x) - sx**2 / n, sums(y * y) - sy**2 / n
    ncc = (sums(x * y) - sx * sy / n) / np.sqrt(np.maximum(vx * vy, 1e-6))
    energy = np.sqrt(np.maximum(np.maximum(vx, vy), 0) / n) * (sums(usable) >= 0.5 * side * side)
    total = float(np.sqrt((x * x).sum() * (y * y).sum())) + 1e-6
    return _Blocks(np.asarray(ncc, np.float32), np.asarray(energy, np.float32), float((x * y).sum()) / total)

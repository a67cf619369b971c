"""How far two aligned photos agree in detail, block by block."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["SAME_GRAIN", "Agreement", "compare", "gives_way"]

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
SAME_GRAIN = 0.35
"""Correlation of the grain from which it agrees."""
NEARLY_ALL, MOST, MIN_LEFT = 0.9, 0.6, 12
"""Share of the blocks that must agree once edges are cut off; share and number that must be left."""
BETTER = 0.15
"""A block gives way if its correlation is so much higher elsewhere."""
STEPS = tuple((down, across) for down in (-4, -2, 0, 2, 4) for across in (-4, -2, 0, 2, 4) if down or across)
"""Where else to look, in pixels."""
MIN_FAINT = 12
"""Fewer blocks without detail than this say nothing about the grain."""


class Agreement(NamedTuple):
    """What a comparison found.

    Attributes:
        share: Share of the blocks with detail that agree, 0 to 1.
        blocks: Number of blocks with detail.
        cut: Share of the common area cut off at its edges, where something else covers one of the photos.
        grain: Mean correlation of the blocks without detail, where only noise is left; 0 where they are few.
            Of photos taken apart it stays below 0.15, even at low JPEG quality.
        spread: How much the detail they share varies across its main direction, as a share of how much it varies
            along it: 0 for stripes, up to 1; 0 where less than nine tenths of the blocks agree.
        ncc: Correlation of the detail over the whole common area, -1 to 1.
        overlap: Share of the first photo that the second shows, and the other way round.
    """

    share: float
    blocks: int
    cut: float
    grain: float
    spread: float
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
    pair = _overlay(first, second, matrix)
    if pair is None:
        return None
    agreement = _summary([_correlate(*band, pair.usable, pair.side) for band in pair.bands], pair.overlap)
    if agreement.share < NEARLY_ALL:
        return agreement
    return agreement._replace(spread=_spread(*pair.bands[0], pair.usable > 0))


def gives_way(first: NDArray[np.uint8], second: NDArray[np.uint8], matrix: NDArray[np.float64]) -> float:
    """Return the share of the blocks that agree only, or far better, a few pixels away from where they should.

    In a copy there are next to none: what does not agree was painted over. In another shot of the same things
    these have moved against each other. Arguments as for `compare`.
    """
    pair = _overlay(first, second, matrix)
    if pair is None:
        return 0.0
    fine, coarse = (_correlate(*band, pair.usable, pair.side) for band in pair.bands)
    has_fine = fine.energy >= FLOOR
    speaks = has_fine | (coarse.energy >= FLOOR)
    here = np.where(has_fine, fine.ncc, coarse.ncc)
    best = here
    for step in STEPS:
        moved = [_correlate(np.roll(one, step, (0, 1)), other, pair.usable, pair.side).ncc for one, other in pair.bands]
        best = np.maximum(best, np.where(has_fine, *moved))
    yields = speaks & (best >= np.maximum(AGREES, here + BETTER))
    return float(yields.sum() / max(1, speaks.sum()))


class _Pair(NamedTuple):
    bands: list[tuple[Array, Array]]
    """Detail of both photos on one grid, fine and coarse."""
    usable: Array
    """1 where both can be compared."""
    side: int
    """Side of a block."""
    overlap: tuple[float, float]


def _overlay(first: NDArray[np.uint8], second: NDArray[np.uint8], matrix: NDArray[np.float64]) -> _Pair | None:
    import cv2

    scale = math.sqrt(abs(float(np.linalg.det(matrix[:, :2]))))
    if scale > 1.02:
        # Detail can only be compared where both have it: on the grid of the coarser photo.
        swapped = _overlay(second, first, np.asarray(cv2.invertAffineTransform(matrix)))
        return None if swapped is None else swapped._replace(overlap=swapped.overlap[::-1])
    warped, mask = _warp(first, matrix, second.shape, scale)
    common = float(mask.sum())
    overlap = min(1.0, common / (first.size * scale**2)), common / second.size
    inner = cv2.erode(mask, np.ones((2 * MARGIN + 1,) * 2, np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    usable = inner.astype(np.float32)
    if usable.sum() < 4 * BLOCK**2:
        return None
    warped, other = _clipped_alike(warped, second.astype(np.float32), inner > 0)
    bands = list(zip(_bands(warped, mask), _bands(other, mask), strict=True))
    return _Pair(bands, usable, max(BLOCK, min(second.shape) // 8), overlap)


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
    speaks = has_fine | has_coarse
    agrees = np.where(has_fine, fine.ncc, coarse.ncc) >= AGREES
    faint = ~speaks & (fine.energy > 0)
    grain = float(fine.ncc[faint].mean()) if faint.sum() >= MIN_FAINT else 0.0
    if grain >= SAME_GRAIN:
        # Noise that agrees is as good as detail; a caption must not outvote it.
        agreeing = faint & (fine.ncc >= AGREES)
        speaks, agrees = speaks | agreeing, agrees | agreeing
    kept = _without_edges(speaks, agrees)
    left = float(kept.mean())
    speaks = speaks & kept
    return Agreement(
        share=float(agrees[speaks].mean()) if speaks.any() else 0.0,
        blocks=int(speaks.sum()),
        cut=1 - left,
        grain=grain,
        spread=0.0,
        ncc=fine.whole,
        overlap=(overlap[0] * left, overlap[1] * left),
    )


def _without_edges(speaks: NDArray[np.bool_], agrees: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which blocks to go by: all, or the most that are left when a caption or border is cut off.

    Edges are cut only where nearly everything that is left agrees, and most of the blocks are left.
    """
    total, good = int(speaks.sum()), int((speaks & agrees).sum())
    everything = np.ones_like(speaks)
    if not NEARLY_ALL * MOST * total <= good < NEARLY_ALL * total:
        return everything
    spoken, agreed = _integral(speaks), _integral(speaks & agrees)
    most, kept = max(MIN_LEFT, MOST * total), everything
    for top, bottom in itertools.combinations(range(len(spoken)), 2):
        for left, right in itertools.combinations(range(spoken.shape[1]), 2):
            count = _inside(spoken, top, bottom, left, right)
            if count >= most and _inside(agreed, top, bottom, left, right) >= NEARLY_ALL * count:
                most, kept = count + 1, np.zeros_like(speaks)
                kept[top:bottom, left:right] = True
    return kept


def _spread(first: Array, second: Array, inside: NDArray[np.bool_]) -> float:
    """Ratio of the eigenvalues of the structure tensor of what both have in common."""
    import cv2

    across = [cv2.Sobel(pixels, cv2.CV_32F, 1, 0)[inside] for pixels in (first, second)]
    down = [cv2.Sobel(pixels, cv2.CV_32F, 0, 1)[inside] for pixels in (first, second)]
    xx, yy = float(across[0] @ across[1]), float(down[0] @ down[1])
    xy = 0.5 * float(across[0] @ down[1] + across[1] @ down[0])
    half, apart = (xx + yy) / 2, math.hypot((xx - yy) / 2, xy)
    return max(0.0, (half - apart) / (half + apart + 1e-6))


def _integral(grid: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Sums over every rectangle that starts in the first corner."""
    return np.pad(grid.astype(np.int64).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))


def _inside(sums: NDArray[np.int64], top: int, bottom: int, left: int, right: int) -> int:
    return int(sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left])


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


def _bands(pixels: Array, mask: NDArray[np.uint8]) -> list[Array]:
    """Detail of each width, from the pixels under the mask alone: a border beside them must not shine in."""
    import cv2

    inside = mask.astype(np.float32)
    masked = pixels * inside

    def smooth(sigma: float) -> Array:
        weights = cv2.GaussianBlur(inside, (0, 0), sigma)
        return np.asarray(cv2.GaussianBlur(masked, (0, 0), sigma) / np.maximum(weights, 1e-3), np.float32)

    levels = {sigma: smooth(sigma) for sigma in {sigma for band in BANDS for sigma in band}}
    return [levels[low] - levels[high] for low, high in BANDS]


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

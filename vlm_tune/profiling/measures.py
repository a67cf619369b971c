"""What one photo measures: light, contrast, sharpness and how much of it shows any detail."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from vlm_tune.images import decode, probe

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["WORKING_SIZE", "Measures", "measure"]

WORKING_SIZE = 512
"""Longer side, in pixels, at which photos are measured; smaller ones are measured as they are."""

_BLOCKS = 32
_FLAT = 0.02
"""A block whose light varies by less than this (five levels of 255) shows nothing: that much is noise."""

_FAINT = 0.01
"""Where the light changes by less than this from pixel to pixel there is no edge whose sharpness could be told."""


@dataclass(frozen=True, slots=True)
class Measures:
    """What was measured of one photo; light runs from 0 (black) to 1 (white).

    Light is the luma of ITU-R BT.601, `0.299 R + 0.587 G + 0.114 B`, of the upright photo.

    Attributes:
        width: Width in pixels, upright.
        height: Height in pixels, upright.
        format: The file's format, such as `JPEG`.
        num_bytes: Size of the file.
        brightness: Mean light.
        darkest: Light that 5 % of the pixels stay under.
        brightest: Light that 99 % of the pixels stay under.
        contrast: Standard deviation of the light (RMS contrast; Peli 1990).
        sharpness: Root mean square of the light's Laplacian over that of its gradient, on all edges at the
            working size; 0 where there is no edge. The Laplacian alone (Pech-Pacheco et al., ICPR 2000) falls
            with blur, but with contrast as well; the ratio does not. A step edge under a Gaussian blur of s
            pixels has about `1 / (1.41 s)`.
        detail: Share of small blocks, 32 along the longer side, in which anything is seen.
    """

    width: int
    height: int
    format: str
    num_bytes: int
    brightness: float
    darkest: float
    brightest: float
    contrast: float
    sharpness: float
    detail: float


def measure(data: bytes, *, name: str = "image bytes") -> Measures:
    """Decode a photo completely and measure it.

    Args:
        data: The encoded photo.
        name: What errors call it.

    Raises:
        ImageError: It does not decode.

    Examples:
        >>> from vlm_tune.images import blank
        >>> found = measure(blank(640, 480))
        >>> round(found.brightness, 2), found.sharpness, found.detail
        (0.5, 0.0, 0.0)
    """
    light = _light(decode(data, name=name))
    info = probe(data)
    darkest, brightest = np.percentile(light, (5, 99)).tolist()
    return Measures(
        width=info.width,
        height=info.height,
        format=info.format,
        num_bytes=info.num_bytes,
        brightness=round(float(light.mean()), 4),
        darkest=round(darkest, 4),
        brightest=round(brightest, 4),
        contrast=round(float(light.std()), 4),
        sharpness=round(_sharpness(light), 4),
        detail=round(_detail(light), 4),
    )


def _light(image: Image.Image) -> NDArray[np.float32]:
    grey = image.convert("L")
    if max(grey.size) > WORKING_SIZE:
        # A box filter averages whole pixels: it neither sharpens nor rings.
        grey.thumbnail((WORKING_SIZE, WORKING_SIZE), Image.Resampling.BOX)
    return np.asarray(grey, np.float32) / np.float32(255)


def _sharpness(light: NDArray[np.float32]) -> float:
    if min(light.shape) < 3:
        return 0.0
    up, down, left, right = light[:-2, 1:-1], light[2:, 1:-1], light[1:-1, :-2], light[1:-1, 2:]
    gradient = ((right - left) ** 2 + (down - up) ** 2) / 4
    edges = gradient > _FAINT**2
    if not edges.any():
        return 0.0
    laplacian = (up + down + left + right - 4 * light[1:-1, 1:-1])[edges]
    return math.sqrt(np.square(laplacian).mean() / gradient[edges].mean())


def _detail(light: NDArray[np.float32]) -> float:
    # Below four pixels a side a block has too few of them to tell detail from noise.
    block = min(max(4, max(light.shape) // _BLOCKS), *light.shape)
    rows, columns = light.shape[0] // block, light.shape[1] // block
    blocks = light[: rows * block, : columns * block].reshape(rows, block, columns, block)
    return float((blocks.std(axis=(1, 3)) > _FLAT).mean())

"""The surface of a drawn car panel: its shape, paint and gloss, and the picture that light makes of it.

Everything in a synthetic photo (body lines, dents, cracks, stickers) changes this one surface before it is
lit. So a dent bends the reflections and a scratch dulls them, as on a real car.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float32]

SUPERSAMPLING = 1.25
"""Surface pixels per photo pixel, along one side."""

_SUBPIXEL_BITS = 4
_MIRROR_SIZE = 192
_PAINTS: tuple[tuple[str, bool], ...] = (
    # sRGB colour, metallic
    ("#e9e9e6", False),
    ("#dcdcd4", True),
    ("#b4b8bc", True),
    ("#8d9298", True),
    ("#54585e", True),
    ("#2c2e33", True),
    ("#131417", False),
    ("#a3161d", False),
    ("#7a1022", True),
    ("#c8401c", False),
    ("#1f3f8a", True),
    ("#2a6aa8", True),
    ("#152448", False),
    ("#1e4f38", True),
    ("#5f7a4a", False),
    ("#b79a6a", True),
    ("#6b4a33", True),
    ("#d9b11e", False),
    ("#5a2a5e", True),
)


@dataclass
class Surface:
    """What each surface pixel is like. Lengths are in units of half the photo's short side.

    Attributes:
        u: Distance right of the centre, shape (height, width).
        v: Distance below the centre, same shape.
        x: Position along the car, turned and seen in perspective; body lines follow it.
        y: Position down the car.
        slope_x: Tilt of the surface to the right.
        slope_y: Tilt of the surface downwards.
        paint: Linear RGB colour, shape (height, width, 3).
        gloss: Share of the surroundings that it mirrors, 0 to 1.
        light: Share of the light that gets there, 0 to 1.
    """

    u: Array
    v: Array
    x: Array
    y: Array
    slope_x: Array
    slope_y: Array
    paint: Array
    gloss: Array
    light: Array

    @property
    def unit(self) -> float:
        """Surface pixels per unit of length."""
        return float(min(self.u.shape)) / 2

    def bend(self, height: Array) -> None:
        """Add a relief, given as height above the panel in units of length."""
        slope_y, slope_x = np.gradient(height, 1 / self.unit)
        self.slope_x += slope_x.astype(np.float32)
        self.slope_y += slope_y.astype(np.float32)

    def cover(self, mask: Array, colour: ArrayLike, gloss: float) -> None:
        """Lay a material over the surface where the mask (0 to 1) is set."""
        self.paint += mask[..., None] * (np.asarray(colour, np.float32) - self.paint)
        self.gloss += mask * (np.float32(gloss) - self.gloss)

    def darken(self, mask: Array, share: float = 1.0) -> None:
        """Take away a share of the light where the mask (0 to 1) is set."""
        self.light *= 1 - np.float32(share) * mask

    def stroke(self, points: ArrayLike, widths: ArrayLike) -> Array:
        """The mask of a line through points.

        Args:
            points: Corners as (u, v), shape (n, 2), n at least 2.
            widths: Line width at each corner, in photo pixels; one number or n of them.

        Returns:
            Coverage from 0 to 1, in the shape of the surface.
        """
        import cv2

        corners = np.asarray(points, float)
        half = np.broadcast_to(np.asarray(widths, float), len(corners))[:, None] * SUPERSAMPLING / 2
        pixels = corners * self.unit + np.array([self.u.shape[1] - 1, self.u.shape[0] - 1]) / 2
        along = np.gradient(pixels, axis=0)
        along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-6)
        across = np.stack([-along[:, 1], along[:, 0]], axis=1) * half
        outline = np.concatenate([pixels + across, (pixels - across)[::-1]])
        mask = np.zeros(self.u.shape, np.uint8)
        fixed = np.round(outline * 2**_SUBPIXEL_BITS).astype(np.int32)
        cv2.fillPoly(mask, [fixed], 255, lineType=cv2.LINE_AA, shift=_SUBPIXEL_BITS)
        return mask.astype(np.float32) / np.float32(255)


def new_surface(rng: np.random.Generator, size: tuple[int, int]) -> Surface:
    """A bare, gently curved, painted panel for a photo of `size` (width, height) pixels."""
    width, height = (round(side * SUPERSAMPLING) for side in size)
    unit = min(width, height) / 2
    v, u = np.mgrid[0:height, 0:width].astype(np.float32)
    u, v = (u - (width - 1) / 2) / unit, (v - (height - 1) / 2) / unit
    angle = rng.normal(0, 0.2)
    depth = 1 + rng.normal(0, 0.09) * u + rng.normal(0, 0.09) * v
    x = (math.cos(angle) * u + math.sin(angle) * v) / depth
    y = (math.cos(angle) * v - math.sin(angle) * u) / depth
    colour, metallic = paint_colour(rng)
    gloss = rng.uniform(0.06, 0.32)
    plastic = rng.random() < 0.12
    if plastic:
        colour, gloss = np.full(3, rng.uniform(0.015, 0.12), np.float32), rng.uniform(0.02, 0.06)
    paint = np.broadcast_to(colour, (height, width, 3)).astype(np.float32)
    if plastic or metallic:
        grain = rng.uniform(0.08, 0.2) if plastic else rng.uniform(0.02, 0.07)
        paint *= 1 + grain * rng.standard_normal((height, width, 1), np.float32)
    surface = Surface(
        *(u, v, x, y),
        slope_x=rng.normal(0, 0.12) + rng.normal(0.1, 0.12) * x,
        slope_y=rng.normal(0, 0.12) + rng.normal(0.25, 0.18) * y,
        paint=paint,
        gloss=np.full((height, width), gloss, np.float32),
        light=np.ones((height, width), np.float32),
    )
    # Pressed metal is never quite even: soft waves, which bend reflections a little everywhere.
    surface.bend(smooth_noise(rng, (height, width), 2) * np.float32(rng.uniform(0, 0.025)))
    return surface


def paint_colour(rng: np.random.Generator) -> tuple[Array, bool]:
    """A car paint as linear RGB, and whether it is metallic."""
    code, metallic = _PAINTS[rng.integers(len(_PAINTS))]
    srgb = np.array([int(code[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.clip(srgb + rng.normal(0, 0.03, 3), 0.02, 0.95).astype(np.float32) ** np.float32(2.2), metallic


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cells: int) -> Array:
    """Soft random hills, mean 0 and spread about 1, with `cells` hills along the short side."""
    import cv2

    rows, columns = (max(2, round(side * cells / min(shape))) for side in shape)
    grid = rng.normal(0, 1.4, (rows, columns)).astype(np.float32)
    return np.asarray(cv2.resize(grid, shape[::-1], interpolation=cv2.INTER_CUBIC), np.float32)


def lit(surface: Surface, rng: np.random.Generator) -> Array:
    """The picture of the surface under a random light and in random surroundings: linear RGB."""
    import cv2

    angle = rng.uniform(-np.pi, 0)
    strength = rng.uniform(0.8, 1.3)
    facing = surface.slope_x * math.cos(angle) + surface.slope_y * math.sin(angle)
    body = surface.paint * np.clip(0.85 - strength * facing, 0.12, 2.2)[..., None]
    reach, scale = rng.uniform(0.8, 1.5), _MIRROR_SIZE / 2
    column, row = (
        scale * (1 + rng.uniform(-0.25, 0.25) + rng.uniform(0.15, 0.35) * place + reach * slope)
        for place, slope in ((surface.u, surface.slope_x), (surface.v, surface.slope_y))
    )
    mirrored = cv2.remap(surroundings(rng), column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    gloss = surface.gloss[..., None]
    picture = surface.light[..., None] * ((1 - gloss) * body + gloss * mirrored)
    return np.asarray(picture, np.float32)


def surroundings(rng: np.random.Generator) -> Array:
    """What the panel mirrors: sky over ground with buildings, trees, poles and lamps. Linear RGB."""
    import cv2

    size = _MIRROR_SIZE
    outdoors = rng.random() < 0.75
    top, horizon, ground = (
        ((0.35, 0.55, 1.0), (1.0, 1.0, 1.0), (0.12, 0.11, 0.1))
        if outdoors
        else ((0.1, 0.1, 0.11), (0.35, 0.34, 0.32), (0.08, 0.08, 0.08))
    )
    level = np.linspace(0, 1, size, dtype=np.float32)[:, None, None]
    height = rng.uniform(0.35, 0.65)
    sky = np.array(top) + (np.array(horizon) - np.array(top)) * np.clip(level / height, 0, 1)
    haze = np.float32(rng.uniform(0, 1))
    sky = sky * (1 - haze) + haze * sky.mean(axis=2, keepdims=True)
    row = np.where(level < height, sky * rng.uniform(0.7, 1.3), np.array(ground) * rng.uniform(0.6, 2))
    scene = np.ascontiguousarray(np.broadcast_to(row, (size, size, 3)), np.float32)
    for _ in range(rng.integers(3, 9)):
        left, base = int(rng.integers(0, size)), int(size * height + rng.integers(-4, 12))
        wide, tall = (int(n) for n in rng.integers((4, 10), (50, 70)))
        shade = (rng.uniform(0.02, 0.5) * rng.uniform(0.8, 1.2, 3)).tolist()
        if rng.random() < 0.5:
            cv2.rectangle(scene, (left, base - tall), (left + wide, base), shade, -1)
        else:
            cv2.ellipse(scene, (left, base - tall // 2), (wide // 2 + 2, tall // 2), 0, 0, 360, shade, -1)
    for _ in range(rng.integers(0, 4)):
        start, end = rng.integers(0, size, 2), rng.integers(0, size, 2)
        cv2.line(scene, start.tolist(), end.tolist(), [0.06] * 3, int(rng.integers(1, 3)), cv2.LINE_AA)
    for _ in range(rng.integers(0, 2) if outdoors else rng.integers(2, 5)):
        centre, half = rng.integers(0, size, 2), rng.integers((8, 2), (40, 6))
        glow = [float(rng.uniform(1.5, 3.5))] * 3
        cv2.ellipse(scene, centre.tolist(), half.tolist(), float(rng.uniform(-25, 25)), 0, 360, glow, -1)
    return np.asarray(cv2.GaussianBlur(scene, (0, 0), float(rng.uniform(1.2, 5))), np.float32)

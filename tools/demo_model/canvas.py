"""Where pictures are drawn: masks, shading, colours, and the surfaces and camera faults around a mark."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]
"""Height x width x 3, values 0 to 255."""
Mask = NDArray[np.float32]
"""Height x width, values 0 to 1."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 40, 40),
    "orange": (240, 140, 30),
    "yellow": (240, 220, 50),
    "green": (50, 160, 60),
    "turquoise": (50, 190, 190),
    "blue": (45, 85, 210),
    "purple": (130, 55, 175),
    "pink": (245, 140, 185),
    "brown": (120, 75, 40),
    "black": (25, 25, 25),
    "grey": (128, 128, 128),
    "white": (240, 240, 240),
}


# Drawing fresh noise for every picture would take most of the time; a random stretch of this does as well.
_NOISE = np.random.default_rng(0).standard_normal(1 << 21, np.float32)


def near(rng: np.random.Generator, name: str, spread: float = 18.0) -> NDArray[np.float32]:
    """A shade of the named colour."""
    return np.clip(np.array(COLOURS[name]) + rng.normal(0, spread, 3), 0, 255).astype(np.float32)


def any_colour(rng: np.random.Generator) -> NDArray[np.float32]:
    """Any colour at all, greys more often than chance would give them."""
    if rng.random() < 0.3:
        return np.clip(np.full(3, rng.uniform(15, 245)) + rng.normal(0, 6, 3), 0, 255).astype(np.float32)
    return rng.uniform(0, 255, 3).astype(np.float32)


def blend(image: Image, mask: Mask, colour: NDArray[np.float32], alpha: float = 1.0) -> None:
    """Lays `colour` over `image` where `mask` says, in place."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    weight = np.float32(alpha) * mask[box][..., None]
    part = image[box]
    part += weight * (colour.astype(np.float32) - part)


def lines_mask(shape: tuple[int, int], paths: list[NDArray[np.float64]], widths: list[float]) -> Mask:
    """Draws open paths (n x 2, x then y) as anti-aliased lines; widths below 1 give fainter lines."""
    mask = np.zeros(shape, np.uint8)
    for path, width in zip(paths, widths, strict=True):
        value = int(255 * min(1.0, max(width, 0.35)))
        points = np.round(path * 16).astype(np.int32).reshape(-1, 1, 2)
        cv2.polylines(mask, [points], False, value, max(1, round(width)), cv2.LINE_AA, 4)
    return mask.astype(np.float32) / 255


def polygon_mask(shape: tuple[int, int], polygons: list[NDArray[np.float64]]) -> Mask:
    """Fills closed polygons (n x 2, x then y)."""
    mask = np.zeros(shape, np.uint8)
    for polygon in polygons:
        points = np.round(polygon * 16).astype(np.int32).reshape(-1, 1, 2)
        cv2.fillPoly(mask, [points], 255, cv2.LINE_AA, 4)
    return mask.astype(np.float32) / 255


def soften(mask: Mask, sigma: float) -> Mask:
    """Gaussian blur of a mask."""
    return cv2.GaussianBlur(mask, (0, 0), max(sigma, 0.3))


def grid(shape: tuple[int, int]) -> tuple[Mask, Mask]:
    """The x coordinate of every column (1 x width) and the y coordinate of every row (height x 1)."""
    return np.arange(shape[1], dtype=np.float32)[None], np.arange(shape[0], dtype=np.float32)[:, None]


def _normal(rng: np.random.Generator, shape: tuple[int, ...], spread: float) -> NDArray[np.float32]:
    size = int(np.prod(shape))
    start = rng.integers(len(_NOISE) - size)
    return (_NOISE[start : start + size] * np.float32(spread)).reshape(shape)


def clouds(rng: np.random.Generator, shape: tuple[int, int], cells: int) -> Mask:
    """Smooth random field with about `cells` hills a side, zero mean, values about -1 to 1."""
    coarse = _normal(rng, (cells + 2, cells + 2), 0.6)
    return cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)


def _gradient(rng: np.random.Generator, shape: tuple[int, int], light: float) -> Mask:
    x, y = grid(shape)
    ramp = (np.cos(light) * (x / shape[1] - 0.5) + np.sin(light) * (y / shape[0] - 0.5)) * 2
    return (ramp + rng.uniform(0, 0.5) * ramp * np.abs(ramp)).astype(np.float32)


SURFACES = ("plain", "cloudy", "brushed", "grainy", "striped", "checked", "tiled", "woven", "spotted", "glossy")


def surface(rng: np.random.Generator, shape: tuple[int, int], kind: str, base: NDArray[np.float32]) -> Image:
    """A bare surface of the given kind and colour; `kind` is one of `SURFACES`."""
    height, width = shape
    image = np.empty((height, width, 3), np.float32)
    image[:] = base
    other = np.clip(base + rng.choice([-1, 1]) * rng.uniform(25, 80), 0, 255).astype(np.float32)
    x, y = grid(shape)
    pitch = rng.uniform(0.06, 0.2) * width
    angle = rng.uniform(0, np.pi)
    along = x * np.cos(angle) + y * np.sin(angle)
    if kind == "cloudy":
        field = clouds(rng, shape, int(rng.integers(2, 9))) + 0.5 * clouds(rng, shape, int(rng.integers(8, 24)))
        image += field[..., None] * rng.uniform(10, 40)
    elif kind == "brushed":
        noise = _normal(rng, shape, 1.0)
        size = (int(width * 0.4) | 1, 1) if rng.random() < 0.5 else (1, int(height * 0.4) | 1)
        image += cv2.blur(noise, size)[..., None] * rng.uniform(20, 80)
    elif kind == "grainy":
        image += _normal(rng, (height, width, 1), rng.uniform(12, 35))
    elif kind == "striped":
        blend(image, (np.sin(along * 2 * np.pi / pitch) > 0).astype(np.float32), other, rng.uniform(0.3, 1))
    elif kind == "checked":
        cells = (np.floor(x / pitch) + np.floor(y / pitch)) % 2
        blend(image, cells.astype(np.float32), other, rng.uniform(0.3, 1))
    elif kind == "tiled":
        pitch *= 1.8
        gap = ((x % pitch) < 1.6) | ((y % pitch) < 1.6)
        blend(image, gap.astype(np.float32), other, rng.uniform(0.4, 1))
    elif kind == "woven":
        weave = np.sin(x * 2 * np.pi / pitch * 1.5) * np.sin(y * 2 * np.pi / pitch * 1.5)
        image += weave[..., None] * rng.uniform(10, 35)
    elif kind == "spotted":
        spots = (np.sin(x * 2 * np.pi / pitch) * np.sin(y * 2 * np.pi / pitch) > 0.55).astype(np.float32)
        blend(image, spots, other, rng.uniform(0.4, 1))
    elif kind == "glossy":
        for _ in range(int(rng.integers(1, 4))):
            centre, spread = rng.uniform(along.min(), along.max()), rng.uniform(0.03, 0.2) * width
            band = np.exp(-(((along - centre) / spread) ** 2))
            image += band[..., None] * rng.uniform(-50, 110)
    return image


def clutter(rng: np.random.Generator, image: Image) -> None:
    """Adds things that are no mark: seams, other parts, reflections, shadows, drops, dust; in place."""
    for _ in range(int(rng.integers(1, 5))):
        _CLUTTER[rng.integers(len(_CLUTTER))](rng, image)


def _half(rng: np.random.Generator, image: Image) -> Mask:
    """Signed distance, in picture widths, to a bent line somewhere across the picture."""
    height, width = image.shape[:2]
    x, y = grid((height, width))
    turn, bend = rng.uniform(0, 2 * np.pi), rng.normal(0, 0.5)
    u, v = x / width - 0.5, y / height - 0.5
    along = -u * np.sin(turn) + v * np.cos(turn)
    return (u * np.cos(turn) + v * np.sin(turn) + bend * along * along - rng.uniform(-0.45, 0.45)).astype(np.float32)


def _other_part(rng: np.random.Generator, image: Image) -> None:
    side = _half(rng, image) * image.shape[1]
    colour = any_colour(rng) if rng.random() < 0.5 else image.mean((0, 1)) * rng.uniform(0.5, 1.4)
    blend(image, np.clip(side / rng.uniform(0.5, 3) + 0.5, 0, 1), colour.astype(np.float32), rng.uniform(0.5, 1))
    if rng.random() < 0.6:
        _dark_line(image, side, rng.uniform(0.6, 2.2), rng.uniform(0.4, 0.9))


def _seam(rng: np.random.Generator, image: Image) -> None:
    _dark_line(image, _half(rng, image) * image.shape[1], rng.uniform(0.6, 2.5), rng.uniform(0.3, 0.9))


def _dark_line(image: Image, distance: Mask, width: float, strength: float) -> None:
    line = np.exp(-((distance / width) ** 2))
    image *= 1 - (line * strength)[..., None]
    # The edge beside a gap catches the light.
    glint = np.exp(-(((distance - 2 * width) / width) ** 2))
    image += (glint * 35 * strength)[..., None]


def _body_line(rng: np.random.Generator, image: Image) -> None:
    side = _half(rng, image)
    image *= (1 + rng.uniform(-0.35, 0.35) * np.tanh(side * rng.uniform(3, 40)))[..., None]


def _reflection(rng: np.random.Generator, image: Image) -> None:
    glow = np.exp(-((_half(rng, image) / rng.uniform(0.01, 0.15)) ** 2))
    image += glow[..., None] * np.float32(rng.uniform(-40, 110))


def _mirrored(rng: np.random.Generator, image: Image) -> None:
    """A window, tree or house that a shiny surface mirrors."""
    height, width = image.shape[:2]
    corners = int(rng.integers(4, 9))
    turn = np.sort(rng.uniform(0, 2 * np.pi, corners))
    reach = rng.uniform(0.1, 0.5, corners) * width
    middle = rng.uniform(0, 1, 2) * [width, height]
    shape = polygon_mask((height, width), [np.stack([np.cos(turn), np.sin(turn)], 1) * reach[:, None] + middle])
    mask = soften(shape, rng.uniform(0.4, 5))
    image += mask[..., None] * np.float32(rng.choice([-1, 1]) * rng.uniform(15, 80))


def _shadow(rng: np.random.Generator, image: Image) -> None:
    shade = np.clip(_half(rng, image) * rng.uniform(2, 30), 0, 1)
    image *= 1 - shade[..., None] * np.float32(rng.uniform(0.2, 0.6))


def _bar(rng: np.random.Generator, image: Image) -> None:
    """A handle, rail or strip: straight, thick, with a light and a dark edge."""
    height, width = image.shape[:2]
    middle, turn = rng.uniform(0, 1, 2) * [width, height], rng.uniform(0, np.pi)
    reach = np.array([np.cos(turn), np.sin(turn)]) * width * rng.uniform(0.12, 0.8)
    thick = rng.uniform(0.02, 0.07) * width
    ends = np.stack([middle - reach, middle + reach])
    blend(
        image, lines_mask((height, width), [np.add(ends, (0, thick * 0.4))], [thick]), np.full(3, 15, np.float32), 0.6
    )
    blend(image, lines_mask((height, width), [ends], [thick]), any_colour(rng))
    if rng.random() < 0.6:
        shine = lines_mask((height, width), [ends - [0, thick * 0.3]], [thick * 0.3])
        blend(image, shine, np.full(3, 240, np.float32), rng.uniform(0.2, 0.8))


def _lid(rng: np.random.Generator, image: Image) -> None:
    """A closed cover: a round or rounded outline, like a flap."""
    height, width = image.shape[:2]
    turn = np.linspace(0, 2 * np.pi, 48)
    power = rng.choice([1.0, 0.6, 0.4])
    outline = np.stack(
        [np.sign(np.cos(turn)) * abs(np.cos(turn)) ** power, np.sign(np.sin(turn)) * abs(np.sin(turn)) ** power], 1
    )
    points = outline * rng.uniform(0.08, 0.25) * width + rng.uniform(0, 1, 2) * [width, height]
    mask = lines_mask((height, width), [points], [rng.uniform(0.8, 2.2)])
    image *= 1 - (mask * rng.uniform(0.3, 0.8))[..., None]


def _drops(rng: np.random.Generator, image: Image) -> None:
    """Water drops or dust: small round things, bright on one side or of one colour."""
    height, width = image.shape[:2]
    shiny, colour = rng.random() < 0.6, any_colour(rng)
    for _ in range(int(rng.integers(3, 30))):
        x, y, size = int(rng.integers(0, width)), int(rng.integers(0, height)), rng.uniform(0.6, 2.8)
        if shiny:
            tone = image[y, x]
            cv2.circle(image, (x, y), max(1, round(size)), (tone * 0.65).tolist(), -1, cv2.LINE_AA)
            cv2.circle(image, (x, y - 1), max(1, round(size * 0.4)), (tone * 0.3 + 170).tolist(), -1, cv2.LINE_AA)
        else:
            cv2.circle(image, (x, y), max(1, round(size * 0.6)), colour.tolist(), -1, cv2.LINE_AA)


def _dirt_streaks(rng: np.random.Generator, image: Image) -> None:
    """Soft dried streaks, all one way."""
    height, width = image.shape[:2]
    turn = np.pi / 2 if rng.random() < 0.7 else rng.uniform(0, np.pi)
    step = np.array([np.cos(turn), np.sin(turn)])
    paths = []
    for _ in range(int(rng.integers(1, 6))):
        start = rng.uniform(0, 1, 2) * [width, height]
        paths.append(np.stack([start, start + step * rng.uniform(0.1, 0.5) * height]))
    mask = lines_mask((height, width), paths, [rng.uniform(1.5, 5)] * len(paths))
    image += soften(mask, rng.uniform(1, 2.5))[..., None] * np.float32(rng.uniform(-70, 70))


def _label(rng: np.random.Generator, image: Image) -> None:
    """A small printed label."""
    height, width = image.shape[:2]
    h, w = int(rng.uniform(0.05, 0.14) * height) + 2, int(rng.uniform(0.08, 0.25) * width) + 2
    top, left = int(rng.integers(0, height - h)), int(rng.integers(0, width - w))
    paper, print_ = any_colour(rng), any_colour(rng)
    image[top : top + h, left : left + w] = np.where(rng.random((h, w, 1)) < 0.4, print_, paper)


_CLUTTER = (
    _other_part, _other_part, _seam, _seam, _body_line, _reflection, _reflection, _mirrored, _mirrored, _shadow, _bar,
    _lid, _drops, _dirt_streaks, _label,
)  # fmt: skip


def relight(rng: np.random.Generator, image: Image, light: float, strength: float) -> None:
    """Makes the side that the light comes from brighter, in place; `light` is the angle it comes from."""
    image *= (1 + strength * _gradient(rng, image.shape[:2], light))[..., None]


def warp(rng: np.random.Generator, image: Image, strength: float) -> Image:
    """Looks at the picture from a slightly different place."""
    height, width = image.shape[:2]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    moved = corners + rng.uniform(-strength, strength, (4, 2)).astype(np.float32) * np.float32([width, height])
    matrix = cv2.getPerspectiveTransform(corners, moved)
    return cv2.warpPerspective(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def develop(
    rng: np.random.Generator, image: Image, size: tuple[int, int], *, blur: float, noise: float
) -> NDArray[np.uint8]:
    """Turns the drawing into the photo: resized to `size` (height, width), blurred, noisy, 8 bits."""
    image = cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA)
    if blur > 0.3:
        image = cv2.GaussianBlur(image, (0, 0), blur)
    if noise > 0:
        image = image + _normal(rng, image.shape, noise)
    out: NDArray[np.uint8] = np.clip(image, 0, 255).astype(np.uint8)
    if rng.random() < 0.15:
        quality = int(rng.integers(25, 90))
        code = cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        out = cv2.imdecode(code, cv2.IMREAD_COLOR).astype(np.uint8)
    return out

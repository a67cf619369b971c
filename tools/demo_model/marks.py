"""The marks that the pretraining pictures show: thirty-two kinds of lines, spots, hollows and patches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from demo_model.canvas import Image, Mask, any_colour, blend, clouds, grid, lines_mask, polygon_mask, soften

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Place:
    """Where and how large a mark is drawn: centre and radius in pixels, direction and light as angles."""

    x: float
    y: float
    radius: float
    angle: float
    light: float
    ink: NDArray[np.float32]
    alpha: float
    width: float


Draw = Callable[[np.random.Generator, Image, Place], None]


def _turn(points: Points, place: Place) -> Points:
    """Rotates points given around the origin by the mark's angle and moves them to its centre."""
    return _spin(points, place.angle) + np.array([place.x, place.y])


def _ink(image: Image, place: Place, mask: Mask) -> None:
    blend(image, mask, place.ink, place.alpha)


def _paths(image: Image, place: Place, paths: list[Points], widths: list[float] | float) -> None:
    sizes = widths if isinstance(widths, list) else [widths] * len(paths)
    _ink(image, place, lines_mask(image.shape[:2], [_turn(path, place) for path in paths], sizes))


def _shade(image: Image, place: Place, height: Mask, strength: float) -> None:
    """Lights a height field: slopes that face the light get brighter."""
    slope_x = cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=3)
    slope_y = cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=3)
    lit = -(slope_x * np.cos(place.light) + slope_y * np.sin(place.light))
    top = float(np.abs(lit).max()) or 1.0
    image *= np.clip(1 + (strength / top) * lit, 0.05, 3)[..., None]


def _refract(image: Image, place: Place, height: Mask, strength: float) -> None:
    """Shifts what is seen in a height field along its slopes."""
    x, y = grid((image.shape[0], image.shape[1]))
    reach = np.float32(strength * place.radius * place.radius / 8)
    shift_x = cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=3) * reach
    shift_y = cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=3) * reach
    image[:] = cv2.remap(image, x + shift_x, y + shift_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def _spin(points: Points, turn: float) -> Points:
    return points @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])


def _oval(image: Image, place: Place, power: float, stretch: float) -> Mask:
    """A smooth hill: 1 in the middle, 0 outside."""
    x, y = grid((image.shape[0], image.shape[1]))
    cos, sin = np.cos(place.angle), np.sin(place.angle)
    u = ((x - place.x) * cos + (y - place.y) * sin) / (place.radius * stretch)
    v = (-(x - place.x) * sin + (y - place.y) * cos) / (place.radius / stretch)
    return np.exp(-((u * u + v * v) ** power)).astype(np.float32)


def _walk(rng: np.random.Generator, length: float, steps: int, wobble: float) -> Points:
    """A jagged way along x from -length to length."""
    x = np.linspace(-length, length, steps) + rng.normal(0, length / steps * 0.4, steps)
    y = np.cumsum(rng.normal(0, wobble * length / np.sqrt(steps), steps))
    return np.stack([x, y - y.mean()], 1)


def _blob(rng: np.random.Generator, radius: float, rough: float, corners: int = 24) -> Points:
    turn = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    bumps = sum(rng.normal(0, rough / k) * np.cos(k * turn + rng.uniform(0, 6.3)) for k in range(1, 6))
    reach = radius * np.clip(1 + bumps, 0.3, 1.8)
    return np.stack([np.cos(turn) * reach, np.sin(turn) * reach], 1)


def crack(rng: np.random.Generator, image: Image, place: Place) -> None:
    """A jagged line that forks, or several that meet."""
    wobble, steps = rng.uniform(0.15, 0.5), int(rng.integers(7, 16))
    if rng.random() < 0.3:
        arms = int(rng.integers(3, 6))
        mains = []
        for arm in range(arms):
            main = _walk(rng, place.radius * rng.uniform(0.3, 0.55), max(5, steps // 2), wobble)
            mains.append(_spin(main - main[0], 2 * np.pi * arm / arms + rng.normal(0, 0.3)))
    else:
        mains = [_walk(rng, place.radius, steps, wobble)]
    paths, widths = list(mains), [place.width] * len(mains)
    for _ in range(int(rng.integers(0, 6))):
        main = mains[rng.integers(len(mains))]
        start = main[rng.integers(1, len(main) - 1)]
        twig = _walk(rng, place.radius * rng.uniform(0.1, 0.3), int(rng.integers(3, 7)), 0.5)
        paths.append(_spin(twig - twig[0], rng.uniform(0, 2 * np.pi)) + start)
        widths.append(place.width * rng.uniform(0.4, 0.9))
    if rng.random() < 0.4:
        lip = lines_mask(image.shape[:2], [_turn(path, place) + 1.0 for path in paths], widths)
        image += lip[..., None] * np.float32(rng.uniform(15, 90))
    _paths(image, place, paths, widths)


def scratch(rng: np.random.Generator, image: Image, place: Place) -> None:
    """One or several thin straight lines, side by side."""
    paths, widths = [], []
    bend, spread = rng.normal(0, 0.12), rng.uniform(0.03, 0.2)
    for _ in range(int(rng.choice([1, 1, 2, 3, 4, 6, 9]))):
        x = np.linspace(-1, 1, 8) * place.radius * rng.uniform(0.5, 1.0) + rng.normal(0, 0.12) * place.radius
        y = rng.normal(0, spread) * place.radius + bend * x * x / place.radius + rng.normal(0, 0.05) * x
        paths.append(np.stack([x, y], 1))
        widths.append(place.width * rng.uniform(0.3, 0.9))
    mask = lines_mask(image.shape[:2], [_turn(path, place) for path in paths], widths)
    if rng.random() < 0.5:
        # The pressure changes along the way.
        mask *= np.clip(0.75 + 0.6 * clouds(rng, image.shape[:2], 9), 0.1, 1)
    _ink(image, place, mask)


def dent(rng: np.random.Generator, image: Image, place: Place) -> None:
    """A smooth hollow: dark on the side of the light, and what is mirrored there bends."""
    hill = _oval(image, place, rng.uniform(0.9, 2.0), rng.uniform(0.8, 1.6))
    if rng.random() < 0.5:
        hill = hill * np.clip(1 + 0.3 * clouds(rng, image.shape[:2], 4), 0.3, 1.6)
    _refract(image, place, hill, rng.uniform(0.1, 0.6))
    _shade(image, place, -hill, rng.uniform(0.12, 0.7))
    image *= 1 - (hill * rng.uniform(0, 0.25))[..., None]


def bump(rng: np.random.Generator, image: Image, place: Place) -> None:
    """A smooth rise, bright on the side of the light."""
    hill = _oval(image, place, rng.uniform(0.9, 2.0), rng.uniform(0.8, 1.6))
    _refract(image, place, hill, -rng.uniform(0.1, 0.6))
    _shade(image, place, hill, rng.uniform(0.2, 0.75))
    image += (hill * rng.uniform(5, 30))[..., None]


def hole(rng: np.random.Generator, image: Image, place: Place) -> None:
    """A dark round opening with a rim."""
    rim = _blob(rng, place.radius * 0.6, 0.08)
    shape = image.shape[:2]
    blend(image, polygon_mask(shape, [_turn(rim * 1.12, place)]), image.mean((0, 1)) * 0.6 + 90, 0.6)
    blend(image, polygon_mask(shape, [_turn(rim, place)]), np.full(3, rng.uniform(0, 30), np.float32), 0.95)


def stain(rng: np.random.Generator, image: Image, place: Place) -> None:
    """A flat soft-edged patch of another colour."""
    mask = polygon_mask(image.shape[:2], [_turn(_blob(rng, place.radius * 0.8, 0.3), place)])
    _ink(image, place, soften(mask, place.radius * rng.uniform(0.03, 0.15)) * 0.7)


def smudge(rng: np.random.Generator, image: Image, place: Place) -> None:
    """A faint smear drawn out in one direction."""
    mask = _oval(image, place, 1.0, rng.uniform(1.6, 2.3)) * (0.7 + 0.3 * clouds(rng, image.shape[:2], 12))
    blend(image, np.clip(mask, 0, 1), place.ink, rng.uniform(0.35, 0.75))


def splash(rng: np.random.Generator, image: Image, place: Place) -> None:
    """A drop burst into many drops."""
    drops = [_blob(rng, place.radius * 0.4, 0.25)]
    for _ in range(int(rng.integers(6, 18))):
        turn, far = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 1.1) * place.radius
        offset = np.array([np.cos(turn), np.sin(turn)]) * far
        drops.append(_blob(rng, place.radius * rng.uniform(0.04, 0.14), 0.1, 10) + offset)
    _ink(image, place, polygon_mask(image.shape[:2], [_turn(drop, place) for drop in drops]))


def scribble(rng: np.random.Generator, image: Image, place: Place) -> None:
    """A pen line going round and round."""
    t = np.linspace(0, 2 * np.pi, 70)
    a, b = rng.integers(2, 6), rng.integers(2, 6)
    x = np.sin(a * t + rng.uniform(0, 6.3)) * 0.6 + np.linspace(-0.5, 0.5, 70)
    y = np.sin(b * t + rng.uniform(0, 6.3)) * 0.6 + rng.normal(0, 0.02, 70)
    _paths(image, place, [np.stack([x, y], 1) * place.radius], place.width)


def wave(rng: np.random.Generator, image: Image, place: Place) -> None:
    """A line that swings evenly."""
    x = np.linspace(-1, 1, 60)
    y = np.sin(x * np.pi * rng.uniform(2, 5) + rng.uniform(0, 6.3)) * rng.uniform(0.1, 0.25)
    _paths(image, place, [np.stack([x, y], 1) * place.radius], place.width * 1.4)


def dashes(rng: np.random.Generator, image: Image, place: Place) -> None:
    """A straight line with gaps."""
    count = int(rng.integers(4, 9))
    edges = np.linspace(-1, 1, 2 * count)
    paths = [np.array([[edges[2 * i], 0], [edges[2 * i + 1], 0]]) * place.radius for i in range(count)]
    _paths(image, place, paths, place.width * 1.5)


def dots(rng: np.random.Generator, image: Image, place: Place) -> None:
    """A row of dots."""
    size = place.radius * rng.uniform(0.05, 0.1)
    spots = [
        np.add(_blob(rng, size, 0.0, 12), (x * place.radius, 0)) for x in np.linspace(-1, 1, int(rng.integers(4, 9)))
    ]
    _ink(image, place, polygon_mask(image.shape[:2], [_turn(spot, place) for spot in spots]))


def zigzag(rng: np.random.Generator, image: Image, place: Place) -> None:
    """A line with even sharp corners."""
    x = np.linspace(-1, 1, int(rng.integers(6, 13)))
    y = np.where(np.arange(len(x)) % 2, 1, -1) * rng.uniform(0.1, 0.28)
    _paths(image, place, [np.stack([x, y], 1) * place.radius], place.width * 1.3)


def spiral(rng: np.random.Generator, image: Image, place: Place) -> None:
    """A line winding outwards."""
    t = np.linspace(0, 2 * np.pi * rng.uniform(2, 3.5), 90)
    reach = t / t[-1] * 0.8 * place.radius
    turn = t * rng.choice([-1, 1])
    _paths(image, place, [np.stack([np.cos(turn) * reach, np.sin(turn) * reach], 1)], place.width * 1.2)


def cross(rng: np.random.Generator, image: Image, place: Place) -> None:
    """Two strokes that cross."""
    size = place.radius * 0.7
    strokes = [np.array([[-size, -size], [size, size]]), np.array([[-size, size], [size, -size]])]
    _paths(image, place, strokes, place.width * rng.uniform(1.5, 3.5))


def ring(rng: np.random.Generator, image: Image, place: Place) -> None:
    """A closed round line."""
    circle = _blob(rng, place.radius * 0.75, 0.02, 40)
    _paths(image, place, [np.vstack([circle, circle[:1]])], place.width * rng.uniform(1.2, 3))


def web(rng: np.random.Generator, image: Image, place: Place) -> None:
    """A net of fine lines."""
    nodes = rng.uniform(-0.9, 0.9, (int(rng.integers(12, 26)), 2)) * place.radius
    far = np.linalg.norm(nodes[:, None] - nodes[None], axis=2)
    pairs = {tuple(sorted((i, int(j)))) for i in range(len(nodes)) for j in np.argsort(far[i])[1:4]}
    _paths(image, place, [nodes[list(pair)] for pair in sorted(pairs)], place.width * 0.7)


def rust(rng: np.random.Generator, image: Image, place: Place) -> None:
    """A rough brown-orange patch."""
    mask = polygon_mask(image.shape[:2], [_turn(_blob(rng, place.radius * 0.8, 0.35), place)])
    rough = np.clip(0.6 + clouds(rng, image.shape[:2], 30), 0, 1)
    colour = np.array([rng.uniform(120, 190), rng.uniform(60, 95), rng.uniform(15, 45)], np.float32)
    blend(image, soften(mask, 1.0) * rough, colour, rng.uniform(0.7, 1))


def drip(rng: np.random.Generator, image: Image, place: Place) -> None:
    """Streaks that run down from one edge."""
    paths, widths = [], []
    for x in rng.uniform(-0.7, 0.7, int(rng.integers(2, 6))) * place.radius:
        end = rng.uniform(0.1, 1.0) * place.radius
        paths.append(np.add([[x, -0.6 * place.radius], [x + rng.normal(0, 0.5), end]], (place.x, place.y)))
        widths.append(place.width * rng.uniform(1.5, 3.5))
    mask = lines_mask(image.shape[:2], paths, widths)
    _ink(image, place, soften(mask, 0.8) * 0.85)


def crease(rng: np.random.Generator, image: Image, place: Place) -> None:
    """A fold: light along one side of a straight edge, dark along the other."""
    x, y = grid((image.shape[0], image.shape[1]))
    cos, sin = np.cos(place.angle), np.sin(place.angle)
    u = ((x - place.x) * cos + (y - place.y) * sin) / place.radius
    v = (-(x - place.x) * sin + (y - place.y) * cos) / (place.radius * rng.uniform(0.06, 0.16))
    fold = v * np.exp(-v * v) * np.exp(-((u * 0.9) ** 6))
    image *= np.clip(1 + fold * rng.choice([-1, 1]) * rng.uniform(0.6, 1.3), 0.1, 3)[..., None].astype(np.float32)


def chip(rng: np.random.Generator, image: Image, place: Place) -> None:
    """A small sharp-cornered flake of another colour with a dark edge."""
    outline = _turn(_blob(rng, place.radius * 0.45, 0.45, int(rng.integers(5, 9))), place)
    shift = np.array([np.cos(place.light), np.sin(place.light)]) * max(1.0, place.radius * 0.06)
    blend(image, polygon_mask(image.shape[:2], [outline + shift]), np.zeros(3, np.float32), 0.7)
    blend(image, polygon_mask(image.shape[:2], [outline]), any_colour(rng), 0.95)


def gouge(rng: np.random.Generator, image: Image, place: Place) -> None:
    """A short deep groove: dark core, bright edge."""
    path = _walk(rng, place.radius * rng.uniform(0.4, 0.8), 5, 0.08)
    width = place.width * rng.uniform(2.5, 4)
    edge = path + np.array([0, width * 0.5])
    shape = image.shape[:2]
    blend(image, lines_mask(shape, [_turn(edge, place)], [width]), np.full(3, 235, np.float32), 0.6)
    blend(image, lines_mask(shape, [_turn(path, place)], [width]), np.full(3, 20, np.float32), 0.8)


def ripple(rng: np.random.Generator, image: Image, place: Place) -> None:
    """Rings of light and shade around one point."""
    x, y = grid((image.shape[0], image.shape[1]))
    far = np.hypot(x - place.x, y - place.y) / place.radius
    height = np.cos(far * np.pi * rng.uniform(4, 8)) * np.exp(-((far * 0.9) ** 4))
    image *= (1 + rng.uniform(0.12, 0.4) * height)[..., None].astype(np.float32)


def hatch(rng: np.random.Generator, image: Image, place: Place) -> None:
    """Two sets of straight lines that cross."""
    steps = np.linspace(-0.8, 0.8, int(rng.integers(3, 6))) * place.radius
    end = place.radius * 0.9
    across = [np.array([[-end, s], [end, s]]) for s in steps]
    down = [np.array([[s, -end], [s, end]]) for s in steps]
    _paths(image, place, across + down, place.width * 0.8)


def burst(rng: np.random.Generator, image: Image, place: Place) -> None:
    """Lines running out from one point."""
    turns = np.linspace(0, 2 * np.pi, int(rng.integers(6, 13)), endpoint=False) + rng.normal(0, 0.1)
    rays = []
    for turn in turns:
        reach = place.radius * rng.uniform(0.5, 1.0)
        kink = turn + rng.normal(0, 0.15)
        middle = np.array([np.cos(kink), np.sin(kink)]) * reach * 0.5
        rays.append(np.array([[0, 0], middle, np.array([np.cos(turn), np.sin(turn)]) * reach]))
    _paths(image, place, rays, place.width * 0.8)


def speckles(rng: np.random.Generator, image: Image, place: Place) -> None:
    """Many tiny dots."""
    spots = []
    for _ in range(int(rng.integers(25, 70))):
        offset = rng.normal(0, 0.45, 2) * place.radius
        spots.append(_turn(_blob(rng, rng.uniform(0.6, 1.6), 0.0, 6) + offset, place))
    _ink(image, place, polygon_mask(image.shape[:2], spots))


def blisters(rng: np.random.Generator, image: Image, place: Place) -> None:
    """Several small bubbles under the skin."""
    hills = np.zeros(image.shape[:2], np.float32)
    for _ in range(int(rng.integers(4, 11))):
        dx, dy = rng.normal(0, 0.5, 2) * place.radius
        one = Place(place.x + dx, place.y + dy, place.radius * rng.uniform(0.1, 0.2), 0, 0, place.ink, 1, 1)
        hills = np.maximum(hills, _oval(image, one, 1.5, 1.0))
    _shade(image, place, hills, rng.uniform(0.3, 0.7))


def band(rng: np.random.Generator, image: Image, place: Place) -> None:
    """One broad straight stripe."""
    path = np.array([[-1.0, 0], [1.0, 0]]) * place.radius
    _paths(image, place, [path], place.radius * rng.uniform(0.15, 0.35))


def arc(rng: np.random.Generator, image: Image, place: Place) -> None:
    """One smooth bent line."""
    turn = np.linspace(0, rng.uniform(1.5, 3.5), 40)
    _paths(
        image,
        place,
        [np.stack([np.cos(turn), np.sin(turn)], 1) * place.radius * 0.8],
        place.width * rng.uniform(1, 2.5),
    )


def patch(rng: np.random.Generator, image: Image, place: Place) -> None:
    """A four-cornered sticker of another colour."""
    a, b = rng.uniform(0.35, 0.8, 2) * place.radius
    _ink(image, place, polygon_mask(image.shape[:2], [_turn(np.array([[-a, -b], [a, -b], [a, b], [-a, b]]), place)]))


def tear(rng: np.random.Generator, image: Image, place: Place) -> None:
    """A long dark slit, wide in the middle, with ragged edges."""
    x = np.linspace(-1, 1, 12)
    gape = (1 - x * x) * rng.uniform(0.1, 0.25)
    upper = np.stack([x, gape + rng.normal(0, 0.03, 12)], 1)
    lower = np.stack([x, -gape + rng.normal(0, 0.03, 12)], 1)[::-1]
    slit = _turn(np.vstack([upper, lower]) * place.radius, place)
    blend(image, polygon_mask(image.shape[:2], [slit]), np.full(3, rng.uniform(5, 40), np.float32), 0.92)


DRAW: dict[str, Draw] = {
    function.__name__: function
    for function in (
        crack, scratch, dent, bump, hole, stain, smudge, splash, scribble, wave, dashes, dots, zigzag, spiral, cross,
        ring, web, rust, drip, crease, chip, gouge, ripple, hatch, burst, speckles, blisters, band, arc, patch, tear,
    )
}  # fmt: skip

STRAIGHT = frozenset({"scratch", "wave", "dashes", "dots", "zigzag", "crease", "gouge", "band", "tear", "crack"})
"""Marks that run in one direction, so that it can be asked for."""

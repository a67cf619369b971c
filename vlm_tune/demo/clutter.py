"""What else is in the synthetic photos of car panels: gaps, body lines, handles, trim, dirt, water, stickers.

None of it is damage, and some of it looks like damage: a gap like a crack, a wiped streak like a scratch, a
shadow like a dent.
"""

from __future__ import annotations

import numpy as np

from vlm_tune.demo.surface import Array, Surface, paint_colour, smooth_noise


def draw_body(surface: Surface, rng: np.random.Generator) -> None:
    """Body lines and at most two gaps to neighbouring panels."""
    if rng.random() < 0.45:
        _crease(surface, rng)
    for chance in (0.55, 0.2):
        if rng.random() < chance:
            _gap(surface, rng)


def draw_fittings(surface: Surface, rng: np.random.Generator) -> None:
    """Perhaps a door handle, a trim strip, a filler cap or a badge."""
    chosen = rng.random()
    if chosen < 0.16:
        _handle(surface, rng)
    elif chosen < 0.32:
        _trim(surface, rng)
    elif chosen < 0.40:
        _filler_cap(surface, rng)
    elif chosen < 0.48:
        _sticker(surface, rng)


def draw_dirt(surface: Surface, rng: np.random.Generator, amount: float) -> None:
    """Specks, drops, wiped streaks and cast shadows; `amount` 0 is a clean car in the open, 1 a messy one."""
    if rng.random() < 0.8 * amount:
        _specks(surface, rng)
    if rng.random() < 0.35 * amount:
        _drops(surface, rng)
    if rng.random() < 0.45 * amount:
        _streaks(surface, rng)
    if rng.random() < 0.5 * amount:
        _shadow(surface, rng)
    if rng.random() < 0.4 * amount:
        film = np.clip(0.5 + 0.5 * smooth_noise(rng, surface.u.shape, 5), 0, 1) * rng.uniform(0.05, 0.25)
        surface.cover(film.astype(np.float32), (0.3, 0.26, 0.2), 0.05)


def _crease(surface: Surface, rng: np.random.Generator) -> None:
    """A body line: the panel changes its tilt along it."""
    distance = surface.y - rng.uniform(-0.9, 0.9) - rng.normal(0, 0.06) * surface.x**2
    sharpness = rng.uniform(0.02, 0.15)
    surface.slope_y += (rng.uniform(0.1, 0.35) * rng.choice((-1, 1)) * np.tanh(distance / sharpness)).astype(np.float32)


def _gap(surface: Surface, rng: np.random.Generator) -> None:
    """The dark gap to the next panel, which leans another way and may be of another material."""
    upright = rng.random() < 0.5
    across, along = (surface.x, surface.y) if upright else (surface.y, surface.x)
    place = rng.uniform(0.45, 1.0) * rng.choice((-1, 1))
    distance = across - place - rng.normal(0, 0.08) * along**2
    beyond = _soft(distance * np.sign(place) * surface.unit)
    kind = rng.random()
    if kind < 0.25:
        surface.cover(beyond, rng.uniform(0.01, 0.06) * np.ones(3), rng.uniform(0.02, 0.1))
    elif kind < 0.4:
        surface.cover(beyond, (0.01, 0.012, 0.012), 0.6)
    elif kind < 0.5:
        gravel = 1 + 0.2 * smooth_noise(rng, surface.u.shape, 60) + 0.15 * smooth_noise(rng, surface.u.shape, 6)
        surface.cover(beyond, rng.uniform(0.06, 0.25) * np.clip(gravel, 0.2, 2)[..., None], 0.0)
    lean = rng.normal(0, 0.2, 2)
    surface.slope_x += np.float32(lean[0]) * beyond
    surface.slope_y += np.float32(lean[1]) * beyond
    width = rng.uniform(0.008, 0.028)
    surface.bend((-0.03 * np.exp(-np.abs(distance) / 0.04)).astype(np.float32))
    surface.darken(_soft((width - np.abs(distance)) * surface.unit), rng.uniform(0.8, 0.97))


def _handle(surface: Surface, rng: np.random.Generator) -> None:
    """A door handle over its hollow, with the shadow below it."""
    x, y, wide, tall = _place(surface, rng, wide=(0.35, 0.6), tall=(0.07, 0.11))
    surface.bend(
        (-0.07 * np.exp(-(((x / (0.6 * wide)) ** 2 + ((y - 0.02) / (2 * tall)) ** 2) ** 2))).astype(np.float32)
    )
    surface.darken(_bar(surface, x, y - 0.9 * tall, wide, tall, soft=6), 0.6)
    bar = _bar(surface, x, y, wide, tall)
    kind = rng.random()
    if kind < 0.5:
        surface.cover(bar, rng.uniform(0.01, 0.04) * np.ones(3), 0.12)
    elif kind < 0.75:
        surface.cover(bar, rng.uniform(0.3, 0.5) * np.ones(3), 0.6)
    surface.light += bar * (1 - surface.light)
    surface.slope_x += bar * (np.float32(0.3) * (x / wide) ** 3 - surface.slope_x)
    surface.slope_y += bar * (np.float32(0.5) * y / tall - surface.slope_y)


def _trim(surface: Surface, rng: np.random.Generator) -> None:
    """A strip of black plastic or chrome along the car."""
    y = surface.y - rng.uniform(0.45, 0.9) * rng.choice((-1, 1))
    tall = rng.uniform(0.04, 0.11)
    strip = _soft((tall - np.abs(y)) * surface.unit)
    surface.darken(_soft((tall - np.abs(y - 0.05)) * surface.unit, 4), 0.35)
    if rng.random() < 0.6:
        surface.cover(strip, rng.uniform(0.01, 0.05) * np.ones(3), 0.06)
    else:
        surface.cover(strip, rng.uniform(0.3, 0.5) * np.ones(3), 0.65)
    surface.slope_y += strip * (np.float32(0.5) * y / tall - surface.slope_y).astype(np.float32)


def _filler_cap(surface: Surface, rng: np.random.Generator) -> None:
    """The round or rounded lid over the fuel filler."""
    x, y, _, _ = _place(surface, rng, wide=(0.3, 0.3), tall=(0.3, 0.3))
    roundness, radius = rng.choice((2.0, 4.0, 6.0)), rng.uniform(0.3, 0.45)
    distance = (np.abs(x) ** roundness + np.abs(y) ** roundness) ** (1 / roundness) - radius
    surface.darken(_soft((0.016 - np.abs(distance)) * surface.unit), 0.85)
    surface.bend((-0.02 * np.exp(-np.abs(distance) / 0.03)).astype(np.float32))


def _sticker(surface: Surface, rng: np.random.Generator) -> None:
    """A printed label or badge with a few lines of unreadable text."""
    x, y, wide, tall = _place(surface, rng, wide=(0.18, 0.34), tall=(0.1, 0.2))
    label = _bar(surface, x, y, wide, tall)
    surface.cover(label, paint_colour(rng)[0] * 0.9, rng.uniform(0.05, 0.2))
    ink = rng.choice((0.02, 0.8)) * np.ones(3)
    for line in np.arange(-0.6, 0.7, 0.4) * tall:
        words = (np.abs(y - line) < 0.1 * tall) & (np.sin(x * 90 + 5 * np.sin(x * 31 + line * 50)) > -0.2)
        surface.cover((words & (np.abs(x) < 0.8 * wide)).astype(np.float32), ink, 0.05)


def _specks(surface: Surface, rng: np.random.Generator) -> None:
    """Mud or dust specks, thickest in one place."""
    centre, spread = rng.uniform(-0.8, 0.8, 2), rng.uniform(0.3, 0.9)
    colour = rng.choice((0.03, 0.2, 0.5)) * np.array([1.1, 1.0, 0.8])
    mask = np.zeros_like(surface.u)
    for _ in range(rng.integers(6, 40)):
        spot = centre + rng.normal(0, spread, 2)
        speck = surface.stroke([spot, spot + rng.normal(0, 0.012, 2)], rng.uniform(0.5, 2.2))
        mask = np.maximum(mask, np.float32(rng.uniform(0.4, 1)) * speck)
    surface.cover(mask, colour, 0.03)


def _drops(surface: Surface, rng: np.random.Generator) -> None:
    """Water drops standing on the paint."""
    height = np.zeros_like(surface.u)
    for _ in range(rng.integers(8, 40)):
        spot, radius = rng.uniform(-1.2, 1.2, 2), rng.uniform(0.015, 0.06)
        left, top = (int((s - radius) * surface.unit + n / 2) for s, n in zip(spot, surface.u.shape[::-1], strict=True))
        side = int(2 * radius * surface.unit) + 2
        window = slice(max(top, 0), max(top + side, 0)), slice(max(left, 0), max(left + side, 0))
        away = ((surface.u[window] - spot[0]) ** 2 + (surface.v[window] - spot[1]) ** 2) / radius**2
        height[window] = np.maximum(height[window], 0.7 * radius * np.sqrt(np.clip(1 - away, 0, 1)))
    surface.bend(height)
    wet = np.clip(height * 40, 0, 1)
    surface.gloss += wet * (0.45 - surface.gloss)


def _streaks(surface: Surface, rng: np.random.Generator) -> None:
    """Dried run marks or wipe marks: wide, soft and faint."""
    import cv2

    mask = np.zeros_like(surface.u)
    lean = rng.normal(0, 0.15)
    for _ in range(rng.integers(1, 6)):
        start = rng.uniform(-1.2, 1.2, 2)
        length = rng.uniform(0.3, 1.0)
        end = start + length * np.array([lean, 1])
        mask = np.maximum(
            mask, surface.stroke([start, (start + end) / 2, end], np.array([1, 2, 3]) * rng.uniform(0.7, 1.6))
        )
    mask = np.asarray(cv2.GaussianBlur(mask, (0, 0), float(rng.uniform(1.2, 2.5))), np.float32)
    surface.cover(
        mask * np.float32(rng.uniform(0.25, 0.6)), rng.choice((0.04, 0.35)) * np.array([1.1, 1.0, 0.85]), 0.05
    )


def _shadow(surface: Surface, rng: np.random.Generator) -> None:
    """The shadow of a person, a wall or leaves."""
    if rng.random() < 0.5:
        angle = rng.uniform(0, 2 * np.pi)
        distance = np.cos(angle) * surface.u + np.sin(angle) * surface.v - rng.uniform(-0.2, 0.8)
        mask = _soft(distance * surface.unit, rng.uniform(2, 20))
    else:
        mask = np.clip(0.5 + smooth_noise(rng, surface.u.shape, int(rng.integers(2, 5))), 0, 1).astype(np.float32)
    surface.darken(mask, rng.uniform(0.2, 0.55))


def _place(
    surface: Surface, rng: np.random.Generator, *, wide: tuple[float, float], tall: tuple[float, float]
) -> tuple[Array, Array, float, float]:
    """A spot away from the middle: coordinates around it, and half its width and height."""
    angle = rng.uniform(0, 2 * np.pi)
    x, y = surface.x - 0.85 * np.cos(angle), surface.y - 0.75 * np.sin(angle)
    return x.astype(np.float32), y.astype(np.float32), rng.uniform(*wide), rng.uniform(*tall)


def _bar(surface: Surface, x: Array, y: Array, wide: float, tall: float, soft: float = 1.0) -> Array:
    """The mask of a bar with rounded ends."""
    corner = min(wide, tall)
    over, below = np.maximum(np.abs(x) - wide + corner, 0), np.maximum(np.abs(y) - tall + corner, 0)
    return _soft((corner - np.sqrt(over**2 + below**2)) * surface.unit, soft)


def _soft(pixels: Array, softness: float = 1.0) -> Array:
    """1 where the distance in pixels is positive, 0 where negative, smooth in between."""
    return np.asarray(np.clip(0.5 + pixels / (2 * softness), 0, 1), np.float32)

"""The three kinds of damage in the synthetic photos, each drawn into a panel's surface.

`severity` runs from 0 (hardly to be seen) to 1 (plain).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vlm_tune.demo.surface import Array, Surface, smooth_noise

Points = NDArray[np.float64]


def draw_dent(surface: Surface, rng: np.random.Generator, severity: float) -> None:
    """A hollow without any line: one side catches the light, the other loses it, reflections bend."""
    centre = rng.uniform(-0.35, 0.35, 2)
    for number in range(1 + int(rng.random() < 0.25)):
        radius = rng.uniform(0.26, 0.52) / (1 + 0.6 * number)
        stretch, angle = rng.uniform(1, 1.8), rng.uniform(0, np.pi)
        du, dv = surface.u - centre[0], surface.v - centre[1]
        along = (np.cos(angle) * du + np.sin(angle) * dv) / (radius * stretch)
        across = (np.cos(angle) * dv - np.sin(angle) * du) / radius
        uneven = 1 + 0.12 * smooth_noise(rng, surface.u.shape, 3)
        distance = (along**2 + across**2) * np.clip(uneven, 0.6, 1.5)
        hollow = np.exp(-(distance ** rng.uniform(0.9, 1.6)))
        rim = np.exp(-((np.sqrt(distance) - 1.5) ** 2) / 0.15)
        depth = radius * (0.34 + 0.42 * severity) * rng.uniform(0.8, 1.1)
        surface.bend((depth * (rng.uniform(0, 0.12) * rim - hollow)).astype(np.float32))
        centre = centre + rng.uniform(0.45, 0.75) * _direction(rng.uniform(0, 2 * np.pi))


def draw_crack(surface: Surface, rng: np.random.Generator, severity: float) -> None:
    """A dark broken line with sharp turns and branches, its edges standing up a little."""
    width = 0.7 + 1.8 * severity * rng.uniform(0.6, 1.4)
    jag, fork_rate = rng.uniform(0.2, 0.8), rng.uniform(0.05, 0.35)
    heading = rng.uniform(0, 2 * np.pi)
    if rng.random() < 0.3:
        centre = rng.uniform(-0.3, 0.3, 2)
        turns = heading + 2 * np.pi * (np.arange(rng.integers(3, 6)) + rng.uniform(-0.25, 0.25)) / 4.5
        starts = [(centre, float(turn), rng.uniform(0.4, 0.85)) for turn in turns]
    else:
        length = rng.uniform(1.0, 1.8)
        centre = rng.uniform(-0.25, 0.25, 2) - _direction(heading) * length / 2
        starts = [(centre, heading, length)]
    mask = np.zeros_like(surface.light)
    for start, turn, length in starts:
        for points, share in _branching(rng, start, turn, length, jag=jag, fork_rate=fork_rate):
            taper = width * share * np.linspace(1.1, 0.35, len(points)) * rng.uniform(0.7, 1.3, len(points))
            mask = np.maximum(mask, surface.stroke(points, taper))
    _raise_lips(surface, mask, rng.uniform(0.01, 0.03))
    raw = rng.uniform(0.25, 0.7) * np.ones(3)
    shift = rng.integers(-1, 2, 2)
    edge = np.roll(mask, shift.tolist(), (0, 1))
    # On a dark panel a dark line alone would not show: there the broken edge is pale.
    pale = rng.uniform(0.4, 0.8) if surface.paint.mean() < 0.06 else rng.uniform(0, 0.45)
    surface.cover(edge * np.float32(pale), raw, 0.03)
    surface.cover(mask, (0.015, 0.014, 0.013), 0.02)
    surface.darken(mask, 0.45 + 0.4 * severity)


def draw_scratch(surface: Surface, rng: np.random.Generator, severity: float, *, most: int = 9) -> None:
    """At most `most` hairlines, straight or gently curved, side by side, where primer or bare metal shows."""
    bright = float(surface.paint.mean())
    pale = rng.random() < (0.9 if bright < 0.35 else 0.15)
    colour = rng.uniform(0.55, 0.85) * rng.uniform(0.94, 1.06, 3) if pale else rng.uniform(0.04, 0.16) * np.ones(3)
    angle, curve = rng.uniform(0, np.pi), rng.normal(0, 0.18)
    along, across = _direction(angle), _direction(angle + np.pi / 2)
    centre = rng.uniform(-0.3, 0.3, 2)
    count = min(int(rng.choice((1, 2, 3, 4, 6, 9))), most)
    length, spread = rng.uniform(0.9, 1.9), rng.uniform(0.05, 0.09) * (count - 1) / 2
    mask = np.zeros_like(surface.light)
    for number in range(count):
        reach = length * (rng.uniform(0.5, 1) if number else 1)
        middle = centre + along * rng.normal(0, 0.12) * bool(number) + across * rng.uniform(-spread, spread)
        t = np.linspace(-0.5, 0.5, 24)
        bow = curve * (t**2 - 0.08) + rng.normal(0, 0.04) * t + rng.normal(0, 0.002, 24)
        points = middle + np.outer(t * reach, along) + np.outer(bow * reach, across)
        width = (0.35 + 0.95 * severity) * rng.uniform(0.5, 1.2) * (1 if number else 1.2)
        pressure = np.sin(np.pi * (t + 0.5)) ** 0.4
        mask = np.maximum(mask, rng.uniform(0.6, 1) * surface.stroke(points, width * pressure))
    skips = 0.95 + 0.3 * smooth_noise(rng, surface.u.shape, 9)
    mask = mask * np.clip(skips, 0.25, 1).astype(np.float32)
    _raise_lips(surface, mask, 0.006)
    surface.cover(mask * np.float32(0.4 + 0.6 * severity), colour, 0.05)


def _direction(angle: float) -> Points:
    return np.array([np.cos(angle), np.sin(angle)])


def _branching(
    rng: np.random.Generator,
    start: Points,
    heading: float,
    length: float,
    *,
    jag: float,
    fork_rate: float,
    share: float = 1.0,
) -> list[tuple[Points, float]]:
    """A jagged line and its branches: corners, and the share of the full width."""
    points, angle, side, walked = [np.asarray(start, float)], heading, rng.choice((-1, 1)), 0.0
    branches: list[tuple[Points, float]] = []
    while walked < length:
        step = 0.03 + rng.gamma(2.0, 0.035)
        heading += rng.normal(0, 0.16)
        angle = heading + side * jag * rng.uniform(0.2, 1.8) + rng.normal(0, 0.1)
        side = -side if rng.random() < 0.7 else side
        points.append(points[-1] + step * _direction(angle))
        walked += step
        if share > 0.4 and walked < 0.85 * length and rng.random() < fork_rate:
            fork = angle + rng.choice((-1, 1)) * rng.uniform(0.6, 1.2)
            reach = length * rng.uniform(0.12, 0.45)
            branches += _branching(rng, points[-1], fork, reach, jag=jag, fork_rate=fork_rate, share=share * 0.6)
    return [(np.array(points), share), *branches]


def _raise_lips(surface: Surface, mask: Array, height: float) -> None:
    """Let the edges of a line catch the light."""
    import cv2

    surface.bend(np.asarray(cv2.GaussianBlur(mask, (0, 0), 1.2), np.float32) * np.float32(-height))

"""The pretraining pictures: a mark on a surface, loose shapes, or a bare texture, each with the facts it shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from demo_model.canvas import (
    COLOURS,
    SURFACES,
    Image,
    any_colour,
    blend,
    clutter,
    develop,
    lines_mask,
    near,
    polygon_mask,
    relight,
    surface,
    warp,
)
from demo_model.marks import DRAW, STRAIGHT, Place

SIZES = ((96, 112), (112, 96), (96, 128), (128, 96), (112, 112))
"""Heights and widths that the processor makes of photos of the usual shapes."""

SHAPES = (
    "circle", "square", "triangle", "rectangle", "oval", "star", "diamond", "pentagon", "hexagon", "plus", "heart",
    "arrow", "moon",
)  # fmt: skip
_ACROSS = {"left": "right", "right": "left"}
_DOWN = {"top": "bottom", "bottom": "top", "above": "below", "below": "above"}
COUNTS = ("one", "two", "three", "four", "five", "six")


@dataclass(frozen=True)
class Picture:
    """A picture and what can be asked about it."""

    pixels: NDArray[np.uint8]
    """Height x width x 3."""
    facts: dict[str, str]
    """Attribute family to value; families and values are those of `demo_model.questions`."""
    plain: bool
    """Whether it is an abstract drawing: one flat colour behind, nothing else in the way."""

    def mirrored(self, *, across: bool, down: bool) -> Picture:
        """The picture left to right (`across`) or upside down (`down`), its facts with it."""
        facts = dict(self.facts)
        swaps = {**(_ACROSS if across else {}), **(_DOWN if down else {})}
        for family in ("side", "height", "light", "relation"):
            if family in facts:
                facts[family] = swaps.get(facts[family], facts[family])
        pixels = self.pixels[:: -1 if down else 1, :: -1 if across else 1]
        return Picture(pixels, facts, self.plain)


def draw(rng: np.random.Generator, size: tuple[int, int]) -> Picture:
    """Draws one picture of the given height and width."""
    kind = rng.random()
    if kind < 0.72:
        return _marked(rng, size)
    if kind < 0.92:
        return _shapes(rng, size)
    return _texture(rng, size)


def _tone(rng: np.random.Generator, back: NDArray[np.float32], mark: str) -> tuple[NDArray[np.float32], str | None]:
    """An ink that can be told from `back`, and the name of its colour where it has one."""
    choice = rng.random()
    dark, light = _TONES.get(mark, (0.35, 0.25))
    if choice < dark:
        return np.clip(back * rng.uniform(0.0, 0.45), 0, 255).astype(np.float32), None
    if choice < dark + light:
        return np.clip(back + (255 - back) * rng.uniform(0.5, 1.0), 0, 255).astype(np.float32), None
    for _ in range(8):
        name = str(rng.choice(list(COLOURS)))
        if np.abs(np.array(COLOURS[name]) - back).sum() > 130:
            return near(rng, name, 12), name
    return np.full(3, 20 if back.mean() > 110 else 235, np.float32), None


def _finish(
    rng: np.random.Generator, image: Image, size: tuple[int, int], facts: dict[str, str], *, plain: bool
) -> Picture:
    """Camera faults, of which blur and noise can be asked for."""
    blur = rng.uniform(0, 0.6)
    noise = rng.uniform(0, 7) if rng.random() < 0.5 else 0.0
    trouble = rng.random()
    if trouble < 0.06:
        blur, facts["focus"] = rng.uniform(1.6, 2.6), "blurry"
    elif trouble < 0.12:
        blur, noise, facts["focus"] = 0.0, rng.uniform(0, 5), "sharp"
    elif trouble < 0.2:
        noise, facts["noise"] = rng.uniform(18, 35), "noisy"
    elif trouble < 0.24:
        noise, facts["noise"] = 0.0, "clean"
    return Picture(develop(rng, image, size, blur=blur, noise=noise), facts, plain)


def _place(rng: np.random.Generator, shape: tuple[int, int], ink: NDArray[np.float32], light: float) -> Place:
    height, width = shape
    radius = min(shape) * rng.uniform(0.16, 0.46)
    margin = radius * 0.55
    return Place(
        x=rng.uniform(margin, width - margin),
        y=rng.uniform(margin, height - margin),
        radius=radius,
        angle=rng.uniform(0, np.pi),
        light=light,
        ink=ink,
        alpha=rng.uniform(0.4, 1.0),
        width=rng.uniform(0.6, 2.4) * shape[0] / 110,
    )


def _where(facts: dict[str, str], place: Place, shape: tuple[int, int]) -> None:
    """Notes where the mark is, unless that is arguable."""
    x, y = place.x / shape[1], place.y / shape[0]
    if abs(x - 0.5) > 0.14:
        facts["side"] = "left" if x < 0.5 else "right"
    if abs(y - 0.5) > 0.14:
        facts["height"] = "top" if y < 0.5 else "bottom"


def _marked(rng: np.random.Generator, size: tuple[int, int]) -> Picture:
    """A mark on a surface."""
    scale = rng.choice([1.0, 1.0, 1.4, 1.8])
    shape = (int(size[0] * scale), int(size[1] * scale))
    facts: dict[str, str] = {}
    plain = rng.random() < 0.25
    ground = "plain" if plain else str(rng.choice(SURFACES, p=_GROUND_SHARES))
    if rng.random() < 0.5:
        name = str(rng.choice(list(COLOURS)))
        back = near(rng, name)
        if plain or ground in ("plain", "brushed", "grainy", "cloudy"):
            facts["background"] = name
    else:
        back = any_colour(rng)
    light = rng.uniform(0, 2 * np.pi)
    image = surface(rng, shape, ground, back)
    if not plain:
        if rng.random() < 0.75:
            clutter(rng, image)
        relight(rng, image, light, rng.uniform(0, 0.45))
    _add_mark(rng, image, back, light, facts)
    if not plain and rng.random() < 0.4:
        image = warp(rng, image, 0.1)
    return _finish(rng, image, size, facts, plain=plain)


def _add_mark(
    rng: np.random.Generator, image: Image, back: NDArray[np.float32], light: float, facts: dict[str, str]
) -> None:
    shape = (image.shape[0], image.shape[1])
    if rng.random() < 0.04:
        facts["mark"] = "none"
        return
    mark = str(rng.choice(_OFTEN)) if rng.random() < 0.6 else str(rng.choice(list(DRAW)))
    ink, name = _tone(rng, back, mark)
    place = _place(rng, shape, ink, light)
    upright = rng.random() < 0.3
    if upright:
        place = Place(**{**vars(place), "angle": rng.choice([0, np.pi / 2]) + rng.normal(0, 0.08)})
    np.clip(image, 0, 255, out=image)
    DRAW[mark](rng, image, place)
    facts["mark"] = mark
    _where(facts, place, shape)
    if name is not None and mark in _INKED and place.width * place.alpha > 1.2:
        facts["colour"] = name
    if mark in STRAIGHT:
        lean = np.degrees(place.angle) % 180
        if min(lean, 180 - lean) < 12:
            facts["direction"] = "horizontal"
        elif abs(lean - 90) < 12:
            facts["direction"] = "vertical"
        elif 25 < lean < 65 or 115 < lean < 155:
            facts["direction"] = "diagonal"
    if rng.random() < 0.12 and mark in STRAIGHT:
        again = Place(**{**vars(_place(rng, shape, ink, light)), "width": place.width})
        DRAW[mark](rng, image, again)
        for fact in ("side", "height", "direction"):
            facts.pop(fact, None)


_TONES = {"crack": (0.65, 0.15), "scratch": (0.25, 0.5), "web": (0.6, 0.15), "tear": (0.8, 0.05)}
"""Share of dark and of light ink, where that is not as for the others; the rest is coloured."""
# Common kinds of damage are drawn more often: their looks vary most.
_OFTEN = ("crack", "scratch", "dent") * 3 + ("chip", "rust", "stain", "hole", "crease", "gouge", "web", "arc")
_GROUNDS = {"plain": 5, "glossy": 4, "cloudy": 3, "brushed": 2, "grainy": 2}
_GROUND_SHARES = np.array([_GROUNDS.get(kind, 0.8) for kind in SURFACES])
_GROUND_SHARES /= _GROUND_SHARES.sum()
_INKED = frozenset(
    {"stain", "splash", "scribble", "wave", "dashes", "dots", "zigzag", "spiral", "cross", "ring", "band", "arc",
     "patch", "hatch"}
)  # fmt: skip


def _polygon(kind: str, radius: float) -> NDArray[np.float64]:
    """The outline of a shape around the origin."""

    def regular(corners: int, turn: float = -np.pi / 2) -> NDArray[np.float64]:
        angles = turn + np.arange(corners) * 2 * np.pi / corners
        return np.stack([np.cos(angles), np.sin(angles)], 1)

    turn = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    if kind == "circle":
        points = regular(48)
    elif kind == "square":
        points = regular(4, np.pi / 4)
    elif kind == "triangle":
        points = regular(3)
    elif kind == "rectangle":
        points = regular(4, np.pi / 4) * [1.3, 0.65]
    elif kind == "oval":
        points = regular(48) * [1.1, 0.6]
    elif kind == "star":
        points = regular(10) * np.where(np.arange(10) % 2, 0.42, 1.0)[:, None]
    elif kind == "diamond":
        points = regular(4) * [0.65, 1.1]
    elif kind == "plus":
        a, b = 0.33, 1.0
        points = np.array(
            [[-a, -b], [a, -b], [a, -a], [b, -a], [b, a], [a, a], [a, b], [-a, b], [-a, a], [-b, a], [-b, -a], [-a, -a]]
        )
    elif kind == "heart":
        x = 16 * np.sin(turn) ** 3
        y = -(13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn))
        points = np.stack([x, y], 1) / 17
    elif kind == "arrow":
        points = np.array([[-1, -0.25], [0.2, -0.25], [0.2, -0.7], [1, 0], [0.2, 0.7], [0.2, 0.25], [-1, 0.25]])
    elif kind == "moon":
        inner = np.stack([np.cos(turn[::-1]) * 0.8 + 0.45, np.sin(turn[::-1]) * 0.8], 1)
        outer = regular(48, 0.0)
        points = np.vstack(
            [outer[np.hypot(outer[:, 0] - 0.45, outer[:, 1]) > 0.8], inner[inner[:, 0] ** 2 + inner[:, 1] ** 2 < 1]]
        )
        points = points[np.argsort(np.arctan2(points[:, 1], points[:, 0] + 0.62))] if len(points) < 3 else points
    else:
        points = regular({"pentagon": 5, "hexagon": 6}[kind])
    return points * radius


def _shapes(rng: np.random.Generator, size: tuple[int, int]) -> Picture:
    """One to six shapes on a background."""
    count = int(rng.choice([1, 1, 1, 2, 2, 2, 3, 4, 5, 6]))
    facts: dict[str, str] = {"count": COUNTS[count - 1]}
    ground = "plain" if rng.random() < 0.5 else str(rng.choice(SURFACES))
    back_name = str(rng.choice(list(COLOURS)))
    back = near(rng, back_name)
    image = surface(rng, size, ground, back)
    if ground != "plain" and rng.random() < 0.4:
        relight(rng, image, rng.uniform(0, 6.3), rng.uniform(0, 0.35))
    if ground == "plain":
        facts["background"] = back_name
    fits = [c for c in COLOURS if np.abs(np.array(COLOURS[c]) - back).sum() > 150]
    kind, colour = str(rng.choice(SHAPES)), str(rng.choice(fits))
    alike_kind, alike_colour = rng.random() < 0.6, rng.random() < 0.6
    cells = rng.permutation(9)[:count]
    cell = np.array([size[1], size[0]]) / 3
    placed: list[tuple[str, str, float, float]] = []
    for index in range(count):
        this_kind = kind if alike_kind else str(rng.choice(SHAPES))
        this_colour = colour if alike_colour else str(rng.choice(fits))
        if count == 1:
            radius = min(size) * rng.uniform(0.1, 0.42)
            centre = np.array([rng.uniform(radius, size[1] - radius), rng.uniform(radius, size[0] - radius)])
            if radius < min(size) * 0.16:
                facts["size"] = "small"
            elif radius > min(size) * 0.3:
                facts["size"] = "large"
        else:
            radius = min(cell) * rng.uniform(0.28, 0.48)
            spot = np.array([cells[index] % 3, cells[index] // 3])
            centre = (spot + 0.5 + rng.uniform(-0.08, 0.08, 2)) * cell
        _put(rng, image, this_kind, near(rng, this_colour, 10), (centre, radius), facts if count == 1 else {})
        placed.append((this_kind, this_colour, float(centre[0]), float(centre[1])))
    _relations(facts, placed, size, alike=(alike_kind or count == 1, alike_colour or count == 1))
    return _finish(rng, image, size, facts, plain=ground == "plain")


def _put(
    rng: np.random.Generator,
    image: Image,
    kind: str,
    colour: NDArray[np.float32],
    spot: tuple[NDArray[np.float64], float],
    facts: dict[str, str],
) -> None:
    centre, radius = spot
    turn = rng.normal(0, 0.15) if kind in ("square", "diamond", "plus", "rectangle") else rng.uniform(-0.5, 0.5)
    rotate = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    outline = _polygon(kind, radius) @ rotate + centre
    shape = (image.shape[0], image.shape[1])
    style = rng.random()
    if style < 0.7 or radius < 10:
        blend(image, polygon_mask(shape, [outline]), colour)
        if style < 0.5:
            facts["fill"] = "filled"
    elif style < 0.88:
        blend(image, lines_mask(shape, [np.vstack([outline, outline[:1]])], [rng.uniform(1.5, 3)]), colour)
        facts["fill"] = "outline"
    else:
        mask = polygon_mask(shape, [outline])
        y = np.arange(shape[0], dtype=np.float32)[:, None]
        stripes = (np.sin(y * 2 * np.pi / max(4.0, radius / 3)) > 0).astype(np.float32)
        blend(image, mask * stripes, colour)
        facts["fill"] = "striped"


def _relations(
    facts: dict[str, str],
    placed: list[tuple[str, str, float, float]],
    size: tuple[int, int],
    *,
    alike: tuple[bool, bool],
) -> None:
    if alike[0]:
        facts["shape"] = placed[0][0]
    if alike[1]:
        facts["colour"] = placed[0][1]
    if len(placed) == 1:
        at = Place(placed[0][2], placed[0][3], 0, 0, 0, np.zeros(3, np.float32), 1, 1)
        _where(facts, at, size)
    if len(placed) == 2 and placed[0][:2] != placed[1][:2]:
        (kind_a, colour_a, xa, ya), (kind_b, colour_b, xb, yb) = placed
        facts["first"], facts["second"] = f"{colour_a} {kind_a}", f"{colour_b} {kind_b}"
        if abs(xa - xb) > abs(ya - yb) * 1.3:
            facts["relation"] = "left" if xa < xb else "right"
        elif abs(ya - yb) > abs(xa - xb) * 1.3:
            facts["relation"] = "above" if ya < yb else "below"


def _texture(rng: np.random.Generator, size: tuple[int, int]) -> Picture:
    """A bare surface, evenly or unevenly lit."""
    ground = str(rng.choice(SURFACES))
    name = str(rng.choice(list(COLOURS)))
    image = surface(rng, size, ground, near(rng, name))
    facts = {"texture": ground}
    if ground in ("plain", "grainy", "brushed", "cloudy"):
        facts["background"] = name
    if rng.random() < 0.5 and ground not in ("glossy", "cloudy"):
        side, angle = [("right", 0.0), ("bottom", np.pi / 2), ("left", np.pi), ("top", -np.pi / 2)][rng.integers(4)]
        relight(rng, image, angle + rng.normal(0, 0.12), rng.uniform(0.35, 0.7))
        facts["light"] = side
    if rng.random() < 0.3:
        image = warp(rng, image, 0.12)
    return _finish(rng, image, size, facts, plain=False)

"""What the facts of a picture are called: per attribute family the values, their names, descriptions and questions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Value:
    """One answer of a family."""

    names: tuple[str, ...]
    """What it is called; each name belongs to one value of its family."""
    descriptions: tuple[str, ...] = ()
    """What it looks like, in other words than its names."""


@dataclass(frozen=True)
class Family:
    """One thing that can be asked about a picture."""

    values: dict[str, Value]
    questions: tuple[str, ...]
    held_out: str
    """A wording that is never trained on, for the evaluation."""
    claim: str
    """A statement with `{}` in the place of a name."""


def _family(rows: dict[str, str], questions: tuple[str, ...], *, held_out: str, claim: str = "it is {}") -> Family:
    """Reads rows such as `"crack": "crack, fissure: a jagged line; a line that forks"`."""
    values = {}
    for key, row in rows.items():
        names, _, descriptions = row.partition(":")
        split = tuple(part.strip() for part in descriptions.split(";") if part.strip())
        values[key] = Value(tuple(name.strip() for name in names.split(",")), split)
    return Family(values, questions, held_out, claim)


_COLOURS = {
    "red": "red, scarlet: like blood; like a ripe tomato",
    "orange": "orange: like a carrot; between red and yellow",
    "yellow": "yellow: like a lemon; like the sun",
    "green": "green: like grass; like leaves",
    "turquoise": "turquoise, cyan: between green and blue; like shallow sea",
    "blue": "blue: like the sky; like deep water",
    "purple": "purple, violet: between red and blue; like a plum",
    "pink": "pink, rose: a pale red; like a flamingo",
    "brown": "brown: like earth; like wood",
    "black": "black: like coal; without any light",
    "grey": "grey, gray: between black and white; like ash",
    "white": "white: like snow; like paper",
}

MARKS = _family(
    {
        "crack": "crack, fissure, fracture, split: a jagged line with branches; a thin broken line that forks",
        "scratch": "scratch, scrape, hairlines, scuff: thin straight lines; fine lines side by side",
        "dent": "dent, hollow, dimple, dip: a smooth shaded hollow; a soft dip without lines",
        "bump": "bump, bulge, mound: a smooth shaded rise; something that swells out",
        "hole": "hole, puncture, opening: a dark round opening; a place where something is missing",
        "stain": "stain, blotch, spill: a flat soft patch; a spot of another tone",
        "smudge": "smudge, smear, haze: a faint streak of dirt; a soft pale streak",
        "splash": "splash, splatter: a drop burst into many; drops around a large drop",
        "scribble": "scribble, doodle: a pen line round and round; a tangled loop",
        "wave": "wave, ripple line: a line that swings evenly; a soft up and down line",
        "dashes": "dashes, dashed line: a line with gaps; short strokes in a row",
        "dots": "dots, dotted line: a row of round spots; points in a line",
        "zigzag": "zigzag, sawtooth: a line with even sharp corners; up and down with sharp points",
        "spiral": "spiral, coil: a line winding outwards; a curl round its centre",
        "cross": "cross, x mark: two strokes that meet; crossed strokes",
        "ring": "ring, loop, hoop: a closed round line; a circle drawn as a line",
        "web": "web, mesh, net: many fine lines joined; a net of lines",
        "rust": "rust, corrosion: a rough brown patch; rough orange spots",
        "drip": "drips, runs, streaks: strokes that run down; paint that ran down",
        "crease": "crease, fold, ridge: a straight fold with light and shade; a long shaded edge",
        "chip": "chip, flake, spall: a small sharp cornered piece gone; a flake with a dark edge",
        "gouge": "gouge, groove, notch: a short deep cut; a thick cut with a bright edge",
        "ripple": "ripples, rings of light: rings of light and shade; round waves",
        "hatch": "hatching, lattice, grid: two sets of lines that cross; a small grid",
        "burst": "burst, impact star: lines out of one point; rays around a centre",
        "speckles": "speckles, pits, specks: many tiny dots; fine dots spread out",
        "blisters": "blisters, bubbles: several small bubbles; little round bumps",
        "band": "band, broad stripe: one thick straight stripe; a wide bar",
        "arc": "arc, bow, curve: one smooth bent line; part of a circle line",
        "patch": "patch, sticker, label: a flat piece with four corners; a small sheet stuck on",
        "tear": "tear, rip, slit: a long dark slit; an opening wide in the middle",
        "none": "nothing, no mark, clean: a bare surface; nothing to be seen",
    },
    (
        "What kind of mark is this?",
        "What mark do you see?",
        "What is on the surface?",
        "Which mark is in the picture?",
        "What kind of fault is shown?",
        "Which defect does the picture show?",
        "What damage is visible?",
        "What happened to this surface?",
        "Name the mark.",
        "What type of flaw is this?",
        "What does this image show?",
        "Which kind of damage is this?",
        "Look at the surface. What is there?",
        "What is wrong with this part?",
        "Classify the defect.",
        "What kind of line or spot is drawn here?",
    ),
    held_out="What kind of damage does this photo show?",
    claim="the mark is {}",
)

FAMILIES: dict[str, Family] = {
    "mark": MARKS,
    "colour": _family(
        _COLOURS,
        (
            "What colour is it?",
            "Which colour does the shape have?",
            "What is the colour of the figure?",
            "Name the colour of the drawing.",
            "What colour are the things in front?",
            "In which colour is it drawn?",
        ),
        held_out="What is the colour of the thing in this photo?",
    ),
    "background": _family(
        _COLOURS,
        (
            "What colour is the background?",
            "Which colour does the surface have?",
            "What is the colour behind?",
            "Name the colour of the background.",
            "What colour is the ground?",
            "Which paint colour is this?",
        ),
        held_out="What colour is the ground in this photo?",
        claim="the background is {}",
    ),
    "shape": _family(
        {
            "circle": "circle, disc: round all over; no corners at all",
            "square": "square: four equal sides",
            "triangle": "triangle: three corners; three sides",
            "rectangle": "rectangle, oblong: longer than wide with four corners",
            "oval": "oval, ellipse: a long round form; like an egg",
            "star": "star: five points; like in the night sky",
            "diamond": "diamond, rhombus: a square on its tip",
            "pentagon": "pentagon: five corners; five sides",
            "hexagon": "hexagon: six corners; six sides",
            "plus": "plus, cross: two bars that meet",
            "heart": "heart: the sign of love",
            "arrow": "arrow: it points somewhere",
            "moon": "moon, crescent: a thin curved form",
        },
        (
            "What shape is this?",
            "Which shape do you see?",
            "Name the shape.",
            "What form does the thing have?",
            "What kind of figure is drawn?",
            "Which figure is in the picture?",
        ),
        held_out="What kind of shape does this photo show?",
        claim="the shape is {}",
    ),
    "count": _family(
        {
            "one": "one, 1: a single thing",
            "two": "two, 2: a pair",
            "three": "three, 3",
            "four": "four, 4",
            "five": "five, 5",
            "six": "six, 6",
        },
        (
            "How many shapes are there?",
            "Count the shapes.",
            "What is the number of figures?",
            "How many things do you see?",
            "How many are drawn?",
        ),
        held_out="How many shapes does this photo show?",
        claim="the number of shapes is {}",
    ),
    "size": _family(
        {"small": "small, little, tiny: it fills a small part", "large": "large, big: it fills much of the picture"},
        ("How large is the shape?", "What size is it?", "Is it small or large?", "Which size does the figure have?"),
        held_out="What size is the shape in this photo?",
        claim="the shape is {}",
    ),
    "fill": _family(
        {
            "filled": "filled, solid: colour all over",
            "outline": "outline, hollow, empty: only the edge is drawn",
            "striped": "striped, barred: bars with gaps",
        },
        ("How is the shape filled?", "What is inside the shape?", "Which fill does it have?", "How is it painted?"),
        held_out="How is the shape in this photo filled?",
        claim="the shape is {}",
    ),
    "side": _family(
        {"left": "left, left side", "right": "right, right side"},
        ("On which side is it?", "Is it left or right?", "Which half is it in?", "Where is the mark, left or right?"),
        held_out="On which side of the photo is it?",
        claim="it is on the {}",
    ),
    "height": _family(
        {"top": "top, upper half, up", "bottom": "bottom, lower half, down"},
        (
            "Is it at the top or the bottom?",
            "How high is it?",
            "Where is the mark, up or down?",
            "Which half is it in?",
        ),
        held_out="In which half of the photo is it?",
        claim="it is at the {}",
    ),
    "direction": _family(
        {
            "horizontal": "horizontal, level: from side to side; like the horizon",
            "vertical": "vertical, upright: straight up; like a tree",
            "diagonal": "diagonal, slanted: from corner to corner; like a hill side",
        },
        ("Which way does it run?", "What is the direction of the line?", "How does the mark lie?", "How is it turned?"),
        held_out="In which direction does the mark in this photo run?",
    ),
    "texture": _family(
        {
            "plain": "plain, even, flat: one colour only; no pattern",
            "cloudy": "cloudy, marbled: soft light and dark areas",
            "brushed": "brushed, streaky: fine lines all one way",
            "grainy": "grainy, sandy: fine random grain",
            "striped": "striped, stripes: bars side by side",
            "checked": "checked, chequered: squares in two tones; like a chess board",
            "tiled": "tiled, tiles, squared: thin lines that make squares",
            "woven": "woven, fabric: soft spots in two ways; like cloth",
            "spotted": "spotted, polka dots: many round spots in rows",
            "glossy": "glossy, shiny: soft bands of light; like polished metal",
        },
        (
            "What texture is this?",
            "Which pattern do you see?",
            "What is the surface like?",
            "Name the pattern.",
            "How does the surface look?",
        ),
        held_out="What kind of pattern does this photo show?",
        claim="the surface is {}",
    ),
    "light": _family(
        {
            "left": "left, from the left",
            "right": "right, from the right",
            "top": "top, from above",
            "bottom": "bottom, from below",
        },
        ("Where does the light come from?", "Which side is brighter?", "Where is the lamp?", "Which side is lit?"),
        held_out="Which side of this photo is brighter?",
        claim="the light comes from the {}",
    ),
    "focus": _family(
        {"blurry": "blurry, blurred, soft: edges are washed out", "sharp": "sharp, crisp: edges are clear"},
        ("Is the picture sharp?", "How are the edges?", "How is the focus?", "Is it in focus?"),
        held_out="Is this photo in focus?",
        claim="the picture is {}",
    ),
    "noise": _family(
        {"noisy": "noisy, rough: grains everywhere", "clean": "clean, smooth: no grain"},
        ("Is the picture noisy?", "How much grain is there?", "How good is the camera?"),
        held_out="How noisy is this photo?",
        claim="the picture is {}",
    ),
    "relation": _family(
        {
            "left": "left, to the left",
            "right": "right, to the right",
            "above": "above, over",
            "below": "below, under",
        },
        (
            "Where is the {first}, seen from the {second}?",
            "Where is the {first} relative to the {second}?",
            "The {second} is here. Where is the {first}?",
        ),
        held_out="In this photo, where is the {first} from the {second}?",
        claim="the {first} is {} the {second}",
    ),
}

WEAK_WORDS = ("crack", "scratch", "dent")
"""Learned on abstract drawings alone, so that photos of damage are a new thing when the demo asks about them."""

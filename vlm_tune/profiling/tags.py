"""Which photos deserve a look, and why: each tag, its limit, and who gets it.

The limits are fixed, so that a photo's tags do not depend on the company it keeps. They were chosen on steel
surfaces, magnetic tiles, groceries and CIFAR-100 by looking at what they pick; cleanvision's limits, for
comparison, are .32 (dark, by the same 99th percentile), .05 (light, by the 5th), .29 (blurry, another measure) and
.35 (odd shape).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vlm_tune.profiling.measures import Measures
from vlm_tune.profiling.records import CopyGroup
from vlm_tune.records import Example

__all__ = ["TAGS", "tags_of"]

_DARK = 0.30
_BRIGHT = 0.85
_BLURRY = 0.75
_EMPTY = 0.01
_ODD = 3.0

TAGS: Mapping[str, str] = {
    "unreadable": "the file does not decode",
    "conflict": "a copy of it carries another label",
    "leak": "another split holds a copy of it",
    "duplicate": "its own split holds a copy of it",
    "ambiguous": "the source itself was not sure of the label",
    "dark": f"99 % of it is darker than {100 * _DARK:.0f} % of white",
    "bright": f"95 % of it is brighter than {100 * _BRIGHT:.0f} % of white",
    "blurry": "its edges are as soft as after a Gaussian blur of one pixel, at 512 pixels",
    "empty": f"less than {100 * _EMPTY:.0f} % of it shows any detail",
    "odd_shape": f"more than {_ODD:g} times as long as wide, or as wide as long",
}
"""Every tag and what earns it, gravest first."""

_YES = frozenset({"true", "yes", "1"})


def tags_of(
    examples: Sequence[Example], measures: Mapping[str, Measures], copies: Iterable[CopyGroup]
) -> dict[str, tuple[str, ...]]:
    """Return the ids that each tag applies to, in the dataset's order; every tag is there.

    Args:
        examples: The photos.
        measures: Example id to what was measured; ids left out are unreadable.
        copies: Photos that are copies of each other.
    """
    given: dict[str, set[str]] = {
        "unreadable": {example.id for example in examples if example.id not in measures},
        "ambiguous": {example.id for example in examples if _is_ambiguous(example.metadata)},
        "conflict": set(),
        "leak": set(),
        "duplicate": set(),
    }
    for group in copies:
        given["duplicate"].update(group.twins)
        given["conflict"].update(group.ids if group.is_conflict else ())
        given["leak"].update(group.ids if group.is_leak else ())
    for example_id, found in measures.items():
        for tag in _looks(found):
            given.setdefault(tag, set()).add(example_id)
    order = [example.id for example in examples]
    return {tag: tuple(name for name in order if name in given.get(tag, ())) for tag in TAGS}


def _looks(photo: Measures) -> Iterable[str]:
    if photo.brightest < _DARK:
        yield "dark"
    if photo.darkest > _BRIGHT:
        yield "bright"
    if photo.detail < _EMPTY:
        yield "empty"
    # Where nothing is seen there is no edge that could be sharp.
    elif photo.sharpness < _BLURRY:
        yield "blurry"
    if max(photo.width, photo.height) > _ODD * min(photo.width, photo.height):
        yield "odd_shape"


def _is_ambiguous(metadata: Mapping[str, Any]) -> bool:
    # A table's cells arrive as text.
    return str(metadata.get("ambiguous", "")).strip().lower() in _YES

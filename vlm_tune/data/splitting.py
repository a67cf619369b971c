"""Who goes where: stratified splits and nested subsets, the same for a seed on every machine.

Chance comes from hashing the seed with the example's id, so an outcome depends neither on the order of the
examples nor on a library's random numbers.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from vlm_tune.errors import SplitError

__all__ = [
    "SPLITS",
    "SplitName",
    "draw",
    "nested_order",
    "parse_split",
    "refuse_small",
    "shuffled",
    "split_fractions",
    "split_stratified",
]

SplitName = Literal["train", "validation", "test"]
"""The three parts of a dataset."""

SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")

_SPELLINGS: Mapping[str, SplitName] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}


def parse_split(text: str) -> SplitName | None:
    """Return the split that a folder name or table cell means, in any case, or None.

    Examples:
        >>> parse_split("Valid")
        'validation'
    """
    return _SPELLINGS.get(text.strip().lower())


def split_fractions(*, test: float, validation: float) -> dict[SplitName, float]:
    """Return the share of each split that is asked for, training first.

    Raises:
        SplitError: A share is negative, both are zero, or nothing is left to train on.
    """
    if test < 0 or validation < 0 or not 0 < test + validation < 1:
        raise SplitError(
            f"test={test:g} and validation={validation:g} cannot be split off: both must be at least 0, "
            "and together more than 0 and less than 1"
        )
    shares: dict[SplitName, float] = {"train": 1 - test - validation, "validation": validation, "test": test}
    return {name: share for name, share in shares.items() if share > 0}


def split_stratified(
    labels: Mapping[str, str], shares: Mapping[SplitName, float], *, seed: int
) -> dict[str, SplitName]:
    """Assign examples one by one so that every class is cut in the same proportions.

    The size of each split is its share of the whole, rounded; within a class the counts differ from the exact
    proportion by less than one, save that each class appears at least once in every split.

    Args:
        labels: Example id to class. Give every example the same class for a plain random split.
        shares: Split to its share; the shares sum to one.
        seed: Another seed gives another split.

    Raises:
        SplitError: A class has fewer examples than there are splits.
    """
    members: dict[str, list[str]] = defaultdict(list)
    for example_id in shuffled(labels, seed):
        members[labels[example_id]].append(example_id)
    refuse_small({label: len(ids) for label, ids in members.items()}, shares, unit="example")
    taken: dict[str, SplitName] = {}
    held_out = [name for name in shares if name != "train"]
    for name in held_out:
        wanted = {label: len(ids) * shares[name] for label, ids in members.items()}
        room = {
            label: sum(example_id not in taken for example_id in ids) - _later(held_out, name)
            for label, ids in members.items()
        }
        for label, count in _quotas(wanted, room).items():
            free = (example_id for example_id in members[label] if example_id not in taken)
            taken.update({example_id: name for example_id, _ in zip(free, range(count), strict=False)})
    return {example_id: taken.get(example_id, "train") for example_id in labels}


def _later(held_out: Sequence[SplitName], name: SplitName) -> int:
    """Return how many splits, training included, still need one example of each class after `name`."""
    return len(held_out) - held_out.index(name)


def _quotas(wanted: Mapping[str, float], room: Mapping[str, int]) -> dict[str, int]:
    """Round per-class counts by largest remainder, so that they add up to the rounded total."""
    counts = {label: min(max(1, math.floor(exact)), room[label]) for label, exact in wanted.items()}
    total = round(sum(wanted.values()))
    by_remainder = sorted(wanted, key=lambda label: (counts[label] - wanted[label], label))
    for label in by_remainder:
        if sum(counts.values()) >= total:
            break
        counts[label] += counts[label] < room[label]
    return counts


def nested_order(strata: Mapping[str, str], *, seed: int) -> list[str]:
    """Return the ids in an order whose every beginning is stratified.

    Each stratum is shuffled and spread evenly over the order; the first of each comes at the very front, so a
    beginning shows every stratum as soon as it is long enough.

    Args:
        strata: Example id to stratum, such as its class.
        seed: Another seed gives another order.
    """
    sizes = Counter(strata.values())
    seen: Counter[str] = Counter()
    ranked: list[tuple[float, int, str]] = []
    for position, example_id in enumerate(shuffled(strata, seed)):
        stratum = strata[example_id]
        ranked.append((seen[stratum] / sizes[stratum], position, example_id))
        seen[stratum] += 1
    return [example_id for _, _, example_id in sorted(ranked)]


def shuffled(ids: Iterable[str], seed: int) -> list[str]:
    """Return the ids in an order that depends on the seed and on each id alone."""
    return sorted(ids, key=lambda example_id: (draw(seed, example_id), example_id))


def draw(seed: int, name: str) -> bytes:
    """Return bytes that depend on the seed and the name alone: what decides instead of chance."""
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()


def refuse_small(sizes: Mapping[str, int], shares: Mapping[SplitName, float], *, unit: str) -> None:
    """Raise a `SplitError` that lists the classes with too few members to be in every split."""
    small = sorted(label for label, size in sizes.items() if size < len(shares))
    if small:
        listed = ", ".join(f"{label!r} ({sizes[label]})" for label in small[:5]) + (", ..." if small[5:] else "")
        raise SplitError(
            f"too few {unit}s of {listed}: each class needs at least {len(shares)} {unit}s to appear in "
            f"{' and '.join(shares)}; add photos, or leave the class out with filter()"
        )

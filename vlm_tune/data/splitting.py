"""Who goes where: stratified and grouped splits, and nested subsets, the same for a seed on every machine.

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
    "nested_order",
    "parse_split",
    "split_fractions",
    "split_grouped",
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
_PASSES = 20


def parse_split(text: str) -> SplitName | None:
    """Return the split that a folder name or table cell means, in any case, or None.

    Example:
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
    _refuse_small({label: len(ids) for label, ids in members.items()}, shares, unit="example")
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


def split_grouped(
    labels: Mapping[str, str],
    groups: Mapping[str, str],
    shares: Mapping[SplitName, float],
    *,
    seed: int,
) -> dict[str, SplitName]:
    """Assign whole groups so that every class is cut as nearly in the same proportions as groups allow.

    Groups are dealt one at a time, large ones first, each to the split where it lowers the chi-square
    distance between the counts and the wanted counts most. Then groups move while that shows a class in a
    split that lacked it, or lowers the distance further.

    Args:
        labels: Example id to class.
        groups: Example id to group; an example without one is a group of its own.
        shares: Split to its share; the shares sum to one.
        seed: Another seed gives another split.

    Raises:
        SplitError: A class lives in fewer groups than there are splits, or no arrangement was found that
            shows every class in every split.
    """
    members: dict[tuple[bool, str], list[str]] = defaultdict(list)
    for example_id in labels:
        group = groups.get(example_id)
        members[(True, group) if group is not None else (False, example_id)].append(example_id)
    counts = {key: Counter(labels[example_id] for example_id in ids) for key, ids in members.items()}
    homes = Counter(label for count in counts.values() for label in count)
    _refuse_small(homes, shares, unit="group")
    keys = sorted(members, key=lambda key: (-len(members[key]).bit_length(), _draw(seed, key[1]), key))
    deal = _Deal([counts[key] for key in keys], shares)
    deal.improve()
    if missing := deal.missing():
        label, name = missing
        raise SplitError(
            f"no arrangement of the {len(keys)} groups was found that puts class {label!r} into {name}; "
            "try another seed, fewer splits, or smaller groups"
        )
    return {example_id: deal.home[index] for index, key in enumerate(keys) for example_id in members[key]}


class _Deal:
    """Groups dealt to splits, and what a change of hands would do."""

    def __init__(self, groups: Sequence[Counter[str]], shares: Mapping[SplitName, float]) -> None:
        self.groups = groups
        self.home: list[SplitName] = []
        totals: Counter[str] = Counter()
        for group in groups:
            totals.update(group)
        self.want = {name: {label: n * share for label, n in totals.items()} for name, share in shares.items()}
        self.have: dict[SplitName, Counter[str]] = {name: Counter() for name in shares}
        for group in groups:
            name = min(self.have, key=lambda name: self._effect(name, group, 1)[1])
            self.home.append(name)
            self.have[name].update(group)

    def improve(self) -> None:
        """Move single groups, small ones first, to show more classes in each split or lower the distance."""
        for _ in range(_PASSES):
            moved = False
            for index in reversed(range(len(self.groups))):
                group, here = self.groups[index], self.home[index]
                leaving = self._effect(here, group, -1)
                arriving = {name: self._effect(name, group, 1) for name in self.have if name != here}
                best = min(arriving, key=arriving.__getitem__)
                if (leaving[0] + arriving[best][0], leaving[1] + arriving[best][1]) < (0, -1e-9):
                    self.have[here].subtract(group)
                    self.have[best].update(group)
                    self.home[index] = best
                    moved = True
            if not moved:
                return

    def missing(self) -> tuple[str, SplitName] | None:
        """Return a class and a split that lacks it."""
        for name, want in self.want.items():
            for label in want:
                if self.have[name][label] == 0:
                    return label, name
        return None

    def _effect(self, name: SplitName, group: Counter[str], sign: int) -> tuple[int, float]:
        """Return how many more classes a split would lack, and by how much the distance would grow."""
        have, want = self.have[name], self.want[name]
        lacking, distance = 0, 0.0
        for label, count in group.items():
            before, after = have[label], have[label] + sign * count
            lacking += (after == 0) - (before == 0)
            distance += ((after - want[label]) ** 2 - (before - want[label]) ** 2) / want[label]
        return lacking, distance


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
    return sorted(ids, key=lambda example_id: (_draw(seed, example_id), example_id))


def _draw(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()


def _refuse_small(sizes: Mapping[str, int], shares: Mapping[SplitName, float], *, unit: str) -> None:
    small = sorted(label for label, size in sizes.items() if size < len(shares))
    if small:
        listed = ", ".join(f"{label!r} ({sizes[label]})" for label in small[:5]) + (", ..." if small[5:] else "")
        raise SplitError(
            f"too few {unit}s of {listed}: each class needs at least {len(shares)} {unit}s to appear in "
            f"{' and '.join(shares)}; add photos, or leave the class out with filter()"
        )

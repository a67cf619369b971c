"""Splits that keep groups whole: groups are dealt like cards, then change hands while that helps."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence

from vlm_tune.data.splitting import SplitName, draw, refuse_small
from vlm_tune.errors import SplitError

__all__ = ["split_grouped"]

_PASSES = 20


def split_grouped(
    labels: Mapping[str, Collection[str]],
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
        labels: Example id to its classes.
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
    counts = {key: Counter(label for example_id in ids for label in labels[example_id]) for key, ids in members.items()}
    homes = Counter(label for count in counts.values() for label in count)
    refuse_small(homes, shares, unit="group")
    keys = sorted(members, key=lambda key: (-len(members[key]).bit_length(), draw(seed, key[1]), key))
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

"""Splits and nested subsets of photos that show several classes, by iterative stratification.

The rarest class is dealt first, each photo of it to the split that still wants most of that class: K. Sechidis,
G. Tsoumakas and I. Vlahavas, On the Stratification of Multi-Label Data, ECML PKDD 2011, algorithm 1. Where the
paper breaks ties by chance, the order of the photos decides, and that follows from the seed and their ids. Then
single photos change hands until each split shows every class and has its size.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence

from vlm_tune.data.splitting import SplitName, refuse_small, shuffled
from vlm_tune.errors import SplitError

__all__ = ["nested_iterative", "split_iterative"]

_SMALL = 8
"""Photos that are too few for halves to mean much; cutting on would take most of the time."""


def split_iterative(
    labels: Mapping[str, Collection[str]], shares: Mapping[SplitName, float], *, seed: int
) -> dict[str, SplitName]:
    """Assign examples so that every class is cut as nearly in the same proportions as their overlap allows.

    The size of each split is its share of the whole, rounded, unless a class would leave a split for that.

    Args:
        labels: Example id to its classes, at least one.
        shares: Split to its share; the shares sum to one.
        seed: Another seed gives another split.

    Raises:
        SplitError: A class has fewer examples than there are splits, or cannot be put into each.
    """
    refuse_small(Counter(label for members in labels.values() for label in members), shares, unit="example")
    order = shuffled(labels, seed)
    hands = _Hands(order, labels, list(shares.values()))
    if missing := hands.cover():
        label, side = missing
        raise SplitError(
            f"no photo of class {label!r} can go to {list(shares)[side]} without another class leaving its split; "
            "add photos, or try another seed"
        )
    hands.level()
    names = list(shares)
    return {example_id: names[hands.home[example_id]] for example_id in labels}


def nested_iterative(labels: Mapping[str, Collection[str]], *, seed: int) -> list[str]:
    """Return the ids in an order whose beginnings keep the proportions of every class.

    The front shows each class once. The rest is cut into two stratified halves, these into halves, and so on:
    a beginning holds whole halves, and a part of the next.

    Args:
        labels: Example id to its classes, at least one.
        seed: Another seed gives another order.
    """
    order = shuffled(labels, seed)
    front = _one_of_each(order, labels)
    taken = set(front)
    return front + _halved([example_id for example_id in order if example_id not in taken], labels)


def _halved(order: Sequence[str], labels: Mapping[str, Collection[str]]) -> list[str]:
    if len(order) < _SMALL:
        return list(order)
    home = _deal(order, labels, (0.5, 0.5))
    first = [example_id for example_id in order if home[example_id] == 0]
    second = [example_id for example_id in order if home[example_id] == 1]
    if not first or not second:
        return first + second
    return _halved(first, labels) + _halved(second, labels)


def _one_of_each(order: Sequence[str], labels: Mapping[str, Collection[str]]) -> list[str]:
    """Return ids, as few as come easily, that show every class; rare classes choose first."""
    holders: dict[str, list[str]] = defaultdict(list)
    for example_id in order:
        for label in labels[example_id]:
            holders[label].append(example_id)
    front: list[str] = []
    seen: set[str] = set()
    for label in sorted(holders, key=lambda label: (len(holders[label]), label)):
        if label not in seen:
            front.append(holders[label][0])
            seen.update(labels[holders[label][0]])
    return front


def _deal(order: Sequence[str], labels: Mapping[str, Collection[str]], shares: Sequence[float]) -> dict[str, int]:
    """Return the side, as an index into `shares`, of each id."""
    holders: dict[str, list[str]] = defaultdict(list)
    for example_id in order:
        for label in labels[example_id]:
            holders[label].append(example_id)
    left = {label: len(ids) for label, ids in holders.items()}
    want = {label: [count * share for share in shares] for label, count in left.items()}
    room = [len(order) * share for share in shares]
    home: dict[str, int] = {}
    while left:
        label = min(left, key=lambda label: (left[label], label))
        for example_id in holders[label]:
            if example_id in home:
                continue
            wanted = want[label]
            side = max(range(len(shares)), key=lambda side: (wanted[side], room[side], -side))
            home[example_id] = side
            room[side] -= 1
            for other in labels[example_id]:
                want[other][side] -= 1
                left[other] -= 1
        del left[label]
    return home


class _Hands:
    """What each split was dealt, and how single photos change hands afterwards.

    The paper stops when all are dealt. That can round a rare class out of a small split, and miss its size by
    some photos.
    """

    def __init__(self, order: Sequence[str], labels: Mapping[str, Collection[str]], shares: Sequence[float]) -> None:
        self.home = _deal(order, labels, shares)
        totals = Counter(label for example_id in order for label in labels[example_id])
        self.want = [{label: count * share for label, count in totals.items()} for share in shares]
        self.have = [Counter[str]() for _ in shares]
        # Photos that show the same classes are interchangeable; the first in order is on top.
        self.piles: list[dict[tuple[str, ...], list[str]]] = [defaultdict(list) for _ in shares]
        for example_id in reversed(order):
            kind = tuple(sorted(labels[example_id]))
            self.piles[self.home[example_id]][kind].append(example_id)
            self.have[self.home[example_id]].update(kind)
        self.kinds = sorted({kind for piles in self.piles for kind in piles})
        held_out = [round(len(order) * share) for share in shares[1:]]
        self.over = Counter(self.home.values())
        self.over.subtract(dict(enumerate([len(order) - sum(held_out), *held_out])))

    def cover(self) -> tuple[str, int] | None:
        """Show every class in every split; return a class and a split where that cannot be."""
        sides = range(len(self.have))
        for label in sorted(self.want[0]):
            for side in sides:
                moves = [(kind, here) for here in sides for kind in self.kinds if label in kind]
                if not self.have[side][label] and not self._make_best([(*move, side) for move in moves]):
                    return label, side
        return None

    def level(self) -> None:
        """Bring each split to its size, with as little harm to the proportions as that takes."""
        sides = range(len(self.have))
        while any(self.over[side] > 0 for side in sides):
            full = [side for side in sides if self.over[side] > 0]
            short = [side for side in sides if self.over[side] < 0]
            if not self._make_best([(kind, here, there) for kind in self.kinds for here in full for there in short]):
                return

    def _make_best(self, moves: Sequence[tuple[tuple[str, ...], int, int]]) -> bool:
        """Make the possible move that keeps the proportions best; return whether there is one."""
        possible = [
            (kind, here, there)
            for kind, here, there in moves
            if self.piles[here].get(kind) and all(self.have[here][label] > 1 for label in kind)
        ]
        if not possible:
            return False
        kind, here, there = min(possible, key=lambda move: self._cost(*move))
        example_id = self.piles[here][kind].pop()
        self.piles[there][kind].append(example_id)
        self.home[example_id] = there
        self.have[here].subtract(kind)
        self.have[there].update(kind)
        self.over.update({here: -1, there: 1})
        return True

    def _cost(self, kind: tuple[str, ...], here: int, there: int) -> float:
        """Return by how much a move increases the chi-square distance from the proportions."""
        cost = 0.0
        for side, step in ((here, -1), (there, 1)):
            for label in kind:
                want, have = self.want[side][label], self.have[side][label]
                cost += ((have + step - want) ** 2 - (have - want) ** 2) / want
        return cost

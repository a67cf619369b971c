"""Finding copies: which pairs are worth a proof, between splits and within one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from vlm_tune.data.splitting import SplitName
from vlm_tune.leakage.cut import Cut, choose_cut
from vlm_tune.leakage.links import Links
from vlm_tune.leakage.proving import Indices, Pair, Prover, Scores

__all__ = ["ACROSS", "Found", "Search"]

ACROSS: tuple[tuple[SplitName, SplitName], ...] = (
    ("test", "train"),
    ("validation", "train"),
    ("test", "validation"),
)
"""The comparisons between splits; the first of each is the evaluation side."""

MAX_ABOVE_CUT = 20
"""Pairs above the cut that are verified for one photo; further copies of it are found from their own side."""
MAX_ROUNDS = 8
"""Times that the candidates behind copies already found are looked at."""
NULL_SAMPLE = 1000
"""Training photos whose nearest other training photo is looked up for the cut."""

Splits = tuple[SplitName | None, SplitName | None]

Found = dict[Pair, float]
"""Pairs of rows with their similarity."""


class Search:
    """One search under way.

    Args:
        prover: The photos.
        shortlist: Photos that are always verified for each photo of an evaluation split.
        home: The split whose photos say how alike photos are anyway.
    """

    def __init__(self, prover: Prover, *, shortlist: int, home: SplitName | None) -> None:
        self._prover = prover
        self._shortlist = shortlist
        self._home = home
        self._neighbours: dict[Splits, tuple[Indices, Scores]] = {}
        self._votes: dict[Splits, Indices] = {}

    @cached_property
    def null(self) -> NDArray[np.float64]:
        """Similarity of up to 1,000 photos of the home split to their nearest that is no copy of them."""
        rows = self._rows(self._home)
        indices, scores = self._near(self._home, self._home)
        waiting = np.arange(0, len(rows), -(-len(rows) // NULL_SAMPLE) or 1)
        found: list[float] = []
        for rank in range(min(self._shortlist, indices.shape[1])):
            waiting = waiting[np.isfinite(scores[waiting, rank])]
            pairs = [(int(rows[at]), int(indices[at, rank])) for at in waiting]
            self._prover.prove(_ordered(pairs))
            copies = np.array([self._prover.is_copy(pair) for pair in pairs], bool)
            found += scores[waiting[~copies], rank].tolist()
            waiting = waiting[copies]
        return np.array(found, np.float64)

    @cached_property
    def cut(self) -> Cut:
        """From where on a similarity is remarkable."""
        return choose_cut(self.null)

    def nearest(self, split: SplitName) -> NDArray[np.float64]:
        """Return the similarity of each distinct photo of a split to its nearest training photo."""
        return self._prover.nearest(self._rows(split), self._rows("train"), 1, itself=True)[1][:, 0]

    def across(self, a: SplitName, b: SplitName) -> Found:
        """Verify what is likely between two splits; returns every pair that was looked at.

        Each photo of `a` is compared with its candidates, and again with those that come next once the copies
        found in `b` are out of the way, as they are after a remedy that drops them. Each photo of `b` that is
        in no copy so far is compared with its nearest of `a`, where that reaches the cut or has so many copies
        that they may crowd out others: many copies of one photo are all found, and never all their pairs.
        """
        here, there = self._rows(a), self._rows(b)
        found: Found = {(int(row), int(row)): 1.0 for row in np.intersect1d(here, there)}
        nearest, likeness = self._prover.nearest(there, here, 1)
        copied: set[int] = set()
        for _ in range(MAX_ROUNDS):
            fresh = self.candidates(a, b, always=self._shortlist, without=copied)
            self._prover.prove(fresh)
            found |= fresh
            crowded, known = self._mostly_copies(found), self._copied(found)
            back = {
                (int(x), int(y)): float(score)
                for y, x, score in zip(there, nearest[:, 0], likeness[:, 0], strict=True)
                if int(y) not in known and (score >= self._least or (int(x) in crowded and np.isfinite(score)))
            }
            self._prover.prove(back)
            found |= back
            if (known := self._copied(found)) == copied:
                break
            copied = known
        return found

    def within(self) -> Iterator[tuple[SplitName | None, Found]]:
        """Yield for each split the links between copies in it.

        Each photo is compared with its nearest, and with others that reach the cut, unless the two hang
        together already: many copies of one photo give a chain of links, not all their pairs.
        """
        for split, rows in self._prover.rows.items():
            links = Links[int]()
            found: Found = {(int(row), int(row)): 1.0 for row in rows if self._prover.count(row, split) > 1}
            yield split, found | self._linked(_by_rank(self.candidates(split, split, always=1)), links)

    def around(
        self, seeds: Collection[int], mates: Mapping[int, Collection[int]]
    ) -> tuple[dict[SplitName | None, Found], set[int]]:
        """Follow copies inside each split, and mates, from some rows on.

        Args:
            seeds: Where to start.
            mates: Row to rows that must stay with it: those of its group.

        Returns:
            Split to the links found in it, and all rows reached: what must move together with the seeds.
        """
        found: dict[SplitName | None, Found] = {split: {} for split in self._prover.rows}
        links, seen, frontier = Links[int](), set(seeds), set(seeds)
        beside = {split: self._both_ways(split) for split in self._prover.rows} if seeds else {}
        while frontier:
            reached = {mate for row in frontier for mate in mates.get(row, ())}
            for split, near in beside.items():
                pairs = {(x, y): score for x in sorted(frontier) for y, score in near.get(x, ())}
                fresh = self._linked(_by_rank(pairs), links)
                found[split] |= fresh
                reached |= {row for pair in fresh for row in pair}
            frontier = reached - seen
            seen |= frontier
        return found, seen

    def candidates(
        self, a: SplitName | None, b: SplitName | None, *, always: int, without: Collection[int] = ()
    ) -> Found:
        """Return the pairs of two splits, or of one, that are worth a proof: the one place where they are chosen.

        Args:
            a: Split of the first photo of each pair.
            b: Split of the second.
            always: How many of each photo of `a` whatever their similarity: so many that share most of its
                details, and half as many that are nearest by embedding. Others have to reach the cut.
            without: Rows of `b` that do not count among the first.
        """
        gone = np.array(sorted(without), np.int64)
        rows, there = self._rows(a), self._rows(b)
        sharing = self._sharing(a, b)
        left = (sharing >= 0) & ~np.isin(sharing, gone)
        at, rank = np.nonzero(left & (left.cumsum(axis=1) <= always))
        scores = self._prover.similarities(rows[at], sharing[at, rank])
        found = {(int(rows[x]), int(sharing[x, y])): float(score) for x, y, score in zip(at, rank, scores, strict=True)}
        return found | self._alike(rows, there[~np.isin(there, gone)], self._near(a, b), always=-(-always // 2))

    def _alike(self, rows: Indices, left: Indices, near: tuple[Indices, Scores], *, always: int) -> Found:
        """The pairs that are nearest by embedding among what is left, and those that reach the cut."""
        indices, scores = near
        counts = np.isfinite(scores) & np.isin(indices, left)
        found = _pairs(rows, indices, scores, (counts & (counts.cumsum(axis=1) <= always)) | (scores >= self._least))
        short = counts.sum(axis=1) < always
        if short.any() and len(left):
            indices, scores = self._prover.nearest(rows[short], left, always)
            found |= _pairs(rows[short], indices, scores, np.isfinite(scores))
        return found

    @property
    def _least(self) -> float:
        return np.inf if self.cut.value is None else self.cut.value

    def _rows(self, split: SplitName | None) -> Indices:
        return self._prover.rows.get(split, np.zeros(0, np.int64))

    def _near(self, a: SplitName | None, b: SplitName | None) -> tuple[Indices, Scores]:
        """The rows of `b` nearest to each row of `a`, itself apart, with their similarity."""
        if (a, b) not in self._neighbours:
            depth = max(self._shortlist, MAX_ABOVE_CUT)
            self._neighbours[a, b] = self._prover.nearest(self._rows(a), self._rows(b), depth)
        return self._neighbours[a, b]

    def _sharing(self, a: SplitName | None, b: SplitName | None) -> Indices:
        """The rows of `b` that share most details with each row of `a`, itself apart."""
        if (a, b) not in self._votes:
            depth = max(self._shortlist, MAX_ABOVE_CUT)
            self._votes[a, b] = self._prover.sharing(self._rows(a), self._rows(b), depth)
        return self._votes[a, b]

    def _both_ways(self, split: SplitName | None) -> Mapping[int, list[tuple[int, float]]]:
        """The shortlist of each photo inside its split, and whose shortlist it is on, most similar first."""
        beside: defaultdict[int, dict[int, float]] = defaultdict(dict)
        for pair, score in self.candidates(split, split, always=self._shortlist).items():
            for x, y in (pair, pair[::-1]):
                beside[x][y] = score
        return {x: sorted(near.items(), key=lambda one: -one[1]) for x, near in beside.items()}

    def _linked(self, rounds: Iterable[Found], links: Links[int]) -> Found:
        """Verify pairs that do not hang together yet, and return those that are copies."""
        found: Found = {}
        for batch in rounds:
            fresh = _ordered(pair for pair in batch if not links.connects(*pair))
            self._prover.prove(fresh)
            for pair in fresh:
                if self._prover.is_copy(pair) and links.join(*pair):
                    found[pair] = batch.get(pair, batch.get(pair[::-1], 0.0))
        return found

    def _copied(self, pairs: Iterable[Pair]) -> set[int]:
        """Second rows of the pairs that are copies."""
        return {pair[1] for pair in pairs if self._prover.is_copy(pair)}

    def _mostly_copies(self, pairs: Iterable[Pair]) -> set[int]:
        """Rows at least half of whose pairs are copies."""
        copies: defaultdict[int, list[bool]] = defaultdict(list)
        for pair in pairs:
            copies[pair[0]].append(self._prover.is_copy(pair))
        return {row for row, are_copies in copies.items() if np.mean(are_copies) >= 0.5}


def _pairs(rows: Indices, indices: Indices, scores: Scores, wanted: NDArray[np.bool_]) -> Found:
    return {(int(rows[at]), int(indices[at, rank])): float(scores[at, rank]) for at, rank in np.argwhere(wanted)}


def _by_rank(pairs: Found) -> Iterator[Found]:
    """Yield the first pair of each row, then the second of each, and so on."""
    rounds: list[Found] = []
    turn: defaultdict[int, int] = defaultdict(int)
    for pair, score in pairs.items():
        if turn[pair[0]] == len(rounds):
            rounds.append({})
        rounds[turn[pair[0]]][pair] = score
        turn[pair[0]] += 1
    yield from rounds


def _ordered(pairs: Iterable[Pair]) -> list[Pair]:
    """Each pair once, the lower row first."""
    return list(dict.fromkeys((min(pair), max(pair)) for pair in pairs))

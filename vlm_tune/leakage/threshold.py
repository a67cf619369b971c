"""The fixed rule: a photo leaks when its similarity to a training photo reaches a number, whatever its pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlm_tune.data.splitting import SplitName
from vlm_tune.leakage.links import Links
from vlm_tune.leakage.pairs import LeakPair
from vlm_tune.leakage.proving import Indices, Pair, Prover
from vlm_tune.leakage.search import Found

__all__ = ["FixedRule"]

Cosines = NDArray[np.float64]

EVALUATION: tuple[SplitName, ...] = ("validation", "test")


class FixedRule:
    """A check by one number: any evaluation photo whose greatest cosine to a training photo reaches it.

    Nothing is centred, mirrored or proved; pixels are compared only to say what became of the pairs.

    Args:
        prover: The photos; their embeddings must not be centred.
        threshold: The least cosine of a leak.
    """

    def __init__(self, prover: Prover, threshold: float) -> None:
        self._prover = prover
        self._threshold = threshold

    def null(self) -> Cosines:
        """Return the similarity of every distinct training photo to its nearest other one."""
        train = self._prover.rows["train"]
        if len(train) < 2:
            return np.zeros(0)
        return self._best(train, train, itself=False)[1]

    def nearest(self, split: SplitName) -> Cosines:
        """Return the similarity of each distinct photo of a split to its nearest training photo."""
        return self._best(self._rows(split), self._prover.rows["train"])[1]

    def pairs(self) -> list[LeakPair]:
        """Return for each leaked photo its nearest training photo, and the other way round.

        That is enough for every remedy: each photo that is in any pair above the threshold is in one of these.
        """
        pairs = []
        train = self._prover.rows["train"]
        for split in EVALUATION:
            rows = self._rows(split)
            found = self._reaching(rows, *self._best(rows, train))
            self._prover.prove(found)
            found |= {pair[::-1]: score for pair, score in self._reaching(train, *self._best(train, rows)).items()}
            pairs += [self._record(pair, (split, "train"), score) for pair, score in found.items()]
        return pairs

    def together(self, leaked: set[int]) -> list[LeakPair]:
        """Return the links that reach the threshold, in whatever splits, between all that hangs on some rows."""
        split_of = {int(row): split for split, rows in self._prover.rows.items() for row in rows}
        forest = self._forest(np.array(sorted(split_of), np.int64))
        links = Links(forest)
        roots = {links.root(row) for row in leaked}
        return [
            self._record((x, y), (split_of[x], split_of[y]), score)
            for (x, y), score in forest.items()
            if links.root(x) in roots
        ]

    def _forest(self, rows: Indices) -> Found:
        """As few of the pairs that reach the threshold as keep together what they connect."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

        kept: Found = {}
        part: NDArray[np.integer[Any]] = np.arange(len(rows))
        for a, b, scores in self._prover.above(rows, self._threshold):
            ends = np.sort(np.stack([part[a], part[b]]), axis=0)
            apart = np.flatnonzero(ends[0] != ends[1])
            if not len(apart):
                continue
            edges, first = np.unique(ends[:, apart], axis=1, return_index=True)
            # An edge carries its number, so that the tree says which pairs it is made of.
            graph = coo_array((np.arange(1, edges.shape[1] + 1), (edges[0], edges[1])), shape=(len(rows),) * 2)
            tree = minimum_spanning_tree(graph.tocsr())
            for pair in apart[first[tree.data.astype(np.int64) - 1]]:
                kept[int(rows[a[pair]]), int(rows[b[pair]])] = float(scores[pair])
            part = connected_components(tree, directed=False)[1][part]
        return kept

    def _rows(self, split: SplitName) -> Indices:
        return self._prover.rows.get(split, np.zeros(0, np.int64))

    def _best(self, a: Indices, b: Indices, *, itself: bool = True) -> tuple[Indices, Cosines]:
        """The most similar row of `b` for each of `a`, and how alike they are, decided in float64."""
        if not len(a) or not len(b):
            return np.zeros(0, np.int64), np.zeros(0)
        best = self._prover.nearest(a, b, 1, itself=itself, mirrored=False)[0][:, 0]
        return best, self._prover.cosines(a, best)

    def _reaching(self, rows: Indices, best: Indices, scores: Cosines) -> Found:
        return {
            (int(row), int(other)): float(score)
            for row, other, score in zip(rows, best, scores, strict=False)
            if score >= self._threshold
        }

    def _record(self, pair: Pair, splits: tuple[SplitName | None, SplitName | None], score: float) -> LeakPair:
        return self._prover.record(pair, splits, similarity=score, rule="threshold")

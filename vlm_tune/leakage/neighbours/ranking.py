"""What is kept of the pairs that blocks report: the nearest of each query, and the most similar of all."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vlm_tune.leakage.neighbours.engine import Engine, Found, Pairs
from vlm_tune.leakage.neighbours.repeats import Repeats

__all__ = ["Ranking", "Strongest"]

Scores = NDArray[np.float64]
Indices = NDArray[np.int64]

MAX_PENDING = 2_000_000
"""Pairs that wait for their exact similarity, 40 MB."""


class Ranking:
    """The k nearest references of each query.

    Args:
        num_queries: How many queries there are.
        k: How many references are wanted of each.
        repeats: The rows that the references of added pairs stand for.
        exclude: For each query a row that does not count, or -1, shape (N,).

    Attributes:
        indices: The rows, best first, shape (N, k).
        similarities: Their similarities, shape (N, k); -inf where there is none.
        depth: How many of its nearest references decide a query's nearest rows.
    """

    def __init__(self, num_queries: int, k: int, repeats: Repeats, exclude: Indices | None) -> None:
        self.indices = np.zeros((num_queries, k), np.int64)
        self.similarities = np.full((num_queries, k), -np.inf)
        self.depth = k if exclude is None else k + min(1, k)
        self._repeats = repeats
        self._exclude = exclude
        self._pending: list[Found] = []
        self._num_pending = 0

    def add(self, engine: Engine, found: Found) -> None:
        """Take candidates of one block."""
        self._pending.append(found)
        self._num_pending += len(found.queries)
        if self._num_pending > MAX_PENDING:
            self.settle(engine)

    def settle(self, engine: Engine) -> None:
        """Rank what was added since."""
        if not self._pending:
            return
        queries, references, scores = (np.concatenate(columns) for columns in zip(*self._pending, strict=True))
        self._pending, self._num_pending = [], 0
        # Where enough candidates are certainly better, one needs no exact similarity.
        order, place = _places(queries, -scores)
        decisive = order[place == self.depth - 1]
        first = int(queries.min(initial=len(self.indices)))
        least = np.full(len(self.indices) - first, -np.inf)
        least[queries[decisive] - first] = scores[decisive]
        kept = scores >= least[queries - first] - 2 * engine.rounding
        queries, references = queries[kept], references[kept]
        pairs = Pairs(queries, references, engine.exact(queries, references))
        pairs = self._repeats.expand(pairs, most=max(1, self.depth))
        self._merge(pairs)

    def _merge(self, pairs: Pairs) -> None:
        if self._exclude is not None:
            pairs = pairs.take(pairs.references != self._exclude[pairs.queries])
        rows = np.unique(pairs.queries)
        known = self.similarities[rows] > -np.inf
        queries = np.concatenate([np.repeat(rows, known.sum(axis=1)), pairs.queries])
        references = np.concatenate([self.indices[rows][known], pairs.references])
        similarities = np.concatenate([self.similarities[rows][known], pairs.similarities])
        order, place = _places(queries, references, -similarities)
        first = place < self.indices.shape[1]
        self.indices[queries[order[first]], place[first]] = references[order[first]]
        self.similarities[queries[order[first]], place[first]] = similarities[order[first]]


class Strongest:
    """The most similar pairs, up to a number of them, and how many there were.

    Args:
        limit: How many are kept; of equally similar ones the first that were added.
    """

    def __init__(self, limit: int) -> None:
        self.count = 0
        self._limit = limit
        self._floor = -np.inf
        self._held: list[Pairs] = []
        self._num_held = 0

    def add(self, pairs: Pairs, repeats: Repeats, *, later: bool) -> None:
        """Take pairs, each standing for all rows that repeat its reference."""
        self.count += int(repeats.sizes(pairs, later=later).sum())
        for batch in repeats.batches(pairs.take(pairs.similarities > self._floor), later=later):
            better = batch.take(batch.similarities > self._floor)
            self._held.append(better)
            self._num_held += len(better.queries)
            if self._num_held > 2 * self._limit:
                self._prune()

    def pairs(self) -> Pairs:
        """Return the pairs that were kept, by query and then reference."""
        self._prune()
        held = Pairs.join(self._held)
        return held.take(np.lexsort((held.references, held.queries)))

    def _prune(self) -> None:
        held = Pairs.join(self._held)
        if len(held.queries) > self._limit:
            order = np.argsort(-held.similarities, kind="stable")[: self._limit]
            self._floor = float(held.similarities[order[-1]]) if self._limit else np.inf
            held = held.take(np.sort(order))
        self._held, self._num_held = [held], len(held.queries)


def _places(queries: Indices, *keys: NDArray[np.floating] | Indices) -> tuple[Indices, Indices]:
    """Return the order by query and then keys, the last key first, and each entry's place within its query."""
    order = np.lexsort((*keys, queries))
    starts = np.flatnonzero(np.diff(queries[order], prepend=-1))
    sizes = np.diff(np.append(starts, len(order)))
    return order, np.arange(len(order)) - np.repeat(starts, sizes)

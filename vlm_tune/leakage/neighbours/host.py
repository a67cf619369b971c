"""Scores on a CPU: blocks that stay in its cache, in single precision, one for each core at a time."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from vlm_tune.embedding import workers
from vlm_tune.leakage.neighbours.engine import Block, Found, check_norms, fold

__all__ = ["HostEngine", "rounding"]

Array = NDArray[np.float32]
Scores = NDArray[np.float64]
Indices = NDArray[np.int64]

QUERIES = 512
REFERENCES = 2048
"""Size of what one core does at a time: 4 MB of scores."""
TURNS = 4
"""Such blocks for each core between two meetings of the cores."""
EXACT_AT_ONCE = 2**20
"""Products that are summed at a time in double precision, 8 MB."""


class HostEngine:
    """Computes scores with numpy.

    Args:
        views: Query embeddings, one array (N, D) for each view.
        references: Reference embeddings, shape (M, D).
    """

    def __init__(self, views: Sequence[Array], references: Array) -> None:
        self._views = list(views)
        self._references = references
        longest = [_longest(matrix) for matrix in (*self._views, references)]
        self.rounding = rounding(references.shape[1]) * max(longest[:-1]) * longest[-1]
        self._memory = threading.local()

    def blocks(self, *, k: int, threshold: float, later: bool) -> Iterator[Block]:
        """Yield pairs that may matter, for 2,048 queries a core at a time; see `Engine`."""
        num_queries, cores = len(self._views[0]), os.cpu_count() or 1
        height = max(1, min(QUERIES, -(-num_queries // cores)))
        with workers() as pool:
            for start in range(0, num_queries, height * cores * TURNS):
                stop = min(start + height * cores * TURNS, num_queries)
                strips = [
                    _Strip(slice(first, min(first + height, stop)), k, threshold)
                    for first in range(start, stop, height)
                ]
                yield Block(start, stop, self._found(pool, strips, first=start + 1 if later else 0))

    def exact(self, queries: Indices, references: Indices) -> Scores:
        """Return the similarities of some pairs, summed in double precision; shape (P,)."""
        result = np.full(len(queries), -np.inf)
        step = max(1, EXACT_AT_ONCE // max(1, self._references.shape[1]))
        for start in range(0, len(queries), step):
            part = slice(start, start + step)
            right = self._references[references[part]].astype(np.float64)
            for view in self._views:
                sums = fold(view[queries[part]].astype(np.float64) * right)
                np.maximum(result[part], sums, out=result[part])
        return result

    def _found(self, pool: ThreadPoolExecutor, strips: Sequence[_Strip], *, first: int) -> Iterator[Found]:
        for begin in range(first, len(self._references), REFERENCES):
            columns = slice(begin, min(begin + REFERENCES, len(self._references)))
            yield from pool.map(lambda strip, columns=columns: self._look(strip, columns), strips)

    def _look(self, strip: _Strip, columns: slice) -> Found:
        scores = self._scores(strip.rows, columns)
        # Score and limit may each be off, and the limit is rounded once more.
        limits = strip.limits(scores) - np.float32(3 * self.rounding)
        hits = np.flatnonzero(scores >= limits[:, None])
        rows, places = np.divmod(hits, scores.shape[1])
        return Found(rows + strip.rows.start, places + columns.start, scores.ravel()[hits])

    def _scores(self, rows: slice, columns: slice) -> Array:
        height, width = rows.stop - rows.start, columns.stop - columns.start
        if getattr(self._memory, "planes", None) is None:
            self._memory.planes = np.empty((min(2, len(self._views)), QUERIES * REFERENCES), np.float32)
        planes = [plane[: height * width].reshape(height, width) for plane in self._memory.planes]
        references = self._references[columns].T
        scores: Array = np.matmul(self._views[0][rows], references, out=planes[0])
        for view in self._views[1:]:
            np.maximum(scores, np.matmul(view[rows], references, out=planes[1]), out=scores)
        return scores


class _Strip:
    """Some queries, and scores that k references of each are known to reach."""

    def __init__(self, rows: slice, k: int, threshold: float) -> None:
        self.rows = rows
        self._threshold = np.float32(threshold)
        self._best = np.full((rows.stop - rows.start, k), -np.inf, np.float32)

    def limits(self, scores: Array) -> Array:
        """Take the scores of further references, and return the least score that matters for each query."""
        k = self._best.shape[1]
        if not k:
            return np.full(len(scores), self._threshold)
        if k == 1:
            np.maximum(self._best, scores.max(axis=1, keepdims=True), out=self._best)
        else:
            groups = scores
            # Groups whose members lie apart: the maximum of rows of memory is quick, that within a row is not.
            while groups.shape[1] % 8 == 0 and groups.shape[1] >= 64 * k:
                groups = groups.reshape(len(groups), 8, -1).max(axis=1)
            rising = groups.max(axis=1) > self._best.min(axis=1)
            both = np.concatenate([self._best[rising], groups[rising]], axis=1)
            self._best[rising] = np.partition(both, both.shape[1] - k, axis=1)[:, -k:]
        return np.asarray(np.minimum(self._threshold, self._best.min(axis=1)))


def rounding(num_terms: int) -> float:
    """Return how far a single-precision dot product of vectors of norm 1 may be off, in whatever order it is summed.

    n products and sums have a relative error of nu / (1 - nu) at most, with u = 2^-24 (N. Higham, Accuracy and
    Stability of Numerical Algorithms, 2002, section 3.1), and |x| |y| bounds the sum of the products' sizes.
    """
    error = (num_terms + 1) * 2.0**-24
    return error / (1 - error)


def _longest(matrix: Array) -> float:
    norms = np.sqrt(np.einsum("ij,ij->i", matrix, matrix)).astype(np.float64)
    check_norms(norms)
    return float(norms.max(initial=0)) * (1 + rounding(matrix.shape[1]))

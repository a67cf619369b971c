"""References that are there more than once: compared once, reported each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlm_tune.leakage.neighbours.engine import Pairs

__all__ = ["Repeats"]

Indices = NDArray[np.int64]

PAIRS_AT_ONCE = 1_000_000


class Repeats:
    """Which rows of a matrix are equal, in groups numbered by first appearance.

    A hundred thousand equal photos are then one comparison for each query, and not a hundred thousand ties.

    Args:
        group_of: For each row its group, shape (M,).
    """

    def __init__(self, group_of: Indices) -> None:
        self._num_rows = max(1, len(group_of))
        self._members = np.argsort(group_of, kind="stable")
        sorted_groups = group_of[self._members]
        self._places = sorted_groups * self._num_rows + self._members
        self._ends = np.append(np.flatnonzero(np.diff(sorted_groups)) + 1, len(group_of))

    @classmethod
    def of(cls, matrix: Any) -> Repeats:
        """Find the equal rows of a matrix (M, D), an array or a tensor."""
        keys = _keys(matrix)
        _, first, group_of = np.unique(keys, return_index=True, return_inverse=True)
        again = np.flatnonzero(first[group_of] != np.arange(len(keys)))
        for start in range(0, len(again), 4096):
            some = again[start : start + 4096]
            # Different rows of one hash are next to impossible; then nothing is merged.
            if not bool((matrix[some] == matrix[first[group_of[some]]]).all()):
                return cls(np.arange(len(keys)))
        rank = np.empty(len(first), np.int64)
        rank[np.argsort(first)] = np.arange(len(first))
        return cls(rank[group_of])

    @property
    def firsts(self) -> Indices:
        """The first row of each group, ascending, shape (groups,)."""
        return np.asarray(self._members[self._starts(np.arange(len(self._ends)))], np.int64)

    def __bool__(self) -> bool:
        """Whether any row is there more than once."""
        return len(self._ends) < len(self._members)

    def sizes(self, pairs: Pairs, *, later: bool) -> Indices:
        """Return how many rows the reference of each pair stands for; with `later`, those after its query."""
        return np.asarray(self._ends[pairs.references] - self._begins(pairs, later=later), np.int64)

    def expand(self, pairs: Pairs, *, later: bool = False, most: int | None = None) -> Pairs:
        """Replace each reference by the rows it stands for, or the first few of them."""
        sizes = self.sizes(pairs, later=later)
        sizes = sizes if most is None else np.minimum(sizes, most)
        which = np.repeat(np.arange(len(sizes)), sizes)
        steps = np.arange(len(which)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        rows = self._members[self._begins(pairs, later=later)[which] + steps]
        return Pairs(pairs.queries[which], rows, pairs.similarities[which])

    def batches(self, pairs: Pairs, *, later: bool) -> Iterator[Pairs]:
        """Yield the expanded pairs, a million at a time, and those of one pair together."""
        ends = np.cumsum(self.sizes(pairs, later=later))
        start = 0
        while start < len(ends):
            done = int(ends[start - 1]) if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, done + PAIRS_AT_ONCE, side="right")))
            yield self.expand(pairs.take(slice(start, stop)), later=later)
            start = stop

    def _starts(self, groups: Indices) -> Indices:
        return np.where(groups == 0, 0, self._ends[groups - 1])

    def _begins(self, pairs: Pairs, *, later: bool) -> Indices:
        if not later:
            return self._starts(pairs.references)
        return np.searchsorted(self._places, pairs.references * self._num_rows + pairs.queries, side="right")


def _keys(matrix: Any) -> NDArray[np.uint64]:
    """Return a 64-bit hash of each row; equal rows have equal ones."""
    factors = np.random.default_rng(0).integers(1, 2**63, matrix.shape[1], np.uint64) | np.uint64(1)
    if hasattr(matrix, "detach"):
        return _tensor_keys(matrix, factors)
    keys = np.zeros(len(matrix), np.uint64)
    for start in range(0, len(matrix), 1024):
        # Adding zero gives -0.0 the bits of 0.0, which it equals.
        bits = (matrix[start : start + 1024] + np.float32(0)).view(np.uint32)
        keys[start : start + 1024] = (bits * factors).sum(axis=1, dtype=np.uint64)
    return keys


def _tensor_keys(matrix: Any, factors: NDArray[np.uint64]) -> NDArray[np.uint64]:
    import torch

    weights = torch.from_numpy(factors.view(np.int64)).to(matrix.device)
    keys = torch.zeros(len(matrix), dtype=torch.int64, device=matrix.device)
    for start in range(0, len(matrix), 65536):
        bits = (matrix[start : start + 65536] + 0.0).view(torch.int32).long()
        keys[start : start + 65536] = (bits * weights).sum(dim=1)
    return np.asarray(keys.cpu().numpy().view(np.uint64))

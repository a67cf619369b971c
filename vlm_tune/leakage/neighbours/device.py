"""Scores on a GPU: half-precision products, and the greatest score of each few references instead of all scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vlm_tune._console import notice
from vlm_tune.leakage.neighbours.engine import Block, Found, check_norms, fold
from vlm_tune.leakage.neighbours.host import rounding

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DeviceEngine"]

Scores = NDArray[np.float64]
Indices = NDArray[np.int64]
Maxima: TypeAlias = "Callable[[Tensor, Tensor], Tensor]"
"""Takes queries (N, D) and references (M, D), gives the greatest score of each query among each 64 references in
order, shape (N, ceil(M / 64)), float32."""

QUERIES = 16384
"""Queries at a time: their maxima take 1 GB for a million references."""
REFERENCES = 65536
"""References at a time where scores are written out: with the queries 2 GB."""
GROUP = 64
"""References whose greatest score is kept."""
TERMS = 64
"""Vectors are filled up with zeros to a multiple of this length."""
GROUPS_AT_ONCE = 4096
"""Groups whose references are looked at one by one at a time: 0.5 GB at 512 dimensions."""
EXACT_AT_ONCE = 2**26
"""Products that are summed at a time in double precision, 0.5 GB."""


class DeviceEngine:
    """Computes scores with torch.

    A group of references whose greatest score, give or take the rounding, is neither among the best of a query
    nor reaches the threshold holds nothing of interest. The few other groups are computed again.

    Args:
        views: Query embeddings, one float32 tensor (N, D) for each view, on the GPU.
        references: Reference embeddings, float32 tensor (M, D) there.
    """

    def __init__(self, views: Sequence[Tensor], references: Tensor) -> None:
        self._views = list(views)
        self._references = references
        self._half = _half(references)
        fused = fused_maxima(str(references.device)) if references.is_cuda else None
        self._maxima = fused or plain_maxima
        queries = [_errors(view) for view in views]
        longest, lost = max(norm for norm, _ in queries), max(error for _, error in queries)
        length, missing = _errors(references)
        # |q r - q' r'| <= |q - q'| |r| + |q'| |r - r'|; then the sums, whose adders cut off more than they round,
        # and scores that are written in half precision themselves, or added up from parts that are.
        sums = 4 * rounding(references.shape[1]) + (0 if fused else 2.0**-9)
        self.rounding = lost * length + (longest + lost) * missing + sums * longest * length

    def blocks(self, *, k: int, threshold: float, later: bool) -> Iterator[Block]:
        """Yield pairs that may matter, for 16,384 queries at a time; see `Engine`."""
        num_queries = len(self._views[0])
        bounds = [(start, min(start + QUERIES, num_queries)) for start in range(0, num_queries, QUERIES)]
        ahead = self._greatest(*bounds[0], later=later)
        for number, (start, stop) in enumerate(bounds):
            groups = self._groups(ahead, k=k, threshold=threshold)
            found = self._found(start, *groups, first=self._first(start, later=later))
            # The GPU goes on while the pairs of this block are ranked, unless they are too many to hold.
            found = iter(list(found)) if len(groups[0]) <= 8 * GROUPS_AT_ONCE else found
            ahead = self._greatest(*bounds[number + 1], later=later) if number + 1 < len(bounds) else ahead[:0]
            yield Block(start, stop, found)

    def exact(self, queries: Indices, references: Indices) -> Scores:
        """Return the similarities of some pairs, summed in double precision; shape (P,)."""
        import torch

        device = self._references.device
        result = np.full(len(queries), -np.inf)
        step = max(1, EXACT_AT_ONCE // self._references.shape[1])
        for start in range(0, len(queries), step):
            part = slice(start, start + step)
            left, right = (torch.from_numpy(numbers[part]).to(device) for numbers in (queries, references))
            others = self._references[right].double()
            for view in self._views:
                sums = fold(view[left].double() * others)
                np.maximum(result[part], sums.cpu().numpy(), out=result[part])
        return result

    def _first(self, start: int, *, later: bool) -> int:
        return start // GROUP * GROUP if later else 0

    def _greatest(self, start: int, stop: int, *, later: bool) -> Tensor:
        references = self._half[self._first(start, later=later) : len(self._references)]
        best = self._maxima(_half(self._views[0][start:stop]), references)
        for view in self._views[1:]:
            best = best.maximum(self._maxima(_half(view[start:stop]), references))
        return best

    def _groups(self, best: Tensor, *, k: int, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return rows and groups of interest, and the score from which each row's references are."""
        import torch

        limits = torch.full((len(best),), float(threshold), device=best.device)
        if k:
            enough = best.shape[1] >= k
            kth = best.topk(k, dim=1).values[:, -1] if enough else torch.full_like(limits, -torch.inf)
            limits = limits.minimum(kth)
        limits -= 3 * self.rounding
        rows, groups = (best >= limits[:, None]).nonzero(as_tuple=True)
        return rows, groups, limits

    def _found(self, start: int, rows: Tensor, groups: Tensor, limits: Tensor, *, first: int) -> Iterator[Found]:
        import torch

        members = torch.arange(GROUP, device=rows.device)
        for begin in range(0, len(rows), GROUPS_AT_ONCE):
            some = rows[begin : begin + GROUPS_AT_ONCE]
            columns = first + groups[begin : begin + GROUPS_AT_ONCE, None] * GROUP + members
            others = self._references[columns.clamp(max=len(self._references) - 1)]
            scores = torch.stack([(others @ view[start + some, :, None])[:, :, 0] for view in self._views]).amax(0)
            reached = (scores >= limits[some, None]) & (columns < len(self._references))
            hits, places = reached.nonzero(as_tuple=True)
            found = (some[hits] + start, columns[hits, places], scores[hits, places])
            yield Found(*(column.cpu().numpy() for column in found))


def plain_maxima(queries: Tensor, references: Tensor) -> Tensor:
    """Return what `maxima` does, in half precision, from blocks of scores that are written out."""
    import torch

    best = torch.empty((len(queries), -(-len(references) // GROUP)), device=queries.device)
    width = min(REFERENCES, len(references))
    buffer = torch.empty((width, len(queries)), dtype=queries.dtype, device=queries.device)
    for start in range(0, len(references), REFERENCES):
        part = references[start : start + REFERENCES]
        # A row of scores for each reference: the maximum of rows of memory is quick, that within a row is not.
        scores = torch.mm(part, queries.T, out=buffer[: len(part)])
        whole = len(part) // GROUP
        groups = best[:, start // GROUP : -(-(start + len(part)) // GROUP)]
        groups[:, :whole] = scores[: whole * GROUP].view(whole, GROUP, len(queries)).amax(dim=1).T
        if whole < groups.shape[1]:
            groups[:, whole] = scores[whole * GROUP :].amax(dim=0)
    return best


@cache
def fused_maxima(device: str) -> Maxima | None:
    """Return `maxima` by a kernel that writes no scores, or None where that kernel does not run."""
    import torch

    try:
        from vlm_tune.leakage.neighbours import kernel

        processors = torch.cuda.get_device_properties(device).multi_processor_count

        def maxima(queries: Tensor, references: Tensor) -> Tensor:
            best = torch.empty((len(queries), -(-len(references) // GROUP)), device=queries.device)
            kernel.maxima(queries, references, best, processors=processors)
            return best

        probe = torch.eye(TERMS, dtype=torch.half, device=device).repeat(5, 1)[:300]
        if not torch.equal(maxima(probe[:130], probe), plain_maxima(probe[:130], probe)):
            raise ArithmeticError("the kernel is wrong on a known product")
    # Compilers fail in ways of their own, and the slower way always works.
    except Exception as error:
        notice(f"searching without the fused kernel: {type(error).__name__}: {str(error)[:200]}")
        return None
    return maxima


def _half(rows: Tensor) -> Tensor:
    import torch

    return torch.nn.functional.pad(rows.half(), (0, -rows.shape[1] % TERMS))


def _errors(matrix: Tensor) -> tuple[float, float]:
    """Return the greatest norm of a row, and the greatest norm of what half precision takes from a row."""
    norms, errors = [], []
    for start in range(0, len(matrix), 65536):
        rows = matrix[start : start + 65536]
        norms.append(rows.norm(dim=1))
        errors.append((rows - rows.half().float()).norm(dim=1).max())
    check_norms(np.concatenate([norm.cpu().numpy() for norm in norms]).astype(np.float64))
    slack = 1 + rounding(matrix.shape[1])
    return float(max(norm.max() for norm in norms)) * slack, float(max(errors)) * slack

"""The GPU kernel: the greatest score of each few references; the scores themselves never leave the chip."""

from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["maxima"]

QUERIES, REFERENCES, TERMS, STAGES = 128, 256, 64, 4
"""What one program multiplies at a time, and how many such parts are on their way from memory."""
BAND = 16
"""Blocks of queries that are worked on side by side, so that references come from the cache."""


@triton.jit  # type: ignore[untyped-decorator]
def _maxima(  # type: ignore[no-untyped-def]
    queries, references, best, num_queries, num_references, num_groups,
    terms: tl.constexpr, group: tl.constexpr, height: tl.constexpr, width: tl.constexpr, depth: tl.constexpr,
    band: tl.constexpr, programs: tl.constexpr,
):  # fmt: skip
    down, across = tl.cdiv(num_queries, height), tl.cdiv(num_references, width)
    # One program a processor, each going from block to block: one is multiplied while the last is reduced.
    for number in tl.range(tl.program_id(0), down * across, programs, flatten=True):
        above = number // (band * across) * band
        here = tl.minimum(down - above, band)
        tall, wide = above + (number % (band * across)) % here, (number % (band * across)) // here
        scores = tl.zeros((height, width), tl.float32)
        for term in range(0, terms, depth):
            left = queries.load([tall * height, term])
            right = references.load([wide * width, term])
            scores = tl.dot(left, right.T, scores)
        rows, columns = tall * height + tl.arange(0, height), wide * width + tl.arange(0, width)
        scores = tl.where(columns[None, :] < num_references, scores, float("-inf"))
        greatest = tl.max(tl.reshape(scores, (height, width // group, group)), axis=2)
        groups = wide * (width // group) + tl.arange(0, width // group)
        places = best + rows[:, None].to(tl.int64) * num_groups + groups[None, :]
        tl.store(places, greatest, mask=(rows < num_queries)[:, None] & (groups < num_groups)[None, :])


def maxima(queries: Tensor, references: Tensor, best: Tensor, *, processors: int) -> None:
    """Write the greatest score of each query among each few references.

    Args:
        queries: Half-precision rows, shape (N, D), D a multiple of 64.
        references: Half-precision rows, shape (M, D).
        best: Where they go, float32, shape (N, groups); references divide into groups of 64.
        processors: How many programs the GPU runs at a time.
    """
    blocks = triton.cdiv(len(queries), QUERIES) * triton.cdiv(len(references), REFERENCES)
    programs = min(processors, blocks)
    _maxima[(programs,)](
        TensorDescriptor.from_tensor(queries, [QUERIES, TERMS]),
        TensorDescriptor.from_tensor(references, [REFERENCES, TERMS]),
        best, len(queries), len(references), best.shape[1],
        terms=queries.shape[1], group=64, height=QUERIES, width=REFERENCES, depth=TERMS, band=BAND,
        programs=programs, num_warps=8, num_stages=STAGES,
    )  # fmt: skip

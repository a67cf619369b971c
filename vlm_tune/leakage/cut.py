"""How alike photos of this dataset are anyway, and from where on a likeness is remarkable."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Cut", "choose_cut"]

SPREADS = 3.0
"""Robust standard deviations above the median at which likeness becomes remarkable."""
FEWEST = 8
"""With fewer training photos than this nothing is known about how alike they are."""


class Cut(NamedTuple):
    """A similarity from which pairs are remarkable.

    Attributes:
        value: The cosine similarity, or None where the training split is too small to tell.
        reason: How it was chosen, in one sentence.
    """

    value: float | None
    reason: str


def choose_cut(null: NDArray[np.floating[Any]]) -> Cut:
    """Choose the cut from how alike training photos are to each other.

    The median plus three robust standard deviations (1.4826 times the median absolute deviation) of the
    similarities, on Fisher's z scale; median and deviation hold even when half of the photos have a copy.

    Args:
        null: Similarity of training photos to their nearest other training photo that is no copy, shape (N,).

    Examples:
        >>> cut = choose_cut(np.linspace(0.2, 0.4, 101, dtype=np.float32))
        >>> round(cut.value, 2)
        0.51
    """
    if len(null) < FEWEST:
        return Cut(None, f"no cut: {len(null)} distinct training photos are too few to know how alike they are anyway")
    z = np.arctanh(np.clip(null.astype(np.float64), -0.999999, 0.999999))
    middle = float(np.median(z))
    spread = 1.4826 * float(np.median(np.abs(z - middle)))
    value = float(np.tanh(middle + SPREADS * max(spread, 1e-3)))
    reason = (
        f"cut at {value:.3f}: training photos have similarity {np.tanh(middle):.3f} to their nearest that is no copy "
        f"(median of {len(null)}), and by chance few reach {SPREADS:g} robust standard deviations above that"
    )
    return Cut(value, reason)

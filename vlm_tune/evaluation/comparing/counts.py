"""Right and wrong of two systems, counted and tested in one place: for all examples, and for those of a class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import NonNegativeInt

from vlm_tune.records import Estimate, Record
from vlm_tune.statistics import (
    design_effect,
    mcnemar_by_group,
    mcnemar_exact,
    mcnemar_mid_p,
    tango,
    tango_by_group,
    wilson,
    wilson_by_group,
)

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = ["PairCounts", "Verdict", "count_pairs", "decide", "groups_of", "share"]

Verdict = Literal["better", "worse", "equivalent", "not_established"]
"""What is established about the candidate."""


class PairCounts(Record):
    """Two systems on the same examples."""

    n: NonNegativeInt
    """Examples."""
    wins: NonNegativeInt
    """Examples that only the candidate got right."""
    losses: NonNegativeInt
    """Examples that only the reference got right."""
    candidate: Estimate
    """Share that the candidate got right, with the Wilson interval."""
    reference: Estimate
    """Share that the reference got right."""
    difference: Estimate
    """The one less the other, with the Tango interval."""
    p_value: float
    """Two-sided exact McNemar p-value; by group where examples belong together."""
    mid_p_value: float
    """The mid-p value of the same test."""
    design_effect: float
    """How many examples in groups say as much as one by itself; 1 without groups."""


def count_pairs(
    candidate: NDArray[np.bool_],
    reference: NDArray[np.bool_],
    *,
    groups: NDArray[np.int64] | None = None,
    level: float = 0.95,
) -> PairCounts:
    """Return what two systems' rights and wrongs on the same examples say about the difference.

    Args:
        candidate: Whether the candidate is right, one for each example.
        reference: Whether the reference is right.
        groups: A number for each example, the same for those that belong together; None where none do.
        level: Level of the intervals.
    """
    import numpy as np

    n = len(candidate)
    wins, losses = int(np.sum(candidate & ~reference)), int(np.sum(reference & ~candidate))
    if groups is None:
        difference = tango(wins, losses, n, level=level)
        p_value, mid_p_value, effect = mcnemar_exact(wins, losses), mcnemar_mid_p(wins, losses), 1.0
    else:
        difference = tango_by_group(candidate, reference, groups, level=level)
        p_value = mcnemar_by_group(candidate, reference, groups)
        mid_p_value = mcnemar_by_group(candidate, reference, groups, mid=True)
        effect = design_effect(candidate.astype(float) - reference, groups, level=level) if n else 1.0
    return PairCounts(
        n=n,
        wins=wins,
        losses=losses,
        candidate=share(candidate, groups=groups, level=level),
        reference=share(reference, groups=groups, level=level),
        difference=difference,
        p_value=p_value,
        mid_p_value=mid_p_value,
        design_effect=effect,
    )


def share(right: NDArray[np.bool_], *, groups: NDArray[np.int64] | None, level: float = 0.95) -> Estimate:
    """Return a share with its Wilson interval, by group where examples belong together."""
    if groups is None:
        return wilson(int(right.sum()), len(right), level=level)
    return wilson_by_group(right, groups, level=level)


def decide(p_value: float, difference: Estimate, *, alpha: float, margin: float) -> Verdict:
    """Return the verdict that a p-value and the interval of the difference give."""
    if p_value < alpha:
        return "better" if difference.value > 0 else "worse"
    return "equivalent" if -margin < difference.low and difference.high < margin else "not_established"


def groups_of(column: pa.ChunkedArray) -> NDArray[np.int64] | None:
    """Return a number per group, or None where no two examples belong together."""
    import numpy as np

    from vlm_tune.evaluation.counting import group_codes

    codes = group_codes(column)
    return codes if codes is not None and len(np.unique(codes)) < len(codes) else None

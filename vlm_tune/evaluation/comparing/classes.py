"""Two systems class by class: where the difference comes from, with p-values that know how many classes there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vlm_tune.evaluation.comparing.counts import PairCounts, Verdict, count_pairs, decide, groups_of
from vlm_tune.evaluation.counting import named
from vlm_tune.records import Record
from vlm_tune.statistics import holm

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = ["ClassDelta", "class_deltas"]


class ClassDelta(Record):
    """Two systems on one class."""

    label: str
    """The class."""
    counts: PairCounts
    """Wins, losses and the difference: of recall or, where several classes may apply, of right decisions."""
    adjusted_p: float
    """The p-value after Holm's correction for the number of classes."""
    verdict: Verdict
    """What is established about the candidate on this class, after the correction."""


def class_deltas(
    table: pa.Table, classes: Sequence[str], *, multi_label: bool, alpha: float = 0.05
) -> tuple[ClassDelta, ...]:
    """Return the difference on each class that has examples.

    Where one class applies to each example, its examples are counted: which were answered with it. Where several
    may apply, all examples are: on which the answer is right about the class, naming it or leaving it out.

    Args:
        table: The answered pairs, as `pair` returns them.
        classes: The classes, in order.
        multi_label: Whether several classes may apply.
        alpha: Significance level, after Holm's correction.
    """
    columns = ("truth", "candidate_label", "reference_label")
    matrices = [named(table[column], classes, multi_label=multi_label).tocsc() for column in columns]
    # An answer that is no class is right about none.
    answered = [table[column].is_valid().to_numpy() for column in columns]
    groups = groups_of(table["group"])
    counted: dict[str, PairCounts] = {}
    for place, label in enumerate(classes):
        truth, *said = (matrix[:, [place]].toarray().ravel() > 0 for matrix in matrices)
        if not truth.any():
            continue
        asked = np.ones_like(truth) if multi_label else truth
        left, right = ((side == truth)[asked] & there[asked] for side, there in zip(said, answered[1:], strict=True))
        counted[label] = count_pairs(left, right, groups=_within(groups, asked), level=1 - alpha)
    adjusted = holm([counts.p_value for counts in counted.values()])
    return tuple(
        ClassDelta(
            label=label, counts=counts, adjusted_p=p, verdict=decide(p, counts.difference, alpha=alpha, margin=0.0)
        )
        for (label, counts), p in zip(counted.items(), adjusted, strict=True)
    )


def _within(groups: NDArray[np.int64] | None, asked: NDArray[np.bool_]) -> NDArray[np.int64] | None:
    if groups is None:
        return None
    inside = groups[asked]
    return inside if len(np.unique(inside)) < len(inside) else None

"""More than two predictors on the same examples: do they differ at all, and which ones."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from vlm_tune._console import Shown
from vlm_tune.errors import EvaluationError
from vlm_tune.evaluation.comparing.counts import Verdict, count_pairs, decide, groups_of, share
from vlm_tune.evaluation.comparing.wording import p_words
from vlm_tune.evaluation.evaluation import Evaluation
from vlm_tune.evaluation.pairing import pair
from vlm_tune.evaluation.sides import load_sides, save_sides
from vlm_tune.records import Estimate, Record
from vlm_tune.statistics import cochran_q, holm

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from rich.console import RenderableType

__all__ = ["ComparisonMatrix", "MatrixCell"]

_OPPOSITE: Mapping[Verdict, Verdict] = {"better": "worse", "worse": "better"}


class MatrixCell(Record):
    """One pair of several systems, on the examples that all of them answered."""

    candidate: str
    """The one system."""
    reference: str
    """The other one."""
    wins: int
    """Examples that only the candidate got right."""
    losses: int
    """Examples that only the reference got right."""
    difference: Estimate
    """Candidate's accuracy less the reference's; the Tango intervals of all pairs hold together (Bonferroni)."""
    p_value: float
    """Two-sided exact McNemar p-value of this pair by itself."""
    adjusted_p: float
    """After Holm's correction for the number of pairs, and never below the p-value of Cochran's Q."""
    verdict: Verdict
    """What is established about the candidate, after the correction."""

    def turned(self) -> MatrixCell:
        """Return the same pair seen from the other side."""
        gap = self.difference
        return MatrixCell(
            candidate=self.reference,
            reference=self.candidate,
            wins=self.losses,
            losses=self.wins,
            difference=gap.model_copy(update={"value": -gap.value, "low": -gap.high, "high": -gap.low}),
            p_value=self.p_value,
            adjusted_p=self.adjusted_p,
            verdict=_OPPOSITE.get(self.verdict, self.verdict),
        )


@dataclass(frozen=True, eq=False, repr=False)
class ComparisonMatrix(Shown):
    """Several systems on the examples that all of them answered; immutable.

    Cochran's Q tests whether they differ at all. Then each pair is tested by the exact McNemar test with Holm's
    correction; a pair is never surer than the whole. Where examples have groups, both tests go by group.

    Args:
        evaluations: At least two, with different names.
        margin: Difference in accuracy that would not matter, as a fraction.
        alpha: Chance of calling any two systems different that are not.

    Raises:
        EvaluationError: Names occur twice, the evaluations are not about the same examples and classes, or there
            is no example that all answered.

    Examples:
        >>> truth = {f"{at}.jpg": "dent" for at in range(60)}
        >>> def system(name, right): return Evaluation.from_answers(name, classes=["crack", "dent"], truth=truth,
        ...     answers={f"{at}.jpg": "dent" if at < right else "crack" for at in range(60)})
        >>> matrix = ComparisonMatrix([system("tuned", 55), system("Gemini", 52), system("base", 30)])
        >>> [(cell.candidate, cell.reference, cell.verdict) for cell in matrix.cells if cell.verdict == "better"]
        [('tuned', 'base', 'better'), ('Gemini', 'base', 'better')]
    """

    evaluations: Sequence[Evaluation]
    """The systems, in the order they are shown."""
    margin: float = 0.03
    """Difference that would not matter."""
    alpha: float = 0.05
    """Significance level of all pairs together."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "evaluations", tuple(self.evaluations))
        if not 0 <= self.margin < 1 or not 0 < self.alpha < 1:
            raise EvaluationError(f"margin and alpha are fractions, not {self.margin} and {self.alpha}")
        if len(self.names) < 2 or len(set(self.names)) < len(self.names):
            raise EvaluationError(f"a matrix needs at least two systems with different names, not {self.names}")
        if not self.n:
            raise EvaluationError(f"no example was answered by all of {', '.join(self.names)}; run them again")

    def __repr__(self) -> str:
        return f"ComparisonMatrix({', '.join(self.names)}; n={self.n})"

    @property
    def names(self) -> list[str]:
        """The systems' names."""
        return [evaluation.name for evaluation in self.evaluations]

    @cached_property
    def _table(self) -> tuple[NDArray[np.bool_], NDArray[np.int64] | None]:
        """Which system is right on which example that all answered, n x k, and the groups."""
        first, *others = self.evaluations
        tables = [pair(first, other) for other in others]
        tags = [np.array(table["tag"].to_pylist(), dtype=object) for table in tables]
        there = np.all([[tag is not None for tag in column] for column in tags], axis=0)
        columns = [np.isin(tags[0][there].astype(str), ["both_right", "candidate_only"])]
        columns += [np.isin(column[there].astype(str), ["both_right", "reference_only"]) for column in tags]
        return np.stack(columns, axis=1), groups_of(tables[0]["group"].filter(there))

    @property
    def n(self) -> int:
        """Examples that all answered."""
        return len(self._table[0])

    @property
    def coverage(self) -> float:
        """Share of the examples that all answered."""
        return self.n / self.evaluations[0].num_examples

    @property
    def _enough(self) -> bool:
        return self.coverage >= min(evaluation.min_coverage for evaluation in self.evaluations)

    @cached_property
    def accuracies(self) -> Mapping[str, Estimate]:
        """Accuracy of each system on these examples."""
        right, groups = self._table
        shares = (share(column, groups=groups, level=1 - self.alpha) for column in right.T)
        return MappingProxyType(dict(zip(self.names, shares, strict=True)))

    @cached_property
    def _cochran(self) -> tuple[float, float]:
        right, groups = self._table
        return cochran_q(right, groups=groups)

    @property
    def q(self) -> float:
        """Cochran's Q."""
        return self._cochran[0]

    @property
    def p_value(self) -> float:
        """P-value that all systems are equally often right."""
        return self._cochran[1]

    @cached_property
    def cells(self) -> tuple[MatrixCell, ...]:
        """Every pair once, earlier systems as candidates."""
        right, groups = self._table
        pairs = list(itertools.combinations(range(len(self.names)), 2))
        level = 1 - self.alpha / len(pairs)
        counts = [count_pairs(right[:, one], right[:, other], groups=groups, level=level) for one, other in pairs]
        adjusted = [max(p, self.p_value) for p in holm([count.p_value for count in counts])]
        return tuple(
            MatrixCell(
                candidate=self.names[one],
                reference=self.names[other],
                wins=count.wins,
                losses=count.losses,
                difference=count.difference,
                p_value=count.p_value,
                adjusted_p=p,
                verdict=decide(p, count.difference, alpha=self.alpha, margin=self.margin)
                if self._enough
                else "not_established",
            )
            for (one, other), count, p in zip(pairs, counts, adjusted, strict=True)
        )

    def cell(self, candidate: str, reference: str) -> MatrixCell:
        """Return what is known about two of the systems.

        Raises:
            EvaluationError: There are no such two.
        """
        for found in self.cells:
            if (found.candidate, found.reference) == (candidate, reference):
                return found
            if (found.candidate, found.reference) == (reference, candidate):
                return found.turned()
        raise EvaluationError(f"{candidate!r} and {reference!r} are not two of {', '.join(self.names)}")

    @property
    def sentence(self) -> str:
        """What is established, in words."""
        differ = "differ" if self.p_value < self.alpha else "are not shown to differ"
        parts = [f"On {self.n} examples {len(self.names)} systems {differ} (Cochran's Q, {p_words(self.p_value)})."]
        if not self._enough:
            of = self.evaluations[0].num_examples
            parts.append(
                f"Only {self.n} of {of} examples were answered by all, which establishes nothing about a pair."
            )
        for name in self.names:
            beaten = [other for other in self.names if other != name and self.cell(name, other).verdict == "better"]
            if beaten:
                parts.append(f"{name} is better than {_listed(beaten)}.")
        pairs = [f"{cell.candidate} against {cell.reference}" for cell in self.cells]
        for verdict, words in (("equivalent", "Equivalent"), ("not_established", "Not established")):
            some = [words for words, cell in zip(pairs, self.cells, strict=True) if cell.verdict == verdict]
            if some:
                parts.append(f"{words}: {'; '.join(some)}.")
        return " ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as plain JSON values."""
        return {
            "systems": self.names,
            "n": self.n,
            "q": self.q,
            "p_value": self.p_value,
            "margin": self.margin,
            "alpha": self.alpha,
            "accuracies": {name: accuracy.model_dump() for name, accuracy in self.accuracies.items()},
            "cells": [cell.model_dump() for cell in self.cells],
            "sentence": self.sentence,
        }

    def frame(self) -> pd.DataFrame:
        """Return a row for each pair: counts, difference with its interval, p-values and verdict."""
        import pandas as pd

        rows = []
        for cell in self.cells:
            row = cell.model_dump(exclude={"difference"})
            gap = {"difference": cell.difference.value, "low": cell.difference.low, "high": cell.difference.high}
            rows.append(row | gap)
        return pd.DataFrame(rows)

    def _rich(self) -> RenderableType:
        """Draw the differences of all pairs, and what is established."""
        from vlm_tune.evaluation.comparing.display import matrix_display

        return matrix_display(self)

    def plot(self) -> Figure:
        """Draw the differences of all pairs as a matrix; what is established is framed."""
        from vlm_tune.plots.matrix import difference_matrix

        rows = [[None if a == b else self.cell(a, b) for b in self.names] for a in self.names]
        return difference_matrix(
            self.names,
            values=[[0.0 if cell is None else cell.difference.value for cell in row] for row in rows],
            established=[[cell is not None and cell.verdict in _OPPOSITE for cell in row] for row in rows],
            title=f"Row less column, points; n = {self.n}, Cochran's Q {p_words(self.p_value)}",
        )

    def save(self, path: Path | str) -> Path:
        """Write everything, all evaluations included, to one parquet file.

        Raises:
            StorageError: The disk is full; nothing half-written is left.
        """
        sides = {str(place): evaluation for place, evaluation in enumerate(self.evaluations)}
        return save_sides(path, sides, kind="comparison matrix", about={"margin": self.margin, "alpha": self.alpha})

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a saved matrix.

        Raises:
            StorageError: The file is missing or is not a comparison matrix.
        """
        sides, about = load_sides(path, kind="comparison matrix")
        return cls(tuple(sides.values()), **about)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"

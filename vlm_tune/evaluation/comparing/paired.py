"""What is counted of two predictors on the same examples; `Comparison` says what it means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

import numpy as np

from vlm_tune.errors import EvaluationError
from vlm_tune.evaluation.comparing import ratios
from vlm_tune.evaluation.comparing.classes import ClassDelta, class_deltas
from vlm_tune.evaluation.comparing.counts import PairCounts, count_pairs, groups_of
from vlm_tune.evaluation.comparing.noise import RunNoise, run_noise, same_system
from vlm_tune.evaluation.comparing.wording import Tag
from vlm_tune.evaluation.evaluation import Evaluation
from vlm_tune.evaluation.pairing import pair
from vlm_tune.records import Estimate

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = ["Paired"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Paired:
    """Two evaluations side by side, and everything that is counted of them; the half of `Comparison` that counts."""

    candidate: Evaluation
    """The system that should be better."""
    reference: Evaluation
    """The system it is compared with."""
    margin: float = 0.03
    """Difference that would not matter."""
    alpha: float = 0.05
    """Significance level."""
    repeat: Evaluation | None = None
    """A second run of one of the two."""

    def __post_init__(self) -> None:
        if not 0 <= self.margin < 1 or not 0 < self.alpha < 1:
            raise EvaluationError(f"margin and alpha are fractions, not {self.margin} and {self.alpha}")
        names = f"{self.candidate.name} and {self.reference.name}"
        if not self.n:
            raise EvaluationError(f"{names} have no answered example in common; run both again to ask what failed")
        if self.repeat is not None and not any(same_system(self.repeat, side) for side in self._sides.values()):
            raise EvaluationError(
                f"{self.repeat.name} is no second run of {names}: the fingerprints differ; ask the very predictor"
            )

    @property
    def _sides(self) -> dict[str, Evaluation]:
        return {"candidate": self.candidate, "reference": self.reference}

    @cached_property
    def table(self) -> pa.Table:
        """A row per example: id, truth, group, image, both sides' outcome, label and raw answer, tag."""
        return pair(self.candidate, self.reference)

    @cached_property
    def tags(self) -> Mapping[str, Tag]:
        """Example id to who was right, for the examples that both answered."""
        pairs = zip(self.table["example_id"].to_pylist(), self.table["tag"].to_pylist(), strict=True)
        return MappingProxyType({example_id: tag for example_id, tag in pairs if tag is not None})

    @cached_property
    def _answered(self) -> pa.Table:
        return self.table.filter(self.table["tag"].is_valid())

    @cached_property
    def _groups(self) -> NDArray[np.int64] | None:
        return groups_of(self._answered["group"])

    @cached_property
    def counts(self) -> PairCounts:
        """Wins, losses, both accuracies and the difference, with intervals and p-values."""
        tags = np.array(self._answered["tag"].to_pylist(), dtype=str)
        sides = (np.isin(tags, ["both_right", only]) for only in ("candidate_only", "reference_only"))
        return count_pairs(*sides, groups=self._groups, level=1 - self.alpha)

    @property
    def wins(self) -> int:
        """Examples that only the candidate got right."""
        return self.counts.wins

    @property
    def losses(self) -> int:
        """Examples that only the reference got right."""
        return self.counts.losses

    @property
    def both_right(self) -> int:
        """Examples that both got right."""
        return round(self.counts.candidate.value * self.n) - self.wins if self.n else 0

    @property
    def both_wrong(self) -> int:
        """Examples that both got wrong."""
        return self.n - self.both_right - self.wins - self.losses

    @property
    def num_examples(self) -> int:
        """How many examples there were, missing ones included."""
        return cast(int, self.table.num_rows)

    @property
    def n_missing(self) -> int:
        """Examples left out, because one side or both failed on them."""
        return self.num_examples - self.n

    @property
    def n(self) -> int:
        """Examples that both answered."""
        return cast(int, self._answered.num_rows)

    @property
    def coverage(self) -> float:
        """Share of the examples that both answered."""
        return self.n / self.num_examples

    @property
    def min_coverage(self) -> float:
        """Share of the examples that both must have answered for a verdict."""
        return min(self.candidate.min_coverage, self.reference.min_coverage)

    @property
    def same_task(self) -> bool:
        """Whether both were asked in the same words, as far as is known."""
        tasks = (self.candidate.task, self.reference.task)
        return None in tasks or tasks[0] == tasks[1]

    @property
    def clustered(self) -> bool:
        """Whether some examples belong together, so that test and intervals go by group."""
        return self._groups is not None

    @property
    def candidate_accuracy(self) -> Estimate:
        """The candidate's accuracy on the pairs."""
        return self.counts.candidate

    @property
    def reference_accuracy(self) -> Estimate:
        """The reference's accuracy on the pairs."""
        return self.counts.reference

    @property
    def difference(self) -> Estimate:
        """Candidate's accuracy less the reference's, with the Tango interval."""
        return self.counts.difference

    @property
    def p_value(self) -> float:
        """Two-sided exact McNemar p-value, by group where examples belong together: the primary test."""
        return self.counts.p_value

    @property
    def mid_p_value(self) -> float:
        """Mid-p McNemar value, shown beside; it decides nothing."""
        return self.counts.mid_p_value

    @cached_property
    def class_deltas(self) -> tuple[ClassDelta, ...]:
        """The difference on each class that has examples, with Holm's correction for their number.

        Where too few examples were answered by both, nothing is established about any of them.
        """
        classes, several = self.candidate.classes, self.candidate.multi_label
        found = class_deltas(self._answered, classes, multi_label=several, alpha=self.alpha)
        if self.coverage >= self.min_coverage:
            return found
        return tuple(delta.model_copy(update={"verdict": "not_established"}) for delta in found)

    @cached_property
    def brier_difference(self) -> Estimate | None:
        """Candidate's mean Brier score less the reference's: below 0, its probabilities are better.

        None where a side gave no probabilities; see `statistics.brier` and `statistics.mean`.
        """
        return ratios.brier_difference(self.candidate, self.reference, level=1 - self.alpha)

    @cached_property
    def speed_ratio(self) -> Estimate | None:
        """How many times as fast the candidate answers one photo; None where a side was not timed.

        Reference's mean seconds over the candidate's, as measured: an answer's share of its batch, or the time an
        API took, waiting included. How many answers come at the same time is in `Evaluation.throughput`.
        """
        return ratios.speed_ratio(self.candidate, self.reference, level=1 - self.alpha)

    @cached_property
    def noise(self) -> RunNoise | None:
        """How many answers change between two identical runs; None without `repeat`."""
        if self.repeat is None:
            return None
        first = next(side for side in self._sides.values() if same_system(self.repeat, side))
        return run_noise(first, self.repeat, level=1 - self.alpha)

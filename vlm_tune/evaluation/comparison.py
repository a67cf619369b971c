"""Two predictors on the same examples: who wins, and whether that is established."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from vlm_tune import _console
from vlm_tune.errors import EvaluationError
from vlm_tune.evaluation.evaluation import Evaluation
from vlm_tune.evaluation.pairing import pair
from vlm_tune.evaluation.sides import load_sides, save_sides
from vlm_tune.records import Estimate
from vlm_tune.statistics import mcnemar_exact, mcnemar_mid_p, sample_size_for_power, tango, wilson

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from matplotlib.figure import Figure

__all__ = ["Comparison", "Tag", "Verdict"]

Tag = Literal["both_right", "candidate_only", "reference_only", "both_wrong"]
"""Who was right about one example."""
Verdict = Literal["better", "worse", "equivalent", "not_established"]
"""What is established about the candidate."""

_POWER = 0.8
_WORDS: Mapping[Verdict, str] = {
    "better": "better",
    "worse": "worse",
    "equivalent": "equivalent",
    "not_established": "not established",
}


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Comparison:
    """The candidate against the reference on the examples that both answered; immutable.

    The primary test is the exact McNemar test. When it does not reject, the two are `equivalent` if the
    Tango interval of the difference lies inside the margin, and else nothing is established. Examples that
    failed on either side are left out and counted; when too many are, no verdict is established.

    Args:
        candidate: The system that should be better.
        reference: The system it is compared with.
        margin: Difference in accuracy that would not matter, as a fraction.
        alpha: Significance level; the interval's level is 1 - alpha.

    Raises:
        EvaluationError: The two are about other examples, other truths, other pixels or other classes, or
            have no answered example in common.

    Examples:
        >>> truth = {f"{i}.jpg": "dent" for i in range(20)}
        >>> def answers(right): return {f"{i}.jpg": "dent" if i < right else "crack" for i in range(20)}
        >>> def evaluate(name, right): return Evaluation.from_answers(
        ...     name, truth=truth, answers=answers(right), classes=["crack", "dent"])
        >>> Comparison(candidate=evaluate("tuned", 19), reference=evaluate("base", 9)).verdict
        'better'
    """

    candidate: Evaluation
    """The system that should be better."""
    reference: Evaluation
    """The system it is compared with."""
    margin: float = 0.03
    """Difference that would not matter."""
    alpha: float = 0.05
    """Significance level."""

    def __post_init__(self) -> None:
        if not 0 <= self.margin < 1 or not 0 < self.alpha < 1:
            raise EvaluationError(f"margin and alpha are fractions, not {self.margin} and {self.alpha}")
        if not self.n:
            names = f"{self.candidate.name} and {self.reference.name}"
            raise EvaluationError(f"{names} have no answered example in common")

    @cached_property
    def table(self) -> pa.Table:
        """A row per example: id, truth, group, image, both sides' outcome, label and raw answer, tag."""
        return pair(self.candidate, self.reference)

    def __repr__(self) -> str:
        return f"Comparison({self.candidate.name!r} against {self.reference.name!r}: {_WORDS[self.verdict]})"

    @cached_property
    def tags(self) -> Mapping[str, Tag]:
        """Example id to who was right, for the examples that both answered."""
        pairs = zip(self.table["example_id"].to_pylist(), self.table["tag"].to_pylist(), strict=True)
        return MappingProxyType({example_id: tag for example_id, tag in pairs if tag is not None})

    @cached_property
    def _counts(self) -> Mapping[str | None, int]:
        counted = self.table["tag"].value_counts().to_pylist()
        return {entry["values"]: entry["counts"] for entry in counted}

    @property
    def wins(self) -> int:
        """Examples that only the candidate got right."""
        return self._counts.get("candidate_only", 0)

    @property
    def losses(self) -> int:
        """Examples that only the reference got right."""
        return self._counts.get("reference_only", 0)

    @property
    def both_right(self) -> int:
        """Examples that both got right."""
        return self._counts.get("both_right", 0)

    @property
    def both_wrong(self) -> int:
        """Examples that both got wrong."""
        return self._counts.get("both_wrong", 0)

    @property
    def n_missing(self) -> int:
        """Examples left out, because one side or both failed on them."""
        return self._counts.get(None, 0)

    @property
    def n(self) -> int:
        """Examples that both answered."""
        return cast(int, self.table.num_rows) - self.n_missing

    @property
    def coverage(self) -> float:
        """Share of the examples that both answered."""
        return self.n / cast(int, self.table.num_rows)

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
    def candidate_accuracy(self) -> Estimate:
        """The candidate's accuracy on the pairs."""
        return wilson(self.both_right + self.wins, self.n, level=1 - self.alpha)

    @property
    def reference_accuracy(self) -> Estimate:
        """The reference's accuracy on the pairs."""
        return wilson(self.both_right + self.losses, self.n, level=1 - self.alpha)

    @cached_property
    def difference(self) -> Estimate:
        """Candidate's accuracy less the reference's, with the Tango interval."""
        return tango(self.wins, self.losses, self.n, level=1 - self.alpha)

    @cached_property
    def p_value(self) -> float:
        """Two-sided exact McNemar p-value: the primary test."""
        return mcnemar_exact(self.wins, self.losses)

    @cached_property
    def mid_p_value(self) -> float:
        """Mid-p McNemar value, shown beside; it decides nothing."""
        return mcnemar_mid_p(self.wins, self.losses)

    @property
    def verdict(self) -> Verdict:
        """What is established."""
        if self.coverage < self.min_coverage:
            return "not_established"
        if self.p_value < self.alpha:
            return "better" if self.wins > self.losses else "worse"
        inside = -self.margin < self.difference.low and self.difference.high < self.margin
        return "equivalent" if inside else "not_established"

    @cached_property
    def images_needed(self) -> int | None:
        """Test images for 80 % power at the observed difference and disagreement; None: no number does."""
        if self.wins == self.losses:
            return None
        discordance = (self.wins + self.losses) / self.n
        return sample_size_for_power(
            difference=self.difference.value, discordance=discordance, power=_POWER, alpha=self.alpha
        )

    @property
    def sentence(self) -> str:
        """The verdict in words, with the numbers it rests on."""
        points = 100 * self.difference.value
        gap = f"{abs(points):.1f} points {'ahead of' if points > 0 else 'behind'}" if points else "level with"
        low, high = 100 * self.difference.low, 100 * self.difference.high
        parts = [
            f"{self.candidate.name} is {gap} {self.reference.name}, {100 * (1 - self.alpha):g} % interval "
            f"[{low:+.1f}, {high:+.1f}], exact McNemar {_p(self.p_value)}: {_WORDS[self.verdict]}."
        ]
        if self.coverage < self.min_coverage:
            parts.append(f"Only {self.n} of {self.table.num_rows} examples were answered by both.")
        elif self.verdict == "equivalent":
            parts.append(f"The interval lies within {100 * self.margin:g} points.")
        elif self.verdict == "not_established":
            needed = self.images_needed
            number = f"about {_round(needed)} test images would be needed" if needed else "no number is enough"
            parts.append(f"At this rate of disagreement {number} for 80 % power.")
        return " ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as plain JSON values."""
        return {
            "candidate": self.candidate.name,
            "reference": self.reference.name,
            "wins": self.wins,
            "losses": self.losses,
            "both_right": self.both_right,
            "both_wrong": self.both_wrong,
            "n": self.n,
            "n_missing": self.n_missing,
            "candidate_accuracy": self.candidate_accuracy.model_dump(),
            "reference_accuracy": self.reference_accuracy.model_dump(),
            "difference": self.difference.model_dump(),
            "p_value": self.p_value,
            "mid_p_value": self.mid_p_value,
            "margin": self.margin,
            "alpha": self.alpha,
            "verdict": self.verdict,
            "sentence": self.sentence,
            "images_needed": self.images_needed,
            "same_task": self.same_task,
        }

    def frame(self) -> pd.DataFrame:
        """Return a row per example: truth, both answers and the tag."""
        frame: pd.DataFrame = self.table.to_pandas()
        return frame

    def show(self) -> None:
        """Show the verdict and the four counts."""
        from vlm_tune.evaluation.display import comparison_display

        shown = comparison_display(self)
        _console.show(shown, html=_console.to_html(shown))

    def plot(self) -> Figure:
        """Draw the four counts as one bar."""
        from vlm_tune import plots

        return plots.paired_bar(
            wins=self.wins,
            losses=self.losses,
            both_right=self.both_right,
            both_wrong=self.both_wrong,
            candidate=self.candidate.name,
            reference=self.reference.name,
        )

    def save(self, path: Path | str) -> Path:
        """Write everything, both evaluations included, to one parquet file.

        Raises:
            StorageError: The disk is full; nothing half-written is left.
        """
        sides = {"candidate": self.candidate, "reference": self.reference}
        return save_sides(path, sides, kind="comparison", about={"margin": self.margin, "alpha": self.alpha})

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a saved comparison.

        Raises:
            StorageError: The file is missing or is not a comparison.
        """
        sides, about = load_sides(path, ("candidate", "reference"), kind="comparison")
        return cls(candidate=sides["candidate"], reference=sides["reference"], **about)


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _round(number: int) -> int:
    """Round to two digits: the observed rates carry no more."""
    return round(number, 2 - len(str(number)))

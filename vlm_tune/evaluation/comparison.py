"""Two predictors on the same examples: who wins, and whether that is established."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from vlm_tune._console import Shown
from vlm_tune.cost import Cost
from vlm_tune.evaluation.comparing import ratios, wording
from vlm_tune.evaluation.comparing.counts import Verdict, decide
from vlm_tune.evaluation.comparing.examples import TaggedExamples, choose
from vlm_tune.evaluation.comparing.paired import Paired
from vlm_tune.evaluation.comparing.wording import Tag
from vlm_tune.evaluation.sides import load_sides, save_sides
from vlm_tune.records import Estimate
from vlm_tune.statistics import sample_size_for_power

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from rich.console import RenderableType

__all__ = ["Comparison", "Tag", "Verdict"]

_POWER = 0.8


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Comparison(Shown, Paired):
    """The candidate against the reference on the examples that both answered; immutable.

    The primary test is the exact McNemar test. When it does not reject, the two are `equivalent` if the
    Tango interval of the difference lies inside the margin, and else nothing is established. Examples that
    failed on either side are left out and counted; when too many are, no verdict is established. Where examples
    have groups (`Example.group`), the test exchanges whole groups and the intervals are wider.

    Args:
        candidate: The system that should be better.
        reference: The system it is compared with.
        margin: Difference in accuracy that would not matter, as a fraction.
        alpha: Significance level; the interval's level is 1 - alpha.
        repeat: A second, identical run of one of the two; how many answers changed is shown beside the difference.

    Raises:
        EvaluationError: The two are about other examples, other truths, other pixels or other classes, or
            have no answered example in common; or `repeat` is a run of neither.

    Examples:
        >>> from vlm_tune.evaluation import Evaluation
        >>> truth = {f"{i}.jpg": "dent" for i in range(20)}
        >>> def answers(right): return {f"{i}.jpg": "dent" if i < right else "crack" for i in range(20)}
        >>> def evaluate(name, right): return Evaluation.from_answers(
        ...     name, truth=truth, answers=answers(right), classes=["crack", "dent"])
        >>> Comparison(candidate=evaluate("tuned", 19), reference=evaluate("base", 9)).verdict
        'better'
    """

    def __repr__(self) -> str:
        return f"Comparison({self.candidate.name!r} against {self.reference.name!r}: {wording.WORDS[self.verdict]})"

    @property
    def verdict(self) -> Verdict:
        """What is established."""
        if self.coverage < self.min_coverage:
            return "not_established"
        return decide(self.p_value, self.difference, alpha=self.alpha, margin=self.margin)

    @cached_property
    def images_needed(self) -> int | None:
        """Test images for 80 % power at the observed difference and disagreement; None: no number does.

        Where examples belong together, as many as the observed design effect asks for.
        """
        if self.wins == self.losses:
            return None
        discordance = (self.wins + self.losses) / self.n
        needed = sample_size_for_power(
            difference=self.difference.value, discordance=discordance, power=_POWER, alpha=self.alpha
        )
        return None if needed is None else round(needed * self.counts.design_effect)

    @property
    def sentence(self) -> str:
        """The verdict in words, with the numbers it rests on."""
        return wording.sentence(self)

    def cost_ratio(self, *, candidate: Cost | None = None, reference: Cost | None = None) -> Estimate:
        """Return how many times as dear an image is with the candidate.

        Args:
            candidate: What an image costs, such as `CostModel.of_gpu(...)`; what was paid for each by default.
            reference: The same of the reference.

        Raises:
            EvaluationError: What an image costs is not known, or is nothing.
        """
        return ratios.cost_ratio(candidate or self.candidate, reference or self.reference, level=1 - self.alpha)

    def examples(
        self,
        *,
        tag: str | None = None,
        label: str | None = None,
        predicted: str | None = None,
        reference_predicted: str | None = None,
    ) -> TaggedExamples:
        """Return the examples that both answered, disagreements first, as far as they are asked for.

        Args:
            tag: Who was right: a `Tag`, or its name with the systems' names, such as `base_wrong_tuned_right`.
            label: The true class; where several may apply, a class finds every list with it, a list itself.
            predicted: The candidate's answer.
            reference_predicted: The reference's answer.

        Raises:
            EvaluationError: There is no such tag.
            UnknownLabelError: There is no such class.
        """
        return choose(self, tag=tag, truth=label, answers={"candidate": predicted, "reference": reference_predicted})

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
            "clustered": self.clustered,
            "class_deltas": [delta.model_dump() for delta in self.class_deltas],
            "brier_difference": self.brier_difference.model_dump() if self.brier_difference else None,
            "speed_ratio": self.speed_ratio.model_dump() if self.speed_ratio else None,
            "noise": self.noise.model_dump() if self.noise else None,
        }

    def frame(self) -> pd.DataFrame:
        """Return a row per example: truth, both answers and the tag."""
        frame: pd.DataFrame = self.table.to_pandas()
        return frame

    def _rich(self) -> RenderableType:
        """Draw the verdict and the four counts."""
        from vlm_tune.evaluation.comparing.display import comparison_display

        return comparison_display(self)

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
        sides = self._sides | ({} if self.repeat is None else {"repeat": self.repeat})
        return save_sides(path, sides, kind="comparison", about={"margin": self.margin, "alpha": self.alpha})

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a saved comparison.

        Raises:
            StorageError: The file is missing or is not a comparison.
        """
        sides, about = load_sides(path, kind="comparison")
        return cls(**{**sides, **about})

"""What a predictor's answers are worth: counts, shares and F1, each with its interval."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

from vlm_tune.errors import EvaluationError
from vlm_tune.evaluation import counting
from vlm_tune.evaluation.comparing.counts import groups_of, share
from vlm_tune.records import Estimate, Outcome
from vlm_tune.statistics import ClassScores, F1Scores, f1_scores, mean_of_proportions
from vlm_tune.task import Task

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = ["Measured"]

_OUTCOMES: tuple[Outcome, ...] = ("answered", "unparseable", "refused", "failed")


@dataclass(frozen=True, eq=False, repr=False)
class Measured:
    """Answers beside truths, and everything that is counted of them; the half of `Evaluation` that measures."""

    name: str
    """The predictor's name."""
    classes: tuple[str, ...]
    """The possible answers."""
    table: pa.Table
    """A row per example: id, truth, group, image, outcome, label, scores, raw, latency, cost, tokens."""
    predictor_fingerprint: str = ""
    """The predictor's fingerprint; empty for answers made elsewhere."""
    dataset_fingerprint: str = ""
    """The dataset's fingerprint; empty for answers made elsewhere."""
    task: Task | None = None
    """The question; None for answers made elsewhere."""
    wall_s: float | None = None
    """Time spent asking, over all runs that it took; loading the model included."""
    min_coverage: float = 0.95
    """Share of examples that must not be missing for there to be an accuracy."""
    multi_label: bool = False
    """Whether truths and answers are lists of classes, such as `crack, dent`; see `Task.multi_label`."""
    prompt_note: str = ""
    """What the predictor was shown besides the task's prompt, such as examples; empty for nothing."""
    possibly_billed: int = 0
    """Calls that broke off after they were sent, in all runs of the run folder: they may be billed too."""

    def __post_init__(self) -> None:
        if not self.table.num_rows:
            raise EvaluationError(f"{self.name}: an evaluation needs at least one example")
        if not 0 <= self.min_coverage <= 1:
            raise EvaluationError(f"min_coverage is a share between 0 and 1, not {self.min_coverage}")

    @property
    def num_examples(self) -> int:
        """How many examples there were, missing ones included."""
        return cast(int, self.table.num_rows)

    @cached_property
    def outcomes(self) -> Mapping[Outcome, int]:
        """How many examples had each outcome; all four are there."""
        counts = Counter(self.table["outcome"].to_pylist())
        return MappingProxyType({outcome: counts[outcome] for outcome in _OUTCOMES})

    @property
    def coverage(self) -> float:
        """Share of the examples that are not missing."""
        return 1 - self.outcomes["failed"] / self.num_examples

    @property
    def accuracy(self) -> Estimate:
        """Share of right answers among the examples that are not missing, with its Wilson interval.

        Where some examples belong together (`Example.group`), the interval goes by group.

        Raises:
            EvaluationError: Less than `min_coverage` is there; `accuracy_bounds` still says what is certain.
        """
        if self.coverage < self.min_coverage:
            low, high = self.accuracy_bounds
            missing = f"{self.outcomes['failed']} of {self.num_examples} examples are missing"
            raise EvaluationError(
                f"{self.name}: {missing}, coverage {self.coverage:.1%} is below {self.min_coverage:.1%}; "
                f"accuracy is between {low:.3f} and {high:.3f}. Run again: only missing examples are asked"
            )
        return self._share

    @property
    def accuracy_bounds(self) -> tuple[float, float]:
        """Accuracy if every missing example were wrong, and if every one were right."""
        right, missing = self._num_right, self.outcomes["failed"]
        return right / self.num_examples, (right + missing) / self.num_examples

    @property
    def headline(self) -> str:
        """The accuracy in percent with its interval, or its bounds when too much is missing."""
        if self.coverage >= self.min_coverage:
            return f"{self.accuracy.percent()} (n={self.accuracy.n})"
        low, high = self.accuracy_bounds
        return f"between {low:.1%} and {high:.1%}, {self.outcomes['failed']} of {self.num_examples} missing"

    @property
    def measure(self) -> str:
        """What the accuracy is called: `accuracy`, or `exact match` where several classes may apply."""
        return "exact match" if self.multi_label else "accuracy"

    @property
    def chance(self) -> float:
        """Accuracy of guessing every answer with the same probability."""
        return 0.5 ** len(self.classes) if self.multi_label else 1 / len(self.classes)

    def per_class(self) -> dict[str, Estimate]:
        """Return the recall of each class: the share of its examples that were answered with it."""
        return {label: scores.recall for label, scores in self.class_scores().items()}

    def class_scores(self) -> dict[str, ClassScores]:
        """Return precision, recall and F1 of each class, with intervals; see `statistics.f1_scores`."""
        return dict(zip(self.classes, self._f1.per_class, strict=True))

    @property
    def macro_recall(self) -> Estimate:
        """Mean recall over the classes that have examples: every class counts the same.

        Raises:
            EvaluationError: Every example is missing, or none has a class.
        """
        present = [recall for recall in self.per_class().values() if recall.n]
        if not present:
            raise EvaluationError(f"{self.name}: every example is missing, or none has a class")
        return mean_of_proportions(present)

    @property
    def macro_f1(self) -> Estimate:
        """Mean F1 over the classes that have examples: every class counts the same."""
        return self._f1.macro

    @property
    def micro_f1(self) -> Estimate:
        """F1 of all decisions about all classes together: frequent classes count more.

        Where one class applies to each example, this is the share of right answers, an answer that is no class
        being a wrong one.
        """
        if self.multi_label:
            return self._f1.micro
        return self._share

    def confusion(self) -> NDArray[np.int64]:
        """Return counts, C x (C + 1): rows are truths, columns answers, the last column is no class.

        Missing examples are not counted.

        Raises:
            EvaluationError: Several classes may apply, so that no class is mistaken for another;
                `class_counts` counts each by itself.
        """
        if self.multi_label:
            raise EvaluationError(
                f"{self.name}: where several classes may apply there is no confusion matrix; "
                "class_counts() counts what was found and missed of each class"
            )
        return counting.confusion(self.table, self.classes)

    def class_counts(self) -> NDArray[np.int64]:
        """Return counts for each class by itself, C x 2 x 2: first whether it is true, then whether it was answered.

        `counts[c, 1, 1]` were found, `counts[c, 1, 0]` missed, `counts[c, 0, 1]` named wrongly. Missing examples
        are not counted.
        """
        return counting.class_counts(*self._members[:2])

    @cached_property
    def _members(self) -> counting.Members:
        return counting.members(self.table, self.classes, multi_label=self.multi_label)

    @cached_property
    def _f1(self) -> F1Scores:
        truth, answer, groups = self._members
        return f1_scores(truth, answer, groups=groups)

    @cached_property
    def _share(self) -> Estimate:
        import pyarrow.compute as pc

        there = self.table.filter(pc.not_equal(self.table["outcome"], "failed"))
        right = pc.fill_null(pc.equal(there["label"], there["truth"]), False).to_numpy()
        return share(right, groups=groups_of(there["group"]))

    @cached_property
    def _num_right(self) -> int:
        import pyarrow.compute as pc

        # A failure has no label, so it is never counted.
        return int(pc.sum(pc.equal(self.table["label"], self.table["truth"])).as_py() or 0)

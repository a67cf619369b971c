"""How much a model can decide alone: only where it is sure enough to be as accurate as wanted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from vlm_tune._console import Shown
from vlm_tune.errors import EvaluationError
from vlm_tune.evaluation.comparing.counts import groups_of, share
from vlm_tune.evaluation.evaluation import Evaluation
from vlm_tune.evaluation.probabilities import probabilities
from vlm_tune.records import Estimate, Record
from vlm_tune.statistics import SafeThreshold, safe_threshold
from vlm_tune.statistics.selection import clopper_pearson_limits

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from rich.console import RenderableType

__all__ = ["OperatingPoint", "RiskCoverage", "Threshold", "confidences", "rights"]


class OperatingPoint(Record):
    """What a threshold does on some photos."""

    alone: Estimate
    """Share of the photos that the model decides alone, with the Wilson interval."""
    accuracy: Estimate
    """Accuracy of what it decides alone; n of 0 where that is nothing."""
    same_photos: bool
    """Whether these are the photos the threshold was chosen on, so that the accuracy is flattered."""

    @property
    def sentence(self) -> str:
        """The operating point in words."""
        if not self.accuracy.n:
            return "None of the photos is decided alone."
        flattered = (
            " These are the photos the threshold was chosen on: measure it on others." if self.same_photos else ""
        )
        return f"{self.alone.percent()} are decided alone, {self.accuracy.percent()} of them rightly.{flattered}"


class Threshold(Record):
    """A confidence from which on a model decides alone, and what that rests on; made by `threshold_for`."""

    system: str
    """The model."""
    accuracy: float
    """The accuracy that was wanted of what it decides alone."""
    level: float | None
    """Confidence that it is reached on new photos; None: nothing is promised."""
    found: SafeThreshold
    """The threshold, and the photos it rests on."""
    n: int
    """Photos it was chosen on."""
    fitted_on: str
    """Their fingerprint."""

    @property
    def value(self) -> float | None:
        """The least confidence of a decision; None where no threshold is established."""
        return self.found.threshold

    @property
    def sentence(self) -> str:
        """The threshold in words."""
        wanted = f"{100 * self.accuracy:g} %"
        if self.found.threshold is None:
            few = f", at the least {self.found.fewest} photos without a mistake" if self.level else ""
            return (
                f"No threshold is shown to reach {wanted} on {self.n} photos{few}: {self.system} decides nothing alone."
            )
        at = f"{self.system} decides alone from a confidence of {self.found.threshold:.4g} on"
        on = f"{self.found.num_above} of {self.n} photos, {self.found.num_right} rightly"
        if self.level is None:
            return f"{at}: {on}. Nothing is promised for other photos."
        return f"{at}: {on}. New photos reach {wanted} with {100 * self.level:g} % confidence."

    def applied(self, evaluation: Evaluation) -> OperatingPoint:
        """Measure the threshold on photos of a test split.

        Answers without a probability, refusals and failures are not decided alone.

        Raises:
            EvaluationError: No answer has probabilities.
        """
        alone, right = self.decides(evaluation), rights(evaluation)
        groups = groups_of(evaluation.table["group"])
        inside = None if groups is None else groups[alone]
        clustered = inside is not None and len(np.unique(inside)) < len(inside)
        return OperatingPoint(
            alone=share(alone, groups=groups),
            accuracy=share(right[alone], groups=inside if clustered else None),
            same_photos=bool(self.fitted_on) and self.fitted_on == evaluation.dataset_fingerprint,
        )

    def decides(self, evaluation: Evaluation) -> NDArray[np.bool_]:
        """Return which of an evaluation's examples are decided alone, in order."""
        sure = confidences(evaluation)
        alone: NDArray[np.bool_] = sure >= (np.inf if self.value is None else self.value)
        return alone


@dataclass(frozen=True, eq=False, repr=False)
class RiskCoverage(Shown):
    """How the accuracy falls as a model decides more photos alone, the surest ones first; immutable.

    Args:
        evaluation: Answers with probabilities. Answers without one, refusals and failures are never decided alone.
            Where several classes may apply, an answer is as sure as its least sure class, and right if all are.

    Raises:
        EvaluationError: No answer has probabilities.
    """

    evaluation: Evaluation
    """The answers."""

    def __post_init__(self) -> None:
        _ = self._sure

    def __repr__(self) -> str:
        return f"RiskCoverage({self.evaluation.name!r}, n={self.evaluation.num_examples})"

    @cached_property
    def _sure(self) -> NDArray[np.float64]:
        return confidences(self.evaluation)

    def threshold_for(self, *, accuracy: float, level: float | None = 0.95) -> Threshold:
        """Return the least confidence with which the model may decide alone to be this accurate.

        The promise is about new photos like these, whatever the model is like; see `statistics.safe_threshold`.
        It counts independent photos, so of photos that belong together the first is taken. Choose on validation
        photos and measure with `Threshold.applied` on the test split.

        Args:
            accuracy: Wanted accuracy of what is decided alone, as a fraction.
            level: Confidence of the promise; None takes the threshold that reaches the accuracy on these photos and
                promises nothing.

        Raises:
            EvaluationError: Accuracy or level are not between 0 and 1.
        """
        usable = np.isfinite(self._sure) & _one_of_each(groups_of(self.evaluation.table["group"]), len(self._sure))
        try:
            found = safe_threshold(self._sure[usable], rights(self.evaluation)[usable], accuracy=accuracy, level=level)
        except ValueError as error:
            raise EvaluationError(str(error)) from error
        return Threshold(
            system=self.evaluation.name,
            accuracy=accuracy,
            level=level,
            found=found,
            n=int(np.count_nonzero(usable)),
            fitted_on=self.evaluation.dataset_fingerprint,
        )

    def frame(self) -> pd.DataFrame:
        """Return a row for each confidence: share decided alone from it on, accuracy with its exact interval.

        The interval is that of one confidence by itself, and photos of one group count as independent.
        """
        import pandas as pd

        there = np.isfinite(self._sure)
        order = np.argsort(-self._sure[there], kind="stable")
        sure, right = self._sure[there][order], np.cumsum(rights(self.evaluation)[there][order])
        ends = np.flatnonzero(np.append(sure[1:] < sure[:-1], True))
        low, high = clopper_pearson_limits(right[ends], ends + 1)
        columns = {
            "confidence": sure[ends],
            "num_alone": ends + 1,
            "alone": (ends + 1) / self.evaluation.num_examples,
            "accuracy": right[ends] / (ends + 1),
            "low": low,
            "high": high,
        }
        return pd.DataFrame(columns)

    def _rich(self) -> RenderableType:
        """Draw the accuracy of the surest tenth, two tenths and so on."""
        from rich.table import Table

        frame = self.frame()
        title = f"{self.evaluation.name}: the surest answers, n = {self.evaluation.num_examples}"
        table = Table("decided alone", title=title, title_justify="left")
        for name in ("from confidence", "accuracy", "95 % interval"):
            table.add_column(name, justify="right")
        for tenth in range(1, 11):
            place = int((frame["alone"] - tenth / 10).abs().argmin())
            row = frame.iloc[place]
            interval = f"[{row['low']:.1%}, {row['high']:.1%}]"
            table.add_row(f"{row['alone']:.0%}", f"{row['confidence']:.4g}", f"{row['accuracy']:.1%}", interval)
        return table

    def plot(self, threshold: Threshold | None = None) -> Figure:
        """Draw accuracy by the share decided alone, with pointwise 95 % intervals, and a threshold."""
        from vlm_tune.plots.calibration import risk_coverage

        frame = self.frame()
        lines = [frame[name].to_numpy() for name in ("alone", "accuracy", "low", "high")]
        at = None
        if threshold is not None and threshold.value is not None:
            at = float((self._sure >= threshold.value).mean())
        wanted = None if threshold is None else threshold.accuracy
        title = f"{self.evaluation.name}: accuracy of the surest answers, n = {self.evaluation.num_examples}"
        return risk_coverage(*lines, at=at, wanted=wanted, title=title)


def confidences(evaluation: Evaluation) -> NDArray[np.float64]:
    """Return how sure each answer is, in order; minus infinity where it is not said."""
    found = probabilities(evaluation)
    sure = np.full(evaluation.num_examples, -np.inf)
    sure[found.rows] = np.clip(found.confidence, 0.0, 1.0)
    return sure


def _one_of_each(groups: NDArray[np.int64] | None, n: int) -> NDArray[np.bool_]:
    first = np.zeros(n, dtype=bool)
    first[np.arange(n) if groups is None else np.unique(groups, return_index=True)[1]] = True
    return first


def rights(evaluation: Evaluation) -> NDArray[np.bool_]:
    """Return which answers are right, in order; failures are not."""
    import pyarrow.compute as pc

    right: NDArray[np.bool_] = pc.fill_null(
        pc.equal(evaluation.table["label"], evaluation.table["truth"]), False
    ).to_numpy()
    return right

"""Whether a model is right as often as it says."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from vlm_tune._console import Shown
from vlm_tune.errors import EvaluationError
from vlm_tune.evaluation.calibration.temperature import Temperature
from vlm_tune.evaluation.comparing.counts import groups_of
from vlm_tune.evaluation.comparing.wording import p_words
from vlm_tune.evaluation.evaluation import Evaluation
from vlm_tune.evaluation.probabilities import Probabilities, probabilities
from vlm_tune.records import Estimate
from vlm_tune.statistics import CalibrationError, brier, calibration_error, mean_score, spiegelhalter_z, wilson

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from rich.console import RenderableType

__all__ = ["Calibration"]


@dataclass(frozen=True, eq=False, repr=False)
class Calibration(Shown):
    """A model's probabilities beside what came true; immutable.

    Each number stands beside the one that a perfectly calibrated model would show on as many photos with these very
    probabilities. Where several classes may apply, every class of every photo is one decision. The comparison takes
    decisions, and photos of one group, as independent, so it is a little strict.

    Args:
        evaluation: Answers with probabilities; those without are left out and counted.
        temperature: Divides the log-probabilities first; fit it on other photos than these.
        bins: Bins of the diagram and of the calibration error, from 0 to 1.

    Raises:
        EvaluationError: No answer has probabilities, or the temperature was fitted on these very photos.
    """

    evaluation: Evaluation
    """The answers."""
    temperature: Temperature | None = None
    """What the log-probabilities are divided by; None for nothing."""
    bins: int = 10
    """Number of bins."""

    def __post_init__(self) -> None:
        if not 1 <= self.bins <= 1000:
            raise EvaluationError(f"bins must be between 1 and 1000, not {self.bins}")
        fingerprint = self.evaluation.dataset_fingerprint
        if self.temperature is not None and fingerprint and self.temperature.fitted_on == fingerprint:
            raise EvaluationError(
                "the temperature was fitted on these very photos, so it would look better than it is; "
                "fit it on data.validation and use it on data.test"
            )
        _ = self._found

    def __repr__(self) -> str:
        return f"Calibration({self.evaluation.name!r}: {self.error})"

    @cached_property
    def _found(self) -> Probabilities:
        found = probabilities(self.evaluation)
        return found if self.temperature is None else found.at(self.temperature.value.value)

    @property
    def n_without(self) -> int:
        """Examples left out, because there is no answer or no probability."""
        return self.evaluation.num_examples - len(self._found.rows)

    @cached_property
    def error(self) -> CalibrationError:
        """Expected calibration error, beside that of a perfectly calibrated model."""
        decisions, right = self._found.decisions.ravel(), self._found.decided_right.ravel()
        return calibration_error(decisions, right, bins=self.bins)

    @cached_property
    def brier(self) -> Estimate:
        """Mean Brier score with its interval: 0 is best, and guessing all of C classes alike has 1 - 1 / C."""
        groups = groups_of(self.evaluation.table["group"].take(self._found.rows))
        worst = float(len(self.evaluation.classes)) if self.evaluation.multi_label else 2.0
        return mean_score(brier(self._found.classes, self._found.truth), worst=worst, groups=groups)

    @cached_property
    def _expected(self) -> tuple[float, float]:
        found = self._found
        return spiegelhalter_z(found.classes, found.truth, exclusive=not found.multi_label)

    @property
    def expected_brier(self) -> float:
        """Mean Brier score that these probabilities would have if they were true."""
        return self._expected[0]

    @property
    def p_value(self) -> float:
        """Two-sided p-value of Spiegelhalter's test that the probabilities are true."""
        from scipy.stats import norm

        return float(2 * norm.sf(abs(self._expected[1])))

    @property
    def sentence(self) -> str:
        """The result in words."""
        error, name = self.error, self.evaluation.name
        confident, right = self._means
        if error.p_value >= 0.05:
            word = "nothing speaks against its probabilities"
        elif confident > right:
            word = "it is too sure of itself"
        else:
            word = "it is not sure enough of itself"
        return (
            f"{name} is {100 * confident:.1f} % sure on average and right in {100 * right:.1f} % (n={error.n}): "
            f"calibration error {error.value:.3f}, a perfectly calibrated model would show {error.expected:.3f} "
            f"(95 % below {error.high:.3f}); {word}."
        )

    @property
    def _means(self) -> tuple[float, float]:
        return float(self._found.decisions.mean()), float(self._found.decided_right.mean())

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as plain JSON values."""
        return {
            "name": self.evaluation.name,
            "temperature": self.temperature.model_dump() if self.temperature else None,
            "n_without": self.n_without,
            "error": self.error.model_dump(),
            "brier": self.brier.model_dump(),
            "expected_brier": self.expected_brier,
            "p_value": self.p_value,
            "sentence": self.sentence,
        }

    def frame(self) -> pd.DataFrame:
        """Return a row for each bin that has answers: its confidence, its accuracy with interval, the band."""
        import pandas as pd

        rows = []
        for found in self.error.bins:
            accuracy = wilson(found.right, found.n)
            ends = {"accuracy": accuracy.value, "low": accuracy.low, "high": accuracy.high}
            row = {"from": found.low, "to": found.high, "n": found.n, "confidence": found.confidence}
            rows.append(row | ends | {"band_low": found.band[0], "band_high": found.band[1]})
        return pd.DataFrame(rows)

    def plot(self) -> Figure:
        """Draw the reliability diagram: accuracy by confidence, with the band of a perfectly calibrated model."""
        from vlm_tune.plots.calibration import reliability

        return reliability(self.error, title=f"{self.evaluation.name}: calibration error {self.error.value:.3f}")

    def _rich(self) -> RenderableType:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table("confidence", title=f"Calibration of {self.evaluation.name}", title_justify="left")
        for name in ("answers", "sure", "right", "95 % interval", "if calibrated"):
            table.add_column(name, justify="right")
        for row in self.frame().to_dict("records"):
            table.add_row(
                f"{row['from']:.0%} to {row['to']:.0%}",
                f"{row['n']:.0f}",
                f"{row['confidence']:.1%}",
                f"{row['accuracy']:.1%}",
                f"[{row['low']:.1%}, {row['high']:.1%}]",
                f"[{row['band_low']:.1%}, {row['band_high']:.1%}]",
            )
        score = self.brier
        lines = [
            self.sentence,
            f"Brier score {score.value:.3f} [{score.low:.3f}, {score.high:.3f}]; {self.expected_brier:.3f} if the "
            f"probabilities were true ({p_words(self.p_value)}).",
        ]
        if self.temperature is not None:
            lines.append(f"At temperature {self.temperature}.")
        if self.n_without:
            lines.append(f"{self.n_without} examples are left out: no answer, or no probability.")
        return Group(table, Text("\n".join(lines)))

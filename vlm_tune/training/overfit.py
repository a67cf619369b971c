"""What the overfit gate found: a model that cannot learn ten examples by heart will not learn a thousand."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from vlm_tune.errors import OverfitError
from vlm_tune.records import Record, SavedRecord

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from rich.console import RenderableType

__all__ = ["GateCheck", "OverfitReport"]


class GateCheck(Record):
    """One of the gate's checks."""

    name: Literal["loss", "answers", "swapped", "blanks"]
    """What was checked."""
    passed: bool
    """Whether it holds."""
    detail: str
    """What was found."""
    hint: str
    """What to look at when it does not hold."""


class OverfitReport(SavedRecord):
    """Whether a handful of examples could be learnt by heart, and by looking at them."""

    saved_as: ClassVar[str] = "overfit report"
    num_examples: PositiveInt
    """Examples trained on."""
    example_ids: tuple[str, ...]
    """Their ids."""
    num_steps: NonNegativeInt
    """Optimizer steps taken."""
    losses: tuple[float, ...]
    """Training loss of every step, in nats per trained token."""
    final_loss: NonNegativeFloat
    """Mean loss per token of the right answers through the scoring that evaluation uses."""
    num_correct: NonNegativeInt
    """Right answers through the same scoring."""
    num_swapped_correct: NonNegativeInt
    """Right answers after every photo took the place of one of another class."""
    num_blank_correct: NonNegativeInt
    """Answers that are still right when every photo is a grey blank of its own size."""
    blank_limit: NonNegativeInt
    """Most right answers on blanks that chance explains."""
    checks: tuple[GateCheck, ...]
    """The checks, in order."""
    seconds: NonNegativeFloat
    """Time spent training."""

    @property
    def passed(self) -> bool:
        """Whether all checks hold."""
        return all(check.passed for check in self.checks)

    def raise_if_failed(self) -> OverfitReport:
        """Return the report itself.

        Raises:
            OverfitError: A check failed; the message names which ones and what to look at.
        """
        failed = [f"{check.name}: {check.detail}; {check.hint}" for check in self.checks if not check.passed]
        if failed:
            raise OverfitError(f"{self.num_examples} examples could not be learnt by heart. " + ". ".join(failed))
        return self

    def _rich(self) -> RenderableType:
        """Draw the checks."""
        from rich.table import Table
        from rich.text import Text

        title = f"Overfit gate: {self.num_examples} examples, {self.num_steps} steps, {self.seconds:.0f} s"
        table = Table("check", "result", "found", title=title)
        for check in self.checks:
            verdict = Text("passed", style="green") if check.passed else Text("FAILED", style="red")
            table.add_row(check.name, verdict, check.detail if check.passed else f"{check.detail}; {check.hint}")
        return table

    def frame(self) -> pd.DataFrame:
        """Return one row an optimizer step: step and loss."""
        import pandas as pd

        return pd.DataFrame({"step": range(1, len(self.losses) + 1), "loss": self.losses})

    def plot(self) -> Figure:
        """Draw the loss curve."""
        from vlm_tune import plots

        return plots.loss_curve(range(1, len(self.losses) + 1), self.losses, title="Overfit gate")

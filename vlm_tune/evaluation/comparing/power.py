"""Before collecting test photos: would so many of them show a difference, and how many would."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import PositiveInt

from vlm_tune.errors import EvaluationError
from vlm_tune.records import Record
from vlm_tune.statistics import mcnemar_power, minimum_detectable_difference, sample_size_for_power

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from rich.console import RenderableType

__all__ = ["PowerPlan", "power"]


class PowerPlan(Record):
    """What a test set of a given size can show; made by `power`."""

    n: PositiveInt
    """Test images."""
    difference: float
    """The difference in accuracy that is expected, as a fraction."""
    discordance: float
    """Share of images that exactly one of the two systems gets right."""
    alpha: float
    """Significance level of the exact McNemar test."""
    goal: float
    """Wanted probability of establishing the difference."""
    power: float
    """Probability that n images establish it."""
    images_needed: int | None
    """Images that reach the goal; None: no number does."""
    detectable: float | None
    """Smallest difference that n images establish with the wanted probability; None: not even the largest."""

    @property
    def sentence(self) -> str:
        """The plan in words."""
        points = f"{100 * abs(self.difference):.3g} points"
        first = (
            f"{self.n} test images establish a difference of {points} with probability {self.power:.0%}, "
            f"if the two disagree on {self.discordance:.0%} of them."
        )
        if self.images_needed is None:
            return f"{first} No number of images is enough."
        return f"{first} For {self.goal:.0%} it takes {self.images_needed:,}."

    def frame(self, sizes: Sequence[int] = ()) -> pd.DataFrame:
        """Return the power at several numbers of images; from 25 to beyond what is needed by default."""
        import pandas as pd

        chosen = list(sizes) or self._sizes()
        return pd.DataFrame({"n": chosen, "power": [self._at(n) for n in chosen]})

    def _rich(self) -> RenderableType:
        """Draw the sentence, and the power at several numbers of images."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table("test images", "power", title="Exact McNemar test", title_justify="left")
        for row in self.frame().itertuples():
            table.add_row(f"{row.n:,}", f"{row.power:.0%}")
        return Group(table, Text(self.sentence))

    def plot(self) -> Figure:
        """Draw the power by the number of test images."""
        from vlm_tune.plots.matrix import power_curve

        sizes = sorted({*self._sizes(), self.n})
        title = f"Power for {100 * abs(self.difference):.3g} points, disagreement {self.discordance:.0%}"
        return power_curve([(n, self._at(n)) for n in sizes], at=(self.n, self.power), goal=self.goal, title=title)

    def _at(self, n: int) -> float:
        return mcnemar_power(n, difference=self.difference, discordance=self.discordance, alpha=self.alpha)

    def _sizes(self) -> list[int]:
        end = max(2 * self.n, round(1.3 * (self.images_needed or 0)), 50)
        return sorted({round(25 * (end / 25) ** (step / 11)) for step in range(12)})


def power(n: int, *, difference: float, discordance: float, alpha: float = 0.05, goal: float = 0.8) -> PowerPlan:
    """Return whether n test images would show a difference, before any is collected.

    Args:
        n: Number of test images.
        difference: Difference in accuracy that is expected, or the smallest that would matter, as a fraction.
        discordance: Share of images on which exactly one of the two will be right. Two systems with accuracies
            a and b disagree on at least |a - b| and, if their mistakes have nothing in common, on
            a (1 - b) + b (1 - a); the truth is mostly between the two.
        alpha: Significance level.
        goal: Wanted probability of establishing the difference.

    Raises:
        EvaluationError: The difference cannot be larger than the discordance, there are no images, or alpha or goal
            are not between 0 and 1.

    Examples:
        >>> plan = power(98, difference=0.06, discordance=0.14)
        >>> print(f"{plan.power:.0%}", plan.images_needed)
        26% 322
    """
    if not 0 < alpha < 1 or not 0 < goal < 1:
        raise EvaluationError(f"alpha and goal lie between 0 and 1, not {alpha} and {goal}")
    try:
        reached = mcnemar_power(n, difference=difference, discordance=discordance, alpha=alpha)
        return PowerPlan(
            n=n,
            difference=difference,
            discordance=discordance,
            alpha=alpha,
            goal=goal,
            power=reached,
            images_needed=sample_size_for_power(
                difference=difference, discordance=discordance, power=goal, alpha=alpha
            ),
            detectable=minimum_detectable_difference(n, discordance=discordance, power=goal, alpha=alpha),
        )
    except ValueError as error:
        raise EvaluationError(str(error)) from error

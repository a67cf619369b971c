"""A forecast put to the test: made from the smaller sizes, held against what a larger one gave."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlm_tune.experiments.forecast import Forecast
from vlm_tune.records import Estimate, Record

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Hindcast"]


class Hindcast(Record):
    """What the smaller sizes foretold of a size, and what was measured there.

    The band is about photos like the test images and trainings like these, the measurement is of these alone: the
    mean of a few trainings lies a little off what is to be expected of them.
    """

    forecast: Forecast
    """What is expected at the size by the smaller ones alone."""
    measured: Estimate
    """The mean test accuracy over the seeds there, with the Wilson interval of the test images."""
    sizes: tuple[int, ...]
    """The sizes that the forecast was made from."""

    @property
    def held(self) -> bool:
        """Whether the band holds the measured accuracy."""
        return self.forecast.accuracy.low <= self.measured.value <= self.forecast.accuracy.high

    @property
    def sentence(self) -> str:
        """Both in words."""
        sizes, verdict = f"{self.sizes[0]:,} to {self.sizes[-1]:,}", "inside" if self.held else "outside"
        return (
            f"From {sizes} images, {self.forecast.accuracy.percent()} was expected of {self.forecast.n:,}; measured: "
            f"{self.measured.percent()}, {verdict} the band."
        )

    def _rich(self) -> RenderableType:
        """Draw the sentence and what speaks against the forecast."""
        from rich.text import Text

        return Text("\n".join([self.sentence, *self.forecast.remarks]))

"""What more training images would bring, as far as the points say: a band, how many are needed, what one is worth."""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import TYPE_CHECKING, Literal

import numpy as np

from vlm_tune.errors import ForecastError
from vlm_tune.experiments.families import FamilyFit
from vlm_tune.experiments.resampling import Measured, Resampled
from vlm_tune.records import Estimate, Record

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from rich.console import RenderableType

    from vlm_tune.experiments.points import CurvePoint

__all__ = ["Forecast", "ImagesNeeded", "MarginalValue"]

Verdict = Literal["within_reach", "out_of_reach", "cannot_tell"]
"""Whether the band at the farthest size lies above the target, below it, or around it."""

LEAST_SIZES = 4
"""Three numbers shape a curve; with fewer sizes any curve fits and none is told apart."""

FARTHEST = 4
"""Beyond so many times the largest size measured nothing is said."""

METHOD = "three families on resampled test images and seeds, 95% band"
_QUANTILES = (0.5, 0.025, 0.975)
_MIDDLE, _LOW, _HIGH = range(3)
_BENT = 0.01


class Forecast(Record):
    """The accuracy to expect on photos like the test images, after training on n images."""

    n: int
    """Training images."""
    accuracy: Estimate
    """Median and 95 % band of all families over all resampled curves; its n counts test images."""
    largest: int
    """The largest size that was measured."""
    fits: tuple[FamilyFit, ...]
    """The curve of each family that is nearest to the measured points."""
    remarks: tuple[str, ...] = ()
    """What speaks against relying on it."""

    @property
    def sentence(self) -> str:
        """The forecast in words."""
        far = f", {self.n / self.largest:.2g} times the largest size measured" if self.n > self.largest else ""
        return f"With {self.n:,} training images{far}: {self.accuracy.percent()} expected."

    def frame(self) -> pd.DataFrame:
        """Return a row for each family: its numbers, its misfit and the accuracy that it alone expects."""
        import pandas as pd

        rows = [{**fit.model_dump(), "accuracy": 1 - fit.error(self.n)} for fit in self.fits]
        return pd.DataFrame(rows).set_index("family")

    def _rich(self) -> RenderableType:
        """Draw the forecast and what speaks against it."""
        from rich.text import Text

        return Text("\n".join([self.sentence, *self.remarks]))


class ImagesNeeded(Record):
    """How many training images an accuracy takes, or that the points do not say."""

    target: float
    """The accuracy asked for, as a fraction."""
    verdict: Verdict
    """Whether the target is reached, as far as can be told."""
    images: int | None = None
    """The size at which the middle of the band reaches the target."""
    low: int | None = None
    """The size at which the upper end of the band reaches it: with fewer images it is not to be expected."""
    high: int | None = None
    """The size at which the lower end reaches it."""
    smallest: int
    """The smallest size measured: an answer of as many means as many or fewer."""
    limit: int
    """The largest size that anything is said of."""
    at_limit: Estimate
    """The accuracy to expect there."""
    remarks: tuple[str, ...] = ()
    """What speaks against relying on it."""

    @property
    def sentence(self) -> str:
        """The answer in words, with its reason."""
        target, limit = f"{100 * self.target:.1f} %", f"{self.limit:,} images"
        if self.verdict == "within_reach":
            about = (
                f"{self.smallest:,} training images or fewer"
                if self.images == self.smallest
                else (f"about {self.images:,} training images")
            )
            return f"{target} takes {about} [{self.low:,}, {self.high:,}]."
        if self.verdict == "out_of_reach":
            return f"{target} is not to be expected up to {limit}: {self.at_limit.percent()} there."
        return (
            f"Cannot tell how many images {target} takes: at {limit}, the farthest these points are extrapolated, the "
            f"band {self.at_limit.percent()} lies around it. Measure a larger size, or with more test images."
        )

    def _rich(self) -> RenderableType:
        """Draw the answer and what speaks against it."""
        from rich.text import Text

        return Text("\n".join([self.sentence, *self.remarks]))


class MarginalValue(Record):
    """What one more labelled image is worth at a size, and one more dollar."""

    n: int
    """Training images there are."""
    per_image: Estimate
    """Accuracy for one more image, as a fraction: the slope of the curve."""
    per_dollar: Estimate | None = None
    """Accuracy for one more dollar; None where no cost is known."""
    usd_per_image: float | None = None
    """What one more image costs: training on it, and its label where a price was given."""

    @property
    def sentence(self) -> str:
        """Both in words, in percentage points."""
        words = f"At {self.n:,} images a hundred more are worth {_points(self.per_image, 100)}"
        if self.per_dollar is None or self.usd_per_image is None:
            return f"{words}; what an image costs is not known."
        dollar = _points(self.per_dollar, 1)
        return f"{words}, and a dollar is worth {dollar} (one more image costs ${self.usd_per_image:.3g})."

    def _rich(self) -> RenderableType:
        """Draw the sentence."""
        from rich.text import Text

        return Text(self.sentence)


def limit_of(measured: Measured) -> int:
    """Return the largest size that a forecast is made for.

    Raises:
        ForecastError: There can be none: too few sizes, one seed only, or nothing right anywhere.
    """
    sizes = len(measured.sizes)
    if sizes < LEAST_SIZES:
        raise ForecastError(
            f"a forecast needs at least {LEAST_SIZES} sizes, and there are {sizes}; train on more sizes"
        )
    if measured.freedom < 1:
        raise ForecastError(
            "a forecast needs a second seed at one size at least, better at all: with one seed only, the luck of a "
            "training cannot be told from the curve"
        )
    if not any(point.right for point in measured.points):
        raise ForecastError(
            "no point has a single test image right: that is a fault to be found, not a curve to be continued; look at "
            "the answers of one evaluation"
        )
    return FARTHEST * int(measured.sizes[-1])


def forecast(measured: Measured, resampled: Resampled, n: int) -> Forecast:
    """Return the forecast for n images; see `LearningCurve.forecast`."""
    _check_size(measured, n)
    remarks = []
    if measured.misfit_p_value() < _BENT:
        remarks.append(
            "The points bend in a way that no family does (lack of fit, p < 0.01): the band is widened for it, but "
            "such a curve may go on otherwise than any of them."
        )
    return Forecast(
        n=n,
        accuracy=_estimate(measured, band(resampled, np.array([float(n)]))[:, 0]),
        largest=int(measured.sizes[-1]),
        fits=measured.fits,
        remarks=tuple(remarks),
    )


def band(resampled: Resampled, sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return middle, low and high accuracy at each size, 3 x sizes."""
    return np.quantile(1.0 - resampled.errors(sizes), _QUANTILES, axis=0)


def images_needed(measured: Measured, resampled: Resampled, target: float) -> ImagesNeeded:
    """Return how many images an accuracy takes; see `LearningCurve.images_needed`."""
    if not 0 < target <= 1:
        raise ForecastError(f"the target is an accuracy between 0 and 1, not {target}")
    limit = limit_of(measured)
    farthest = forecast(measured, resampled, limit)
    within = range(int(measured.sizes[0]), limit + 1)

    def reached(end: int) -> int | None:
        place = bisect_left(within, target, key=lambda n: float(band(resampled, np.array([float(n)]))[end, 0]))
        return within[place] if place < len(within) else None

    verdict: Verdict = "cannot_tell"
    if farthest.accuracy.low >= target:
        verdict = "within_reach"
    elif farthest.accuracy.high < target:
        verdict = "out_of_reach"
    return ImagesNeeded(
        target=target,
        verdict=verdict,
        images=reached(_MIDDLE) if verdict == "within_reach" else None,
        # The upper end of the band is the one that arrives first.
        low=reached(_HIGH),
        high=reached(_LOW),
        smallest=within[0],
        limit=limit,
        at_limit=farthest.accuracy,
        remarks=farthest.remarks,
    )


def marginal_value(
    measured: Measured, resampled: Resampled, n: int, *, label_usd: float | None = None
) -> MarginalValue:
    """Return what one more image is worth; see `LearningCurve.marginal_value`."""
    _check_size(measured, n)
    per_image = _estimate(measured, np.quantile(resampled.falls(float(n)), _QUANTILES))
    usd = _usd_per_image(measured.points, label_usd)
    per_dollar = _scaled(per_image, 1 / usd) if usd else None
    return MarginalValue(n=n, per_image=per_image, per_dollar=per_dollar, usd_per_image=usd)


def _usd_per_image(points: tuple[CurvePoint, ...], label_usd: float | None) -> float | None:
    """Return what one more image costs: the slope of the trainings' cost over size, and the label."""
    if label_usd is not None and not (math.isfinite(label_usd) and label_usd >= 0):
        raise ForecastError(f"the price of a label is an amount of dollars, not {label_usd}")
    paid = [(point.size, point.cost.usd) for point in points if point.cost is not None]
    if len(paid) < len(points):
        return label_usd
    sizes, dollars = np.array(paid, dtype=float).T
    away = sizes - sizes.mean()
    slope = max(float(away @ dollars / (away @ away)), 0.0)
    return slope + (label_usd or 0.0) or None


def _check_size(measured: Measured, n: int) -> None:
    limit = limit_of(measured)
    first = int(measured.sizes[0])
    if not first <= n <= limit:
        raise ForecastError(
            f"these points tell of {first:,} to {limit:,} training images ({FARTHEST} times the largest size), not of "
            f"{n:,}; measure a size nearer to it",
            limit=limit,
        )


def _estimate(measured: Measured, ends: NDArray[np.float64]) -> Estimate:
    value, low, high = map(float, ends)
    return Estimate(value=value, low=low, high=high, n=measured.n_test, method=METHOD)


def _points(estimate: Estimate, times: int) -> str:
    """Return a small rise in percentage points, with as many digits as matter."""
    value, low, high = (100 * times * end for end in (estimate.value, estimate.low, estimate.high))
    return f"{value:+.2g} points [{low:+.2g}, {high:+.2g}]"


def _scaled(estimate: Estimate, factor: float) -> Estimate:
    ends = {name: getattr(estimate, name) * factor for name in ("value", "low", "high")}
    return estimate.model_copy(update=ends)

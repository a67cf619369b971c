"""`LearningCurve`: accuracy by number of training images, and what more of them would bring."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from pydantic import Field, ValidationError

from vlm_tune import _console
from vlm_tune._files import read_json, write_json
from vlm_tune.errors import EvaluationError, ForecastError, StorageError
from vlm_tune.experiments import forecast as forecasts
from vlm_tune.experiments.forecast import Forecast, ImagesNeeded, MarginalValue
from vlm_tune.experiments.points import CurvePoint
from vlm_tune.experiments.resampling import Measured, Resampled, resample
from vlm_tune.records import Estimate, Record
from vlm_tune.statistics.proportions import wilson_limits

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from rich.console import Group

__all__ = ["LearningCurve"]

_KIND = "learning curve"


class LearningCurve(Record):
    """Points of growing training size, all measured on the same test images.

    Raises:
        EvaluationError: There are no points, two of the same size and seed, or points of different test sets.

    Examples:
        >>> right = {25: (52, 55), 50: (63, 60), 100: (71, 69), 200: (77, 80)}
        >>> points = [CurvePoint(size=size, seed=seed, right=count, n_test=98)
        ...           for size, counts in right.items() for seed, count in enumerate(counts)]
        >>> curve = LearningCurve(points=points, classes=("crack", "dent", "scratch"), chance=1 / 3)
        >>> print(curve.forecast(400).accuracy.n)
        98
        >>> curve.images_needed(0.99).verdict
        'out_of_reach'
    """

    points: tuple[CurvePoint, ...]
    """One for each training, in any order."""
    classes: tuple[str, ...]
    """The classes asked about."""
    chance: float = Field(ge=0, le=1)
    """Accuracy of guessing: the share of the largest class, or of one class of as many that are equally frequent."""

    def model_post_init(self, context: Any, /) -> None:
        """Refuse points that do not belong together."""
        if not self.points:
            raise EvaluationError("a learning curve needs points; give one for each training")
        first, seen = self.points[0], set[tuple[int, int]]()
        for point in self.points:
            where = f"the point at {point.size} images, seed {point.seed}"
            if (point.n_test, point.test_set) != (first.n_test, first.test_set):
                raise EvaluationError(
                    f"{where} was measured on another test set ({point.n_test} images, {point.test_set}) than the "
                    f"first ({first.n_test} images, {first.test_set}); evaluate every training on the same test split"
                )
            if (point.size, point.seed) in seen:
                raise EvaluationError(f"{where} is there twice; give one point for each training")
            seen.add((point.size, point.seed))

    @property
    def n_test(self) -> int:
        """Test images."""
        return self.points[0].n_test

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes measured, ascending."""
        return tuple(sorted({point.size for point in self.points}))

    @cached_property
    def _measured(self) -> Measured:
        return Measured(self.points)

    @cached_property
    def _resampled(self) -> Resampled:
        return resample(self._measured)

    def accuracy_at(self, size: int) -> Estimate:
        """Return the mean test accuracy over the seeds of one size, with the Wilson interval of the test images.

        Raises:
            EvaluationError: There is no point of that size.
        """
        right = [point.right for point in self.points if point.size == size]
        if not right:
            raise EvaluationError(f"nothing was trained on {size} images; there are points at {self.sizes}")
        share = sum(right) / len(right) / self.n_test
        low, high = wilson_limits(share, self.n_test)
        return Estimate(value=share, low=low, high=high, n=self.n_test, method="Wilson 95%")

    def forecast(self, n: int) -> Forecast:
        """Return the accuracy to expect on photos like the test images after training on n images.

        Curves of three families (`vlm_tune.experiments.families`) are fitted to a thousand resampled sets of points
        (`vlm_tune.experiments.resampling`); the band holds the middle 95 % of all of them.

        Args:
            n: Training images, from the smallest size to four times the largest.

        Raises:
            ForecastError: Fewer than four sizes, one seed only, no right answer anywhere, or n is out of range.
        """
        self._require()
        return forecasts.forecast(self._measured, self._resampled, n)

    def images_needed(self, target: float) -> ImagesNeeded:
        """Return how many training images an accuracy takes, or that it cannot be told.

        Args:
            target: Accuracy as a fraction.

        Raises:
            ForecastError: As for `forecast`, or the target is no accuracy.
        """
        self._require()
        return forecasts.images_needed(self._measured, self._resampled, target)

    def marginal_value(self, n: int, *, label_usd: float | None = None) -> MarginalValue:
        """Return what one more labelled image is worth at n images, and one more dollar.

        Args:
            n: Training images there are, within the range of `forecast`.
            label_usd: What labelling an image costs; the cost of training on it is added where every point has one.

        Raises:
            ForecastError: As for `forecast`, or the price is no amount of dollars.
        """
        self._require()
        return forecasts.marginal_value(self._measured, self._resampled, n, label_usd=label_usd)

    def _require(self) -> int:
        return forecasts.limit_of(self._measured)

    def frame(self) -> pd.DataFrame:
        """Return a row for each point: size, seed, test accuracy with interval, training accuracy, gap, cost, time."""
        import pandas as pd

        rows = []
        for point in sorted(self.points, key=lambda point: (point.size, point.seed)):
            accuracy, train = point.accuracy, point.train_accuracy
            rows.append(
                {
                    "size": point.size,
                    "seed": point.seed,
                    "right": point.right,
                    "n_test": point.n_test,
                    "accuracy": accuracy.value,
                    "low": accuracy.low,
                    "high": accuracy.high,
                    "train_accuracy": None if train is None else train.value,
                    "gap": point.gap,
                    "cost_usd": None if point.cost is None else point.cost.usd,
                    "seconds": point.seconds,
                }
            )
        return pd.DataFrame(rows)

    def show(self) -> None:
        """Show the sizes, and what twice and four times the largest would bring, or why that cannot be told."""
        from vlm_tune.experiments.display import curve_display

        shown: Group = curve_display(self)
        _console.show(shown, html=_console.to_html(shown))

    def plot(self, *, against: Mapping[str, Estimate] | None = None) -> Figure:
        """Draw the points with their Wilson intervals, the band up to four times the largest size, and chance.

        Args:
            against: Accuracy of others on the same test images by name, drawn as lines.
        """
        from vlm_tune.plots.curves import CurveBand, learning_curve

        band = None
        try:
            sizes = np.geomspace(self.sizes[0], self._require(), 120)
            band = CurveBand(sizes, *forecasts.band(self._resampled, sizes))
        except ForecastError:
            # Points without a band are still worth a look; show() says what is missing.
            pass
        tested = [(point.size, point.accuracy) for point in self.points]
        trained = [(point.size, point.train_accuracy.value) for point in self.points if point.train_accuracy]
        return learning_curve(tested, trained=trained, band=band, chance=self.chance, against=against or {})

    def save(self, path: Path | str) -> Path:
        """Write all points to one JSON file.

        Raises:
            StorageError: The disk is full; nothing half-written is left.
        """
        return write_json(path, {"kind": _KIND, **self.model_dump(mode="json")})

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a saved curve.

        Raises:
            StorageError: The file is missing or is not a learning curve.
        """
        found = read_json(path)
        if not isinstance(found, dict) or found.pop("kind", None) != _KIND:
            raise StorageError(f"{path} is not a saved {_KIND}")
        try:
            return cls.model_validate(found)
        except (ValidationError, EvaluationError) as error:
            raise StorageError(f"{path} is not a saved {_KIND} of this version: {error}") from error

"""Points that belong together: all measured on the same test images, and what they say by themselves."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from pydantic import Field

from vlm_tune.errors import EvaluationError
from vlm_tune.experiments import growth as growths
from vlm_tune.experiments.points import CurvePoint, FailedPoint
from vlm_tune.experiments.resampling import Measured, Resampled, resample
from vlm_tune.records import Estimate, SavedRecord
from vlm_tune.statistics.proportions import wilson_limits

__all__ = ["MeasuredCurve"]


class MeasuredCurve(SavedRecord):
    """Points of growing training size; the half of `LearningCurve` that measures.

    Raises:
        EvaluationError: There are no points, two of the same size and seed, or points of different test sets.
    """

    points: tuple[CurvePoint, ...]
    """One for each training, in any order."""
    classes: tuple[str, ...]
    """The classes asked about."""
    chance: float = Field(ge=0, le=1)
    """Accuracy of guessing: the share of the largest class, or of one class of as many that are equally frequent."""
    name: str = ""
    """What was trained."""
    failed: tuple[FailedPoint, ...] = ()
    """Trainings that came to nothing, each with its reason."""

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

    def growth(self, low: int | None = None, high: int | None = None) -> Estimate:
        """Return the accuracy gained per doubling of the training images between two sizes, with its interval.

        Nothing is fitted: it is the difference of the two accuracies over the number of doublings between them.

        Args:
            low: The smaller size; the smallest measured by default.
            high: The larger size; the largest measured by default.

        Raises:
            ForecastError: Nothing was trained on one of the sizes, they are in the wrong order, or there is one seed
                only.
        """
        low, high = self.sizes[0] if low is None else low, self.sizes[-1] if high is None else high
        return growths.growth(self._measured, low, high)

    def gap_at(self, size: int) -> Estimate | None:
        """Return the generalisation gap at a size, training less test accuracy; None where training is not known.

        Raises:
            EvaluationError: There is no point of that size.
        """
        self.accuracy_at(size)
        return growths.gap([point for point in self.points if point.size == size])

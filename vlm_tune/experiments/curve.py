"""`LearningCurve`: accuracy by number of training images, and what more of them would bring."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from vlm_tune import _processes
from vlm_tune.errors import EvaluationError, ForecastError, TrainingError
from vlm_tune.experiments import forecast as forecasts
from vlm_tune.experiments.display import curve_display, curve_figure, curve_frame
from vlm_tune.experiments.forecast import Forecast, ImagesNeeded, MarginalValue
from vlm_tune.experiments.growth import gain
from vlm_tune.experiments.hindcast import Hindcast
from vlm_tune.experiments.measured import MeasuredCurve
from vlm_tune.experiments.running import run_points
from vlm_tune.plots.curves import CurveBand
from vlm_tune.records import Estimate

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from rich.console import RenderableType

    from vlm_tune.data import Dataset
    from vlm_tune.experiments.backends import Backend
    from vlm_tune.training import LoRATrainer

__all__ = ["LearningCurve"]


class LearningCurve(MeasuredCurve):
    """Points of growing training size, all measured on the same test images.

    Raises:
        EvaluationError: There are no points, two of the same size and seed, or points of different test sets.

    Examples:
        >>> from vlm_tune.experiments import CurvePoint
        >>> right = {25: (52, 55), 50: (63, 60), 100: (71, 69), 200: (77, 80)}
        >>> points = [CurvePoint(size=size, seed=seed, right=count, n_test=98)
        ...           for size, counts in right.items() for seed, count in enumerate(counts)]
        >>> curve = LearningCurve(points=points, classes=("crack", "dent", "scratch"), chance=1 / 3)
        >>> print(curve.forecast(400).accuracy.n)
        98
        >>> curve.images_needed(0.99).verdict
        'out_of_reach'
    """

    saved_as: ClassVar[str] = "learning curve"

    @classmethod
    def run(
        cls,
        trainer: LoRATrainer,
        data: Dataset,
        sizes: Sequence[int],
        seeds: Sequence[int] = (0, 1, 2),
        *,
        run_dir: Path | str,
        backend: Backend | None = None,
        keep_adapters: bool = False,
    ) -> LearningCurve:
        """Train on growing subsets with several seeds, and evaluate each adapter on the same test images.

        The subset of a size and a seed is stratified, shows every class, and is part of every larger one with that
        seed; the seed also replaces `TrainConfig.seed`. All points have the configuration's epochs, so that fewer
        images also mean fewer steps. The adapter answers about all of `data.test`, and about up to 1,000 of its
        training images, the same ones at all larger sizes, for the training accuracy; the base stays loaded and is
        never changed. A point's time and cost are those of its training.

        Every finished point is on the disk at once, and the same call goes on behind it, in the middle of a training
        or of an evaluation too. Points of other models, settings or images in the same folder stay apart. A point
        that fails (memory ran out, the loss is not finite) is noted with its reason in `failed`, the others go on,
        and the next call tries it again.

        Args:
            trainer: The model, and how to train it.
            data: Training and test split; the validation split too, where the configuration chooses by it.
            sizes: Training images, in any order; four sizes at least, each twice the last, make a good forecast.
            seeds: Seeds at each size.
            run_dir: Folder for points, answers and checkpoints.
            backend: Where the trainings are done; here, one after the other, by default.
            keep_adapters: Keep the adapters, in `run_dir/trainings/*/adapter`; otherwise each is removed when it has
                answered, for rank 64 on a model of eight billion parameters takes hundreds of megabytes.

        Raises:
            SplitError: There is no training or no test split.
            DataError: Sizes or seeds are missing, twice there, or no numbers; a size is larger than the training
                split, or shows not every class.
            TrainingError: All trainings failed; the message gives the first reason.
            StoppedError: The process was asked to end; the same call goes on.
            StorageError: The folder cannot be written, or holds something else.

        Examples:
            >>> curve = LearningCurve.run(trainer, data, sizes=(40, 80, 160, 319), run_dir="runs/curve")
            ... # doctest: +SKIP
        """
        folder = Path(run_dir)
        points, failed = run_points(
            trainer, data, sizes, seeds, run_dir=folder, backend=backend, keep_adapters=keep_adapters
        )
        if not points:
            raise TrainingError(
                f"no training of the curve came to anything; the first of {len(failed)}: {failed[0].sentence}"
            )
        labels = Counter(data.test.labels)
        curve = cls(
            points=tuple(points),
            classes=data.task.classes,
            chance=max(labels.values()) / labels.total(),
            name=trainer.base.name,
            failed=tuple(failed),
        )
        _processes.by_one(curve.save)(folder / "curve.json")
        return curve

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

    def band(self, *, points: int = 120) -> CurveBand | None:
        """Return the band over all sizes that a forecast is made for; None where none is made.

        Args:
            points: Sizes to return it at, evenly spaced on a logarithmic scale.
        """
        try:
            sizes = np.geomspace(self.sizes[0], self._require(), points)
        except ForecastError:
            return None
        return CurveBand(sizes, *forecasts.band(self._resampled, sizes))

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

    def gain_over(self, reference: LearningCurve, size: int) -> Estimate:
        """Return by how much this curve's accuracy at a size is above another's, with its interval.

        Args:
            reference: A curve of other settings, on the same test images.
            size: A size that both have.

        Raises:
            EvaluationError: One has no point of that size, or the test images are others.
            ForecastError: One has a single seed only.
        """
        mine, its = self.points[0], reference.points[0]
        if (mine.n_test, mine.test_set) != (its.n_test, its.test_set):
            raise EvaluationError(
                f"the two curves were measured on other test images ({mine.n_test}, {mine.test_set} and {its.n_test}, "
                f"{its.test_set}); run both on the same data"
            )
        for curve in (self, reference):
            curve.accuracy_at(size)
        return gain(self._measured, reference._measured, size)

    def until(self, size: int) -> LearningCurve:
        """Return the curve as it was before anything larger was trained.

        Raises:
            EvaluationError: There is no point that small.
        """
        points = tuple(point for point in self.points if point.size <= size)
        failed = tuple(point for point in self.failed if point.size <= size)
        if not points:
            raise EvaluationError(f"nothing was trained on {size:,} images or fewer; there are points at {self.sizes}")
        return LearningCurve(points=points, classes=self.classes, chance=self.chance, name=self.name, failed=failed)

    def hindcast(self, size: int | None = None) -> Hindcast:
        """Return what the sizes below one foretell of it, beside what was measured there.

        Args:
            size: The size to foretell; the largest measured by default.

        Raises:
            ForecastError: As for `forecast`, of the smaller sizes alone.
            EvaluationError: There is no point of that size, or none below it.
        """
        size = self.sizes[-1] if size is None else size
        measured = self.accuracy_at(size)
        smaller = self.until(size - 1)
        return Hindcast(forecast=smaller.forecast(size), measured=measured, sizes=smaller.sizes)

    def _require(self) -> int:
        return forecasts.limit_of(self._measured)

    def frame(self) -> pd.DataFrame:
        """Return a row for each point: size, seed, test accuracy with interval, training accuracy, gap, cost, time."""
        return curve_frame(self)

    def _rich(self) -> RenderableType:
        """Draw the sizes, what grows how fast, what more images would bring or why that cannot be told."""
        return curve_display(self)

    def plot(self, *, against: Mapping[str, Estimate] | None = None, until: int | None = None) -> Figure:
        """Draw the points with their Wilson intervals, the band up to four times the largest size, and chance.

        Args:
            against: Accuracy of others on the same test images by name, drawn as lines.
            until: The largest size that the band is made from; the points beyond it are drawn beside the band, which
                knows nothing of them.

        Raises:
            EvaluationError: No size is as small as `until`.
        """
        return curve_figure(self, against=against or {}, until=until)

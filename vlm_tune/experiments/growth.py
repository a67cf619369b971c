"""What the points say by themselves, without any family of curves: growth, gain over another curve, gap to training.

The intervals of growth and gain come from the same resampling of test images and seeds as a forecast's band, rather too
wide than too narrow: where it is not known which images were right, each side has a luck of its own, and where the
seeds of a size differ by more than those of all sizes do, they count by themselves. The gap is a difference of two
shares of different images, with Newcombe's interval (method 10: R. G. Newcombe, Stat. Med. 17 (1998), 873-890), each
mean over the seeds counted like one training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vlm_tune.errors import ForecastError
from vlm_tune.experiments.resampling import Measured, redrawn
from vlm_tune.records import Estimate
from vlm_tune.statistics.proportions import wilson_limits

if TYPE_CHECKING:
    from vlm_tune.experiments.points import CurvePoint

__all__ = ["gain", "gap", "growth"]


def growth(measured: Measured, low: int, high: int) -> Estimate:
    """Return the accuracy gained per doubling of the training images; see `LearningCurve.growth`."""
    sizes = [int(size) for size in measured.sizes]
    for size in (low, high):
        if size not in sizes:
            raise ForecastError(f"nothing was trained on {size:,} images; there are points at {sizes}")
    if low >= high:
        raise ForecastError(f"growth goes from a smaller size to a larger one, not from {low:,} to {high:,}")
    if measured.freedom < 1:
        raise ForecastError("growth needs a second seed at one size: one training's luck cannot be told from growth")
    first, last, doublings = sizes.index(low), sizes.index(high), math.log2(high / low)
    errors = redrawn(measured, measured.seed_variances, alike=False)
    drawn = np.quantile((errors[:, first] - errors[:, last]) / doublings, [0.025, 0.975])
    value = float(measured.errors[first] - measured.errors[last]) / doublings
    return _resampled(value, float(drawn[0]), float(drawn[1]), n=measured.n_test)


def gain(candidate: Measured, reference: Measured, size: int) -> Estimate:
    """Return the accuracy gained over another curve at one size; see `LearningCurve.gain_over`."""
    sides = (candidate, reference)
    if any(side.freedom < 1 for side in sides):
        raise ForecastError("a gain needs a second seed at one size of both curves: luck cannot be told from it")
    places = [int(np.searchsorted(side.sizes, size)) for side in sides]
    errors = [
        redrawn(side, side.seed_variances, alike=False, curve=number)[:, place]
        for number, (side, place) in enumerate(zip(sides, places, strict=True))
    ]
    low, high = np.quantile(errors[1] - errors[0], [0.025, 0.975])
    value = float(reference.errors[places[1]] - candidate.errors[places[0]])
    return _resampled(value, float(low), float(high), n=candidate.n_test)


def gap(points: Sequence[CurvePoint]) -> Estimate | None:
    """Return training less test accuracy over the points of one size that know both; None where none does."""
    both = [(point.right, point.train_accuracy) for point in points if point.train_accuracy is not None]
    if not both:
        return None
    on_train, n_train = sum(trained.value for _, trained in both) / len(both), min(trained.n for _, trained in both)
    on_test, n_test = sum(right for right, _ in both) / len(both) / points[0].n_test, points[0].n_test
    train_low, train_high = wilson_limits(on_train, n_train)
    test_low, test_high = wilson_limits(on_test, n_test)
    value = on_train - on_test
    return Estimate(
        value=value,
        low=value - math.hypot(on_train - train_low, test_high - on_test),
        high=value + math.hypot(train_high - on_train, on_test - test_low),
        n=n_test,
        method="Newcombe 95%",
    )


def _resampled(value: float, low: float, high: float, *, n: int) -> Estimate:
    # Where all is right the resampled points never are.
    method = "resampled test images and seeds, 95%"
    return Estimate(value=value, low=min(value, low), high=max(value, high), n=n, method=method)

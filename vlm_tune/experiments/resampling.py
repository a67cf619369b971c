"""Many learning curves that the measured points could as well have been, and the families fitted to each.

Two things are left to chance. *The test images* are the same for every point, so their luck moves the whole curve: each
resampled curve weighs them anew (the Bayesian bootstrap), with two half images added of which one is always right and
one always wrong. The accuracy at one point then follows Jeffreys' posterior, Beta(right + 1/2, wrong + 1/2), and is
uncertain even where nothing went wrong. Where it is not known which images were right, each point takes the same
quantile of that posterior, as if all models found the same images hard. *The seeds* move each point by itself: the
variance between them, pooled over the sizes as a multiple of p (1 - p), is drawn from what its degrees of freedom leave
open. Where no family follows the points as closely as the seeds do each other, that distance counts instead. That seeds
differ on single images counts on both sides, so the band is rather too wide than too narrow.

Sources: D. B. Rubin, Ann. Stat. 9 (1981), 130-134; L. D. Brown, T. T. Cai, A. DasGupta, Stat. Sci. 16 (2001), 101-133.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from vlm_tune.experiments.families import FAMILIES, FamilyFit, Fits, fit_family, fit_many

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vlm_tune.experiments.points import CurvePoint

    Array = NDArray[np.float64]

__all__ = ["DRAWS", "Measured", "Resampled", "redrawn", "resample"]

DRAWS = 1000
"""Resampled curves."""

_PRIOR_SEEDS = 1.0
"""The binomial variance counts like this many more degrees of freedom: seeds that agree by luck are no certainty."""

_AT_ONCE = 2_000_000
"""Weights of images held in memory."""

_SHAPE_NUMBERS = 3
"""Numbers that the points decide on in a curve of a simple family."""


@dataclass(frozen=True)
class Measured:
    """Points by size: what is fitted."""

    points: tuple[CurvePoint, ...]

    @cached_property
    def sizes(self) -> Array:
        """The sizes, ascending."""
        return np.unique([float(point.size) for point in self.points])

    @cached_property
    def seeds(self) -> Array:
        """Points at each size."""
        return np.unique([point.size for point in self.points], return_counts=True)[1].astype(float)

    @property
    def n_test(self) -> int:
        """Test images."""
        return self.points[0].n_test

    def mean(self, values: Sequence[float] | Array) -> Array:
        """Return the mean over the points of each size; `values` has a last axis of points."""
        place = np.searchsorted(self.sizes, [float(point.size) for point in self.points])
        members = (place[:, None] == np.arange(len(self.sizes))[None, :]) / self.seeds
        return np.asarray(np.asarray(values, dtype=float) @ members, dtype=float)

    @cached_property
    def errors(self) -> Array:
        """Mean error at each size."""
        return 1.0 - self.mean([point.right / point.n_test for point in self.points])

    @cached_property
    def spread(self) -> Array:
        """The product p (1 - p) at each size, with half an image either way so that it is never 0."""
        p = (self.errors * self.n_test + 0.5) / (self.n_test + 1)
        return np.asarray(p * (1 - p), dtype=float)

    @property
    def weights(self) -> Array:
        """One over the binomial variance of each mean, but for the number of test images."""
        return self.seeds / self.spread

    @property
    def freedom(self) -> float:
        """Degrees of freedom between seeds."""
        return float(self.seeds.sum() - len(self.seeds))

    @cached_property
    def seed_variance(self) -> float:
        """Variance between seeds as a multiple of p (1 - p)."""
        return float((self._squares.sum() + _PRIOR_SEEDS / self.n_test) / (self.freedom + _PRIOR_SEEDS))

    @property
    def seed_variances(self) -> Array:
        """The same for each size: that of its own seeds, where they differ by more than those of all sizes do."""
        own = (self._squares + _PRIOR_SEEDS * self.seed_variance) / (self.seeds - 1 + _PRIOR_SEEDS)
        return np.maximum(own, self.seed_variance)

    @cached_property
    def _squares(self) -> Array:
        """Squared distances of the points from their size's mean, summed, as multiples of p (1 - p)."""
        errors = np.array([1.0 - point.right / point.n_test for point in self.points])
        place = np.searchsorted(self.sizes, [float(point.size) for point in self.points])
        squares = (errors - self.errors[place]) ** 2 / self.spread[place]
        return np.asarray(np.bincount(place, squares, len(self.sizes)), dtype=float)

    @cached_property
    def fits(self) -> tuple[FamilyFit, ...]:
        """The curve of each family nearest to the points."""
        return tuple(fit_family(family, self.sizes, self.errors, self.weights) for family in FAMILIES)

    @property
    def lack_of_fit(self) -> float:
        """What `seed_variance` would be if the distance of the points from the best family were due to the seeds."""
        return min(fit.misfit for fit in self.fits) / (len(self.sizes) - _SHAPE_NUMBERS)

    def misfit_p_value(self) -> float:
        """Chance of points so far from the best family if the seeds were all there is (F test of lack of fit)."""
        from scipy.stats import f

        over = len(self.sizes) - _SHAPE_NUMBERS
        return float(f.sf(self.lack_of_fit / self.seed_variance, over, self.freedom + _PRIOR_SEEDS))

    def resampled_errors(self, draws: int, *, alike: bool = True, curve: int = 0) -> Array:
        """Return draws x sizes errors with other test images.

        Args:
            draws: How many.
            alike: Where it is not known which images were right, whether all models find the same ones hard: that is
                the wider choice for an accuracy, and the narrower one for the difference of two.
            curve: Which of several curves this is: where it is not known which images were right, each has a luck of
                its own.
        """
        from scipy.special import betaincinv

        if all(point.rightness is not None for point in self.points):
            return _reweighed(self.mean(np.array([point.rightness for point in self.points], dtype=float).T), draws)
        generator = np.random.default_rng([0, curve])
        lucks = [generator.permutation(draws) for _ in (self.sizes[:1] if alike else self.sizes)]
        luck = (np.stack(lucks, axis=1) + 0.5) / draws
        wrong = self.errors * self.n_test
        return np.asarray(betaincinv(wrong + 0.5, self.n_test - wrong + 0.5, luck), dtype=float)


@dataclass(frozen=True)
class Resampled:
    """The families, each fitted to every resampled curve."""

    fits: tuple[Fits, ...]

    def errors(self, n: Array) -> Array:
        """Return the errors at sizes n of all fitted curves, (families x draws) x sizes."""
        return np.concatenate([fit.error(n) for fit in self.fits])

    def falls(self, n: float) -> Array:
        """Return by how much each curve's error falls with one more image at size n."""
        return np.concatenate([fit.fall(n) for fit in self.fits])


def resample(measured: Measured, *, draws: int = DRAWS) -> Resampled:
    """Return the families fitted to curves that could as well have been measured; the same for the same points."""
    errors = redrawn(measured, max(measured.seed_variance, measured.lack_of_fit), draws=draws)
    return Resampled(tuple(fit_many(family, measured.sizes, errors, measured.weights) for family in FAMILIES))


def redrawn(
    measured: Measured, variance: float | Array, *, draws: int = DRAWS, alike: bool = True, curve: int = 0
) -> Array:
    """Return draws x sizes errors with other test images and other seeds; the same for the same points.

    Args:
        measured: The points.
        variance: Of one point beside the luck of the test images, as a multiple of p (1 - p); or one for each size.
        draws: How many.
        alike: See `Measured.resampled_errors`.
        curve: Which of several curves this is: the seeds of each have a noise of their own. The images, where it is
            known which were right, are drawn alike for all.
    """
    freedom = measured.freedom + _PRIOR_SEEDS
    generator = np.random.default_rng(1 + curve)
    scale = freedom / generator.chisquare(freedom, draws)
    noise = generator.standard_normal((draws, len(measured.sizes)))
    noise *= np.sqrt(scale[:, None] * (variance / measured.weights))
    return measured.resampled_errors(draws, alike=alike, curve=curve) + noise


def _reweighed(right: Array, draws: int) -> Array:
    """Return draws x sizes errors, each draw with weights of its own for the images.

    Args:
        right: Share of seeds that are right, images x sizes.
        draws: How many.
    """
    generator = np.random.default_rng(0)
    rows = max(1, _AT_ONCE // len(right))
    blocks = []
    for start in range(0, draws, rows):
        count = min(rows, draws - start)
        images, halves = generator.standard_exponential((count, len(right))), generator.standard_gamma(0.5, (count, 2))
        total = images.sum(axis=1) + halves.sum(axis=1)
        blocks.append(1.0 - (images @ right + halves[:, :1]) / total[:, None])
    return np.concatenate(blocks)

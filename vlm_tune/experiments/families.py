"""Curves of error against training size, and the fit of each to measured points.

    pow3          c + a n^-b
    pow4          c + a (n + d)^-b
    exponential   c + a exp(-b n)

with 0 <= c <= 1, a >= 0, b > 0 and d >= 0: the error never rises, and ends at c. Source: T. Viering, M. Loog, The Shape
of Learning Curves: a Review, arXiv 2103.10948, table 1. No family is right for every problem, so all are fitted.

Given b and d a curve is linear in c and a, whose best values have a closed form. So every shape on a grid is tried, for
many resampled curves at once; the best ones start a fit by scipy where one curve is to be fitted finely.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np

from vlm_tune.records import Record

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

__all__ = ["FAMILIES", "FamilyFit", "FamilyName", "Fits", "fit_family", "fit_many"]

FamilyName = Literal["pow3", "pow4", "exponential"]
"""A family of curves."""

FAMILIES: tuple[FamilyName, ...] = ("pow3", "pow4", "exponential")
"""All families, simplest first."""

_STARTS = 5


class FamilyFit(Record):
    """The curve of one family that is nearest to the measured errors.

    Examples:
        >>> fit = FamilyFit(family="pow3", c=0.05, a=2.0, b=0.5, d=0.0, misfit=0.0)
        >>> round(fit.error(400), 3)
        0.15
    """

    family: FamilyName
    """Which formula the numbers belong to."""
    c: float
    """The error that is left with endless training images."""
    a: float
    """How much of the error more images take away, in the formula's units."""
    b: float
    """How fast: the exponent, or the rate for an image."""
    d: float
    """Images that count as seen before the first; 0 but for `pow4`."""
    misfit: float
    """Weighted sum of squares between the curve and the measured errors."""

    def error(self, n: float) -> float:
        """Return the error after training on n images."""
        return float(self.c + self.a * _shape(self.family, np.array(n), np.array(self.b), np.array(self.d)))


@dataclass(frozen=True)
class Fits:
    """One family fitted to many curves: four arrays with a number for each of them."""

    family: FamilyName
    c: Array
    a: Array
    b: Array
    d: Array
    misfit: Array

    def error(self, n: Array) -> Array:
        """Return the errors at sizes n, curves x sizes, at most 1."""
        shape = _shape(self.family, n[None, :], self.b[:, None], self.d[:, None])
        return np.minimum(self.c[:, None] + self.a[:, None] * shape, 1.0)

    def fall(self, n: float) -> Array:
        """Return by how much the error falls with one more image at size n, for each curve."""
        shape = _shape(self.family, np.array(n), self.b, self.d)
        return self.a * self.b * shape / (1.0 if self.family == "exponential" else n + self.d)


def fit_many(family: FamilyName, sizes: Array, errors: Array, weights: Array) -> Fits:
    """Fit one family to many curves over the same sizes.

    Args:
        family: Which one.
        sizes: Training sizes, S of them.
        errors: Errors, curves x S.
        weights: One for each size: one over the variance of its error, but for a constant factor.
    """
    b, d = _grid(family, float(sizes.min()), float(sizes.max()))
    c, a, misfit = _linear(_shape(family, sizes[:, None], b, d), errors, weights)
    best = np.argmin(misfit, axis=1)
    rows = np.arange(len(errors))
    return Fits(family=family, c=c[rows, best], a=a[rows, best], b=b[best], d=d[best], misfit=misfit[rows, best])


def fit_family(family: FamilyName, sizes: Array, errors: Array, weights: Array) -> FamilyFit:
    """Fit one family to one curve: scipy's bounded least squares from the best shapes of the grid.

    Args:
        family: Which one.
        sizes: Training sizes.
        errors: The error at each.
        weights: One for each size: one over the variance of its error, but for a constant factor.

    Examples:
        >>> import numpy as np
        >>> sizes = np.array([25.0, 50, 100, 200, 400])
        >>> fit = fit_family("pow3", sizes, 0.05 + 2 * sizes**-0.5, np.ones(5))
        >>> round(fit.c, 3), round(fit.a, 2), round(fit.b, 3)
        (0.05, 2.0, 0.5)
    """
    from scipy.optimize import least_squares

    grid_b, grid_d = _grid(family, float(sizes.min()), float(sizes.max()))
    _, _, misfits = _linear(_shape(family, sizes[:, None], grid_b, grid_d), errors[None, :], weights)

    def solved(shape: Array) -> tuple[Array, Array, Array]:
        b, d = np.exp(shape[:1]), np.expm1(shape[1:]) if family == "pow4" else np.zeros(1)
        c, a, _ = _linear(_shape(family, sizes[:, None], b, d), errors[None, :], weights)
        return np.concatenate([c[0], a[0], b, d]), c[0] + a[0] * _shape(family, sizes, b, d), b

    def residuals(shape: Array) -> Array:
        return np.sqrt(weights) * (solved(shape)[1] - errors)

    found = []
    for start in np.argsort(misfits[0], kind="stable")[:_STARTS]:
        place = [np.log(grid_b[start]), *([np.log1p(grid_d[start])] if family == "pow4" else [])]
        low = [np.log(grid_b.min()), *([0.0] if family == "pow4" else [])]
        high = [np.log(grid_b.max()), *([np.log1p(grid_d.max())] if family == "pow4" else [])]
        inside = np.clip(place, np.add(low, 1e-9), np.subtract(high, 1e-9))
        result = least_squares(residuals, inside, bounds=(low, high), xtol=1e-12, ftol=1e-12, gtol=1e-12)
        found.append((float(2 * result.cost), *map(float, solved(result.x)[0])))
    misfit, c, a, b, d = min(found)
    return FamilyFit(family=family, c=c, a=a, b=b, d=d, misfit=misfit)


def _shape(family: FamilyName, n: Array, b: Array, d: Array) -> Array:
    """Return what a is multiplied with."""
    if family == "exponential":
        return np.asarray(np.exp(-b * n), dtype=float)
    return np.asarray((n + d) ** -b, dtype=float)


@lru_cache
def _grid(family: FamilyName, smallest: float, largest: float) -> tuple[Array, Array]:
    """Return the shapes to try: from nearly straight over the measured sizes to over after the first of them."""
    if family == "exponential":
        rates = np.geomspace(0.05 / largest, 8.0 / smallest, 60)
        return rates, np.zeros_like(rates)
    exponents = np.geomspace(0.02, 6.0, 60)
    if family == "pow3":
        return exponents, np.zeros_like(exponents)
    shifts = np.concatenate([[0.0], np.geomspace(smallest / 4, 2 * largest, 9)])
    b, d = np.meshgrid(exponents, shifts, indexing="ij")
    return b.ravel(), d.ravel()


def _linear(shapes: Array, errors: Array, weights: Array) -> tuple[Array, Array, Array]:
    """Return best c and a, both at least 0, and what is left over, for curves x shapes.

    Args:
        shapes: Sizes x shapes.
        errors: Curves x sizes.
        weights: One for each size.
    """
    # Shapes of very different size (n^-6 beside n^-0.02) are put on one scale first.
    scale = shapes[0]
    g = shapes / scale
    share = weights / weights.sum()
    middle_g, middle_e = share @ g, errors @ share
    around = g - middle_g
    sgg, sge = share @ around**2, (errors - middle_e[:, None]) @ (share[:, None] * around)
    see = (errors - middle_e[:, None]) ** 2 @ share
    a = np.maximum(sge / np.maximum(sgg, 1e-300), 0.0)
    c = middle_e[:, None] - a * middle_g
    misfit = see[:, None] - a * sge
    below = c < 0
    if below.any():
        # Through zero at the end: all of the error goes away.
        through = (errors @ (share[:, None] * g)) / (share @ g**2)
        rest = (errors**2 @ share)[:, None] - through**2 * (share @ g**2)
        a, c, misfit = np.where(below, through, a), np.where(below, 0.0, c), np.where(below, rest, misfit)
    return c, a / scale, np.maximum(misfit, 0.0) * weights.sum()

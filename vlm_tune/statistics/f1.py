"""Precision, recall and F1 of answers that may name several classes, each with its interval.

Of a class c, T photos have it, A answers name it, and H photos are both:

    precision = H / A      recall = H / T      F1 = 2 H / (T + A)

micro F1 does this with the counts of all classes summed, macro F1 is the mean over the classes that occur.

F1 is no share of anything, but J = H / (T + A - H) is: of the photos that have the class or were answered with
it, the share where both hold. F1 = 2 J / (1 + J) rises with J, so the Wilson interval of J, its two ends put
through this formula, is one of F1 that stays within [0, 1] and has a width even when nothing went wrong.
Source: K. F. Y. Lam, V. Gopal, J. Qian, arXiv 2309.14621 (2023), there the "Wilson indirect method".

What is counted on one photo (micro) or in one group of photos (everything) belongs together. The interval then
takes the number of observations that would be as informative if they were independent: J (1 - J) / v, with v the
variance of J as a ratio of sums over clusters, times (z / t)^2 for having only m clusters; t has m - 1 degrees of
freedom, and the number is never above the count itself. Sources: W. G. Cochran, Sampling Techniques (1977),
section 6.3; E. L. Korn, B. I. Graubard, Surv. Methodol. 24 (1998), 193-201.

The classes' distances to their limits are combined for macro F1 with the correlation of the classes, from the
linearised scores of the clusters (MOVER); a negative one, which would narrow the interval, is taken for chance. No
limit is nearer than half the combined length, and distances are Student's: see `proportions.mean_distances`.
Source: G. Y. Zou, Am. J. Epidemiol. 168 (2008), 212-224.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vlm_tune.records import Estimate, Record
from vlm_tune.statistics.proportions import mean_distances, percent, quantile, wilson_limits

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

__all__ = ["ClassScores", "F1Scores", "f1_scores"]


class ClassScores(Record):
    """How well one class is found; where nothing was counted, n is 0 and the interval all of [0, 1]."""

    precision: Estimate
    """Of the answers that name the class, the share of photos that have it."""
    recall: Estimate
    """Of the photos that have the class, the share of answers that name it."""
    f1: Estimate
    """Harmonic mean of the two; n counts the photos that have the class or were answered with it."""


class F1Scores(Record):
    """F1 over all classes and of each."""

    micro: Estimate
    """F1 of all decisions together: frequent classes count more."""
    macro: Estimate
    """Mean F1 of the classes that occur: every class counts the same."""
    per_class: tuple[ClassScores, ...]
    """One per class, in order."""


def f1_scores(truth: ArrayLike, answer: ArrayLike, *, groups: ArrayLike | None = None, level: float = 0.95) -> F1Scores:
    """Return precision, recall and F1 of each class, micro and macro F1, with intervals.

    Args:
        truth: Which classes each photo has: n x C of zeros and ones, dense or scipy sparse.
        answer: Which classes each answer names, of the same shape.
        groups: One whole number for each photo; photos with the same number are not independent.
        level: Confidence level.

    Raises:
        ValueError: The shapes differ.

    Examples:
        >>> scores = f1_scores([[1, 1], [1, 0], [0, 0], [0, 1]], [[1, 0], [1, 0], [0, 0], [1, 1]])
        >>> print(scores.micro)
        0.750 [0.317, 0.951] (n=4)
        >>> print(scores.per_class[1].recall)
        0.500 [0.095, 0.905] (n=2)
    """
    import numpy as np

    has, says = _sparse(truth), _sparse(answer)
    if has.shape != says.shape:
        raise ValueError(f"truth is {has.shape} and answer {says.shape}; they need the same shape")
    n = has.shape[0]
    hits = has.multiply(says).tocsr()
    if groups is not None:
        gather = _gathering(groups, n)
        has, says, hits = gather @ has, gather @ says, gather @ hits
    either = has + says - hits
    unit = "photo" if groups is None else "group"
    found = {name: _Share.of(hits, total) for name, total in (("precision", says), ("recall", has), ("f1", either))}
    classes = tuple(
        ClassScores(
            precision=found["precision"].estimate(place, level=level, unit=unit),
            recall=found["recall"].estimate(place, level=level, unit=unit),
            f1=found["f1"].estimate(place, level=level, unit=unit, indirect=True),
        )
        for place in range(has.shape[1])
    )
    every = _Share.of(_sparse(hits.sum(axis=1)), _sparse(either.sum(axis=1)))
    micro = every.estimate(0, level=level, unit=unit, indirect=True)
    occurring = np.flatnonzero(np.asarray(has.sum(axis=0)).ravel())
    macro = _mean(
        [classes[place].f1 for place in occurring],
        _correlation(has[:, occurring], says[:, occurring], hits[:, occurring]),
        freedom=has.shape[0] - len(occurring),
        level=level,
    )
    return F1Scores(
        micro=micro.model_copy(update={"n": n if micro.n else 0}),
        macro=macro.model_copy(update={"n": n if len(occurring) else 0, "method": f"MOVER of {_method(level, unit)}"}),
        per_class=classes,
    )


@dataclass(frozen=True)
class _Share:
    """Sums over clusters, of what was hit (h) and of what it is a share of (u); one number for each class."""

    h: NDArray[np.float64]
    u: NDArray[np.float64]
    hh: NDArray[np.float64]
    hu: NDArray[np.float64]
    uu: NDArray[np.float64]
    clusters: NDArray[np.float64]
    """Clusters in which there is anything."""

    @classmethod
    def of(cls, hits: Any, total: Any) -> _Share:
        sums = (hits, total, hits.multiply(hits), hits.multiply(total), total.multiply(total), total != 0)
        return cls(*(_column_sums(matrix) for matrix in sums))

    def estimate(self, place: int, *, level: float, unit: str, indirect: bool = False) -> Estimate:
        """Return the share of one class, or the F1 that follows from it."""
        h, u = self.h[place], self.u[place]
        clustered = self.uu[place] > u
        put: Callable[[float], float] = _f1 if indirect else float
        method = _method(level, unit if clustered else "") if indirect else _plain(level, unit if clustered else "")
        if not u:
            return Estimate(value=0.5, low=0.0, high=1.0, n=0, method=method)
        n = self._effective(place, level) if clustered else u
        low, high = wilson_limits(h / u, n, level=level)
        return Estimate(value=put(h / u), low=put(low), high=put(high), n=int(u), method=method)

    def _effective(self, place: int, level: float) -> float:
        """Return how many independent observations would say as much."""
        from scipy.stats import t

        h, u, m = self.h[place], self.u[place], self.clusters[place]
        share = h / u
        if share in (0.0, 1.0) or m == 1:
            # Nothing tells how much the clusters differ: each counts once.
            return float(m)
        squares = self.hh[place] - 2 * share * self.hu[place] + share**2 * self.uu[place]
        if squares <= 1e-12 * self.uu[place]:
            return float(u)
        variance = m / (m - 1) * squares / u**2
        few = quantile(level) / t.ppf(0.5 + level / 2, m - 1)
        return float(min(u, share * (1 - share) / variance * few**2))


def _f1(share: float) -> float:
    return 2 * share / (1 + share)


def _method(level: float, unit: str) -> str:
    return f"indirect {_plain(level, unit)}"


def _plain(level: float, unit: str) -> str:
    return f"Wilson {percent(level)}" + (f", clustered by {unit}" if unit else "")


def _mean(parts: list[Estimate], correlation: NDArray[np.float64], *, freedom: int, level: float) -> Estimate:
    """Return the mean of correlated estimates."""
    import numpy as np

    if not parts:
        return Estimate(value=0.5, low=0.0, high=1.0, n=0, method="")
    value, low, high = (np.array([getattr(part, end) for part in parts]) for end in ("value", "low", "high"))
    distances = (value - low, high - value, (high - low) / 2)
    below, above, half = (math.sqrt(d @ correlation @ d) / len(parts) for d in distances)
    if len(parts) > 1:
        below, above = mean_distances(below, above, half, freedom=freedom, level=level)
    mean = float(value.mean())
    return Estimate(value=mean, low=max(0.0, mean - below), high=min(1.0, mean + above), n=0, method="")


def _correlation(has: Any, says: Any, hits: Any) -> NDArray[np.float64]:
    """Return how the F1 of the classes rise together, from 0 to 1; a class without a mistake goes with no other."""
    import numpy as np
    from scipy.sparse import diags_array

    both = has + says
    size = _column_sums(both)
    f1 = 2 * _column_sums(hits) / size
    linear = (2 * hits - both @ diags_array(f1)) @ diags_array(1 / size)
    products = (linear.T @ linear).toarray()
    spread = np.sqrt(np.diag(products))
    # What is left of rounding where nothing varies is no correlation.
    varies = spread > 1e-12
    scale = np.where(varies, spread, 1.0)
    correlation: NDArray[np.float64] = np.maximum(products / np.outer(scale, scale) * np.outer(varies, varies), 0.0)
    np.fill_diagonal(correlation, 1.0)
    return correlation


def _sparse(matrix: ArrayLike) -> Any:
    import numpy as np
    from scipy.sparse import csr_array, issparse

    dense_or_sparse = matrix if issparse(matrix) else np.asarray(matrix, dtype=float)
    if not issparse(matrix) and dense_or_sparse.ndim == 1:
        dense_or_sparse = dense_or_sparse[:, None]
    made = csr_array(dense_or_sparse, dtype=float)
    made.eliminate_zeros()
    return made


def _gathering(groups: ArrayLike, n: int) -> Any:
    """Return the matrix that sums rows by group."""
    import numpy as np
    from scipy.sparse import csr_array

    _, codes = np.unique(np.asarray(groups), return_inverse=True)
    if codes.shape != (n,):
        raise ValueError(f"{n} photos need as many groups, got {codes.shape}")
    return csr_array((np.ones(n), (codes, np.arange(n))))


def _column_sums(matrix: Any) -> NDArray[np.float64]:
    import numpy as np

    return np.asarray(matrix.sum(axis=0), dtype=float).ravel()

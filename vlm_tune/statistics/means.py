"""Means and ratios of means: how much better a score is, how many times as fast, how many times as dear.

Few photos with a large value decide such a mean, and a sample that happens to have none of them looks more certain
than it is. So every interval is Student's with two observations more than there were, as far out as the farthest,
one on either side, and never shorter than Student's without them, which it would be of a handful; the level that
this reaches is in benchmarks/RESULTS.md. The idea is that of the two successes and two failures which make the simple
interval of a proportion hold: A. Agresti, B. Caffo, Am. Stat. 54 (2000), 280-288; for pairs A. Agresti, Y. Min, Stat.
Med. 24 (2005), 729-740.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vlm_tune.records import Estimate
from vlm_tune.statistics.clustered import group_sums
from vlm_tune.statistics.proportions import percent

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["mean", "mean_score", "positive_mean", "ratio"]


def mean(values: ArrayLike, *, groups: ArrayLike | None = None, level: float = 0.95) -> Estimate:
    """Return the mean of values, such as differences of two scores on the same photos, with its interval.

    Args:
        values: One number for each photo.
        groups: One whole number for each photo; photos with the same number belong together.
        level: Confidence level.

    Raises:
        ValueError: There are fewer than two values or groups, or the groups are not as many as the values.

    Examples:
        >>> print(mean([0.1, 0.3, 0.2, -0.1, 0.4]))
        0.180 [-0.059, 0.419] (n=5)
    """
    guarded = _Guarded.of(values, groups, level)
    half = guarded.half
    return guarded.estimate(guarded.value - half, guarded.value + half)


def positive_mean(values: ArrayLike, *, groups: ArrayLike | None = None, level: float = 0.95) -> Estimate:
    """Return the mean of positive values, such as seconds or dollars, with an interval on the logarithmic scale.

    Args:
        values: One positive number for each photo.
        groups: One whole number for each photo; photos with the same number, such as those of one batch, belong
            together.
        level: Confidence level.

    Raises:
        ValueError: There are fewer than two values or groups, or the mean is not positive.

    Examples:
        >>> print(positive_mean([1.0, 2.0, 3.0, 2.0]))
        2.000 [1.044, 3.830] (n=4)
    """
    guarded = _Guarded.of(values, groups, level)
    if guarded.value <= 0:
        raise ValueError(f"a mean on the logarithmic scale is positive, not {guarded.value}")
    factor = math.exp(guarded.half / guarded.value)
    return guarded.estimate(guarded.value / factor, guarded.value * factor, scale=" on the log scale")


def mean_score(values: ArrayLike, *, worst: float, groups: ArrayLike | None = None, level: float = 0.95) -> Estimate:
    """Return the mean of scores between 0 and the worst one, such as Brier scores, with its interval.

    A sure model makes few mistakes, each of which costs much, and a sample may hold none of them. So the upper end
    is the farther one of two: that of `positive_mean`, and Student's with one observation more, of the worst score.

    Args:
        values: One score for each photo; 0 is best.
        worst: The worst score there is.
        groups: One whole number for each photo; photos with the same number belong together.
        level: Confidence level.

    Raises:
        ValueError: There are fewer than two values or groups, or a score is not between 0 and the worst.

    Examples:
        >>> print(mean_score([0.02] * 49 + [1.8], worst=2.0))
        0.056 [0.007, 0.466] (n=50)
    """
    import numpy as np
    from scipy.stats import t

    scores = np.asarray(values, dtype=float)
    if len(scores) and not (scores.min() >= 0 and scores.max() <= worst + 1e-9):
        raise ValueError(f"scores lie between 0 and {worst}, not between {scores.min()} and {scores.max()}")
    guarded = _Guarded.of(scores, groups, level)
    value, m = guarded.value, guarded.m
    one_worst = guarded.squares + (guarded.n / m * (worst - value)) ** 2
    spread = math.sqrt((m + 1) / m * one_worst) / (guarded.n * (m + 1) / m)
    high = value + float(t.ppf(0.5 + level / 2, m)) * spread
    factor = math.exp(min(guarded.half / value, 700)) if value else 1.0
    scale = " on the log scale, and with one worst score"
    return guarded.estimate(value / factor, min(worst, max(high, value * factor)), scale=scale)


def ratio(first: Estimate, second: Estimate) -> Estimate:
    """Return how many times as large one positive quantity is as another, from their independent intervals.

    On the logarithmic scale the distances to the own limits add in quadrature (MOVER). Source: G. Y. Zou,
    A. Donner, Stat. Med. 27 (2008), 1693-1702.

    Args:
        first: What is divided.
        second: What it is divided by; both with intervals of one level.

    Raises:
        ValueError: A value or a lower limit is not positive, so that the ratio has no limits.

    Examples:
        >>> print(ratio(positive_mean([4.0, 6.0, 5.0, 5.0]), positive_mean([1.0, 1.1, 0.9, 1.0])))
        5.000 [3.739, 6.686] (n=4)
    """
    for part in (first, second):
        if not 0 < part.low <= part.value:
            raise ValueError(f"a ratio needs positive quantities with positive limits, not {part}")
    below = math.hypot(math.log(first.value / first.low), math.log(second.high / second.value))
    above = math.hypot(math.log(first.high / first.value), math.log(second.value / second.low))
    value = first.value / second.value
    methods = " and ".join(dict.fromkeys((first.method, second.method)))
    return Estimate(
        value=value,
        low=value * math.exp(-below),
        high=value * math.exp(above),
        n=min(first.n, second.n),
        method=f"MOVER on the log scale of {methods}",
    )


@dataclass(frozen=True)
class _Guarded:
    """A mean over groups, and half of its interval."""

    value: float
    n: float
    m: int
    """Groups."""
    squares: float
    """Sum over the groups of the squared distance to the mean, without the guards."""
    half: float
    method: str

    @classmethod
    def of(cls, values: ArrayLike, groups: ArrayLike | None, level: float) -> _Guarded:
        import numpy as np
        from scipy.stats import t

        numbers = np.asarray(values, dtype=float)
        sums, sizes = group_sums(numbers, np.arange(len(numbers)) if groups is None else groups)
        m, n = len(sums), float(sizes.sum())
        if m < 2:
            raise ValueError(f"an interval of a mean needs at least two values that are not of one group, got {m}")
        value = float(sums.sum()) / n
        apart = sums - sizes * value
        squares = float(np.sum(apart**2))
        guarded = squares + 2 * float(np.abs(apart).max()) ** 2
        spread = math.sqrt((m + 2) / (m + 1) * guarded) / (n * (m + 2) / m)
        plain = math.sqrt(m / (m - 1) * squares) / n
        tail = 0.5 + level / 2
        half = max(float(t.ppf(tail, m + 1)) * spread, float(t.ppf(tail, m - 1)) * plain)
        method = f"Student t with two guards {percent(level)}" + ("" if groups is None else ", clustered by group")
        return cls(value, n, m, squares, half, method)

    def estimate(self, low: float, high: float, *, scale: str = "") -> Estimate:
        return Estimate(value=self.value, low=low, high=high, n=int(self.n), method=f"{self.method}{scale}")

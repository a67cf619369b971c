"""Shares and their intervals, for one system."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

from vlm_tune.records import Estimate

__all__ = ["mean_distances", "mean_of_proportions", "percent", "proportion", "quantile", "wilson", "wilson_limits"]


def wilson(successes: int, n: int, *, level: float = 0.95) -> Estimate:
    """Return a proportion with its Wilson score interval.

    Source: E. B. Wilson, JASA 22 (1927), 209-212.

    Args:
        successes: How many succeeded.
        n: Out of how many; with 0 nothing is known: the value is 0.5 and the interval all of [0, 1].
        level: Confidence level.

    Raises:
        ValueError: The counts are impossible.

    Examples:
        >>> print(wilson(87, 98))
        0.888 [0.810, 0.936] (n=98)
    """
    method = f"Wilson {percent(level)}"
    return proportion(successes, n, lambda: wilson_limits(successes / n, n, level=level), method=method)


def proportion(successes: int, n: int, limits: Callable[[], tuple[float, float]], *, method: str) -> Estimate:
    """Return a proportion with the interval that `limits` gives for it.

    Args:
        successes: How many succeeded.
        n: Out of how many; with 0 nothing is known: the value is 0.5 and the interval all of [0, 1].
        limits: Returns both ends; asked only where n is not 0.
        method: What they are called.

    Raises:
        ValueError: The counts are impossible.

    Examples:
        >>> print(proportion(87, 98, lambda: (0.8, 0.95), method="by eye"))
        0.888 [0.800, 0.950] (n=98)
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} is impossible")
    if n == 0:
        return Estimate(value=0.5, low=0.0, high=1.0, n=0, method=method)
    low, high = limits()
    return Estimate(value=successes / n, low=low, high=high, n=n, method=method)


def wilson_limits(share: float, n: float, *, level: float = 0.95) -> tuple[float, float]:
    """Return the ends of the Wilson interval of a share; `n` may be an effective number, such as 12.5."""
    z = quantile(level)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # Rounding must not move an end that is known exactly.
    return (0.0 if share == 0 else centre - half), (1.0 if share == 1 else centre + half)


def mean_of_proportions(proportions: Sequence[Estimate], *, level: float = 0.95) -> Estimate:
    """Return the mean of independent proportions, such as macro-recall, with an interval.

    The distances from each proportion to its own limits add in quadrature (MOVER), with what `mean_limits` adds.
    Source: G. Y. Zou, A. Donner, Stat. Med. 27 (2008), 1693-1702.

    Args:
        proportions: Estimates with intervals of one level, such as those of `wilson`.
        level: That level.

    Raises:
        ValueError: There are none.

    Examples:
        >>> print(mean_of_proportions([wilson(9, 10), wilson(30, 40)]))
        0.825 [0.651, 0.944] (n=50)
    """
    if not proportions:
        raise ValueError("the mean of no proportions is not defined")
    count = len(proportions)
    mean = math.fsum(part.value for part in proportions) / count
    distances = [(part.value - part.low, part.high - part.value, (part.high - part.low) / 2) for part in proportions]
    below, above, half = (math.hypot(*column) / count for column in zip(*distances, strict=True))
    n = sum(part.n for part in proportions)
    if count > 1:
        below, above = mean_distances(below, above, half, freedom=n - count, level=level)
    low, high = max(0.0, mean - below), min(1.0, mean + above)
    return Estimate(value=mean, low=low, high=high, n=n, method=f"MOVER {proportions[0].method}")


def mean_distances(
    below: float, above: float, half: float, *, freedom: float, level: float = 0.95
) -> tuple[float, float]:
    """Return how far the limits of a mean of several shares lie from it.

    A share's own limits lean towards one half, and of few photos by a lot. Their mean is surer where it lies, but would
    lean as much: its interval held the truth too seldom. So no limit is nearer than half the combined length, and
    the distances are Student's: times t / z. What this reaches is in benchmarks/RESULTS.md.

    Args:
        below: Combined distance to the lower limits.
        above: Combined distance to the upper limits.
        half: Combined half lengths.
        freedom: Degrees of freedom: photos less shares.
        level: Level of the limits.
    """
    from scipy.stats import t

    factor = float(t.ppf(0.5 + level / 2, max(1.0, freedom))) / quantile(level)
    return factor * max(below, half), factor * max(above, half)


def percent(level: float) -> str:
    """Return a confidence level in percent, e.g. `95%`."""
    return f"{100 * level:g}%"


@lru_cache
def quantile(level: float) -> float:
    """Return the normal quantile of a two-sided interval, e.g. 1.96 for 0.95.

    Raises:
        ValueError: The level is not between 0 and 1.
    """
    from scipy.stats import norm

    if not 0 < level < 1:
        raise ValueError(f"the confidence level must be between 0 and 1, not {level}")
    return float(norm.ppf(0.5 + level / 2))

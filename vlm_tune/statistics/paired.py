"""Two systems on the same examples: is there a difference, and how large."""

from __future__ import annotations

import math

from vlm_tune.records import Estimate
from vlm_tune.statistics.proportions import percent, quantile

__all__ = ["mcnemar_exact", "mcnemar_mid_p", "tango", "tango_limits"]


def mcnemar_exact(wins: int, losses: int) -> float:
    """Return the two-sided exact McNemar p-value for discordant pairs.

    Twice the smaller binomial tail at 1/2, at most 1. Source: Q. McNemar, Psychometrika 12 (1947), 153-157.

    Args:
        wins: Pairs where only the candidate is right.
        losses: Pairs where only the reference is right.

    Raises:
        ValueError: A count is negative.

    Examples:
        >>> round(mcnemar_exact(10, 4), 3)
        0.18
    """
    from scipy.stats import binom

    _check_counts(wins, losses)
    if wins + losses == 0:
        return 1.0
    return min(1.0, 2.0 * float(binom.cdf(min(wins, losses), wins + losses, 0.5)))


def mcnemar_mid_p(wins: int, losses: int) -> float:
    """Return the mid-p McNemar p-value: the exact one less half of the two-sided point probability.

    With as many wins as losses it is 1 less half of the point probability, since the exact one is cut to 1.
    Source: Fagerland, Lydersen, Laake, BMC Med. Res. Methodol. 13:91 (2013).

    Args:
        wins: Pairs where only the candidate is right.
        losses: Pairs where only the reference is right.

    Raises:
        ValueError: A count is negative.

    Examples:
        >>> round(mcnemar_mid_p(10, 4), 3)
        0.118
    """
    from scipy.stats import binom

    _check_counts(wins, losses)
    pairs = wins + losses
    if pairs == 0:
        return 1.0
    point = float(binom.pmf(wins, pairs, 0.5))
    return 1.0 - point / 2 if wins == losses else mcnemar_exact(wins, losses) - point


def tango(wins: int, losses: int, n: int, *, level: float = 0.95) -> Estimate:
    """Return the difference of two paired proportions with Tango's score interval.

    The interval holds every difference d that the score statistic
    (b - c - n d) / sqrt(n (2 q + d (1 - d))) does not reject, with q the restricted maximum-likelihood
    estimate of the reference-only proportion: the larger root of 2n q^2 + B q + C = 0, where
    B = -b - c + (2n - b + c) d and C = -c d (1 - d). Source: T. Tango, Stat. Med. 17 (1998), 891-908.

    Args:
        wins: Pairs where only the candidate is right (b).
        losses: Pairs where only the reference is right (c).
        n: All pairs; with 0 nothing is known: the value is 0 and the interval all of [-1, 1].
        level: Confidence level.

    Raises:
        ValueError: The counts are impossible.

    Examples:
        >>> print(tango(10, 4, 98).points())
        +6.1 points [-1.5, +14.4]
    """
    if min(wins, losses) < 0 or wins + losses > n:
        raise ValueError(f"{wins} wins and {losses} losses of {n} pairs are impossible")
    method = f"Tango score {percent(level)}"
    if n == 0:
        return Estimate(value=0.0, low=-1.0, high=1.0, n=0, method=method)
    low, high = tango_limits(wins, losses, n, level=level)
    return Estimate(value=(wins - losses) / n, low=low, high=high, n=n, method=method)


def tango_limits(wins: float, losses: float, n: float, *, level: float = 0.95) -> tuple[float, float]:
    """Return the ends of Tango's interval; the counts may be effective numbers, such as 12.5."""
    from scipy.optimize import brentq

    difference, z, edge = (wins - losses) / n, quantile(level), 1.0 - 1e-12

    def excess(delta: float, sign: float) -> float:
        return _tango_statistic(wins, losses, n, delta) - sign * z

    low, high = -1.0, 1.0
    if excess(-edge, 1.0) > 0:
        low = float(brentq(excess, -edge, difference, args=(1.0,), xtol=1e-12))
    if excess(edge, -1.0) < 0:
        high = float(brentq(excess, difference, edge, args=(-1.0,), xtol=1e-12))
    return low, high


def _check_counts(wins: int, losses: int) -> None:
    if wins < 0 or losses < 0:
        raise ValueError(f"counts cannot be negative: {wins} wins, {losses} losses")


def _tango_statistic(wins: float, losses: float, n: float, delta: float) -> float:
    a = 2 * n
    b = -wins - losses + (2 * n - wins + losses) * delta
    c = -losses * delta * (1 - delta)
    q = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = n * (2 * q + delta * (1 - delta))
    numerator = wins - losses - n * delta
    if variance <= 0:
        return math.copysign(math.inf, numerator) if numerator else 0.0
    return numerator / math.sqrt(variance)

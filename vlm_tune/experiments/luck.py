"""What luck does to a sweep: the best of many looks too good, and a difference depends on the photos and the seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vlm_tune.records import Estimate
from vlm_tune.statistics.proportions import quantile, wilson_limits

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["best_of_many", "difference_over_seeds"]

_DRAWS = 1000
_AT_ONCE = 2_000_000
"""Weights of photos held in memory."""


def best_of_many(right: Sequence[Sequence[bool]], *, seed: int = 0) -> Estimate:
    """Return the accuracy to expect on other photos of the one that was most accurate on these.

    The largest of several accuracies is partly the largest by luck. Photos are drawn anew with replacement; the one
    that is most accurate on the draw is judged on the photos that the draw left out. The estimate is the mean over
    the draws. Its interval is that of Wilson for so large a share of these photos, and reaches up to the upper end of
    that of the accuracy itself: where one candidate really is better, a draw finds it less often than all photos do,
    and the estimate is on the low side. With one candidate nothing was chosen.

    Source: I. Tsamardinos, E. Greasidou, G. Borboudakis, Mach. Learn. 107 (2018), 1895-1922 (bootstrap bias corrected).

    Args:
        right: Whether each photo was answered right, candidates x photos.
        seed: Decides the draws.

    Examples:
        >>> generator = np.random.default_rng(0)
        >>> lucky = best_of_many(generator.random((20, 50)) < 0.7)
        >>> lucky.value < 0.75
        True
    """
    table = np.asarray(right, dtype=float).T
    n = len(table)
    generator = np.random.default_rng(seed)
    found: list[NDArray[np.float64]] = []
    while sum(map(len, found)) < _DRAWS:
        draws = min(max(1, _AT_ONCE // n), _DRAWS - sum(map(len, found)))
        drawn = generator.multinomial(n, np.full(n, 1 / n), size=draws)
        left_out = (drawn == 0).astype(float)
        chosen = np.argmax(drawn @ table, axis=1)
        judged = (left_out @ table)[np.arange(draws), chosen] / np.maximum(left_out.sum(axis=1), 1.0)
        found.append(judged)
    value = float(np.concatenate(found).mean())
    low, high = wilson_limits(value, n)
    itself = wilson_limits(float(table.mean(axis=0).max()), n)
    return Estimate(value=value, low=low, high=max(high, itself[1]), n=n, method="BBC, Wilson 95% up to the best's")


def difference_over_seeds(
    candidate: Sequence[Sequence[bool]], reference: Sequence[Sequence[bool]], *, num_compared: int = 1
) -> Estimate:
    """Return by how much one setting is more accurate than another, for other photos and other seeds than these.

    Both were trained with the same seeds and asked the same photos. The difference at seed s and photo i is
    mean + seed_s + photo_i + rest_si, and by analysis of variance the variance of its mean over S seeds and n photos is
    (MS_seed + max(MS_photo - MS_rest, 0)) / (S n); the t distribution has
    (S - 1) (1 + max(MS_photo - MS_rest, 0) / MS_seed)^2 degrees of freedom. It is the multi-reader multi-case method,
    with seeds for readers and photos for cases. Two made-up photos are added to the variance, of which half a one is
    won and half a one is lost at every seed, so that it is not 0 where nothing differed; and MS_seed counts as no less
    than MS_rest, which it is expected to exceed.

    A candidate that these very photos chose among several owes part of its lead to them, and nothing to the seeds,
    which are new. What the photos add to the variance is therefore multiplied by (z_k / z_1)^2, where z_1 = 1.96 and
    z_k is the quantile that holds for all k candidates at once (Bonferroni): where photos are all there is to luck, the
    interval is the simultaneous one, and it is never narrower than that of a single candidate. Simulation agrees; that
    later candidates were chosen by earlier ones is not allowed for.

    Sources: D. D. Dorfman, K. S. Berbaum, C. E. Metz, Invest. Radiol. 27 (1992), 723-731; S. L. Hillis, Stat. Med. 26
    (2007), 596-619; the added photos: A. Agresti, Y. Min, Stat. Med. 24 (2005), 729-740.

    Args:
        candidate: Whether each photo was answered right, seeds x photos.
        reference: The same of the other setting.
        num_compared: Candidates from which the same photos chose this one; 1 if others did, or nothing was chosen.

    Raises:
        ValueError: The shapes differ, or there are fewer than two seeds or photos.

    Examples:
        >>> print(difference_over_seeds([[1, 1, 1, 0] * 10] * 3, [[1, 0, 1, 0] * 10] * 3).points())
        +25.0 points [+9.9, +37.7]
    """
    from scipy.stats import t

    first, second = np.asarray(candidate, dtype=float), np.asarray(reference, dtype=float)
    if first.shape != second.shape or first.ndim != 2 or min(first.shape) < 2:
        raise ValueError(f"two tables of the same seeds and photos are needed, got {first.shape} and {second.shape}")
    won = first - second
    num_seeds, n = won.shape
    weights = np.concatenate([np.ones(n), [0.5, 0.5, 1.0]])
    padded = np.hstack([won, np.tile([1.0, -1.0, 0.0], (num_seeds, 1))])
    total = n + 2.0
    by_seed, by_photo = padded @ weights / total, padded.mean(axis=0)
    centre = float(by_seed.mean())
    of_seeds = total * float(np.sum((by_seed - centre) ** 2)) / (num_seeds - 1)
    of_photos = num_seeds * float(weights @ (by_photo - centre) ** 2) / (total - 1)
    rest = padded - by_seed[:, None] - by_photo[None, :] + centre
    of_rest = float(np.sum(weights * rest**2)) / ((total - 1) * (num_seeds - 1))
    # Seeds that agree more closely than chance lets them are no certainty.
    of_seeds = max(of_seeds, of_rest)
    beside = max(of_photos - of_rest, 0.0)

    def half_with(beside: float) -> float:
        freedom = (num_seeds - 1) * (1 + beside / of_seeds) ** 2 if of_seeds > 0 else np.inf
        return float(t.ppf(0.975, freedom)) * math.sqrt((of_seeds + beside) / (num_seeds * total))

    # More luck of photos is more degrees of freedom too, and by itself might narrow the interval.
    half = max(half_with(beside), half_with(beside * (quantile(1 - 0.05 / num_compared) / quantile(0.95)) ** 2))
    low, high = max(centre - half, -1.0), min(centre + half, 1.0)
    value = float(won.mean())
    method = "seeds x photos, Hillis 95%" + (f", of {num_compared}" if num_compared > 1 else "")
    return Estimate(value=value, low=min(low, value), high=max(high, value), n=n, method=method)

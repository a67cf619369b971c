"""Examples that belong together (one part, one patient, one video): the same tests and intervals, by group.

Photos of one group are alike, so they say less than as many photos of different groups. The test turns whole
groups; the intervals take the number of independent photos that would say as much: n over the design effect, which
is the variance of the mean as a ratio of sums over groups, over the variance if the photos were independent, times
(t / z)^2 for having only m groups; t has m - 1 degrees of freedom, and the effect is never below 1.
Sources: W. G. Cochran, Sampling Techniques (1977), section 6.3; E. L. Korn, B. I. Graubard, Surv. Methodol. 24
(1998), 193-201.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlm_tune.records import Estimate
from vlm_tune.statistics.paired import tango_limits
from vlm_tune.statistics.proportions import percent, quantile, wilson_limits

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

__all__ = ["design_effect", "group_sums", "mcnemar_by_group", "tango_by_group", "wilson_by_group"]


def mcnemar_by_group(first: ArrayLike, second: ArrayLike, groups: ArrayLike, *, mid: bool = False) -> float:
    """Return the two-sided p-value of the exact McNemar test that exchanges the systems in whole groups.

    Of each group only its wins less its losses counts. If the systems were the same, each of these could as well
    have the other sign; the p-value is the share of all 2^m choices of signs whose sum lies as far from zero as
    the sum observed, or farther, counted exactly (to 1e-12) by Fourier transform. With groups of one it is the
    exact McNemar test. Source: R. A. Fisher, The Design of Experiments (1935), section 21 (the randomisation test).

    Args:
        first: Whether the candidate is right, one for each example.
        second: Whether the reference is right.
        groups: One whole number for each example; examples with the same number belong together.
        mid: Whether sums exactly as far as the observed one count half, as in the mid-p test.

    Raises:
        ValueError: The three are not of one length.

    Examples:
        >>> round(mcnemar_by_group([1] * 10 + [0] * 4, [0] * 10 + [1] * 4, range(14)), 3)
        0.18
        >>> round(mcnemar_by_group([1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 2, 2]), 3)
        0.5
    """
    import numpy as np

    difference, codes = _differences(first, second, groups)
    sums = np.abs(np.bincount(codes, weights=difference)).astype(int)
    sizes, counts = np.unique(sums[sums > 0], return_counts=True)
    total = int(sizes @ counts)
    # A sum of -d or d has the characteristic function cos(d angle); the inverse transform of their product counts.
    angles = 2 * np.pi * np.arange(2 * total + 1) / (2 * total + 1)
    together = np.prod([np.cos(size * angles) ** count for size, count in zip(sizes, counts, strict=True)], axis=0)
    ways = np.fft.ifft(together).real if total else np.ones(1)
    distance = np.minimum(np.arange(2 * total + 1), 2 * total + 1 - np.arange(2 * total + 1))
    observed = abs(int(difference.sum()))
    p = float(ways[distance >= observed].sum())
    if mid:
        p -= float(ways[distance == observed].sum()) / 2
    return min(1.0, max(p, 0.5 ** int(counts.sum())))


def tango_by_group(first: ArrayLike, second: ArrayLike, groups: ArrayLike, *, level: float = 0.95) -> Estimate:
    """Return the difference of two paired proportions with Tango's interval of the effective counts.

    Args:
        first: Whether the candidate is right, one for each example.
        second: Whether the reference is right.
        groups: One whole number for each example; examples with the same number belong together.
        level: Confidence level.

    Raises:
        ValueError: The three are not of one length.

    Examples:
        >>> alone = tango_by_group([1] * 10 + [0] * 10, [0] * 4 + [1] * 6 + [0] * 10, range(20))
        >>> twins = tango_by_group([1] * 10 + [0] * 10, [0] * 4 + [1] * 6 + [0] * 10, [at // 2 for at in range(20)])
        >>> print(alone.points(), twins.points())
        +20.0 points [+0.7, +41.6] +20.0 points [-23.5, +57.3]
    """
    import numpy as np

    difference, codes = _differences(first, second, groups)
    n = len(difference)
    method = f"Tango score {percent(level)}, clustered by group"
    if n == 0:
        return Estimate(value=0.0, low=-1.0, high=1.0, n=0, method=method)
    effect = design_effect(difference, codes, level=level)
    wins, losses = (np.count_nonzero(difference == sign) / effect for sign in (1, -1))
    low, high = tango_limits(wins, losses, n / effect, level=level)
    return Estimate(value=float(difference.mean()), low=low, high=high, n=n, method=method)


def wilson_by_group(right: ArrayLike, groups: ArrayLike, *, level: float = 0.95) -> Estimate:
    """Return a proportion with the Wilson interval of the effective number of examples.

    Args:
        right: Whether each example succeeded.
        groups: One whole number for each example; examples with the same number belong together.
        level: Confidence level.

    Raises:
        ValueError: The two are not of one length.

    Examples:
        >>> print(wilson_by_group([1, 1, 1, 1, 0, 0], [1, 1, 2, 2, 3, 3]))
        0.667 [0.044, 0.989] (n=6)
    """
    import numpy as np

    values, codes = np.asarray(right, dtype=float), _codes(groups)
    _check(values, codes)
    n = len(values)
    method = f"Wilson {percent(level)}, clustered by group"
    if n == 0:
        return Estimate(value=0.5, low=0.0, high=1.0, n=0, method=method)
    share = float(values.mean())
    low, high = wilson_limits(share, n / design_effect(values, codes, level=level), level=level)
    return Estimate(value=share, low=low, high=high, n=n, method=method)


def design_effect(values: ArrayLike, groups: ArrayLike, *, level: float = 0.95) -> float:
    """Return how many photos in groups say as much as one by itself; at least 1.

    Where nothing tells how much the groups differ (all values are the same, or there is one group), each group
    counts as one photo.

    Args:
        values: One number for each photo.
        groups: One whole number for each photo; photos with the same number belong together.
        level: Level of the interval that it is for.

    Raises:
        ValueError: The two are not of one length.

    Examples:
        >>> design_effect([1, 0, 1, 0], [1, 2, 3, 4]), design_effect([1, 1, 1, 1], [1, 1, 2, 2])
        (1.0, 2.0)
    """
    import numpy as np
    from scipy.stats import t

    numbers, codes = np.asarray(values, dtype=float), _codes(groups)
    _check(numbers, codes)
    n, m = len(numbers), len(np.unique(codes))
    if m == n:
        return 1.0
    apart = numbers - numbers.mean()
    if m == 1 or not apart.any():
        return n / m
    clustered = m / (m - 1) * float(np.sum(np.bincount(codes, weights=apart) ** 2))
    few = float(t.ppf(0.5 + level / 2, m - 1)) / quantile(level)
    return max(1.0, clustered / float(np.sum(apart**2)) * few**2)


def group_sums(values: ArrayLike, groups: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the sum of the values of each group, and its size.

    Raises:
        ValueError: The two are not of one length.
    """
    import numpy as np

    numbers, codes = np.asarray(values, dtype=float), _codes(groups)
    _check(numbers, codes)
    sums: NDArray[np.float64] = np.bincount(codes, weights=numbers).astype(float)
    sizes: NDArray[np.float64] = np.bincount(codes).astype(float)
    return sums, sizes


def _differences(
    first: ArrayLike, second: ArrayLike, groups: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    import numpy as np

    left, right, codes = np.asarray(first, dtype=float), np.asarray(second, dtype=float), _codes(groups)
    _check(left, right, codes)
    return left - right, codes


def _codes(groups: ArrayLike) -> NDArray[np.int64]:
    import numpy as np

    return np.unique(np.asarray(groups), return_inverse=True)[1].astype(np.int64)


def _check(*columns: NDArray[np.generic]) -> None:
    lengths = [len(column) for column in columns]
    if len(set(lengths)) > 1:
        raise ValueError(f"each example needs one value in every list; their lengths are {lengths}")

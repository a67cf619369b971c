"""Before and after counting: the power of a paired comparison, and how many images would show a difference."""

from __future__ import annotations

import math
from typing import Any

__all__ = [
    "connor_sample_size",
    "mcnemar_power",
    "minimum_detectable_difference",
    "sample_size_for_power",
]

_LARGEST_SAMPLE = 10_000_000


def mcnemar_power(n: int, *, difference: float, discordance: float, alpha: float = 0.05) -> float:
    """Return the power of the two-sided exact McNemar test.

    The number of discordant pairs is Binomial(n, discordance) and, given it, wins are Binomial with
    probability (discordance + difference) / (2 discordance); the exact test is summed over both.

    Args:
        n: Number of test images.
        difference: True difference in accuracy, as a fraction.
        discordance: Probability that exactly one of the two is right.
        alpha: Significance level.

    Raises:
        ValueError: The difference cannot be larger than the discordance, or there are no images.

    Examples:
        >>> round(mcnemar_power(98, difference=6 / 98, discordance=14 / 98), 2)
        0.27
    """
    import numpy as np
    from scipy.stats import binom

    _check_effect(difference, discordance)
    if n < 1:
        raise ValueError(f"power needs at least one image, not {n}")
    win_rate = (discordance + difference) / (2 * discordance)
    spread = 10 * math.sqrt(n * discordance * (1 - discordance)) + 10
    first = max(0, int(n * discordance - spread))
    pairs = np.arange(first, min(n, int(n * discordance + spread)) + 1)
    critical = _critical_losses(pairs, alpha)
    reject = binom.cdf(critical, pairs, 1 - win_rate) + binom.cdf(critical, pairs, win_rate)
    return float(np.sum(binom.pmf(pairs, n, discordance) * np.where(critical >= 0, reject, 0.0)))


def sample_size_for_power(
    *, difference: float, discordance: float, power: float = 0.8, alpha: float = 0.05
) -> int | None:
    """Return the number of test images at which the exact McNemar test reaches the wanted power.

    Returns None when the difference is zero or too small for ten million images. The exact power is slightly
    saw-toothed in n; the answer is a crossing of the goal on its upward trend, found by bisection.

    Args:
        difference: True difference in accuracy, as a fraction.
        discordance: Probability that exactly one of the two is right.
        power: Wanted probability of a significant result.
        alpha: Significance level.

    Raises:
        ValueError: The difference is larger than the discordance.

    Examples:
        >>> 310 <= sample_size_for_power(difference=6 / 98, discordance=14 / 98) <= 325
        True
    """
    if difference == 0:
        return None
    low, high = 0, 16
    while mcnemar_power(high, difference=difference, discordance=discordance, alpha=alpha) < power:
        low, high = high, high * 2
        if high > _LARGEST_SAMPLE:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        reached = mcnemar_power(middle, difference=difference, discordance=discordance, alpha=alpha) >= power
        low, high = (low, middle) if reached else (middle, high)
    return high


def connor_sample_size(*, difference: float, discordance: float, power: float = 0.8, alpha: float = 0.05) -> int:
    """Return Connor's approximate sample size for a paired comparison.

    (z_a sqrt(psi) + z_b sqrt(psi - d^2))^2 / d^2. Source: R. J. Connor, Biometrics 43 (1987), 207-211.

    Raises:
        ValueError: The difference is zero or larger than the discordance.

    Examples:
        >>> connor_sample_size(difference=6 / 98, discordance=14 / 98)
        297
    """
    from scipy.stats import norm

    _check_effect(difference, discordance)
    if difference == 0:
        raise ValueError("no number of images establishes a difference of zero")
    z_alpha, z_beta = float(norm.ppf(1 - alpha / 2)), float(norm.ppf(power))
    root = z_alpha * math.sqrt(discordance) + z_beta * math.sqrt(discordance - difference**2)
    return math.ceil(root**2 / difference**2)


def minimum_detectable_difference(
    n: int, *, discordance: float, power: float = 0.8, alpha: float = 0.05
) -> float | None:
    """Return the smallest true difference that n images would establish with the wanted power.

    Returns None when even a difference as large as the discordance itself would not be.

    Args:
        n: Number of test images.
        discordance: Probability that exactly one of the two is right.
        power: Wanted probability of a significant result.
        alpha: Significance level.

    Examples:
        >>> round(minimum_detectable_difference(98, discordance=14 / 98), 2)
        0.11
    """
    low, high = 0.0, discordance
    if mcnemar_power(n, difference=high, discordance=discordance, alpha=alpha) < power:
        return None
    while high - low > 1e-4:
        middle = (low + high) / 2
        reached = mcnemar_power(n, difference=middle, discordance=discordance, alpha=alpha) >= power
        low, high = (low, middle) if reached else (middle, high)
    return high


def _check_effect(difference: float, discordance: float) -> None:
    if not 0 < discordance <= 1 or abs(difference) > discordance:
        raise ValueError(f"a difference of {difference} is impossible with a discordance of {discordance}")


def _critical_losses(pairs: Any, alpha: float) -> Any:
    """Return, for each number of discordant pairs, the largest significant minority count (-1: none)."""
    import numpy as np
    from scipy.stats import binom

    guess = np.asarray(binom.ppf(alpha / 2, pairs, 0.5))
    # ppf is the first count whose tail reaches alpha/2; the test needs the last one that stays within it.
    over = 2 * binom.cdf(guess, pairs, 0.5) >= alpha
    return np.where(over, guess - 1, guess)

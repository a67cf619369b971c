"""Deciding alone only where it is safe: exact intervals, and a threshold that keeps an accuracy it promises."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pydantic import NonNegativeInt

from vlm_tune.records import Estimate, Record
from vlm_tune.statistics.proportions import percent, proportion

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

__all__ = ["SafeThreshold", "clopper_pearson", "clopper_pearson_limits", "safe_threshold"]

_HIGHEST, _LOWEST, _STEP = 18.0, -4.6, 0.05
"""Thresholds tried, as log odds of the confidence; the last one after them is 0, which takes every photo."""


class SafeThreshold(Record):
    """A threshold on the confidence, and what it rests on."""

    threshold: float | None
    """Answers at least this confident are accurate enough; None: that is established for no threshold."""
    num_above: NonNegativeInt
    """Photos at least this confident."""
    num_right: NonNegativeInt
    """How many of them were answered rightly."""
    least: float
    """Accuracy that is established for answers above the threshold; 0 without one."""
    fewest: NonNegativeInt
    """Fewer photos than this establish nothing, even if all of them are right."""


def clopper_pearson(successes: int, n: int, *, level: float = 0.95) -> Estimate:
    """Return a proportion with its exact interval, which holds it at least as often as the level says.

    Source: C. J. Clopper, E. S. Pearson, Biometrika 26 (1934), 404-413.

    Args:
        successes: How many succeeded.
        n: Out of how many; with 0 nothing is known: the value is 0.5 and the interval all of [0, 1].
        level: Confidence level.

    Raises:
        ValueError: The counts are impossible.

    Examples:
        >>> print(clopper_pearson(87, 98))
        0.888 [0.808, 0.943] (n=98)
    """

    def limits() -> tuple[float, float]:
        low, high = clopper_pearson_limits(successes, n, level=level)
        return float(low), float(high)

    return proportion(successes, n, limits, method=f"Clopper-Pearson {percent(level)}")


def clopper_pearson_limits(
    successes: ArrayLike, n: ArrayLike, *, level: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ends of the exact intervals of many proportions; every n is at least 1."""
    import numpy as np
    from scipy.stats import beta

    hits, of, tail = np.asarray(successes), np.asarray(n), (1 - level) / 2
    low = np.where(hits > 0, beta.ppf(tail, np.maximum(hits, 1), of - hits + 1), 0.0)
    high = np.where(hits < of, beta.isf(tail, hits + 1, np.maximum(of - hits, 1)), 1.0)
    return low, high


def safe_threshold(
    confidence: ArrayLike, right: ArrayLike, *, accuracy: float, level: float | None = 0.95
) -> SafeThreshold:
    """Return the lowest confidence from which on answers are accurate enough, as far as these photos establish it.

    Thresholds from a fixed list are tested from the strictest down, and the first that fails ends it: that the
    accuracy above it lies below the wanted one must be refused by the exact one-sided binomial test at 1 - level.
    With one fixed order no correction for their number is due: the threshold found is wrong in at most 1 - level of
    all validation sets. The first one tested is the strictest with a quarter of the photos above it, and with as many
    as could establish anything; as that start depends on the photos, the promise holds for models whose accuracy does
    not fall as their confidence rises.

    Sources: A. N. Angelopoulos et al., Learn then Test, arXiv 2110.01052 (2021), fixed sequence testing;
    C. J. Clopper, E. S. Pearson, Biometrika 26 (1934), 404-413, the bound.

    Args:
        confidence: Probability of each answer, 0 to 1; other photos than those it will be used on.
        right: Whether each answer is right.
        accuracy: Wanted accuracy of the answers above the threshold, as a fraction.
        level: Confidence that it is reached on new photos; None promises nothing: the threshold is the lowest with
            this accuracy on these very photos.

    Raises:
        ValueError: The lists differ in length, a confidence is no probability, or accuracy or level are not
            between 0 and 1.

    Examples:
        >>> found = safe_threshold([0.99] * 80 + [0.6] * 20, [1] * 80 + [0] * 20, accuracy=0.95)
        >>> found.num_above, round(found.least, 3), found.fewest
        (80, 0.963, 59)
    """
    import numpy as np
    from scipy.stats import beta

    sure, hit = np.asarray(confidence, dtype=float), np.asarray(right, dtype=bool)
    _check(sure, hit, accuracy, level)
    order = np.argsort(-sure, kind="stable")
    if level is None:
        return _observed(sure[order], hit[order], accuracy)
    fewest = math.ceil(math.log(1 - level) / math.log(accuracy))
    grid = 1 / (1 + np.exp(-np.arange(_HIGHEST, _LOWEST, -_STEP)))
    grid = np.append(grid, 0.0)
    above = np.searchsorted(-sure[order], -grid, side="right")
    rights = np.append(0, np.cumsum(hit[order]))[above]
    least = np.where(rights > 0, beta.ppf(1 - level, np.maximum(rights, 1), above - rights + 1), 0.0)
    enough = np.flatnonzero(above >= max(fewest, len(sure) / 4))
    nothing = SafeThreshold(threshold=None, num_above=0, num_right=0, least=0.0, fewest=fewest)
    if not len(enough) or least[enough[0]] < accuracy:
        return nothing
    failed = np.flatnonzero(least[enough[0] :] < accuracy)
    last = enough[0] + (failed[0] if len(failed) else len(grid) - enough[0]) - 1
    return SafeThreshold(
        threshold=float(grid[last]),
        num_above=int(above[last]),
        num_right=int(rights[last]),
        least=float(least[last]),
        fewest=fewest,
    )


def _observed(sure: NDArray[np.float64], hit: NDArray[np.bool_], accuracy: float) -> SafeThreshold:
    """Return the lowest confidence at which the photos so far were accurate enough; confidences fall."""
    import numpy as np

    rights, count = np.cumsum(hit), np.arange(1, len(hit) + 1)
    # Answers of equal confidence are taken together.
    ends = np.append(sure[1:] < sure[:-1], True)
    good = np.flatnonzero(ends & (rights >= accuracy * count))
    if not len(good):
        return SafeThreshold(threshold=None, num_above=0, num_right=0, least=0.0, fewest=1)
    last = good[-1]
    return SafeThreshold(
        threshold=float(sure[last]), num_above=int(count[last]), num_right=int(rights[last]), least=0.0, fewest=1
    )


def _check(sure: NDArray[np.float64], hit: NDArray[np.bool_], accuracy: float, level: float | None) -> None:
    if sure.shape != hit.shape or sure.ndim != 1 or not len(sure):
        raise ValueError(f"each answer needs a confidence; got {sure.shape} confidences and {hit.shape} answers")
    if not ((sure >= 0) & (sure <= 1)).all():
        raise ValueError("a confidence is a probability between 0 and 1")
    if not 0 < accuracy < 1 or not (level is None or 0 < level < 1):
        raise ValueError(f"accuracy and level lie between 0 and 1, not {accuracy} and {level}")

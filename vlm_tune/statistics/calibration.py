"""Probabilities against what happened: Brier score, calibration error with its null, and a temperature.

A perfectly calibrated model has a calibration error too, because bins of few photos scatter. So each score comes with
the value that such a model would show on as many photos with these very probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from pydantic import NonNegativeInt

from vlm_tune.records import Estimate, Record
from vlm_tune.statistics.clustered import design_effect
from vlm_tune.statistics.proportions import percent, quantile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

__all__ = ["CalibrationError", "Reliability", "brier", "calibration_error", "fit_temperature", "spiegelhalter_z"]

_DRAWS = 1_000
_CELLS = 5_000_000
_HOTTEST = 50.0
"""Temperatures from 1/50 to 50 are tried."""


class Reliability(Record):
    """Answers of about one confidence."""

    low: float
    """The bin's lower end."""
    high: float
    """Its upper end."""
    n: NonNegativeInt
    """Answers in it."""
    confidence: float
    """Their mean confidence."""
    right: NonNegativeInt
    """How many of them were right."""
    band: tuple[float, float]
    """Between these the share of right ones lies for 95 % of perfectly calibrated models."""


class CalibrationError(Record):
    """How far confidence and accuracy are apart, and how far they would be by chance alone."""

    value: float
    """Expected calibration error: the mean distance over the bins, weighted by their answers."""
    expected: float
    """What a perfectly calibrated model shows on average with these confidences."""
    high: float
    """What it exceeds in one of twenty cases."""
    p_value: float
    """Share of perfectly calibrated models that show as much or more."""
    n: NonNegativeInt
    """Answers."""
    bins: tuple[Reliability, ...]
    """The bins that have answers."""

    def __str__(self) -> str:
        return f"{self.value:.3f} (perfectly calibrated: {self.expected:.3f}, 95 % below {self.high:.3f}; n={self.n})"


def brier(probabilities: ArrayLike, truth: ArrayLike) -> NDArray[np.float64]:
    """Return the Brier score of each photo: the sum over the classes of (p - y)^2; 0 is best.

    Source: G. W. Brier, Mon. Weather Rev. 78 (1950), 1-3, in its original form: 2 is the worst for one class a
    photo.

    Args:
        probabilities: Probability of each class, n x C.
        truth: Which classes are true, n x C of zeros and ones.

    Raises:
        ValueError: The shapes differ.

    Examples:
        >>> brier([[0.7, 0.2, 0.1]], [[1, 0, 0]]).round(2)
        array([0.14])
    """
    import numpy as np

    p, y = np.asarray(probabilities, dtype=float), np.asarray(truth, dtype=float)
    if p.shape != y.shape or p.ndim != 2:
        raise ValueError(f"probabilities are {p.shape} and truths {y.shape}; both must be n x C")
    score: NDArray[np.float64] = np.sum((p - y) ** 2, axis=1)
    return score


def spiegelhalter_z(probabilities: ArrayLike, truth: ArrayLike, *, exclusive: bool = True) -> tuple[float, float]:
    """Return what the mean Brier score of a calibrated model would be, and how many standard errors it is above.

    A model whose probabilities are true has an expected score of sum p (1 - p), with a variance that its
    probabilities give as well. Source: D. J. Spiegelhalter, Stat. Med. 5 (1986), 421-433, for two classes.

    Args:
        probabilities: Probability of each class, n x C.
        truth: Which classes are true, n x C of zeros and ones.
        exclusive: Whether exactly one class is true of each photo; otherwise each is decided by itself.

    Returns:
        The expected mean score, and z, which is standard normal for a calibrated model; 0 where nothing varies.

    Raises:
        ValueError: The shapes differ.

    Examples:
        >>> expected, z = spiegelhalter_z([[0.8, 0.2]] * 10, [[1, 0]] * 8 + [[0, 1]] * 2)
        >>> round(expected, 2), abs(round(z, 2))
        (0.32, 0.0)
    """
    import numpy as np

    p, score = np.asarray(probabilities, dtype=float), brier(probabilities, truth)
    mean = np.sum(p * (1 - p), axis=1)
    if exclusive:
        variance = 4 * (np.sum(p**3, axis=1) - np.sum(p**2, axis=1) ** 2)
    else:
        variance = np.sum(p * (1 - p) * (1 - 2 * p) ** 2, axis=1)
    total = float(np.maximum(variance, 0).sum())
    z = float((score - mean).sum()) / math.sqrt(total) if total > 1e-12 else 0.0
    return float(mean.mean()), z


def calibration_error(confidence: ArrayLike, right: ArrayLike, *, bins: int = 10) -> CalibrationError:
    """Return the expected calibration error in bins of equal width, beside that of a calibrated model.

    Sources: M. P. Naeini, G. F. Cooper, M. Hauskrecht, AAAI 2015 (the error); J. Broecker, L. A. Smith, Weather
    Forecast. 22 (2007), 651-661 (consistency resampling, from which the comparison and the bands come: 1,000
    draws of which answers would be right, always the same ones).

    Args:
        confidence: Probability that each answer is right.
        right: Whether it is.
        bins: Number of bins from 0 to 1.

    Raises:
        ValueError: The lists differ in length or are empty, or a confidence is no probability.

    Examples:
        >>> print(calibration_error([0.9] * 20, [1] * 18 + [0] * 2))
        0.000 (perfectly calibrated: 0.051, 95 % below 0.100; n=20)
    """
    import numpy as np

    sure, hit = np.asarray(confidence, dtype=float), np.asarray(right, dtype=float)
    if sure.shape != hit.shape or sure.ndim != 1 or not len(sure):
        raise ValueError(f"each answer needs a confidence; got {sure.shape} confidences and {hit.shape} answers")
    if not ((sure >= 0) & (sure <= 1)).all():
        raise ValueError("a confidence is a probability between 0 and 1")
    place = np.minimum((sure * bins).astype(int), bins - 1)
    n, expect, seen = (np.bincount(place, weights=of, minlength=bins) for of in (np.ones_like(sure), sure, hit))
    drawn = _drawn(sure, place, bins)
    errors = np.abs(drawn - expect).sum(axis=1) / len(sure)
    value = float(np.abs(seen - expect).sum() / len(sure))
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    found = [
        Reliability(
            low=at / bins,
            high=(at + 1) / bins,
            n=int(n[at]),
            confidence=expect[at] / n[at],
            right=int(seen[at]),
            band=(low[at] / n[at], high[at] / n[at]),
        )
        for at in np.flatnonzero(n)
    ]
    return CalibrationError(
        value=value,
        expected=float(errors.mean()),
        high=float(np.quantile(errors, 0.95)),
        p_value=(1 + int(np.count_nonzero(errors >= value - 1e-12))) / (len(errors) + 1),
        n=len(sure),
        bins=tuple(found),
    )


def _drawn(sure: NDArray[np.float64], place: NDArray[np.int64], bins: int) -> NDArray[np.float64]:
    """Return how many answers of each bin would be right, draws x bins, if the confidences were true."""
    import numpy as np

    generator = np.random.default_rng(0)
    order = np.argsort(place, kind="stable")
    starts = np.flatnonzero(np.diff(place[order], prepend=-1))
    counts = np.zeros((_DRAWS, bins))
    at_once = max(1, _CELLS // len(sure))
    for first in range(0, _DRAWS, at_once):
        draws = generator.random((min(at_once, _DRAWS - first), len(sure)), dtype=np.float32) < sure[order]
        counts[first : first + len(draws), place[order][starts]] = np.add.reduceat(
            draws, starts, axis=1, dtype=np.int64
        )
    return counts


def fit_temperature(
    log_scores: ArrayLike, truth: ArrayLike, *, groups: ArrayLike | None = None, level: float = 0.95
) -> Estimate:
    """Return the temperature T that makes softmax(scores / T) most likely, with its profile-likelihood interval.

    Above 1 the model is too sure of itself, below 1 not sure enough. T changes no answer. Source: C. Guo,
    G. Pleiss, Y. Sun, K. Q. Weinberger, ICML 2017. The interval holds every T whose likelihood-ratio statistic is
    not refused; in groups that statistic is divided by the design effect.

    Args:
        log_scores: Log-probability of each class, n x C, normalised or not.
        truth: Place of the true class, n whole numbers.
        groups: One whole number for each row; rows with the same number belong together.
        level: Confidence level.

    Raises:
        ValueError: The shapes do not fit, or there are no rows.

    Examples:
        >>> import numpy as np
        >>> sure = np.log([[0.98, 0.02]] * 10)
        >>> print(fit_temperature(sure, [0] * 8 + [1] * 2))
        2.807 [1.188, 50.000] (n=10)
    """
    import numpy as np
    from scipy.optimize import brentq

    scores, true = np.asarray(log_scores, dtype=float), np.asarray(truth, dtype=int)
    if scores.ndim != 2 or not len(scores) or true.shape != scores.shape[:1]:
        raise ValueError(f"each row of scores needs a truth; got {scores.shape} scores and {true.shape} truths")
    scores = np.maximum(scores - scores.max(axis=1, keepdims=True), -1e4)
    chosen = scores[np.arange(len(true)), true]

    def loss(inverse: float) -> float:
        return float(np.sum(np.log(np.exp(inverse * scores).sum(axis=1)) - inverse * chosen))

    def slopes(inverse: float) -> NDArray[np.float64]:
        weights = np.exp(inverse * scores)
        slope: NDArray[np.float64] = (weights * scores).sum(axis=1) / weights.sum(axis=1) - chosen
        return slope

    ends = 1 / _HOTTEST, _HOTTEST
    best = _root(lambda inverse: float(slopes(inverse).sum()), *ends)
    wide = quantile(level) ** 2 / 2 * (1.0 if groups is None else design_effect(slopes(best), groups, level=level))
    floor = loss(best) + wide

    def end(far: float) -> float:
        return far if loss(far) <= floor else float(brentq(lambda inverse: loss(inverse) - floor, best, far))

    cold, hot = end(ends[1]), end(ends[0])
    method = f"profile likelihood {percent(level)}" + ("" if groups is None else ", clustered by group")
    return Estimate(value=1 / best, low=1 / cold, high=1 / hot, n=len(true), method=method)


def _root(rising: Callable[[float], float], low: float, high: float) -> float:
    """Return where a rising function is zero, or the end that is nearest to it."""
    from scipy.optimize import brentq

    if rising(low) >= 0:
        return low
    return high if rising(high) <= 0 else float(brentq(rising, low, high, xtol=1e-10))

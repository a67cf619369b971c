"""How likely each label is wrong: opinions about a photo pooled, and labels seen as one more, fallible, witness.

Every opinion s gives a photo x a log-probability for each class c. They are pooled by a weighted product,
p(c | x) ~ prod_s p_s(c | x) ** w_s (the logarithmic opinion pool: C. Genest and J. Zidek, Stat. Sci. 1986), because
opinions made from the same photos must not count as independent. The label y that a photo carries was given to its
true class c with probability Q[c, y], so that by Bayes' rule

    P(c | x, y)  ~  p(c | x) * Q[c, y],

which is the model of A. Dawid and A. Skene (Appl. Stat. 1979) for annotators, with one annotator: the dataset. Labels
of copies are further observations of the same class. Weights and Q are estimated by expectation-maximisation from
the labels as they stand; no photo has to be known to be wrong. The log-odds that a label is wrong fall apart into a
sum, a term for each opinion: weights of evidence (I. J. Good, 1950).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Floats", "Integers", "Pooled", "heat", "log_softmax", "pool"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

ROUNDS = 100
"""Steps of expectation-maximisation at most."""
SETTLED = 1e-4
"""Change of the rate of errors in one step below which the estimates have settled."""
SPREAD = 1.0
"""Standard deviation of the logarithm of a weight around that of an equal share, before the labels are looked at."""
FEWEST = 20
"""Photos of each class that the expected channel, errors spread evenly, counts for at least."""
LEAST_RATE = 1e-3
"""Share of wrong labels that is always thought possible."""


@dataclass(frozen=True)
class Pooled:
    """What the opinions say together.

    Attributes:
        posterior: Log-probability that each class is the true one, the label considered, shape (n, K).
        weights: Weight of each opinion's log-probabilities as they were given, shape (S,).
        channel: Log-probability of the labels seen if each class were the true one, shape (n, K).
        error_rate: Estimated share of wrong labels.
    """

    posterior: Floats
    weights: Floats
    channel: Floats
    error_rate: float

    def log_odds(self, labels: Integers) -> Floats:
        """Return the log-odds that each label is wrong, shape (n,)."""
        right = self.posterior[np.arange(len(labels)), labels]
        return np.asarray(np.log(-np.expm1(np.minimum(right, -1e-15))) - right)


def pool(
    opinions: Sequence[Floats],
    labels: Integers,
    *,
    copied: NDArray[np.bool_] | None = None,
    margin: Floats | None = None,
) -> Pooled:
    """Pool opinions and labels.

    Args:
        opinions: Log-probabilities, each of shape (n, K); a row of zeros is no opinion.
        labels: The label of each photo, counted from 0, shape (n,).
        copied: Whether a copy of the photo carries each other label, shape (n, K).
        margin: How clearly annotators agreed on each label, 0 to 1, shape (n,); a label with margin 0 says nothing.
    """
    heats = np.array([heat(one, labels) for one in opinions])
    rows = np.stack([factor * one for factor, one in zip(heats, opinions, strict=True)])
    shares = np.full(len(rows), -np.log(len(rows)))
    logs, channel = shares, _Channel(rows.shape[2], labels, copied, margin)
    for _ in range(ROUNDS):
        posterior = np.exp(log_softmax(_mixed(rows, logs) + channel.seen))
        before = channel.rate
        channel.learn(posterior)
        logs = _refitted(rows, posterior, logs, shares)
        if abs(channel.rate - before) < SETTLED:
            break
    pooled = log_softmax(_mixed(rows, logs) + channel.seen)
    return Pooled(pooled, np.exp(logs) * heats, channel.seen, channel.rate)


class _Channel:
    """From the true class to the label: Q, and the log-probability of the labels seen under each class."""

    def __init__(
        self, num_classes: int, labels: Integers, copied: NDArray[np.bool_] | None, margin: Floats | None
    ) -> None:
        self._given = np.eye(num_classes)[labels]
        self._copied = None if copied is None else copied.astype(np.float64)
        self._margin = np.ones(len(labels)) if margin is None else np.clip(margin, 0, 1)
        self.rate = 0.05
        self._see(self._expected())

    def learn(self, posterior: Floats) -> None:
        """Estimate Q from how likely each class is the true one, shape (n, K).

        As long as photos are few, Q is what the rate of errors makes of it when errors are spread evenly: that counts
        as much as one photo for each cell of Q, so that many classes do not make confusions out of single photos.
        """
        self.rate = max(LEAST_RATE, 1 - float((posterior * self._given).sum(axis=1).mean()))
        counts, size = posterior.T @ self._given, self._given.shape[1]
        strength = max(FEWEST, size * (size - 1))
        self._see((counts + strength * self._expected()) / (counts.sum(axis=1, keepdims=True) + strength))

    def _expected(self) -> Floats:
        size = self._given.shape[1]
        even = np.full((size, size), self.rate / (size - 1))
        np.fill_diagonal(even, 1 - self.rate)
        return even

    def _see(self, channel: Floats) -> None:
        size = len(channel)
        own = self._margin[:, None] * (self._given @ channel.T) + (1 - self._margin)[:, None] / size
        self.seen = np.log(own)
        if self._copied is not None:
            self.seen = self.seen + self._copied @ np.log(channel).T


def log_softmax(rows: Floats) -> Floats:
    """Return rows as logarithms of probabilities."""
    rows = rows - rows.max(axis=1, keepdims=True)
    return np.asarray(rows - np.log(np.exp(rows).sum(axis=1, keepdims=True)))


def _mixed(rows: Floats, logs: Floats) -> Floats:
    return np.asarray(np.tensordot(np.exp(logs), rows, 1))


def _refitted(rows: Floats, posterior: Floats, logs: Floats, shares: Floats) -> Floats:
    """Return the log-weights under which the pool is nearest to the posterior (maximum a posteriori)."""
    from scipy.optimize import minimize

    def loss(logs: Floats) -> tuple[float, Floats]:
        pooled = log_softmax(_mixed(rows, logs))
        apart, off = posterior - np.exp(pooled), (logs - shares) / SPREAD**2
        slope = np.exp(logs) * np.tensordot(rows, apart, 2)
        return float(-(posterior * pooled).sum() + 0.5 * off @ (logs - shares)), off - slope

    found = minimize(loss, logs, jac=True, method="L-BFGS-B", options={"maxiter": 10})
    return np.asarray(found.x, np.float64)


def heat(scores: Floats, labels: Integers) -> float:
    """Return the factor that makes scores fit the labels best: one temperature (C. Guo et al., ICML 2017)."""
    from scipy.optimize import minimize_scalar

    said = np.ptp(scores, axis=1) > 0
    rows, given = scores[said], labels[said]
    if not len(rows):
        return 1.0

    def loss(log_heat: float) -> float:
        return float(-log_softmax(np.exp(log_heat) * rows)[np.arange(len(rows)), given].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-4.0, 4.0), method="bounded", options={"xatol": 1e-3}).x))

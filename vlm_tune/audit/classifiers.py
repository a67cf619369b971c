"""Three classifiers on frozen embeddings, each asked about photos it was not fitted on.

They are as cheap as honest answers get: least squares and neighbours leave out every photo in turn without a second
fit, and logistic regression is fitted once for each fold.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vlm_tune.audit.pooling import Floats, Integers
from vlm_tune.leakage.neighbours import centred, top_k

__all__ = ["LeastSquares", "folds_of", "logistic", "nearest", "votes"]

PENALTIES = tuple(10.0 ** (power / 2) for power in range(-12, 1))
"""Regularisations that least squares tries, as a share of the sum of all variances."""
INVERSE_STRENGTH = 100.0
"""Of the logistic regression, on rows with a mean square of 1."""
K = 10
"""Neighbours that vote."""
FLOOR = 1e-6


class LeastSquares:
    """Regularised least squares from embeddings to classes, every unit of photos left out in turn, exactly.

    With the hat matrix H of the fit to all photos, the residuals of unit g had it been left out are
    (I - H_gg)^-1 r_g (R. Cook and S. Weisberg, Residuals and Influence in Regression, 1982, for one row), so that one
    singular value decomposition answers for all fits and all regularisations.

    Args:
        vectors: Embeddings, shape (n, D).
        units: Number of the unit of each photo; those of one unit are left out together, shape (n,).
    """

    def __init__(self, vectors: NDArray[np.float32], units: Integers) -> None:
        rows = np.asarray(vectors, np.float64) - vectors.mean(axis=0, dtype=np.float64)
        self._left, values, _ = np.linalg.svd(rows, full_matrices=False)
        self._squares = values**2
        order = np.argsort(units, kind="stable")
        parts = np.split(order, np.flatnonzero(np.diff(units[order])) + 1)
        self._alone = np.array([part[0] for part in parts if len(part) == 1], np.int64)
        self._together = [part for part in parts if len(part) > 1]

    def scores(self, targets: Floats) -> Floats:
        """Return what each photo gets from the fit without its unit, shape (n, K).

        Args:
            targets: Probability of each class, shape (n, K): one label, or how likely each is the true one.
        """
        middle = targets.mean(axis=0)
        inside = self._left.T @ (targets - middle)
        # The mean takes part in every fit, which is a row of ones with no penalty.
        constant = 1 / len(targets)
        best, least = np.zeros_like(targets), np.inf
        for penalty in PENALTIES:
            kept = self._squares / (self._squares + penalty * self._squares.sum() + 1e-300)
            rest = targets - middle - (self._left * kept) @ inside
            out = self._left_out(rest, kept, constant)
            if (loss := float((out**2).sum())) < least:
                best, least = targets - out, loss
        return best

    def _left_out(self, rest: Floats, kept: Floats, constant: float) -> Floats:
        leverage = (self._left[self._alone] ** 2) @ kept + constant
        out = np.empty_like(rest)
        out[self._alone] = rest[self._alone] / np.maximum(1 - leverage, 1e-6)[:, None]
        for part in self._together:
            hat = (self._left[part] * kept) @ self._left[part].T + constant
            out[part] = np.linalg.lstsq(np.eye(len(part)) - hat, rest[part], rcond=1e-6)[0]
        return out


def nearest(vectors: NDArray[np.float32], units: Integers) -> Integers:
    """Return the places of each photo's nearest photos of other units, -1 where there are no more, shape (n, 10)."""
    rows = centred(vectors, vectors.mean(axis=0))
    depth = K + int(np.bincount(units).max())
    found, _ = top_k([rows], rows, depth)
    others = units[found] != units[:, None]
    picked = others & (others.cumsum(axis=1) <= K)
    near = np.full((len(units), K), -1, np.int64)
    row, column = np.nonzero(picked)
    near[row, picked.cumsum(axis=1)[row, column] - 1] = found[row, column]
    return near


def votes(near: Integers, targets: Floats) -> Floats:
    """Return the logarithms of the shares of the neighbours' votes, one more vote shared among all classes, (n, K)."""
    there = near >= 0
    counted = (targets[near] * there[:, :, None]).sum(axis=1)
    size = targets.shape[1]
    return np.asarray(np.log((counted + 1 / size) / (there.sum(axis=1, keepdims=True) + 1)))


def logistic(vectors: NDArray[np.float32], labels: Integers, size: int, folds: Integers) -> Floats:
    """Return the log-probabilities of a logistic regression that did not see the photo's fold, shape (n, K).

    Args:
        vectors: Embeddings, shape (n, D).
        labels: Shape (n,).
        size: Number of classes K.
        folds: Number of the fold of each photo, shape (n,).
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    # In single precision it takes half the time and answers the same.
    rows = np.asarray(vectors - vectors.mean(axis=0), np.float32)
    rows /= np.float32(np.sqrt((rows**2).sum(axis=1).mean()) or 1.0)
    scores = np.zeros((len(rows), size))
    for fit, held in _parts(folds):
        if len(np.unique(labels[fit])) < 2:
            continue
        with warnings.catch_warnings():
            # Where classes can be told apart there is no end; what is reached by then answers as well.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = LogisticRegression(C=INVERSE_STRENGTH, max_iter=200).fit(rows[fit], labels[fit])
        shares = np.zeros((len(held), size))
        shares[:, model.classes_] = model.predict_proba(rows[held])
        scores[held] = np.log((1 - FLOOR) * shares + FLOOR / size)
    return scores


def folds_of(units: Integers, ids: list[bytes], folds: int) -> Integers:
    """Deal units out to folds of about the same number of photos; chance comes from the ids alone.

    Args:
        units: Number of the unit of each photo, shape (n,).
        ids: What decides instead of chance, for each photo.
        folds: How many; as many as there are units, where these are fewer.
    """
    first: dict[int, bytes] = {}
    for unit, key in sorted(zip(units.tolist(), ids, strict=True), key=lambda both: both[1]):
        first.setdefault(unit, key)
    sizes, filled, home = np.bincount(units), np.zeros(min(folds, len(first))), {}
    for unit in first:
        home[unit] = int(filled.argmin())
        filled[home[unit]] += sizes[unit]
    return np.array([home[unit] for unit in units.tolist()], np.int64)


def _parts(folds: Integers) -> Iterator[tuple[Integers, Integers]]:
    for fold in range(int(folds.max()) + 1):
        yield np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)

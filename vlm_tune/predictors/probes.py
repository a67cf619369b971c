"""Classifiers on frozen embeddings: a linear probe and nearest neighbours, by scikit-learn."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vlm_tune.embedding import Embedder, default_embedder
from vlm_tune.errors import PredictorError
from vlm_tune.predictors.embedded import Array, EmbeddedBaseline, digest, embedded, identity, training_digest
from vlm_tune.task import Task

if TYPE_CHECKING:
    from vlm_tune.data import Dataset

__all__ = ["LinearProbe", "Neighbours"]

Numbers = NDArray[np.int64]

_STRENGTHS = tuple(10.0**power for power in range(-2, 5))
"""Inverse regularisations that are tried."""
_FOLDS = 5
_MOST_TRIED = 3_000
"""Examples that the regularisation is chosen on at most."""


class _Trained(EmbeddedBaseline):
    """A baseline that looks at training examples."""

    def __init__(self, train: Dataset, embedder: Embedder | None) -> None:
        self.train = train
        self.embedder: Embedder = default_embedder() if embedder is None else embedder

    @cached_property
    def fingerprint(self) -> str:  # type: ignore[override]
        """Changes with the training examples' photos and labels, the embedder and the settings."""
        return digest(self._settings, identity(self.embedder), training_digest(self.train))

    @cached_property
    def _rows(self) -> Array:
        return embedded(self.embedder, self.train)

    def _membership(self, task: Task) -> NDArray[np.bool_]:
        """Return whether each training example has each class, (n, C)."""
        named = [set(task.members(example.label)) for example in self.train]
        return np.array([[label in members for label in task.classes] for members in named])

    @property
    @abstractmethod
    def _settings(self) -> str:
        """What kind of classifier it is, and how it is set."""


class LinearProbe(_Trained):
    """The predictor behind `Baseline.linear_probe`."""

    def __init__(self, train: Dataset, embedder: Embedder | None, *, seed: int) -> None:
        super().__init__(train, embedder)
        self.seed = seed
        self.name = f"linear probe on {self.embedder.name}"

    @property
    def _settings(self) -> str:
        return f"linear probe {self.seed}"

    def _classifier(self, task: Task) -> Callable[[Array], Array]:
        centre = self._rows.mean(axis=0)
        scale = float(np.sqrt(((self._rows - centre) ** 2).sum(axis=1).mean())) or 1.0
        rows, has = (self._rows - centre) / scale, self._membership(task)
        # One regression for all classes, or one for each where several may apply.
        targets = list(has.T.astype(int)) if task.multi_label else [has.argmax(axis=1)]
        fitted = [_fit(rows, target, self._strength(rows, target)) for target in targets]

        def classify(new: Array) -> Array:
            shares = [probabilities((new - centre) / scale) for probabilities in fitted]
            if task.multi_label:
                return np.stack([_column(share, 1) for share in shares], axis=1)
            return np.stack([_column(shares[0], place) for place in range(len(task.classes))], axis=1)

        return classify

    def _strength(self, rows: Array, target: Numbers) -> float:
        """Return the inverse regularisation with the least log-loss on held-out training examples."""
        folds = list(self._folds(target))
        if not folds:
            return 1.0
        losses: list[float] = []
        for strength in _STRENGTHS:
            losses.append(
                sum(_loss(_fit(rows[fit], target[fit], strength), rows[held], target[held]) for fit, held in folds)
            )
            # Beyond the best strength the loss only rises, and every fit takes longer than the one before.
            if len(losses) > 2 and losses[-1] > losses[-2] > losses[-3]:
                break
        return _STRENGTHS[int(np.argmin(losses))]

    def _folds(self, target: Numbers) -> Iterator[tuple[Numbers, Numbers]]:
        """Yield places to fit on and to judge on; no group is on both sides, and classes of one are left out."""
        from sklearn.model_selection import StratifiedGroupKFold

        drawn = np.random.default_rng(self.seed).permutation(len(target))[:_MOST_TRIED]
        counts = np.bincount(target[drawn])
        places = drawn[counts[target[drawn]] >= 2]
        folds = min(_FOLDS, *counts[counts >= 2].tolist()) if (counts >= 2).sum() >= 2 else 0
        names = [example.group for example in self.train]
        groups = np.array([f"group {names[place]}" if names[place] else f"photo {place}" for place in places])
        if folds < 2 or len(set(groups)) < folds:
            return
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=self.seed)
        for fit, held in splitter.split(places, target[places], groups):
            if len(set(target[places[fit]])) >= 2:
                yield places[fit], places[held]


class Neighbours(_Trained):
    """The predictor behind `Baseline.knn`."""

    def __init__(self, train: Dataset, embedder: Embedder | None, *, k: int) -> None:
        super().__init__(train, embedder)
        if not 1 <= k <= len(train):
            raise PredictorError(f"k={k}: between 1 and all {len(train)} training examples can vote")
        self.k = k
        self.name = f"{k} nearest neighbours by {self.embedder.name}"

    @property
    def _settings(self) -> str:
        return f"nearest neighbours {self.k}"

    def _classifier(self, task: Task) -> Callable[[Array], Array]:
        from sklearn.neighbors import NearestNeighbors

        has = self._membership(task)
        search = NearestNeighbors(n_neighbors=self.k, metric="cosine").fit(self._rows)
        even = 0.5 if task.multi_label else 1 / len(task.classes)

        def classify(rows: Array) -> Array:
            nearest = search.kneighbors(rows, return_distance=False)
            votes = has[nearest].sum(axis=1).astype(np.float64)
            if not task.multi_label:
                # Less than any vote: only a tie is decided by it.
                votes += 1e-3 * has[nearest[:, 0]] * (votes == votes.max(axis=1, keepdims=True))
            shares = (votes + even) / (self.k + 1)
            return np.asarray(shares if task.multi_label else shares / shares.sum(axis=1, keepdims=True))

        return classify


Probabilities = Callable[[Array], dict[int, Array]]
"""From vectors to the probability of each class that was seen in training."""


def _fit(rows: Array, target: Numbers, strength: float) -> Probabilities:
    if len(set(target.tolist())) < 2:
        # Nothing to tell apart: the one answer, with the probability that Laplace's rule gives it.
        sure = (len(target) + 1) / (len(target) + 2)
        only = int(target[0])
        return lambda new: {only: np.full(len(new), sure), 1 - only: np.full(len(new), 1 - sure)}
    model = _regression(strength, rows, target)
    classes = model.classes_.tolist()
    return lambda new: dict(zip(classes, model.predict_proba(new).T, strict=True))


def _regression(strength: float, rows: Array, target: Numbers) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        # Weak regularisation on separable data has no end; what it has reached by then answers as well.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=strength, max_iter=300).fit(rows, target)


def _loss(probabilities: Probabilities, rows: Array, target: Numbers) -> float:
    """Return the sum of the negative log-probabilities of the right classes."""
    found = probabilities(rows)
    right = np.array([found[label][at] if label in found else 0.0 for at, label in enumerate(target.tolist())])
    return float(-np.log(np.maximum(right, 1e-6)).sum())


def _column(found: dict[int, Array], place: int) -> Array:
    known = next(iter(found.values()))
    return found.get(place, np.zeros_like(known))

"""Baselines that see a photo as one vector."""

from __future__ import annotations

import hashlib
import itertools
import secrets
import time
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vlm_tune.embedding import Embedder
from vlm_tune.errors import ImageError
from vlm_tune.predictors.baselines import Baseline
from vlm_tune.records import Example, Prediction
from vlm_tune.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from vlm_tune.data import Dataset

__all__ = ["Array", "EmbeddedBaseline", "digest", "embedded", "identity", "log_scores", "training_digest"]

Array = NDArray[np.float64]

_AT_ONCE = 256
_FLOOR = 1e-6
"""Probability shared out among all classes, so that none has a logarithm of minus infinity."""


class EmbeddedBaseline(Baseline):
    """Embeds photos some hundred at a time and leaves the answer to `_classifier`.

    Attributes:
        embedder: Turns photos into vectors.
    """

    embedder: Embedder

    def predict(self, examples: Sequence[Example], task: Task) -> Iterator[Prediction]:
        """Yield one prediction per example, in order; an unreadable image gives the outcome `failed`.

        Raises:
            ImageError: A training image cannot be read.
        """
        if not examples:
            return
        classify = self._classifier(task)
        rest = iter(examples)
        while piece := list(itertools.islice(rest, _AT_ONCE)):
            start = time.perf_counter()
            rows, failures = _tolerant(self.embedder, piece)
            shares = iter(classify(rows) if len(rows) else rows)
            each = (time.perf_counter() - start) / len(piece)
            for example in piece:
                if example.id in failures:
                    yield Prediction(example_id=example.id, outcome="failed", error=failures[example.id])
                else:
                    yield self._answer(example, next(shares), task, each)

    def _answer(self, example: Example, shares: Array, task: Task, latency_s: float) -> Prediction:
        if task.multi_label:
            label = task.join(name for name, share in zip(task.classes, shares, strict=True) if share > 0.5)
        else:
            label = task.classes[int(np.argmax(shares))]
        scores = log_scores(shares, multi_label=task.multi_label)
        return Prediction(
            example_id=example.id,
            outcome="answered",
            label=label,
            scores=dict(zip(task.classes, scores.tolist(), strict=True)),
            latency_s=latency_s,
        )

    @abstractmethod
    def _classifier(self, task: Task) -> Callable[[Array], Array]:
        """Return what turns vectors (n, D) into the probability of each class, (n, C)."""


def embedded(embedder: Embedder, examples: Iterable[Example]) -> Array:
    """Return a row for each example's photo, shape (n, D).

    Raises:
        ImageError: A photo cannot be read.
    """
    rest, pieces = iter(examples), []
    while piece := list(itertools.islice(rest, _AT_ONCE)):
        pieces.append(embedder.embed([example.read() for example in piece]))
    return np.concatenate(pieces).astype(np.float64)


def identity(embedder: Embedder) -> str:
    """Return what changes whenever the embedder's vectors could: its fingerprint, or its name."""
    known = getattr(embedder, "fingerprint", embedder.name)
    # Vectors that nobody can tell apart from others must not share answers with them.
    return f"{embedder.name} {known if known is not None else secrets.token_hex(16)}"


def training_digest(train: Dataset) -> str:
    """Return a digest of what can be learnt: the content, label and group of every training example.

    Raises:
        ImageError: A photo cannot be read.
    """
    return digest(*sorted(f"{example.content_hash} {example.label} {example.group}" for example in train))


def digest(*parts: str) -> str:
    """Return 16 hexadecimal digits over texts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def log_scores(shares: Array, *, multi_label: bool) -> Array:
    """Return the logarithms of probabilities, none of them minus infinity."""
    even = 0.5 if multi_label else 1 / len(shares)
    return np.asarray(np.log((1 - _FLOOR) * shares + _FLOOR * even))


def _tolerant(embedder: Embedder, examples: Sequence[Example]) -> tuple[Array, dict[str, str]]:
    """Return the vectors of the photos that can be read, and what is wrong with the others."""
    try:
        return embedded(embedder, examples), {}
    except ImageError:
        # Who it was is known once every photo is tried alone.
        rows, failures = [], {}
        for example in examples:
            try:
                rows.append(embedded(embedder, [example]))
            except ImageError as error:
                failures[example.id] = str(error)
        return np.concatenate(rows) if rows else np.zeros((0, 0)), failures

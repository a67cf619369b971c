"""Answers that need no model: the floor that everything else has to beat."""

from __future__ import annotations

import hashlib
import math
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from vlm_tune.errors import ImageError
from vlm_tune.records import Example, Prediction
from vlm_tune.task import Task

if TYPE_CHECKING:
    from vlm_tune.data import Dataset

__all__ = ["Baseline"]


class Baseline(ABC):
    """A predictor that does not look at the pixels; make one with `random` or `majority`.

    Example:
        >>> task = Task(prompt="What is it?", classes=("crack", "dent"))
        >>> photo = Example(id="7.jpg", image=b"...", label="dent")
        >>> [answer] = Baseline.random(seed=0).predict([photo], task)
        >>> answer.outcome
        'answered'
    """

    name: str
    """What reports call it."""
    fingerprint: str
    """Changes whenever its answers could."""

    @staticmethod
    def random(seed: int = 0) -> Baseline:
        """Guess every class with the same probability.

        The guess depends on the seed and on the image's content alone, so neither order nor batch matters.
        """
        return _Random(seed)

    @staticmethod
    def majority(train: Dataset) -> Baseline:
        """Always answer the commonest class of the training examples; the first of the task's on a tie.

        The scores are the logarithms of the class shares after adding one example to every class (Laplace).
        """
        return _Majority(Counter(example.label for example in train))

    def predict(self, examples: Sequence[Example], task: Task) -> Iterator[Prediction]:
        """Yield one prediction per example, in order; an unreadable image gives the outcome `failed`."""
        for example in examples:
            start = time.perf_counter()
            try:
                label = self._label(example, task)
            except ImageError as error:
                yield Prediction(example_id=example.id, outcome="failed", error=str(error))
                continue
            yield Prediction(
                example_id=example.id,
                outcome="answered",
                label=label,
                scores=self._scores(task),
                latency_s=time.perf_counter() - start,
            )

    def __repr__(self) -> str:
        return f"Baseline({self.name!r})"

    @abstractmethod
    def _label(self, example: Example, task: Task) -> str:
        """Return the answer for one example."""

    @abstractmethod
    def _scores(self, task: Task) -> Mapping[str, float]:
        """Return the log-probability of each class."""


class _Random(Baseline):
    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.name = "random guess"
        self.fingerprint = _digest(f"random {seed}")

    def _label(self, example: Example, task: Task) -> str:
        draw = int(_digest(f"{self.seed} {example.content_hash}"), 16)
        return task.classes[draw % len(task.classes)]

    def _scores(self, task: Task) -> Mapping[str, float]:
        return dict.fromkeys(task.classes, -math.log(len(task.classes)))


class _Majority(Baseline):
    def __init__(self, counts: Mapping[str, int]) -> None:
        self.counts = dict(sorted(counts.items()))
        self.name = "majority class"
        self.fingerprint = _digest(f"majority {self.counts}")

    def _label(self, example: Example, task: Task) -> str:
        return max(task.classes, key=lambda label: self.counts.get(label, 0))

    def _scores(self, task: Task) -> Mapping[str, float]:
        counts = {label: self.counts.get(label, 0) + 1 for label in task.classes}
        total = sum(counts.values())
        return {label: math.log(count / total) for label, count in counts.items()}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]

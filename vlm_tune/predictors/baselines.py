"""Answers that need no model: the floor that everything else has to beat."""

from __future__ import annotations

import hashlib
import math
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from vlm_tune.errors import ImageError
from vlm_tune.records import Example, Prediction
from vlm_tune.task import NONE, Task

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
        """Guess every answer with the same probability: one class, or any list of them for a multi-label task.

        The guess depends on the seed and on the image's content alone, so neither order nor batch matters.
        """
        return _Random(seed)

    @staticmethod
    def majority(train: Dataset) -> Baseline:
        """Always answer the commonest label of the training examples; the first of the task's on a tie.

        The scores are the logarithms of the class shares after adding one example to every class (Laplace). For a
        multi-label task the commonest label is a list of classes, on a tie the shortest, and each class has a share
        of its own, after adding one example with and one without it.
        """
        return _Majority(Counter(example.label for example in train))

    def predict(self, examples: Sequence[Example], task: Task) -> Iterator[Prediction]:
        """Yield one prediction per example, in order; an unreadable image gives the outcome `failed`."""
        choose, scores = self._chooser(task), self._scores(task)
        for example in examples:
            start = time.perf_counter()
            try:
                label = choose(example)
            except ImageError as error:
                yield Prediction(example_id=example.id, outcome="failed", error=str(error))
                continue
            yield Prediction(
                example_id=example.id,
                outcome="answered",
                label=label,
                scores=scores,
                latency_s=time.perf_counter() - start,
            )

    def __repr__(self) -> str:
        return f"Baseline({self.name!r})"

    @abstractmethod
    def _chooser(self, task: Task) -> Callable[[Example], str]:
        """Return the function that answers one example."""

    @abstractmethod
    def _scores(self, task: Task) -> Mapping[str, float]:
        """Return the log-probability of each class."""


class _Random(Baseline):
    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.name = "random guess"
        self.fingerprint = _digest(f"random {seed}")

    def _chooser(self, task: Task) -> Callable[[Example], str]:
        def choose(example: Example) -> str:
            draw = int(_digest(f"{self.seed} {example.content_hash}"), 16)
            if task.multi_label:
                # A coin for each class; the first 64 have one of their own.
                return task.join(label for place, label in enumerate(task.classes) if draw >> place % 64 & 1)
            return task.classes[draw % len(task.classes)]

        return choose

    def _scores(self, task: Task) -> Mapping[str, float]:
        return dict.fromkeys(task.classes, -math.log(2 if task.multi_label else len(task.classes)))


class _Majority(Baseline):
    def __init__(self, counts: Mapping[str, int]) -> None:
        self.counts = dict(sorted(counts.items()))
        self.name = "majority class"
        self.fingerprint = _digest(f"majority {self.counts}")

    def _chooser(self, task: Task) -> Callable[[Example], str]:
        def rank(label: str) -> tuple[int, ...]:
            members = task.members(label)
            return -self.counts.get(label, 0), len(members), *map(task.classes.index, members)

        known = [label for label in self.counts if task.is_answer(label)] or (
            [NONE] if task.multi_label else [*task.classes]
        )
        commonest = min(known, key=rank)
        return lambda example: commonest

    def _scores(self, task: Task) -> Mapping[str, float]:
        if task.multi_label:
            named: Counter[str] = Counter()
            for label, count in self.counts.items():
                named.update(dict.fromkeys(task.members(label), count))
            total = sum(self.counts.values()) + 2
            return {label: math.log((named[label] + 1) / total) for label in task.classes}
        counts = {label: self.counts.get(label, 0) + 1 for label in task.classes}
        total = sum(counts.values())
        return {label: math.log(count / total) for label, count in counts.items()}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]

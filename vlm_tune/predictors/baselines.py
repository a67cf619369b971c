"""What everything else has to beat: guesses that see no pixel, and frozen embeddings under simple classifiers."""

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
    from vlm_tune.embedding import Embedder, OpenClip

__all__ = ["Baseline"]


class Baseline(ABC):
    """A predictor that is cheap to have; make one with `random`, `majority`, `clip`, `linear_probe` or `knn`.

    Examples:
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

    @staticmethod
    def clip(embedder: OpenClip | None = None, *, templates: Sequence[str] = ("a photo of {label}.",)) -> Baseline:
        """Answer with the class whose text lies nearest to the photo, without any training.

        The text of a class is the mean of its filled-in templates' embeddings, and the scores are the logarithms of
        the model's softmax over the classes (A. Radford et al., ICML 2021).

        Args:
            embedder: The open_clip model; by default ViT-B-32 when its weights are already on this machine.
            templates: Texts with `{label}` in place of the class, and `{description}`, where wanted, in place of
                the task's line about it.

        Raises:
            PredictorError: There are no weights on this machine, the embedder has no text side, or a template does
                not name the class.
            TaskError: When asked: several classes may apply, and nothing says from where on one does.
        """
        from vlm_tune.predictors.zero_shot import ZeroShot

        return ZeroShot(embedder, templates)

    @staticmethod
    def linear_probe(train: Dataset, embedder: Embedder | None = None, *, seed: int = 0) -> Baseline:
        """Fit a logistic regression on frozen embeddings of the training photos.

        Its regularisation is chosen by cross-validated log-loss on the training examples alone, groups kept
        together. The scores are the logarithms of its probabilities. For a multi-label task there is one regression
        for each class, and a class is answered from a probability of one half on.

        Args:
            train: The training examples; they are embedded when the first question comes.
            embedder: Turns photos into vectors; by default `embedding.default_embedder()`.
            seed: Decides the folds.
        """
        from vlm_tune.predictors.probes import LinearProbe

        return LinearProbe(train, embedder, seed=seed)

    @staticmethod
    def knn(train: Dataset, embedder: Embedder | None = None, *, k: int = 5) -> Baseline:
        """Let the most similar training photos vote, by cosine of their embeddings.

        On a tie the class of the nearest photo wins. The scores are the logarithms of the shares of votes after
        sharing one more vote among all classes. For a multi-label task a class is answered when more than half of
        the neighbours have it.

        Args:
            train: The training examples; they are embedded when the first question comes.
            embedder: Turns photos into vectors; by default `embedding.default_embedder()`.
            k: How many vote.

        Raises:
            PredictorError: `k` is less than 1, or more than there are training examples.
        """
        from vlm_tune.predictors.probes import Neighbours

        return Neighbours(train, embedder, k=k)

    @abstractmethod
    def predict(self, examples: Sequence[Example], task: Task) -> Iterator[Prediction]:
        """Yield one prediction per example, in order; an unreadable image gives the outcome `failed`."""

    def __repr__(self) -> str:
        return f"Baseline({self.name!r})"


class _Guess(Baseline):
    """Answers without looking at the pixels."""

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

    @abstractmethod
    def _chooser(self, task: Task) -> Callable[[Example], str]:
        """Return the function that answers one example."""

    @abstractmethod
    def _scores(self, task: Task) -> Mapping[str, float]:
        """Return the log-probability of each class."""


class _Random(_Guess):
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


class _Majority(_Guess):
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

"""What somebody thinks each photo shows, as log-probabilities: a system that was evaluated, or a classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vlm_tune.audit.pooling import Floats, Integers, log_softmax
from vlm_tune.evaluation import Evaluation
from vlm_tune.task import Task

__all__ = ["Coding", "Opinion", "opinion_of"]

FLOOR = 1e-6
"""Probability shared out among all classes, so that nobody is ever beyond doubt."""


@dataclass(frozen=True)
class Opinion:
    """What one source says about every photo.

    Attributes:
        name: What reports call the source.
        scores: Log-probabilities, shape (Q, n, K): one question with K classes, or for a multi-label task a question
            for each class, whether it applies. A row of zeros is no opinion.
    """

    name: str
    scores: Floats

    def answers(self) -> tuple[Integers, Floats]:
        """Return each question's likeliest answer, -1 where there is no opinion, and its probability, both (Q, n)."""
        said = np.ptp(self.scores, axis=2) > 0
        shares = np.exp(np.stack([log_softmax(rows) for rows in self.scores]))
        best = shares.argmax(axis=2)
        return np.where(said, best, -1), np.where(said, shares.max(axis=2), np.nan)


class Coding:
    """Labels as numbers: one question with K answers, or for a multi-label task one of yes or no for each class."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.num_answers = 2 if task.multi_label else len(task.classes)

    def encode(self, labels: Sequence[str]) -> Integers:
        """Return the labels as numbers, shape (Q, n)."""
        if not self.task.multi_label:
            place = {name: at for at, name in enumerate(self.task.classes)}
            return np.array([[place[label] for label in labels]], np.int64)
        members = [set(self.task.members(label)) for label in labels]
        return np.array([[name in those for those in members] for name in self.task.classes], np.int64)

    def decode(self, answers: Sequence[int]) -> str:
        """Return the label that one photo's answers, one for each question, spell."""
        if not self.task.multi_label:
            return self.task.classes[answers[0]]
        return self.task.join(name for name, answer in zip(self.task.classes, answers, strict=True) if answer)


def opinion_of(evaluation: Evaluation, coding: Coding, places: Mapping[str, int], labels: Integers) -> Opinion:
    """Return what a system said, as log-probabilities.

    Where it gave none, an answer is worth what it turned out to be worth on the other photos: the share of each label
    among those with the same answer, the photo itself left out.

    Args:
        evaluation: Its answers.
        coding: How labels are numbered.
        places: Example id to place among all photos.
        labels: The labels of all photos, shape (Q, n).
    """
    rows = evaluation.table.select(["example_id", "outcome", "label", "scores"]).to_pylist()
    said = [row for row in rows if row["outcome"] == "answered"]
    at = np.array([places[row["example_id"]] for row in said], np.int64)
    scores = np.zeros((*labels.shape, coding.num_answers))
    if said and all(row["scores"] is not None for row in said):
        scores[:, at] = _given(said, evaluation, coding)
    elif said:
        answers = coding.encode([row["label"] for row in said])
        scores[:, at] = [_worth(*both, coding.num_answers) for both in zip(answers, labels[:, at], strict=True)]
    return Opinion(evaluation.name, scores)


def _given(rows: Sequence[Mapping[str, Any]], evaluation: Evaluation, coding: Coding) -> Floats:
    order = [evaluation.classes.index(name) for name in coding.task.classes]
    shares = np.exp(np.array([row["scores"] for row in rows], np.float64))[:, order]
    shares = (1 - FLOOR) * shares + FLOOR / coding.num_answers
    if not coding.task.multi_label:
        return np.log(shares)[None]
    return np.log(np.stack([1 - shares, shares], axis=2)).transpose(1, 0, 2)


def _worth(answers: Integers, labels: Integers, size: int) -> Floats:
    counts = np.zeros((size, size))
    np.add.at(counts, (answers, labels), 1.0)
    others = counts[answers] - np.eye(size)[labels]
    return np.asarray(np.log((others + 1 / size) / (others.sum(axis=1, keepdims=True) + 1)))

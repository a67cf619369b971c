"""Putting questions to a predictor, and holding it to its word."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import NamedTuple

from vlm_tune._spreading import Spreads
from vlm_tune.errors import EvaluationError
from vlm_tune.predictors import Predictor
from vlm_tune.records import Example, Prediction
from vlm_tune.task import Task

__all__ = ["Answer", "ask"]

MOST = 256
"""Examples that a copy of a predictor is asked about at a time: what a lost worker costs at most."""


class Answer(NamedTuple):
    """An answer as it arrives.

    Attributes:
        number: Which of the examples it is for, from 0.
        prediction: What was answered.
        elapsed_s: Time since the answer before it, or since the first question.
    """

    number: int
    prediction: Prediction
    elapsed_s: float


def ask(
    predictor: Predictor, examples: Sequence[Example], task: Task, *, backend: Spreads | None = None
) -> Generator[Answer, None, None]:
    """Yield a predictor's answers as they arrive, in its order; close the iterator to stop the predictor at once.

    Args:
        predictor: Who is asked.
        examples: About what.
        task: The question.
        backend: Where copies of the predictor answer; None: in this process.

    Raises:
        EvaluationError: An answer was not asked for, or is no class.
    """
    waiting = {example.id: number for number, example in enumerate(examples)}
    before = time.perf_counter()
    answers = predictor.predict(examples, task) if backend is None else _spread(predictor, examples, task, backend)
    with ExitStack() as stack:
        if isinstance(answers, Generator):
            # A full disk ends the loop early: the predictor must stop then, not when it is collected.
            stack.callback(answers.close)
        for prediction in answers:
            number = waiting.pop(prediction.example_id, None)
            if number is None:
                stray = f"{prediction.example_id!r} twice or without being asked"
                raise EvaluationError(f"{predictor.name} answered {stray}")
            checked = _check(prediction, task, predictor.name)
            now = time.perf_counter()
            yield Answer(number, checked, now - before)
            before = now


def _spread(
    predictor: Predictor, examples: Sequence[Example], task: Task, backend: Spreads
) -> Generator[Prediction, None, None]:
    copy = _Copy(predictor, task, predictor.fingerprint)
    # Closed with this generator, and not when it is collected.
    batches = backend.map_batches(copy, examples, most=MOST)
    with ExitStack() as stack:
        if isinstance(batches, Generator):
            stack.enter_context(closing(batches))
        for answers in batches:
            yield from answers


@dataclass(frozen=True)
class _Copy:
    """A predictor as it is sent to other processes."""

    predictor: Predictor
    task: Task
    fingerprint: str

    def __call__(self, examples: Sequence[Example]) -> list[Prediction]:
        if self.predictor.fingerprint != self.fingerprint:
            raise EvaluationError(
                f"{self.predictor.name} is another predictor on the worker than here, so its answers would be kept "
                "under a wrong name: give it a dtype (a machine without a GPU chooses float32), and see that every "
                "machine has the same weights"
            )
        return list(self.predictor.predict(examples, self.task))


def _check(prediction: Prediction, task: Task, name: str) -> Prediction:
    """Refuse an answer that is no class; a score that is no number makes the example a failure."""
    where = f"{name}, example {prediction.example_id!r}"
    wrong = "no list of classes in the task's order" if task.multi_label else "none of the classes"
    if prediction.label is not None and not task.is_answer(prediction.label):
        raise EvaluationError(f"{where}: the answer {prediction.label!r} is {wrong}")
    scores = prediction.scores
    if scores is not None and set(scores) != set(task.classes):
        raise EvaluationError(f"{where}: scores for {sorted(scores)} instead of {sorted(task.classes)}")
    if scores is not None and not all(map(math.isfinite, scores.values())):
        reason = "a score is not a finite number"
        return Prediction(example_id=prediction.example_id, outcome="failed", error=reason)
    return prediction

"""A predictor that says what it is told."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

from vlm_tune.records import Example, Prediction
from vlm_tune.task import Task

__all__ = ["ScriptedPredictor"]


class ScriptedPredictor:
    """A predictor that answers from a script.

    Args:
        answers: Example id to the words answered, or a function of the example that returns them. Words that
            are no class give the outcome `unparseable`, no words the outcome `failed`; a `Prediction` is
            given as it is, and an exception is raised.
        name: What reports call it.
        fingerprint: Under what its answers are kept; follows from the name by default.

    Attributes:
        asked: Ids of the examples it was asked about, in order.

    Examples:
        >>> from vlm_tune.testing import tiny_dataset
        >>> data = tiny_dataset(4)
        >>> oracle = ScriptedPredictor(lambda example: example.label)
        >>> {answer.outcome for answer in oracle.predict(data.test, data.task)}
        {'answered'}
    """

    def __init__(
        self,
        answers: Mapping[str, str | Prediction | BaseException]
        | Callable[[Example], str | Prediction | BaseException | None],
        *,
        name: str = "scripted",
        fingerprint: str | None = None,
    ) -> None:
        self.name = name
        self.fingerprint = fingerprint or hashlib.sha256(name.encode()).hexdigest()[:16]
        self.asked: list[str] = []
        self._answer = answers if callable(answers) else lambda example: answers.get(example.id)

    def predict(self, examples: Sequence[Example], task: Task) -> Iterator[Prediction]:
        """Yield the scripted predictions, in order."""
        for example in examples:
            self.asked.append(example.id)
            answer = self._answer(example)
            if isinstance(answer, BaseException):
                raise answer
            yield answer if isinstance(answer, Prediction) else _prediction(example, answer, task)


def _prediction(example: Example, words: str | None, task: Task) -> Prediction:
    if words is None:
        return Prediction(example_id=example.id, outcome="failed", error="the script has no answer")
    label = task.parse(words)
    outcome: Literal["answered", "unparseable"] = "answered" if label else "unparseable"
    error = None if label else "the answer is none of the classes"
    return Prediction(example_id=example.id, outcome=outcome, label=label, raw=words, error=error)

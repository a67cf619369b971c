"""What APIs that answer one photo a call have in common: the way of an example, and how replies are read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol

from vlm_tune import images
from vlm_tune._console import notice
from vlm_tune.errors import ImageError, PredictorError
from vlm_tune.predictors.remote import AdaptiveLimiter, Retry, RetryPolicy, with_retries
from vlm_tune.records import Example, Prediction
from vlm_tune.task import NONE, Task

__all__ = ["Asking", "Limits", "RejectedError", "asked_seconds", "named"]


class RejectedError(Exception):
    """The server will not take this request, now or later."""


class Limits(Protocol):
    """The part of a predictor's options that says how hard to try."""

    @property
    def concurrency(self) -> int:
        """Most calls in flight."""

    @property
    def stop_after(self) -> int:
        """Examples failing in a row after which the run stops; 0: never."""

    @property
    def retry(self) -> RetryPolicy:
        """How often and how long to try again."""


class Asking:
    """One `predict` of an API: its calls share a concurrency, a count of failures and the model that answers.

    Args:
        name: What errors call the API.
        task: The question.
        limits: How hard to try.
        hide: Takes secrets out of an error's text, should a server have echoed them.
    """

    def __init__(self, name: str, task: Task, *, limits: Limits, hide: Callable[[str], str] = str) -> None:
        self.name = name
        self.task = task
        self.limits = limits
        self.hide = hide
        self.limiter = AdaptiveLimiter(most=limits.concurrency)
        self._failed_in_a_row = 0
        self._versions: list[str] = []

    async def ask(self, example: Example, call: Callable[[images.EncodedImage], Awaitable[Prediction]]) -> Prediction:
        """Return the prediction for one example, whatever happens to it.

        Args:
            example: The example.
            call: Makes one call about its encoded image; raises `Retry` or `RejectedError` where that fails.

        Raises:
            PredictorError: `call` does, or too many examples failed in a row.
        """
        try:
            image = await asyncio.to_thread(images.encode, example.image, max_pixels=self.task.max_pixels)
        except ImageError as error:
            return Prediction(example_id=example.id, outcome="failed", error=str(error))
        try:
            prediction = await with_retries(lambda: call(image), policy=self.limits.retry, limiter=self.limiter)
        except (Retry, RejectedError) as error:
            prediction = Prediction(example_id=example.id, outcome="failed", error=self.hide(str(error)))
        self._note(prediction)
        return prediction

    def _note(self, prediction: Prediction) -> None:
        """Stop when all fails, and say when the model behind the name changes."""
        version = prediction.model_version
        if version is not None and version not in self._versions:
            if self._versions:
                before = " and ".join(self._versions)
                notice(f"{self.name} changed on the way: {before} answered before, now {version}.")
            self._versions.append(version)
        self._failed_in_a_row = self._failed_in_a_row + 1 if prediction.outcome == "failed" else 0
        if self._failed_in_a_row >= self.limits.stop_after > 0:
            raise PredictorError(
                f"{self.name} failed {self._failed_in_a_row} examples in a row, so the run stops; "
                f"what was answered is kept, run again to go on. The last failure: {prediction.error}"
            )


def named(answer: Any, task: Task) -> str | None:
    """Return the label that an answer names, or None.

    Args:
        answer: Words or, for a multi-label task, perhaps a list of them, as JSON holds it.
        task: The question.
    """
    if isinstance(answer, str):
        return task.parse(answer)
    if not task.multi_label or not isinstance(answer, list) or not all(isinstance(item, str) for item in answer):
        return None
    return task.parse(", ".join(answer)) if answer else NONE


def asked_seconds(text: str) -> float | None:
    """Return the seconds that a `Retry-After` header asks to wait: a number, or a date; None: neither."""
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None

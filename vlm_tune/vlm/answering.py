"""From examples to predictions: photos encoded ahead, batched by size, answered, one prediction each.

A photo that cannot be used fails alone. When memory runs out a batch is answered in halves, and later
batches are no larger. No answer depends on the batch it was in.
"""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

from vlm_tune._threads import ahead
from vlm_tune.errors import ImageError, ModelError
from vlm_tune.images import EncodedImage, encode
from vlm_tune.records import Example, Prediction
from vlm_tune.task import NONE, Task
from vlm_tune.vlm.generating import generate_batch, room_for_answer
from vlm_tune.vlm.pixels import prepare
from vlm_tune.vlm.prompts import answer_ids, prompt_text
from vlm_tune.vlm.resident import Resident
from vlm_tune.vlm.scoring import class_scores, score_batch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Mode", "answers"]

Mode = Literal["score", "generate"]
"""Compare the log-probabilities of all answers, or let the model write and parse its words."""

_BATCHES_AHEAD = 8
"""How many batches are encoded ahead and sorted by size together."""

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class _Photo:
    """One example whose photo could be read."""

    example: Example
    image: EncodedImage

    @property
    def size(self) -> tuple[int, int]:
        return self.image.width * self.image.height, self.image.width


def answers(
    resident: Resident,
    examples: Sequence[Example],
    task: Task,
    *,
    mode: Mode = "score",
    batch_size: int | None = None,
    model_version: str | None = None,
    likelihoods: dict[str, float] | None = None,
) -> Iterator[Prediction]:
    """Yield one prediction per example, in no particular order.

    Args:
        resident: The loaded model; an adapter that is on it takes part.
        examples: What to answer.
        task: The question.
        mode: How to answer.
        batch_size: Photos per batch; None chooses by device.
        model_version: Written into every prediction.
        likelihoods: Where answers are scored, it is filled with what each example's own label gets, by the example's
            id: the log-probability of its tokens, not normalised over the answers.

    Raises:
        ModelError: One photo alone is too large for the memory.
        TaskError: The task's words contain one of the model's special tokens; or the answers to be scored are
            too many, which those of a multi-label task of more than 10 classes are.
    """
    size = batch_size or (8 if resident.device.type == "cpu" else 16)
    question = _Question(resident, task, mode, limit=size, model_version=model_version, likelihoods=likelihoods)
    encoders, preparer = ThreadPoolExecutor(min(16, os.cpu_count() or 1)), ThreadPoolExecutor(1)
    try:
        encoded = ahead(encoders, question.encode, examples, depth=size * _BATCHES_AHEAD)
        for window in _chunks(encoded, size * _BATCHES_AHEAD):
            yield from (item for item in window if isinstance(item, Prediction))
            photos = sorted((item for item in window if isinstance(item, _Photo)), key=lambda photo: photo.size)
            batches = _chunks(photos, size)
            # While generating, the tokenizer is busy in this thread and must not be changed by another.
            ready = (
                ahead(preparer, question.prepare, batches, depth=1)
                if mode == "score"
                else map(question.prepare, batches)
            )
            for batch in ready:
                yield from question.answer(batch)
    finally:
        # Without cancelling, a Ctrl-C would wait for every photo that is still queued.
        encoders.shutdown(cancel_futures=True)
        preparer.shutdown(cancel_futures=True)


class _Scored(NamedTuple):
    """Scores of one photo.

    Attributes:
        best: Place of the best label.
        classes: Log-probability of each class.
        labels: That of each label, not normalised.
    """

    best: int
    classes: list[float]
    labels: list[float]


@dataclass(frozen=True)
class _Batch:
    """Photos and the model's inputs for them, or why the processor refused."""

    photos: Sequence[_Photo]
    inputs: dict[str, Tensor] | str


class _Question:
    """One task put to one loaded model, a batch at a time."""

    def __init__(
        self,
        resident: Resident,
        task: Task,
        mode: Mode,
        *,
        limit: int,
        model_version: str | None,
        likelihoods: dict[str, float] | None,
    ) -> None:
        self._resident = resident
        self._task = task
        self._mode = mode
        self._limit = limit
        self._model_version = model_version
        self._likelihoods = likelihoods
        self._prompt = prompt_text(resident.processor, task)
        self._labels = task.answers if mode == "score" else _longest(task)
        self._answers = [answer_ids(resident.processor, label) for label in self._labels]

    def encode(self, example: Example) -> _Photo | Prediction:
        try:
            return _Photo(example, encode(example.image, max_pixels=self._task.max_pixels))
        except ImageError as error:
            return _failed(example, str(error))

    def prepare(self, photos: Sequence[_Photo]) -> _Batch:
        images = [photo.image.data for photo in photos]
        try:
            prompts = [self._prompt] * len(images)
            resident = self._resident
            return _Batch(photos, prepare(resident.processor, images, prompts, device=resident.device))
        except (ImageError, ValueError) as error:
            return _Batch(photos, str(error))

    def answer(self, batch: _Batch) -> Iterator[Prediction]:
        done = self._answer_whole(batch) if len(batch.photos) <= self._limit else None
        if done is not None:
            yield from done
            return
        middle = len(batch.photos) // 2
        for half in (batch.photos[:middle], batch.photos[middle:]):
            yield from self.answer(self.prepare(half))

    def _answer_whole(self, batch: _Batch) -> list[Prediction] | None:
        """Answer a batch at once; None where it has to be halved."""
        alone = len(batch.photos) == 1
        if isinstance(batch.inputs, str):
            return [_failed(batch.photos[0].example, batch.inputs)] if alone else None
        started = time.perf_counter()
        results = self._run(batch.inputs)
        if results is None:
            if alone:
                raise ModelError(
                    f"not enough memory on {self._resident.device} for {batch.photos[0].example.id} alone; "
                    "lower Task.max_pixels, or use a smaller model or dtype"
                )
            self._limit = len(batch.photos) // 2
            return None
        share = (time.perf_counter() - started) / len(batch.photos)
        return [
            self._prediction(photo.example, result, share) for photo, result in zip(batch.photos, results, strict=True)
        ]

    def _run(self, inputs: dict[str, Tensor]) -> Sequence[_Scored | str] | None:
        """Return each row's best label and class scores, or its text; None when memory ran out."""
        import torch

        model, processor = self._resident.model, self._resident.processor
        try:
            if self._mode == "score":
                found = score_batch(model, inputs, self._answers).double()
                scores = found.log_softmax(-1)
                classes = class_scores(self._task, self._labels, scores)
                columns = scores.argmax(-1).tolist(), classes.tolist(), found.tolist()
                return [_Scored(*row) for row in zip(*columns, strict=True)]
            room = room_for_answer(self._answers)
            return generate_batch(model, processor, inputs, max_new_tokens=room)
        except torch.OutOfMemoryError:
            pass
        # Out of the handler, whose traceback would keep the tensors alive.
        torch.cuda.empty_cache()
        return None

    def _prediction(self, example: Example, result: _Scored | str, latency_s: float) -> Prediction:
        if isinstance(result, str):
            label, scores, raw = self._task.parse(result), None, result
        elif all(map(math.isfinite, result.classes)):
            scores = dict(zip(self._task.classes, result.classes, strict=True))
            label = raw = self._labels[result.best]
            if self._likelihoods is not None and example.label in self._labels:
                self._likelihoods[example.id] = result.labels[self._labels.index(example.label)]
        else:
            return _failed(example, "the model's scores are not finite numbers; try dtype bfloat16 or float32")
        return Prediction(
            example_id=example.id,
            outcome="unparseable" if label is None else "answered",
            label=label,
            scores=scores,
            raw=raw,
            latency_s=latency_s,
            model_version=self._model_version,
        )


def _longest(task: Task) -> Sequence[str]:
    """Return answers of which one is as long as any."""
    return (NONE, task.join(task.classes)) if task.multi_label else task.classes


def _failed(example: Example, error: str) -> Prediction:
    return Prediction(example_id=example.id, outcome="failed", error=error)


def _chunks(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    source = iter(items)
    while chunk := list(itertools.islice(source, size)):
        yield chunk

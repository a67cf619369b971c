"""One question put to one loaded model: photos read, prepared, answered by the batch, and made into predictions."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from vlm_tune.errors import ImageError, ModelError
from vlm_tune.images import shown
from vlm_tune.records import Example, Prediction
from vlm_tune.task import NONE, Task
from vlm_tune.vlm.generating import Generator, room_for_answer
from vlm_tune.vlm.leaving import Leaving
from vlm_tune.vlm.likely import Likely, likely
from vlm_tune.vlm.prompts import prompt_text
from vlm_tune.vlm.resident import Resident
from vlm_tune.vlm.scoring import Scorer, answers_of, class_scores, scorer

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Begun", "Mode", "Photo", "Question"]

Mode = Literal["score", "score_per_token", "generate"]
"""Compare the log-probabilities of all answers, whole or per token, or let the model write and parse its words."""

_TOKENS_AT_ONCE = 16_384
"""Tokens that keep a GPU busy: the size of a batch where none is asked for."""

_MOST_PHOTOS = 128
"""Of a batch, however small they are."""


@dataclass(frozen=True)
class Photo:
    """One example whose photo could be read.

    Attributes:
        example: The example.
        size: What photos are sorted by: pixels, then width.
        content: The photo as the model's inputs are made of it.
    """

    example: Example
    size: tuple[int, int]
    content: Any


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
class Batch:
    """Photos and the model's inputs for them, or why there are none: the processor refused, or memory ran out."""

    photos: Sequence[Photo]
    inputs: Any = None
    refused: str | None = None
    too_large: bool = False


@dataclass(frozen=True)
class Begun:
    """A batch whose answers are being computed, or why there are none."""

    photos: Sequence[Photo]
    found: Leaving | list[str]
    started: float
    refused: str | None = None


class Question:
    """One task put to one loaded model, a batch at a time; the model must be in its mode of evaluation.

    Args:
        resident: The loaded model.
        task: The question.
        mode: How to answer.
        batch_size: Photos per batch; None chooses by device and by the tokens of a photo.
        model_version: Written into every prediction.
        likelihoods: See `answering.answers`.

    Attributes:
        size: How many photos a batch may have now.
    """

    def __init__(
        self,
        resident: Resident,
        task: Task,
        mode: Mode,
        *,
        batch_size: int | None,
        model_version: str | None,
        likelihoods: dict[str, float] | None,
    ) -> None:
        self._resident, self._task, self._mode = resident, task, mode
        self.size = batch_size or (8 if resident.device.type == "cpu" else 16)
        self._grows = batch_size is None and resident.device.type != "cpu"
        self._model_version, self._likelihoods = model_version, likelihoods
        self._labels = _longest(task) if mode == "generate" else task.answers
        self._answers = answers_of(resident.processor, self._labels)
        self._last_finished = 0.0
        prompt = prompt_text(resident.processor, task)
        self._way: Scorer | Likely | Generator
        if mode == "generate":
            room = room_for_answer(self._answers)
            self._way = Generator(resident.model, resident.processor, prompt, max_new_tokens=room)
        else:
            what = resident.model, resident.processor, prompt, self._answers
            # What an improbable answer gets matters where scores are divided by lengths, or asked for by label.
            to_follow_up = mode == "score" and likelihoods is None
            self._way = (likely(*what) if to_follow_up else None) or scorer(*what)
        # One batch more is on its way where each goes through the model twice.
        overlapping = resident.device.type == "cuda" and mode != "generate"
        self._begun_ahead = (2 if isinstance(self._way, Likely) else 1) if overlapping else 0

    def read(self, example: Example) -> Photo | Prediction:
        """Return a photo ready to be prepared, or a failure; for many threads at once."""
        try:
            photo = shown(example.image, max_pixels=self._task.max_pixels)
            return Photo(example, (photo.width * photo.height, photo.width), self._way.read(photo))
        except ImageError as error:
            return _failed(example, str(error))

    def prepare(self, photos: Sequence[Photo]) -> Batch:
        """Return the model's inputs for some photos; where memory runs out, `begin` goes on in halves."""
        import torch

        try:
            return Batch(photos, inputs=self._way.prepare([photo.content for photo in photos]))
        except (ImageError, ValueError) as error:
            return Batch(photos, refused=str(error))
        except torch.OutOfMemoryError:
            pass
        # Out of the handler, whose traceback would keep the tensors alive.
        torch.cuda.empty_cache()
        return Batch(photos, too_large=True)

    def begin(self, batch: Batch) -> Iterator[Begun]:
        """Start answering a batch: at once, or in halves where that fails."""
        started = time.perf_counter()
        alone = len(batch.photos) == 1
        if batch.refused is not None and alone:
            yield Begun(batch.photos, [], started, refused=batch.refused)
            return
        if batch.refused is None and len(batch.photos) <= self.size:
            found = None if batch.too_large else self._run(batch)
            if found is not None:
                yield Begun(batch.photos, found, started)
                return
            self._halve(batch.photos)
        middle = len(batch.photos) // 2
        for half in (batch.photos[:middle], batch.photos[middle:]):
            yield from self.begin(self.prepare(half))

    def finish_in_turn(self, batches: Iterator[Begun]) -> Iterator[Prediction]:
        """Wait for each batch's answers, on a GPU with the next one on its way."""
        waiting: deque[Begun] = deque()
        try:
            for begun in batches:
                waiting = deque(later for earlier in waiting for later in self._go_on(earlier))
                waiting.append(begun)
                while len(waiting) > self._begun_ahead:
                    yield from self.finish(waiting.popleft())
        except ModelError:
            # What was begun before one photo was too large is not lost.
            for begun in waiting:
                if not (isinstance(begun.found, Leaving) and begun.found.lost):
                    yield from self.finish(begun)
            raise
        for begun in waiting:
            yield from self.finish(begun)

    def finish(self, begun: Begun) -> Iterator[Prediction]:
        """Wait for a batch's answers."""
        if begun.refused is not None:
            yield _failed(begun.photos[0].example, begun.refused)
            return
        if isinstance(begun.found, Leaving) and not begun.found.finished:
            for later in self._go_on(begun):
                yield from self.finish(later)
            return
        found = begun.found
        results: Sequence[_Scored | str] = found if isinstance(found, list) else self._scored(found.arrived())
        now = time.perf_counter()
        share = (now - max(begun.started, self._last_finished)) / len(begun.photos)
        self._last_finished = now
        for photo, result in zip(begun.photos, results, strict=True):
            yield self._prediction(photo.example, result, share)

    def _go_on(self, begun: Begun) -> Iterator[Begun]:
        """Begin what a batch still needs: at once, or the whole of it in halves where memory runs out."""
        import torch

        if not isinstance(begun.found, Leaving):
            yield begun
            return
        try:
            with torch.no_grad():
                begun.found.go_on()
        except torch.OutOfMemoryError:
            pass
        else:
            yield begun
            return
        torch.cuda.empty_cache()
        self._halve(begun.photos)
        for half in self.begin(Batch(begun.photos)):
            yield from self._go_on(half)

    def _halve(self, photos: Sequence[Photo]) -> None:
        """Let batches be half as large as one that memory did not suffice for."""
        if len(photos) == 1:
            raise ModelError(
                f"not enough memory on {self._resident.device} for {photos[0].example.id} alone; "
                "lower Task.max_pixels, or use a smaller model or dtype"
            )
        self.size, self._grows = len(photos) // 2, False

    def _run(self, batch: Batch) -> Leaving | list[str] | None:
        """Return each row's scores or text; None when memory ran out."""
        import torch

        try:
            with torch.no_grad():
                found = self._way.answer(batch.inputs)
            self._grow(batch)
            return found if isinstance(found, list) else Leaving(found)
        except torch.OutOfMemoryError:
            pass
        # Out of the handler, whose traceback would keep the tensors alive.
        torch.cuda.empty_cache()
        return None

    def _grow(self, batch: Batch) -> None:
        """Let batches be as large as keeps a GPU busy, now that it is known how many tokens a photo takes."""
        if self._grows:
            each = self._way.num_tokens(batch.inputs) / len(batch.photos)
            self.size, self._grows = min(_MOST_PHOTOS, max(self.size, int(_TOKENS_AT_ONCE / each))), False

    def _scored(self, found: Tensor) -> Sequence[_Scored]:
        import torch

        found = found.double()
        if self._mode == "score_per_token":
            found = found / torch.tensor([len(answer) for answer in self._answers])
        scores = found.log_softmax(-1)
        classes = class_scores(self._task, self._labels, scores)
        columns = scores.argmax(-1).tolist(), classes.tolist(), found.tolist()
        return [_Scored(*row) for row in zip(*columns, strict=True)]

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

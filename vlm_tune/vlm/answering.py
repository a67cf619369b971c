"""From examples to predictions: photos read ahead, batched by size, answered, one prediction each.

A photo that cannot be used fails alone. When memory runs out a batch is answered in halves, and later
batches are no larger. No answer depends on the batch it was in.
"""

from __future__ import annotations

import itertools
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from vlm_tune._threads import ahead
from vlm_tune.errors import ImageError, ModelError
from vlm_tune.images import encode
from vlm_tune.records import Example, Prediction
from vlm_tune.task import NONE, Task
from vlm_tune.vlm.generating import Generator, room_for_answer
from vlm_tune.vlm.prompts import prompt_text
from vlm_tune.vlm.resident import Resident
from vlm_tune.vlm.scoring import Scorer, answers_of, class_scores, inference, scorer

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Mode", "answers"]

Mode = Literal["score", "score_per_token", "generate"]
"""Compare the log-probabilities of all answers, whole or per token, or let the model write and parse its words."""

_BATCHES_AHEAD = 8
"""How many batches are sorted by size together."""

_TOKENS_AT_ONCE = 16_384
"""Tokens that keep a GPU busy: the size of a batch where none is asked for."""

_MOST_PHOTOS = 128
"""Of a batch, however small they are."""

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class _Photo:
    """One example whose photo could be read.

    Attributes:
        example: The example.
        size: What photos are sorted by: pixels, then width.
        content: The photo as the model's inputs are made of it.
    """

    example: Example
    size: tuple[int, int]
    content: Any


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
        batch_size: Photos per batch; None chooses by device and by the tokens of a photo.
        model_version: Written into every prediction.
        likelihoods: Where answers are scored, it is filled with what each example's own label gets, by the example's
            id: the log-probability of its tokens, not normalised over the answers.

    Raises:
        ModelError: One photo alone is too large for the memory.
        TaskError: The task's words contain one of the model's special tokens; two labels are the same tokens; or the
            answers to be scored are too many, which those of a multi-label task of more than 10 classes are.
    """
    question = _Question(
        resident, task, mode, batch_size=batch_size, model_version=model_version, likelihoods=likelihoods
    )
    readers, preparer = ThreadPoolExecutor(min(16, os.cpu_count() or 1)), ThreadPoolExecutor(1)
    unreadable: list[Prediction] = []
    try:
        first, width = question.size, question.size * _BATCHES_AHEAD
        # Twice as many, so that the next ones are there when these are used up.
        items = ahead(readers, question.read, examples, depth=2 * width)
        # One batch goes ahead, so that the model has something to do while the others are read.
        windows = itertools.chain(_chunks(itertools.islice(items, first), first), _chunks(items, width))
        batches = _batches(windows, lambda: question.size, unreadable=unreadable)
        # While generating, the tokenizer is busy in this thread and must not be changed by another.
        ready = (
            map(question.prepare, batches)
            if mode == "generate"
            else ahead(preparer, question.prepare, batches, depth=1)
        )
        for prediction in question.finish_in_turn(itertools.chain.from_iterable(map(question.begin, ready))):
            yield prediction
            while unreadable:
                yield unreadable.pop()
        yield from unreadable
    finally:
        # Without cancelling, a Ctrl-C would wait for every photo that is still queued.
        readers.shutdown(cancel_futures=True)
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
    inputs: Any = None
    refused: str | None = None


@dataclass(frozen=True)
class _Begun:
    """A batch whose answers are being computed, or why there are none."""

    photos: Sequence[_Photo]
    found: Tensor | list[str]
    started: float
    refused: str | None = None


class _Question:
    """One task put to one loaded model, a batch at a time."""

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
        self._begun_ahead = int(resident.device.type == "cuda" and mode != "generate")
        self._model_version, self._likelihoods = model_version, likelihoods
        self._labels = _longest(task) if mode == "generate" else task.answers
        self._answers = answers_of(resident.processor, self._labels)
        self._last_finished = 0.0
        prompt = prompt_text(resident.processor, task)
        self._way: Scorer | Generator
        if mode == "generate":
            room = room_for_answer(self._answers)
            self._way = Generator(resident.model, resident.processor, prompt, max_new_tokens=room)
        else:
            self._way = scorer(resident.model, resident.processor, prompt, self._answers)

    def read(self, example: Example) -> _Photo | Prediction:
        try:
            image = encode(example.image, max_pixels=self._task.max_pixels)
            return _Photo(example, (image.width * image.height, image.width), self._way.read(image.data))
        except ImageError as error:
            return _failed(example, str(error))

    def prepare(self, photos: Sequence[_Photo]) -> _Batch:
        try:
            return _Batch(photos, inputs=self._way.prepare([photo.content for photo in photos]))
        except (ImageError, ValueError) as error:
            return _Batch(photos, refused=str(error))

    def begin(self, batch: _Batch) -> Iterator[_Begun]:
        """Start answering a batch: at once, or in halves where that fails."""
        started = time.perf_counter()
        alone = len(batch.photos) == 1
        if batch.refused is not None and alone:
            yield _Begun(batch.photos, [], started, refused=batch.refused)
            return
        if batch.refused is None and len(batch.photos) <= self.size:
            found = self._run(batch)
            if found is not None:
                yield _Begun(batch.photos, found, started)
                return
            if alone:
                raise ModelError(
                    f"not enough memory on {self._resident.device} for {batch.photos[0].example.id} alone; "
                    "lower Task.max_pixels, or use a smaller model or dtype"
                )
            self.size, self._grows = len(batch.photos) // 2, False
        middle = len(batch.photos) // 2
        for half in (batch.photos[:middle], batch.photos[middle:]):
            yield from self.begin(self.prepare(half))

    def finish_in_turn(self, batches: Iterator[_Begun]) -> Iterator[Prediction]:
        """Wait for each batch's answers, on a GPU with the next one on its way."""
        waiting: deque[_Begun] = deque()
        try:
            for begun in batches:
                waiting.append(begun)
                while len(waiting) > self._begun_ahead:
                    yield from self.finish(waiting.popleft())
        except ModelError:
            # What was begun before one photo was too large is not lost.
            for begun in waiting:
                yield from self.finish(begun)
            raise
        for begun in waiting:
            yield from self.finish(begun)

    def finish(self, begun: _Begun) -> Iterator[Prediction]:
        """Wait for a batch's answers."""
        if begun.refused is not None:
            yield _failed(begun.photos[0].example, begun.refused)
            return
        found = begun.found
        results: Sequence[_Scored | str] = found if isinstance(found, list) else self._scored(found)
        now = time.perf_counter()
        share = (now - max(begun.started, self._last_finished)) / len(begun.photos)
        self._last_finished = now
        for photo, result in zip(begun.photos, results, strict=True):
            yield self._prediction(photo.example, result, share)

    def _run(self, batch: _Batch) -> Tensor | list[str] | None:
        """Return each row's scores or text; None when memory ran out."""
        import torch

        try:
            with inference(self._resident.model):
                found = self._way.answer(batch.inputs)
            self._grow(batch)
            return found
        except torch.OutOfMemoryError:
            pass
        # Out of the handler, whose traceback would keep the tensors alive.
        torch.cuda.empty_cache()
        return None

    def _grow(self, batch: _Batch) -> None:
        """Let batches be as large as keeps a GPU busy, now that it is known how many tokens a photo takes."""
        if self._grows:
            each = self._way.num_tokens(batch.inputs) / len(batch.photos)
            self.size, self._grows = min(_MOST_PHOTOS, max(self.size, int(_TOKENS_AT_ONCE / each))), False

    def _scored(self, found: Tensor) -> Sequence[_Scored]:
        import torch

        found = found.cpu().double()
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


def _chunks(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    source = iter(items)
    while chunk := list(itertools.islice(source, size)):
        yield chunk


def _batches(
    windows: Iterable[Sequence[_Photo | Prediction]], most: Callable[[], int], *, unreadable: list[Prediction]
) -> Iterator[Sequence[_Photo]]:
    """Yield photos of similar size together, and put those that could not be read aside."""
    for window in windows:
        unreadable += [item for item in window if isinstance(item, Prediction)]
        yield from _even(sorted((item for item in window if isinstance(item, _Photo)), key=lambda one: one.size), most)


def _even(items: Sequence[_Item], most: Callable[[], int]) -> Iterator[Sequence[_Item]]:
    """Yield parts of nearly the same size, as few as there can be: a small one would take as long as a large one."""
    at = 0
    while at < len(items):
        left = len(items) - at
        size = math.ceil(left / math.ceil(left / most()))
        yield items[at : at + size]
        at += size

"""From examples to predictions: photos read ahead, batched by size, answered, one prediction each.

A photo that cannot be used fails alone. When memory runs out a batch is answered in halves, and later
batches are no larger. No answer depends on the batch it was in.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TypeVar

from vlm_tune._threads import ahead
from vlm_tune.records import Example, Prediction
from vlm_tune.task import Task
from vlm_tune.vlm.question import Mode, Photo, Question
from vlm_tune.vlm.resident import Resident
from vlm_tune.vlm.scoring import at_rest

__all__ = ["Mode", "answers"]

_BATCHES_AHEAD = 8
"""How many batches are sorted by size together."""

_Item = TypeVar("_Item")


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
    question = Question(
        resident, task, mode, batch_size=batch_size, model_version=model_version, likelihoods=likelihoods
    )
    readers, preparer = ThreadPoolExecutor(min(16, os.cpu_count() or 1)), ThreadPoolExecutor(1)
    unreadable: list[Prediction] = []
    rest = ExitStack()
    try:
        rest.enter_context(at_rest(resident.model))
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
        rest.close()


def _chunks(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    source = iter(items)
    while chunk := list(itertools.islice(source, size)):
        yield chunk


def _batches(
    windows: Iterable[Sequence[Photo | Prediction]], most: Callable[[], int], *, unreadable: list[Prediction]
) -> Iterator[Sequence[Photo]]:
    """Yield photos of similar size together, and put those that could not be read aside."""
    for window in windows:
        unreadable += [item for item in window if isinstance(item, Prediction)]
        yield from _even(sorted((item for item in window if isinstance(item, Photo)), key=lambda one: one.size), most)


def _even(items: Sequence[_Item], most: Callable[[], int]) -> Iterator[Sequence[_Item]]:
    """Yield parts of nearly the same size, as few as there can be: a small one would take as long as a large one."""
    at = 0
    while at < len(items):
        left = len(items) - at
        size = math.ceil(left / math.ceil(left / most()))
        yield items[at : at + size]
        at += size

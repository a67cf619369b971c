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
from functools import partial
from typing import TypeVar

from vlm_tune._threads import ahead
from vlm_tune.errors import ModelError
from vlm_tune.records import Example, Prediction
from vlm_tune.task import Task
from vlm_tune.vlm.question import Mode, Photo, Question
from vlm_tune.vlm.resident import Resident
from vlm_tune.vlm.scoring import at_rest

__all__ = ["Mode", "answers"]

_READERS = 4
"""Threads that read photos. More of them held up the one that feeds the GPU: with 98 photos for Qwen3-VL-8B on an H200,
all took 2.7 s with 4 readers and 2.9 s with 8; with a thread of its own that prepared batches, 2.9 and 3.1 s."""

_TOGETHER = 128
"""How many photos are sorted by size together, if a batch is no larger."""

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
    readers = ThreadPoolExecutor(min(_READERS, os.cpu_count() or 1))
    unreadable: list[Prediction] = []
    rest = ExitStack()
    try:
        rest.enter_context(at_rest(resident.model))
        # A few go first and alone, so that the model soon has something to do; but generation takes as long for a few.
        few = 0 if mode == "generate" else max(1, question.size // 4)
        read = partial(ahead, readers, question.read)
        items = itertools.chain(
            read(examples[:few], depth=few),
            # Twice as many, so that the next ones are there when these are used up.
            read(examples[few:], depth=2 * max(_TOGETHER, question.size)),
        )
        windows = _windows(items, _counts(few, lambda: question.size))
        batches = map(question.prepare, _batches(windows, lambda: question.size, unreadable=unreadable))
        for prediction in question.finish_in_turn(itertools.chain.from_iterable(map(question.begin, batches))):
            yield prediction
            while unreadable:
                yield unreadable.pop()
        yield from unreadable
    except ModelError:
        # What is known is not lost, as in `finish_in_turn`.
        yield from unreadable
        raise
    finally:
        # Without cancelling, a Ctrl-C would wait for every photo that is still queued.
        readers.shutdown(cancel_futures=True)
        rest.close()


def _counts(few: int, size: Callable[[], int]) -> Iterator[int]:
    """Yield how many photos are sorted together: the first few if any, a batch, and then whole batches each time."""
    if few:
        yield few
    yield size()
    while True:
        yield max(1, _TOGETHER // size()) * size()


def _windows(items: Iterator[_Item], counts: Iterable[int]) -> Iterator[list[_Item]]:
    for count in counts:
        if not (window := list(itertools.islice(items, count))):
            return
        yield window


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

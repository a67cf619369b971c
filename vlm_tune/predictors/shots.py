"""A few labelled photos to show before the question, chosen from training."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

from vlm_tune import images
from vlm_tune.data import Dataset
from vlm_tune.errors import ImageError, PredictorError
from vlm_tune.records import Example
from vlm_tune.task import NONE, Task

__all__ = ["Shot", "check_shots", "encoded_shots", "few_shot", "shots_note"]

_MOST = 64

Shot = tuple[images.EncodedImage, str]
"""A photo as every predictor gets it, and its label."""


def few_shot(train: Dataset, num_shots: int, *, seed: int = 0) -> tuple[Example, ...]:
    """Choose examples to show a model before it is asked, every class as often as the others.

    The choice depends on the photos and the seed, not on their order. Where a class has too few, the others fill
    up; for a multi-label task, `none` counts as a class.

    Args:
        train: Where to choose from; `data.train`, never the examples to be evaluated.
        num_shots: How many.
        seed: Decides which.

    Raises:
        PredictorError: There are fewer than that, or none are wanted.

    Examples:
        >>> from vlm_tune.testing import tiny_dataset
        >>> [shot.label for shot in few_shot(tiny_dataset(8).train, 6)]
        ['red', 'green', 'blue', 'red', 'green', 'blue']
    """
    photos = {example.content_hash: example for example in train}
    if not 1 <= num_shots <= len(photos):
        raise PredictorError(f"cannot choose {num_shots} shots among {len(photos)} different photos of training")
    task, shown = train.task, Counter[str]()
    names = (*task.classes, NONE)
    left = sorted(photos, key=lambda content: hashlib.sha256(f"{seed}\0{content}".encode()).digest())
    chosen: list[Example] = []
    while len(chosen) < num_shots:
        # Of the class shown least so far the first one; min() keeps the drawn order among equals.
        best = min(left, key=lambda c: min((shown[name], names.index(name)) for name in _classes(photos[c], task)))
        left.remove(best)
        chosen.append(photos[best])
        shown.update(_classes(photos[best], task))
    return tuple(chosen)


def _classes(example: Example, task: Task) -> tuple[str, ...]:
    return task.members(example.label) or (NONE,)


def encoded_shots(shots: Sequence[Example], task: Task) -> tuple[Shot, ...]:
    """Return the shots as they are sent: the task's image budget, the task's words.

    Raises:
        ImageError: A photo cannot be read.
        UnknownLabelError: A label is not one of the task's classes.
    """
    return tuple(
        (images.encode(shot.image, max_pixels=task.max_pixels), task.canonical(shot.label, where=f"shot {shot.id!r}"))
        for shot in shots
    )


def check_shots(shots: Sequence[Example], examples: Sequence[Example]) -> None:
    """Refuse shots that are among the examples to be answered: the model would be shown the answer.

    Raises:
        PredictorError: An id or an image occurs on both sides, or there are far too many shots.
    """
    if len(shots) > _MOST:
        raise PredictorError(
            f"{len(shots)} shots are sent with every call, {_MOST} are the most; choose some: few_shot(data.train, 6)"
        )
    ids = {shot.id for shot in shots}
    contents = {shot.content_hash for shot in shots}
    for example in examples if shots else ():
        if example.id in ids or _content(example) in contents:
            raise PredictorError(
                f"example {example.id!r} is asked about and is one of the shots: its answer would be in the prompt. "
                "Choose the shots from data.train and evaluate on data.test"
            )


def _content(example: Example) -> str | None:
    try:
        return example.content_hash
    except ImageError:  # it fails later, alone
        return None


def shots_note(shots: Sequence[Example]) -> str:
    """Return a line for reports: which examples were shown before the question."""
    if not shots:
        return ""
    listed = "; ".join(f"{shot.id}: {shot.label}" for shot in shots)
    return f"Before the question, {len(shots)} examples from training were shown with their answers. {listed}"

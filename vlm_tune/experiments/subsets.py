"""Which images the points of a learning curve are trained on: nested, stratified, and every class among them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vlm_tune.errors import DataError

if TYPE_CHECKING:
    from vlm_tune.data import Dataset

__all__ = ["SAMPLE", "check_sizes", "sample_of"]

SAMPLE = 1000
"""Training images that the training accuracy is measured on, at most: enough to know 95 % within 1.4 points."""


def check_sizes(train: Dataset, sizes: Sequence[int], seeds: Sequence[int]) -> None:
    """Refuse sizes and seeds that no curve can be made of.

    Args:
        train: The training examples.
        sizes: Training images of each point.
        seeds: Seeds at each size.

    Raises:
        DataError: There are none, or one is there twice or is no number of images; a size is larger than the data or
            too small to show every class; or a class has no training image at all.
    """
    for name, values, least in (("sizes", sizes, 1), ("seeds", seeds, 0)):
        wrong = [value for value in values if isinstance(value, bool) or not isinstance(value, int) or value < least]
        if not values or wrong:
            raise DataError(f"{name} are whole numbers of at least {least}, not {wrong or list(values)}")
        twice = sorted({value for value in values if list(values).count(value) > 1})
        if twice:
            raise DataError(f"{name} holds {twice} twice; give each once")
    if max(sizes) > len(train):
        raise DataError(
            f"cannot train on {max(sizes):,} images, for data.train has {len(train):,}; leave the size out, or add some"
        )
    _check_classes(train, min(sizes), seeds)


def sample_of(train: Dataset, size: int, seed: int) -> Dataset:
    """Return the images that the training accuracy at a size is measured on.

    The sample of a large size is the same for every larger one with that seed, because subsets are nested.
    """
    return train.subset(min(size, SAMPLE), seed=seed)


def _check_classes(train: Dataset, smallest: int, seeds: Sequence[int]) -> None:
    """Check that the smallest subsets show every class; the larger ones hold them."""
    classes = train.task.classes
    lacking = _lacking(train)
    if lacking:
        raise DataError(
            f"no training image shows {', '.join(map(repr, lacking[:5]))}, so that no size can show every class; add "
            "images of it, or leave it out of the task"
        )
    for seed in seeds:
        missing = _lacking(train.subset(smallest, seed=seed))
        if missing:
            raise DataError(
                f"{smallest} training images (seed {seed}) do not show all {len(classes)} classes: "
                f"{', '.join(map(repr, missing[:5]))}{', ...' if missing[5:] else ''} would be missing; begin with a "
                f"size of at least {len(classes)}"
            )


def _lacking(train: Dataset) -> list[str]:
    shown = {label for example in train for label in train.task.members(example.label)}
    return [label for label in train.task.classes if label not in shown]

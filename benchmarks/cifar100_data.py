"""CIFAR-100 as the benchmarks read it: which images are for pretraining, which for the curve, which for the test."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

import vlm_tune as vt

QUESTION = "What is shown in this photo?"
PRETRAINING_IMAGES = 8_000


def read(folder: Path, *, pretraining_images: int = PRETRAINING_IMAGES) -> tuple[vt.Dataset, vt.Dataset]:
    """Return the images for pretraining, and the others with their splits.

    The same images every time, as many of each class. A training image that is there twice, or in the test images too,
    is in neither.

    Args:
        folder: Holds `train-*.parquet` and `test-*.parquet` with `img`, `fine_label` and `coarse_label`.
        pretraining_images: How many of the training images are for pretraining.
    """
    files = {split: next(folder.glob(f"{split}*.parquet")) for split in ("train", "test")}
    data = vt.Dataset.from_hf(files, task=QUESTION, label="fine_label")
    copies = Counter(example.content_hash for example in data)
    data = data.without([example.id for example in data.train if copies[example.content_hash] > 1])
    pretraining = data.train.subset(pretraining_images)
    return pretraining, data.without(pretraining.ids)


def pixels(examples: Sequence[vt.Example]) -> np.ndarray:
    """Return the decoded images, uint8 of shape (images, 32, 32, 3)."""
    return np.stack([np.asarray(Image.open(io.BytesIO(example.image)).convert("RGB")) for example in examples])

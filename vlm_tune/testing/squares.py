"""A small dataset of coloured squares."""

from __future__ import annotations

import colorsys
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

from vlm_tune.data import Dataset
from vlm_tune.records import Example
from vlm_tune.task import Task

__all__ = ["tiny_dataset"]


def tiny_dataset(
    num_per_class: int = 4,
    *,
    classes: Sequence[str] = ("red", "green", "blue"),
    seed: int = 0,
    split: bool = True,
    root: Path | str | None = None,
) -> Dataset:
    """Return a dataset of coloured squares, 32 x 32 pixels, one hue per class and no two the same.

    Args:
        num_per_class: Examples of each class.
        classes: The classes.
        seed: Decides shades and noise.
        split: Whether to split off a quarter as test examples.
        root: Write the squares below this folder, a folder per class; otherwise they stay in memory.

    Examples:
        >>> tiny_dataset(4)
        Dataset(12 examples, 3 classes, train 9, test 3)
    """
    examples = []
    for index, label in enumerate(classes):
        for number in range(num_per_class):
            name = f"{label}/{number}.png"
            square = _square(index / len(classes), f"{seed} {label} {number}")
            image: Path | bytes = square
            if root is not None:
                image = Path(root, name)
                image.parent.mkdir(parents=True, exist_ok=True)
                image.write_bytes(square)
            examples.append(Example(id=name, image=image, label=label))
    task = Task(prompt="What colour is the square?", classes=tuple(classes))
    data = Dataset(examples, task=task)
    return data.split(test=0.25, seed=seed) if split else data


def _square(hue: float, seed: str) -> bytes:
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(list(hashlib.sha256(seed.encode()).digest()))
    colour = 255 * np.array(colorsys.hsv_to_rgb(hue, 0.8, noise.uniform(0.6, 0.9)))
    pixels = np.clip(colour + noise.normal(0, 12, size=(32, 32, 3)), 0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()

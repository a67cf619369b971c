from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlm_tune.data import Dataset
from vlm_tune.profiling import Profile, profile
from vlm_tune.records import Example
from vlm_tune.task import Task

HOSTILE = "</script><img src=x onerror=alert(1)>"
TASK = Task(prompt="?", classes=("crack", "dent", "[b]$none$[/b]"), max_pixels=2_500)
SIZES = ((40, 30), (60, 50), (20, 100))


def encoded(image: Image.Image, format: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, format)
    return file.getvalue()


@pytest.fixture(scope="session")
def photo() -> Callable[..., bytes]:
    """Draw a textured red photo: (width, height, seed, format) -> bytes."""

    def draw(width: int, height: int, seed: int = 0, format: str = "PNG") -> bytes:
        noise = np.random.default_rng(seed).integers(0, 60, (height, width, 1))
        pixels = np.array([180, 10, 10]) + noise
        return encoded(Image.fromarray(pixels.astype(np.uint8)), format)

    return draw


@pytest.fixture(scope="session")
def dataset(photo: Callable[..., bytes]) -> Dataset:
    """Twenty photos of two of three classes, and three that do not decode; two are copies, with two labels."""
    examples = [
        Example(
            id=f"{n:02}.png",
            image=photo(*SIZES[n % 3], n, "JPEG" if n < 4 else "PNG"),
            label=TASK.classes[n % 4 == 0],
            group=f"g{n // 5}",
        )
        for n in range(20)
    ]
    examples[7] = examples[7].model_copy(update={"image": examples[4].image})
    broken = [
        Example(id="empty.jpg", image=b"", label="dent", group="x"),
        Example(id="torn.jpg", image=photo(60, 50, 3, "JPEG")[:-200], label="crack", metadata={"ambiguous": "True"}),
        Example(id="gone.jpg", image=Path("/nowhere/gone.jpg"), label="crack"),
    ]
    splits = {e.id: "test" if e.id in ("00.png", "01.png") else "train" for e in examples}
    return Dataset([*examples, *broken], task=TASK, splits=splits)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def result(dataset: Dataset) -> Profile:
    return profile(dataset)


@pytest.fixture(scope="session")
def odd(tmp_path_factory: pytest.TempPathFactory, photo: Callable[..., bytes]) -> Dataset:
    """Photos of a multi-label task on disk, with hostile words in ids, classes and metadata."""
    folder = tmp_path_factory.mktemp("odd & <b>")
    task = Task(prompt="?", classes=(HOSTILE, "dent", "<i>scratch</i>"), multi_label=True)
    labels = (HOSTILE, "dent", f"{HOSTILE}, dent", "none", "<i>scratch</i>", "dent, <i>scratch</i>")
    examples = []
    for n, label in enumerate(labels * 4):
        path = folder / f"{n:02} <b>#é%20.png"
        path.write_bytes(photo(48, 36, n))
        examples.append(Example(id=f"{HOSTILE}/{n:02}", image=path, label=label, metadata={HOSTILE: HOSTILE, "n": n}))
    return Dataset(examples, task=task).split(test=0.25, seed=0)

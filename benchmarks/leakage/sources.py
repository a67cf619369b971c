"""The real sets, each as examples in memory and a random split."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from vlm_tune.records import Example

__all__ = ["SETS", "load"]

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp"}


def _folders(root: Path, _rng: np.random.Generator) -> list[Example]:
    """Class folders, inside split folders or not; the published split is not used."""
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES)
    return [
        Example(id=path.relative_to(root).as_posix(), image=path.read_bytes(), label=path.parent.name) for path in files
    ]


def _cifar(root: Path, rng: np.random.Generator, *, num: int = 2000) -> list[Example]:
    """Some photos of the published training file; copies that the set has of its own are among them."""
    import pandas as pd

    table = pd.read_parquet(root / "train-00000-of-00001.parquet", columns=["img", "fine_label"])
    rows = np.sort(rng.choice(len(table), size=num, replace=False))
    return [
        Example(id=f"{row}", image=_png(table["img"][row]["bytes"]), label=f"{table['fine_label'][row]}")
        for row in rows
    ]


def _png(data: bytes) -> bytes:
    file = io.BytesIO()
    Image.open(io.BytesIO(data)).convert("RGB").save(file, "PNG")
    return file.getvalue()


SETS: dict[str, Callable[[Path, np.random.Generator], list[Example]]] = {
    "neu_det": _folders,
    "magnetic_tile": _folders,
    "grocery_small": _folders,
    "cifar100": _cifar,
}


def load(data: Path, name: str, *, seed: int) -> tuple[list[Example], list[Example]]:
    """Return a set's training photos (three quarters, at random) and its clean test photos."""
    rng = np.random.default_rng(seed)
    examples = SETS[name](data / name, rng)
    order = rng.permutation(len(examples))
    num_train = round(0.75 * len(examples))
    return [examples[i] for i in order[:num_train]], [examples[i] for i in order[num_train:]]

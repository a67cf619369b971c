"""What other tools would say about a pair: each describes a photo once, and compares two descriptions."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["MobileNet", "Peer", "peers"]

Array = NDArray[np.float32]
Bits = NDArray[np.uint8]


class MobileNet:
    """MobileNetV2 with its ImageNet weights, as an embedder.

    Args:
        folder: Holds `mobilenet_v2.py` and its weights.
    """

    name = "mobilenet_v2"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def embed(self, images: Sequence[bytes]) -> Array:
        """Return a row of norm 1 for each encoded image."""
        import torch

        rows = []
        with torch.inference_mode():
            for start in range(0, len(images), 32):
                pixels = np.stack([_pixels(data) for data in images[start : start + 32]])
                rows.append(self._model.embed(torch.from_numpy(pixels)).numpy())
        vectors = np.concatenate(rows) if rows else np.zeros((0, 1280), np.float32)
        return np.asarray(vectors / (np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-9), np.float32)

    @cached_property
    def _model(self) -> Any:
        spec = importlib.util.spec_from_file_location("mobilenet_v2", self._folder / "mobilenet_v2.py")
        if spec is None or spec.loader is None:
            raise FileNotFoundError(f"no mobilenet_v2.py in {self._folder}")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.load(self._folder / "mobilenet_v2_fp16.npz")


def _pixels(data: bytes) -> Array:
    image = Image.open(io.BytesIO(data)).convert("RGB").resize((224, 224), Image.Resampling.BILINEAR)
    return np.asarray(image, np.float32).transpose(2, 0, 1) / 127.5 - 1


@dataclass(frozen=True)
class Peer:
    """A rule that calls two photos duplicates.

    Attributes:
        name: As the tables call it.
        bits: What it remembers of each photo, one row of bits for each.
        within: Bits in which duplicates may differ.
    """

    name: str
    bits: Callable[[Sequence[bytes]], Bits]
    within: int

    def duplicates(self, some: Bits, others: Bits) -> NDArray[np.bool_]:
        """Say of every pair whether it is one of duplicates, shape (len(some), len(others))."""
        here, there = some.astype(np.float32), others.astype(np.float32)
        apart = here.sum(axis=1)[:, None] + there.sum(axis=1)[None] - 2 * here @ there.T
        return np.asarray(apart <= self.within + 0.5)


def peers() -> list[Peer | str]:
    """Return the other tools' rules with their own hashes, or the name of a tool that is not installed."""
    return [_imagededup() or "imagededup PHash, 10 bits", _cleanvision() or "cleanvision, equal pHash"]


def _imagededup() -> Peer | None:
    try:
        from imagededup.methods import PHash
    except ImportError:
        return None
    method = PHash(verbose=False)
    return Peer(
        "imagededup PHash, 10 bits", lambda images: _rows(images, lambda it: method.encode_image(image_array=it)), 10
    )


def _cleanvision() -> Peer | None:
    try:
        from cleanvision.issue_managers.duplicate_issue_manager import get_hash
    except ImportError:
        return None
    params = {"hash_type": "phash", "hash_size": 8}
    return Peer(
        "cleanvision, equal pHash", lambda images: _rows(images, lambda it: get_hash(Image.fromarray(it), params)), 0
    )


def _rows(images: Sequence[bytes], describe: Callable[[NDArray[np.uint8]], str]) -> Bits:
    words = [describe(np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))) for data in images]
    return np.unpackbits(np.array([list(bytes.fromhex(word)) for word in words], np.uint8), axis=1)

"""Reading the photos of a dataset once: embeddings, pixel hashes, and which cannot be read."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlm_tune._console import progress
from vlm_tune.embedding import Embedder
from vlm_tune.errors import ImageError
from vlm_tune.images import decode
from vlm_tune.leakage.neighbours import centred
from vlm_tune.records import Example

__all__ = ["Gathered", "gather"]

Array = NDArray[np.float32]

BATCH = 128
LONG_SIDE = 512
"""Larger photos are embedded at this length, in pixels: no embedder looks at more."""


@dataclass(frozen=True)
class Gathered:
    """What was read of some examples; row i of each array is `examples[i]`.

    Attributes:
        examples: Those that can be read, in order.
        vectors: Their embeddings, shape (N, D).
        mirrored: Embeddings of their mirror images, shape (N, D), unless the embedder is blind to mirroring.
        byte_hashes: SHA-256 of each file.
        pixel_hashes: SHA-256 of each photo's size and decoded pixels.
        unreadable: Id of each example that cannot be read, and why.
    """

    examples: tuple[Example, ...]
    vectors: Array
    mirrored: Array | None
    byte_hashes: tuple[str, ...]
    pixel_hashes: tuple[str, ...]
    unreadable: dict[str, str]

    def __len__(self) -> int:
        return len(self.examples)

    def views(self, rows: NDArray[np.int64], mean: Array) -> list[Array]:
        """Return the centred embeddings of some rows, one array for each orientation."""
        planes = [self.vectors] if self.mirrored is None else [self.vectors, self.mirrored]
        return [centred(plane[rows], mean) for plane in planes]


@dataclass(frozen=True)
class _Read:
    data: bytes
    mirrored: bytes | None
    byte_hash: str
    pixel_hash: str


def gather(examples: Sequence[Example], embedder: Embedder) -> Gathered:
    """Read and embed examples; those that cannot be read are listed and left out."""
    one_view = bool(getattr(embedder, "mirror_invariant", False))
    kept: list[Example] = []
    hashes: list[tuple[str, str]] = []
    vectors: list[Array] = []
    mirrored: list[Array] = []
    unreadable: dict[str, str] = {}

    def read(example: Example) -> _Read | ImageError:
        try:
            return _read(example, mirror=not one_view)
        except ImageError as error:
            return error

    with ThreadPoolExecutor(os.cpu_count()) as pool, progress("Embedding photos", total=len(examples)) as bar:
        for start in range(0, len(examples), BATCH):
            batch = examples[start : start + BATCH]
            good: list[_Read] = []
            for example, photo in zip(batch, pool.map(read, batch), strict=True):
                if isinstance(photo, ImageError):
                    unreadable[example.id] = str(photo)
                    continue
                kept.append(example)
                good.append(photo)
                hashes.append((photo.byte_hash, photo.pixel_hash))
            if good:
                vectors.append(embedder.embed([photo.data for photo in good]))
            if good and not one_view:
                mirrored.append(embedder.embed([photo.mirrored for photo in good if photo.mirrored is not None]))
            bar.advance(len(batch))
    return Gathered(
        examples=tuple(kept),
        vectors=np.concatenate(vectors) if vectors else np.zeros((0, 1), np.float32),
        mirrored=np.concatenate(mirrored) if mirrored else None,
        byte_hashes=tuple(of_bytes for of_bytes, _ in hashes),
        pixel_hashes=tuple(of_pixels for _, of_pixels in hashes),
        unreadable=unreadable,
    )


def _read(example: Example, *, mirror: bool) -> _Read:
    data = example.read()
    image = decode(data, name=example.id)
    pixels = hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()
    small = data
    if max(image.size) > LONG_SIDE:
        image.thumbnail((LONG_SIDE, LONG_SIDE), Image.Resampling.BOX)
        small = _png(image)
    other = _png(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) if mirror else None
    return _Read(small, other, hashlib.sha256(data).hexdigest(), pixels)


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()

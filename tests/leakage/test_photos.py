"""Equal photos are read as one, and what cannot be read is named, every example of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.leakage.planting import png_bytes, scene
from vlm_tune.embedding import PixelEmbedder
from vlm_tune.errors import EmbeddingError
from vlm_tune.leakage import find_copies
from vlm_tune.leakage.photos import distinct
from vlm_tune.records import Example


def example(name: str, image: bytes | Path) -> Example:
    return Example(id=name, image=image, label="a")


class Counting(PixelEmbedder):
    """Counts what it is asked to embed."""

    seen = 0

    def embed(self, images: Sequence[bytes]) -> NDArray[np.float32]:
        self.seen += len(images)
        return super().embed(images)


def test_equal_files_are_embedded_once_and_equal_pixels_are_one_photo() -> None:
    photo, other = png_bytes(scene(0, size=(40, 30))), png_bytes(scene(1, size=(40, 30)))
    every = [example("z", photo), example("b", photo), example("c", photo + b"\0"), example("d", other)]
    embedder = Counting()
    photos = distinct(every, embedder)
    assert [[one.id for one in same] for same in photos.members.values()] == [["z", "b", "c"], ["d"]]
    assert embedder.seen == 3


def test_every_example_of_an_unreadable_file_is_named(tmp_path: Path) -> None:
    every = [example("torn", b"no image"), example("again", b"no image"), example("gone", tmp_path / "gone.png")]
    photos = distinct(every, PixelEmbedder())
    assert set(photos.unreadable) == {"torn", "again", "gone"}
    assert photos.unreadable["again"] == "again is the same file as torn"
    assert photos.members == {}


def test_embeddings_that_are_no_numbers_are_refused() -> None:
    class Broken:
        name = "broken"
        mirror_invariant = True

        def embed(self, images: Sequence[bytes]) -> NDArray[np.float32]:
            return np.full((len(images), 4), np.nan, np.float32)

    photos = [example(f"{i}", png_bytes(scene(i, size=(40, 30)))) for i in range(3)]
    with pytest.raises(EmbeddingError, match="NaN or infinity"):
        find_copies(photos, embedder=Broken())

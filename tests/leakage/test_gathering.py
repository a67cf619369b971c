"""Photos are read and embedded once, and what an embedder gets wrong names the photo."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.leakage.planting import jpeg_bytes, scene
from vlm_tune.embedding import FunctionEmbedder, PixelEmbedder
from vlm_tune.errors import EmbeddingError
from vlm_tune.leakage import gathering
from vlm_tune.leakage.gathering import gather
from vlm_tune.records import Example


class Counting:
    """An embedder that counts what it is asked."""

    def __init__(self, fingerprint: str | None = "counting 1") -> None:
        self.name = "counting"
        self.fingerprint = fingerprint
        self.num_images = 0

    def embed(self, images: Sequence[bytes]) -> NDArray[np.float32]:
        """A row of three numbers each."""
        self.num_images += len(images)
        rows = np.array([[len(data) % 97, data[-20] + 1, 1] for data in images], np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "BATCH", 3)


def _examples(num: int = 8) -> list[Example]:
    return [Example(id=f"{i}", image=jpeg_bytes(scene(i, size=(60, 50))), label="a") for i in range(num)]


def test_a_second_run_neither_decodes_nor_embeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = gather(_examples(), Counting(), cache_dir=tmp_path)
    monkeypatch.setattr(gathering, "decode", None)
    again, embedder = _examples()[::-1], Counting()
    second = gather(again, embedder, cache_dir=tmp_path)
    assert embedder.num_images == 0
    assert np.array_equal(second.vectors, first.vectors[::-1])
    assert second.mirrored is not None
    assert first.mirrored is not None
    assert np.array_equal(second.mirrored, first.mirrored[::-1])
    assert second.pixel_hashes == first.pixel_hashes[::-1]
    rows = np.arange(8)
    assert np.array_equal(second.details.of(rows)[0], first.details.of(rows[::-1])[0])


def test_only_new_photos_are_embedded(tmp_path: Path) -> None:
    gather(_examples(5), PixelEmbedder(), cache_dir=tmp_path)
    gather(_examples(5), Counting(), cache_dir=tmp_path)
    embedder = Counting()
    found = gather(_examples(8), embedder, cache_dir=tmp_path)
    assert embedder.num_images == 2 * 3
    assert np.array_equal(found.vectors, gather(_examples(8), Counting()).vectors)


def test_a_killed_run_keeps_what_it_had_done(tmp_path: Path) -> None:
    class Killed(Counting):
        def embed(self, images: Sequence[bytes]) -> NDArray[np.float32]:
            if self.num_images >= 2 * 6:
                raise KeyboardInterrupt
            return super().embed(images)

    with pytest.raises(KeyboardInterrupt):
        gather(_examples(), Killed(), cache_dir=tmp_path)
    embedder = Counting()
    gather(_examples(), embedder, cache_dir=tmp_path)
    assert embedder.num_images == 2 * 2


def test_other_weights_or_random_ones_do_not_get_old_vectors(tmp_path: Path) -> None:
    for fingerprint in ("counting 1", "counting 2", None, None):
        embedder = Counting(fingerprint)
        gather(_examples(4), embedder, cache_dir=tmp_path)
        assert embedder.num_images == 2 * 4


def test_equal_files_are_embedded_once() -> None:
    embedder = Counting()
    data = jpeg_bytes(scene(0))
    found = gather([Example(id=f"{i}", image=data, label="a") for i in range(7)], embedder)
    assert embedder.num_images == 2
    assert found.vectors.shape == (7, 3)


def test_photos_that_cannot_be_read_are_left_out_with_the_reason(tmp_path: Path) -> None:
    broken = [
        Example(id="gone", image=tmp_path / "gone.jpg", label="a"),
        Example(id="junk", image=b"no image", label="a"),
        Example(id="junk again", image=b"no image", label="a"),
    ]
    found = gather([*broken, *_examples(2)], PixelEmbedder(), cache_dir=tmp_path)
    assert [one.id for one in found.examples] == ["0", "1"]
    assert set(found.unreadable) == {"gone", "junk", "junk again"}
    assert len(found.vectors) == len(found.details) == len(found.pixel_hashes) == 2


def test_one_photo_and_none() -> None:
    assert gather(_examples(1), PixelEmbedder()).vectors.shape == (1, 1286)
    assert len(gather([], PixelEmbedder())) == 0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (lambda images: np.full((len(images), 4), np.nan), "NaN or infinity for 0 "),
        (lambda images: np.ones((len(images) + 1, 4)), r"shape \(4, 4\) for 3 images"),
        (lambda images: np.ones(len(images)), r"shape \(3,\)"),
        (lambda images: [["a"] for _ in images], "rows of numbers"),
        (lambda images: np.ones((len(images), len(images))), "several lengths"),
    ],
)
def test_what_a_function_gets_wrong_is_said(rows: Any, message: str) -> None:
    with pytest.raises(EmbeddingError, match=message):
        gather(_examples(), _Raw(rows))
    with pytest.raises(EmbeddingError, match=message):
        gather(_examples(), FunctionEmbedder(rows))


def test_rows_of_any_length_are_brought_to_norm_one() -> None:
    found = gather(_examples(4), FunctionEmbedder(lambda images: [[len(data), 5] for data in images], name="sizes"))
    assert np.allclose(np.linalg.norm(found.vectors, axis=1), 1)


class _Raw:
    name = "raw"

    def __init__(self, embed: Any) -> None:
        self.embed = embed

"""Fitted to one domain, an embedder tells its photos apart better."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.leakage.planting import COPIES, jpeg_bytes, scene
from vlm_tune.embedding import AdaptedEmbedder, FunctionEmbedder, PixelEmbedder, adapt
from vlm_tune.errors import EmbeddingError
from vlm_tune.images import decode
from vlm_tune.records import Example

SIZE = (100, 76)


def thumbnails(images: Sequence[bytes]) -> NDArray[np.float64]:
    """Grey levels of a small picture: an embedding for which all scenes look alike."""
    small = [decode(data).convert("L").resize((12, 9), Image.Resampling.BOX) for data in images]
    return np.stack([np.asarray(image, float).ravel() for image in small])


@pytest.fixture(scope="module")
def train() -> list[Example]:
    return [Example(id=f"{i}", image=jpeg_bytes(scene(i, size=SIZE)), label="a") for i in range(60)]


@pytest.fixture(scope="module")
def adapted(train: list[Example]) -> AdaptedEmbedder:
    return FunctionEmbedder(thumbnails, name="thumbnails").adapt(train)


def test_originals_stand_out_from_other_photos(train: list[Example], adapted: AdaptedEmbedder) -> None:
    copies = [jpeg_bytes(COPIES["cropped"](scene(i, size=SIZE))) for i in range(60)]

    def margin(embedder: AdaptedEmbedder | FunctionEmbedder) -> float:
        scores = embedder.embed(copies) @ embedder.embed([one.read() for one in train]).T
        others = np.where(np.eye(60, dtype=bool), -1, scores)
        return float(np.median(scores.diagonal() - others.max(axis=1)))

    assert margin(adapted) > margin(FunctionEmbedder(thumbnails)) + 0.2


def test_rows_have_norm_one(train: list[Example], adapted: AdaptedEmbedder) -> None:
    rows = adapted.embed([train[0].read(), train[1].read()])
    assert rows.dtype == np.float32
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_the_same_photos_give_the_same_projection_under_its_own_name(train: list[Example]) -> None:
    one, again, other = (adapt(FunctionEmbedder(thumbnails, name="t"), train[:20], seed=seed) for seed in (0, 0, 1))
    assert one.name == "t, adapted"
    assert one.fingerprint == again.fingerprint != other.fingerprint
    assert one.fingerprint is not None
    assert one.fingerprint.startswith("t, adapted ")


def test_what_the_embedder_says_of_itself_is_kept(train: list[Example]) -> None:
    assert PixelEmbedder().adapt(train[:16], num_views=1).mirror_invariant
    unnamed = FunctionEmbedder(thumbnails).adapt(train[:16])
    assert not unnamed.mirror_invariant
    assert unnamed.fingerprint is None


def test_a_handful_of_photos_is_too_few(train: list[Example]) -> None:
    with pytest.raises(EmbeddingError, match="at least 16"):
        PixelEmbedder().adapt(train[:15])

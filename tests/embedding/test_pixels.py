"""The weight-free embedder puts copies first."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ImageOps

from tests.leakage.planting import COPIES, jpeg_bytes, png_bytes, scene
from vlm_tune.embedding import PixelEmbedder
from vlm_tune.errors import ImageError
from vlm_tune.images import blank
from vlm_tune.leakage.neighbours import centred

Array = NDArray[np.float32]


def test_rows_have_norm_one_and_do_not_depend_on_their_company() -> None:
    images = [jpeg_bytes(scene(i)) for i in range(5)]
    together = PixelEmbedder().embed(images)
    assert together.dtype == np.float32
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    assert np.array_equal(together[3:4], PixelEmbedder().embed(images[3:4]))


def test_nothing_gives_nothing() -> None:
    assert PixelEmbedder().embed([]).shape == (0, PixelEmbedder().embed([blank(32, 32)]).shape[1])


def test_mirroring_changes_next_to_nothing() -> None:
    photo = scene(0)
    one, other, another = PixelEmbedder().embed([png_bytes(p) for p in (photo, ImageOps.mirror(photo), scene(1))])
    assert one @ other > 0.9
    assert one @ other > 5 * (1 - one @ other) + one @ another


@pytest.fixture(scope="module")
def photos() -> Array:
    """Embeddings of sixty photos; read only."""
    return PixelEmbedder().embed([jpeg_bytes(scene(i)) for i in range(60)])


@pytest.mark.parametrize("how", [how for how in COPIES if how not in ("bordered",)])
def test_a_copy_is_among_the_nearest(photos: Array, how: str) -> None:
    copy = PixelEmbedder().embed([jpeg_bytes(COPIES[how](scene(17)))])
    mean = photos.mean(axis=0)
    scores = centred(copy, mean)[0] @ centred(photos, mean).T
    assert (scores > scores[17]).sum() < 5


def test_what_is_no_image_is_refused() -> None:
    with pytest.raises(ImageError):
        PixelEmbedder().embed([b"no image"])

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vlm_tune.images.pixels import fit, foreign_profile, orientation, upright_rgb


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 5000))
def test_a_fitted_size_is_within_the_budget_and_never_empty(width: int, height: int, budget: int) -> None:
    fitted = fit(Image.new("L", (width, height)), budget)
    assert 1 <= fitted.width * fitted.height <= budget
    assert fitted.width <= width
    assert fitted.height <= height


def test_what_fits_is_the_same_object() -> None:
    image = Image.new("RGB", (10, 10))
    assert fit(image, 100) is image


def test_the_result_is_a_new_image_without_metadata() -> None:
    image = Image.new("RGB", (3, 2), (1, 2, 3))
    image.info["comment"] = b"Alice"
    result = upright_rgb(image)
    assert result is not image
    assert result.info == {}
    assert np.array_equal(np.asarray(result), np.asarray(image))


def test_integers_beyond_sixteen_bits_have_no_known_range() -> None:
    with pytest.raises(ValueError, match="outside 0 to 65535"):
        upright_rgb(Image.fromarray(np.full((2, 2), 70_000, dtype=np.int32)))
    with pytest.raises(ValueError, match="outside 0 to 1"):
        upright_rgb(Image.fromarray(np.full((2, 2), np.nan, dtype=np.float32)))


def test_an_image_without_exif_or_profile_is_plain() -> None:
    file = io.BytesIO()
    Image.new("RGB", (3, 2)).save(file, "PNG")
    with Image.open(file) as image:
        assert orientation(image) == 1
        assert foreign_profile(image) is None

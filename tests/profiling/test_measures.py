from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from tests.profiling.conftest import encoded
from vlm_tune.errors import ImageError
from vlm_tune.profiling.measures import WORKING_SIZE, measure


def grey(light: np.ndarray) -> bytes:
    return encoded(Image.fromarray(np.rint(light * 255).clip(0, 255).astype(np.uint8)))


def blurred_edge(sigma: float, *, height: float = 0.8) -> np.ndarray:
    across = np.arange(-200, 200) + 0.5
    return np.tile(0.1 + height / 2 * (1 + np.array([math.erf(x / (sigma * math.sqrt(2))) for x in across])), (400, 1))


def test_light_is_the_luma_of_bt_601() -> None:
    found = measure(encoded(Image.new("RGB", (30, 20), (200, 100, 50))))
    assert found.brightness == pytest.approx((0.299 * 200 + 0.587 * 100 + 0.114 * 50) / 255, abs=0.003)
    assert (found.width, found.height, found.format) == (30, 20, "PNG")
    assert found.contrast == 0


def test_half_black_half_white() -> None:
    found = measure(grey(np.tile(np.repeat([0.0, 1.0], 50), (100, 1))))
    assert (found.brightness, found.contrast) == (pytest.approx(0.5), pytest.approx(0.5))
    assert (found.darkest, found.brightest) == (0, 1)
    # Only the blocks that the edge runs through show anything.
    assert 0 < found.detail < 0.1


@pytest.mark.parametrize("sigma", [1.5, 3.0, 5.0])
def test_the_sharpness_of_a_blurred_edge_is_the_formula(sigma: float) -> None:
    # The Laplacian of an edge under a Gaussian is the Gaussian's derivative: the ratio of the two is 1 / (sqrt(2) s).
    assert measure(grey(blurred_edge(sigma))).sharpness == pytest.approx(1 / (math.sqrt(2) * sigma), rel=0.15)


def test_sharpness_does_not_depend_on_contrast() -> None:
    strong, weak = (measure(grey(blurred_edge(3, height=height))) for height in (0.8, 0.4))
    assert weak.contrast < 0.6 * strong.contrast
    assert weak.sharpness == pytest.approx(strong.sharpness, rel=0.15)


def test_blur_lowers_sharpness_at_any_size() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    for size in ((900, 700), (WORKING_SIZE, 400), (120, 90)):
        sharp = Image.fromarray(noise).resize(size, Image.Resampling.NEAREST)
        soft = sharp.filter(ImageFilter.GaussianBlur(max(size) / 100))
        assert measure(encoded(soft)).sharpness < 0.75 * measure(encoded(sharp)).sharpness


@pytest.mark.parametrize("size", [(1, 1), (2, 500), (500, 2), (3, 3), (5000, 2)])
def test_any_shape_can_be_measured(size: tuple[int, int]) -> None:
    found = measure(encoded(Image.new("L", size, 128)))
    assert (found.width, found.height) == size
    assert (found.sharpness, found.detail, found.contrast) == (0, 0, 0)


def test_size_is_that_of_the_upright_photo() -> None:
    image = Image.new("RGB", (40, 30))
    exif = image.getexif()
    exif[0x0112] = 6
    file = io.BytesIO()
    image.save(file, "JPEG", exif=exif)
    found = measure(file.getvalue())
    assert (found.width, found.height) == (30, 40)


def test_what_does_not_decode_is_an_error_with_its_name() -> None:
    with pytest.raises(ImageError, match=r"torn\.png"):
        measure(grey(np.random.default_rng(0).random((50, 50)))[:-300], name="torn.png")


@pytest.mark.data
def test_real_photos_lose_sharpness_when_they_are_blurred(test_data: Path) -> None:
    files = (
        sorted((test_data / "grocery_small/test").rglob("*.jpg"))[::40]
        + sorted((test_data / "neu_det").rglob("*.jpg"))[::60]
    )
    from vlm_tune.profiling.tags import tags_of
    from vlm_tune.records import Example

    sharp, soft = {}, {}
    for file in files:
        with Image.open(file) as image:
            blurred = image.convert("RGB").filter(ImageFilter.GaussianBlur(max(image.size) / 100))
        sharp[file.name], soft[file.name] = measure(file.read_bytes()), measure(encoded(blurred))
    examples = [Example(id=file.name, image=file, label="a") for file in files]
    assert len(tags_of(examples, sharp, ())["blurry"]) <= 0.05 * len(files)
    tags = tags_of(examples, soft, ())
    assert len({*tags["blurry"], *tags["empty"]}) >= 0.9 * len(files)

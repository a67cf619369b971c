from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vlm_tune.images.containers import is_lossless_webp, plain_jpeg, plain_png


def photo() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8))


def saved(image: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def segment(marker: int, payload: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(payload) + 2).to_bytes(2, "big") + payload


def markers(jpeg: bytes) -> list[int]:
    """The markers before the first scan."""
    found, position = [], 2
    while jpeg[position + 1] != 0xDA:
        found.append(jpeg[position + 1])
        position += 2 + int.from_bytes(jpeg[position + 2 : position + 4], "big")
    return found


class TestJpeg:
    def test_every_application_segment_but_jfif_and_adobe_goes(self) -> None:
        source = saved(photo(), "JPEG")
        extra = b"".join(segment(0xE0 + n, b"secret %d" % n) for n in range(1, 16)) + segment(0xFE, b"secret")
        adobe = segment(0xEE, b"Adobe\0\x64\0\0\0\0\1")
        loaded = source[:20] + extra + adobe + b"\xff" + source[20:]
        result = plain_jpeg(loaded)
        assert result == source[:20] + adobe + source[20:]
        assert markers(result)[:2] == [0xE0, 0xEE]

    def test_the_colour_transform_of_an_adobe_jpeg_survives(self) -> None:
        source = saved(photo(), "JPEG", keep_rgb=True, quality=95)
        result = plain_jpeg(source)
        assert result is not None
        with Image.open(io.BytesIO(source)) as before, Image.open(io.BytesIO(result)) as after:
            assert np.array_equal(np.asarray(before), np.asarray(after))

    def test_the_preview_inside_the_jfif_header_goes(self) -> None:
        source = saved(photo(), "JPEG")
        preview = segment(0xE0, source[6:18] + b"\2\2" + b"pixel bytes!")
        assert plain_jpeg(source[:2] + preview + source[20:]) == source

    def test_a_comment_between_two_scans_goes(self) -> None:
        source = saved(photo(), "JPEG", progressive=True)
        second = source.index(b"\xff\xc4", source.index(b"\xff\xda"))
        assert plain_jpeg(source[:second] + segment(0xFE, b"secret") + source[second:]) == source

    @given(st.binary(max_size=200))
    def test_other_bytes_give_none(self, data: bytes) -> None:
        assert plain_jpeg(b"\xff\xd8" + data) is None or b"\xff\xd9" in data

    @given(st.integers(0, 2000))
    def test_a_torn_jpeg_gives_none(self, length: int) -> None:
        source = saved(photo(), "JPEG")
        assert plain_jpeg(source[: min(length, len(source) - 2)]) is None


class TestPng:
    def test_only_header_palette_and_pixels_stay(self) -> None:
        source = saved(photo().quantize(16), "PNG", dpi=(72, 72), transparency=3)
        result = plain_png(source)
        assert result is not None
        assert [kind for kind in (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"pHYs", b"tRNS") if kind in result] == [
            b"IHDR",
            b"PLTE",
            b"IDAT",
            b"IEND",
        ]

    def test_sixteen_bits_are_left_to_the_decoder(self) -> None:
        assert plain_png(saved(Image.fromarray(np.zeros((4, 4), dtype=np.uint16)), "PNG")) is None

    @given(st.binary(max_size=100))
    def test_other_bytes_give_none(self, data: bytes) -> None:
        assert plain_png(b"\x89PNG\r\n\x1a\n" + data) is None

    @given(st.integers(0, 2000))
    def test_a_torn_png_gives_none(self, length: int) -> None:
        source = saved(photo(), "PNG")
        assert plain_png(source[: min(length, len(source) - 12)]) is None


@pytest.mark.parametrize("lossless", [True, False])
def test_a_webp_says_how_it_was_made(lossless: bool) -> None:
    profile = b"a profile of odd length"
    frames = [photo(), photo().rotate(90)]
    assert is_lossless_webp(saved(photo(), "WEBP", lossless=lossless)) is lossless
    assert is_lossless_webp(saved(photo(), "WEBP", lossless=lossless, icc_profile=profile)) is lossless
    animated = saved(frames[0], "WEBP", lossless=lossless, save_all=True, append_images=frames[1:])
    assert is_lossless_webp(animated) is lossless
    assert is_lossless_webp(b"RIFF") is False

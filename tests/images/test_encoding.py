from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile

from vlm_tune.errors import ImageError
from vlm_tune.images import blank, data_uri, decode, encode, probe, shown, thumbnail

BUDGET = 1_048_576
QUADRANTS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255))


def quadrants(width: int = 64, height: int = 32) -> Image.Image:
    """Red and green on top, blue and white below: any turn or flip shows."""
    image = Image.new("RGB", (width, height))
    for place, colour in enumerate(QUADRANTS):
        left, top = place % 2 * width // 2, place // 2 * height // 2
        image.paste(colour, (left, top, left + width // 2, top + height // 2))
    return image


def noise(width: int = 48, height: int = 40, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def saved(image: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def pixels(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def exif(**tags: object) -> Image.Exif:
    names = {"orientation": 0x0112, "software": 0x0131}
    block = Image.Exif()
    for name, value in tags.items():
        block[names[name]] = value
    return block


def png_claiming(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", len(header)) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    body = zlib.compress(b"\0" * 100)
    data = struct.pack(">I", len(body)) + b"IDAT" + body + struct.pack(">I", zlib.crc32(b"IDAT" + body))
    return b"\x89PNG\r\n\x1a\n" + chunk + data + b"\0\0\0\0IEND" + struct.pack(">I", zlib.crc32(b"IEND"))


def swapped_profile() -> bytes:
    """A colour profile like sRGB (gamma 2.2), except that its red is green and its green red."""

    def xyz(*values: float) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(value * 65_536)) for value in values)

    name = b"Swapped\0"
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(2.2 * 256)) + b"\0\0"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(name)) + name + b"\0" * 78,
        b"cprt": b"text\0\0\0\0none\0",
        b"wtpt": xyz(0.9642, 1.0, 0.8249),
        b"gXYZ": xyz(0.4361, 0.2225, 0.0139),
        b"rXYZ": xyz(0.3851, 0.7169, 0.0971),
        b"bXYZ": xyz(0.1431, 0.0606, 0.7141),
        b"rTRC": curve,
        b"gTRC": curve,
        b"bTRC": curve,
    }
    table, body = struct.pack(">I", len(tags)), b""
    for key, value in tags.items():
        table += key + struct.pack(">II", 128 + 4 + 12 * len(tags) + len(body), len(value))
        body += value + b"\0" * (-len(value) % 4)
    head = struct.pack(
        ">I4sI4s4s4s", 132 + 12 * len(tags) + len(body), b"\0" * 4, 0x02100000, b"mntr", b"RGB ", b"XYZ "
    )
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + b"\0" * 28 + xyz(0.9642, 1.0, 0.8249)[8:]
    return head.ljust(128, b"\0") + table + body


class TestPassThrough:
    @pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"quality": 30}])
    def test_a_jpeg_keeps_its_pixels_and_loses_its_metadata(self, options: dict[str, object]) -> None:
        source = saved(noise(), "JPEG", exif=exif(software="SecretCam"), comment=b"by Alice", **options)
        result = encode(source, max_pixels=BUDGET)
        assert result.mime == "image/jpeg"
        assert np.array_equal(pixels(result.data), pixels(source))
        assert b"SecretCam" not in result.data
        assert b"Alice" not in result.data
        assert len(result.data) < len(source)

    def test_what_follows_a_jpeg_is_dropped(self) -> None:
        source = saved(noise(), "JPEG")
        assert encode(source + b"trailing secret", max_pixels=BUDGET).data == source

    def test_of_a_phones_double_picture_only_the_first_stays(self) -> None:
        source = saved(noise(), "MPO", save_all=True, append_images=[noise(seed=1)])
        result = encode(source, max_pixels=BUDGET)
        assert probe(source).format == "JPEG"
        assert np.array_equal(pixels(result.data), pixels(source))
        assert len(result.data) < 0.6 * len(source)

    def test_a_grey_jpeg_stays_as_it_is(self) -> None:
        source = saved(noise().convert("L"), "JPEG")
        assert encode(source, max_pixels=BUDGET).data == source
        assert decode(source).mode == "RGB"

    def test_a_png_keeps_its_pixels_and_loses_its_text(self) -> None:
        from PIL.PngImagePlugin import PngInfo

        text = PngInfo()
        text.add_text("Author", "Alice")
        result = encode(saved(noise(), "PNG", pnginfo=text, dpi=(72, 72)), max_pixels=BUDGET)
        assert result.mime == "image/png"
        assert b"Alice" not in result.data
        assert np.array_equal(pixels(result.data), np.asarray(noise()))

    def test_encoding_again_changes_nothing(self) -> None:
        for source in (saved(noise(), "JPEG"), saved(noise(), "PNG"), saved(noise(), "BMP")):
            once = encode(source, max_pixels=BUDGET)
            assert encode(once.data, max_pixels=BUDGET) == once

    def test_the_hash_is_that_of_the_bytes(self) -> None:
        import hashlib

        result = encode(blank(3, 2), max_pixels=BUDGET)
        assert result.sha256 == hashlib.sha256(result.data).hexdigest()


class TestShown:
    """A photo as predictors see it is what the encoded photo decodes to, however it comes about."""

    @pytest.mark.parametrize("max_pixels", [BUDGET, 700])
    @pytest.mark.parametrize("format, options", [
        ("JPEG", {}),
        ("JPEG", {"exif": exif(orientation=6)}),
        ("JPEG", {"icc_profile": swapped_profile()}),
        ("PNG", {}),
        ("PNG", {"exif": exif(orientation=3)}),
        ("WEBP", {"quality": 70}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
    ])  # fmt: skip
    def test_it_is_the_encoded_photo_decoded(self, format: str, options: dict[str, object], max_pixels: int) -> None:
        source = saved(noise(), format, **options)
        assert np.array_equal(
            np.asarray(shown(source, max_pixels=max_pixels)), pixels(encode(source, max_pixels=max_pixels).data)
        )

    @pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA", "I;16"])
    def test_in_every_mode(self, mode: str) -> None:
        source = saved(noise().convert("L").convert(mode), "PNG")
        assert np.array_equal(
            np.asarray(shown(source, max_pixels=BUDGET)), pixels(encode(source, max_pixels=BUDGET).data)
        )

    def test_a_plain_photo_is_decoded_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        source, loaded = saved(noise(), "JPEG"), []
        load = ImageFile.ImageFile.load
        monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: loaded.append(image.tile) or load(image))
        shown(source, max_pixels=BUDGET)
        assert sum(map(bool, loaded)) == 1


class TestOrientation:
    @pytest.mark.parametrize("orientation", range(2, 9))
    @pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
    def test_the_picture_is_upright_and_the_tag_is_gone(self, format: str, orientation: int) -> None:
        from PIL import ImageOps

        options = {"lossless": True} if format == "WEBP" else {"quality": 95} if format == "JPEG" else {}
        source = saved(quadrants(), format, exif=exif(orientation=orientation), **options)
        with Image.open(io.BytesIO(source)) as image:
            expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB")).astype(int)
        result = encode(source, max_pixels=BUDGET)
        assert np.abs(pixels(result.data).astype(int) - expected).mean() < 3
        assert (result.width, result.height) == decode(source).size == (expected.shape[1], expected.shape[0])
        with Image.open(io.BytesIO(result.data)) as image:
            assert 0x0112 not in image.getexif()

    @pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
    def test_the_header_gives_the_upright_size(self, format: str) -> None:
        info = probe(saved(quadrants(), format, exif=exif(orientation=6)))
        assert (info.width, info.height) == (32, 64)

    def test_a_nonsense_orientation_means_upright(self) -> None:
        source = saved(noise(), "JPEG", exif=exif(orientation=77))
        assert np.array_equal(pixels(encode(source, max_pixels=BUDGET).data), pixels(source))

    def test_a_torn_exif_block_neither_warns_nor_fails(self) -> None:
        block = exif(orientation=6, software="x" * 200).tobytes()[:40]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert encode(saved(noise(), "JPEG", exif=block), max_pixels=BUDGET).mime == "image/jpeg"


class TestModes:
    def test_sixteen_bit_grey_is_scaled_not_clipped(self) -> None:
        ramp = np.linspace(0, 65_535, 256).round().astype(np.uint16)[None, :].repeat(4, axis=0)
        for format in ("PNG", "TIFF"):
            result = decode(saved(Image.fromarray(ramp), format))
            assert np.array_equal(np.asarray(result)[0, :, 0], np.arange(256))
            assert encode(saved(Image.fromarray(ramp), format), max_pixels=BUDGET).mime == "image/png"

    def test_sixteen_bit_colour_is_scaled_too(self) -> None:
        import cv2

        values = np.zeros((4, 256, 3), dtype=np.uint16)
        values[..., 2] = np.arange(256) * 257
        for ending in (".png", ".tiff"):
            source = cv2.imencode(ending, values)[1].tobytes()
            result = encode(source, max_pixels=BUDGET)
            assert np.array_equal(pixels(result.data)[0, :, 0], np.arange(256)), ending
            assert result.data[24] == 8

    def test_floats_from_zero_to_one_are_scaled_and_others_refused(self) -> None:
        ramp = np.linspace(0, 1, 256, dtype=np.float32)[None, :]
        assert np.array_equal(np.asarray(decode(saved(Image.fromarray(ramp), "TIFF")))[0, :, 0], np.arange(256))
        with pytest.raises(ImageError, match="outside 0 to 1"):
            decode(saved(Image.fromarray(ramp * 7), "TIFF"))

    def test_cmyk_becomes_rgb(self) -> None:
        source = saved(quadrants().convert("CMYK"), "JPEG", quality=95)
        result = encode(source, max_pixels=BUDGET)
        with Image.open(io.BytesIO(result.data)) as image:
            assert image.mode == "RGB"
        assert np.abs(pixels(result.data).astype(int) - np.asarray(quadrants()).astype(int)).mean() < 8

    def test_a_palette_shows_its_colours(self) -> None:
        source = saved(quadrants().quantize(8), "PNG")
        assert np.array_equal(pixels(encode(source, max_pixels=BUDGET).data), np.asarray(quadrants()))

    @pytest.mark.parametrize("transparency", [0, b"\0\xff\xff\xff"])
    def test_a_transparent_palette_is_laid_on_white(self, transparency: int | bytes) -> None:
        image = Image.new("P", (4, 4), 0)
        image.putpalette([200, 0, 0, 0, 0, 200])
        image.paste(1, (0, 0, 2, 4))
        result = pixels(encode(saved(image, "PNG", transparency=transparency), max_pixels=BUDGET).data)
        assert tuple(result[0, 3]) == (255, 255, 255)
        assert tuple(result[0, 0]) == (0, 0, 200)

    @pytest.mark.parametrize("mode", ["RGBA", "LA"])
    def test_half_transparent_black_is_mid_grey(self, mode: str) -> None:
        source = saved(Image.new("RGBA", (4, 4), (0, 0, 0, 128)).convert(mode), "PNG")
        assert abs(int(pixels(encode(source, max_pixels=BUDGET).data)[0, 0, 0]) - 127) <= 1

    @pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16"])
    def test_every_png_mode_decodes_to_rgb(self, mode: str) -> None:
        source = saved(noise().convert("L").convert(mode) if mode != "RGB" else noise(), "PNG")
        assert decode(encode(source, max_pixels=BUDGET).data).mode == "RGB"

    @pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
    def test_an_animation_gives_its_first_frame(self, format: str) -> None:
        frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
        options = {"lossless": True} if format == "WEBP" else {}
        source = saved(frames[0], format, save_all=True, append_images=frames[1:], duration=100, **options)
        result = encode(source, max_pixels=BUDGET)
        assert result.mime == "image/png"
        assert tuple(pixels(result.data)[8, 8]) == (255, 0, 0)
        with Image.open(io.BytesIO(result.data)) as image:
            assert getattr(image, "n_frames", 1) == 1

    @pytest.mark.parametrize("format", ["PNG", "JPEG"])
    def test_another_colour_space_is_converted_to_srgb(self, format: str) -> None:
        options = {"quality": 95} if format == "JPEG" else {}
        image = Image.new("RGB", (16, 16), (0, 200, 0))
        result = encode(saved(image, format, icc_profile=swapped_profile(), **options), max_pixels=BUDGET)
        red, green, blue = map(int, pixels(result.data)[8, 8])
        assert abs(red - 200) <= 6
        assert max(green, blue) <= 12
        with Image.open(io.BytesIO(result.data)) as written:
            assert "icc_profile" not in written.info

    def test_an_srgb_profile_changes_nothing(self) -> None:
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        source = saved(noise(), "JPEG", icc_profile=profile)
        result = encode(source, max_pixels=BUDGET)
        assert np.array_equal(pixels(result.data), pixels(source))
        assert profile not in result.data

    def test_a_broken_profile_is_ignored(self) -> None:
        source = saved(noise(), "PNG", icc_profile=b"not a profile")
        assert np.array_equal(np.asarray(decode(source)), np.asarray(noise()))

    def test_lossy_and_lossless_sources_stay_what_they_were(self) -> None:
        big = noise(80, 80)
        lossy = [saved(big, "JPEG"), saved(big, "WEBP")]
        lossless = [
            saved(big, "PNG"),
            saved(big, "BMP"),
            saved(big, "TIFF"),
            saved(big, "WEBP", lossless=True),
        ]
        assert {encode(source, max_pixels=1000).mime for source in lossy} == {"image/jpeg"}
        assert {encode(source, max_pixels=1000).mime for source in lossless} == {"image/png"}


class TestBudget:
    @settings(max_examples=60, deadline=None)
    @given(st.integers(1, 400), st.integers(1, 400), st.integers(1, 50_000))
    def test_a_photo_never_exceeds_the_budget_and_keeps_its_shape(self, width: int, height: int, budget: int) -> None:
        result = encode(blank(width, height), max_pixels=budget)
        assert result.width * result.height <= budget
        assert (result.width, result.height) == decode(result.data).size
        if width * height <= budget:
            assert (result.width, result.height) == (width, height)
        elif min(result.width, result.height) >= 20:
            assert result.width / result.height == pytest.approx(width / height, rel=0.06)
            assert result.width * result.height > 0.9 * budget

    def test_shrinking_averages(self) -> None:
        board = np.indices((200, 200)).sum(axis=0) % 2 * 255
        source = saved(Image.fromarray(board.astype(np.uint8)).convert("RGB"), "PNG")
        assert np.abs(pixels(encode(source, max_pixels=400).data).astype(int) - 127).max() < 20


BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "zero-byte": (lambda: b"", "empty"),
    "text": (lambda: b"<html>not found</html>", "none of the formats"),
    "truncated jpeg": (lambda: saved(noise(400, 400), "JPEG")[:20_000], "truncated or corrupt"),
    "truncated png": (lambda: saved(noise(400, 400), "PNG")[:20_000], "truncated or corrupt"),
    "truncated webp": (lambda: saved(noise(400, 400), "WEBP")[:9_000], "corrupt"),
    "truncated gif": (lambda: saved(noise(400, 400), "GIF")[:9_000], "truncated or corrupt"),
    "header only": (lambda: saved(noise(), "JPEG")[:4], "corrupt"),
    "garbled png": (lambda: saved(noise(), "PNG").replace(b"IDAT", b"IDAT" + b"\0" * 40), "corrupt"),
    "enormous": (lambda: png_claiming(50_000, 50_000), "100 megapixels"),
    "large enough for a warning only": (lambda: png_claiming(11_000, 10_000), "100 megapixels"),
    "an svg": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', "none of the formats"),
    "postscript": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "none of the formats"),
}


class TestBadFiles:
    @pytest.mark.parametrize("kind", BAD)
    def test_each_is_refused_by_name(self, kind: str, tmp_path: Path) -> None:
        make, reason = BAD[kind]
        file = tmp_path / "photo.jpg"
        file.write_bytes(make())
        with pytest.raises(ImageError, match=reason) as caught:
            encode(file, max_pixels=BUDGET)
        assert str(file) in str(caught.value)
        with pytest.raises(ImageError, match=reason):
            thumbnail(file)
        with pytest.raises(ImageError, match=f"photo seven.*{reason}"):
            decode(make(), name="photo seven")

    def test_a_bomb_is_refused_before_its_pixels_take_memory(self) -> None:
        import tracemalloc

        tracemalloc.start()
        for size in ((50_000, 50_000), (10_100, 10_000)):
            with pytest.raises(ImageError, match=f"{size[0]} x {size[1]}|pixels"):
                probe(png_claiming(*size))
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
        tracemalloc.stop()

    def test_just_under_the_limit_the_header_reads_without_a_warning(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert probe(png_claiming(9_999, 10_000)).width == 9_999

    def test_a_missing_file_and_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match="No such file"):
            encode(tmp_path / "gone.png", max_pixels=BUDGET)
        with pytest.raises(ImageError, match="directory"):
            probe(tmp_path)

    @settings(max_examples=150, deadline=None)
    @given(st.data())
    def test_flipped_bytes_never_escape_as_another_error(self, data: st.DataObject) -> None:
        format = data.draw(st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"]))
        source = bytearray(saved(noise(24, 24), format))
        for _ in range(data.draw(st.integers(1, 6))):
            source[data.draw(st.integers(0, len(source) - 1))] = data.draw(st.integers(0, 255))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                result = encode(bytes(source), max_pixels=BUDGET)
            except ImageError:
                return
        assert decode(result.data).size == (result.width, result.height)


class TestSmallHelpers:
    def test_a_thumbnail_is_small_upright_and_plain(self) -> None:
        source = saved(quadrants(640, 320), "JPEG", exif=exif(orientation=6, software="SecretCam"))
        small = thumbnail(source, size=100)
        info = probe(small)
        assert (info.width, info.height, info.format) == (50, 100, "JPEG")
        assert b"SecretCam" not in small

    def test_a_data_uri_round_trips(self) -> None:
        import base64

        uri = data_uri(b"\x00\xffbytes", "image/png")
        assert uri.startswith("data:image/png;base64,")
        assert base64.b64decode(uri.partition(",")[2]) == b"\x00\xffbytes"

    def test_a_blank_shows_nothing(self) -> None:
        assert set(pixels(blank(30, 20)).flat) == {128}
        assert probe(blank(30, 20)).width == 30

    def test_the_header_is_read_as_it_is(self) -> None:
        source = saved(noise().convert("CMYK"), "JPEG")
        info = probe(source)
        assert (info.width, info.height, info.format, info.mode) == (48, 40, "JPEG", "CMYK")
        assert info.num_bytes == len(source)


@pytest.mark.data
class TestRealPhotos:
    def test_the_formats_of_one_photo_agree(self, test_data: Path) -> None:
        folder = test_data / "near_duplicates" / "formats_images"
        reference = decode((folder / "ukbench09380.jpeg").read_bytes())
        for ending in ("bmp", "png", "webp"):
            photo = decode((folder / f"ukbench09380.{ending}").read_bytes())
            assert photo.size == reference.size
            assert np.abs(np.asarray(photo).astype(int) - np.asarray(reference).astype(int)).mean() < 4

    def test_the_corrupt_photo_is_refused(self, test_data: Path) -> None:
        with pytest.raises(ImageError, match="corrupt"):
            encode(test_data / "near_duplicates/mixed_images/ukbench09268_corrupt.jpg", max_pixels=BUDGET)

    def test_camera_jpegs_keep_their_pixels(self, test_data: Path) -> None:
        files = sorted((test_data / "near_duplicates" / "base_images").glob("*.jpg"))
        upright = [file for file in files if file.name != "ukbench09268.jpg"]
        assert len(upright) == 9
        for file in upright:
            result = encode(file, max_pixels=BUDGET)
            assert np.array_equal(pixels(result.data), pixels(file.read_bytes()))
            assert b"Exif" not in result.data

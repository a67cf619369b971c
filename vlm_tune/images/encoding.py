"""Reading any photo, and writing the one byte string that every predictor gets for it.

Two ways lead to that byte string. A JPEG or PNG that is already as it should be passes through with its
compressed pixels untouched and everything else (EXIF, GPS, comments, previews) dropped. Anything else is
decoded, turned upright, brought to 8-bit RGB on white, shrunk if it is over the budget and encoded again:
photos that were lossy as JPEG (quality 95, 4:4:4), others as PNG.
"""

from __future__ import annotations

import base64
import hashlib
import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from vlm_tune.errors import ImageError
from vlm_tune.images.containers import is_lossless_webp, plain_jpeg, plain_png
from vlm_tune.images.pixels import fit, foreign_profile, orientation, upright_rgb

__all__ = [
    "EXTENSIONS",
    "EncodedImage",
    "ImageInfo",
    "blank",
    "data_uri",
    "decode",
    "encode",
    "probe",
    "thumbnail",
]

EXTENSIONS = frozenset(
    {".apng", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp"}
)
"""File name endings, in lower case, that readers take for images."""

# Pillow knows some fifty formats; these are the ones photos come in, and none of them runs a program.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
_MAX_SOURCE_PIXELS = 100_000_000
_QUALITY = 95
# Pillow warns about harmless slips in a header; silencing that swaps process-wide state, so one at a time.
_header_lock = threading.Lock()


@dataclass(frozen=True)
class EncodedImage:
    """One encoded photo, ready to be sent or decoded.

    Attributes:
        data: The encoded bytes, without metadata.
        mime: `image/jpeg` or `image/png`.
        width: Width in pixels.
        height: Height in pixels.
    """

    data: bytes
    mime: str
    width: int
    height: int

    @cached_property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of `data`: what a predictor's answer depends on."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class ImageInfo:
    """What an image's header says.

    Attributes:
        width: Width in pixels, once upright.
        height: Height in pixels, once upright.
        format: `JPEG`, `PNG`, `WEBP`, `GIF`, `BMP` or `TIFF`.
        mode: Pillow's name of the pixel format, such as `RGB`, `L`, `P`, `CMYK` or `I;16`.
        num_bytes: Size of the encoded image.
    """

    width: int
    height: int
    format: str
    mode: str
    num_bytes: int


def encode(source: Path | bytes, *, max_pixels: int) -> EncodedImage:
    """Return the byte string that every predictor gets for a photo.

    The result is upright, decodes to 8-bit RGB (a grey JPEG may stay grey inside the file), has at most
    `max_pixels` pixels (shrunk with a Lanczos filter when it had more) and carries no metadata. Transparency
    is laid on white, 16-bit values are divided by 257, an animation gives its first frame, and an embedded
    colour profile other than sRGB is converted to sRGB.

    Args:
        source: Path of an encoded image, or its bytes.
        max_pixels: Largest width x height of the result.

    Raises:
        ImageError: The image is missing, empty, truncated, corrupt, of an unknown format, or larger than 100
            megapixels (refused before any pixel is decoded).

    Examples:
        >>> encode(blank(640, 480), max_pixels=76_800).width
        320
    """
    data, name = _read(source)
    with _opened(data, name) as image:
        image.load()
        width, height = image.size
        if width * height <= max_pixels and (plain := _plain(image, data)) is not None:
            return EncodedImage(plain, f"image/{_format(image).lower()}", width, height)
        lossy = _is_lossy(image, data)
        return _write(fit(upright_rgb(image), max_pixels), lossy=lossy)


def shown(source: Path | bytes, *, max_pixels: int) -> Image.Image:
    """Return a photo as every predictor sees it: what `encode` makes of it, decoded, at the price of one decoding.

    Args:
        source: Path of an encoded image, or its bytes.
        max_pixels: Largest width x height of the result.

    Raises:
        ImageError: As for `encode`.

    Examples:
        >>> shown(blank(640, 480), max_pixels=76_800).size
        (320, 240)
    """
    data, name = _read(source)
    with _opened(data, name) as image:
        image.load()
        if image.width * image.height <= max_pixels and _plain(image, data) is not None:
            return upright_rgb(image)
    return decode(encode(source, max_pixels=max_pixels).data)


def decode(data: bytes, *, name: str = "image bytes") -> Image.Image:
    """Decode an image of any supported kind to upright 8-bit RGB.

    Args:
        data: The encoded bytes.
        name: What errors call the image.

    Raises:
        ImageError: As for `encode`.

    Examples:
        >>> decode(blank(4, 3)).size
        (4, 3)
    """
    with _opened(data, name) as image:
        image.load()
        return upright_rgb(image)


def probe(source: Path | bytes) -> ImageInfo:
    """Read an image's header; no pixel is decoded.

    Raises:
        ImageError: The header cannot be read, or claims more than 100 megapixels.

    Examples:
        >>> probe(blank(4, 3)).format
        'PNG'
    """
    data, name = _read(source)
    with _opened(data, name) as image:
        width, height = image.size
        # Pillow gives the size of a rotated TIFF upright already.
        if orientation(image) >= 5:
            width, height = height, width
        return ImageInfo(width, height, _format(image), image.mode, len(data))


def thumbnail(source: Path | bytes, *, size: int = 160) -> bytes:
    """Return a small upright JPEG whose longer side is at most `size` pixels.

    Raises:
        ImageError: As for `encode`.
    """
    data, name = _read(source)
    with _opened(data, name) as image:
        # A JPEG decodes at a fraction of its size, several times faster; the rest ignores this.
        image.draft(None, (2 * size, 2 * size))
        image.load()
        small = upright_rgb(image)
    small.thumbnail((size, size), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=85)
    return file.getvalue()


def data_uri(data: bytes, mime: str) -> str:
    """Return encoded bytes as a `data:` URI, for a self-contained page.

    Examples:
        >>> data_uri(b"hi", "image/png")
        'data:image/png;base64,aGk='
    """
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"


def blank(width: int, height: int) -> bytes:
    """Return a mid-grey PNG of the given size in pixels: a photo with nothing to see."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), (128, 128, 128)).save(file, "PNG")
    return file.getvalue()


def _read(source: Path | bytes) -> tuple[bytes, str]:
    if isinstance(source, bytes):
        return source, "image bytes"
    try:
        return source.read_bytes(), str(source)
    except OSError as error:
        raise ImageError(source, error.strerror or str(error)) from error


@contextmanager
def _opened(data: bytes, name: str) -> Iterator[Image.Image]:
    """Yield an image whose header was read and whose size is sane; any failure inside is an `ImageError`."""
    if not data:
        raise ImageError(name, "it is empty (0 bytes)")
    try:
        with _header(data) as image:
            width, height = image.size
            if width * height > _MAX_SOURCE_PIXELS:
                raise Image.DecompressionBombError(f"its header claims {width} x {height} pixels")
            yield image
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        limit = _MAX_SOURCE_PIXELS // 1_000_000
        raise ImageError(name, f"{error}; the limit is {limit} megapixels, shrink it first") from error
    except UnidentifiedImageError as error:
        known = ", ".join(_FORMATS)
        raise ImageError(name, f"it is corrupt, or none of the formats {known}") from error
    except Exception as error:  # Pillow's readers raise almost anything on hostile bytes
        raise ImageError(name, f"it is truncated or corrupt ({error})") from error


def _header(data: bytes) -> Image.Image:
    with _header_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
        orientation(image)  # parses the EXIF block, which Pillow then keeps
        return image


def _format(image: Image.Image) -> str:
    # An MPO file is a JPEG followed by more of them (a phone's depth or gain map).
    return "JPEG" if image.format == "MPO" else str(image.format)


def _plain(image: Image.Image, data: bytes) -> bytes | None:
    """Return the image without its metadata and with its compressed pixels untouched, if that is enough."""
    if orientation(image) != 1 or image.has_transparency_data or foreign_profile(image) is not None:
        return None
    if _format(image) == "JPEG" and image.mode in ("RGB", "L"):
        return plain_jpeg(data)
    if image.format == "PNG" and image.mode in ("RGB", "L", "P"):
        return plain_png(data)
    return None


def _is_lossy(image: Image.Image, data: bytes) -> bool:
    return _format(image) == "JPEG" or (image.format == "WEBP" and not is_lossless_webp(data))


def _write(image: Image.Image, *, lossy: bool) -> EncodedImage:
    file = io.BytesIO()
    if lossy:
        image.save(file, "JPEG", quality=_QUALITY, subsampling="4:4:4")
    else:
        image.save(file, "PNG", compress_level=1)
    return EncodedImage(file.getvalue(), "image/jpeg" if lossy else "image/png", *image.size)

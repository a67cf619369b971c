"""Pixels brought to one form: upright, 8-bit RGB on white, in sRGB, within a budget."""

from __future__ import annotations

import io
import math

from PIL import Image, ImageCms

__all__ = ["fit", "fitting_size", "foreign_profile", "orientation", "upright_rgb"]

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PROFILE_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}


def upright_rgb(image: Image.Image) -> Image.Image:
    """Return a new image with the EXIF orientation applied, as 8-bit RGB in sRGB and without metadata.

    Transparency is laid on white. 16-bit values are divided by 257, so that their whole range is kept.

    Args:
        image: A loaded image of any mode.

    Raises:
        ValueError: The mode has no RGB form, or its values have no known range.
    """
    flat = _flatten(image)
    profile = foreign_profile(image)
    if profile is not None and flat.mode == _PROFILE_MODES.get(profile.profile.xcolor_space.strip()):
        converted = ImageCms.profileToProfile(flat, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
        flat = flat if converted is None else converted
    rgb = flat if flat.mode == "RGB" else flat.convert("RGB")
    turn = _UPRIGHT.get(orientation(image))
    rgb = rgb.transpose(turn) if turn is not None else rgb
    rgb.info.clear()
    return rgb


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; TIFF files give 1, since Pillow turns them itself."""
    if "exif" not in image.info:
        return 1
    value = image.getexif().get(_ORIENTATION)
    return value if value in _UPRIGHT else 1


def foreign_profile(image: Image.Image) -> ImageCms.ImageCmsProfile | None:
    """Return the embedded colour profile when it is readable and not sRGB."""
    raw = image.info.get("icc_profile")
    if not raw:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(raw))
        description = ImageCms.getProfileDescription(profile)
    except (OSError, ImageCms.PyCMSError):
        return None
    return None if "srgb" in description.lower() else profile


def fit(image: Image.Image, max_pixels: int) -> Image.Image:
    """Return the image with at most `max_pixels` pixels, its shape kept as nearly as whole pixels allow."""
    size = fitting_size(*image.size, max_pixels=max_pixels)
    return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)


def fitting_size(width: int, height: int, *, max_pixels: int) -> tuple[int, int]:
    """Return the width and height that `fit` gives an image of a size in pixels.

    Examples:
        >>> fitting_size(4000, 3000, max_pixels=1_048_576)
        (1182, 886)
    """
    if width * height <= max_pixels:
        return width, height
    scale = math.sqrt(max_pixels / (width * height))
    new_width = min(max(1, int(width * scale)), max_pixels)
    return new_width, min(max(1, int(height * scale)), max_pixels // new_width)


def _flatten(image: Image.Image) -> Image.Image:
    """Return the pixels as 8-bit `L`, `RGB` or `CMYK` without transparency."""
    if image.mode.startswith(("I", "F")):
        return _eight_bits(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(rgba, mask=rgba.getchannel("A"))
        return white
    return image.copy() if image.mode in ("L", "RGB", "CMYK") else image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    import numpy as np

    values = np.asarray(image).astype(np.float64)
    top = 1.0 if image.mode == "F" else 65_535.0
    if not (values.min() >= 0 and values.max() <= top):
        raise ValueError(f"mode {image.mode} with values outside 0 to {top:g}; convert it to 8 or 16 bits")
    return Image.fromarray(np.rint(values * (255.0 / top)).astype(np.uint8))

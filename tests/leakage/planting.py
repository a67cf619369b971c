"""Photos to verify: textures without any camera, and copies made from them."""

from __future__ import annotations

import io
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

Copy = Callable[[Image.Image], Image.Image]


def scene(seed: int, *, size: tuple[int, int] = (200, 150), texture: float = 18, grain: float = 2) -> Image.Image:
    """Smooth shading that all scenes share, texture of their own, and sensor noise."""
    rng = np.random.default_rng(seed)
    across, down = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
    shading = 90 + 60 * across + 30 * np.sin(3 * down)
    field = cv2.GaussianBlur(rng.standard_normal(shading.shape), (0, 0), 2)
    pixels = shading + texture * field / (field.std() + 1e-9) + grain * rng.standard_normal(shading.shape)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).convert("RGB")


def jpeg(image: Image.Image, quality: int = 85) -> Image.Image:
    """The image after it was saved as a JPEG."""
    return Image.open(io.BytesIO(jpeg_bytes(image, quality))).convert("RGB")


def jpeg_bytes(image: Image.Image, quality: int = 90) -> bytes:
    """The image as a JPEG."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def png_bytes(image: Image.Image) -> bytes:
    """The image as a PNG."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def cropped(share: float) -> Copy:
    """Cut a share of the width and height off, unevenly."""

    def crop(image: Image.Image) -> Image.Image:
        width, height = image.size
        left, top = share * 0.7 * width, share * 0.2 * height
        return image.crop(
            (round(left), round(top), round(left + (1 - share) * width), round(top + (1 - share) * height))
        )

    return crop


def resized(factor: float) -> Copy:
    """Change the size."""
    return lambda image: image.resize(
        (round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC
    )


def captioned(image: Image.Image) -> Image.Image:
    """Write on a black band over the lowest eighth."""
    marked = image.copy()
    draw, top = ImageDraw.Draw(marked), round(image.height * 7 / 8)
    draw.rectangle((0, top, image.width, image.height), fill="black")
    draw.text((4, top), "No. 1234 / camera 5", fill="white")
    return marked


COPIES: dict[str, Copy] = {
    "re-encoded": lambda image: jpeg(image, 40),
    "smaller": lambda image: jpeg(resized(0.6)(image)),
    "larger": lambda image: jpeg(resized(1.5)(image)),
    "cropped": lambda image: jpeg(cropped(0.1)(image)),
    "heavily cropped": lambda image: jpeg(cropped(0.25)(image)),
    "mirrored": lambda image: jpeg(ImageOps.mirror(image)),
    "brightened": lambda image: jpeg(ImageEnhance.Brightness(image).enhance(1.25)),
    "darkened": lambda image: jpeg(ImageEnhance.Brightness(image).enhance(0.75)),
    "turned": lambda image: jpeg(image.rotate(4, Image.Resampling.BICUBIC)),
    "quarter turn": lambda image: jpeg(image.transpose(Image.Transpose.ROTATE_90)),
    "grey": lambda image: jpeg(ImageOps.grayscale(image).convert("RGB")),
    "bordered": lambda image: jpeg(ImageOps.expand(image, 12, "black")),
    "all at once": lambda image: jpeg(
        ImageEnhance.Brightness(ImageOps.mirror(resized(0.8)(cropped(0.1)(image)))).enhance(1.15), 60
    ),
}

HARDER: dict[str, Copy] = {
    "colour cast": lambda image: jpeg(Image.blend(image, Image.new("RGB", image.size, (255, 150, 60)), 0.2)),
    "bordered in white": lambda image: jpeg(ImageOps.expand(image, 16, "white")),
    "captioned": lambda image: jpeg(captioned(image)),
    "blurred": lambda image: jpeg(image.filter(ImageFilter.GaussianBlur(0.01 * image.width))),
}


def as_array(image: Image.Image) -> NDArray[np.uint8]:
    """Grey levels of an image."""
    return np.asarray(image.convert("L"), np.uint8)

"""What people do to a photo before it comes back as another file."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

__all__ = ["FAMILIES", "SINGLES", "Transformation", "copy_of", "random_pair"]

Change = Callable[[Image.Image, np.random.Generator], Image.Image]

QUALITY = 90
"""JPEG quality of a copy that is not about JPEG."""


@dataclass(frozen=True)
class Transformation:
    """One way to make a copy.

    Attributes:
        name: As the tables call it.
        family: Transformations of one family are never paired with each other.
        change: Makes the changed photo; random choices come from the generator.
        quality: JPEG quality of the copy.
        pooled: Whether it counts in the pooled recall and is drawn for pairs.
    """

    name: str
    family: str
    change: Change
    quality: int = QUALITY
    pooled: bool = True


def copy_of(image: Image.Image, steps: Sequence[Transformation], rng: np.random.Generator) -> bytes:
    """Apply transformations one after the other and encode the result once, as a JPEG."""
    for step in steps:
        image = step.change(image, rng)
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=min(step.quality for step in steps))
    return file.getvalue()


def random_pair(rng: np.random.Generator) -> tuple[Transformation, Transformation]:
    """Draw two transformations of two families; every family and order is equally likely."""
    families = [sorted(FAMILIES)[i] for i in rng.choice(len(FAMILIES), size=2, replace=False)]
    first, second = (FAMILIES[name][rng.integers(len(FAMILIES[name]))] for name in families)
    return first, second


def _same(image: Image.Image, _rng: np.random.Generator) -> Image.Image:
    return image


def _resize(factor: float) -> Change:
    def change(image: Image.Image, _rng: np.random.Generator) -> Image.Image:
        size = max(1, round(image.width * factor)), max(1, round(image.height * factor))
        return image.resize(size, Image.Resampling.BICUBIC)

    return change


def _crop(side: float) -> Change:
    """Keep this share of the width and of the height, anywhere."""

    def change(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        width, height = round(side * image.width), round(side * image.height)
        left, top = rng.integers(image.width - width + 1), rng.integers(image.height - height + 1)
        return image.crop((int(left), int(top), int(left) + width, int(top) + height))

    return change


def _turn(*, mirrored_corners: bool) -> Change:
    """Rotate by 1 to 5 degrees either way; the corners become black, or continue the photo mirrored."""

    def change(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        angle = float(rng.uniform(1, 5) * rng.choice((-1, 1)))
        if not mirrored_corners:
            return image.rotate(angle, Image.Resampling.BICUBIC)
        margin = max(image.size) // 8 + 1
        pixels = np.pad(np.asarray(image), ((margin, margin), (margin, margin), (0, 0)), mode="reflect")
        turned = Image.fromarray(pixels).rotate(angle, Image.Resampling.BICUBIC)
        return turned.crop((margin, margin, margin + image.width, margin + image.height))

    return change


def _cast(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    gains = rng.permutation([0.8, 1.0, 1.2])
    return Image.fromarray(np.clip(np.asarray(image, np.float32) * gains, 0, 255).astype(np.uint8))


def _border(colour: str) -> Change:
    def change(image: Image.Image, _rng: np.random.Generator) -> Image.Image:
        return ImageOps.expand(image, max(1, round(0.08 * max(image.size))), colour)

    return change


def _caption(*, below: bool) -> Change:
    """Write a line of white text on a black band, over the lowest eighth of the photo or below it."""

    def change(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        band = max(3, round(image.height / 8))
        canvas = Image.new("RGB", (image.width, image.height + (band if below else 0)))
        canvas.paste(image)
        top = canvas.height - band
        draw = ImageDraw.Draw(canvas)
        draw.rectangle((0, top, image.width, canvas.height), fill="black")
        text = f"No. {rng.integers(10_000)} / camera {rng.integers(9)}"
        draw.text((2, top), text, fill="white", font=ImageFont.load_default(max(3, 0.7 * band)))
        return canvas

    return change


def _blur(share: float) -> Change:
    """Blur with a Gaussian whose sigma is this share of the longer side."""
    return lambda image, _rng: image.filter(ImageFilter.GaussianBlur(share * max(image.size)))


def _brightness(factor: float) -> Change:
    return lambda image, _rng: ImageEnhance.Brightness(image).enhance(factor)


def _contrast(factor: float) -> Change:
    return lambda image, _rng: ImageEnhance.Contrast(image).enhance(factor)


SINGLES: tuple[Transformation, ...] = (
    *(Transformation(f"JPEG quality {quality}", "jpeg", _same, quality) for quality in (30, 50, 75, 95)),
    *(Transformation(f"resized x{factor:g}", "size", _resize(factor)) for factor in (0.5, 0.7, 1.4, 2.0)),
    Transformation("crop, 80 % of the area", "crop", _crop(0.8**0.5)),
    Transformation("crop, 60 % of the area", "crop", _crop(0.6**0.5)),
    Transformation("crop, 80 % of each side (64 % area)", "crop", _crop(0.8), pooled=False),
    Transformation("crop, 60 % of each side (36 % area)", "crop", _crop(0.6), pooled=False),
    Transformation("mirrored", "mirror", lambda image, _rng: ImageOps.mirror(image)),
    Transformation("turned 1-5°, black corners", "turn", _turn(mirrored_corners=False)),
    Transformation("turned 1-5°, filled corners", "turn", _turn(mirrored_corners=True)),
    Transformation("brightness +25 %", "exposure", _brightness(1.25)),
    Transformation("brightness -25 %", "exposure", _brightness(0.75)),
    Transformation("contrast +25 %", "exposure", _contrast(1.25)),
    Transformation("contrast -25 %", "exposure", _contrast(0.75)),
    Transformation("grey", "colour", lambda image, _rng: ImageOps.grayscale(image).convert("RGB")),
    Transformation("colour cast ±20 %", "colour", _cast),
    Transformation("black border, 8 %", "border", _border("black")),
    Transformation("white border, 8 %", "border", _border("white")),
    Transformation("caption over the photo", "caption", _caption(below=False)),
    Transformation("caption below the photo", "caption", _caption(below=True)),
    Transformation("blur, sigma 0.5 % of the side", "blur", _blur(0.005)),
    Transformation("blur, sigma 1 % of the side", "blur", _blur(0.01)),
)

FAMILIES: dict[str, tuple[Transformation, ...]] = {
    family: tuple(one for one in SINGLES if one.family == family and one.pooled)
    for family in dict.fromkeys(one.family for one in SINGLES)
}

"""The camera of the synthetic photos: exposure, blur, noise, JPEG, and second copies of a finished photo."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlm_tune.demo.surface import Array

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Retake:
    """How a near-duplicate was made from a photo, in this order.

    Attributes:
        crop: Share of the width or height cut off at the left, top, right and bottom.
        flipped: Whether left and right were exchanged.
        contrast: Factor on every pixel value.
        brightness: Offset added after that, in grey levels.
        scale: Factor on width and height.
        quality: JPEG quality it was saved at again.
    """

    crop: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    flipped: bool = False
    contrast: float = 1.0
    brightness: float = 0.0
    scale: float = 1.0
    quality: int = 75

    @property
    def steps(self) -> tuple[str, ...]:
        """What was done, in words: some of `cropped`, `flipped`, `brightened`, `re-encoded`."""
        changed = {
            "cropped": any(self.crop),
            "flipped": self.flipped,
            "brightened": (self.contrast, self.brightness) != (1.0, 0.0),
        }
        return (*(step for step, was_done in changed.items() if was_done), "re-encoded")


def develop(picture: Array, rng: np.random.Generator, *, size: tuple[int, int], grain: float, blur: float) -> Pixels:
    """Photograph a linear RGB picture.

    Args:
        picture: Linear light, shape (height, width, 3).
        rng: The only source of chance.
        size: Width and height of the photo in pixels.
        grain: Mean standard deviation of the sensor noise, in grey levels.
        blur: Largest blur, as the sigma of a Gaussian in photo pixels.

    Returns:
        8-bit sRGB pixels, shape (size[1], size[0], 3).
    """
    import cv2

    exposure = rng.uniform(0.85, 1.2) * (0.3 / max(float(picture.mean()), 0.03)) ** 0.3
    balance = rng.normal(1, 0.04, 3)
    bright = picture * (exposure * balance).astype(np.float32)
    photo = np.asarray(cv2.resize(bright, size, interpolation=cv2.INTER_AREA), np.float32)
    photo = np.asarray(cv2.GaussianBlur(photo, (0, 0), float(rng.uniform(0.2, max(blur, 0.25)))), np.float32)
    width, height = size
    across, down = np.linspace(-1, 1, width), np.linspace(-1, 1, height)[:, None]
    photo *= (1 - rng.uniform(0, 0.2) * (across**2 + down**2))[..., None].astype(np.float32)
    grey = (1.15 - 1.15 * np.exp(-1.5 * np.maximum(photo, 0))) ** (1 / 2.2)
    steep = rng.uniform(0.2, 0.6)
    grey = 255 * ((1 - steep) * grey + steep * grey**2 * (3 - 2 * grey))
    noise = np.float32(grain * rng.uniform(0.4, 1.6)) * rng.standard_normal(grey.shape, np.float32)
    noise[..., 1:] = 0.7 * noise[..., :1] + 0.4 * noise[..., 1:]
    return np.clip(np.round(grey + noise), 0, 255).astype(np.uint8)


def retake(jpeg: bytes, how: Retake) -> bytes:
    """Make a near-duplicate of an encoded photo."""
    import cv2

    pixels = decode(jpeg)
    height, width = pixels.shape[:2]
    left, top, right, bottom = how.crop
    pixels = pixels[
        round(top * height) : height - round(bottom * height),
        round(left * width) : width - round(right * width),
    ]
    if how.flipped:
        pixels = pixels[:, ::-1]
    changed = np.clip(pixels * how.contrast + how.brightness, 0, 255).astype(np.uint8)
    size = round(changed.shape[1] * how.scale), round(changed.shape[0] * how.scale)
    return encode(np.asarray(cv2.resize(changed, size, interpolation=cv2.INTER_AREA), np.uint8), how.quality)


def encode(pixels: Pixels, quality: int) -> bytes:
    """Save 8-bit RGB pixels as a JPEG without metadata."""
    import cv2

    _, data = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return data.tobytes()


def decode(jpeg: bytes) -> Pixels:
    """Read a JPEG that `encode` wrote as 8-bit RGB pixels, shape (height, width, 3)."""
    import cv2

    return np.asarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR), np.uint8)[..., ::-1]

"""Drawn changes done to decoded photos, by torchvision's functions: no draw is made here, so threads may share it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageFilter

from vlm_tune.training.augmenting.drawing import Change, Mix

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Photo = NDArray[np.uint8]

__all__ = ["changed", "mixed"]

_GREY = [128, 128, 128]
"""What is seen where a turned or shifted photo leaves a corner empty."""


def changed(photo: Photo, changes: tuple[Change, ...]) -> Photo:
    """Return a photo with changes made to it, of the same size.

    Args:
        photo: Bytes of shape (height, width, 3); not written to.
        changes: What to do, in order.
    """
    import numpy as np

    if not changes:
        return photo
    image = Image.fromarray(photo)
    for change in changes:
        image = _done(image, change)
    return np.asarray(image)


def mixed(photo: Photo, other: Photo, mix: Mix) -> Photo:
    """Return two photos as one, of the first one's size.

    Args:
        photo: Bytes of shape (height, width, 3).
        other: The same of another photo; one of another size is resized to the first's.
        mix: How.
    """
    import numpy as np

    height, width, _ = photo.shape
    if other.shape != photo.shape:
        other = np.asarray(_resized(Image.fromarray(other), width, height))
    if mix.centre is None:
        share = np.float32(mix.share(width, height))
        return np.rint(photo * share + other * (1 - share)).astype(np.uint8)
    left, top, right, bottom = mix.box(width, height)
    both = photo.copy()
    both[top:bottom, left:right] = other[top:bottom, left:right]
    return both


def _done(image: Image.Image, change: Change) -> Image.Image:
    from torchvision.transforms.v2 import functional

    name, values = change.name, change.values
    if name == "crop":
        return _cropped(image, *values)
    if name == "flip":
        return _image(functional.horizontal_flip(image))
    if name == "blur":
        # Pillow's takes the same time for every width; torchvision's grows with its square.
        return image.filter(ImageFilter.GaussianBlur(values[0] * min(image.size)))
    if name in ("brightness", "contrast", "saturation", "sharpness"):
        return _image(getattr(functional, f"adjust_{name}")(image, values[0]))
    if name == "posterize":
        return _image(functional.posterize(image, 8 - round(values[0])))
    if name == "solarize":
        return _image(functional.solarize(image, 255 * (1 - values[0])))
    if name in ("autocontrast", "equalize"):
        return _image(getattr(functional, name)(image))
    return image if name == "identity" else _moved(image, name, values[0])


def _moved(image: Image.Image, name: str, value: float) -> Image.Image:
    from torchvision.transforms.v2 import InterpolationMode, functional

    angle, translate, shear = 0.0, [0, 0], [0.0, 0.0]
    if name == "rotate":
        angle = value
    elif name.startswith("translate"):
        axis = int(name.endswith("y"))
        translate[axis] = round(value * image.size[axis])
    else:
        shear[int(name.endswith("y"))] = math.degrees(math.atan(value))
    return _image(
        functional.affine(
            image,
            angle=angle,
            translate=translate,
            scale=1.0,
            shear=shear,
            interpolation=InterpolationMode.BILINEAR,
            fill=_GREY,
        )
    )


def _cropped(image: Image.Image, left: float, top: float, width: float, height: float) -> Image.Image:
    from torchvision.transforms.v2 import functional

    all_columns, all_rows = image.size
    columns, rows = max(1, round(width * all_columns)), max(1, round(height * all_rows))
    x, y = min(round(left * all_columns), all_columns - columns), min(round(top * all_rows), all_rows - rows)
    return _image(functional.resized_crop(image, y, x, rows, columns, [all_rows, all_columns], antialias=True))


def _resized(image: Image.Image, width: int, height: int) -> Image.Image:
    from torchvision.transforms.v2 import functional

    return _image(functional.resize(image, [height, width], antialias=True))


def _image(made: Any) -> Image.Image:
    image: Image.Image = made
    return image

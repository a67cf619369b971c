"""Images as every predictor gets them: one byte string per photo, upright, RGB, within the budget."""

from vlm_tune.images.encoding import (
    EXTENSIONS,
    EncodedImage,
    ImageInfo,
    blank,
    data_uri,
    decode,
    encode,
    probe,
    shown,
    thumbnail,
)

__all__ = [
    "EXTENSIONS",
    "EncodedImage",
    "ImageInfo",
    "blank",
    "data_uri",
    "decode",
    "encode",
    "probe",
    "shown",
    "thumbnail",
]

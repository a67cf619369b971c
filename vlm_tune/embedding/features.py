"""Local features of a photo, and what they become when it is mirrored."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["MIRROR", "even_contrast", "sift"]

Array = NDArray[np.float32]

MIRROR: NDArray[np.intp] = np.array(
    [((3 - row) * 4 + column) * 8 + (8 - angle) % 8 for row in range(4) for column in range(4) for angle in range(8)]
)
"""Order of a SIFT descriptor's 128 entries after its photo is mirrored.

A descriptor is drawn in the frame of its feature's orientation, which mirrors with the photo: the four rows
across that direction change places, and every angle changes sign.
"""


def sift(grey: NDArray[np.uint8], *, limit: int) -> tuple[Array, Array]:
    """Find local features.

    Args:
        grey: Grey levels, shape (height, width).
        limit: Largest number of features; the most contrasted stay.

    Returns:
        Positions (n, 2) as x and y in pixels, and RootSIFT descriptors (n, 128) of norm 1
        (R. Arandjelovic and A. Zisserman, CVPR 2012).
    """
    import cv2

    # Small photos have their detail in few pixels; twice the size gives them features.
    zoom = 2 if max(grey.shape) < 160 else 1
    even = even_contrast(grey)
    if zoom > 1:
        even = np.asarray(cv2.resize(even, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC))
    detector = cv2.SIFT.create(nfeatures=limit, contrastThreshold=0.01, edgeThreshold=12)
    features, descriptors = detector.detectAndCompute(even, None)
    if descriptors is None or not len(features):
        return np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32)
    points = (np.array([feature.pt for feature in features], np.float32) + 0.5) / zoom - 0.5
    shares = descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-6)
    return points.astype(np.float32), np.sqrt(shares).astype(np.float32)


def even_contrast(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Stretch the contrast to the full range, up to eightfold, so that brightness and haze do not matter."""
    low, high = np.percentile(grey, (1, 99))
    gain = min(8.0, 255 / max(float(high - low), 1.0))
    return np.asarray(np.clip((grey.astype(np.float32) - low) * gain, 0, 255), np.uint8)

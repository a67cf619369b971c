"""Local features of a photo, and what they become when it is mirrored."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["LANDMARKS", "MIRROR", "even_contrast", "landmarks", "shrink", "sift", "trimmed"]

Array = NDArray[np.float32]

LANDMARKS = 64
"""Features of a photo that `landmarks` returns at most."""

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
    points, _, descriptors = _detect(grey, limit=limit, contrast=0.01, edge=12)
    return points, descriptors


def landmarks(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Describe the most telling features all over a photo, for finding where they come back.

    Uniform borders are cut off first. Then each cell of a 4 x 4 grid gives its features in turn, those of
    great contrast and size first: so neither a caption nor one busy corner has all of them.

    Args:
        grey: Grey levels, shape (height, width).

    Returns:
        RootSIFT descriptors times 512 (greater values are cut off at 255), best first, shape (n, 128), n <= 64.
    """
    small = shrink(trimmed(shrink(grey, 384)), 192)
    points, strength, descriptors = _detect(small, limit=800, contrast=0.005, edge=15)
    across, down = (np.clip(points[:, axis] * 4 / small.shape[1 - axis], 0, 3).astype(int) for axis in (0, 1))
    order = np.argsort(-strength, kind="stable")
    turn = np.zeros(len(order), np.int64)
    for cell in range(16):
        here = order[(4 * down + across)[order] == cell]
        turn[here] = np.arange(len(here))
    chosen = np.lexsort((-strength, turn))[:LANDMARKS]
    return np.clip(np.rint(512 * descriptors[chosen]), 0, 255).astype(np.uint8)


def trimmed(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Cut off outer rows and columns of one grey level, up to a third of each side."""

    def num_flat(lines: NDArray[np.uint8]) -> int:
        low, high = np.percentile(lines[: len(lines) // 3], (2, 98), axis=1)
        busy = np.flatnonzero(high - low >= 12)
        return int(busy[0]) if len(busy) else len(low)

    if min(grey.shape) < 3:
        return grey
    rows = grey[num_flat(grey) : len(grey) - num_flat(grey[::-1])].T
    inner = rows[num_flat(rows) : len(rows) - num_flat(rows[::-1])].T
    return inner if min(inner.shape) >= 16 else grey


def shrink(grey: NDArray[np.uint8], longest: int) -> NDArray[np.uint8]:
    """Make a photo smaller until its longer side has a length, in pixels; a smaller one stays as it is."""
    import cv2

    factor = longest / max(grey.shape)
    if factor >= 1:
        return grey
    size = max(1, round(grey.shape[1] * factor)), max(1, round(grey.shape[0] * factor))
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.uint8)


def even_contrast(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Stretch the contrast to the full range, up to eightfold, so that brightness and haze do not matter."""
    low, high = np.percentile(grey, (1, 99))
    gain = min(8.0, 255 / max(float(high - low), 1.0))
    return np.asarray(np.clip((grey.astype(np.float32) - low) * gain, 0, 255), np.uint8)


def _detect(grey: NDArray[np.uint8], *, limit: int, contrast: float, edge: float) -> tuple[Array, Array, Array]:
    """Return the positions of features, their contrast times their size, and their RootSIFT descriptors."""
    import cv2

    # Small photos have their detail in few pixels; twice the size gives them features.
    zoom = 2 if max(grey.shape) < 160 else 1
    even = even_contrast(grey)
    if zoom > 1:
        even = np.asarray(cv2.resize(even, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC))
    detector = cv2.SIFT.create(nfeatures=limit, contrastThreshold=contrast, edgeThreshold=edge)
    features, descriptors = detector.detectAndCompute(even, None)
    if descriptors is None or not len(features):
        return np.zeros((0, 2), np.float32), np.zeros(0, np.float32), np.zeros((0, 128), np.float32)
    points = (np.array([feature.pt for feature in features], np.float32) + 0.5) / zoom - 0.5
    strength = np.array([feature.response * feature.size for feature in features], np.float32)
    shares = descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-6)
    return points.astype(np.float32), strength, np.sqrt(shares).astype(np.float32)

"""How one photo may lie on another: features matched in both handednesses, whole frames, and a refinement."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vlm_tune.embedding import MIRROR, sift

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Alignment", "Photo", "alignments", "refined"]

Array = NDArray[np.float32]

SHORT_SIDE, LONG_SIDE = 96, 256
"""Least and greatest length of the longer side at which photos are compared, in pixels."""
MIN_INLIERS = 5
"""Fewer matched features than this fit some transform by chance."""
WITHIN = 3.0
"""Pixels that a matched feature may lie off."""
FRAME_CORRELATION = 0.8
"""Two whole photos must look this much alike before they are laid frame on frame."""


@dataclass(frozen=True)
class Photo:
    """One decoded photo, prepared for comparison.

    Attributes:
        grey: Grey levels 0 to 255, shape (height, width), at most `LONG_SIDE` long.
        shrink: Its size as a share of the original's; above 1 where that is very small.
    """

    grey: NDArray[np.uint8]
    shrink: float

    @classmethod
    def of(cls, image: Image) -> Photo:
        """Prepare a decoded image of any mode."""
        import cv2

        grey = np.asarray(image.convert("L"))
        longest = max(grey.shape)
        scale = min(max(longest, SHORT_SIDE), LONG_SIDE) / longest
        if scale != 1:
            size = max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale))
            how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
            grey = np.asarray(cv2.resize(grey, size, interpolation=how))
        return cls(np.asarray(grey, np.uint8), scale)

    @cached_property
    def features(self) -> tuple[Array, Array]:
        """Positions (n, 2) and descriptors (n, 128) of its local features."""
        return sift(self.grey, limit=300)

    @cached_property
    def frame(self) -> Array:
        """The whole photo as 32 x 32 values of mean 0 and norm 1."""
        import cv2

        small = np.asarray(cv2.resize(self.grey, (32, 32), interpolation=cv2.INTER_AREA), np.float32)
        small -= small.mean()
        return np.asarray(small / (np.linalg.norm(small) + 1e-6), np.float32)

    @cached_property
    def mirrored(self) -> Photo:
        """The photo with left and right exchanged; its features come from the original's."""
        mirror = Photo(np.ascontiguousarray(self.grey[:, ::-1]), self.shrink)
        points, descriptors = self.features
        swapped = np.stack([self.grey.shape[1] - 1 - points[:, 0], points[:, 1]], axis=1)
        mirror.__dict__["features"] = (swapped, descriptors[:, MIRROR])
        return mirror


@dataclass(frozen=True)
class Alignment:
    """A way that one photo may lie on another.

    Attributes:
        matrix: Affine transform of shape (2, 3), pixels of the first photo to pixels of the second.
        inliers: Matched features that it brings together.
        flipped: Whether the first photo is mirrored before.
    """

    matrix: NDArray[np.float64]
    inliers: int
    flipped: bool


def alignments(first: Photo, second: Photo) -> Iterator[Alignment]:
    """Ways the first photo may lie on the second, from both handednesses."""
    for flipped in (False, True):
        source = first.mirrored if flipped else first
        matched = _matches(source, second)
        if (matrix := _fit(*matched)) is not None and (fitting := _witnesses(matrix, *matched)) >= MIN_INLIERS:
            yield Alignment(matrix, fitting, flipped)
        for turns in range(4):
            if float((np.rot90(source.frame, turns) * second.frame).sum()) >= FRAME_CORRELATION:
                matrix = _frame_on_frame(source, second, turns=turns)
                yield Alignment(matrix, _witnesses(matrix, *matched), flipped)


def _matches(first: Photo, second: Photo) -> tuple[Array, Array]:
    """Positions, in both photos, of the features that are each other's clearly nearest; shapes (n, 2)."""
    (points, descriptors), (others, other_descriptors) = first.features, second.features
    if min(len(points), len(others)) < MIN_INLIERS:
        return points[:0], others[:0]
    likeness = descriptors @ other_descriptors.T
    there, back = likeness.argmax(axis=1), likeness.argmax(axis=0)
    rows = np.arange(len(points))
    runner_up = np.partition(likeness, -2, axis=1)[:, -2]
    # Lowe's ratio test on distances; unit vectors have squared distance 2 - 2 cos.
    clear = (1 - likeness[rows, there]) < 0.81 * (1 - runner_up)
    keep = (back[there] == rows) & clear & (likeness[rows, there] > 0.75)
    return points[keep], others[there[keep]]


def _fit(points: Array, others: Array) -> NDArray[np.float64] | None:
    """Fit a similarity transform to matched features, or None where there is none."""
    import cv2

    if len(points) < MIN_INLIERS:
        return None
    matrix, _ = cv2.estimateAffinePartial2D(
        points, others, method=cv2.RANSAC, ransacReprojThreshold=WITHIN, maxIters=1000
    )
    if matrix is None or not 0.2 < math.sqrt(abs(np.linalg.det(matrix[:, :2]))) < 5:
        return None
    return np.asarray(matrix, np.float64)


def _witnesses(matrix: NDArray[np.float64], points: Array, others: Array) -> int:
    """How many matched features a transform brings together."""
    apart = points @ matrix[:, :2].T + matrix[:, 2] - others
    return int((np.hypot(apart[:, 0], apart[:, 1]) <= WITHIN).sum())


def _frame_on_frame(first: Photo, second: Photo, *, turns: int) -> NDArray[np.float64]:
    """Return the transform that lays the first photo, turned to the left so often, on all of the second."""
    (height, width), (other_height, other_width) = first.grey.shape, second.grey.shape
    matrix = np.eye(3)
    for _ in range(turns):
        matrix = np.array([[0, 1, 0], [-1, 0, width - 1], [0, 0, 1.0]]) @ matrix
        width, height = height, width
    across, down = other_width / width, other_height / height
    # Pixel centres sit at half steps.
    return (np.array([[across, 0, (across - 1) / 2], [0, down, (down - 1) / 2], [0, 0, 1]]) @ matrix)[:2]


def refined(first: Photo, second: Photo, alignment: Alignment) -> Alignment | None:
    """Return the alignment of most correlation near one, or None where none is found.

    Args:
        first: The first photo, mirrored where the alignment is `flipped`.
        second: The second photo.
        alignment: Where to begin.
    """
    import cv2

    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 1e-4)
    start = cv2.invertAffineTransform(alignment.matrix).astype(np.float32)
    try:
        _, found = cv2.findTransformECC(
            _outlines(second.grey), _outlines(first.grey), start, cv2.MOTION_AFFINE, criteria, None, 1
        )
    except cv2.error:  # it raises where the photos do not correlate
        return None
    matrix = np.asarray(cv2.invertAffineTransform(np.asarray(found, np.float64)), np.float64)
    return replace(alignment, matrix=matrix)


def _outlines(grey: NDArray[np.uint8]) -> Array:
    """Detail and outlines without shading; a bright caption or border counts no more than an edge."""
    import cv2

    pixels = grey.astype(np.float32)
    band = cv2.GaussianBlur(pixels, (0, 0), 1.0) - cv2.GaussianBlur(pixels, (0, 0), 8.0)
    limit = 3 * float(np.median(np.abs(band))) + 1
    return np.asarray(np.clip(band, -limit, limit), np.float32)

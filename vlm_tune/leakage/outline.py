"""Where two aligned photos show the same: outlines of the overlap on both, and one laid on the other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vlm_tune.leakage.pairs import LeakPair

__all__ = ["Overlay", "Points", "overlay"]

Points = NDArray[np.float64]


class Overlay(NamedTuple):
    """How the first photo of a pair lies on the second; lengths are shares of a photo's width and height.

    Attributes:
        matrix: From the first photo to the second, mirroring included, shape (2, 3).
        first: Corners of what the second photo shows of the first, shape (N, 2).
        second: Corners of the same area on the second photo, shape (N, 2).
    """

    matrix: NDArray[np.float64]
    first: Points
    second: Points


def overlay(pair: LeakPair) -> Overlay | None:
    """Return how the photos of a pair lie on each other, or None where that is not known.

    Examples:
        >>> seen = {"transform": [[1, 0, -50], [0, 1, 0]], "flipped": False, "sizes": [[100, 80], [100, 80]]}
        >>> sides = {"a_id": "a", "a_split": "test", "a_label": "x", "b_id": "b", "b_split": "train", "b_label": "x"}
        >>> overlay(LeakPair(**sides, tier="near_copy", similarity=0.9, evidence=seen)).first[:, 0].tolist()
        [0.5, 1.0, 1.0, 0.5]
    """
    seen = pair.evidence
    if not {"transform", "flipped", "sizes"} <= seen.keys():
        return None
    (width, height), (other_width, other_height) = seen["sizes"]
    pixels = np.vstack([np.asarray(seen["transform"], np.float64), [0, 0, 1]])
    mirror = np.array([[-1.0, 0, width], [0, 1, 0], [0, 0, 1]]) if seen["flipped"] else np.eye(3)
    shares = np.diag([1 / other_width, 1 / other_height, 1]) @ pixels @ mirror @ np.diag([width, height, 1])
    if abs(np.linalg.det(shares)) < 1e-9:
        return None
    frame = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    second = _inside_frame(_moved(frame, shares))
    if len(second) < 3:
        return None
    return Overlay(shares[:2], np.clip(_moved(second, np.linalg.inv(shares)), 0, 1), second)


def _moved(points: Points, matrix: NDArray[np.float64]) -> Points:
    return np.asarray(points @ matrix[:2, :2].T + matrix[:2, 2])


def _inside_frame(corners: Points) -> Points:
    """Cut a convex polygon to the unit square, one edge after the other (Sutherland and Hodgman, 1974)."""
    for axis, keep in ((0, 1.0), (0, -1.0), (1, 1.0), (1, -1.0)):
        limit = 0.0 if keep > 0 else -1.0
        kept: list[NDArray[np.float64]] = []
        for here, there in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            inside, after = keep * here[axis] - limit, keep * there[axis] - limit
            if inside >= 0:
                kept.append(here)
            if (inside >= 0) != (after >= 0):
                kept.append(here + (there - here) * (inside / (inside - after)))
        corners = np.array(kept).reshape(-1, 2)
    return corners

"""An embedding that needs no weights, made for finding copies."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from vlm_tune.embedding.adaptable import Adaptable
from vlm_tune.embedding.features import MIRROR, even_contrast, shrink, sift, trimmed
from vlm_tune.embedding.workers import workers
from vlm_tune.images import decode

__all__ = ["PixelEmbedder"]

Array = NDArray[np.float32]

_NUM_FEATURES = 200
_BAG_SIZE = 512
_LAYOUT_SIDE = 64
_CELLS = 6
_ANGLES = 8
_WAVES = 10


class PixelEmbedder(Adaptable):
    """An embedding without weights, for finding copies: how the photo is laid out, and its local features.

    Uniform borders are cut off first, and contrast is evened out. The layout is the low cosine frequencies of
    brightness and a grid of edge directions. The bag of local features is the mean of random Fourier features
    (A. Rahimi and B. Recht, NIPS 2007) of SIFT descriptors under a narrow Gaussian kernel, so that two photos
    are close as far as they share the very same details, wherever these lie. Mirroring changes nothing. It
    knows nothing of what photos mean.

    Examples:
        >>> from vlm_tune.images import blank
        >>> PixelEmbedder().embed([blank(32, 32), blank(64, 32)]).shape
        (2, 1286)
    """

    name = "pixels"
    fingerprint = "pixels, version 2"
    mirror_invariant = True

    def embed(self, images: Sequence[bytes]) -> Array:
        """Return a row of norm 1 for each encoded image, shape (N, 1286), float32.

        Raises:
            ImageError: An image cannot be decoded.
        """
        with workers() as pool:
            rows = list(pool.map(self._one, images))
        return np.stack(rows) if rows else np.zeros((0, _dimensions()), np.float32)

    def _one(self, data: bytes) -> Array:
        grey = shrink(np.asarray(decode(data).convert("L")), 384)
        grey = even_contrast(shrink(trimmed(grey), 192))
        return _unit(np.concatenate([_symmetric_layout(grey), _bag(sift(grey, limit=_NUM_FEATURES)[1])]))


def _symmetric_layout(grey: NDArray[np.uint8]) -> Array:
    """What a photo's layout has in common with its mirror image's, and how far they differ; norm 1."""
    layout, mirrored = _layout(grey), _layout(np.ascontiguousarray(grey[:, ::-1]))
    return _unit(np.concatenate([layout + mirrored, math.sqrt(2) * np.abs(layout - mirrored)]))


def _layout(grey: NDArray[np.uint8]) -> Array:
    import cv2

    square = cv2.resize(grey, (_LAYOUT_SIDE, _LAYOUT_SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    square = cv2.GaussianBlur(square, (0, 0), 0.8)
    waves = np.asarray(cv2.dct(square)[:_WAVES, :_WAVES].ravel()[1:], np.float32)
    edges = np.concatenate([_cells(plane) for plane in _directions(square)])
    return np.concatenate([0.7 * _unit(waves), _unit(np.sqrt(edges))])


def _directions(square: Array) -> Iterator[Array]:
    """Yield the strength of the edges in each direction, shared out between the two nearest."""
    import cv2

    across, down = cv2.Sobel(square, cv2.CV_32F, 1, 0), cv2.Sobel(square, cv2.CV_32F, 0, 1)
    strength = np.hypot(across, down)
    turn = np.mod(np.arctan2(down, across), 2 * np.pi) * (_ANGLES / (2 * np.pi))
    for angle in range(_ANGLES):
        apart = np.abs(turn - angle)
        yield np.maximum(0, 1 - np.minimum(apart, _ANGLES - apart)) * strength


def _cells(plane: Array) -> Array:
    import cv2

    smooth = cv2.GaussianBlur(plane, (0, 0), 5)
    return np.asarray(cv2.resize(smooth, (_CELLS, _CELLS), interpolation=cv2.INTER_AREA), np.float32).ravel()


def _bag(descriptors: Array) -> Array:
    if not len(descriptors):
        return np.zeros(_BAG_SIZE, np.float32)
    directions, phases = _random_features()
    both = np.concatenate([descriptors, descriptors[:, MIRROR]])
    return _unit(np.cos(both @ directions + phases).sum(axis=0))


@cache
def _random_features() -> tuple[Array, Array]:
    # The kernel's width: RootSIFT descriptors of one spot differ by 0.3, those of two spots by 0.9.
    rng, width = np.random.default_rng(0), 0.25
    directions = rng.standard_normal((128, _BAG_SIZE), np.float32) / np.float32(width)
    return directions, rng.uniform(0, 2 * np.pi, _BAG_SIZE).astype(np.float32)


def _dimensions() -> int:
    return 2 * (_WAVES**2 - 1 + _CELLS**2 * _ANGLES) + _BAG_SIZE


def _unit(vector: Array) -> Array:
    return np.asarray(vector / (np.linalg.norm(vector) + 1e-9), np.float32)

"""Mirrored features are what the mirrored photo has."""

from __future__ import annotations

import numpy as np

from tests.leakage.planting import as_array, scene
from vlm_tune.embedding.features import MIRROR, landmarks, sift, trimmed


def test_mirroring_descriptors_equals_mirroring_the_photo() -> None:
    photo = as_array(scene(0))
    points, descriptors = sift(photo, limit=200)
    others, other_descriptors = sift(np.ascontiguousarray(photo[:, ::-1]), limit=200)
    there = np.linalg.norm(points[:, None] * [-1, 1] + [photo.shape[1] - 1, 0] - others, axis=2)
    near = [(i, j) for i, j in enumerate(there.argmin(axis=1)) if there[i, j] < 0.5]
    assert len(near) > 100
    likeness = [
        float((descriptors[:, MIRROR][i] * other_descriptors[there[i] < 0.5].T.T).sum(axis=1).max()) for i, _ in near
    ]
    assert np.median(likeness) > 0.97


def test_features_of_small_photos_lie_inside_them() -> None:
    points, descriptors = sift(as_array(scene(0, size=(64, 48))), limit=50)
    assert 5 < len(points) <= 60
    assert points.min() > -1
    assert (points.max(axis=0) < [65, 49]).all()
    assert np.allclose(np.linalg.norm(descriptors, axis=1), 1, atol=1e-3)


def test_a_flat_photo_has_none() -> None:
    points, descriptors = sift(np.full((40, 60), 128, np.uint8), limit=50)
    assert points.shape == (0, 2)
    assert descriptors.shape == (0, 128)


def test_uniform_borders_are_cut_off_and_nothing_else() -> None:
    photo = as_array(scene(0))
    framed = np.pad(photo, ((4, 9), (12, 7)), constant_values=250)
    assert np.array_equal(trimmed(framed), photo)
    assert np.array_equal(trimmed(photo), photo)
    flat = np.full((60, 60), 7, np.uint8)
    assert trimmed(flat).shape == (20, 20)
    assert trimmed(flat[:2]).shape == (2, 60)


def test_a_caption_does_not_get_all_landmarks() -> None:
    photo = as_array(scene(1))
    captioned = photo.copy()
    captioned[-38:] = 255 * np.random.default_rng(0).integers(0, 2, (19, 100), np.uint8).repeat(2, 0).repeat(2, 1)
    before, after = (landmarks(one).astype(float) / 512 for one in (photo, captioned))
    assert len(before) == len(after) == 64
    assert ((after @ before.T).max(axis=1) > 0.95).sum() > 24


def test_landmarks_of_a_flat_photo() -> None:
    assert landmarks(np.full((40, 60), 128, np.uint8)).shape == (0, 128)

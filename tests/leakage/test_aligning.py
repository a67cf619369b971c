"""A photo is laid on its copy where it belongs, in the handedness and at the size that it has there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.leakage.planting import scene
from vlm_tune.leakage.aligning import LONG_SIDE, SHORT_SIDE, Photo, alignments, refined

CORNERS = np.array([[20.0, 20.0, 1.0], [90.0, 20.0, 1.0], [20.0, 70.0, 1.0]])


@pytest.mark.parametrize("flipped", [False, True])
def test_a_part_lies_where_it_was_taken_from(flipped: bool) -> None:
    whole = scene(1)
    part = whole.crop((20, 10, 140, 100))
    first = Photo.of(ImageOps.mirror(part) if flipped else part)
    best = max(alignments(first, Photo.of(whole)), key=lambda one: one.inliers)
    assert best.flipped is flipped
    assert best.inliers >= 8
    assert pytest.approx(CORNERS[:, :2] + [20, 10], abs=1.5) == CORNERS @ best.matrix.T


def test_a_rough_alignment_is_refined() -> None:
    photo = Photo.of(scene(1))
    (found, *_) = alignments(photo, photo)
    rough = replace(found, matrix=np.array([[1.01, 0, 1.0], [0, 1, -1.0]]))
    finer = refined(photo, photo, rough)
    assert finer is not None and finer.inliers == found.inliers
    assert pytest.approx(CORNERS[:, :2], abs=0.2) == CORNERS @ finer.matrix.T


def test_nothing_is_laid_on_a_blank() -> None:
    blank = Photo.of(Image.new("RGB", (120, 90), "grey"))
    assert list(alignments(Photo.of(scene(1)), blank)) == []


@pytest.mark.parametrize(("size", "longest"), [((400, 300), LONG_SIDE), ((30, 20), SHORT_SIDE), ((200, 100), 200)])
def test_photos_are_compared_at_a_bounded_size(size: tuple[int, int], longest: int) -> None:
    photo = Photo.of(scene(2, size=size))
    assert max(photo.grey.shape) == longest
    assert photo.shrink == longest / max(size)

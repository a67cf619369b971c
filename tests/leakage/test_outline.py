"""The overlap is drawn where it is: on crops, mirror images, turned photos and shifted frames."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.leakage.planting import cropped, scene
from vlm_tune.leakage import LeakPair
from vlm_tune.leakage.aligning import Photo
from vlm_tune.leakage.outline import overlay
from vlm_tune.leakage.verify import verify


def pair_of(first: Image.Image, second: Image.Image) -> LeakPair:
    proof = verify(Photo.of(first), Photo.of(second))
    assert proof.tier == "near_copy"
    return LeakPair(
        a_id="a", a_split="test", a_label="x", b_id="b", b_split="train", b_label="x", tier=proof.tier,
        similarity=0.9, evidence={**proof.evidence, "sizes": [first.size, second.size]},
    )  # fmt: skip


def box(points: np.ndarray) -> list[float]:
    return [*points.min(axis=0), *points.max(axis=0)]


PHOTO = scene(1, size=(600, 450))


@pytest.mark.parametrize("flip", [False, True])
def test_a_crop_is_outlined_in_its_original(flip: bool) -> None:
    share = 0.25
    crop = cropped(share)(PHOTO)
    found = overlay(pair_of(ImageOps.mirror(crop) if flip else crop, PHOTO))
    assert found is not None
    assert box(found.first) == pytest.approx([0, 0, 1, 1], abs=0.01)
    left, top = share * 0.7, share * 0.2
    assert box(found.second) == pytest.approx([left, top, left + 0.75, top + 0.75], abs=0.01)
    # Laid on the original, the crop's corners are those of the outline.
    corner = found.matrix @ [1.0 if flip else 0.0, 0, 1]
    assert corner == pytest.approx([left, top], abs=0.01)


def test_shifted_frames_share_their_overlap() -> None:
    strip = scene(2, size=(900, 450))
    first, second = strip.crop((0, 0, 600, 450)), strip.crop((240, 0, 840, 450))
    found = overlay(pair_of(first, second))
    assert found is not None
    assert box(found.first) == pytest.approx([0.4, 0, 1, 1], abs=0.01)
    assert box(found.second) == pytest.approx([0, 0, 0.6, 1], abs=0.01)


def test_a_quarter_turn_is_all_overlap() -> None:
    found = overlay(pair_of(PHOTO, PHOTO.transpose(Image.Transpose.ROTATE_90)))
    assert found is not None
    assert box(found.first) == pytest.approx([0, 0, 1, 1], abs=0.02)
    assert box(found.second) == pytest.approx([0, 0, 1, 1], abs=0.02)


def test_without_an_alignment_there_is_nothing_to_draw() -> None:
    known = {"a_id": "a", "a_split": "test", "a_label": "x", "b_id": "b", "b_split": "train", "b_label": "x"}
    assert overlay(LeakPair(**known, tier="identical", similarity=1.0, evidence={"same": "bytes", "count": 2})) is None
    away = {"transform": [[1, 0, 500], [0, 1, 0]], "flipped": False, "sizes": [[100, 80], [100, 80]]}
    assert overlay(LeakPair(**known, tier="same_scene", similarity=1.0, evidence=away)) is None

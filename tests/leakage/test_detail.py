"""Agreement is high for the same detail, near nothing for other detail, whatever the exposure."""

from __future__ import annotations

import numpy as np
import pytest

from tests.leakage.planting import as_array, scene
from vlm_tune.leakage.detail import compare

IDENTITY = np.eye(2, 3)


def test_equal_photos_agree_everywhere() -> None:
    photo = as_array(scene(0))
    agreement = compare(photo, photo, IDENTITY)
    assert agreement is not None
    assert agreement.share == 1
    assert agreement.ncc == pytest.approx(1, abs=1e-3)
    assert agreement.overlap == (1, 1)


def test_other_detail_under_the_same_shading_does_not() -> None:
    agreement = compare(as_array(scene(0)), as_array(scene(1)), IDENTITY)
    assert agreement is not None
    assert agreement.blocks > 40
    assert agreement.share < 0.1
    assert abs(agreement.ncc) < 0.1


def test_what_is_burnt_out_in_one_does_not_count_against_it() -> None:
    photo = as_array(scene(0, texture=30))
    burnt = np.clip(photo.astype(float) * 1.6, 0, 255).astype(np.uint8)
    assert (burnt == 255).mean() > 0.2
    agreement = compare(burnt, photo, IDENTITY)
    assert agreement is not None
    assert agreement.share > 0.95


def test_the_order_only_swaps_the_overlaps() -> None:
    large, shift = as_array(scene(0)), np.array([[1.0, 0, -60], [0, 1, 0]])
    small = large[:, 60:]
    one, other = compare(large, small, shift), compare(small, large, np.array([[1.0, 0, 60], [0, 1, 0]]))
    assert one is not None
    assert other is not None
    assert one.overlap == pytest.approx((0.7, 1), abs=0.01)
    assert other.overlap == pytest.approx(one.overlap[::-1], abs=0.01)


def test_a_common_area_too_small_gives_nothing() -> None:
    photo = as_array(scene(0))
    assert compare(photo, photo, np.array([[1.0, 0, 190], [0, 1, 0]])) is None

"""Agreement is high for the same detail, near nothing for other detail, whatever the exposure."""

from __future__ import annotations

import numpy as np
import pytest

from tests.leakage.planting import as_array, captioned, scene
from vlm_tune.leakage.detail import compare, gives_way

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


def test_a_border_beside_the_common_area_does_not_count_against_it() -> None:
    photo = as_array(scene(0, texture=4))
    bordered = np.pad(photo, 20, constant_values=255)
    agreement = compare(photo, bordered, np.array([[1.0, 0, 20], [0, 1, 20]]))
    assert agreement is not None
    assert agreement.share == 1
    assert agreement.cut == 0


def test_what_covers_an_edge_is_cut_off() -> None:
    photo = as_array(scene(0))
    covered = photo.copy()
    covered[-50:] = as_array(scene(1))[-50:]
    agreement = compare(photo, covered, IDENTITY)
    assert agreement is not None
    assert agreement.share >= 0.9
    assert 0.2 < agreement.cut < 0.5
    assert agreement.overlap == pytest.approx((1 - agreement.cut,) * 2)


def test_stripes_vary_in_one_direction_alone() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (150, 200)).astype(np.uint8)
    stripes = np.tile(noise[:1], (150, 1))
    for photo, least, most in ((noise, 0.8, 1), (stripes, 0, 0.01)):
        agreement = compare(photo, photo, IDENTITY)
        assert agreement is not None
        assert least <= agreement.spread <= most


def test_what_moved_gives_way_and_what_was_painted_over_does_not() -> None:
    photo = as_array(scene(0))
    moved, painted = photo.copy(), photo.copy()
    moved[:70, :-4] = photo[:70, 4:]
    painted[:70] = as_array(scene(1))[:70]
    assert gives_way(photo, photo, IDENTITY) == 0
    assert gives_way(photo, moved, IDENTITY) > 0.3
    assert gives_way(photo, painted, IDENTITY) < 0.1


def test_a_caption_does_not_outvote_the_grain() -> None:
    photo, other = (scene(seed, texture=0, grain=3) for seed in (0, 1))
    agreement = compare(as_array(photo), as_array(captioned(photo)), IDENTITY)
    assert agreement is not None
    assert agreement.grain > 0.9
    assert agreement.share > 0.7
    agreement = compare(as_array(photo), as_array(captioned(other)), IDENTITY)
    assert agreement is not None
    assert agreement.grain < 0.15
    assert agreement.share < 0.2

"""Copies are proved however they were made; photos that merely look alike are not."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from tests.leakage.planting import COPIES, jpeg, scene
from vlm_tune.leakage.verify import Photo, verify


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_is_proved(how: str) -> None:
    original = scene(1)
    proof = verify(Photo.of(COPIES[how](original)), Photo.of(original))
    assert proof.tier == "near_copy"
    assert proof.evidence["flipped"] == (how in ("mirrored", "all at once"))
    assert max(proof.evidence["overlap"]) > 0.85


@pytest.mark.parametrize("seed", range(8))
def test_shared_shading_is_no_proof(seed: int) -> None:
    first, second = scene(2 * seed, texture=4), scene(2 * seed + 1, texture=4)
    assert np.corrcoef(np.asarray(first).ravel(), np.asarray(second).ravel())[0, 1] > 0.9
    assert verify(Photo.of(jpeg(first)), Photo.of(jpeg(second))).tier == "similar_only"


def test_photos_without_texture_are_told_apart_by_their_grain() -> None:
    first, second = scene(0, texture=0), scene(1, texture=0)
    assert verify(Photo.of(jpeg(first, 90)), Photo.of(first)).tier == "near_copy"
    assert verify(Photo.of(jpeg(first, 90)), Photo.of(second)).tier == "similar_only"


def test_photos_without_anything_prove_nothing() -> None:
    flat = Image.new("RGB", (160, 120), (128, 128, 128))
    assert verify(Photo.of(flat), Photo.of(flat)).tier == "similar_only"


def _striped(seed: int) -> Image.Image:
    """A bundle of vertical stripes that all of these photos have, and noise of their own."""
    across = np.arange(200)
    stripes = 25 * np.sin(across / 2.2) * np.exp(-(((across - 80) / 14) ** 2))
    noise = 2.5 * np.random.default_rng(seed).standard_normal((150, 200))
    return Image.fromarray(np.clip(120 + stripes + noise, 0, 255).astype(np.uint8))


@pytest.mark.parametrize("seed", range(5))
def test_stripes_that_fit_each_other_are_no_copies(seed: int) -> None:
    first, second = _striped(2 * seed), _striped(2 * seed + 1)
    assert verify(Photo.of(jpeg(first, 70)), Photo.of(jpeg(second, 70))).tier == "similar_only"
    assert verify(Photo.of(jpeg(first, 90)), Photo.of(first)).tier == "near_copy"


def test_one_object_before_other_backgrounds_is_no_copy() -> None:
    first, second = scene(1), scene(2)
    thing = scene(3).crop((0, 0, 90, 70))
    first.paste(thing, (20, 30))
    second.paste(thing, (90, 60))
    assert verify(Photo.of(jpeg(first)), Photo.of(jpeg(second))).tier == "same_scene"


def test_overlapping_crops_of_one_strip_are_found_with_their_overlap() -> None:
    strip = scene(4, size=(320, 150))
    left, right = strip.crop((0, 0, 200, 150)), strip.crop((100, 0, 300, 150))
    proof = verify(Photo.of(jpeg(left)), Photo.of(jpeg(right)))
    assert proof.tier == "near_copy"
    assert proof.evidence["overlap"] == pytest.approx([0.5, 0.5], abs=0.03)


def test_a_sliver_in_common_is_no_copy() -> None:
    strip = scene(5, size=(400, 150))
    left, right = strip.crop((0, 0, 200, 150)), strip.crop((160, 0, 360, 150))
    assert verify(Photo.of(left), Photo.of(right)).tier in ("same_scene", "similar_only")


def test_the_transform_is_in_pixels_of_the_originals() -> None:
    large = scene(6, size=(800, 600), texture=30).filter(ImageFilter.GaussianBlur(2))
    small = large.crop((200, 120, 760, 540)).resize((280, 210), Image.Resampling.BOX)
    proof = verify(Photo.of(large), Photo.of(small))
    assert proof.evidence["scale"] == pytest.approx(0.5, abs=0.01)
    moved = np.array(proof.evidence["transform"]) @ [480, 330, 1]
    assert moved == pytest.approx([140, 105], abs=1.5)


def test_tiny_photos_do_not_break_it() -> None:
    for size in ((1, 1), (3, 200), (32, 32)):
        assert verify(Photo.of(scene(0, size=size)), Photo.of(scene(1, size=size))).tier == "similar_only"

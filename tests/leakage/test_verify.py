"""Copies are proved however they were made; photos that merely look alike are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps

from tests.leakage.planting import COPIES, HARDER, cropped, jpeg, scene
from vlm_tune.leakage.aligning import Photo
from vlm_tune.leakage.verify import verify

ALL = COPIES | HARDER


@pytest.mark.parametrize("how", ALL)
def test_a_copy_is_proved(how: str) -> None:
    original = scene(1)
    proof = verify(Photo.of(ALL[how](original)), Photo.of(original))
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


def test_a_crop_under_a_border_is_found_though_half_of_it_disagrees() -> None:
    original = scene(7)
    proof = verify(Photo.of(original), Photo.of(jpeg(ImageOps.expand(cropped(0.25)(original), 16, "white"))))
    assert proof.tier == "near_copy"
    assert proof.evidence["agreement"] > 0.9


def _without_features(image: Image.Image) -> Photo:
    photo = Photo.of(image)
    photo.__dict__["features"] = (np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32))
    return photo


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("flip", [False, True])
def test_photos_without_features_are_laid_on_each_other_in_all_eight_ways(turns: int, flip: bool) -> None:
    original = scene(0, texture=0)
    turned = Image.fromarray(np.rot90(np.asarray(ImageOps.mirror(original) if flip else original), turns))
    proof = verify(_without_features(original), _without_features(jpeg(turned, 95)))
    assert proof.tier == "near_copy"
    assert proof.evidence["flipped"] is flip


def test_rich_detail_needs_no_matched_features() -> None:
    original, blurred = scene(8, texture=30), scene(8, texture=30).filter(ImageFilter.GaussianBlur(2))
    proof = verify(_without_features(blurred), _without_features(original))
    assert proof.tier == "near_copy"
    assert proof.evidence["inliers"] == 0


def _shot(seed: int, *, step: int) -> Image.Image:
    """Things of equal size side by side; every second row of them stands a step further to the right."""
    rows = [scene(seed + row, size=(240, 30), texture=30) for row in range(6)]
    shot = Image.new("RGB", (200, 180))
    for number, row in enumerate(rows):
        shot.paste(row.crop((10 + step * (number % 2), 0, 210 + step * (number % 2), 30)), (0, 30 * number))
    return shot


def test_another_shot_of_things_that_moved_against_each_other_is_no_copy() -> None:
    first = _shot(10, step=0)
    assert verify(Photo.of(jpeg(first, 60)), Photo.of(first)).tier == "near_copy"
    assert verify(Photo.of(first), Photo.of(_shot(10, step=5))).tier == "same_scene"


SMALL = ["re-encoded", "larger", "cropped", "mirrored", "brightened", "darkened", "turned", "grey", "colour cast"]


@pytest.mark.parametrize("how", SMALL)
@pytest.mark.parametrize("seed", range(3))
def test_copies_of_32_pixel_photos_are_proved(how: str, seed: int) -> None:
    original, other = (_small(scene(seed + 20 * k, texture=40)) for k in (1, 2))
    assert verify(Photo.of(ALL[how](original)), Photo.of(original)).tier == "near_copy"
    assert verify(Photo.of(ALL[how](original)), Photo.of(other)).tier == "similar_only"


def _small(image: Image.Image) -> Image.Image:
    return image.crop((0, 0, 64, 64)).resize((32, 32), Image.Resampling.BOX)


def test_the_transform_of_an_enlarged_photo_is_in_its_own_pixels() -> None:
    small = _small(scene(9, texture=40))
    proof = verify(Photo.of(small), Photo.of(small.resize((64, 64), Image.Resampling.BICUBIC)))
    moved = np.array(proof.evidence["transform"]) @ [16, 16, 1]
    assert moved == pytest.approx([32.5, 32.5], abs=1)


STEEL = [
    ("rolled-in_scale", 62, 63, 0.58, 0),
    ("crazing", 206, 207, 0.60, 0),
    ("pitted_surface", 55, 56, 0.35, 0),
    ("pitted_surface", 18, 20, 0.43, 0),
    ("scratches", 24, 294, 0.62, 90),
]


@pytest.mark.data
@pytest.mark.parametrize(("name", "first", "second", "overlap", "turn"), STEEL)
def test_neighbours_cut_from_one_strip_of_steel_are_found_with_their_overlap(
    test_data: Path, name: str, first: int, second: int, overlap: float, turn: int
) -> None:
    a, b = (Image.open(test_data / "neu_det" / name / f"{name}_{number}.jpg") for number in (first, second))
    proof = verify(Photo.of(a), Photo.of(b))
    assert proof.tier == "near_copy"
    assert proof.evidence["overlap"] == pytest.approx([overlap, overlap], abs=0.02)
    assert abs(proof.evidence["rotation_deg"]) == pytest.approx(turn, abs=0.5)


REAL = [
    "neu_det/inclusion/inclusion_11.jpg",
    "magnetic_tile/MT_Uneven/exp1_num_139798.jpg",
    "grocery_small/train/Fruit__Lime/Lime_023.jpg",
]


@pytest.mark.data
@pytest.mark.parametrize("photo", REAL)
@pytest.mark.parametrize("how", ALL)
def test_a_copy_of_a_real_photo_is_proved(test_data: Path, photo: str, how: str) -> None:
    original = Image.open(test_data / photo).convert("RGB")
    assert verify(Photo.of(ALL[how](original)), Photo.of(original)).tier == "near_copy"


@pytest.mark.data
def test_two_shots_of_one_heap_are_no_copies(test_data: Path) -> None:
    heap = test_data / "grocery_small/train/Fruit__Lime"
    first, second = (Photo.of(Image.open(heap / f"Lime_0{number}.jpg")) for number in (19, 23))
    assert verify(first, second).tier == "same_scene"


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

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from vlm_tune.training.augmenting.applying import changed, mixed
from vlm_tune.training.augmenting.drawing import OPERATIONS, Change, Mix, Views
from vlm_tune.training.augmenting.settings import Augment

Array = np.ndarray


def noise(width: int = 40, height: int = 30, seed: int = 0) -> Array:
    rough = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC))


def done(name: str, *values: float, photo: Array | None = None) -> Array:
    return changed(noise() if photo is None else photo, (Change(name, values),))


@pytest.mark.parametrize("name", [*OPERATIONS, "crop", "flip", "blur"])
def test_every_change_keeps_size_and_type_and_does_something(name: str) -> None:
    strength = OPERATIONS.get(name, 0.0) / 2
    values = {
        "crop": (0.1, 0.2, 0.5, 0.7),
        "flip": (),
        "blur": (0.05,),
        **dict.fromkeys(("brightness", "contrast", "saturation", "sharpness"), (1 + strength,)),
    }.get(name, (strength,))
    photo = noise()
    before = photo.copy()
    after = done(name, *values, photo=photo)
    assert after.shape == photo.shape and after.dtype == np.uint8
    assert (photo == before).all()
    assert (after != before).any() == (name != "identity")


def test_a_crop_is_a_part_made_as_large_as_the_whole() -> None:
    photo = noise(40, 30)
    assert (done("crop", 0.0, 0.0, 1.0, 1.0, photo=photo) == photo).all()
    part = Image.fromarray(photo[3:18, 10:30]).resize((40, 30), Image.Resampling.BILINEAR)
    assert (done("crop", 0.25, 0.1, 0.5, 0.5, photo=photo) == np.asarray(part)).all()
    assert done("crop", 0.99, 0.99, 0.01, 0.01, photo=noise(3, 2)).shape == (2, 3, 3)


def test_changes_are_what_they_are_called() -> None:
    photo = noise()
    assert (done("flip") == photo[:, ::-1]).all()
    assert done("brightness", 0.5).mean() == pytest.approx(photo.mean() / 2, rel=0.02)
    assert done("contrast", 0.5).std() < photo.std()
    grey = done("saturation", 0.0)
    assert (grey[..., 0] == grey[..., 2]).all()
    assert (
        np.abs(np.diff(done("blur", 0.1).astype(int), axis=1)).mean()
        < np.abs(np.diff(photo.astype(int), axis=1)).mean()
    )
    assert set(np.unique(done("posterize", 4.0) & 0x0F)) == {0}
    assert (done("solarize", 1.0) == 255 - photo).all()


@pytest.mark.parametrize(("name", "axis"), [("translate_x", 1), ("translate_y", 0)])
def test_what_a_moved_photo_leaves_empty_is_grey(name: str, axis: int) -> None:
    photo = noise()
    moved = done(name, 0.5)
    size = photo.shape[axis] // 2
    assert (np.take(moved, range(size), axis) == 128).all()
    assert (np.take(moved, range(size, 2 * size), axis) == np.take(photo, range(size), axis)).all()


def test_mixup_is_the_weighted_sum_and_cutmix_the_box() -> None:
    first, second = noise(seed=0), noise(seed=1)
    half = mixed(first, second, Mix(0, 1.0, (), drawn=0.3))
    assert (half == np.rint(np.float32(0.3) * first + np.float32(0.7) * second)).all()
    cut = Mix(0, 1.0, (), drawn=0.75, centre=(0.5, 0.5))
    both = mixed(first, second, cut)
    left, top, right, bottom = cut.box(40, 30)
    assert (both[top:bottom, left:right] == second[top:bottom, left:right]).all()
    from_second = (both == second).all(-1).sum()
    assert from_second == pytest.approx((1 - cut.share(40, 30)) * 40 * 30, abs=5)
    assert (both[:top] == first[:top]).all() and (both[:, :left] == first[:, :left]).all()


def test_another_size_is_brought_to_the_first_ones() -> None:
    first, second = noise(40, 30), noise(25, 60, seed=1)
    resized = np.asarray(Image.fromarray(second).resize((40, 30), Image.Resampling.BILINEAR))
    shown = mixed(first, second, Mix(0, 1.0, (), drawn=0.0))
    assert (shown == resized).all()


def test_changing_draws_nothing_and_threads_may_share_it() -> None:
    everything = Augment(crop=(0.5, 1.0), flip=True, rand_augment=2, magnitude=20, colour=0.3, blur=0.05)
    views = Views(everything, [1.0] * 60, seed=0)
    asked = [views.view(index, epoch=0, time=0, order=range(60)).changes for index in range(60)]
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    alone = [changed(noise(seed=index % 3), one) for index, one in enumerate(asked)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(changed, [noise(seed=index % 3) for index in range(60)], asked))
    assert all((one == other).all() for one, other in zip(alone, together, strict=True))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.drawn import drawn
from vlm_tune.demo.photos import CLASSES, DemoPhotos, Twin, photos
from vlm_tune.errors import StorageError


def digest(demo: DemoPhotos) -> str:
    whole = hashlib.sha256()
    for photo in demo.photos:
        whole.update(photo.id.encode() + photo.label.encode() + photo.jpeg)
    return whole.hexdigest()


def opened(jpeg: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(jpeg))
    image.load()
    return image


def similarity(one: Image.Image, other: Image.Image) -> float:
    """Pixel correlation of two pictures as 64 x 64 grey levels."""
    a, b = (np.asarray(image.convert("L").resize((64, 64)), float).ravel() for image in (one, other))
    return float(np.corrcoef(a, b)[0, 1])


def undone(original: Image.Image, twin: Twin) -> Image.Image:
    """The part of the original that the twin shows, flipped like it."""
    left, top, right, bottom = twin.how.crop
    width, height = original.size
    part = original.crop(
        (
            round(left * width),
            round(top * height),
            width - round(right * width),
            height - round(bottom * height),
        )
    )
    return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if twin.how.flipped else part


def test_equal_seeds_give_equal_bytes_and_other_seeds_others() -> None:
    state = np.random.get_state()[1]
    again = photos(0)
    assert digest(again) == digest(drawn())
    assert (again.twins, again.wrong_labels, again.ambiguous) == (
        drawn().twins,
        drawn().wrong_labels,
        drawn().ambiguous,
    )
    assert np.array_equal(np.random.get_state()[1], state)
    assert digest(drawn(1)) != digest(drawn())
    assert not {photo.jpeg for photo in drawn(1).photos} & {photo.jpeg for photo in drawn().photos}


@pytest.mark.parametrize("seed", [0, 1])
def test_counts_before_and_after_regrouping(seed: int) -> None:
    demo = drawn(seed)
    splits = Counter(photo.split for photo in demo.photos)
    assert len(demo) == 417
    assert splits == {"train": 300, "test": 117}
    leaked = {twin.test_id for twin in demo.twins}
    assert len(leaked) == len({twin.train_id for twin in demo.twins}) == 19
    assert splits["train"] + len(leaked) == 319
    assert splits["test"] - len(leaked) == 98


def test_classes_are_unequal_and_alike_in_both_splits() -> None:
    for split, total in (("train", 300), ("test", 117)):
        counts = Counter(photo.label for photo in drawn().photos if photo.split == split)
        assert set(counts) == set(CLASSES)
        for name, share in zip(CLASSES, (0.28, 0.34, 0.38), strict=True):
            assert counts[name] / total == pytest.approx(share, abs=0.03)


def test_ids_are_paths_that_agree_with_split_and_label_and_give_nothing_away() -> None:
    demo = drawn()
    assert len({photo.id for photo in demo.photos}) == 417
    for photo in demo.photos:
        assert photo.id.startswith(f"{photo.split}/{photo.label}/photo_")
    numbers = sorted(int(photo.id[-8:-4]) for photo in demo.photos)
    assert numbers == list(range(1, 418))
    copies = [int(twin.test_id[-8:-4]) for twin in demo.twins]
    assert min(copies) < 150 and max(copies) > 270


def test_every_photo_is_a_plain_rgb_jpeg_of_a_sensible_size() -> None:
    sizes = set()
    for photo in drawn().photos:
        image = opened(photo.jpeg)
        assert (image.format, image.mode) == ("JPEG", "RGB")
        assert "exif" not in image.info and not image.getexif()
        assert min(image.size) >= 90 and max(image.size) <= 240
        assert np.asarray(image).std() > 3
        sizes.add(image.size)
    assert len(sizes) > 5


@pytest.mark.parametrize("seed", [0, 1])
def test_twins_show_their_original(seed: int) -> None:
    demo = drawn(seed)
    by_id = {photo.id: photo for photo in demo.photos}
    for twin in demo.twins:
        copy, original = by_id[twin.test_id], by_id[twin.train_id]
        assert (copy.split, original.split) == ("test", "train")
        assert copy.label == original.label
        assert copy.jpeg != original.jpeg
        assert similarity(opened(copy.jpeg), undone(opened(original.jpeg), twin)) > 0.97


def test_every_way_of_copying_occurs() -> None:
    steps = Counter(step for twin in drawn().twins for step in twin.how.steps)
    assert steps["re-encoded"] == 19
    assert all(steps[step] >= 5 for step in ("cropped", "brightened", "flipped"))
    assert any(len(twin.how.steps) > 2 for twin in drawn().twins)
    for twin in drawn().twins:
        left, top, right, bottom = twin.how.crop
        assert max(left + right, top + bottom) <= 0.1501


def test_clean_photos_are_no_copies_of_each_other() -> None:
    demo = drawn()
    copies = {twin.test_id for twin in demo.twins}
    clean = [opened(photo.jpeg).convert("L").resize((32, 32)) for photo in demo.photos if photo.id not in copies]
    views = [[np.asarray(view, float).ravel() for view in (image, image.transpose(0))] for image in clean]
    similar = np.corrcoef(np.array([view for pair in views for view in pair]))
    same_photo = np.kron(np.eye(len(clean)), np.ones((2, 2))).astype(bool)
    assert similar[~same_photo].max() < 0.97


def test_wrong_labels_are_known_and_spare_the_twins() -> None:
    demo = drawn()
    by_id = {photo.id: photo for photo in demo.photos}
    counts = Counter(by_id[wrong_id].split for wrong_id in demo.wrong_labels)
    assert counts == {"train": 5, "test": 2}
    for wrong_id, true_label in demo.wrong_labels.items():
        assert true_label in CLASSES
        assert by_id[wrong_id].label != true_label
    in_twins = {name for twin in demo.twins for name in (twin.test_id, twin.train_id)}
    assert not in_twins & set(demo.wrong_labels)


def test_ambiguous_photos_are_known_few_and_rightly_labelled() -> None:
    demo = drawn()
    assert demo.ambiguous <= {photo.id for photo in demo.photos}
    assert 15 <= len(demo.ambiguous) <= 50
    assert not demo.ambiguous & set(demo.wrong_labels)


def test_write_gives_split_and_class_folders_and_an_index(tmp_path: Path) -> None:
    demo = drawn()
    folder = demo.write(tmp_path / "photos")
    written = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.jpg")}
    assert {name: path.read_bytes() for name, path in written.items()} == {p.id: p.jpeg for p in demo.photos}
    assert sorted(path.name for path in folder.iterdir()) == ["photos.json", "test", "train"]
    index = json.loads((folder / "photos.json").read_text())
    assert index["synthetic"] is True
    assert [(twin["test_id"], twin["train_id"]) for twin in index["twins"]] == [
        (twin.test_id, twin.train_id) for twin in demo.twins
    ]
    assert index["wrong_labels"] == dict(demo.wrong_labels)
    assert set(index["ambiguous"]) == demo.ambiguous


def test_write_replaces_its_own_folder_and_no_other(tmp_path: Path) -> None:
    drawn().write(tmp_path / "photos")
    drawn(1).write(tmp_path / "photos")
    assert len(list((tmp_path / "photos").rglob("*.jpg"))) == 417
    holiday = tmp_path / "holiday"
    holiday.mkdir()
    (holiday / "beach.jpg").write_bytes(b"mine")
    with pytest.raises(StorageError, match="holiday holds something other"):
        drawn().write(holiday)
    assert (holiday / "beach.jpg").read_bytes() == b"mine"

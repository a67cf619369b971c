"""The whole check: what is planted is found, what is clean is not, and labels have no say."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import ImageEnhance, ImageOps

from tests.drawn import drawn
from tests.leakage.planting import COPIES, jpeg_bytes, png_bytes, scene
from vlm_tune import demo
from vlm_tune.data import Dataset
from vlm_tune.data.splitting import SplitName
from vlm_tune.embedding import PixelEmbedder
from vlm_tune.errors import SplitError
from vlm_tune.leakage import LeakageChecker, LeakageReport, Strategy
from vlm_tune.records import Example
from vlm_tune.task import Task

TASK = Task(prompt="Which one?", classes=("a", "b"))


def dataset(photos: dict[str, tuple[bytes, SplitName]]) -> Dataset:
    examples = [Example(id=name, image=data, label="ab"[i % 2]) for i, (name, (data, _)) in enumerate(photos.items())]
    return Dataset(examples, task=TASK, splits={name: split for name, (_, split) in photos.items()})


def clean(num_train: int = 12, num_test: int = 4) -> dict[str, tuple[bytes, SplitName]]:
    train = {f"train{i}": (jpeg_bytes(scene(i)), "train") for i in range(num_train)}
    return {**train, **{f"test{i}": (jpeg_bytes(scene(100 + i)), "test") for i in range(num_test)}}


@pytest.fixture(scope="module")
def checker(tmp_path_factory: pytest.TempPathFactory) -> LeakageChecker:
    """One that embeds each photo once; the tests have many in common."""
    return LeakageChecker(PixelEmbedder(), cache_dir=tmp_path_factory.mktemp("embeddings"))


@pytest.fixture(scope="module")
def drawn_report(checker: LeakageChecker, tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, LeakageReport]:
    folder = drawn().write(tmp_path_factory.mktemp("drawn") / "photos")
    task = Task(prompt="What damage is this?", classes=demo.CLASSES)
    data = Dataset.from_folder(folder, task=task)
    return data, checker.check(data)


def test_the_drawn_photos_leak_exactly_where_copies_were_planted(
    drawn_report: tuple[Dataset, LeakageReport],
) -> None:
    _, report = drawn_report
    assert {(pair.a_id, pair.b_id) for pair in report.leaks} == {(t.test_id, t.train_id) for t in drawn().twins}
    assert report.num_compared == 300 * 117
    assert report.embedder == "pixels"
    assert len(report.nearest) == 117
    assert len(report.null) == 300


def test_moving_them_leaves_98_clean_test_photos(drawn_report: tuple[Dataset, LeakageReport]) -> None:
    data, report = drawn_report
    resolved = report.resolve(data)
    assert (len(resolved.train), len(resolved.test)) == (319, 98)


def test_labels_have_no_say() -> None:
    photos = clean() | {"test9": (jpeg_bytes(COPIES["mirrored"](scene(3))), "test")}
    photos |= {"test8": (photos["train5"][0], "test"), "test7": (jpeg_bytes(COPIES["cropped"](scene(101))), "test")}
    data = dataset(photos)
    shuffled = dict(zip(data.ids, np.random.default_rng(1).permutation(data.labels).tolist(), strict=True))
    assert shuffled != dict(zip(data.ids, data.labels, strict=True))
    no_labels = {"a_label": True, "b_label": True}
    told = []
    for each in (data, data.relabel(shuffled)):
        report = LeakageChecker(PixelEmbedder()).check(each)
        pairs = [pair.model_dump(exclude=no_labels) for pair in (*report.pairs, *report.within)]
        told.append(
            (pairs, report.leaked_ids, report.groups, report.identical, report.cut, report.null, report.nearest)
        )
    assert told[0] == told[1]
    assert told[0][1] == ("test8", "test9")
    assert ("test1", "test7") in told[0][2]


def test_clean_splits_give_no_leak(checker: LeakageChecker) -> None:
    report = checker.check(dataset(clean()))
    assert report.leaks == ()
    assert report.leaked_ids == ()


def test_equal_bytes_and_equal_pixels_are_identical(checker: LeakageChecker) -> None:
    photos = clean()
    photos["bytes"] = (photos["train0"][0], "test")
    photos["pixels"] = (png_bytes(COPIES["grey"](scene(1))), "test")
    photos["train_png"] = (png_bytes(COPIES["grey"](scene(1))).replace(b"IEND", b"IEND") + b"\0", "train")
    report = checker.check(dataset(photos))
    same = {(pair.a_id, pair.b_id): pair.evidence["same"] for pair in report.leaks if pair.tier == "identical"}
    assert same == {("bytes", "train0"): "bytes", ("pixels", "train_png"): "pixels"}


def test_validation_is_an_evaluation_side_and_is_compared_with_test(checker: LeakageChecker) -> None:
    photos = clean(num_test=3)
    photos["validation0"] = (jpeg_bytes(COPIES["cropped"](scene(5))), "validation")
    photos["validation1"] = (jpeg_bytes(scene(50)), "validation")
    photos["test8"] = (jpeg_bytes(COPIES["darkened"](scene(50))), "test")
    report = checker.check(dataset(photos))
    assert {(p.a_id, p.b_id) for p in report.leaks} == {("validation0", "train5"), ("test8", "validation1")}
    assert report.leaked_test_ids == ("test8",)
    assert report.leaked_ids == ("test8", "validation0")
    assert report.num_compared == 2 * 12 + 4 * (12 + 2)


def test_every_copy_is_found_when_there_are_more_than_the_shortlist_holds() -> None:
    photos = clean(num_train=20)
    copies = {f"copy{i}": (jpeg_bytes(scene(100), 40 + i), "train") for i in range(30)}
    report = LeakageChecker(PixelEmbedder(), shortlist=2).check(dataset(photos | copies))
    # JPEG qualities 49 and 50 are the same: one pair stands for both.
    assert {name for pair in report.leaks for name in report.side(pair, "b")} == set(copies)
    assert report.identical == (("copy9", "copy10"),)


def test_hundreds_of_copies_are_all_found_but_not_all_their_pairs(checker: LeakageChecker) -> None:
    """Two test frames and 50 training frames of one video."""
    photos = clean()
    frame = scene(50, size=(120, 90))
    video = [jpeg_bytes(ImageEnhance.Brightness(frame).enhance(0.7 + at / 87)) for at in range(52)]
    photos |= {f"frame{at}": (data, "test" if at in (15, 30) else "train") for at, data in enumerate(video)}
    data = dataset(photos)
    report = checker.check(data)
    assert {pair.b_id for pair in report.leaks} == {f"frame{at}" for at in range(52)} - {"frame15", "frame30"}
    assert report.leaked_test_ids == ("frame15", "frame30")
    assert len(report.leaks) <= 62
    assert report.num_verified < 400
    assert checker.check(report.resolve(data, "drop_train")).leaks == ()


def test_copies_of_a_leaked_photo_in_its_own_split_belong_to_its_group(checker: LeakageChecker) -> None:
    strip = scene(7, size=(360, 150))
    photos = clean()
    # Each overlaps the next one by half, the first and the last not at all.
    for number, (name, split) in enumerate((("left", "train"), ("middle", "test"), ("right", "test"))):
        photos[name] = (jpeg_bytes(strip.crop((80 * number, 0, 80 * number + 160, 150))), split)
    data = dataset(photos)
    report = checker.check(data)
    assert [(pair.a_id, pair.b_id) for pair in report.leaks] == [("middle", "left")]
    assert report.groups == (("left", "middle", "right"),)
    assert checker.check(report.resolve(data)).leaks == ()


STRATEGIES: tuple[Strategy, ...] = ("regroup", "drop_train", "drop_test")


@pytest.fixture(scope="module")
def mixture(checker: LeakageChecker) -> tuple[Dataset, LeakageReport]:
    """Chains across three splits, equal photos, groups of the user's own, and a mixture of them."""
    strip = scene(7, size=(440, 150))
    photos = clean(num_train=20, num_test=14)
    photos |= {f"validation{i}": (jpeg_bytes(scene(200 + i)), "validation") for i in range(8)}
    homes: tuple[SplitName, ...] = ("train", "test", "test", "validation")
    for number, split in enumerate(homes):
        photos[f"strip{number}"] = (jpeg_bytes(strip.crop((80 * number, 0, 80 * number + 160, 150))), split)
    photos |= {"equal0": (photos["train1"][0], "test"), "equal1": (photos["train1"][0], "validation")}
    photos |= {"equal2": (photos["train1"][0], "train"), "near": (jpeg_bytes(COPIES["smaller"](scene(1))), "test")}
    photos["key_copy"] = (jpeg_bytes(COPIES["cropped"](scene(103))), "test")
    plain = dataset(photos)
    groups = {"train2": "key", "test2": "key", "test3": "key", "train4": "other", "train5": "other"}
    examples = [one.model_copy(update={"group": groups.get(one.id)}) for one in plain]
    data = Dataset(examples, task=TASK, splits=dict(plain.splits))
    return data, checker.check(data)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_after_any_strategy_a_check_finds_nothing(
    checker: LeakageChecker, mixture: tuple[Dataset, LeakageReport], strategy: Strategy
) -> None:
    data, report = mixture
    assert set(report.leaked_ids) == {"strip1", "strip2", "equal0", "equal1", "near", "test2", "test3"}
    resolved = report.resolve(data, strategy)
    again = checker.check(resolved)
    assert again.leaks == ()
    assert set(report.changes(strategy)["example_id"]) == {
        name for name in data.ids if name not in resolved.ids or resolved.split_of(name) != data.split_of(name)
    }
    if strategy == "regroup":
        # The copy of a group's member goes where the group goes, though it carries no key.
        assert {resolved.split_of(name) for name in ("train2", "test2", "test3", "key_copy")} == {"train"}
        assert resolved.split_of("train4") == "train"


def test_a_shared_group_key_is_one_leak_however_large_the_group(checker: LeakageChecker) -> None:
    photos = clean(num_train=3, num_test=3)
    plain = dataset(photos | {f"{split}/{i}": (b"", split) for split in ("train", "test") for i in range(2000)})  # type: ignore[misc]
    examples = [one.model_copy(update={"group": None if "/" not in one.id else "video 7"}) for one in plain]
    examples = [
        one.model_copy(update={"group": "video 7"}) if one.id in ("train0", "test0") else one for one in examples
    ]
    data = Dataset(examples[::-1], task=TASK, splits=dict(plain.splits))
    report = checker.check(data)
    (pair,) = (pair for pair in report.pairs if pair.rule == "group")
    assert (pair.tier, pair.evidence, pair.copies) == ("same_scene", {"group": "video 7"}, (2001, 2001))
    assert (pair.a_id, pair.b_id) == ("test0", "train0"), "photos that can be read stand for their group"
    assert len(report.leaked_test_ids) == 2001
    assert pair.is_leak


def test_twenty_thousand_equal_photos_are_one_pair(checker: LeakageChecker, capsys: pytest.CaptureFixture[str]) -> None:
    photo = png_bytes(scene(0, size=(16, 12)))
    splits: dict[str, SplitName] = {f"{i:05d}": "test" if i % 4 == 0 else "train" for i in range(20_000)}
    examples = [Example(id=name, image=photo, label="ab"[i % 2]) for i, name in enumerate(splits)]
    data = Dataset(examples, task=TASK, splits=splits)
    began = time.perf_counter()
    report = checker.check(data)
    report.show()
    seconds = time.perf_counter() - began
    assert len(capsys.readouterr().out) < 6000
    (pair,) = report.pairs
    assert (pair.copies, pair.explanation) == ((5000, 15000), "same bytes, as in 20,000 photos")
    assert len(report.leaked_test_ids) == 5000
    assert report.num_compared == 5000 * 15000
    assert len(report.within) == 2
    assert len(report.conflicts) == 2
    assert all(one.problem for one in report.proposals)
    assert seconds < 20


def test_the_null_is_not_misled_by_copies_in_training(checker: LeakageChecker) -> None:
    """Three versions of every training photo, as augmentation before the split makes them."""
    photos = clean(num_train=12)
    plain = checker.check(dataset(photos))
    photos |= {f"dark{i}": (jpeg_bytes(COPIES["darkened"](scene(i))), "train") for i in range(12)}
    photos |= {f"grey{i}": (jpeg_bytes(COPIES["grey"](scene(i))), "train") for i in range(12)}
    tripled = checker.check(dataset(photos))
    assert tripled.leaks == ()
    assert plain.cut is not None
    assert tripled.cut == pytest.approx(plain.cut, abs=0.12)
    assert np.median(tripled.null) < 0.7
    assert len(tripled.within) == 24


def test_what_cannot_be_read_is_listed_and_left_out(checker: LeakageChecker) -> None:
    photos = clean() | {"torn": (jpeg_bytes(scene(1))[:500], "train"), "empty": (b"", "test")}
    report = checker.check(dataset(photos))
    assert set(report.unreadable) == {"torn", "empty"}
    assert len(report.nearest) == 4


def test_a_missing_split_is_named(checker: LeakageChecker) -> None:
    photos = clean()
    with pytest.raises(SplitError, match="no train split"):
        checker.check(dataset({name: (data, "test") for name, (data, _) in photos.items()}))
    with pytest.raises(SplitError, match="no test split"):
        checker.check(dataset({name: (data, "train") for name, (data, _) in photos.items()}))
    with pytest.raises(SplitError, match="no evaluation photo can be read"):
        checker.check(dataset({**clean(num_test=0), "test": (b"no image", "test")}))


class _Means:
    """A user's own embedder: mean colour of each half, so that mirroring changes it."""

    name = "means"

    def embed(self, images: list[bytes]) -> np.ndarray:
        import io

        from PIL import Image

        small = [np.asarray(Image.open(io.BytesIO(data)).convert("L").resize((8, 8)), np.float32) for data in images]
        rows = np.stack(small).reshape(len(images), -1)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_any_embedder_is_searched_in_both_orientations() -> None:
    photos = clean(num_train=30) | {"mirror": (png_bytes(ImageOps.mirror(scene(4, texture=40))), "test")}
    photos["train4"] = (png_bytes(scene(4, texture=40)), "train")
    report = LeakageChecker(_Means(), shortlist=1).check(dataset(photos))
    pair = next(pair for pair in report.leaks if pair.a_id == "mirror")
    assert pair.b_id == "train4"
    assert pair.similarity > 0.98
    assert report.embedder == "means"


def test_a_shortlist_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        LeakageChecker(shortlist=0)


@pytest.mark.data
def test_real_steel_photos(checker: LeakageChecker, test_data: Path) -> None:
    """Planted copies of real photos are found, and overlapping crops of one strip, with their overlap."""
    folder = test_data / "neu_det"
    files = sorted(folder.glob("*/*.jpg"), key=lambda path: path.name)[::12]
    from PIL import Image

    photos: dict[str, tuple[bytes, SplitName]] = {path.name: (path.read_bytes(), "train") for path in files}
    planted = {}
    for number, how in enumerate(COPIES):
        original = files[5 * number]
        planted[how] = original.name
        photos[how] = (jpeg_bytes(COPIES[how](Image.open(original).convert("RGB"))), "test")
    for name, split in (("crazing_206.jpg", "train"), ("crazing_207.jpg", "test")):
        photos[name] = ((folder / "crazing" / name).read_bytes(), split)
    report = checker.check(dataset(photos))
    found = {(pair.a_id, pair.b_id) for pair in report.leaks}
    assert planted.items() <= found
    strip = next(pair for pair in report.leaks if pair.a_id == "crazing_207.jpg")
    assert strip.b_id == "crazing_206.jpg"
    assert 0.2 < strip.evidence["overlap"][0] < 0.9
    assert {pair.a_id for pair in report.leaks} == {*planted, "crazing_207.jpg"}


@pytest.mark.data
def test_known_copies_of_published_photos(checker: LeakageChecker, test_data: Path) -> None:
    folder = test_data / "near_duplicates"
    base = {path.name: (path.read_bytes(), "train") for path in sorted((folder / "base_images").glob("*.jpg"))}
    names = ("hflip", "resize", "rotation")
    copies = {f"ukbench00120_{how}.jpg": folder / "mixed_images" / f"ukbench00120_{how}.jpg" for how in names}
    copies["ukbench00120_gray.jpg"] = folder / "ukbench00120_gray.jpg"
    copies |= {f"ukbench09380.{kind}": folder / "formats_images" / f"ukbench09380.{kind}" for kind in ("bmp", "webp")}
    photos: dict[str, tuple[bytes, SplitName]] = {
        **{name: (data, "train") for name, (data, _) in base.items()},
        **{name: (path.read_bytes(), "test") for name, path in copies.items()},
    }
    report = checker.check(dataset(photos))
    assert {(pair.a_id, pair.b_id) for pair in report.leaks} == {(n, f"{n[:12]}.jpg") for n in copies}
    assert json.loads(report.model_dump_json())["pairs"]

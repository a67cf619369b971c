from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from vlm_tune.data import Dataset, MajorityVote
from vlm_tune.errors import DataError, TaskError
from vlm_tune.task import Task

TASK = Task(prompt="What kind of damage does this photo show?", classes=("crack", "dent", "scratch"))
SEVERAL = TASK.model_copy(update={"multi_label": True})
CARDD = ("dent", "scratch", "crack", "glass shatter", "lamp broken", "tire flat")

Marks = Sequence[tuple[str, float]]


def write(
    path: Path,
    photos: Mapping[str, Marks],
    *,
    categories: Sequence[str] = CARDD,
    images: Path | None = None,
    **extra: Any,
) -> Path:
    """Write a COCO file with gaps in its ids, and empty image files: nothing may open them."""
    ids = {name: 7 * number + 3 for number, name in enumerate(categories)}
    content: dict[str, Any] = {
        "categories": [{"id": ids[name], "name": name, "supercategory": "damage"} for name in categories],
        "images": [],
        "annotations": [],
        **extra,
    }
    for number, (file_name, marks) in enumerate(photos.items()):
        image = {"id": 1000 - 13 * number, "file_name": file_name, "width": 64, "height": 48}
        content["images"].append(image)
        for category, area in marks:
            box = [1, 1, area / 2, 2]
            mark = {"image_id": image["id"], "category_id": ids[category], "bbox": box, "area": area, "iscrowd": 0}
            content["annotations"].append({"id": len(content["annotations"]) + 5, "segmentation": [], **mark})
        file = (images or path.parent) / file_name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def edit(path: Path, **changes: Any) -> Path:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return path


PHOTOS: Mapping[str, Marks] = {
    "1.jpg": [("dent", 10), ("dent", 20)],
    "2.jpg": [("crack", 5), ("scratch", 50), ("crack", 5)],
    "3.jpg": [("scratch", 5), ("lamp broken", 5)],
    "4.jpg": [("tire flat", 5)],
    "5.jpg": [],
    "6.jpg": [("dent", 30), ("crack", 10)],
    "7.jpg": [("crack", 9)],
}


class TestOnly:
    def test_photos_of_one_class_stay(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        data = Dataset.from_coco(write(tmp_path / "a.json", PHOTOS), task=TASK)
        assert dict(zip(data.ids, data.labels, strict=True)) == {"1.jpg": "dent", "3.jpg": "scratch", "7.jpg": "crack"}
        assert data[0].image == tmp_path / "1.jpg"
        assert data[0].metadata == {"width": 64, "height": 48, "image_id": 1000}
        said = capsys.readouterr().err
        assert "3 photos kept, left out: 2 with several classes, 1 with other categories only, 1 without annot" in said
        assert "lamp broken (1), tire flat (1); other='exclude' drops their photos" in said

    def test_other_categories_may_exclude_a_photo(self, tmp_path: Path) -> None:
        data = Dataset.from_coco(write(tmp_path / "a.json", PHOTOS), task=TASK, other="exclude")
        assert data.ids == ("1.jpg", "7.jpg")

    def test_the_task_renames_and_merges(self, tmp_path: Path) -> None:
        task = Task(prompt="?", classes=("body", "glass"), aliases={"body": ("dent", "scratch"), "glass": ("crack",)})
        data = Dataset.from_coco(
            write(tmp_path / "a.json", {**PHOTOS, "8.jpg": [("dent", 1), ("scratch", 1)]}), task=task
        )
        assert dict(zip(data.ids, data.labels, strict=True)) == {
            "1.jpg": "body",
            "3.jpg": "body",
            "7.jpg": "glass",
            "8.jpg": "body",
        }

    def test_a_class_must_name_a_category(self, tmp_path: Path) -> None:
        task = Task(prompt="?", classes=("crack", "dents"))
        with pytest.raises(DataError, match=r"class 'dents' names no category \(.*\); did you mean 'dent'"):
            Dataset.from_coco(write(tmp_path / "a.json", PHOTOS), task=task)

    def test_nothing_left(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no photo is left: 1 without annotations"):
            Dataset.from_coco(write(tmp_path / "a.json", {"1.jpg": []}), task=TASK)


class TestMajority:
    def test_by_count(self, tmp_path: Path) -> None:
        data = Dataset.from_coco(write(tmp_path / "a.json", PHOTOS), task=TASK, rule="majority")
        assert data.by_id("2.jpg").label == "crack"
        vote = data.by_id("2.jpg").metadata
        assert vote["vote_share"] == pytest.approx(2 / 3)
        assert vote["vote_margin"] == pytest.approx(1 / 3)
        assert vote["ambiguous"] is False
        assert data.by_id("1.jpg").metadata["vote_share"] == 1

    def test_a_tie_goes_to_the_first_class_and_is_ambiguous(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.json", PHOTOS)
        data = Dataset.from_coco(path, task=TASK, rule="majority")
        assert data.by_id("6.jpg").label == "crack"
        assert [example.id for example in data if example.metadata["ambiguous"]] == ["6.jpg"]
        clear = Dataset.from_coco(path, task=TASK, rule=MajorityVote(ambiguous="drop"))
        assert clear.ids == data.filter(lambda example: not example.metadata["ambiguous"]).ids

    def test_by_area(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.json", PHOTOS)
        data = Dataset.from_coco(path, task=TASK, rule=MajorityVote(by="area"))
        assert data.by_id("2.jpg").label == "scratch"
        assert data.by_id("2.jpg").metadata["vote_share"] == pytest.approx(50 / 60)
        assert data.by_id("6.jpg").label == "dent"

    def test_thin_margins(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.json", PHOTOS)
        data = Dataset.from_coco(path, task=TASK, rule=MajorityVote(by="area", margin=0.5))
        assert [example.id for example in data if example.metadata["ambiguous"]] == ["6.jpg"]
        assert data.by_id("6.jpg").metadata["vote_margin"] == pytest.approx(0.5)

    def test_the_box_stands_in_for_the_area(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.json", {**PHOTOS, "8.jpg": [("scratch", 0), ("dent", 0), ("dent", 0)]})
        marks = json.loads(path.read_text())["annotations"]
        for mark in marks[:-3]:
            del mark["area"]
        data = Dataset.from_coco(edit(path, annotations=marks), task=TASK, rule=MajorityVote(by="area"))
        assert data.by_id("2.jpg").label == "scratch"
        # Marks without extent, such as points, vote by their number.
        assert data.by_id("8.jpg").label == "dent"
        del marks[0]["bbox"]
        with pytest.raises(DataError, match=r"'1\.jpg': an annotation has neither area nor bbox; vote by='count'"):
            Dataset.from_coco(edit(path, annotations=marks), task=TASK, rule=MajorityVote(by="area"))


class TestSeveralClasses:
    def test_a_label_lists_what_is_marked(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.json", PHOTOS)
        data = Dataset.from_coco(path, task=SEVERAL)
        assert dict(zip(data.ids, data.labels, strict=True)) == {
            "1.jpg": "dent",
            "2.jpg": "crack, scratch",
            "3.jpg": "scratch",
            "4.jpg": "none",
            "5.jpg": "none",
            "6.jpg": "crack, dent",
            "7.jpg": "crack",
        }
        assert Dataset.from_coco(path, task=SEVERAL, other="exclude").ids == (
            "1.jpg",
            "2.jpg",
            "5.jpg",
            "6.jpg",
            "7.jpg",
        )


class TestTraps:
    def test_a_crowd_counts_like_any_other(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.json", PHOTOS)
        marks = [{**mark, "iscrowd": 1} for mark in json.loads(path.read_text())["annotations"]]
        assert len(Dataset.from_coco(edit(path, annotations=marks), task=TASK)) == 3

    def test_a_root_category_without_annotations(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.json", PHOTOS)
        content = json.loads(path.read_text())
        root = {"id": 0, "name": "damage", "supercategory": "none"}
        data = Dataset.from_coco(edit(path, categories=[root, *content["categories"]]), task=TASK)
        assert len(data) == 3

    def test_ids_may_be_text(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.json", PHOTOS)
        content = json.loads(path.read_text())
        images = [{**image, "id": f"i{image['id']}"} for image in content["images"]]
        marks = [{**mark, "image_id": f"i{mark['image_id']}"} for mark in content["annotations"]]
        assert len(Dataset.from_coco(edit(path, images=images, annotations=marks), task=TASK)) == 3

    def test_one_name_in_two_folders(self, tmp_path: Path) -> None:
        photos = {"a/1.jpg": [("dent", 1.0)], "b/1.jpg": [("crack", 1.0)]}
        assert Dataset.from_coco(write(tmp_path / "a.json", photos), task=TASK).ids == ("a/1.jpg", "b/1.jpg")

    def test_a_photo_listed_twice(self, tmp_path: Path) -> None:
        photos = {"1.jpg": [("dent", 1.0)], "./1.jpg": [("crack", 1.0)]}
        with pytest.raises(DataError, match=r"1\.jpg is listed twice"):
            Dataset.from_coco(write(tmp_path / "a.json", photos), task=TASK)

    def test_missing_files_are_counted_but_only_those_that_are_kept(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.json", PHOTOS)
        for name in ("4.jpg", "5.jpg"):
            (tmp_path / name).unlink()
        assert len(Dataset.from_coco(path, task=TASK)) == 3
        (tmp_path / "7.jpg").unlink()
        with pytest.raises(DataError, match=r"1 of 3 images in .*a\.json are missing below .*: 7\.jpg; .*images="):
            Dataset.from_coco(path, task=TASK)

    @pytest.mark.parametrize("name", ["../out.jpg", "/etc/passwd", "a/../../out.jpg", "link.jpg", "1\0.jpg"])
    def test_names_that_leave_the_folder(self, tmp_path: Path, name: str) -> None:
        root = tmp_path / "photos"
        path = write(root / "a.json", PHOTOS)
        (tmp_path / "out.jpg").touch()
        (root / "link.jpg").symlink_to(tmp_path / "out.jpg")
        images = [{**image, "file_name": name} for image in json.loads(path.read_text())["images"][:1]]
        marks = [mark for mark in json.loads(path.read_text())["annotations"] if mark["image_id"] == images[0]["id"]]
        with pytest.raises(DataError, match=r"leaves .*images=|is not a file name"):
            Dataset.from_coco(edit(path, images=images, annotations=marks), task=TASK)

    def test_a_field_or_a_pattern_names_the_group(self, tmp_path: Path) -> None:
        photos = {"car1_a.jpg": [("dent", 1.0)], "car1_b.jpg": [("crack", 1.0)], "car2.jpg": [("dent", 1.0)]}
        path = write(tmp_path / "a.json", photos)
        data = Dataset.from_coco(path, task=TASK, group=r"(car\d)")
        assert [example.group for example in data] == ["car1", "car1", "car2"]
        images = [{**image, "video": 4} for image in json.loads(path.read_text())["images"]]
        data = Dataset.from_coco(edit(path, images=images), task=TASK, group="video")
        assert [example.group for example in data] == ["4", "4", "4"]
        with pytest.raises(DataError, match="'vidoe' is neither a field of the images"):
            Dataset.from_coco(path, task=TASK, group="vidoe")


class TestBrokenFiles:
    @pytest.mark.parametrize(
        "content, reason",
        [
            (b'{"images": [{"id": 1, "file_na', "is not JSON, or was cut off"),
            (b"", "is not JSON"),
            (b"\xff\xfe{}", "is not JSON"),
            (b"[" * 100_000, "nested too deeply"),
            (b"[1]", "holds a list, not an object with images and annotations"),
            (b"{}", "'categories' should be a list, not nothing"),
            (b'{"categories": {}}', "'categories' should be a list, not an object"),
            (b'{"categories": [3]}', r"categories\[0\] should be an object, not 3"),
            (b'{"categories": [{"id": 1}]}', r"categories\[0\]: 'name' should be text, not nothing"),
            (b'{"categories": [], "images": [{"id": true, "file_name": "a"}]}', "'id' should be a number or text"),
            (b'{"categories": [], "images": [{"id": 1, "file_name": 7}]}', "'file_name' should be text, not 7"),
            (
                b'{"categories": [], "images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}]}',
                "id 1 occurs",
            ),
            (b'{"categories": [], "images": []}', "'annotations' should be a list"),
        ],
    )
    def test_the_shape_is_checked(self, tmp_path: Path, content: bytes, reason: str) -> None:
        (tmp_path / "a.json").write_bytes(content)
        with pytest.raises(DataError, match=reason):
            Dataset.from_coco(tmp_path / "a.json", task=TASK)

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="No such file"):
            Dataset.from_coco(tmp_path / "gone.json", task=TASK)

    @pytest.mark.parametrize(
        "change, reason",
        [
            ({"image_id": 4}, r"annotations\[0\]: image_id 4 names no image of the file"),
            ({"image_id": "1000"}, "image_id '1000' names no image"),
            ({"category_id": 4}, "category_id 4 names no category"),
            ({"category_id": [4]}, "'category_id' should be a number or text, not a list"),
            ({"area": "big"}, "its area, 'big', is not a number"),
            ({"area": -3}, "its area, -3, is not"),
            ({"area": None, "bbox": [0, 0, "w", 3]}, "its area, nan, is not"),
        ],
    )
    def test_dangling_ids_and_impossible_areas(self, tmp_path: Path, change: dict[str, Any], reason: str) -> None:
        path = write(tmp_path / "a.json", PHOTOS)
        first, *rest = json.loads(path.read_text())["annotations"]
        with pytest.raises(DataError, match=reason):
            Dataset.from_coco(edit(path, annotations=[{**first, **change}, *rest]), task=TASK)


class TestSplits:
    def test_a_file_for_each_split_in_cocos_layout(self, tmp_path: Path) -> None:
        paths = {
            split: write(tmp_path / f"annotations/instances_{split}2017.json", PHOTOS, images=tmp_path / f"{split}2017")
            for split in ("train", "val", "test")
        }
        data = Dataset.from_coco(paths, task=TASK)
        assert repr(data) == "Dataset(9 examples, 3 classes, train 3, validation 3, test 3)"
        assert data.by_id("validation/1.jpg").image == tmp_path / "val2017/1.jpg"

    def test_folders_by_split_or_one_for_all(self, tmp_path: Path) -> None:
        paths = {
            split: write(tmp_path / f"{split}.json", {f"{split}/{n}": m for n, m in PHOTOS.items()}, images=tmp_path)
            for split in ("train", "test")
        }
        whole = Dataset.from_coco(paths, task=TASK, images=tmp_path)
        assert whole.ids[0] == "train/train/1.jpg"
        with pytest.raises(DataError, match="images= names no folder for test"):
            Dataset.from_coco(paths, task=TASK, images={"train": tmp_path})

    def test_one_photo_in_two_splits(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.json", PHOTOS)
        with pytest.raises(DataError, match=r"1\.jpg is listed twice, as 'train/1\.jpg' and 'test/1\.jpg'"):
            Dataset.from_coco({"train": path, "test": path}, task=TASK)

    @pytest.mark.parametrize("names", [("trainset",), ("val", "valid"), ()])
    def test_keys_are_splits(self, tmp_path: Path, names: tuple[str, ...]) -> None:
        path = write(tmp_path / "a.json", PHOTOS)
        with pytest.raises(DataError, match=r"each key names one of the splits|names no file"):
            Dataset.from_coco(dict.fromkeys(names, path), task=TASK)


def draw_cardd(root: Path, *, count: int) -> dict[str, Path]:
    """Draw small photos with the annotations of CarDD's kind: six categories, several marks on most photos."""
    chance = random.Random(0)
    shares = {"train": 0.7, "val": 0.2, "test": 0.1}
    paths, number = {}, 0
    for split, share in shares.items():
        photos: dict[str, Marks] = {}
        folder = root / f"{split}2017"
        for _ in range(round(count * share)):
            number += 1
            main = chance.choices(CARDD, (27, 28, 18, 12, 9, 6))[0]
            others = chance.choices(CARDD, k=chance.choice((0, 0, 0, 1, 2)))
            marks = [(main, chance.uniform(20, 400)) for _ in range(chance.randint(1, 3))]
            photos[f"{number:06}.jpg"] = marks + [(name, chance.uniform(20, 400)) for name in others]
        paths[split] = write(root / f"annotations/instances_{split}2017.json", photos, images=folder)
        for name, drawn in photos.items():
            image = Image.new("RGB", (48, 36), (90, 100, 120))
            pen = ImageDraw.Draw(image)
            for category, area in drawn:
                left, top = chance.randrange(40), chance.randrange(30)
                colour = (40 * CARDD.index(category), 200, 60)
                pen.rectangle((left, top, left + area**0.5, top + area**0.5), colour)
            image.save(folder / name, "JPEG")
    return paths


def test_cardd_to_417_photos_of_three_classes(tmp_path: Path) -> None:
    paths = draw_cardd(tmp_path, count=1400)
    data = Dataset.from_coco(paths, task=TASK, other="exclude").limit(139)
    assert len(data) == 417
    assert Counter(data.labels) == {"crack": 139, "dent": 139, "scratch": 139}
    assert len(data.test) + len(data.validation) + len(data.train) == 417
    assert data.quarantine().ids == ()
    assert abs(data.balance(test=0.1, validation=0.2).largest_deviation.points) < 5
    assert data.ids == Dataset.from_coco(paths, task=TASK, other="exclude").limit(139).ids
    anew = Dataset(data.examples, task=TASK).split(test=0.25)
    assert repr(anew) == "Dataset(417 examples, 3 classes, train 313, test 104)"


def test_a_vote_has_sane_settings() -> None:
    with pytest.raises(ValueError, match="margin"):
        MajorityVote(margin=1.0)
    with pytest.raises(TaskError):
        Task(prompt="?", classes=("one",))

from __future__ import annotations

from pathlib import Path

import pytest

from vlm_tune.data.folder import read_folder
from vlm_tune.errors import DataError, UnknownLabelError
from vlm_tune.task import Task

TASK = Task(prompt="What damage is it?", classes=("crack", "dent", "light scratch"), aliases={"crack": ("Risse",)})


def touch(root: Path, *names: str) -> Path:
    """Write files that are no images: indexing must not open them."""
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"not an image")
    return root


class TestLayouts:
    def test_class_folders(self, tmp_path: Path) -> None:
        root = touch(tmp_path, "dent/2.PNG", "dent/1.jpg", "crack/deep/er/a b.JpEg", "light scratch/é.webp")
        examples, splits = read_folder(root, task=TASK)
        assert [(e.id, e.label) for e in examples] == [
            ("crack/deep/er/a b.JpEg", "crack"),
            ("dent/1.jpg", "dent"),
            ("dent/2.PNG", "dent"),
            ("light scratch/é.webp", "light scratch"),
        ]
        assert splits == {}
        assert examples[1].image == root.resolve() / "dent/1.jpg"

    @pytest.mark.parametrize(
        "name, split",
        [("Train", "train"), ("VAL", "validation"), ("Validation", "validation"), ("TEST", "test")],
    )
    def test_split_folders_in_any_case(self, tmp_path: Path, name: str, split: str) -> None:
        examples, splits = read_folder(touch(tmp_path, f"{name}/dent/1.jpg", f"{name}/crack/1.jpg"), task=TASK)
        assert splits == {f"{name}/crack/1.jpg": split, f"{name}/dent/1.jpg": split}
        assert [example.label for example in examples] == ["crack", "dent"]

    def test_split_folders_in_every_class_folder(self, tmp_path: Path) -> None:
        root = touch(tmp_path, "crack/train/1.jpg", "crack/Test/2.jpg", "dent/train/deep/1.jpg", "dent/val/1.jpg")
        examples, splits = read_folder(root, task=TASK)
        assert [example.label for example in examples] == ["crack", "crack", "dent", "dent"]
        assert splits == {
            "crack/Test/2.jpg": "test",
            "crack/train/1.jpg": "train",
            "dent/train/deep/1.jpg": "train",
            "dent/val/1.jpg": "validation",
        }

    def test_one_folder_called_test_is_just_a_folder(self, tmp_path: Path) -> None:
        _, splits = read_folder(touch(tmp_path, "crack/test/1.jpg", "dent/test/1.jpg", "dent/2.jpg"), task=TASK)
        assert splits == {}

    def test_an_alias_names_its_class(self, tmp_path: Path) -> None:
        examples, _ = read_folder(touch(tmp_path, "Risse/1.jpg"), task=TASK)
        assert examples[0].label == "crack"

    def test_classes_may_be_called_train_and_test(self, tmp_path: Path) -> None:
        task = Task(prompt="Which?", classes=("train", "test"))
        examples, splits = read_folder(touch(tmp_path, "train/1.jpg", "test/1.jpg"), task=task)
        assert [example.label for example in examples] == ["test", "train"]
        assert splits == {}

    def test_hidden_and_other_files_are_skipped_and_counted(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        root = touch(
            tmp_path,
            "dent/1.jpg",
            "dent/.2.jpg",
            "dent/.cache/3.jpg",
            ".git/4.jpg",
            "dent/a.txt",
            "b.txt",
            "c",
        )
        examples, _ = read_folder(root, task=TASK)
        assert [example.id for example in examples] == ["dent/1.jpg"]
        assert "2 .txt, 1 without ending" in " ".join(capsys.readouterr().err.split())

    def test_the_root_may_be_relative_or_a_link(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        touch(tmp_path / "photos", "dent/1.jpg")
        (tmp_path / "link").symlink_to(tmp_path / "photos")
        monkeypatch.chdir(tmp_path)
        for root in ("photos", "./photos/", "link", tmp_path / "photos"):
            examples, _ = read_folder(root, task=TASK)
            assert [example.id for example in examples] == ["dent/1.jpg"]


class TestGroups:
    def test_the_capture_is_the_group(self, tmp_path: Path) -> None:
        root = touch(tmp_path, "dent/part1_a.jpg", "dent/part12_b.jpg", "crack/other.jpg")
        examples, _ = read_folder(root, task=TASK, group=r"part(\d+)_")
        assert {example.id: example.group for example in examples} == {
            "crack/other.jpg": None,
            "dent/part12_b.jpg": "12",
            "dent/part1_a.jpg": "1",
        }

    @pytest.mark.parametrize(
        "pattern, reason",
        [
            ("(", "not a regular expression"),
            ("part", "exactly one"),
            ("(a)(b)", "it has 2"),
            ("(tile)", "fits no image"),
        ],
    )
    def test_a_bad_pattern_is_refused(self, tmp_path: Path, pattern: str, reason: str) -> None:
        with pytest.raises(DataError, match=reason):
            read_folder(touch(tmp_path, "dent/1.jpg"), task=TASK, group=pattern)


class TestRefusals:
    def test_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="is not a folder"):
            read_folder(tmp_path / "gone", task=TASK)
        with pytest.raises(DataError, match="is not a folder"):
            read_folder(touch(tmp_path, "file") / "file", task=TASK)

    def test_an_empty_folder_says_what_was_looked_for(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"holds no image.*\.jpg.*crack/photo\.jpg.*train/crack/photo\.jpg"):
            read_folder(tmp_path, task=TASK)

    def test_a_folder_of_other_files_says_what_is_there(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"holds no image; it holds .*2 \.heic"):
            read_folder(touch(tmp_path, "dent/1.heic", "dent/2.heic"), task=TASK)

    @pytest.mark.parametrize("name", ["Dent", "dent ", "dents"])
    def test_a_slip_in_a_class_name_lists_the_nearest(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(UnknownLabelError, match="did you mean 'dent'") as caught:
            read_folder(touch(tmp_path, f"{name}/1.jpg", "crack/1.jpg"), task=TASK)
        assert caught.value.label == name

    def test_split_folders_beside_class_folders(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"mixes split folders.*crack, train"):
            read_folder(touch(tmp_path, "train/dent/1.jpg", "crack/1.jpg"), task=TASK)

    def test_two_folders_for_one_split(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="2 folders that mean validation"):
            read_folder(touch(tmp_path, "val/dent/1.jpg", "valid/dent/1.jpg", "train/dent/1.jpg"), task=TASK)

    def test_some_classes_cut_and_others_not(self, tmp_path: Path) -> None:
        root = touch(tmp_path, "crack/train/1.jpg", "crack/test/2.jpg", "dent/1.jpg")
        with pytest.raises(DataError, match=r"crack holds split folders and .*dent does not"):
            read_folder(root, task=TASK)

    def test_an_image_between_the_split_folders_of_a_class(self, tmp_path: Path) -> None:
        root = touch(tmp_path, "crack/train/1.jpg", "crack/test/2.jpg", "crack/3.jpg")
        with pytest.raises(DataError, match=r"1 images .*first: crack/3\.jpg"):
            read_folder(root, task=TASK)

    @pytest.mark.parametrize("stray", ["stray.jpg", "train/stray.jpg"])
    def test_images_outside_the_class_folders(self, tmp_path: Path, stray: str) -> None:
        with pytest.raises(DataError, match=rf"1 images .*first: {stray}"):
            read_folder(touch(tmp_path, "train/dent/1.jpg", stray), task=TASK)

    @pytest.mark.parametrize("inside", ["dent", "dent/deep", "linked"])
    def test_a_linked_folder(self, tmp_path: Path, inside: str) -> None:
        root = touch(tmp_path / "photos", "dent/1.jpg")
        touch(tmp_path / "elsewhere", "2.jpg")
        link = root / inside if inside == "linked" else root / inside / "linked"
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(DataError, match="linked is a link"):
            read_folder(root, task=TASK)

    def test_a_linked_image_must_stay_inside(self, tmp_path: Path) -> None:
        root = touch(tmp_path / "photos", "dent/1.jpg")
        (root / "dent/2.jpg").symlink_to(root / "dent/1.jpg")
        assert len(read_folder(root, task=TASK)[0]) == 2
        (root / "dent/3.jpg").symlink_to(touch(tmp_path, "secret.jpg") / "secret.jpg")
        with pytest.raises(DataError, match=r"3\.jpg is a link that leaves"):
            read_folder(root, task=TASK)


@pytest.mark.data
def test_official_split_folders(test_data: Path) -> None:
    root = test_data / "grocery_small"
    classes = sorted({folder.name for split in ("train", "test") for folder in (root / split).iterdir()})
    examples, splits = read_folder(root, task=Task(prompt="Which item is it?", classes=tuple(classes)))
    assert len(examples) == 972
    assert sum(split == "train" for split in splits.values()) == 486

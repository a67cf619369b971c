from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vlm_tune.data import Dataset
from vlm_tune.errors import DataError, UnknownLabelError
from vlm_tune.images import blank
from vlm_tune.records import Example
from vlm_tune.task import Task

NAMES = ["crack", "dent", "scratch"]
TASK = Task(prompt="What damage is it?", classes=tuple(NAMES))
PROMPT = "What damage is it?"
FEATURES = datasets.Features(
    {"photo": datasets.Image(), "kind": datasets.ClassLabel(names=NAMES), "part": datasets.Value("string")}
)


def jpeg(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 0, 0)).save(file, "JPEG")
    return file.getvalue()


def rows(count: int = 6) -> datasets.Dataset:
    columns = {
        "photo": [{"bytes": jpeg(n), "path": f"shots/p{n // 2}_{n}.jpg"} for n in range(count)],
        "kind": [n % 3 for n in range(count)],
        "part": [f"part {n // 2}" for n in range(count)],
    }
    return datasets.Dataset.from_dict(columns, features=FEATURES)


def splits(**sizes: int) -> datasets.DatasetDict:
    return datasets.DatasetDict({name: rows(size) for name, size in sizes.items()})


class TestOneDataset:
    def test_names_and_encoded_bytes_are_taken_as_they_are(self) -> None:
        data = Dataset.from_hf(rows(), task=PROMPT)
        assert data.task == TASK
        assert data.ids == ("0", "1", "2", "3", "4", "5")
        assert data.labels == tuple(NAMES * 2)
        assert [example.image for example in data] == [jpeg(n) for n in range(6)]
        assert data[0].metadata == {"part": "part 0"}
        assert data.splits == {}

    def test_a_task_of_ones_own(self) -> None:
        task = Task(prompt="?", classes=("deep", "flat"), aliases={"deep": ("crack", "dent"), "flat": ("scratch",)})
        assert Dataset.from_hf(rows(), task=task).labels == ("deep", "deep", "flat") * 2
        with pytest.raises(UnknownLabelError, match="scratch"):
            Dataset.from_hf(rows(), task=Task(prompt="?", classes=("crack", "dent")))

    def test_columns_by_name(self) -> None:
        source = rows().add_column("key", [f"k{n}" for n in range(6)])
        data = Dataset.from_hf(source, task=PROMPT, image="photo", label="kind", group="part", id="key")
        assert (data[0].id, data[0].group, data[0].metadata) == ("k0", "part 0", {})

    def test_a_group_from_the_file_name(self) -> None:
        data = Dataset.from_hf(rows(), task=PROMPT, group=r"(p\d)_")
        assert [example.group for example in data] == ["p0", "p0", "p1", "p1", "p2", "p2"]
        with pytest.raises(DataError, match="fits no image"):
            Dataset.from_hf(rows(), task=PROMPT, group="(tile)")

    def test_a_format_does_not_matter(self) -> None:
        pytest.importorskip("torch")
        assert Dataset.from_hf(rows().with_format("torch"), task=PROMPT)[0].image == jpeg(0)

    def test_files_are_referred_to(self, tmp_path: Path) -> None:
        for n in range(2):
            (tmp_path / f"{n}.png").write_bytes(blank(4, 4))
        source = datasets.Dataset.from_dict(
            {"image": [str(tmp_path / f"{n}.png") for n in range(2)], "label": ["dent", "crack"]}
        ).cast_column("image", datasets.Image())
        data = Dataset.from_hf(source, task=PROMPT)
        assert [example.image for example in data] == [tmp_path / "0.png", tmp_path / "1.png"]
        assert data.task.classes == ("crack", "dent")


class TestSplits:
    def test_the_usual_names(self) -> None:
        data = Dataset.from_hf(splits(train=9, val=3, test=6), task=PROMPT)
        assert repr(data) == "Dataset(18 examples, 3 classes, train 9, validation 3, test 6)"
        assert data.validation.ids == ("validation/0", "validation/1", "validation/2")

    def test_one_split_is_none(self) -> None:
        data = Dataset.from_hf(splits(train=9), task=PROMPT)
        assert data.ids[:2] == ("train/0", "train/1")
        assert data.splits == {}

    def test_other_names_must_be_chosen(self) -> None:
        source = splits(train=9, holdout=3)
        with pytest.raises(DataError, match=r"'holdout' is not one of train, validation, test.*pass those you want"):
            Dataset.from_hf(source, task=PROMPT)
        data = Dataset.from_hf({"train": source["train"], "test": source["holdout"]}, task=PROMPT)
        assert len(data.test) == 3

    def test_a_limit_for_each(self) -> None:
        data = Dataset.from_hf(splits(train=9, test=6), task=PROMPT, limit=3)
        assert (len(data.train), len(data.test)) == (3, 3)
        with pytest.raises(DataError, match="limit=0 reads nothing"):
            Dataset.from_hf(rows(), task=PROMPT, limit=0)


class TestStreams:
    def test_only_what_is_asked_for_is_read(self) -> None:
        seen = []

        def endless() -> Iterator[dict[str, Any]]:
            number = 0
            while True:
                seen.append(number)
                yield {"photo": {"bytes": jpeg(number % 256), "path": None}, "kind": number % 3, "part": "x"}
                number += 1

        stream = datasets.IterableDataset.from_generator(endless, features=FEATURES)
        data = Dataset.from_hf(stream, task=PROMPT, limit=10)
        assert len(data) == 10
        assert len(seen) < 20

    def test_without_features_the_first_row_shows_the_columns(self) -> None:
        def generate() -> Iterator[dict[str, Any]]:
            for n in range(4):
                yield {"image": Image.new("RGB", (4, 4), (n, 0, 0)), "label": NAMES[n % 2]}

        data = Dataset.from_hf(datasets.IterableDataset.from_generator(generate), task=PROMPT)
        assert data.labels == ("crack", "dent", "crack", "dent")
        assert Image.open(io.BytesIO(data[3].read())).getpixel((0, 0)) == (3, 0, 0)

    def test_an_image_on_the_hub_is_fetched(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import fsspec

        asked = []

        def opened(address: str, mode: str) -> io.BytesIO:
            asked.append(address)
            return io.BytesIO(jpeg(len(asked)))

        monkeypatch.setattr(fsspec, "open", opened)
        addresses = [f"zip://{n}.jpg::hf://datasets/o/n/a.zip" for n in range(2)]
        columns = {"photo": [{"bytes": None, "path": at} for at in addresses], "kind": [0, 1], "part": ["", ""]}
        source = datasets.Dataset.from_dict(columns, features=FEATURES)
        assert Dataset.from_hf(source, task=PROMPT)[1].image == jpeg(2)
        assert asked == addresses

    @pytest.mark.parametrize("address", ["https://example.com/1.jpg", "file:///etc/passwd", "hf://a::file:///b"])
    def test_no_other_address_is(self, address: str) -> None:
        columns = {"photo": [{"bytes": None, "path": address}], "kind": [0], "part": [""]}
        with pytest.raises(DataError, match="is not on the hub"):
            Dataset.from_hf(datasets.Dataset.from_dict(columns, features=FEATURES), task=PROMPT)


class TestFiles:
    def test_a_folder_of_parquet(self, tmp_path: Path) -> None:
        for name, part in splits(train=9, test=3).items():
            part.to_parquet(tmp_path / f"data/{name}-00000-of-00001.parquet")
        data = Dataset.from_hf(tmp_path, task=PROMPT)
        assert repr(data) == "Dataset(12 examples, 3 classes, train 9, test 3)"
        assert data.by_id("test/1").image == jpeg(1)
        assert data.task.classes == tuple(NAMES)

    def test_one_parquet_file(self, tmp_path: Path) -> None:
        rows(300).to_parquet(tmp_path / "a.parquet")
        data = Dataset.from_hf(str(tmp_path / "a.parquet"), task=PROMPT)
        assert data.ids == tuple(str(n) for n in range(300))

    def test_a_file_for_each_split(self, tmp_path: Path) -> None:
        for name, part in splits(train=9, test=3).items():
            part.to_parquet(tmp_path / f"{name}.parquet")
        files = {"train": tmp_path / "train.parquet", "test": str(tmp_path / "test.parquet")}
        assert repr(Dataset.from_hf(files, task=PROMPT)) == "Dataset(12 examples, 3 classes, train 9, test 3)"
        with pytest.raises(DataError, match="the split 'test' is itself a source with splits"):
            Dataset.from_hf({**files, "test": tmp_path}, task=PROMPT)

    def test_a_folder_of_save_to_disk(self, tmp_path: Path) -> None:
        splits(train=9, test=3).save_to_disk(tmp_path / "kept")
        assert len(Dataset.from_hf(tmp_path / "kept", task=PROMPT).test) == 3

    def test_a_parquet_without_images(self, tmp_path: Path) -> None:
        rows().remove_columns("photo").to_parquet(tmp_path / "a.parquet")
        with pytest.raises(DataError, match=r"has no image column \(columns: kind, part\); say which .*image="):
            Dataset.from_hf(tmp_path / "a.parquet", task=PROMPT)
        with pytest.raises(DataError, match=r"column 'part' of .* holds .*string.*, not images"):
            Dataset.from_hf(tmp_path / "a.parquet", task=PROMPT, image="part")

    @pytest.mark.parametrize("name", ["/etc/passwd", "../1.jpg", "link.jpg"])
    def test_a_file_may_not_name_images_elsewhere(self, tmp_path: Path, name: str) -> None:
        folder = tmp_path / "data"
        folder.mkdir()
        (tmp_path / "1.jpg").write_bytes(jpeg(1))
        (folder / "link.jpg").symlink_to(tmp_path / "1.jpg")
        columns = {"photo": [{"bytes": None, "path": name}], "kind": [0], "part": [""]}
        source = datasets.Dataset.from_dict(columns, features=FEATURES)
        pq.write_table(source.data.table, folder / "a.parquet")
        with pytest.raises(DataError, match=r"leaves .*a file may only name images beside it"):
            Dataset.from_hf(folder / "a.parquet", task=PROMPT)

    def test_what_is_no_parquet(self, tmp_path: Path) -> None:
        (tmp_path / "a.parquet").write_bytes(b"PAR1 not really")
        with pytest.raises(DataError, match=r"cannot read .*a\.parquet"):
            Dataset.from_hf(tmp_path / "a.parquet", task=PROMPT)
        (tmp_path / "t.csv").touch()
        with pytest.raises(DataError, match=r"not a Parquet file; .*from_table"):
            Dataset.from_hf(tmp_path / "t.csv", task=PROMPT)
        (tmp_path / "photos").mkdir()
        with pytest.raises(DataError, match=r"holds no Parquet file; .*from_folder"):
            Dataset.from_hf(tmp_path / "photos", task=PROMPT)
        for gone in (tmp_path / "gone", "./gone", "a/b/c"):
            with pytest.raises(DataError, match="is no file or folder, and no id on the hub"):
                Dataset.from_hf(gone, task=PROMPT)

    def test_the_hub_out_of_reach(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import huggingface_hub.constants

        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        with pytest.raises(DataError, match="cannot read no-such-owner/no-such-set: "):
            Dataset.from_hf("no-such-owner/no-such-set", task=PROMPT)


class TestBadColumns:
    def test_several_labels_must_be_chosen_from(self) -> None:
        source = rows().add_column("other", [0] * 6).cast_column("other", datasets.ClassLabel(names=["x", "y"]))
        with pytest.raises(DataError, match=r"several columns that could be the label: kind, other; choose"):
            Dataset.from_hf(source, task=PROMPT)
        data = Dataset.from_hf(source, task=PROMPT, label="kind")
        assert data[0].metadata == {"part": "part 0", "other": "x"}

    def test_a_missing_column_lists_the_nearest(self) -> None:
        for role in ("image", "label", "group", "id"):
            with pytest.raises(DataError, match=rf"no column 'parts' .*did you mean 'part'\?; .*{role}="):
                Dataset.from_hf(rows(), task=PROMPT, **{role: "parts"})

    def test_numbers_without_names(self) -> None:
        source = rows().cast_column("kind", datasets.Value("int64"))
        with pytest.raises(DataError, match="numbers without names"):
            Dataset.from_hf(source, task=PROMPT, label="kind")
        task = Task(prompt="?", classes=("crack", "dent", "scratch"), aliases={"crack": ("0",), "dent": ("1", "2")})
        assert Dataset.from_hf(source, task=task, label="kind").labels[:3] == ("crack", "dent", "dent")

    @pytest.mark.parametrize("kind", [-1, None])
    def test_a_row_without_label(self, kind: int | None) -> None:
        columns = {"photo": [{"bytes": jpeg(1), "path": None}] * 2, "kind": [0, kind], "part": ["", ""]}
        source = datasets.Dataset.from_dict(columns, features=FEATURES)
        with pytest.raises(DataError, match=f"row 1: 'kind' holds {kind}, which is no class"):
            Dataset.from_hf(source, task=PROMPT)

    def test_a_row_without_image(self) -> None:
        source = datasets.Dataset.from_dict({"photo": [None], "kind": [0], "part": [""]}, features=FEATURES)
        with pytest.raises(DataError, match="row 0 has no image"):
            Dataset.from_hf(source, task=PROMPT)

    def test_no_rows(self) -> None:
        with pytest.raises(DataError, match="has no rows"):
            Dataset.from_hf(rows(0), task=PROMPT)

    def test_an_empty_id(self) -> None:
        source = rows(2).add_column("key", ["a", None])
        with pytest.raises(DataError, match="row 1: column 'key', which should hold the id, is empty"):
            Dataset.from_hf(source, task=PROMPT, id="key")

    def test_ids_that_repeat(self) -> None:
        with pytest.raises(DataError, match="occur more than once"):
            Dataset.from_hf(rows(), task=PROMPT, id="part")


class TestSeveralClasses:
    def test_lists_of_classes(self) -> None:
        features = datasets.Features(
            {"image": datasets.Image(), "label": datasets.List(datasets.ClassLabel(names=NAMES))}
        )
        columns = {"image": [{"bytes": jpeg(n), "path": None} for n in range(3)], "label": [[2, 0], [], [1]]}
        data = Dataset.from_hf(datasets.Dataset.from_dict(columns, features=features), task=PROMPT)
        assert data.task.multi_label
        assert data.labels == ("crack, scratch", "none", "dent")


class TestExport:
    def test_round_trip(self) -> None:
        examples = [
            Example(
                id=f"{n}.jpg",
                image=jpeg(n),
                label=NAMES[n % 3],
                group=f"g{n // 3}" if n else None,
                metadata={"size": n, "tags": ["a"] * n},
            )
            for n in range(12)
        ]
        data = Dataset(examples, task=TASK).split(test=0.25, grouped=False)
        exported = data.to_hf()
        assert set(exported) == {"train", "test"}
        assert exported["train"].features["label"].names == NAMES
        assert exported["test"][0]["image"].size == (8, 8)
        again = Dataset.from_hf(exported, task=TASK, id="id")
        assert again.fingerprint == data.fingerprint
        assert {e.id: (e.image, e.metadata) for e in again} == {e.id: (e.image, e.metadata) for e in data}

    def test_without_splits_it_is_one_dataset(self) -> None:
        data = Dataset.from_hf(rows(), task=TASK)
        exported = data.to_hf()
        assert isinstance(exported, datasets.Dataset)
        assert Dataset.from_hf(exported, task=TASK, id="id").fingerprint == data.fingerprint

    def test_several_classes(self) -> None:
        task = TASK.model_copy(update={"multi_label": True})
        labels = ("crack, dent", "none", "scratch")
        data = Dataset([Example(id=f"{n}", image=jpeg(n), label=label) for n, label in enumerate(labels)], task=task)
        again = Dataset.from_hf(data.to_hf(), task=PROMPT, id="id")
        assert again.labels == labels
        assert again.task == task

    def test_files_are_put_in_when_saved(self, tmp_path: Path) -> None:
        for name in NAMES[:2]:
            (tmp_path / "photos" / name).mkdir(parents=True)
            (tmp_path / "photos" / name / "1.jpg").write_bytes(jpeg(7))
        data = Dataset.from_folder(tmp_path / "photos", task=TASK)
        exported = data.to_hf()
        assert exported.cast_column("image", datasets.Image(decode=False))[0]["image"]["path"] == str(data[0].image)
        exported.save_to_disk(tmp_path / "kept")
        assert Dataset.from_hf(tmp_path / "kept", task=TASK, id="id")[0].image == jpeg(7)

    def test_metadata_of_several_kinds_is_left_out_aloud(self, capsys: pytest.CaptureFixture[str]) -> None:
        values = [1, "one", {"a": 1}]
        examples = [
            Example(id=f"{n}", image=jpeg(n), label=NAMES[n], metadata={"odd": values[n], "label": "x"})
            for n in range(3)
        ]
        assert set(Dataset(examples, task=TASK).to_hf().column_names) == {"id", "image", "label", "group"}
        said = capsys.readouterr().err
        assert "'odd' is left out, its values are of several kinds" in said
        assert "'label' is left out, the column is taken" in said

    def test_some_in_no_split(self) -> None:
        data = Dataset.from_hf(rows(), task=TASK).with_splits({"0": "train"})
        with pytest.raises(DataError, match="5 of 6 examples are in no split"):
            data.to_hf()


@pytest.mark.data
def test_cifar_from_the_hubs_parquet(test_data: Path) -> None:
    data = Dataset.from_hf(test_data / "cifar100", task="What is in the picture?", label="fine_label", limit=2000)
    assert (len(data.train), len(data.test)) == (2000, 2000)
    assert len(data.task.classes) == 100
    assert data.task.classes[0] == "apple"
    assert Counter(type(example.image) for example in data) == {bytes: 4000}
    assert {type(example.metadata["coarse_label"]) for example in data} == {str}

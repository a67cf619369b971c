from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from vlm_tune.data import Dataset
from vlm_tune.data.table import Columns, read_table
from vlm_tune.errors import DataError, UnknownLabelError
from vlm_tune.task import Task

TASK = Task(prompt="What damage is it?", classes=("crack", "dent", "007", "3"))
DAMAGE = Task(prompt="What is damaged?", classes=("crack", "dent", "scratch"), multi_label=True)
COLUMNS = Columns()
NAMES = ["a/1.jpg", "2.jpg", "a/3.jpg", "4.jpg"]
ROWS = [
    {"image": "a/1.jpg", "label": "dent", "split": "train", "group": "p1", "camera": "X", "iso": "100"},
    {"image": "2.jpg", "label": "crack", "split": "Val", "group": "", "camera": "Y, new", "iso": ""},
    {"image": "a/3.jpg", "label": "007", "split": "", "group": "p1", "camera": "NA", "iso": "3"},
]


def write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    import csv

    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_jsonl(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n\n" for row in rows))
    return path


def write_parquet(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)
    return path


WRITERS: dict[str, Callable[[Path, Sequence[Mapping[str, object]]], Path]] = {
    "t.csv": write_csv,
    "t.jsonl": write_jsonl,
    "t.NDJSON": write_jsonl,
    "t.parquet": write_parquet,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a").mkdir()
    for name in ("a/1.jpg", "2.jpg", "a/3.jpg"):
        (tmp_path / name).write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize("name", WRITERS)
class TestEveryFormat:
    def test_rows_become_examples(self, folder: Path, name: str) -> None:
        examples, splits = read_table(WRITERS[name](folder / name, ROWS), task=TASK, columns=COLUMNS)
        assert [(e.id, e.label, e.group) for e in examples] == [
            ("a/1.jpg", "dent", "p1"),
            ("2.jpg", "crack", None),
            ("a/3.jpg", "007", "p1"),
        ]
        assert splits == {"a/1.jpg": "train", "2.jpg": "validation"}
        assert examples[1].metadata == {"camera": "Y, new", "iso": ""}
        assert examples[0].image == folder / "a/1.jpg"

    def test_split_and_group_may_be_absent(self, folder: Path, name: str) -> None:
        rows = [{"image": row["image"], "label": row["label"]} for row in ROWS]
        examples, splits = read_table(WRITERS[name](folder / name, rows), task=TASK, columns=COLUMNS)
        assert [example.group for example in examples] == [None] * 3
        assert splits == {}

    def test_a_missing_column_lists_the_nearest(self, folder: Path, name: str) -> None:
        rows = [{"image": row["image"], "labels": row["label"]} for row in ROWS]
        with pytest.raises(DataError, match=r"no column 'label' \(columns: image, labels\); did you mean 'labels'"):
            read_table(WRITERS[name](folder / name, rows), task=TASK, columns=COLUMNS)


class TestPaths:
    def test_another_root(self, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
        table = write_csv(tmp_path_factory.mktemp("tables") / "t.csv", ROWS)
        examples, _ = read_table(table, task=TASK, columns=COLUMNS, root=folder)
        assert examples[0].image == folder / "a/1.jpg"

    @pytest.mark.parametrize("name", ["./a/1.jpg", "a//1.jpg", "a/../a/1.jpg", "{root}/a/1.jpg"])
    def test_one_file_has_one_id(self, folder: Path, name: str) -> None:
        table = write_jsonl(folder / "t.jsonl", [{"image": name.format(root=folder), "label": "dent"}])
        assert read_table(table, task=TASK, columns=COLUMNS)[0][0].id == "a/1.jpg"

    @pytest.mark.parametrize("name", ["../out.jpg", "/etc/passwd", "a/../../out.jpg", "link/out.jpg", "link2.jpg"])
    def test_paths_that_leave_the_root(self, folder: Path, name: str) -> None:
        outside = folder.parent / "outside"
        outside.mkdir(exist_ok=True)
        (outside / "out.jpg").write_bytes(b"")
        (folder / "link").symlink_to(outside)
        (folder / "link2.jpg").symlink_to(outside / "out.jpg")
        table = write_jsonl(folder / "t.jsonl", [ROWS[0], {"image": name, "label": "dent"}])
        with pytest.raises(DataError, match=r"row 2: image .* leaves .*root="):
            read_table(table, task=TASK, columns=COLUMNS)

    def test_missing_files_are_counted_and_the_first_few_named(self, folder: Path) -> None:
        rows = [*ROWS, *({"image": f"gone{n}.jpg", "label": "dent"} for n in range(9))]
        with pytest.raises(DataError, match=r"9 of 12 images .*: gone0\.jpg, .*gone4\.jpg, \.\.\.;.*root="):
            read_table(write_jsonl(folder / "t.jsonl", rows), task=TASK, columns=COLUMNS)


class TestCells:
    def test_other_column_names(self, folder: Path) -> None:
        rows = [{"file": "2.jpg", "class": 3, "part": 17, "label": "x"}]
        columns = Columns(image="file", label="class", split="split", group="part")
        example = read_table(write_parquet(folder / "t.parquet", rows), task=TASK, columns=columns)[0][0]
        assert (example.label, example.group, example.metadata) == ("3", "17", {"label": "x"})

    def test_a_renamed_optional_column_must_exist(self, folder: Path) -> None:
        columns = Columns(image="image", label="label", split="fold", group="group")
        with pytest.raises(DataError, match=r"no column 'fold'.*split=\.\.\."):
            read_table(write_csv(folder / "t.csv", ROWS), task=TASK, columns=columns)

    def test_an_unknown_split(self, folder: Path) -> None:
        rows = [ROWS[0], {**ROWS[1], "split": "tests"}]
        with pytest.raises(DataError, match=r"row 2: 'tests' is not a split .*did you mean 'test'"):
            read_table(write_csv(folder / "t.csv", rows), task=TASK, columns=COLUMNS)

    @pytest.mark.parametrize("label", ["", None])
    def test_an_empty_label(self, folder: Path, label: str | None) -> None:
        table = write_jsonl(folder / "t.jsonl", [ROWS[0], {"image": "2.jpg", "label": label}])
        with pytest.raises(DataError, match="row 2: column 'label' is empty"):
            read_table(table, task=TASK, columns=COLUMNS)

    @pytest.mark.parametrize("image", ["", None, 7, {"path": "..."}])
    def test_an_image_that_is_no_path(self, folder: Path, image: object) -> None:
        table = write_jsonl(folder / "t.jsonl", [{"image": image, "label": "dent"}])
        with pytest.raises(DataError, match=r"row 1: column 'image' holds .* not the path"):
            read_table(table, task=TASK, columns=COLUMNS)


class TestSeveralClasses:
    def test_a_cell_lists_them(self, folder: Path) -> None:
        (folder / "4.jpg").write_bytes(b"")
        cells = ["crack, dent", "none", "dent,crack", "scratch"]
        rows = [{"image": name, "label": cell} for name, cell in zip(NAMES, cells, strict=True)]
        data = Dataset.from_table(write_csv(folder / "t.csv", rows), task=DAMAGE)
        assert data.labels == ("crack, dent", "none", "crack, dent", "scratch")

    @pytest.mark.parametrize("name", ["t.jsonl", "t.parquet"])
    def test_a_list_is_one(self, folder: Path, name: str) -> None:
        (folder / "4.jpg").write_bytes(b"")
        cells = [["dent", "crack"], [], ["none"], ["scratch"]]
        rows = [{"image": name, "label": cell} for name, cell in zip(NAMES, cells, strict=True)]
        data = Dataset.from_table(WRITERS[name](folder / name, rows), task=DAMAGE)
        assert data.labels == ("crack, dent", "none", "none", "scratch")

    def test_an_unknown_one_lists_the_nearest(self, folder: Path) -> None:
        table = write_jsonl(folder / "t.jsonl", [{"image": "2.jpg", "label": ["dent", "crck"]}])
        with pytest.raises(UnknownLabelError, match="did you mean 'crack'"):
            Dataset.from_table(table, task=DAMAGE)

    def test_an_empty_cell_is_no_answer(self, folder: Path) -> None:
        table = write_csv(folder / "t.csv", [{"image": "2.jpg", "label": ""}])
        with pytest.raises(DataError, match="is empty; write 'none' for a photo that shows no class"):
            Dataset.from_table(table, task=DAMAGE)

    def test_a_list_for_a_task_with_one_answer(self, folder: Path) -> None:
        table = write_jsonl(folder / "t.jsonl", [{"image": "2.jpg", "label": ["dent", "crack"]}])
        with pytest.raises(DataError, match=r"row 1: column 'label' lists 2 classes; set Task\(multi_label=True\)"):
            read_table(table, task=TASK, columns=COLUMNS)


class TestKindsOfLabels:
    @pytest.mark.parametrize("other, kind", [(3, "a number"), (True, "bool"), ({"a": 1}, "dict"), (["dent", 3], "a n")])
    def test_a_mixture_names_both_rows(self, folder: Path, other: object, kind: str) -> None:
        rows = [{"image": "2.jpg", "label": "3"}, {"image": "a/1.jpg", "label": other}]
        with pytest.raises(
            DataError, match=f"'label' holds text in row 1 and {kind}.* in row 2; write all labels alike"
        ):
            read_table(write_jsonl(folder / "t.jsonl", rows), task=TASK, columns=COLUMNS)

    @pytest.mark.parametrize("label", [True, 1.5, {"a": 1}])
    def test_what_is_no_name_is_refused(self, folder: Path, label: object) -> None:
        table = write_jsonl(folder / "t.jsonl", [{"image": "2.jpg", "label": label}])
        with pytest.raises(DataError, match=r"row 1: column 'label' holds .*; a class is text or a whole number"):
            read_table(table, task=TASK, columns=COLUMNS)

    def test_a_missing_number_is_empty(self, folder: Path) -> None:
        table = write_parquet(folder / "t.parquet", [{"image": "2.jpg", "label": float("nan")}])
        with pytest.raises(DataError, match="is empty"):
            read_table(table, task=TASK, columns=COLUMNS)


class TestMore:
    def test_a_group_from_the_file_name(self, folder: Path) -> None:
        columns = Columns(group=r"(\d)\.jpg")
        examples, _ = read_table(write_csv(folder / "t.csv", ROWS), task=TASK, columns=columns)
        assert [example.group for example in examples] == ["1", "2", "3"]
        with pytest.raises(DataError, match="fits no image"):
            read_table(folder / "t.csv", task=TASK, columns=Columns(group="(tile)"))

    def test_metadata_need_not_be_hashable(self, folder: Path) -> None:
        rows = [{**row, "split": "", "boxes": [[1, 2], [3, 4]], "camera": {"lens": [1]}} for row in ROWS]
        data = Dataset.from_table(write_jsonl(folder / "t.jsonl", rows), task=TASK)
        assert data[0].metadata["boxes"] == [[1, 2], [3, 4]]
        assert data.fingerprint
        assert len(data.without(["2.jpg"]).frame()) == 2

    def test_images_in_the_table_are_for_another_reader(self, folder: Path) -> None:
        table = write_parquet(folder / "t.parquet", [{"image": {"bytes": b"x", "path": "1.jpg"}, "label": "dent"}])
        with pytest.raises(DataError, match=r"holds images, not paths; read the table with Dataset\.from_hf"):
            read_table(table, task=TASK, columns=COLUMNS)


class TestBrokenTables:
    @pytest.mark.parametrize(
        "name, content, reason",
        [
            ("t.csv", b"", "no rows"),
            ("t.csv", b"image,label\n", "no rows"),
            ("t.csv", b"image,label\n1.jpg\n", "line 2: not the 2 cells"),
            ("t.csv", b"image,label\n1.jpg,dent,more\n", "line 2: not the 2 cells"),
            ("t.csv", b'image,label\n"1.jpg,dent\n', "unexpected end of data"),
            ("t.csv", b"image,label\n\xff\xfe,dent\n", "not UTF-8"),
            ("t.jsonl", b"\n", "no rows"),
            ("t.jsonl", b'{"image": "2.jpg", "label": "dent"}\n{"image": "2', "line 2: not JSON"),
            ("t.jsonl", b'["2.jpg"]\n', "line 1: not a JSON object"),
            ("t.parquet", b"PAR1 not really", "not a Parquet file"),
            ("t.xlsx", b"", r"known endings: \.csv"),
        ],
    )
    def test_each_is_named(self, folder: Path, name: str, content: bytes, reason: str) -> None:
        (folder / name).write_bytes(content)
        with pytest.raises(DataError, match=reason):
            read_table(folder / name, task=TASK, columns=COLUMNS)

    def test_a_missing_table(self, folder: Path) -> None:
        for name in WRITERS:
            with pytest.raises(DataError, match="No such file"):
                read_table(folder / "gone" / name, task=TASK, columns=COLUMNS)

    def test_a_spreadsheets_byte_order_mark_is_no_part_of_the_name(self, folder: Path) -> None:
        (folder / "t.csv").write_bytes(b"\xef\xbb\xbfimage,label\r\n2.jpg,dent\r\n")
        assert read_table(folder / "t.csv", task=TASK, columns=COLUMNS)[0][0].id == "2.jpg"

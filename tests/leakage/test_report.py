"""What a report says, draws and saves, and that it refuses another dataset."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.leakage.planting import COPIES, jpeg_bytes, scene
from vlm_tune.data import Dataset
from vlm_tune.data.splitting import SplitName
from vlm_tune.embedding import PixelEmbedder
from vlm_tune.errors import DataError, StorageError
from vlm_tune.leakage import LeakageChecker, LeakageReport
from vlm_tune.records import Example
from vlm_tune.task import Task


@pytest.fixture(scope="module")
def checked() -> tuple[Dataset, LeakageReport]:
    photos: dict[str, tuple[bytes, str, SplitName]] = {
        f"train{i}": (jpeg_bytes(scene(i)), "ab"[i % 2], "train") for i in range(12)
    }
    photos["clean"] = (jpeg_bytes(scene(99)), "a", "test")
    photos["copy"] = (jpeg_bytes(COPIES["all at once"](scene(3))), "b", "test")
    photos["conflict"] = (jpeg_bytes(COPIES["cropped"](scene(4))), "b", "test")
    photos["[bold]torn"] = (b"", "a", "test")
    examples = [Example(id=name, image=data, label=label) for name, (data, label, _) in photos.items()]
    task = Task(prompt="Which one?", classes=("a", "b"))
    data = Dataset(examples, task=task, splits={name: split for name, (_, _, split) in photos.items()})
    return data, LeakageChecker(PixelEmbedder()).check(data)


def test_conflicting_labels_are_named(checked: tuple[Dataset, LeakageReport]) -> None:
    _, report = checked
    assert [(pair.a_id, pair.a_label, pair.b_label) for pair in report.conflicts] == [("conflict", "b", "a")]


def test_the_evidence_reads_as_words(checked: tuple[Dataset, LeakageReport]) -> None:
    _, report = checked
    said = next(pair.explanation for pair in report.leaks if pair.a_id == "copy")
    assert said.startswith("mirrored, scaled by 1.25, ")
    assert "detail agrees in 100% of" in said


def test_it_survives_the_disk(checked: tuple[Dataset, LeakageReport], tmp_path: Path) -> None:
    _, report = checked
    assert LeakageReport.load(report.save(tmp_path / "leakage.json")) == report


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"pairs": 3}')
    with pytest.raises(StorageError, match="not a saved leakage report"):
        LeakageReport.load(tmp_path / "other.json")


def test_show_lists_tiers_pairs_and_what_cannot_be_read(
    checked: tuple[Dataset, LeakageReport], capsys: pytest.CaptureFixture[str]
) -> None:
    checked[1].show()
    shown = capsys.readouterr().out
    for words in (
        "2 test photos are copies",
        "near_copy",
        "conflict",
        "labels differ",
        "[bold]torn",
        "pixels",
    ):
        assert words in shown


def test_frame_has_a_row_for_each_pair(checked: tuple[Dataset, LeakageReport]) -> None:
    frame = checked[1].frame()
    assert len(frame) == len(checked[1].pairs)
    assert set(frame.loc[frame.tier == "near_copy", "a_id"]) == {"copy", "conflict"}


def test_plot_draws_the_cut_and_the_pairs_side_by_side(checked: tuple[Dataset, LeakageReport]) -> None:
    report = checked[1]
    assert len(report.plot().axes) == 1 + 2 * len(report.pairs)
    assert len(report.plot(max_pairs=0).axes) == 1
    report.plot().canvas.draw()


@pytest.mark.parametrize(
    ("strategy", "train", "test"), [("regroup", 14, 2), ("drop_train", 10, 4), ("drop_test", 12, 2)]
)
def test_each_remedy_takes_the_leaks_away(
    checked: tuple[Dataset, LeakageReport], strategy: str, train: int, test: int
) -> None:
    data, report = checked
    resolved = report.resolve(data, strategy)  # type: ignore[arg-type]
    assert (len(resolved.train), len(resolved.test)) == (train, test)
    again = LeakageChecker(PixelEmbedder()).check(resolved)
    assert again.leaks == ()
    assert again.resolve(resolved) is resolved


def test_another_dataset_is_refused(checked: tuple[Dataset, LeakageReport]) -> None:
    data, report = checked
    with pytest.raises(DataError, match=r"run check\(\) on this one"):
        report.resolve(data.with_splits({"clean": "train"}))

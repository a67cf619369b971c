from __future__ import annotations

import time
from pathlib import Path

import pytest

from vlm_tune.data import Dataset, Quarantine
from vlm_tune.errors import StorageError
from vlm_tune.images import blank
from vlm_tune.records import Example
from vlm_tune.task import Task

TASK = Task(prompt="?", classes=("crack", "dent"))


def photos(folder: Path) -> Dataset:
    """Eight photos: one truncated, one of text, one gone, five good."""
    for name in ("crack", "dent"):
        (folder / name).mkdir()
        for number in range(4):
            (folder / name / f"{number}.png").write_bytes(blank(40, 30))
    (folder / "crack/1.png").write_bytes(blank(400, 300)[:-40])
    (folder / "dent/2.png").write_text("[red]no image[/red]")
    data = Dataset.from_folder(folder, task=TASK)
    (folder / "dent/3.png").unlink()
    return data


def test_it_lists_what_does_not_decode(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = photos(tmp_path)
    quarantine = data.quarantine()
    assert quarantine.ids == ("crack/1.png", "dent/2.png", "dent/3.png")
    assert quarantine.num_examples == 8
    assert quarantine.dataset_fingerprint == data.fingerprint
    reasons = [photo.reason for photo in quarantine.photos]
    assert "truncated" in reasons[0]
    assert "none of the formats" in reasons[1]
    assert "No such file" in reasons[2]
    quarantine.show()
    assert "3 of 8 photos do not decode" in capsys.readouterr().out
    assert quarantine.frame()["example_id"].tolist() == list(quarantine.ids)


def test_one_line_drops_them(tmp_path: Path) -> None:
    data = photos(tmp_path)
    assert len(data.without(data.quarantine().ids)) == 5


def test_nothing_to_drop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = photos(tmp_path)
    good = data.without(data.quarantine().ids)
    assert good.quarantine().ids == ()
    good.quarantine().show()
    assert "All 5 photos decode." in capsys.readouterr().out
    assert good.without(()).ids == good.ids


def test_it_is_kept_for_the_next_run(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    quarantine = photos(tmp_path / "photos").quarantine()
    assert Quarantine.load(quarantine.save(tmp_path / "quarantine.json")) == quarantine
    (tmp_path / "other.json").write_text('{"photos": 3}')
    with pytest.raises(StorageError, match="is not a saved quarantine list"):
        Quarantine.load(tmp_path / "other.json")


def test_a_long_list_stays_readable(capsys: pytest.CaptureFixture[str]) -> None:
    examples = [Example(id=f"{n}", image=b"", label=TASK.classes[n % 2]) for n in range(3000)]
    start = time.perf_counter()
    quarantine = Dataset(examples, task=TASK).quarantine()
    assert len(quarantine.ids) == 3000
    quarantine.show()
    shown = capsys.readouterr().out
    assert "and 2980 more" in shown
    assert len(shown.splitlines()) < 40
    assert time.perf_counter() - start < 30

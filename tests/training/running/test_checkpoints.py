"""Checkpoints: whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from vlm_tune import _files
from vlm_tune.errors import StorageError
from vlm_tune.training.running import checkpoints

SMALL, LARGE = "state.json", "optimizer.pt"


def save(run: Path, step: int) -> Path:
    folder = run / f"checkpoint-{step}"
    with checkpoints.writing(folder, {"losses": [0.5] * step}):
        (folder / "best").mkdir(parents=True)
        (folder / SMALL).write_bytes(b"x" * 1000)
        (folder / LARGE).write_bytes(b"x" * (2**20 + 1))
        (folder / "best" / "weights").write_bytes(b"best")
    return folder


def test_the_newest_by_number_comes_back_with_its_history(tmp_path: Path) -> None:
    for step in (9, 100, 20):
        save(tmp_path, step)
    for mine in ("checkpoint-of-mine", "checkpoint-100 (copy)"):
        (tmp_path / mine).mkdir()
    assert checkpoints.newest(tmp_path) == (tmp_path / "checkpoint-100", {"losses": [0.5] * 100})


def test_the_last_two_are_kept_whatever_the_clock_says(tmp_path: Path) -> None:
    for step in (2, 4, 6, 10):
        os.utime(save(tmp_path, step), (9e9 - step, 9e9 - step))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-6"]


def test_there_may_be_none(tmp_path: Path) -> None:
    assert checkpoints.newest(tmp_path / "nowhere") is None


def test_those_of_other_trainings_are_named_with_their_size_and_stay(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "begun").mkdir()
    (tmp_path / "notes.txt").touch()
    checkpoints.name_others(tmp_path / "mine")
    assert capfd.readouterr().err == ""
    kept = [save(tmp_path / "older", step) for step in (2, 4)]
    # Another name for the same bytes.
    (kept[1] / "linked").hardlink_to(kept[0] / LARGE)
    save(tmp_path / "mine", 2)
    checkpoints.name_others(tmp_path / "mine")
    said = " ".join(capfd.readouterr().err.split())
    assert "which were not finished: older (2.1 MB). They stay;" in said
    assert all(folder.exists() for folder in kept)


def lose_mark(folder: Path) -> None:
    (folder / "vlm_tune.json").unlink()


def cut_mark(folder: Path) -> None:
    os.truncate(folder / "vlm_tune.json", 40)


def cut(folder: Path) -> None:
    os.truncate(folder / LARGE, 2**20)


def change(folder: Path) -> None:
    (folder / SMALL).write_bytes(b"y" * 1000)


def lose(folder: Path) -> None:
    (folder / "best" / "weights").unlink()


@pytest.mark.parametrize("tear", [lose_mark, cut_mark, cut, change, lose])
def test_a_torn_one_is_told_of_and_removed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], tear: Callable[[Path], None]
) -> None:
    save(tmp_path, 2)
    torn = save(tmp_path, 4)
    tear(torn)
    found = checkpoints.newest(tmp_path)
    assert found is not None and found[0].name == "checkpoint-2"
    assert f"{torn} was cut off while it was written, or is damaged; training goes on from checkpoint-2" in (
        capfd.readouterr().err
    )
    assert not torn.exists()
    checkpoints.newest(tmp_path)
    assert not capfd.readouterr().err


def test_if_none_is_whole_training_starts_anew_and_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for step in (2, 4):
        lose_mark(save(tmp_path, step))
    assert checkpoints.newest(tmp_path) is None
    assert capfd.readouterr().err.count("training starts anew") == 2


def test_everything_is_on_the_disk_before_the_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real, folder = os.fsync, tmp_path / "checkpoint-2"

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").resolve().name)
        assert (folder / "vlm_tune.json").exists() is False or synced[-1] == folder.name
        real(descriptor)

    monkeypatch.setattr(_files.os, "fsync", fsync)
    save(tmp_path, 2)
    mark = next(place for place, name in enumerate(synced) if name.startswith(".vlm_tune.json"))
    assert {folder.name, tmp_path.name, "best", SMALL, LARGE, "weights"} <= set(synced[:mark])
    assert synced[mark + 1 :] == [folder.name]


@pytest.mark.parametrize(
    ("raised", "told"),
    [(KeyboardInterrupt(), KeyboardInterrupt), (OSError(28, "No space left on device"), StorageError)],
)
def test_what_cannot_be_written_is_removed(tmp_path: Path, raised: BaseException, told: type[BaseException]) -> None:
    before = save(tmp_path, 2)
    with pytest.raises(told), checkpoints.writing(tmp_path / "checkpoint-4", {}):
        (tmp_path / "checkpoint-4").mkdir()
        raise raised
    assert [path.name for path in tmp_path.iterdir()] == [before.name]


def test_while_one_is_written_again_it_is_not_whole(tmp_path: Path) -> None:
    folder = save(tmp_path, 2)
    with checkpoints.writing(folder, {}):
        assert not (folder / "vlm_tune.json").exists()
    assert json.loads((folder / "vlm_tune.json").read_text())["history"] == {}


def test_only_the_first_process_marks(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-2"
    with checkpoints.writing(folder, {}, main=False):
        folder.mkdir()
    assert list(folder.iterdir()) == []
    with pytest.raises(StorageError), checkpoints.writing(folder, {}, main=False):
        raise OSError(28, "No space left on device")

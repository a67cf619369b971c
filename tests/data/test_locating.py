from __future__ import annotations

from pathlib import Path

import pytest

from vlm_tune.data.locating import Locator, require_files
from vlm_tune.errors import DataError
from vlm_tune.records import Example


def test_an_image_keeps_the_id_of_its_source(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "a")
    locator = Locator(tmp_path, option="root")
    for name in ("a/1.jpg", "./a//1.jpg", "a/../a/1.jpg", f"{tmp_path}/a/1.jpg"):
        assert locator.find(name, where="row 1") == ("a/1.jpg", tmp_path / "a/1.jpg")
    assert locator.find("linked/1.jpg", where="row 1") == ("linked/1.jpg", tmp_path / "linked/1.jpg")


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert Locator(tmp_path / "link", option="root").find("1.jpg", where="") == ("1.jpg", tmp_path / "real/1.jpg")


@pytest.mark.parametrize(
    "name", ["../1.jpg", "/1.jpg", "..", ".", "a/../../photos2/1.jpg", "out/1.jpg", "out.jpg", "\0"]
)
def test_nothing_outside_is_found(tmp_path: Path, name: str) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    (root / "out").symlink_to(tmp_path)
    (root / "out.jpg").symlink_to(tmp_path / "1.jpg")
    with pytest.raises(DataError, match=r"row 7: .*(leaves|is not a file name)"):
        Locator(root, option="root").find(name, where="row 7")


def test_missing_files_are_counted(tmp_path: Path) -> None:
    (tmp_path / "0.jpg").touch()
    examples = [Example(id=f"{n}.jpg", image=tmp_path / f"{n}.jpg", label="a") for n in range(8)]
    with pytest.raises(DataError, match=r"7 of 8 images in t\.csv are missing .*: 1\.jpg, .*5\.jpg, \.\.\.; .*root="):
        require_files(examples, source=Path("t.csv"), folder=tmp_path, option="root")
    require_files(examples[:1], source=Path("t.csv"), folder=tmp_path, option="root")

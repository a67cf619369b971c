"""What is kept comes back, whatever else lies in the folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vlm_tune.errors import StorageError
from vlm_tune.leakage.memory import Memory


def test_what_is_kept_comes_back_by_key(tmp_path: Path) -> None:
    memory = Memory(tmp_path, "squares")
    memory.keep(["a", "b"], {"square": np.array([[1.0, 4.0], [9.0, 16.0]])})
    memory.keep(["c"], {"square": np.array([[25.0, 36.0]])})
    known = Memory(tmp_path, "squares").recall(["c", "a", "unknown"])
    assert {key: columns["square"].tolist() for key, columns in known.items()} == {"a": [1, 4], "c": [25, 36]}


def test_other_values_have_another_place(tmp_path: Path) -> None:
    Memory(tmp_path, "squares").keep(["a"], {"value": np.zeros((1, 2))})
    assert Memory(tmp_path, "cubes").recall(["a"]) == {}


def test_two_writers_of_the_same_photos_do_not_disturb_each_other(tmp_path: Path) -> None:
    for _ in range(2):
        Memory(tmp_path, "squares").keep(["a", "b"], {"value": np.arange(2)})
    assert len(list(tmp_path.rglob("*.npz"))) == 1
    assert Memory(tmp_path, "squares").recall(["b"])["b"]["value"] == 1


@pytest.mark.parametrize("damage", [b"", b"no archive", None])
def test_a_damaged_file_is_ignored(tmp_path: Path, damage: bytes | None) -> None:
    memory = Memory(tmp_path, "squares")
    memory.keep(["a"], {"value": np.ones((1, 1000))})
    memory.keep(["b"], {"value": np.ones((1, 1000))})
    (path, *_) = sorted(tmp_path.rglob("*.npz"))
    path.write_bytes(path.read_bytes()[:300] if damage is None else damage)
    assert len(memory.recall(["a", "b"])) == 1


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    memory = Memory(tmp_path, "squares")
    memory.keep(["a"], {"value": np.zeros(1)})
    (path,) = tmp_path.rglob("*.npz")
    np.savez(path, keys=np.array([b"a"]), value=np.array([{"code": 1}], object))
    assert memory.recall(["a"]) == {}


def test_without_a_folder_nothing_is_kept() -> None:
    memory = Memory(None, "squares")
    memory.keep(["a"], {"value": np.zeros(1)})
    assert memory.recall(["a"]) == {}


def test_a_place_that_cannot_be_written_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write"):
        Memory(tmp_path / "file", "squares").keep(["a"], {"value": np.zeros(1)})

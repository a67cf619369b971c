from __future__ import annotations

import json
from pathlib import Path

import pytest

from vlm_tune.errors import StorageError
from vlm_tune.profiling import TAGS, Profile


def test_frame_has_a_row_for_each_class(result: Profile) -> None:
    frame = result.frame()
    assert list(frame.columns) == ["train", "test", "all"]
    assert frame.loc["crack"].tolist() == [14, 1, 17]


def test_photo_frame_has_a_row_for_each_photo(result: Profile) -> None:
    frame = result.photo_frame().set_index("id")
    assert len(frame) == 23
    assert set(TAGS) <= set(frame.columns)
    assert frame.index[frame["unreadable"]].tolist() == ["empty.jpg", "torn.jpg", "gone.jpg"]
    assert frame.loc["01.png", ["width", "height", "format", "split"]].tolist() == [60, 50, "JPEG", "test"]
    assert frame.loc["01.png", "qwen3_vl_tokens"] == 72
    assert frame["brightness"].between(0, 1).sum() == 20
    assert "vote_share" not in frame.columns


def test_save_and_load(result: Profile, tmp_path: Path) -> None:
    path = result.save(tmp_path / "deep" / "profile.json")
    assert Profile.load(path) == result
    assert Profile.load(path).plot().axes


def test_load_refuses_what_is_no_profile(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(json.dumps({"num_examples": -1}))
    with pytest.raises(StorageError, match="is not a saved profile"):
        Profile.load(tmp_path / "p.json")
    with pytest.raises(StorageError, match="does not exist"):
        Profile.load(tmp_path / "q.json")

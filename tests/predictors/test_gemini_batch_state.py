"""Records of open jobs on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlm_tune.errors import StorageError
from vlm_tune.predictors.gemini_batch_state import JobFolder


def test_a_record_is_on_disk_until_it_is_removed(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path / "state" / "batch")
    assert folder.records("t") == []
    first, second, other = folder.begin("t", ["a", "b"], most_usd=0.5), folder.begin("t", ["c"]), folder.begin("u", [])
    named = folder.save(first.model_copy(update={"server_name": "batches/1", "input_file": "files/1"}))
    again = JobFolder(tmp_path / "state" / "batch")
    assert again.records("t") == [named, second]
    assert again.records("u") == [other]
    assert len({first.display_name, second.display_name, other.display_name}) == 3
    again.remove(named)
    again.remove(named)
    assert folder.records("t") == [second]


def test_a_file_that_is_no_record_is_named(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    record = folder.begin("t", ["a"])
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(StorageError, match=f"{record.display_name}.*is not the record of a batch job"):
        folder.records("t")

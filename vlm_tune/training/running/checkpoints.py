"""Checkpoints of a training run: written whole or not at all, and the newest whole one found again."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vlm_tune import _console, _files
from vlm_tune.errors import StorageError
from vlm_tune.training.running.failures import storing

__all__ = ["name_others", "newest", "writing"]

_MARK = "vlm_tune.json"
"""Written last into a checkpoint: what happened up to it, and what its files must be."""

_HASHED = 2**20
"""Bytes up to which a file is not only measured but hashed; hashing the optimizer's moments would take seconds."""

_KEPT = 2
"""Whole checkpoints that are kept: the newest, and the one before should the disk lose it."""


@contextmanager
def writing(folder: Path, history: Mapping[str, Any], *, main: bool = True) -> Iterator[None]:
    """Around the writing of a checkpoint: on the disk and marked as whole at the end, gone if it cannot be written.

    Once it is whole, those older than the one before are removed.

    Args:
        folder: The checkpoint.
        history: What happened up to it.
        main: Whether this process is the one that marks; all have written their files when its block ends.

    Raises:
        StorageError: The disk is full, or the folder cannot be written.
    """
    if not main:
        with storing(folder):
            yield
        return
    (folder / _MARK).unlink(missing_ok=True)
    try:
        with storing(folder):
            yield
            # Before the mark: a machine that loses its power must not keep the mark and lose the files.
            _files.sync_tree(folder.parent)
            files = {path.relative_to(folder).as_posix(): _facts(path) for path in folder.rglob("*") if path.is_file()}
            _files.write_json(folder / _MARK, {"files": files, "history": dict(history)})
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    # By number: transformers would go by the clock, which may be set back, and before the new one is whole.
    for old in _found(folder.parent)[_KEPT:]:
        shutil.rmtree(old, ignore_errors=True)


def newest(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the newest whole checkpoint in a folder and what happened up to it; torn ones behind it are removed."""
    torn: list[Path] = []
    found: tuple[Path, dict[str, Any]] | None = None
    for path in _found(folder):
        history = _history(path)
        if history is not None:
            found = path, history
            break
        torn.append(path)
    instead = f"training goes on from {found[0].name}" if found else "training starts anew"
    for path in torn:
        _console.notice(f"{path} was cut off while it was written, or is damaged; {instead}.")
        shutil.rmtree(path, ignore_errors=True)
    return found


def name_others(folder: Path) -> None:
    """Tell of the checkpoints that trainings of other settings or photos have left beside a folder of checkpoints.

    Nothing removes them: the same call as then would go on from there.
    """
    others = {path: _num_bytes(path) for path in sorted(folder.parent.iterdir()) if path != folder and _found(path)}
    if others:
        named = ", ".join(f"{path.name} ({size / 1e6:,.1f} MB)" for path, size in others.items())
        _console.notice(
            f"{folder.parent} holds checkpoints of trainings with other settings or photos, which were not finished: "
            f"{named}. They stay; delete them if none of these is to go on."
        )


def _num_bytes(folder: Path) -> int:
    # By file and not by name: the best state has one name in each checkpoint.
    stats = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return sum({stat.st_ino: stat.st_size for stat in stats}.values())


def _found(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, whole or not, the newest first."""
    found = [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)


def _history(path: Path) -> dict[str, Any] | None:
    """Return what happened up to a checkpoint, or None if it is not whole."""
    try:
        mark = _files.read_json(path / _MARK)
        whole = all(_facts(path / name) == facts for name, facts in mark["files"].items())
    except (StorageError, FileNotFoundError):
        return None
    return dict(mark["history"]) if whole else None


def _facts(path: Path) -> dict[str, int | str | None]:
    size = path.stat().st_size
    return {"bytes": size, "sha256": _files.sha256(path) if size <= _HASHED else None}

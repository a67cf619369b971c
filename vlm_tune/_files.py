"""Writing to disk so that nothing half-written is ever left: write beside, fsync, rename."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vlm_tune.errors import StorageError

__all__ = ["atomic_directory", "atomic_file", "read_json", "sha256", "sync_tree", "write_json", "write_text"]

_MAX_SYNCS = 16

_NEW, _OLD = ".part", ".old"
"""What is not whole yet, and what stepped aside for something new."""


@contextmanager
def atomic_file(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is fsynced and renamed over it.

    Raises:
        StorageError: The disk is full or the folder cannot be written.
    """
    target = Path(path)
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=_prefix(target), suffix=_NEW)
        os.close(handle)
        temporary = Path(name)
        temporary.chmod(0o666 & ~_umask())
        yield temporary
        _fsync(temporary)
        temporary.replace(target)
        _fsync(target.parent)
    except OSError as error:
        raise storage_error(target, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path | str) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success its files are fsynced and it takes that name.

    A folder that already stands at `path` is replaced only once the new one is complete. What a killed process
    left of an earlier attempt is removed first, or put back where it had stepped aside for a new one.

    Raises:
        StorageError: The disk is full or the folder cannot be written.
    """
    target = Path(path)
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target)
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=_prefix(target), suffix=_NEW))
        temporary.chmod(0o777 & ~_umask())
        yield temporary
        sync_tree(temporary)
        _swap(temporary, target)
        _fsync(target.parent)
    except OSError as error:
        raise storage_error(target, error) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path | str, text: str) -> Path:
    """Write UTF-8 text atomically and return the path."""
    target = Path(path)
    with atomic_file(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return target


def write_json(path: Path | str, value: Any) -> Path:
    """Write a value as indented JSON atomically and return the path."""
    return write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path | str) -> Any:
    """Read a JSON file.

    Raises:
        StorageError: The file is missing or is not JSON; the message names the line.
    """
    source = Path(path)
    try:
        return json.loads(source.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StorageError(f"{source} does not exist") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StorageError(f"{source} is not valid JSON: {error}") from error


def sync_tree(folder: Path) -> None:
    """Wait until a folder and everything in it is on the disk."""
    # Disks write many files down at once as fast as one.
    with ThreadPoolExecutor(_MAX_SYNCS) as pool:
        list(pool.map(_fsync, [folder, *folder.rglob("*")]))


def sha256(path: Path | str) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def storage_error(path: Path, error: OSError) -> StorageError:
    """Turn an operating-system error into one that says what to do next."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StorageError(f"no space left to write {path}; nothing was left behind, free some and run again")
    return StorageError(f"cannot write {path}: {error.strerror or error}")


def _prefix(target: Path) -> str:
    return f".{target.name}.{socket.gethostname()}-{os.getpid()}."


def _sweep(target: Path) -> None:
    # Only this machine's processes can be asked whether they still live.
    mine = f".{target.name}.{socket.gethostname()}-"
    for leftover in target.parent.glob(f"{glob.escape(mine)}*"):
        pid = leftover.name.removeprefix(mine).split(".")[0]
        if leftover.suffix not in (_NEW, _OLD) or not pid.isdecimal() or _alive(int(pid)):
            continue
        aside = leftover / target.name
        if leftover.suffix == _OLD and aside.exists() and not target.exists():
            aside.replace(target)
        shutil.rmtree(leftover, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _swap(new: Path, target: Path) -> None:
    # A full folder cannot be renamed over: the old one steps aside and is removed last.
    if not target.exists():
        new.replace(target)
        return
    aside = Path(tempfile.mkdtemp(dir=target.parent, prefix=_prefix(target), suffix=_OLD))
    target.replace(aside / target.name)
    try:
        new.replace(target)
    except OSError:
        (aside / target.name).replace(target)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

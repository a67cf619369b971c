"""The journal: every answer on disk the moment it arrives, so that nothing is asked or paid for twice."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import NonNegativeFloat, ValidationError
from pydantic_core import from_json

from vlm_tune._console import notice
from vlm_tune.errors import StorageError
from vlm_tune.journal.index import KeyIndex
from vlm_tune.records import Prediction, Record

__all__ = ["Entry", "Journal", "journal_key"]

_HEADER = b'{"vlm_tune_journal": 1}\n'
_SYNC_EVERY_S = 1.0
_LINE = 1 << 10
"""Bytes read for one entry at first; a longer one is read on."""


class Entry(Record):
    """One line of a journal."""

    key: str
    """Which question this answers: see `journal_key`."""
    prediction: Prediction
    """The answer."""
    elapsed_s: NonNegativeFloat = 0.0
    """Wall time since the answer before it, or since the run began; adds up to the time spent asking."""


def journal_key(content_hash: str, task_fingerprint: str, predictor_fingerprint: str) -> str:
    """Return the 32 hexadecimal digits under which an answer is kept.

    The same image under another name has the same key; another prompt or another predictor has not.

    Args:
        content_hash: `Example.content_hash`.
        task_fingerprint: `Task.fingerprint`.
        predictor_fingerprint: `Predictor.fingerprint`.
    """
    parts = "\0".join((content_hash, task_fingerprint, predictor_fingerprint))
    return hashlib.sha256(parts.encode()).hexdigest()[:32]


class Journal:
    """Append-only answers on disk, one JSON object a line; a later line replaces an earlier one of its key.

    A process killed while writing leaves at most one torn line at the end, which the next one cuts off. Only
    positions are kept in memory, so a journal of a million answers opens in 50 MB of it. While it is open,
    `<name>.holder` beside it says which process has it.

    Args:
        path: The file; created with its folders when it does not exist. None: a file that nobody sees and that
            is gone when the journal is closed.

    Raises:
        StorageError: Another process has it open, it is not a journal, or it cannot be written.

    Examples:
        >>> import tempfile
        >>> answer = Prediction(example_id="7.jpg", outcome="answered", label="dent")
        >>> with Journal(Path(tempfile.mkdtemp(), "answers.jsonl")) as journal:
        ...     journal.append("0" * 32, answer)
        ...     journal.get("0" * 32).prediction.label
        'dent'
    """

    def __init__(self, path: Path | str | None) -> None:
        self.path = Path("(temporary)") if path is None else Path(path)
        self._positions = KeyIndex()
        self._kept = path is not None
        self._synced_at = time.monotonic()
        try:
            self._file = self._open()
        except OSError as error:
            raise StorageError(f"cannot open journal {self.path}: {error.strerror}") from error
        try:
            if self._kept:
                _lock(self._file, self.path)
            self._end = self._read()
            if self._end == 0:
                self._write(_HEADER)
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._positions)

    def __contains__(self, key: str) -> bool:
        return key in self._positions

    def get(self, key: str) -> Entry | None:
        """Return the newest entry of a key, or None where there is none.

        Raises:
            StorageError: The line was tampered with.
        """
        position = self._positions.get(key)
        return None if position is None else self._entry(self._line(position), position)

    def entries(self) -> Iterator[Entry]:
        """Yield what was written, in that order, replaced entries included.

        Raises:
            StorageError: A line was tampered with.
        """
        position = len(_HEADER)
        while position < self._end:
            line = self._line(position)
            yield self._entry(line, position)
            position += len(line)

    def append(self, key: str, prediction: Prediction, *, elapsed_s: float = 0.0) -> None:
        """Write one answer; once this returns, killing the process does not lose it.

        Raises:
            StorageError: The disk is full; the answers before this one stay readable.
        """
        entry = Entry(key=key, prediction=prediction, elapsed_s=elapsed_s)
        position = self._end
        self._write(entry.model_dump_json(exclude_defaults=True).encode() + b"\n")
        self._positions[key] = position

    def sync(self) -> None:
        """Wait until everything is safely on the disk."""
        os.fsync(self._file)
        self._synced_at = time.monotonic()

    def close(self) -> None:
        """Bring everything safely to disk and let others open the journal; closing twice is harmless."""
        if self._file < 0:
            return
        try:
            if self._kept:
                _holder(self.path).unlink(missing_ok=True)
                os.fsync(self._file)
        finally:
            os.close(self._file)
            self._file = -1

    def _open(self) -> int:
        if not self._kept:
            with tempfile.TemporaryFile(prefix="vlm-tune-") as file:
                return os.dup(file.fileno())
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def _line(self, position: int) -> bytes:
        size = _LINE
        os.lseek(self._file, position, os.SEEK_SET)
        line = os.read(self._file, size)
        while b"\n" not in line and (more := os.read(self._file, size)):
            line += more
            size *= 2
        return line[: line.find(b"\n") + 1]

    def _write(self, line: bytes) -> None:
        try:
            os.lseek(self._file, self._end, os.SEEK_SET)
            written = os.write(self._file, line)
            if written < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            os.ftruncate(self._file, self._end)
            raise StorageError(
                f"cannot write to journal {self.path}: {error.strerror}; the {len(self)} answers in it are "
                "safe, make room and run again"
            ) from error
        self._end += written
        # The page cache survives a kill; a power cut costs at most this second.
        if self._kept and time.monotonic() - self._synced_at > _SYNC_EVERY_S:
            self.sync()

    def _entry(self, line: bytes, position: int) -> Entry:
        try:
            return Entry.model_validate_json(line)
        except ValidationError as error:
            raise StorageError(f"{self.path}, byte {position}: not an answer; restore or move the file") from error

    def _read(self) -> int:
        """Note where each entry is, cut off a torn last line, and return the end of the file."""
        position = 0
        with open(self._file, "rb", closefd=False) as file:
            size = os.fstat(self._file).st_size
            for number, line in enumerate(file, start=1):
                whole = line.endswith(b"\n")
                if number == 1:
                    if line != _HEADER and not _HEADER.startswith(line):
                        raise StorageError(f"{self.path} is not a journal of vlm-tune; choose another folder")
                elif whole and (key := _key_of(line)) is not None:
                    self._positions[key] = position
                elif position + len(line) < size:
                    raise StorageError(f"{self.path}, line {number}: not an answer; restore or move the file")
                else:
                    whole = False
                if not whole:
                    os.ftruncate(self._file, position)
                    notice(f"{self.path.name}: cut off a last line that was only half written")
                    break
                position += len(line)
        return position


def _key_of(line: bytes) -> str | None:
    try:
        # A line may have the scores of a thousand classes: the standard library takes three times as long.
        key = from_json(line)["key"]
        return key if len(bytes.fromhex(key)) == 16 else None
    except (ValueError, KeyError, TypeError):
        return None


def _holder(path: Path) -> Path:
    return path.with_name(path.name + ".holder")


def _lock(file: int, path: Path) -> None:
    """Take the lock of an open file, and say who has it; the system gives it back however the process ends."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(file, 1 << 40, os.SEEK_SET)
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = _holder(path)
        who = f" ({holder.read_text(encoding='utf-8')})" if holder.exists() else ""
        raise StorageError(
            f"journal {path} is in use by another run{who}; wait for it to end, or choose another run_dir"
        ) from error
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    # Only for the message of another process: a full disk shows at the first answer, with the right advice.
    with suppress(OSError):
        _holder(path).write_text(f"process {os.getpid()} on {socket.gethostname()} since {now}", encoding="utf-8")

"""What is on disk about batch jobs, so that a killed process finds its jobs again."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from vlm_tune._files import storage_error, write_text
from vlm_tune.errors import StorageError
from vlm_tune.records import Record

__all__ = ["JobFolder", "JobRecord"]

_SUFFIX = ".batch.json"


class JobRecord(Record):
    """One batch job, from before it is created until its answers are safe."""

    display_name: str
    """Our name for it: unique, and known before there is a job."""
    task: str
    """Fingerprint of the task asked."""
    keys: tuple[str, ...]
    """What it asks, one key per example."""
    most_usd: float = 0.0
    """The most that it may cost."""
    begun_s: float
    """When it was first asked for, in seconds since 1970."""
    asked_s: float
    """When it was last asked for, in seconds since 1970."""
    server_name: str | None = None
    """The server's name for it, once known."""
    input_file: str | None = None
    """The uploaded file that it reads; None when its requests went inline."""
    losses_counted: bool = False
    """Whether the ledger knows of the answers that it lost."""


class JobFolder:
    """The records of a predictor's open jobs, a file each, on disk before anything they tell of happens.

    Args:
        path: The folder; created when the first record is written.

    Examples:
        >>> import tempfile
        >>> folder = JobFolder(Path(tempfile.mkdtemp()))
        >>> record = folder.begin("a-task", ["k1", "k2"])
        >>> [job.keys for job in folder.records("a-task")]
        [('k1', 'k2')]
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def records(self, task: str) -> list[JobRecord]:
        """Return the open jobs of a task, the oldest first.

        Raises:
            StorageError: A record cannot be read.
        """
        found = []
        for path in self.path.glob(f"*{_SUFFIX}"):
            try:
                found.append(JobRecord.model_validate_json(path.read_bytes()))
            except (OSError, ValidationError) as error:
                raise StorageError(
                    f"{path} is not the record of a batch job; restore it, or remove it if no job runs any more"
                ) from error
        return sorted((record for record in found if record.task == task), key=lambda record: record.begun_s)

    def begin(self, task: str, keys: Sequence[str], *, most_usd: float = 0.0) -> JobRecord:
        """Write down a job that does not exist yet, under a new name."""
        now = time.time()
        name = f"vlm-tune-{uuid.uuid4().hex}"
        record = JobRecord(display_name=name, task=task, keys=tuple(keys), most_usd=most_usd, begun_s=now, asked_s=now)
        return self.save(record)

    def save(self, record: JobRecord) -> JobRecord:
        """Write a record safely to disk and return it."""
        write_text(self._path(record), record.model_dump_json())
        return record

    def remove(self, record: JobRecord) -> None:
        """Forget a job: its answers are safe, or it was never created."""
        self._path(record).unlink(missing_ok=True)

    def prepared(self) -> Path:
        """Return where the requests of the next job are written down; what a killed run left there is removed.

        Raises:
            StorageError: The folder cannot be written.
        """
        path = self.path / "requests.jsonl"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(path, error) from error
        return path

    def _path(self, record: JobRecord) -> Path:
        return self.path / f"{record.display_name}{_SUFFIX}"

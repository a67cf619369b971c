"""The server's side of batch jobs: creating each once, looking at it, fetching what it brought."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from vlm_tune._console import notice
from vlm_tune.errors import PredictorError
from vlm_tune.predictors.asking import RejectedError
from vlm_tune.predictors.gemini_batch_options import BatchOptions
from vlm_tune.predictors.gemini_batch_state import JobFolder, JobRecord
from vlm_tune.predictors.gemini_batch_wire import Matched, file_items, inline_items, inlined, matched
from vlm_tune.predictors.gemini_wire import failure
from vlm_tune.predictors.remote import Retry

if TYPE_CHECKING:
    from google.genai import Client
    from google.genai.types import BatchJob, GenerateContentConfig, InlinedRequest

    from vlm_tune.predictors.gemini import Gemini

__all__ = ["BatchJobs", "Look"]

_ENDED = {"SUCCEEDED", "PARTIALLY_SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED", "GONE", "UNREADABLE"}
_NOT_THERE = 404
_OVER = {400, 404, 409}
_PAGE = 100


@dataclass(frozen=True)
class Look:
    """What a look at a job shows: its state, in the service's words, and the job if there is one."""

    state: str
    job: BatchJob | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.state in _ENDED


class BatchJobs:
    """Creates the jobs of one `predict` and asks after them.

    A job has a name of our own, on disk before it is asked for. Whenever it is unclear whether the server created
    it, it is looked for by that name, and created only when it is certainly not there.
    """

    def __init__(self, gemini: Gemini, client: Client, folder: JobFolder, options: BatchOptions) -> None:
        self.gemini = gemini
        self.client = client
        self.folder = folder
        self.options = options

    def create(self, record: JobRecord, requests: Path, config: GenerateContentConfig) -> JobRecord | None:
        """Create the job of a record; None when the server will not, or not before the deadline.

        Args:
            record: The job, on disk.
            requests: Its requests, one a line.
            config: The settings they share.

        Raises:
            PredictorError: The key or the model is refused, or nobody can tell whether there is a job.
        """
        source: list[InlinedRequest] | str | None = None
        said = ""
        while time.time() < record.begun_s + self.options.deadline_s:
            try:
                if source is None:
                    source = self._source(requests, config)
                    record = record.model_copy(update={"input_file": source if isinstance(source, str) else None})
                # On disk before the server hears of it: whenever we are killed, we know what to look for.
                record = self.folder.save(record.model_copy(update={"asked_s": time.time()}))
                return self._ask(record, source)
            except Retry as error:
                reason = self.gemini.hide_key(str(error))
                if reason != said:
                    notice(f"The batch job cannot be created now, trying again: {reason}")
                    said = reason
                record = record.model_copy(update={"asked_s": time.time()})
                found = self.find(record)
                if found is not None:
                    return found
                time.sleep(max(0.0, record.asked_s + (error.asked_s or 0.0) - time.time()))
            except RejectedError as error:
                notice(f"{self.gemini.model} refuses the batch job: {self.gemini.hide_key(str(error))}")
                break
        self.forget(record)
        return None

    def find(self, record: JobRecord) -> JobRecord | None:
        """Return the record with the server's name of its job, or None when there certainly is no job.

        A job may take `settle_s` to appear in the server's list. Of two jobs by the same name the older one
        counts, the other is cancelled.

        Raises:
            PredictorError: The server does not list its jobs.
        """
        settled = min(record.asked_s, time.time()) + self.options.settle_s
        pause, failures = self.options.settle_s / 8, 0
        while True:
            try:
                names = self._listed(record.display_name)
                for later in names[1:]:
                    self._cancel(later)
                if names:
                    return self.folder.save(record.model_copy(update={"server_name": names[0]}))
                if time.time() >= settled:
                    return None
            except (Retry, RejectedError) as error:
                failures += 1
                if failures >= self.gemini.options.retry.attempts:
                    reason = self.gemini.hide_key(str(error))
                    raise PredictorError(
                        f"cannot tell whether batch job {record.display_name} exists: {reason}; run again to go on"
                    ) from None
            time.sleep(pause)
            pause *= 1.5

    def look(self, record: JobRecord) -> Look:
        """Return how a job is.

        Raises:
            Retry: The server cannot tell now.
            RejectedError: The server will not tell.
            PredictorError: The key is refused.
        """
        try:
            job = self.client.batches.get(name=record.server_name or "")
        except ValidationError:  # the job is there, but the client cannot read what it brought
            return Look("UNREADABLE")
        except Exception as error:
            if getattr(error, "code", None) == _NOT_THERE:
                return Look("GONE")
            raise failure(error) from None
        state = job.state.value if job.state else "UNKNOWN"
        return Look(state.removeprefix("JOB_STATE_").removeprefix("BATCH_STATE_"), job)

    def collect(self, record: JobRecord, look: Look) -> Matched:
        """Return what a job that ended brought, put to its questions.

        Raises:
            Retry: Its file cannot be fetched now.
            RejectedError: Its file is refused.
            PredictorError: The key is refused.
        """
        job = look.job
        if job is None or job.dest is None:
            return Matched()
        if job.dest.file_name is None:
            return matched(inline_items(job), record.keys)
        try:
            content = self.client.files.download(file=job.dest.file_name)
        except Exception as error:
            if getattr(error, "code", None) == _NOT_THERE:
                return Matched()
            raise failure(error) from None
        return matched(file_items(content), record.keys)

    def cancel(self, record: JobRecord) -> None:
        """Ask the server to stop a job; it may have ended already."""
        self._cancel(record.server_name or "")

    def forget(self, record: JobRecord) -> None:
        """Take the photos of a job from the server, and its record from disk."""
        if record.input_file is not None:
            try:
                self.client.files.delete(name=record.input_file)
            except Exception as error:
                if getattr(error, "code", None) != _NOT_THERE:
                    reason = self.gemini.hide_key(str(failure(error)))
                    notice(f"{record.input_file} stays with the service, which removes it after two days: {reason}")
        self.folder.remove(record)

    def _source(self, requests: Path, config: GenerateContentConfig) -> list[InlinedRequest] | str:
        """Return the requests themselves if they are small, the name of an uploaded file otherwise."""
        from google.genai import types

        if requests.stat().st_size <= 1e6 * self.options.max_inline_mb:
            return inlined(requests, config)
        try:
            # The server names the address of the upload: without this, a proxy is gone round.
            there = types.HttpOptions(base_url=self.gemini.base_url)
            upload = types.UploadFileConfig(mime_type="application/jsonl", http_options=there)
            name = self.client.files.upload(file=requests, config=upload).name
        except Exception as error:
            raise failure(error) from None
        if name is None:
            raise Retry("the uploaded file has no name")
        return name

    def _ask(self, record: JobRecord, source: list[InlinedRequest] | str) -> JobRecord:
        from google.genai import types

        try:
            job = self.client.batches.create(
                model=self.gemini.model,
                src=source,
                config=types.CreateBatchJobConfig(display_name=record.display_name),
            )
        except Exception as error:
            # The client's errors carry the request, and with it the key: they end here.
            raise failure(error) from None
        if job.name is None:
            raise Retry("the reply does not name the job")
        return self.folder.save(record.model_copy(update={"server_name": job.name}))

    def _listed(self, display_name: str) -> list[str]:
        """Return the server's names of all jobs with our name, the oldest first."""
        try:
            jobs = list(self.client.batches.list(config={"page_size": _PAGE}))
        except Exception as error:
            raise failure(error) from None
        ours = [job for job in jobs if job.display_name == display_name and job.name]
        ours.sort(key=lambda job: job.create_time.timestamp() if job.create_time else 0.0)
        return [job.name or "" for job in ours]

    def _cancel(self, name: str) -> None:
        try:
            self.client.batches.cancel(name=name)
        except Exception as error:
            # A job that has ended cannot be cancelled, and need not be.
            if getattr(error, "code", None) not in _OVER:
                notice(f"Batch job {name} could not be cancelled: {self.gemini.hide_key(str(failure(error)))}")

"""The batch side of the fake Gemini: jobs, uploaded and downloaded files, and faults on a schedule."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import Message
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

from vlm_tune.testing.local_server import Reply

__all__ = ["BatchFault", "FakeBatches", "FakeJob"]

BatchFault = Literal[
    "busy",  # 429 at creation; there is no job
    "cancelled",  # somebody else cancels it before it begins
    "duplicated",  # every answer comes twice
    "expired",  # the service gives up, no answer
    "failed",  # the job fails, no answer
    "flaky",  # the first three looks at it get 503
    "gone",  # the job is not there when it is looked for
    "item_errors",  # every third item has an error instead of an answer
    "missing",  # every third answer is not there
    "never_ends",  # it runs until it is cancelled
    "no_keys",  # the answers do not say whose they are
    "partial",  # only the first half is answered
    "rejected",  # 400 at creation; there is no job
    "reordered",  # the answers come backwards
    "reset",  # the job is created, its name is lost on the way, and the next list does not show it yet
    "strangers",  # answers to questions that nobody asked are among them
    "unreadable",  # an item has an error in a form that the client cannot read
]
"""What can be wrong with one batch job, or with the call that creates it."""

_ENDS = {
    "cancelled": "BATCH_STATE_CANCELLED",
    "expired": "BATCH_STATE_EXPIRED",
    "failed": "BATCH_STATE_FAILED",
    "partial": "JOB_STATE_PARTIALLY_SUCCEEDED",
}
_RUNNING = ("BATCH_STATE_PENDING", "BATCH_STATE_RUNNING")
_TYPE = "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch"
_PAGE = 20


@dataclass
class FakeJob:
    """One batch job.

    Attributes:
        name: What the server calls it, such as `batches/1`.
        display_name: What the client calls it.
        model: The model asked.
        items: Its requests, each with its key.
        input_file: The uploaded file it was made from; None for inline requests.
        fault: What is wrong with it.
        cancelled: Whether the client cancelled it.
    """

    name: str
    display_name: str
    model: str
    items: Sequence[tuple[str | None, Mapping[str, Any]]] = field(repr=False)
    input_file: str | None
    fault: BatchFault | None
    cancelled: bool = False
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    lines: list[dict[str, Any]] | None = field(default=None, repr=False)
    looks: int = 0
    listings: int = 0


class FakeBatches:
    """The jobs and files of a `FakeGeminiServer`.

    Args:
        answer: Function of model and request that returns `{"response": ...}` or `{"error": ...}`.
        faults: What is wrong with the first, second ... creation of a job.
        delay_s: How long a job takes.

    Attributes:
        jobs: Every job that was created, in order.
        files: Name to content of the files that were uploaded and not deleted.
        num_billed: Answers that were made, and would be charged for.
    """

    def __init__(
        self,
        answer: Callable[[str, Mapping[str, Any]], dict[str, Any]],
        *,
        faults: Sequence[BatchFault | None] = (),
        delay_s: float = 0.0,
    ) -> None:
        self.jobs: list[FakeJob] = []
        self.files: dict[str, bytes] = {}
        self.num_billed = 0
        self._answer, self._faults, self._delay_s = answer, faults, delay_s
        self._num_created = self._num_files = 0
        self._uploads: dict[str, bytearray] = {}
        self._lock = threading.Lock()

    def serve(self, method: str, target: str, headers: Message, body: bytes) -> Reply | None:
        """Return the reply to a request about jobs or files; None for any other."""
        path, query = urlsplit(target).path, parse_qs(urlsplit(target).query)
        parts = path.strip("/").split("/")
        name, _, verb = parts[-1].partition(":")
        with self._lock:
            if parts[0] == "upload":
                return self._upload(parts, query, headers, body)
            match method, parts[1:-1] or [name], verb:
                case "POST", ["models"], "batchGenerateContent":
                    return self._create(name, json.loads(body)["batch"])
                case "GET", ["batches"], "" if len(parts) == 2:
                    return self._list(query)
                case "GET", ["batches"], "":
                    return self._get(f"batches/{name}")
                case "POST", ["batches"], "cancel":
                    return self._cancel(f"batches/{name}")
                case "GET", ["files"], "download":
                    return self._download(f"files/{name}")
                case "DELETE", ["files"], "":
                    return _ok({}) if self.files.pop(f"files/{name}", None) is not None else _missing(path)
        return None

    def _upload(self, parts: Sequence[str], query: Mapping[str, Sequence[str]], headers: Message, body: bytes) -> Reply:
        """Speak the resumable protocol: a start that gives an address, then chunks, the last one final."""
        command = headers.get("X-Goog-Upload-Command", "")
        if command == "start":
            self._num_files += 1
            upload = str(self._num_files)
            self._uploads[upload] = bytearray()
            address = f"https://elsewhere.invalid/{'/'.join(parts)}?upload_id={upload}"
            return 200, {"X-Goog-Upload-URL": address, "X-Goog-Upload-Status": "active"}, b"{}"
        [upload] = query["upload_id"]
        received = self._uploads[upload]
        if int(headers["X-Goog-Upload-Offset"]) != len(received):
            return _error(400, "INVALID_ARGUMENT", "The offset is not where the last chunk ended.")
        received += body
        if "finalize" not in command:
            return 200, {"X-Goog-Upload-Status": "active"}, b"{}"
        name = f"files/in-{upload}"
        self.files[name] = bytes(self._uploads.pop(upload))
        status, more, payload = _ok({"file": {"name": name, "sizeBytes": str(len(received)), "state": "ACTIVE"}})
        return status, {**more, "X-Goog-Upload-Status": "final"}, payload

    def _create(self, model: str, batch: Mapping[str, Any]) -> Reply:
        fault = self._faults[self._num_created] if self._num_created < len(self._faults) else None
        self._num_created += 1
        if fault == "busy":
            return _error(429, "RESOURCE_EXHAUSTED", "Too many batch jobs are waiting.")
        if fault == "rejected":
            return _error(400, "INVALID_ARGUMENT", "Request contains an invalid argument.")
        source = batch["inputConfig"]
        file = source.get("fileName")
        if file is not None and file not in self.files:
            return _missing(file)
        job = FakeJob(
            name=f"batches/{len(self.jobs) + 1}",
            display_name=batch.get("displayName", ""),
            model=model,
            items=_lines(self.files[file]) if file is not None else _inlined(source["requests"]["requests"]),
            input_file=file,
            fault=fault,
        )
        self.jobs.append(job)
        if fault == "reset":
            return 200, {"Content-Length": "4096"}, b'{"name": '
        return _ok(self._shown(job))

    def _list(self, query: Mapping[str, Sequence[str]]) -> Reply:
        start, size = int(query.get("pageToken", ["0"])[0]), int(query.get("pageSize", [str(_PAGE)])[0])
        known = []
        for job in reversed(self.jobs):
            job.listings += 1
            if job.fault != "gone" and (job.fault != "reset" or job.listings > 1):
                known.append(job)
        page: dict[str, Any] = {"operations": [self._shown(job) for job in known[start : start + size]]}
        if start + size < len(known):
            page["nextPageToken"] = str(start + size)
        return _ok(page)

    def _get(self, name: str) -> Reply:
        job = self._find(name)
        if job is None or job.fault == "gone":
            return _missing(name)
        job.looks += 1
        if job.fault == "flaky" and job.looks <= 3:
            return _error(503, "UNAVAILABLE", "The service is overloaded.")
        return _ok(self._shown(job, whole=True))

    def _cancel(self, name: str) -> Reply:
        job = self._find(name)
        if job is None or job.fault == "gone":
            return _missing(name)
        if job.lines is not None or job.fault in _ENDS:
            return _error(400, "FAILED_PRECONDITION", "The job has ended.")
        job.cancelled = True
        return _ok({})

    def _download(self, name: str) -> Reply:
        job = self._find(name.replace("files/out-", "batches/"))
        if job is None or job.lines is None:
            return _missing(name)
        return 200, {}, "".join(json.dumps(line) + "\n" for line in job.lines).encode()

    def _find(self, name: str) -> FakeJob | None:
        return next((job for job in self.jobs if job.name == name), None)

    def _shown(self, job: FakeJob, *, whole: bool = False) -> dict[str, Any]:
        """Return a job as the service shows it, with its results if it is shown whole."""
        state = self._state(job)
        about: dict[str, Any] = {
            "@type": _TYPE,
            "name": job.name,
            "displayName": job.display_name,
            "model": f"models/{job.model}",
            "state": state,
            "createTime": job.created.isoformat(),
            "batchStats": {"requestCount": str(len(job.items))},
        }
        if whole and job.lines is not None:
            about["output"] = (
                {"responsesFile": job.name.replace("batches/", "files/out-")}
                if job.input_file is not None
                else {"inlinedResponses": {"inlinedResponses": [_inline(line) for line in job.lines]}}
            )
        return {"name": job.name, "metadata": about, "done": state not in _RUNNING}

    def _state(self, job: FakeJob) -> str:
        if job.cancelled:
            return "BATCH_STATE_CANCELLED"
        if (datetime.now(UTC) - job.created).total_seconds() < self._delay_s or job.fault == "never_ends":
            return "BATCH_STATE_RUNNING" if job.looks else "BATCH_STATE_PENDING"
        if job.fault not in ("cancelled", "expired", "failed") and job.lines is None:
            job.lines = self._answers(job)
        return _ENDS.get(job.fault or "", "BATCH_STATE_SUCCEEDED")

    def _answers(self, job: FakeJob) -> list[dict[str, Any]]:
        """Answer every item, then spoil what comes back as the fault says."""
        asked = job.items[: (len(job.items) + 1) // 2] if job.fault == "partial" else job.items
        lines = []
        for place, (key, request) in enumerate(asked):
            if job.fault == "item_errors" and place % 3 == 0:
                lines.append({"key": key, "error": {"code": 13, "message": "Internal error."}})
                continue
            answer = self._answer(job.model, request)
            self.num_billed += "response" in answer
            lines.append({"key": key, **answer})
        match job.fault:
            case "duplicated":
                return lines + lines
            case "missing":
                return [line for place, line in enumerate(lines) if place % 3]
            case "reordered":
                return lines[::-1]
            case "no_keys":
                return [{name: value for name, value in line.items() if name != "key"} for line in lines]
            case "unreadable":
                error = {"code": 3, "message": "Invalid argument.", "details": [{"@type": "google.rpc.ErrorInfo"}]}
                return [{"key": lines[0]["key"], "error": error}, *lines[1:]]
            case "strangers":
                return [{**lines[0], "key": "nobody"}, *lines]
        return lines


def _lines(content: bytes) -> list[tuple[str | None, Mapping[str, Any]]]:
    loaded = [json.loads(line) for line in content.splitlines()]
    return [(line.get("key"), _settled(line["request"])) for line in loaded]


def _settled(request: Mapping[str, Any]) -> dict[str, Any]:
    return {"generationConfig": request.get("generation_config", {}), **request}


def _inlined(requests: Sequence[Mapping[str, Any]]) -> list[tuple[str | None, Mapping[str, Any]]]:
    return [(item.get("metadata", {}).get("key"), item["request"]) for item in requests]


def _inline(line: Mapping[str, Any]) -> dict[str, Any]:
    answer = {name: value for name, value in line.items() if name != "key"}
    return {**answer, "metadata": {"key": line["key"]}} if "key" in line else answer


def _ok(value: Mapping[str, Any]) -> Reply:
    return 200, {}, json.dumps(value).encode()


def _missing(name: str) -> Reply:
    return _error(404, "NOT_FOUND", f"{name} is not there")


def _error(code: int, status: str, message: str) -> Reply:
    return code, {}, json.dumps({"error": {"code": code, "message": message, "status": status}}).encode()

"""A fake Gemini: a real server on 127.0.0.1 that speaks the service's wire format, with faults on a schedule."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.message import Message
from typing import Any, Literal

from vlm_tune.testing.gemini_batch import BatchFault, FakeBatches
from vlm_tune.testing.local_server import LocalServer, Reply

__all__ = ["FakeGeminiServer", "Fault", "GeminiRequest"]

Fault = Literal[
    "bad_request",  # 400 for this request alone
    "blocked",  # the prompt is blocked, no candidate
    "cut_off",  # MAX_TOKENS in the middle of the answer
    "empty",  # MAX_TOKENS, all of them spent thinking
    "malformed",  # 200 with a body that is not JSON
    "new_version",  # a good answer of another model version
    "no_candidate",  # 200 without any answer in it
    "off_list",  # words that are no class
    "quota",  # 429 that says nothing of when to come back
    "rate_limit",  # 429 with RetryInfo
    "reset",  # the connection breaks in mid-body
    "safety",  # the answer is blocked
    "server_error",  # 500
    "stall",  # no reply
    "unavailable",  # 503 with Retry-After
]
"""What can be wrong with one reply."""


@dataclass(frozen=True)
class GeminiRequest:
    """One request that the fake server got.

    Attributes:
        model: The model asked.
        prompt: The text parts of the question, joined.
        image: The bytes of the photo asked about.
        choices: What the answer schema allows, alone or in a list; empty without a schema.
        config: `generationConfig` as it came.
        api_key: The key that came with it.
        shots: Photos that were shown before the question, each with its answer.
    """

    model: str
    prompt: str
    image: bytes = field(repr=False)
    choices: tuple[str, ...]
    config: Mapping[str, Any]
    api_key: str = field(repr=False)
    shots: tuple[tuple[bytes, str], ...] = field(default=(), repr=False)


@dataclass
class FakeGeminiServer(LocalServer):
    """A server on 127.0.0.1 that speaks Gemini's wire format, with faults on a schedule.

    Args:
        answer: The words of every answer, or a function of the request that returns them.
        faults: What is wrong with the first, second ... reply; None is a good one, as are all after the last.
        retry_delay_s: The wait that `rate_limit` asks for.
        latency_s: Time taken for each reply.
        refuse_schema: Whether requests with an answer schema get a 400.
        api_key: The only key that is accepted; any, by default.
        batch_faults: What is wrong with the first, second ... batch job; None is a good one.
        batch_delay_s: Time taken for each batch job.

    Attributes:
        batches: The batch jobs and files it has.
        requests: What was asked, faulty replies included.
        num_billed: Replies that a model made, also those that never arrived whole.

    Examples:
        >>> with FakeGeminiServer("red", faults=["unavailable"]) as server:
        ...     server.url.startswith("http://127.0.0.1:")
        True
    """

    answer: Callable[[GeminiRequest], str] | str
    faults: Sequence[Fault | None] = ()
    retry_delay_s: float = 0.05
    latency_s: float = 0.0
    refuse_schema: bool = False
    api_key: str | None = None
    batch_faults: Sequence[BatchFault | None] = ()
    batch_delay_s: float = 0.0
    batches: FakeBatches = field(init=False, repr=False)
    requests: list[GeminiRequest] = field(default_factory=list, init=False, repr=False)
    num_billed: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.batches = FakeBatches(self._batched, faults=self.batch_faults, delay_s=self.batch_delay_s)

    @property
    def url(self) -> str:
        """What to pass as `base_url`."""
        return self.origin

    def serve(self, method: str, path: str, headers: Message, body: bytes) -> Reply:
        """Return the reply to a request: a batch, a file or a question."""
        model, _, action = path.rpartition("/")[2].partition(":")
        if action == "generateContent":
            return self.reply(_request(model, json.loads(body), headers.get("x-goog-api-key", "")))
        batched = self.batches.serve(method, path, headers, body)
        return batched or _error(404, "NOT_FOUND", f"{path} is not served")

    def reply(self, request: GeminiRequest) -> Reply:
        """Return status, headers and body for a request, and note that it came."""
        with self._lock:
            place = len(self.requests)
            self.requests.append(request)
        fault = self.faults[place] if place < len(self.faults) else None
        refusal = self._refusal(request, fault)
        with self._lock:
            self.num_billed += refusal is None
        self.pause(60.0 if fault == "stall" else self.latency_s)
        if refusal is not None:
            return refusal
        if fault in ("malformed", "reset"):
            return 200, {"Content-Length": "4096"} if fault == "reset" else {}, b'{"candidates": ['
        text = self.answer if isinstance(self.answer, str) else self.answer(request)
        return 200, {}, json.dumps(_body(request, text, fault)).encode()

    def _refusal(self, request: GeminiRequest, fault: Fault | None) -> Reply | None:
        """Return the error that the request gets, if the model is not to see it."""
        if self.api_key is not None and request.api_key != self.api_key:
            details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]
            return _error(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", details)
        if fault == "bad_request" or (self.refuse_schema and request.choices):
            return _error(400, "INVALID_ARGUMENT", "Request contains an invalid argument.")
        if fault == "rate_limit":
            wait = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{self.retry_delay_s}s"}
            return _error(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota.", [wait])
        if fault == "quota":
            return _error(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota.")
        if fault == "server_error":
            return _error(500, "INTERNAL", "An internal error has occurred.")
        if fault == "unavailable":
            status, headers, body = _error(503, "UNAVAILABLE", "The model is overloaded.")
            return status, {**headers, "Retry-After": "0"}, body
        return None

    def _batched(self, model: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a batch job says to one of its requests."""
        request = _request(model, body, "")
        if self.refuse_schema and request.choices:
            return {"error": {"code": 3, "message": "Request contains an invalid argument."}}
        text = self.answer if isinstance(self.answer, str) else self.answer(request)
        return {"response": _body(request, text, None)}


def _request(model: str, body: Mapping[str, Any], api_key: str) -> GeminiRequest:
    *earlier, question = body["contents"]
    config = body.get("generationConfig", {})
    return GeminiRequest(
        model=model,
        prompt=_text(question),
        image=_image(question),
        choices=_choices(config.get("responseSchema", {})),
        config=config,
        api_key=api_key,
        shots=tuple((_image(shown), _text(said)) for shown, said in zip(earlier[::2], earlier[1::2], strict=True)),
    )


def _text(content: Mapping[str, Any]) -> str:
    return "\n".join(part["text"] for part in content["parts"] if "text" in part)


def _image(content: Mapping[str, Any]) -> bytes:
    images = [part["inlineData"]["data"] for part in content["parts"] if "inlineData" in part]
    return base64.b64decode(images[0].replace("-", "+").replace("_", "/")) if images else b""


def _choices(schema: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(schema.get("items", schema).get("enum", ()))


def _body(request: GeminiRequest, text: str, fault: Fault | None) -> dict[str, Any]:
    text, finish, thoughts = {
        "cut_off": (text[:-1], "MAX_TOKENS", 0),
        "empty": ("", "MAX_TOKENS", 300),
        "off_list": ("none of these, I think", "STOP", 0),
        "safety": ("", "SAFETY", 0),
    }.get(fault or "", (text, "STOP", 0))
    content: dict[str, Any] = {"role": "model"}
    if text:
        content["parts"] = [{"text": text}]
    num_photos = 1 + len(request.shots)
    counts = {"TEXT": num_photos * (len(request.prompt) // 4), "IMAGE": num_photos * 258}
    details = [{"modality": kind, "tokenCount": count} for kind, count in counts.items()]
    usage = {"promptTokenCount": sum(counts.values()), "promptTokensDetails": details}
    if text:
        usage["candidatesTokenCount"] = 1 + len(text) // 4
    if thoughts:
        usage["thoughtsTokenCount"] = thoughts
    version = "002" if fault == "new_version" else "001"
    reply: dict[str, Any] = {"usageMetadata": usage, "modelVersion": f"{request.model}-{version}"}
    if fault == "blocked":
        return {**reply, "promptFeedback": {"blockReason": "SAFETY"}}
    if fault == "no_candidate":
        return {**reply, "candidates": []}
    return {**reply, "candidates": [{"content": content, "finishReason": finish, "index": 0}]}


def _error(code: int, status: str, message: str, details: Sequence[Mapping[str, Any]] = ()) -> Reply:
    error = {"code": code, "message": message, "status": status, "details": list(details)}
    return code, {}, json.dumps({"error": error}).encode()

"""A fake Gemini: a real server on 127.0.0.1 that speaks the service's wire format, with faults on a schedule."""

from __future__ import annotations

import base64
import json
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal, Self

__all__ = ["FakeGeminiServer", "Fault", "GeminiRequest"]

Fault = Literal[
    "bad_request",  # 400 for this request alone
    "blocked",  # the prompt is blocked, no candidate
    "cut_off",  # MAX_TOKENS in the middle of the answer
    "empty",  # MAX_TOKENS, all of them spent thinking
    "malformed",  # 200 with a body that is not JSON
    "off_list",  # words that are no class
    "rate_limit",  # 429 with RetryInfo
    "reset",  # the connection breaks in mid-body
    "safety",  # the answer is blocked
    "stall",  # no reply
    "unavailable",  # 503 with Retry-After
]
"""What can be wrong with one reply."""


@dataclass(frozen=True)
class GeminiRequest:
    """One request that the fake server got.

    Attributes:
        model: The model asked.
        prompt: The text parts, joined.
        image: The first image's bytes.
        choices: What the answer schema allows, alone or in a list; empty without a schema.
        config: `generationConfig` as it came.
        api_key: The key that came with it.
    """

    model: str
    prompt: str
    image: bytes = field(repr=False)
    choices: tuple[str, ...]
    config: Mapping[str, Any]
    api_key: str = field(repr=False)


@dataclass
class FakeGeminiServer:
    """A server on 127.0.0.1 that speaks Gemini's wire format, with faults on a schedule.

    Args:
        answer: The words of every answer, or a function of the request that returns them.
        faults: What is wrong with the first, second ... reply; None is a good one, as are all after the last.
        retry_delay_s: The wait that `rate_limit` asks for.
        latency_s: Time taken for each reply.
        refuse_schema: Whether requests with an answer schema get a 400.
        api_key: The only key that is accepted; any, by default.

    Attributes:
        requests: What was asked, faulty replies included.

    Example:
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
    requests: list[GeminiRequest] = field(default_factory=list, init=False, repr=False)

    def __enter__(self) -> Self:
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.fake = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """What to pass as `base_url`."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def reply(self, request: GeminiRequest) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body for a request, and note that it came."""
        with self._lock:
            place = len(self.requests)
            self.requests.append(request)
        fault = self.faults[place] if place < len(self.faults) else None
        self._closing.wait(60.0 if fault == "stall" else self.latency_s)
        if self.api_key is not None and request.api_key != self.api_key:
            details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]
            return _error(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", details)
        if fault == "bad_request" or (self.refuse_schema and request.choices):
            return _error(400, "INVALID_ARGUMENT", "Request contains an invalid argument.")
        if fault == "rate_limit":
            wait = {
                "@type": "type.googleapis.com/google.rpc.RetryInfo",
                "retryDelay": f"{self.retry_delay_s}s",
            }
            return _error(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota.", [wait])
        if fault == "unavailable":
            status, headers, body = _error(503, "UNAVAILABLE", "The model is overloaded.")
            return status, {**headers, "Retry-After": "0"}, body
        if fault in ("malformed", "reset"):
            return 200, {"Content-Length": "4096"} if fault == "reset" else {}, b'{"candidates": ['
        text = self.answer if isinstance(self.answer, str) else self.answer(request)
        return 200, {}, json.dumps(_body(request, text, fault)).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    fake: FakeGeminiServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hang up; that is what they are tested for."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet a reply: headers sent alone wait 40 ms for their acknowledgement
    server: _Server

    def do_POST(self) -> None:
        size = int(self.headers["Content-Length"])
        if len(sent := self.rfile.read(size)) < size:  # the client hung up
            self.close_connection = True
            return
        body = json.loads(sent)
        model, _, method = self.path.rpartition("/")[2].partition(":")
        if method != "generateContent":
            reply = _error(404, "NOT_FOUND", f"{self.path} is not served")
        else:
            reply = self.server.fake.reply(_request(model, body, self.headers.get("x-goog-api-key", "")))
        status, headers, payload = reply
        headers = {"Content-Type": "application/json", "Content-Length": str(len(payload)), **headers}
        self.close_connection = int(headers["Content-Length"]) != len(payload)
        try:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(payload)
        except OSError:  # the client gave up waiting
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: a test's output is its own."""


def _request(model: str, body: Mapping[str, Any], api_key: str) -> GeminiRequest:
    parts = [part for content in body["contents"] for part in content["parts"]]
    images = [part["inlineData"]["data"] for part in parts if "inlineData" in part]
    config = body.get("generationConfig", {})
    return GeminiRequest(
        model=model,
        prompt="\n".join(part["text"] for part in parts if "text" in part),
        image=base64.b64decode(images[0].replace("-", "+").replace("_", "/")) if images else b"",
        choices=_choices(config.get("responseSchema", {})),
        config=config,
        api_key=api_key,
    )


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
    num_text = len(request.prompt) // 4
    details = [{"modality": "TEXT", "tokenCount": num_text}, {"modality": "IMAGE", "tokenCount": 258}]
    usage = {"promptTokenCount": num_text + 258, "promptTokensDetails": details}
    if text:
        usage["candidatesTokenCount"] = 1 + len(text) // 4
    if thoughts:
        usage["thoughtsTokenCount"] = thoughts
    reply: dict[str, Any] = {"usageMetadata": usage, "modelVersion": f"{request.model}-001"}
    if fault == "blocked":
        return {**reply, "promptFeedback": {"blockReason": "SAFETY"}}
    return {**reply, "candidates": [{"content": content, "finishReason": finish, "index": 0}]}


def _error(
    code: int, status: str, message: str, details: Sequence[Mapping[str, Any]] = ()
) -> tuple[int, dict[str, str], bytes]:
    error = {"code": code, "message": message, "status": status, "details": list(details)}
    return code, {}, json.dumps({"error": error}).encode()

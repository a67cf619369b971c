"""A fake OpenAI-compatible server on 127.0.0.1: OpenAI's, vLLM's or SGLang's manners, with faults on a schedule."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from email.message import Message
from typing import Any, Literal

from vlm_tune.testing.local_server import LocalServer, Reply

__all__ = ["FakeOpenAIServer", "OpenAIFault", "OpenAIRequest"]

OpenAIFault = Literal[
    "bad_request",  # 400 for this request alone
    "blocked",  # 400: a filter stopped the prompt
    "content_filter",  # a filter stopped the answer
    "cut_off",  # finish_reason length in the middle of the answer
    "empty",  # finish_reason length, all of it spent reasoning
    "malformed",  # 200 with a body that is not JSON
    "no_choice",  # 200 without any answer in it
    "off_list",  # words that are no class, whatever the constraint
    "quota",  # 429 for an account without money
    "rate_limit",  # 429 with Retry-After
    "refusal",  # the model refuses
    "reset",  # the connection breaks in mid-body
    "server_error",  # 500
    "stall",  # no reply
    "unavailable",  # 503
]
"""What can be wrong with one reply."""

_CONSTRAINTS = ("structured_outputs", "guided_choice", "guided_regex", "regex", "response_format")
_GREETING = "Hello! What can I do for you?"
_IMAGE_TOKENS = 258


@dataclass(frozen=True)
class OpenAIRequest:
    """One request that the fake server got.

    Attributes:
        model: The model asked.
        prompt: The text parts, joined.
        image: The first image's bytes; empty where there is none.
        body: The whole request as it came.
        api_key: The key that came with it.
    """

    model: str
    prompt: str
    image: bytes = field(repr=False)
    body: Mapping[str, Any] = field(repr=False)
    api_key: str = field(repr=False)


@dataclass
class FakeOpenAIServer(LocalServer):
    """A server on 127.0.0.1 that speaks OpenAI's chat completions, with faults on a schedule.

    By default it has the manners of a current vLLM: it keeps answers to `structured_outputs` and to
    `response_format`, and ignores fields that it does not know. A request without a photo is greeted, keeps to its
    constraint, and uses up no fault.

    Args:
        answer: The words of every answer, or a function of the request that returns them.
        faults: What is wrong with the reply to the first, second ... photo; None is a good one, as are all after
            the last.
        constraints: The fields that it keeps answers to: of `structured_outputs`, `guided_choice`, `guided_regex`,
            `regex` and `response_format`.
        unknown: Whether a constraint it does not know is `ignored`, as vLLM and SGLang do, or `refused` with a 400.
        first_tokens: The tokens that the answer may begin with and their probabilities, or a function of the
            request that returns them: what log-probabilities are made of. None refuses to give any.
        retry_after_s: The wait that `rate_limit` asks for.
        latency_s: Time taken for each reply.
        api_key: The only key that is accepted; any, by default.
        models: The models there are; any, by default.

    Attributes:
        requests: What was asked about photos, faulty replies included.
        probes: What was asked without one.

    Examples:
        >>> with FakeOpenAIServer("red", faults=["unavailable"]) as server:
        ...     server.url.endswith("/v1")
        True
    """

    answer: Callable[[OpenAIRequest], str] | str
    faults: Sequence[OpenAIFault | None] = ()
    constraints: Collection[str] = ("structured_outputs", "response_format")
    unknown: Literal["ignored", "refused"] = "ignored"
    first_tokens: Callable[[OpenAIRequest], Mapping[str, float]] | Mapping[str, float] | None = None
    retry_after_s: float = 0.05
    latency_s: float = 0.0
    api_key: str | None = None
    models: Sequence[str] = ()
    requests: list[OpenAIRequest] = field(default_factory=list, init=False, repr=False)
    probes: list[OpenAIRequest] = field(default_factory=list, init=False, repr=False)

    @property
    def url(self) -> str:
        """What to pass as `base_url`."""
        return f"{self.origin}/v1"

    def serve(self, method: str, path: str, headers: Message, body: bytes) -> Reply:
        """Return the reply to a request, and note that it came."""
        if (method, path) not in (("GET", "/v1/models"), ("POST", "/v1/chat/completions")):
            return _error(404, f"Invalid URL ({method} {path})")
        key = headers.get("Authorization", "").removeprefix("Bearer ")
        if self.api_key is not None and key != self.api_key:
            return _error(401, f"Incorrect API key provided: {key}.", code="invalid_api_key")
        if method == "GET":
            cards = [{"id": name, "object": "model", "created": 0, "owned_by": "vlm-tune"} for name in self.models]
            return 200, {}, json.dumps({"object": "list", "data": cards}).encode()
        return self._complete(_request(json.loads(body), key))

    def _complete(self, request: OpenAIRequest) -> Reply:
        with self._lock:
            seen = self.requests if request.image else self.probes
            seen.append(request)
            fault = self.faults[len(seen) - 1] if request.image and len(seen) <= len(self.faults) else None
        self.pause(60.0 if fault == "stall" else self.latency_s)
        if self.models and request.model not in self.models:
            return _error(404, f"The model `{request.model}` does not exist.", code="model_not_found")
        if (refusal := self._refusal(request, fault)) is not None:
            return refusal
        if fault in ("malformed", "reset"):
            return 200, {"Content-Length": "4096"} if fault == "reset" else {}, b'{"choices": ['
        text = self._kept(self._words(request), request.body)
        return 200, {}, json.dumps(self._body(request, text, fault)).encode()

    def _words(self, request: OpenAIRequest) -> str:
        if not request.image:
            return _GREETING
        return self.answer if isinstance(self.answer, str) else self.answer(request)

    def _refusal(self, request: OpenAIRequest, fault: OpenAIFault | None) -> Reply | None:
        """Return the error that this request gets, if it gets one."""
        if fault == "bad_request":
            return _error(400, "Invalid image.")
        if fault == "blocked":
            return _error(400, "The prompt was filtered.", code="content_filter")
        if fault == "quota":
            return _error(429, "You exceeded your current quota.", code="insufficient_quota")
        if fault == "rate_limit":
            status, _, body = _error(429, "Rate limit reached.", code="rate_limit_exceeded")
            return status, {"Retry-After": str(self.retry_after_s)}, body
        if fault in ("server_error", "unavailable"):
            return _error(500 if fault == "server_error" else 503, "The server had an error.")
        if request.body.get("logprobs") and self.first_tokens is None:
            return _error(400, "logprobs are not supported with this model.", param="logprobs")
        strange = [name for name in _CONSTRAINTS if name in request.body and name not in self.constraints]
        if strange and self.unknown == "refused":
            return _error(400, f"Unrecognized request argument supplied: {strange[0]}")
        return None

    def _kept(self, text: str, body: Mapping[str, Any]) -> str:
        """Return the text as the constraints of a request leave it."""
        for name in _CONSTRAINTS:
            if name in body and name in self.constraints:
                return _constrained(text, name, body[name])
        return text

    def _body(self, request: OpenAIRequest, text: str, fault: OpenAIFault | None) -> dict[str, Any]:
        text, finish, reasoning = {
            "content_filter": ("", "content_filter", 0),
            "cut_off": (text[:-1], "length", 0),
            "empty": ("", "length", 300),
            "off_list": ("none of these, I think", "stop", 0),
            "refusal": ("", "stop", 0),
        }.get(fault or "", (text, "stop", 0))
        message: dict[str, Any] = {"role": "assistant", "content": text or None, "refusal": None}
        if fault == "refusal":
            message["refusal"] = "I cannot help with that."
        choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
        if request.body.get("logprobs") and self.first_tokens is not None and text:
            tokens = self.first_tokens(request) if callable(self.first_tokens) else self.first_tokens
            choice["logprobs"] = {"content": _logprobs(text, tokens, request.body.get("top_logprobs", 0))}
        num_in, num_out = len(request.prompt) // 4 + _IMAGE_TOKENS * bool(request.image), reasoning + len(text) // 4 + 1
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 0,
            "model": f"{request.model}-001",
            "choices": [] if fault == "no_choice" else [choice],
            "usage": {
                "prompt_tokens": num_in,
                "completion_tokens": num_out,
                "total_tokens": num_in + num_out,
                "prompt_tokens_details": {"cached_tokens": num_in // 2},
                "completion_tokens_details": {"reasoning_tokens": reasoning},
            },
        }


def _request(body: Mapping[str, Any], api_key: str) -> OpenAIRequest:
    parts: list[Any] = []
    for message in body["messages"]:
        content = message["content"]
        parts += [{"type": "text", "text": content}] if isinstance(content, str) else content
    images = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    return OpenAIRequest(
        model=body["model"],
        prompt="\n".join(part["text"] for part in parts if part["type"] == "text"),
        image=base64.b64decode(images[0].partition(",")[2]) if images else b"",
        body=body,
        api_key=api_key,
    )


def _constrained(text: str, name: str, wanted: Any) -> str:
    """Return the text where the constraint allows it, else the first one that it does."""
    if name == "structured_outputs":
        name, wanted = next(iter(wanted.items()))
    if name == "response_format":
        [(field_name, schema)] = wanted["json_schema"]["schema"]["properties"].items()
        if "enum" in schema:
            value: Any = text if text in schema["enum"] else schema["enum"][0]
        else:
            value = [item for item in text.split(", ") if item in schema["items"]["enum"]]
        return json.dumps({field_name: value})
    if name.endswith("regex"):
        first = re.sub(r"\(.*|\\", "", wanted.removeprefix("(").removesuffix(")").split("|")[0])
        return text if re.fullmatch(wanted, text) else first
    return text if text in wanted else str(wanted[0])


def _logprobs(text: str, tokens: Mapping[str, float], most: int) -> list[dict[str, Any]]:
    """Return the text as two tokens, the first of them with what it might have been."""
    first = max((token for token in tokens if text.startswith(token)), key=len, default=text[:1])
    ranked = sorted(tokens.items(), key=lambda item: -item[1])[:most]
    listed = [_token(token, share) for token, share in ranked]
    rest = [{**_token(text[len(first) :], 1.0), "top_logprobs": []}] if first != text else []
    return [{**_token(first, tokens.get(first, 0.0)), "top_logprobs": listed}, *rest]


def _token(token: str, share: float) -> dict[str, Any]:
    return {"token": token, "logprob": math.log(share) if share > 0 else -9999.0, "bytes": list(token.encode())}


def _error(status: int, message: str, *, code: str | None = None, param: str | None = None) -> Reply:
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return status, {}, json.dumps({"error": error}).encode()

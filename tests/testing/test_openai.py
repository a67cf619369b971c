"""The fake server speaks the wire format and keeps its word."""

from __future__ import annotations

import base64
import json
import math
import urllib.error
import urllib.request
from typing import Any

import pytest

from vlm_tune.testing import FakeOpenAIServer

PHOTO = f"data:image/png;base64,{base64.b64encode(b'a photo').decode()}"
STONES = ["quartz", "basalt"]
SCHEMA = {"type": "object", "properties": {"answer": {"type": "string", "enum": STONES}}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}


def post(server: FakeOpenAIServer, path: str = "/chat/completions", photo: bool = True, **fields: Any) -> Any:
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": PHOTO}}] if photo else []
    message = {"role": "user", "content": [*parts, {"type": "text", "text": "What?"}]}
    body = json.dumps({"model": "damage", "messages": [message], **fields}).encode()
    request = urllib.request.Request(server.url + path, data=body, headers={"Authorization": "Bearer key"})
    with urllib.request.urlopen(request, timeout=5) as reply:
        return json.load(reply)


def said(reply: Any) -> str:
    text: str = reply["choices"][0]["message"]["content"]
    return text


def refused(server: FakeOpenAIServer, status: int, **fields: Any) -> tuple[dict[str, Any], Any]:
    with pytest.raises(urllib.error.HTTPError, match=str(status)) as caught:
        post(server, **fields)
    with caught.value as error:
        loaded: dict[str, Any] = json.load(error)["error"]
        return loaded, error.headers


def test_it_speaks_plain_http_and_remembers_what_it_was_asked() -> None:
    with FakeOpenAIServer(lambda request: request.prompt[::-1]) as server:
        reply = post(server)
    message = {"role": "assistant", "content": "?tahW", "refusal": None}
    assert reply["choices"] == [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}]
    assert (reply["object"], reply["model"]) == ("chat.completion", "damage-001")
    assert reply["usage"]["total_tokens"] == reply["usage"]["prompt_tokens"] + reply["usage"]["completion_tokens"]
    [request] = server.requests
    assert (request.model, request.prompt, request.image, request.api_key) == ("damage", "What?", b"a photo", "key")
    assert "key" not in repr(request).replace("api_key", "")


def test_models_are_listed_and_others_are_not_served() -> None:
    with FakeOpenAIServer("red", models=["damage", "other"]) as server:
        with urllib.request.urlopen(f"{server.url}/models", timeout=5) as reply:
            assert [card["id"] for card in json.load(reply)["data"]] == ["damage", "other"]
        error, _ = refused(server, 404, model="third")
        assert error["code"] == "model_not_found"
        refused(server, 404, path="/completions")


def test_a_wrong_key_is_refused() -> None:
    with FakeOpenAIServer("red", api_key="another") as server:
        error, _ = refused(server, 401)
    assert error["code"] == "invalid_api_key"
    assert server.requests == []


@pytest.mark.parametrize(
    ("field", "wanted", "kept"),
    [
        ("structured_outputs", {"choice": STONES}, "quartz"),
        ("structured_outputs", {"regex": "(quartz|basalt)"}, "quartz"),
        ("guided_choice", STONES, "quartz"),
        ("guided_regex", "(quartz(, basalt)?|basalt|none)", "quartz"),
        ("regex", "(quartz|basalt)", "quartz"),
        ("response_format", FORMAT, '{"answer": "quartz"}'),
    ],
)
def test_constraints_are_kept_ignored_or_refused(field: str, wanted: Any, kept: str) -> None:
    with FakeOpenAIServer("red", constraints=[field]) as server:
        assert said(post(server, **{field: wanted})) == kept
        assert said(post(server, photo=False, **{field: wanted})) == kept
        server.answer = "basalt"
        assert said(post(server, **{field: wanted})) == kept.replace("quartz", "basalt")
    with FakeOpenAIServer("red", constraints=[]) as server:
        assert said(post(server, **{field: wanted})) == "red"
    with FakeOpenAIServer("red", constraints=[], unknown="refused") as server:
        error, _ = refused(server, 400, **{field: wanted})
        assert error["message"] == f"Unrecognized request argument supplied: {field}"
        assert said(post(server)) == "red"


def test_log_probabilities_are_listed_best_first_or_refused() -> None:
    with FakeOpenAIServer("red", first_tokens={"gr": 0.2, "re": 0.7, "blue": 0.1}) as server:
        assert post(server)["choices"][0]["logprobs"] is None
        first, rest = post(server, logprobs=True, top_logprobs=2)["choices"][0]["logprobs"]["content"]
    assert (first["token"], rest["token"]) == ("re", "d")
    assert [entry["token"] for entry in first["top_logprobs"]] == ["re", "gr"]
    assert first["top_logprobs"][1]["logprob"] == pytest.approx(math.log(0.2))
    with FakeOpenAIServer("red") as server:
        error, _ = refused(server, 400, logprobs=True)
    assert error["param"] == "logprobs"


def test_faults_come_in_their_order_and_are_for_photos() -> None:
    with FakeOpenAIServer("red", faults=["rate_limit", None, "quota", "refusal"], retry_after_s=7.0) as server:
        assert "Hello" in said(post(server, photo=False))
        error, headers = refused(server, 429)
        assert (error["code"], headers["Retry-After"]) == ("rate_limit_exceeded", "7.0")
        assert said(post(server)) == "red"
        error, headers = refused(server, 429)
        assert (error["code"], headers["Retry-After"]) == ("insufficient_quota", None)
        assert post(server)["choices"][0]["message"]["refusal"] == "I cannot help with that."
        assert said(post(server)) == "red"
    assert (len(server.requests), len(server.probes)) == (5, 1)

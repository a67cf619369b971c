"""The public doubles do what their documentation says."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

import pytest

from vlm_tune.errors import PredictorError
from vlm_tune.predictors import Predictor
from vlm_tune.records import Prediction
from vlm_tune.testing import FakeGeminiServer, ScriptedPredictor, tiny_dataset


def test_the_tiny_dataset_is_balanced_split_and_the_same_every_time(tmp_path: Path) -> None:
    data = tiny_dataset(4)
    assert Counter(data.labels) == {"red": 4, "green": 4, "blue": 4}
    assert (len(data.train), len(data.test)) == (9, 3)
    assert len({example.content_hash for example in data}) == 12
    assert [e.content_hash for e in tiny_dataset(4)] == [e.content_hash for e in data]
    assert [e.content_hash for e in tiny_dataset(4, seed=1)] != [e.content_hash for e in data]
    on_disk = tiny_dataset(4, root=tmp_path)
    assert [e.content_hash for e in on_disk] == [e.content_hash for e in data]
    assert (tmp_path / "red" / "0.png").is_file()


def test_the_script_decides_every_outcome() -> None:
    data = tiny_dataset(4, split=False)
    refusal = Prediction(example_id=data.ids[2], outcome="refused")
    script = {data.ids[0]: "Red.", data.ids[1]: "hm", data.ids[2]: refusal}
    predictor = ScriptedPredictor(script)
    assert isinstance(predictor, Predictor)
    outcomes = [answer.outcome for answer in predictor.predict(data[:4], data.task)]
    assert outcomes == ["answered", "unparseable", "refused", "failed"]
    assert predictor.asked == list(data.ids[:4])
    broken = ScriptedPredictor({data.ids[0]: PredictorError("no key")})
    with pytest.raises(PredictorError, match="no key"):
        list(broken.predict(data[:1], data.task))


WHAT = {"contents": [{"parts": [{"text": "What?"}]}]}


def post(
    server: FakeGeminiServer, path: str = "/v1beta/models/m:generateContent", *, body: object = WHAT
) -> dict[str, object]:
    request = urllib.request.Request(
        server.url + path, data=json.dumps(body).encode(), headers={"x-goog-api-key": "key"}
    )
    with urllib.request.urlopen(request, timeout=5) as reply:
        loaded: dict[str, object] = json.load(reply)
        return loaded


def test_the_server_speaks_plain_http_and_remembers_what_it_was_asked() -> None:
    with FakeGeminiServer(lambda request: request.prompt[::-1]) as server:
        reply = post(server)
    assert reply["candidates"] == [
        {"content": {"role": "model", "parts": [{"text": "?tahW"}]}, "finishReason": "STOP", "index": 0}
    ]
    [request] = server.requests
    assert (request.model, request.prompt, request.image, request.choices) == ("m", "What?", b"", ())
    assert "key" not in repr(server).replace("api_key", "")


def test_faults_come_in_their_order_and_end() -> None:
    with FakeGeminiServer("red", faults=["rate_limit", None, "unavailable"], retry_delay_s=7.0) as server:
        with pytest.raises(urllib.error.HTTPError, match="429") as limited:
            post(server)
        assert '"retryDelay": "7.0s"' in limited.value.read().decode()
        limited.value.close()
        post(server)
        with pytest.raises(urllib.error.HTTPError, match="503") as busy:
            post(server)
        assert busy.value.headers["Retry-After"] == "0"
        busy.value.close()
        post(server)


def test_other_paths_are_not_served() -> None:
    with FakeGeminiServer("red") as server:
        with pytest.raises(urllib.error.HTTPError, match="404") as missing:
            post(server, "/v1beta/models/m:countTokens")
        missing.value.close()
        assert server.requests == []


def test_the_server_counts_what_a_model_did_also_when_it_never_arrived() -> None:
    with FakeGeminiServer(
        "red", faults=["quota", "server_error", "malformed", "no_candidate", "new_version"]
    ) as server:
        for code in ("429", "500"):
            with pytest.raises(urllib.error.HTTPError, match=code) as refused:
                post(server)
            refused.value.close()
        assert server.num_billed == 0
        with pytest.raises(json.JSONDecodeError):
            post(server)
        assert post(server)["candidates"] == []
        assert [post(server)["modelVersion"], post(server)["modelVersion"]] == ["m-002", "m-001"]
        assert (server.num_billed, len(server.requests)) == (4, 6)


def test_the_server_tells_what_was_shown_from_what_is_asked() -> None:
    turns = [("user", "Shown?"), ("model", "dent"), ("user", "Asked?")]
    body = {"contents": [{"role": role, "parts": [{"text": text}]} for role, text in turns]}
    with FakeGeminiServer(lambda request: request.shots[0][1]) as server:
        reply = post(server, body=body)
    assert "dent" in json.dumps(reply)
    assert (server.requests[0].prompt, server.requests[0].shots) == ("Asked?", ((b"", "dent"),))

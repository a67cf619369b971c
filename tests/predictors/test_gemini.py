"""The real google-genai client against a server that misbehaves on schedule."""

from __future__ import annotations

import asyncio
import itertools
import time
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from vlm_tune import images
from vlm_tune.cost import cost_of, price_of
from vlm_tune.data import Dataset
from vlm_tune.errors import PredictorError
from vlm_tune.predictors import Gemini, GeminiOptions, Predictor, RetryPolicy
from vlm_tune.records import Example, Prediction
from vlm_tune.task import Task
from vlm_tune.testing import FakeGeminiServer, Fault, GeminiRequest, tiny_dataset

KEY = "a-very-secret-key"
QUICK = RetryPolicy(attempts=4, first_delay_s=0.01)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return tiny_dataset(8, split=False)


def gemini(server: FakeGeminiServer, model: str = "gemini-3-flash-preview", **options: object) -> Gemini:
    chosen = GeminiOptions.model_validate({"retry": QUICK, **options})
    return Gemini(model, api_key=KEY, base_url=server.url, options=chosen)


def ask_one(data: Dataset, *faults: Fault | None, answer: str = "green", **options: object) -> Prediction:
    with FakeGeminiServer(answer, faults=faults) as server:
        [prediction] = gemini(server, **options).predict(data[:1], data.task)
    return prediction


def truth(data: Dataset) -> dict[bytes, str]:
    return {images.encode(example.image, max_pixels=data.task.max_pixels).data: example.label for example in data}


def test_every_example_gets_its_own_answer_in_any_order(data: Dataset) -> None:
    labels = truth(data)
    with FakeGeminiServer(lambda request: labels[request.image]) as server:
        predictor = gemini(server)
        assert isinstance(predictor, Predictor)
        answers = {answer.example_id: answer for answer in predictor.predict(data, data.task)}
    assert {example_id: answer.label for example_id, answer in answers.items()} == {e.id: e.label for e in data}
    assert len(server.requests) == len(data)


def test_the_request_is_the_task_and_nothing_from_the_environment(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_API_KEY", "stray")
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("GOOGLE_GENAI_USE_VERTEXAI", "true")
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    with FakeGeminiServer("red") as server:
        predictor = Gemini("gemini-3-flash-preview", base_url=server.url)
        [_] = predictor.predict(data[:1], data.task)
    [request] = server.requests
    assert request.api_key == KEY
    assert request.prompt == data.task.render()
    assert request.choices == data.task.classes
    assert request.image == images.encode(data[0].image, max_pixels=data.task.max_pixels).data
    assert request.config["temperature"] == 0
    assert request.config["seed"] == 0
    assert "thinkingConfig" not in request.config


SEVERAL = Task(prompt="Which colours are in it?", classes=("red", "green", "blue"), multi_label=True)


def test_several_classes_are_asked_for_as_a_list(data: Dataset) -> None:
    texts = iter(['["blue", "red"]', "[]", '["none"]', '["red", "none"]', '["red", 3]', '{"a": 1}', '["grey"]'])
    with FakeGeminiServer(lambda request: next(texts)) as server:
        found = [next(gemini(server).predict([example], SEVERAL)) for example in data[:7]]
    for request in server.requests:
        assert request.prompt == SEVERAL.render()
        assert request.choices == ("red", "green", "blue", "none")
        assert request.config["responseMimeType"] == "application/json"
        assert request.config["responseSchema"]["type"] == "ARRAY"
    assert [answer.label for answer in found] == ["red, blue", "none", "none", None, None, None, None]
    assert {answer.outcome for answer in found[3:]} == {"unparseable"}
    assert found[3].raw == '["red", "none"]'


def test_a_server_that_takes_no_list_is_asked_in_words(data: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    with FakeGeminiServer("Blue and red.", refuse_schema=True) as server:
        [answer] = gemini(server).predict(data[:1], SEVERAL)
    assert (answer.outcome, answer.label) == ("answered", "red, blue")
    assert "the prompt alone asks" in capsys.readouterr().err


def test_a_list_that_is_cut_off_is_no_answer(data: Dataset) -> None:
    with FakeGeminiServer('["red", "blue"]', faults=["cut_off"]) as server:
        [answer] = gemini(server).predict(data[:1], SEVERAL)
    assert (answer.outcome, answer.label) == ("unparseable", None)


def test_options_reach_the_server(data: Dataset) -> None:
    with FakeGeminiServer("red") as server:
        predictor = gemini(server, temperature=None, seed=7, thinking_level="low", media_resolution="high")
        [_] = predictor.predict(data[:1], data.task)
    config = server.requests[0].config
    assert "temperature" not in config
    assert config["seed"] == 7
    assert list(config["thinkingConfig"].values()) == ["LOW"]
    assert config["mediaResolution"] == "MEDIA_RESOLUTION_HIGH"


def test_usage_cost_and_model_version_come_from_the_reply(data: Dataset) -> None:
    answer = ask_one(data)
    price = price_of("gemini-3-flash-preview", on=datetime.now(UTC).date())
    assert answer.usage is not None
    assert price is not None
    assert answer.usage.image_tokens == 258
    assert answer.cost_usd == cost_of(answer.usage, price) > 0
    assert answer.model_version == "gemini-3-flash-preview-001"
    assert answer.latency_s is not None


def test_an_unknown_price_is_no_zero(data: Dataset) -> None:
    with FakeGeminiServer("red") as server:
        [answer] = gemini(server, "gemini-99").predict(data[:1], data.task)
    assert answer.usage is not None
    assert answer.cost_usd is None


@pytest.mark.parametrize(
    ("fault", "outcome", "reason"),
    [
        ("safety", "refused", "SAFETY"),
        ("blocked", "refused", "the prompt was blocked: SAFETY"),
        ("empty", "unparseable", "empty answer: MAX_TOKENS after 300 thinking tokens"),
        ("cut_off", "unparseable", "cut-off answer: MAX_TOKENS"),
        ("off_list", "unparseable", "none of the classes"),
    ],
)
def test_what_was_said_decides_the_outcome(data: Dataset, fault: Fault, outcome: str, reason: str) -> None:
    answer = ask_one(data, fault)
    assert (answer.outcome, answer.label) == (outcome, None)
    assert reason in str(answer.error)
    assert answer.usage is not None


@pytest.mark.parametrize("fault", ["rate_limit", "unavailable", "malformed", "reset"])
def test_what_may_pass_is_tried_again(data: Dataset, fault: Fault) -> None:
    assert ask_one(data, fault, fault).label == "green"


def test_a_stalled_call_ends_and_is_tried_again(data: Dataset) -> None:
    start = time.monotonic()
    assert ask_one(data, "stall", timeout_s=0.2).label == "green"
    assert time.monotonic() - start < 5


def test_the_wait_that_the_server_asks_for_is_kept(data: Dataset) -> None:
    with FakeGeminiServer("red", faults=["rate_limit"], retry_delay_s=0.4) as server:
        start = time.monotonic()
        [answer] = gemini(server).predict(data[:1], data.task)
    assert answer.outcome == "answered"
    assert time.monotonic() - start >= 0.4


def test_a_wait_of_hours_fails_at_once_and_holds_nobody_up(data: Dataset) -> None:
    with FakeGeminiServer("red", faults=["rate_limit"], retry_delay_s=3600.0) as server:
        answers = list(gemini(server).predict(data[:4], data.task))
    assert sorted(answer.outcome for answer in answers) == ["answered", "answered", "answered", "failed"]


def test_when_the_attempts_are_spent_the_example_fails_with_the_reason(data: Dataset) -> None:
    answer = ask_one(data, *["unavailable"] * 4)
    assert answer.outcome == "failed"
    assert "503 UNAVAILABLE: The model is overloaded." in str(answer.error)


def test_a_server_that_only_fails_stops_the_run(data: Dataset) -> None:
    with FakeGeminiServer("red", faults=["unavailable"] * 1000) as server:
        predictor = gemini(server, stop_after=5, concurrency=2)
        with pytest.raises(PredictorError, match="5 examples in a row"):
            list(predictor.predict(data, data.task))
    assert len(server.requests) < 60


def test_a_server_that_is_not_there_fails_with_the_reason(data: Dataset) -> None:
    with FakeGeminiServer("red") as server:
        pass
    [answer] = gemini(server).predict(data[:1], data.task)
    assert answer.outcome == "failed"
    assert "ConnectError" in str(answer.error)


def test_where_the_schema_is_refused_the_prompt_alone_asks(data: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    with FakeGeminiServer("Red.", refuse_schema=True) as server:
        answers = list(gemini(server, concurrency=1).predict(data, data.task))
    assert {answer.label for answer in answers} == {"red"}
    assert len(server.requests) <= len(data) + 8
    assert capsys.readouterr().err.count("takes no answer schema") == 1


def test_a_request_that_is_refused_alone_fails_alone(data: Dataset) -> None:
    with FakeGeminiServer("red", faults=[None, None, "bad_request"]) as server:
        answers = list(gemini(server, concurrency=1).predict(data[:6], data.task))
    assert sorted(answer.outcome for answer in answers) == ["answered"] * 5 + ["failed"]
    assert all(request.choices for request in server.requests)


def test_an_unreadable_image_fails_without_a_call(data: Dataset) -> None:
    broken = [
        Example(id="gone", image=Path("/nowhere/gone.jpg"), label="red"),
        Example(id="broken", image=b"no image", label="red"),
    ]
    with FakeGeminiServer("red") as server:
        answers = {answer.example_id: answer for answer in gemini(server).predict([*broken, data[0]], data.task)}
    assert [answers[name].outcome for name in ("gone", "broken", data[0].id)] == [
        "failed",
        "failed",
        "answered",
    ]
    assert "/nowhere/gone.jpg" in str(answers["gone"].error)
    assert len(server.requests) == 1


def test_nothing_is_asked_about_nothing(data: Dataset) -> None:
    with FakeGeminiServer("red") as server:
        assert list(gemini(server).predict([], data.task)) == []
    assert server.requests == []


def test_it_works_inside_a_running_loop(data: Dataset) -> None:
    async def notebook() -> Sequence[Prediction]:
        return list(gemini(server).predict(data, data.task))

    with FakeGeminiServer("red") as server:
        assert len(asyncio.run(notebook())) == len(data)


def test_calls_run_at_the_same_time(data: Dataset) -> None:
    with FakeGeminiServer("red", latency_s=0.1) as server:
        start = time.monotonic()
        list(gemini(server, concurrency=12).predict(data, data.task))
    assert time.monotonic() - start < 0.1 * len(data) / 2


def test_closing_early_stops_asking(data: Dataset) -> None:
    with FakeGeminiServer("red", latency_s=0.05) as server:
        answers = gemini(server, concurrency=2).predict(data, data.task)
        assert len(list(itertools.islice(answers, 2))) == 2
        answers.close()  # type: ignore[attr-defined]
        asked = len(server.requests)
        time.sleep(0.15)
        assert len(server.requests) == asked < len(data)


def test_without_a_key_it_says_how_to_set_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GEMINI_API_KEY", raising=False)
    monkeypatch.setenv("GOOGLE_API_KEY", "stray")
    with pytest.raises(PredictorError, match="set the environment variable GEMINI_API_KEY"):
        Gemini("gemini-3-flash-preview")
    with pytest.raises(PredictorError):
        Gemini("gemini-3-flash-preview", api_key=" ")


def test_a_wrong_key_stops_the_run_and_shows_nowhere(data: Dataset) -> None:
    with FakeGeminiServer("red", api_key="another") as server:
        predictor = gemini(server)
        with pytest.raises(PredictorError, match="API key not valid") as caught:
            list(predictor.predict(data, data.task))
    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    for text in (shown, repr(predictor), str(vars(predictor)), predictor.fingerprint):
        assert KEY not in text


def test_a_key_that_the_server_echoes_is_hidden(data: Dataset) -> None:
    echo = f"you sent {KEY}"

    def answer(request: GeminiRequest) -> str:
        raise AssertionError("not reached")

    with FakeGeminiServer(answer) as server:
        server.reply = lambda request: (  # type: ignore[method-assign]
            400,
            {},
            f'{{"error": {{"code": 400, "message": "{echo}", "status": "X"}}}}'.encode(),
        )
        [failed] = gemini(server).predict(data[:1], data.task)
    assert failed.outcome == "failed"
    assert "you sent ***" in str(failed.error)


def test_the_fingerprint_follows_what_can_change_an_answer() -> None:
    def fingerprint(model: str = "m", base_url: str | None = None, **options: object) -> str:
        chosen = GeminiOptions.model_validate(options)
        return Gemini(model, api_key=SecretStr(KEY), base_url=base_url, options=chosen).fingerprint

    same = fingerprint()
    assert fingerprint(timeout_s=5.0, concurrency=2, retry=QUICK, stop_after=1) == same
    others = [
        fingerprint("n"),
        fingerprint(base_url="http://127.0.0.1:1"),
        fingerprint(temperature=1.0),
        fingerprint(thinking_budget=0),
        fingerprint(api_version="v1"),
    ]
    assert len({same, *others}) == 6


def test_two_ways_to_think_are_refused() -> None:
    with pytest.raises(ValidationError, match="not both"):
        GeminiOptions(thinking_budget=0, thinking_level="low")

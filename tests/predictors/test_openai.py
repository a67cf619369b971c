"""The real openai client against a server with many manners that misbehaves on schedule."""

from __future__ import annotations

import asyncio
import itertools
import math
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from vlm_tune import images
from vlm_tune.data import Dataset
from vlm_tune.errors import MissingExtraError, PredictorError
from vlm_tune.predictors import OpenAICompatible, OpenAIOptions, Predictor, RetryPolicy
from vlm_tune.records import Example, Prediction
from vlm_tune.task import Task
from vlm_tune.testing import FakeOpenAIServer, OpenAIFault, tiny_dataset

KEY = "a-very-secret-key"
QUICK = RetryPolicy(attempts=4, first_delay_s=0.01)
SEVERAL = Task(prompt="Which colours are in it?", classes=("red", "green", "blue"), multi_label=True)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return tiny_dataset(8, split=False)


def served(server: FakeOpenAIServer, **options: object) -> OpenAICompatible:
    chosen = OpenAIOptions.model_validate({"retry": QUICK, **options})
    return OpenAICompatible(server.url, "damage", api_key=KEY, options=chosen)


def ask_one(data: Dataset, *faults: OpenAIFault | None, answer: str = "green", **options: object) -> Prediction:
    with FakeOpenAIServer(answer, faults=faults) as server:
        [prediction] = served(server, **options).predict(data[:1], data.task)
    return prediction


def test_every_example_gets_its_own_answer_in_any_order(data: Dataset) -> None:
    labels = {images.encode(e.image, max_pixels=data.task.max_pixels).data: e.label for e in data}
    with FakeOpenAIServer(lambda request: labels[request.image]) as server:
        predictor = served(server)
        assert isinstance(predictor, Predictor)
        answers = {answer.example_id: answer for answer in predictor.predict(data, data.task)}
    assert {example_id: answer.label for example_id, answer in answers.items()} == {e.id: e.label for e in data}
    assert len(server.requests) == len(data)


def test_the_request_is_the_task_and_nothing_from_the_environment(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "for-openai-alone")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer stray")
    with FakeOpenAIServer("red") as server:
        [_] = OpenAICompatible(server.url, "damage").predict(data[:1], data.task)
    [request] = server.requests
    assert request.api_key == "none"
    assert request.model == "damage"
    assert request.prompt == data.task.render()
    assert request.image == images.encode(data[0].image, max_pixels=data.task.max_pixels).data
    assert set(request.body) == {"model", "messages", "temperature", "seed", "structured_outputs"}
    assert (request.body["temperature"], request.body["seed"]) == (0, 0)
    [message] = request.body["messages"]
    assert [part["type"] for part in message["content"]] == ["image_url", "text"]
    assert message["content"][0]["image_url"]["url"].startswith("data:image/")


@pytest.mark.parametrize(
    ("constraints", "unknown", "sent"),
    [
        (("structured_outputs", "response_format"), "ignored", "structured_outputs"),  # vLLM
        (("guided_choice", "guided_regex", "response_format"), "ignored", "guided_choice"),  # vLLM before 0.11
        (("regex", "response_format"), "ignored", "regex"),  # SGLang
        (("response_format",), "ignored", "response_format"),
        (("response_format",), "refused", "response_format"),  # OpenAI
    ],
)
def test_the_way_that_the_server_obeys_is_found(
    data: Dataset, constraints: Sequence[str], unknown: str, sent: str
) -> None:
    fields = {"structured_outputs", "guided_choice", "regex", "response_format"}
    with FakeOpenAIServer("blue", constraints=constraints, unknown=unknown) as server:  # type: ignore[arg-type]
        predictor = served(server)
        answers = list(predictor.predict(data[:3], data.task))
        probes = len(server.probes)
        assert [answer.label for answer in [*answers, *predictor.predict(data[:1], data.task)]] == ["blue"] * 4
    assert 1 <= probes <= 5
    assert len(server.probes) == probes, "the server was tried again"
    assert all(fields.intersection(request.body) == {sent} for request in server.requests)
    assert server.requests[0].body[sent]


@pytest.mark.parametrize("unknown", ["ignored", "refused"])
def test_where_nothing_is_obeyed_the_prompt_alone_asks(
    data: Dataset, capsys: pytest.CaptureFixture[str], unknown: str
) -> None:
    with FakeOpenAIServer("Red.", constraints=(), unknown=unknown) as server:  # type: ignore[arg-type]
        answers = list(served(server).predict(data, data.task))
    assert {answer.label for answer in answers} == {"red"}
    assert capsys.readouterr().err.count("the prompt alone asks") == 1
    assert all("structured_outputs" not in request.body for request in server.requests)


def test_a_constraint_that_is_chosen_is_not_tried(data: Dataset) -> None:
    with FakeOpenAIServer("red") as server:
        [answer] = served(server, constraint="json_schema").predict(data[:1], data.task)
    assert (answer.label, answer.raw) == ("red", '{"answer": "red"}')
    assert server.probes == []


@pytest.mark.parametrize(
    ("constraint", "words", "label"),
    [
        ("choice", "red, blue", "red, blue"),
        ("choice", "none", "none"),
        ("json_schema", "red, blue", "red, blue"),
        ("json_schema", "nothing", "none"),
        ("json_schema", "none", "none"),
        ("none", "Blue and red.", "red, blue"),
        ("none", '["red"]', "red"),
        ("none", "grey", None),
    ],
)
def test_several_classes_may_be_answered(data: Dataset, constraint: str, words: str, label: str | None) -> None:
    with FakeOpenAIServer(words) as server:
        [answer] = served(server, constraint=constraint).predict(data[:1], SEVERAL)
    assert (answer.label, answer.scores) == (label, None)
    assert server.requests[0].prompt == SEVERAL.render()


def test_the_way_for_several_classes_is_found_too(data: Dataset) -> None:
    with FakeOpenAIServer("red, green") as server:
        [answer] = served(server).predict(data[:1], SEVERAL)
    assert answer.label == "red, green"
    assert server.requests[0].body["structured_outputs"] == {
        "regex": "(red(, green)?(, blue)?|green(, blue)?|blue|none)"
    }


def test_scores_come_from_the_first_token(data: Dataset) -> None:
    chances = {"red": 0.6, "gr": 0.25, "green": 0.05, "blue": 0.0999, "The": 0.0001}
    with FakeOpenAIServer("red", first_tokens=chances) as server:
        [answer] = served(server).predict(data[:1], data.task)
    assert answer.scores is not None
    expected = {"red": 0.6 / 0.9999, "green": 0.3 / 0.9999, "blue": 0.0999 / 0.9999}
    assert {label: math.exp(score) for label, score in answer.scores.items()} == pytest.approx(expected)
    body = server.requests[0].body
    assert (body["logprobs"], body["top_logprobs"]) == (True, 20)


@pytest.mark.parametrize(
    "options", [{"logprobs": False}, {"temperature": None}, {"constraint": "json_schema"}, {"constraint": "none"}]
)
def test_scores_are_not_asked_for_where_they_would_be_inexact(data: Dataset, options: dict[str, object]) -> None:
    with FakeOpenAIServer("red", first_tokens={"red": 0.5, "green": 0.3, "blue": 0.2}) as server:
        [answer] = served(server, **options).predict(data[:1], data.task)
    assert (answer.label, answer.scores) == ("red", None)
    assert "logprobs" not in server.requests[0].body


def test_options_reach_the_server(data: Dataset) -> None:
    options: dict[str, object] = {
        "temperature": None,
        "seed": 7,
        "max_output_tokens": 64,
        "reasoning_effort": "low",
        "image_detail": "high",
        "extra_body": {"mm_processor_kwargs": {"max_pixels": 99}},
    }
    with FakeOpenAIServer("red") as server:
        [_] = served(server, **options).predict(data[:1], data.task)
    body = server.requests[0].body
    assert "temperature" not in body
    assert (body["seed"], body["max_completion_tokens"], body["reasoning_effort"]) == (7, 64, "low")
    assert body["mm_processor_kwargs"] == {"max_pixels": 99}
    assert server.probes[0].body["max_completion_tokens"] > 64, "a tight bound would cut the probe off"
    assert body["messages"][0]["content"][0]["image_url"]["detail"] == "high"


def test_extra_fields_cannot_take_the_place_of_options() -> None:
    with pytest.raises(ValidationError, match="messages, temperature cannot be set here"):
        OpenAIOptions(extra_body={"messages": [], "temperature": 1})


def test_usage_and_model_version_come_from_the_reply(data: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    answer = ask_one(data)
    assert answer.usage is not None
    assert answer.usage.input_tokens > 258
    assert answer.usage.cached_tokens == answer.usage.input_tokens // 2
    assert (answer.usage.output_tokens, answer.usage.thinking_tokens) == (2, 0)
    assert answer.model_version == "damage-001"
    assert answer.latency_s is not None
    assert answer.cost_usd is None
    assert capsys.readouterr().err.count("No price is known for damage") == 1


def test_a_known_price_is_applied(data: Dataset) -> None:
    with FakeOpenAIServer("red") as server:
        [answer] = OpenAICompatible(server.url, "gemini-3.5-flash").predict(data[:1], data.task)
    assert answer.cost_usd is not None
    assert answer.cost_usd > 0


@pytest.mark.parametrize(
    ("fault", "outcome", "reason"),
    [
        ("refusal", "refused", "the model refused: I cannot help with that."),
        ("content_filter", "refused", "the answer was blocked: content_filter"),
        ("blocked", "refused", "the prompt was blocked: 400: The prompt was filtered."),
        ("empty", "unparseable", "empty answer: length after 300 reasoning tokens"),
        ("cut_off", "unparseable", "cut-off answer: length"),
        ("off_list", "unparseable", "none of the classes"),
        ("no_choice", "unparseable", "the reply holds no answer"),
    ],
)
def test_what_was_said_decides_the_outcome(data: Dataset, fault: OpenAIFault, outcome: str, reason: str) -> None:
    answer = ask_one(data, fault)
    assert (answer.outcome, answer.label) == (outcome, None)
    assert reason in str(answer.error)


@pytest.mark.parametrize("fault", ["rate_limit", "unavailable", "server_error", "malformed", "reset"])
def test_what_may_pass_is_tried_again(data: Dataset, fault: OpenAIFault) -> None:
    assert ask_one(data, fault, fault).label == "green"


def test_the_client_does_not_try_again_by_itself(data: Dataset) -> None:
    with FakeOpenAIServer("red", faults=["unavailable"] * 9) as server:
        predictor = served(server, retry=RetryPolicy(attempts=1))
        [answer] = predictor.predict(data[:1], data.task)
    assert answer.outcome == "failed"
    assert len(server.requests) == 1


def test_a_stalled_call_ends_and_is_tried_again(data: Dataset) -> None:
    start = time.monotonic()
    assert ask_one(data, "stall", timeout_s=0.3).label == "green"
    assert time.monotonic() - start < 5


def test_the_wait_that_the_server_asks_for_is_kept(data: Dataset) -> None:
    with FakeOpenAIServer("red", faults=["rate_limit"], retry_after_s=0.4) as server:
        start = time.monotonic()
        [answer] = served(server).predict(data[:1], data.task)
    assert answer.outcome == "answered"
    assert time.monotonic() - start >= 0.4


def test_when_the_attempts_are_spent_the_example_fails_with_the_reason(data: Dataset) -> None:
    answer = ask_one(data, "unavailable", "unavailable", "unavailable", "unavailable")
    assert (answer.outcome, answer.error) == ("failed", "503: The server had an error.")


def test_a_server_that_only_fails_stops_the_run(data: Dataset) -> None:
    with FakeOpenAIServer("red", faults=["unavailable"] * 1000) as server:
        predictor = served(server, stop_after=5, concurrency=2)
        with pytest.raises(PredictorError, match="5 examples in a row"):
            list(predictor.predict(data, data.task))
    assert len(server.requests) < 60


def test_an_account_without_money_stops_the_run_at_once(data: Dataset) -> None:
    quota = pytest.raises(PredictorError, match="You exceeded your current quota")
    with FakeOpenAIServer("red", faults=["quota"] * 99) as server, quota:
        list(served(server, concurrency=1).predict(data, data.task))
    assert len(server.requests) < 9


def test_a_server_that_is_not_there_stops_the_run(data: Dataset) -> None:
    with FakeOpenAIServer("red") as server:
        pass
    with pytest.raises(PredictorError, match=r"gives no answer \(ConnectError.*is it running\?"):
        list(served(server).predict(data[:1], data.task))


def test_a_model_that_is_not_served_stops_the_run(data: Dataset) -> None:
    unknown = pytest.raises(PredictorError, match=r"`damage` does not exist.*usually ends in /v1")
    with FakeOpenAIServer("red", models=["other"]) as server, unknown:
        list(served(server).predict(data[:1], data.task))


def test_a_request_that_is_refused_alone_fails_alone(data: Dataset) -> None:
    with FakeOpenAIServer("red", faults=[None, None, "bad_request"]) as server:
        answers = list(served(server, concurrency=1).predict(data[:6], data.task))
    assert sorted(answer.outcome for answer in answers) == ["answered"] * 5 + ["failed"]


def test_an_unreadable_image_fails_without_a_call(data: Dataset) -> None:
    broken = Example(id="gone", image=Path("/nowhere/gone.jpg"), label="red")
    with FakeOpenAIServer("red") as server:
        answers = {answer.example_id: answer for answer in served(server).predict([broken, data[0]], data.task)}
    assert (answers["gone"].outcome, answers[data[0].id].outcome) == ("failed", "answered")
    assert "/nowhere/gone.jpg" in str(answers["gone"].error)
    assert len(server.requests) == 1


def test_nothing_is_asked_about_nothing(data: Dataset) -> None:
    with FakeOpenAIServer("red") as server:
        assert list(served(server).predict([], data.task)) == []
    assert server.requests == server.probes == []


def test_it_works_inside_a_running_loop(data: Dataset) -> None:
    async def notebook() -> Sequence[Prediction]:
        return list(served(server).predict(data, data.task))

    with FakeOpenAIServer("red") as server:
        assert len(asyncio.run(notebook())) == len(data)


def test_calls_run_at_the_same_time(data: Dataset) -> None:
    with FakeOpenAIServer("red", latency_s=0.1) as server:
        predictor = served(server, concurrency=12, constraint="choice", logprobs=False)
        start = time.monotonic()
        list(predictor.predict(data, data.task))
    assert time.monotonic() - start < 0.1 * len(data) / 2


def test_closing_early_stops_asking(data: Dataset) -> None:
    with FakeOpenAIServer("red", latency_s=0.05) as server:
        answers = served(server, concurrency=2).predict(data, data.task)
        assert len(list(itertools.islice(answers, 2))) == 2
        answers.close()  # type: ignore[attr-defined]
        asked = len(server.requests)
        time.sleep(0.15)
        assert len(server.requests) == asked < len(data)


def test_openai_needs_a_key_and_others_get_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(PredictorError, match="set the environment variable OPENAI_API_KEY"):
        OpenAICompatible("https://api.openai.com/v1", "gpt-4o")
    with pytest.raises(PredictorError, match="needs an API key"):
        OpenAICompatible("http://localhost:8000/v1", "damage", api_key=" ")
    OpenAICompatible("http://localhost:8000/v1", "damage")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    OpenAICompatible("https://api.openai.com/v1", "gpt-4o")


@pytest.mark.parametrize("host", ["api.openai.com.evil.example", "evil.example/api.openai.com", "localhost:8000"])
def test_the_key_of_openai_goes_to_openai_alone(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert OpenAICompatible(f"https://{host}/v1", "m")._key.get_secret_value() == "none"
    assert OpenAICompatible("https://api.openai.com/v1", "m")._key.get_secret_value() == KEY


@pytest.mark.parametrize("address", ["localhost:8000", "", "https:///v1", "ftp://host/v1"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(PredictorError, match=r"an address such as http://localhost:8000/v1"):
        OpenAICompatible(address, "m")


@pytest.mark.parametrize("address", [f"https://me:{KEY}@host/v1", f"https://host/v1?key={KEY}"])
def test_a_key_in_the_address_is_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(PredictorError, match="pass a key as api_key=") as caught:
        OpenAICompatible(address, "m")
    assert KEY not in str(caught.value)


def test_a_wrong_key_stops_the_run_and_shows_nowhere(data: Dataset) -> None:
    with FakeOpenAIServer("red", api_key="another") as server:
        predictor = served(server)
        with pytest.raises(PredictorError, match=r"Incorrect API key provided: \*\*\*") as caught:
            list(predictor.predict(data, data.task))
    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    for text in (shown, repr(predictor), str(vars(predictor)), predictor.fingerprint):
        assert KEY not in text


def test_without_the_package_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(MissingExtraError, match=r'pip install "vlm-tune\[openai\]"'):
        OpenAICompatible("http://localhost:8000/v1", "damage")


def test_the_fingerprint_follows_what_can_change_an_answer() -> None:
    def fingerprint(model: str = "m", url: str = "http://host/v1", **options: object) -> str:
        chosen = OpenAIOptions.model_validate(options)
        return OpenAICompatible(url, model, api_key=SecretStr(KEY), options=chosen).fingerprint

    same = fingerprint()
    assert fingerprint(url="http://host/v1/", timeout_s=5.0, concurrency=2, retry=QUICK, stop_after=1) == same
    others = [
        fingerprint("n"),
        fingerprint(url="http://host:1/v1"),
        fingerprint(temperature=1.0),
        fingerprint(constraint="none"),
        fingerprint(logprobs=False),
        fingerprint(extra_body={"top_k": 1}),
    ]
    assert len({same, *others}) == 7

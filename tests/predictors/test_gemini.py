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
from vlm_tune.cost import Price, cost_of, price_of
from vlm_tune.data import Dataset
from vlm_tune.errors import BudgetError, PredictorError
from vlm_tune.evaluation import Evaluator
from vlm_tune.predictors import Gemini, GeminiOptions, Predictor, RetryPolicy, few_shot
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


@pytest.mark.parametrize("fault", ["quota", "server_error"])
def test_errors_without_any_advice_are_tried_again(data: Dataset, fault: Fault) -> None:
    assert ask_one(data, fault, fault).label == "green"


def test_a_reply_without_a_candidate_is_no_answer(data: Dataset) -> None:
    answer = ask_one(data, "no_candidate")
    assert (answer.outcome, answer.error) == ("unparseable", "the reply holds no answer")


def test_another_model_behind_the_same_name_is_said(data: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    with FakeGeminiServer("red", faults=[None, "new_version", "new_version"]) as server:
        predictor = gemini(server, concurrency=1)
        answers = list(predictor.predict(data[:3], data.task))
    assert [str(answer.model_version)[-3:] for answer in answers] == ["001", "002", "002"]
    assert capsys.readouterr().err.count("changed on the way") == 1


def test_shots_are_shown_before_the_question(data: Dataset) -> None:
    split = tiny_dataset(8)
    shots = few_shot(split.train, 3)
    with FakeGeminiServer("red") as server:
        plain = Gemini("gemini-3-flash-preview", api_key=KEY, base_url=server.url)
        shown = Gemini("gemini-3-flash-preview", api_key=KEY, base_url=server.url, shots=shots)
        [_] = shown.predict(split.test[:1], split.task)
        with pytest.raises(PredictorError, match="is one of the shots"):
            next(shown.predict(split.train, split.task))
    [request] = server.requests
    pixels = [images.encode(shot.image, max_pixels=split.task.max_pixels).data for shot in shots]
    assert list(request.shots) == [(data, shot.label) for data, shot in zip(pixels, shots, strict=True)]
    assert request.prompt == split.task.render()
    assert request.image == images.encode(split.test[0].image, max_pixels=split.task.max_pixels).data
    backwards = Gemini("gemini-3-flash-preview", api_key=KEY, base_url=server.url, shots=shots[::-1])
    assert len({plain.fingerprint, shown.fingerprint, backwards.fingerprint}) == 3
    assert (plain.prompt_note, shown.name) == ("", "gemini-3-flash-preview with 3 shots")
    assert f"{shots[0].id}: {shots[0].label}" in shown.prompt_note


def test_shots_of_a_task_of_several_classes_answer_as_the_schema_asks(data: Dataset) -> None:
    shots = [data[0].model_copy(update={"label": "red, blue"}), data[1].model_copy(update={"label": "none"})]
    for refuse, expected in ((False, ['["red", "blue"]', "[]"]), (True, ["red, blue", "none"])):
        with FakeGeminiServer("red", refuse_schema=refuse) as server:
            predictor = Gemini("gemini-3-flash-preview", api_key=KEY, base_url=server.url, shots=shots)
            [_] = predictor.predict(data[2:3], SEVERAL)
        assert [said for _, said in server.requests[-1].shots] == expected


def spend(
    data: Dataset, *faults: Fault | None, num: int = 24, **options: object
) -> tuple[list[Prediction], Gemini, BudgetError | None]:
    predictions: list[Prediction] = []
    with FakeGeminiServer("green", faults=faults) as server:
        predictor = gemini(server, **options)
        try:
            predictions.extend(predictor.predict(data[:num], data.task))
        except BudgetError as error:
            return predictions, predictor, error
    return predictions, predictor, None


def test_the_most_that_may_be_spent_is_not_passed_and_nothing_paid_is_lost(data: Dataset) -> None:
    each, *_ = spend(data, num=1)
    one = each[0].cost_usd or 0.0
    most = 0.0009  # a photo of 1,120 tokens, few words, 100 tokens of answer at 0.5 and 3 dollars a million
    predictions, predictor, stopped = spend(data, max_cost_usd=most + 9 * one, max_output_tokens=100)
    assert stopped is not None
    assert 0 < len(predictions) < len(data)
    assert stopped.num_left == len(data) - len(predictions)
    assert stopped.spent_usd == pytest.approx(sum(answer.cost_usd or 0 for answer in predictions))
    assert stopped.spent_usd <= most + 9 * one < stopped.spent_usd + 1.1 * most
    assert f"{stopped.num_left} examples are left" in str(stopped)
    assert predictor.ledger.num_pending == 0
    everything, *_, nothing = spend(data, max_cost_usd=1.0, max_output_tokens=100)
    assert (len(everything), nothing) == (len(data), None)


def test_without_a_bound_on_answers_one_call_may_be_too_dear(data: Dataset) -> None:
    predictions, _, stopped = spend(data, max_cost_usd=0.05)
    assert predictions == []
    assert stopped is not None
    assert "bound a call with max_output_tokens (now the model's 65,536)" in str(stopped)


def test_calls_that_broke_off_count_as_spent(data: Dataset) -> None:
    predictions, predictor, stopped = spend(data, "reset", "reset", num=1, max_cost_usd=0.0020, max_output_tokens=100)
    assert stopped is not None
    assert (predictions, predictor.possibly_billed) == ([], 2)
    assert "2 calls possibly billed" in str(stopped)


def test_a_bound_without_a_price_is_an_error(data: Dataset) -> None:
    with FakeGeminiServer("red") as server, pytest.raises(PredictorError, match="no price is known for gemini-99"):
        list(gemini(server, "gemini-99", max_cost_usd=1.0).predict(data, data.task))
    assert server.requests == []


@pytest.mark.parametrize("fault", ["reset", "malformed", "stall"])
def test_what_broke_off_after_it_was_sent_is_possibly_billed(data: Dataset, fault: Fault) -> None:
    predictions, predictor, _ = spend(data, fault, num=2, timeout_s=0.5, concurrency=1)
    assert [answer.outcome for answer in predictions] == ["answered"] * 2
    assert predictor.possibly_billed == 1


@pytest.mark.parametrize("fault", ["rate_limit", "quota", "server_error", "unavailable", "bad_request"])
def test_what_the_server_refused_is_not_billed(data: Dataset, fault: Fault) -> None:
    _, predictor, _ = spend(data, fault, num=2)
    assert predictor.possibly_billed == 0


def test_a_server_that_was_never_reached_bills_nothing(data: Dataset) -> None:
    with FakeGeminiServer("red") as server:
        pass
    predictor = gemini(server)
    assert [answer.outcome for answer in predictor.predict(data[:1], data.task)] == ["failed"]
    assert predictor.possibly_billed == 0


def test_aiohttp_is_left_alone_where_it_is_installed(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("google.genai._api_client.has_aiohttp", True)
    assert ask_one(data).label == "green"
    test_a_server_that_was_never_reached_bills_nothing(data)


def test_a_proxy_of_the_environment_is_used(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeGeminiServer("red") as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "")
        predictor = Gemini("gemini-3-flash-preview", api_key=KEY, base_url="http://gemini.invalid")
        [answer] = predictor.predict(data[:1], data.task)
    assert (answer.label, len(proxy.requests)) == ("red", 1)


def test_an_evaluation_shows_what_is_possibly_billed_over_all_its_runs(data: Dataset, tmp_path: Path) -> None:
    one = data.filter(lambda example: example.id == data[0].id)
    with FakeGeminiServer("red", faults=["reset", *["unavailable"] * 3]) as server:
        first = Evaluator(one, run_dir=tmp_path).run(gemini(server))
        again = Evaluator(one, run_dir=tmp_path).run(gemini(server))
        third = Evaluator(one, run_dir=tmp_path).run(gemini(server, max_cost_usd=9.0))
    assert [one.outcomes["answered"] for one in (first, again, third)] == [0, 1, 1]
    assert [one.possibly_billed for one in (first, again, third)] == [1, 1, 1]
    assert again.to_dict()["possibly_billed"] == 1
    assert len(server.requests) == 5


def test_money_spent_by_a_killed_run_counts_in_the_next(data: Dataset, tmp_path: Path) -> None:
    def half(folder: Path) -> Gemini:
        return gemini(server, max_cost_usd=0.25, concurrency=1).with_state(folder)

    with FakeGeminiServer("red") as server:
        answers = half(tmp_path).predict(data, data.task)
        paid = sum(next(answers).cost_usd or 0 for _ in range(3))
        killed = half(tmp_path)  # what the next process finds while the first one is at its third answer
        answers.close()  # type: ignore[attr-defined]
    assert 0 < killed.ledger.paid_usd < paid
    assert killed.possibly_billed >= 1
    assert killed.ledger.committed_usd > paid


def test_what_the_server_counts_corrects_what_is_set_aside(data: Dataset, tmp_path: Path) -> None:
    with FakeGeminiServer("red") as server:
        options = GeminiOptions(media_resolution="low", max_output_tokens=10, concurrency=1)
        predictor = Gemini("gemini-2.5-flash-lite", api_key=KEY, base_url=server.url, options=options)
        answers = list(predictor.with_state(tmp_path).predict(data[:3], data.task))
    lines = (tmp_path / "calls.txt").read_text().splitlines()
    first, *later = (float(line.split()[1]) for line in lines if line.startswith("+"))
    price = price_of("gemini-2.5-flash-lite", on=datetime.now(UTC).date())
    assert price is not None
    assert answers[0].usage is not None
    counted = answers[0].usage.model_copy(update={"output_tokens": 10})
    assert later == [pytest.approx(cost_of(counted, price))] * 2
    assert later[0] > first


def test_prices_of_ones_own_go_first(data: Dataset) -> None:
    today = datetime.now(UTC).date()
    own = Price(
        model="gemini-99",
        input_usd_per_million=0.0,
        output_usd_per_million=1e6,
        source="a contract",
        checked_on=today,
        valid_from=today,
    )
    with FakeGeminiServer("red") as server:
        predictor = gemini(server, "gemini-99", prices=(own,), max_cost_usd=20.0, max_output_tokens=5)
        [answer] = predictor.predict(data[:1], data.task)
        unpriced = gemini(server, "gemini-99")
    assert answer.usage is not None
    assert answer.cost_usd == answer.usage.output_tokens
    assert predictor.estimate(data[:1], data.task, thinking_tokens=0).most_usd == 5.0
    assert predictor.fingerprint == gemini(server, "gemini-99", max_output_tokens=5).fingerprint != unpriced.fingerprint

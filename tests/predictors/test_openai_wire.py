"""Replies and errors as servers send them, and what is made of each."""

from __future__ import annotations

import math
import re
from typing import Any

import httpx2
import pytest
from openai import APIConnectionError, APIStatusError
from openai.types.chat import ChatCompletion

from vlm_tune.errors import PredictorError
from vlm_tune.predictors.asking import RejectedError
from vlm_tune.predictors.openai_wire import (
    RefusedError,
    constraint_fields,
    failure,
    label_of,
    outcome_of,
    scores_of,
    usage_of,
)
from vlm_tune.predictors.remote import Retry
from vlm_tune.records import Usage
from vlm_tune.task import Task

TASK = Task(prompt="Which one?", classes=("crack", "crack deep"), aliases={"crack": ("fissure",)})
PLAIN = Task(prompt="Which one?", classes=("crack", "dent", "scratch"))
SEVERAL = Task(prompt="Which?", classes=("a (b)", "c+", "d"), multi_label=True)
REQUEST = httpx2.Request("POST", "http://host/v1/chat/completions")


def api_error(status: int, *, headers: dict[str, str] | None = None, **body: Any) -> APIStatusError:
    response = httpx2.Response(status, request=REQUEST, headers=headers or {})
    return APIStatusError("as the client says it", response=response, body={"message": "what it says", **body})


def reply(text: str | None, finish: str = "stop", *, refusal: str | None = None, **rest: Any) -> ChatCompletion:
    message = {"role": "assistant", "content": text, "refusal": refusal}
    choice = {"index": 0, "message": message, "finish_reason": finish, **rest}
    head = {"id": "1", "object": "chat.completion", "created": 0, "model": "m"}
    return ChatCompletion.model_validate({**head, "choices": [choice]})


def failed(error: Exception) -> Exception:
    return failure(error, server="http://host/v1", hide=lambda text: text.replace("secret", "***"))


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
def test_what_may_pass(status: int) -> None:
    signal = failed(api_error(status))
    assert isinstance(signal, Retry)
    assert signal.overloaded == (status in (429, 503))
    assert str(signal) == f"{status}: what it says"


@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_what_breaks_every_call(status: int) -> None:
    assert isinstance(failed(api_error(status)), PredictorError)
    assert isinstance(failed(api_error(429, code="insufficient_quota")), PredictorError)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_concerns_one_request(status: int) -> None:
    signal = failed(api_error(status))
    assert type(signal) is RejectedError
    assert isinstance(failed(api_error(400, code="content_filter")), RefusedError)


def test_an_option_that_the_model_does_not_take_is_named() -> None:
    signal = failed(api_error(400, param="temperature", code="unsupported_value"))
    assert isinstance(signal, PredictorError)
    assert "pass OpenAIOptions(temperature=None)" in str(signal)


def test_what_the_client_does_not_name_may_pass_and_tells_the_cause() -> None:
    error = APIConnectionError(request=REQUEST)
    error.__cause__ = ConnectionResetError("reset by secret")
    assert str(failed(error)) == "ConnectionResetError: reset by ***"
    assert str(failed(TimeoutError())) == "TimeoutError"


@pytest.mark.parametrize(
    ("body", "said"),
    [({"message": "one"}, "one"), ({"message": None, "detail": "two"}, "two"), ({"message": "my secret"}, "my ***")],
)
def test_what_the_server_says_is_quoted_without_the_key(body: dict[str, Any], said: str) -> None:
    assert str(failed(api_error(400, **body))) == f"400: {said}"


def test_the_wait_is_read_from_the_headers() -> None:
    def asked(**headers: str) -> float | None:
        signal = failed(api_error(429, headers={name.replace("_", "-"): text for name, text in headers.items()}))
        assert isinstance(signal, Retry)
        return signal.asked_s

    assert asked() is None
    assert asked(retry_after="7") == 7
    assert asked(retry_after_ms="1500", retry_after="2") == 1.5
    assert asked(retry_after="Thu, 01 Jan 2015 00:00:00 GMT") == 0
    assert asked(retry_after="soon") is None


@pytest.mark.parametrize(
    ("response", "outcome", "label"),
    [
        (reply("Crack."), "answered", "crack"),
        (reply('"crack deep"'), "answered", "crack deep"),
        (reply("fissure"), "answered", "crack"),
        (reply("crack", "length"), "unparseable", None),
        (reply("crack or crack deep"), "unparseable", None),
        (reply('{"answer": "crack"}'), "unparseable", None),
        (reply(None), "unparseable", None),
        (reply(" "), "unparseable", None),
        (reply("crack", "content_filter"), "refused", None),
        (reply(None, refusal="No."), "refused", None),
        (ChatCompletion.construct(choices=None), "unparseable", None),
    ],
)
def test_what_an_answer_is_worth(response: ChatCompletion, outcome: str, label: str | None) -> None:
    found, answer, _, reason = outcome_of(response, TASK, "choice")
    assert (found, answer) == (outcome, label)
    assert (reason is None) == (outcome == "answered")


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ('{"answer": "crack deep"}', "crack deep"),
        ("crack", "crack"),
        ('{"answer": ["crack"]}', None),
        ('{"answer": 3}', None),
        ('{"other": "crack"}', None),
        ('{"answer": "cra', None),
    ],
)
def test_the_object_that_a_schema_asks_for(text: str, label: str | None) -> None:
    assert label_of(text, TASK, "json_schema") == label


def test_the_pattern_of_lists_allows_all_answers_and_no_other() -> None:
    pattern = constraint_fields("regex", SEVERAL)["regex"]
    assert constraint_fields("choice", SEVERAL) == {"structured_outputs": {"regex": pattern}}
    assert constraint_fields("guided_choice", SEVERAL) == {"guided_regex": pattern}
    for answer in SEVERAL.answers:
        assert re.fullmatch(pattern, answer), answer
    for text in ("", "d, c+", "d, d", "a b", "c", "none, d", "d,"):
        assert not re.fullmatch(pattern, text), text


def test_each_server_has_its_own_field() -> None:
    classes = list(PLAIN.classes)
    assert constraint_fields("choice", PLAIN) == {"structured_outputs": {"choice": classes}}
    assert constraint_fields("guided_choice", PLAIN) == {"guided_choice": classes}
    assert constraint_fields("regex", PLAIN) == {"regex": "(crack|dent|scratch)"}
    assert constraint_fields("none", PLAIN) == {}
    schema = constraint_fields("json_schema", PLAIN)["response_format"]["json_schema"]
    assert schema["strict"]
    assert schema["schema"]["properties"] == {"answer": {"type": "string", "enum": classes}}
    assert schema["schema"]["additionalProperties"] is False


def listed(chances: dict[str, float], text: str = "dent", tokens: tuple[str, ...] = ("dent", "")) -> ChatCompletion:
    def entry(token: str, chance: float) -> dict[str, Any]:
        return {"token": token, "logprob": math.log(chance) if chance else -9999.0, "top_logprobs": []}

    first = {**entry(tokens[0], 0.5), "top_logprobs": [entry(token, chance) for token, chance in chances.items()]}
    content = [first, *(entry(token, 1.0) for token in tokens[1:])]
    return reply(text, logprobs={"content": content, "refusal": None})


def test_scores_are_the_shares_of_the_first_tokens() -> None:
    scores = scores_of(listed({"dent": 0.5, "d": 0.1, "cr": 0.3, "scratch": 0.0999}), PLAIN)
    assert scores is not None
    assert sum(map(math.exp, scores.values())) == pytest.approx(1)
    assert math.exp(scores["dent"]) == pytest.approx(0.6 / 0.9999)
    assert list(scores) == list(PLAIN.classes)


@pytest.mark.parametrize(
    "response",
    [
        reply("dent"),
        listed({"dent": 0.5, "cr": 0.3, "scratch": 0.19}),  # one in a hundred is not told
        listed({"dent": 0.6, "cr": 0.4}),  # a class is missing
        listed({"dent": 0.6, "cr": 0.4, "scratch": 0.0}),  # masked out
        listed({" dent": 0.5, " cr": 0.3, " scratch": 0.2}),  # other words than the classes'
        listed({"dent": 0.5, "cr": 0.3, "scratch": 0.2}, tokens=("I", " think", "dent")),  # reasoning comes first
    ],
)
def test_scores_that_are_not_exact_are_not_given(response: ChatCompletion) -> None:
    assert scores_of(response, PLAIN) is None


def test_classes_that_begin_alike_have_no_scores() -> None:
    assert scores_of(listed({"crack": 0.7, "crack deep": 0.3}, text="crack", tokens=("crack",)), TASK) is None


def test_tokens_are_read_and_what_is_left_out_is_zero() -> None:
    counts = {
        "prompt_tokens": 1180,
        "completion_tokens": 305,
        "total_tokens": 1485,
        "prompt_tokens_details": {"cached_tokens": 1000},
        "completion_tokens_details": {"reasoning_tokens": 300},
    }
    response = reply("dent")
    assert usage_of(response) == Usage()
    response = ChatCompletion.model_validate({**response.model_dump(), "usage": counts})
    assert usage_of(response) == Usage(input_tokens=1180, cached_tokens=1000, output_tokens=5, thinking_tokens=300)
    plain = {"prompt_tokens": 20, "completion_tokens": 2, "total_tokens": 22, "prompt_tokens_details": None}
    response = ChatCompletion.model_validate({**response.model_dump(), "usage": plain})
    assert usage_of(response) == Usage(input_tokens=20, output_tokens=2)

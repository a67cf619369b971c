"""Replies and errors as the service sends them, and what is made of each."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from google.genai.errors import APIError
from google.genai.types import GenerateContentResponse

from vlm_tune.errors import PredictorError
from vlm_tune.predictors.gemini_wire import RejectedError, failure, outcome_of, usage_of
from vlm_tune.predictors.remote import Retry
from vlm_tune.records import Usage
from vlm_tune.task import Task

TASK = Task(prompt="Which one?", classes=("crack", "crack deep"), aliases={"crack": ("fissure",)})


class Reply:
    """The part of an HTTP response that is looked at."""

    def __init__(self, headers: dict[str, str]) -> None:
        self.headers = headers


def api_error(
    code: int, *, details: list[dict[str, str]] | None = None, headers: dict[str, str] | None = None
) -> APIError:
    body = {"error": {"code": code, "status": "STATUS", "message": "what it says", "details": details or []}}
    return APIError(code, body, Reply(headers or {}))  # type: ignore[arg-type]


def reply(*parts: dict[str, Any], finish: str | None = "STOP", **rest: Any) -> GenerateContentResponse:
    candidate = {"content": {"role": "model", "parts": list(parts)}, "finishReason": finish}
    return GenerateContentResponse.model_validate({"candidates": [candidate], **rest})


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_what_may_pass(code: int) -> None:
    signal = failure(api_error(code))
    assert isinstance(signal, Retry)
    assert signal.overloaded == (code in (429, 503))
    assert "what it says" in str(signal)


@pytest.mark.parametrize("code", [401, 402, 403, 404])
def test_what_breaks_every_call(code: int) -> None:
    assert isinstance(failure(api_error(code)), PredictorError)
    assert isinstance(failure(api_error(400, details=[{"reason": "API_KEY_INVALID"}])), PredictorError)


@pytest.mark.parametrize("code", [400, 413])
def test_what_concerns_one_request(code: int) -> None:
    assert isinstance(failure(api_error(code)), RejectedError)


@pytest.mark.parametrize("error", [TimeoutError(), ConnectionResetError("reset"), json.JSONDecodeError("x", "", 0)])
def test_what_the_client_does_not_name_may_pass(error: Exception) -> None:
    signal = failure(error)
    assert isinstance(signal, Retry)
    assert type(error).__name__ in str(signal)
    assert signal.asked_s is None


def asked(**how: Any) -> float | None:
    signal = failure(api_error(429, **how))
    assert isinstance(signal, Retry)
    return signal.asked_s


def test_the_wait_is_read_from_body_and_header() -> None:
    assert asked() is None
    assert asked(details=[{"reason": "x"}, {"@type": "RetryInfo", "retryDelay": "53.5s"}]) == 53.5
    assert asked(headers={"retry-after": "7"}) == 7
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert asked(headers={"retry-after": later}) == pytest.approx(30, abs=2)
    assert asked(headers={"retry-after": "Thu, 01 Jan 2015 00:00:00 GMT"}) == 0
    assert asked(headers={"retry-after": "soon"}) is None


@pytest.mark.parametrize(
    ("response", "outcome", "label"),
    [
        (reply({"text": "Crack."}), "answered", "crack"),
        (reply({"text": '"crack deep"'}), "answered", "crack deep"),
        (reply({"text": "fissure"}), "answered", "crack"),
        (reply({"text": "crack"}, {"text": " deep"}), "answered", "crack deep"),
        (reply({"text": "crack?", "thought": True}, {"text": "crack deep"}), "answered", "crack deep"),
        (reply({"text": "crack"}, finish="MAX_TOKENS"), "unparseable", None),
        (reply({"text": "crack or crack deep"}), "unparseable", None),
        (reply(finish="MAX_TOKENS"), "unparseable", None),
        (reply(finish=None), "unparseable", None),
        (reply({"text": "crack"}, finish="SAFETY"), "refused", None),
        (reply(finish="PROHIBITED_CONTENT"), "refused", None),
        (GenerateContentResponse(), "unparseable", None),
        (
            GenerateContentResponse.model_validate({"promptFeedback": {"blockReason": "OTHER"}}),
            "refused",
            None,
        ),
    ],
)
def test_what_an_answer_is_worth(response: GenerateContentResponse, outcome: str, label: str | None) -> None:
    found, answer, _, reason = outcome_of(response, TASK)
    assert (found, answer) == (outcome, label)
    assert (reason is None) == (outcome == "answered")


def test_tokens_are_read_and_what_is_left_out_is_zero() -> None:
    counts = {
        "promptTokenCount": 1180,
        "cachedContentTokenCount": 1000,
        "thoughtsTokenCount": 300,
        "promptTokensDetails": [
            {"modality": "TEXT", "tokenCount": 60},
            {"modality": "IMAGE", "tokenCount": 1120},
        ],
    }
    usage = Usage(input_tokens=1180, cached_tokens=1000, image_tokens=1120, thinking_tokens=300)
    assert usage_of(reply(usageMetadata=counts)) == usage
    assert usage_of(reply()) == Usage()

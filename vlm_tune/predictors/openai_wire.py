"""What OpenAI-compatible servers are sent, and what their replies mean: an answer, its scores, or a failure."""

from __future__ import annotations

import json
import math
import re
from base64 import b64encode
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vlm_tune.errors import PredictorError
from vlm_tune.images import EncodedImage
from vlm_tune.predictors.asking import RejectedError, asked_seconds, named
from vlm_tune.predictors.openai_options import Constraint
from vlm_tune.predictors.remote import Retry
from vlm_tune.records import Outcome, Usage
from vlm_tune.task import NONE, Task

if TYPE_CHECKING:
    from openai import APIStatusError
    from openai.types.chat import ChatCompletion

__all__ = [
    "RefusedError",
    "constraint_fields",
    "failure",
    "label_of",
    "outcome_of",
    "photo_and_words",
    "scores_of",
    "usage_of",
]

_PASSING = {408, 409, 429}
_OVERLOADED = {429, 503}
_BROKEN = {401, 402, 403, 404}
_CHOSEN = {"temperature", "seed", "reasoning_effort"}
_BLOCKED = {"content_filter", "content_policy_violation"}
_UNSEEN = 1e-3
"""Largest share of the classes' probability that may lie in tokens whose class is not known."""


class RefusedError(RejectedError):
    """The server would not have the prompt answered."""


def photo_and_words(image: EncodedImage, words: str, *, detail: str | None) -> list[dict[str, Any]]:
    """Return a message's content: the photo as a data URI, then the words."""
    url = {"url": f"data:{image.mime};base64,{b64encode(image.data).decode()}"}
    photo = {"type": "image_url", "image_url": url | ({"detail": detail} if detail else {})}
    return [photo, {"type": "text", "text": words}]


def constraint_fields(constraint: Constraint, task: Task) -> dict[str, Any]:
    """Return the fields of a request that keep its answer to the task's classes, or to a list of them.

    Servers with a grammar of their own answer in the very words that the prompt asks for; `json_schema` wraps
    them in an object, since OpenAI's schemas must begin with one. `none` is in its list too, as in the prompt.
    """
    kind = "regex" if task.multi_label else "choice"
    wanted = _pattern(task) if task.multi_label else list(task.classes)
    if constraint == "choice":
        return {"structured_outputs": {kind: wanted}}
    if constraint == "guided_choice":
        return {f"guided_{kind}": wanted}
    if constraint == "regex":
        return {"regex": _pattern(task)}
    if constraint == "none":
        return {}
    answer: dict[str, Any] = {"type": "string", "enum": list(task.classes)}
    if task.multi_label:
        answer = {"type": "array", "items": {"type": "string", "enum": [*task.classes, NONE]}}
    schema = {"type": "object", "properties": {"answer": answer}, "required": ["answer"], "additionalProperties": False}
    return {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": True, "schema": schema},
        }
    }


def _pattern(task: Task) -> str:
    """Return a regular expression of all answers: a class, or a list of classes in their order, or `none`."""
    classes = [re.sub(r"([\\.^$*+?{}\[\]|()])", r"\\\1", label) for label in task.classes]
    if not task.multi_label:
        return f"({'|'.join(classes)})"
    lists = ["".join([first, *(f"(, {later})?" for later in classes[at + 1 :])]) for at, first in enumerate(classes)]
    return f"({'|'.join([*lists, NONE])})"


def outcome_of(
    response: ChatCompletion, task: Task, constraint: Constraint
) -> tuple[Outcome, str | None, str | None, str | None]:
    """Return outcome, label, raw text and the reason why there is no label.

    A cut-off answer is `unparseable` even when its beginning is a class: with classes `crack` and
    `crack deep` the beginning is not the answer.
    """
    # The client takes replies as they are: what a server leaves out is None, whatever the types say.
    choice: Any = response.choices[0] if response.choices else None
    if choice is None or choice.message is None:
        return "unparseable", None, None, "the reply holds no answer"
    text = choice.message.content or ""
    if choice.message.refusal:
        return "refused", None, text or None, f"the model refused: {choice.message.refusal}"
    if choice.finish_reason == "content_filter":
        return "refused", None, text or None, "the answer was blocked: content_filter"
    if not text.strip() or choice.finish_reason == "length":
        thinking = usage_of(response).thinking_tokens
        spent = f" after {thinking} reasoning tokens" if thinking else ""
        what = "cut-off" if text.strip() else "empty"
        return "unparseable", None, text or None, f"{what} answer: {choice.finish_reason}{spent}"
    label = label_of(text, task, constraint)
    if label is None:
        return "unparseable", None, text, "the answer is none of the classes"
    return "answered", label, text, None


def label_of(text: str, task: Task, constraint: Constraint) -> str | None:
    """Return the label that a text names: plain words, or the object that `json_schema` asks for."""
    try:
        found = json.loads(text) if constraint == "json_schema" else None
    except ValueError:
        found = None
    return named(found["answer"] if isinstance(found, dict) and "answer" in found else text, task)


def scores_of(response: ChatCompletion, task: Task) -> dict[str, float] | None:
    """Return the log-probability that an answer kept to the classes would be each of them, or None.

    The first token decides where each listed token begins one class only; a class has the tokens that begin it.
    There are scores only where the list holds a token of every class, and what the list does not tell (tokens
    below its end, tokens that begin several classes) has less than a thousandth of the classes' probability.

    Args:
        response: A reply whose answer the server kept to the classes' own words.
        task: The question, with one class an answer.
    """
    choice: Any = response.choices[0] if response.choices else None
    tokens = (choice.logprobs.content if choice is not None and choice.logprobs else None) or []
    text = (choice.message.content or "") if tokens else ""
    if not text or not "".join(token.token for token in tokens).startswith(text):
        return None
    share = dict.fromkeys(task.classes, 0.0)
    unseen = 1.0
    for entry in tokens[0].top_logprobs or []:
        begun = [label for label in task.classes if entry.token and label.startswith(entry.token)]
        if len(begun) < 2:
            unseen -= math.exp(entry.logprob)
        if len(begun) == 1:
            share[begun[0]] += math.exp(entry.logprob)
    total = sum(share.values())
    if min(share.values()) <= 0 or unseen > _UNSEEN * total:
        return None
    return {label: math.log(value / total) for label, value in share.items()}


def usage_of(response: ChatCompletion) -> Usage:
    """Return the tokens that the server counted; what it leaves out is 0."""
    counts = response.usage
    if counts is None:
        return Usage()
    prompt, output = counts.prompt_tokens_details, counts.completion_tokens_details
    thinking = (output.reasoning_tokens or 0) if output else 0
    return Usage(
        input_tokens=counts.prompt_tokens or 0,
        cached_tokens=(prompt.cached_tokens or 0) if prompt else 0,
        image_tokens=(getattr(prompt, "image_tokens", None) or 0) if prompt else 0,
        output_tokens=max(0, (counts.completion_tokens or 0) - thinking),
        thinking_tokens=thinking,
    )


def failure(error: Exception, *, server: str, hide: Callable[[str], str] = str) -> Exception:
    """Turn what the client raised into what to do: `Retry`, `RejectedError` or `PredictorError`.

    Whatever the client does not name (a timeout, a reset, a reply that is not JSON) may pass.

    Args:
        error: What it raised.
        server: What errors call the server.
        hide: Takes secrets out of a text, should the server have echoed them.
    """
    from openai import APIStatusError

    if not isinstance(error, APIStatusError):
        cause = error.__cause__ or error
        return Retry(hide(f"{type(cause).__name__}: {cause}") if str(cause) else type(cause).__name__)
    status, reason = error.status_code, f"{error.status_code}: {hide(_said(error))}"
    if error.code == "insufficient_quota" or status in _BROKEN:
        return PredictorError(
            f"{server} refuses every call ({reason}); check the key, the model's name and the address, "
            "which usually ends in /v1"
        )
    if status in _PASSING or status >= 500:
        return Retry(reason, asked_s=_asked_wait(error), overloaded=status in _OVERLOADED)
    if error.param in _CHOSEN:
        return PredictorError(f"{server} does not take this ({reason}); pass OpenAIOptions({error.param}=None)")
    return RefusedError(reason) if error.code in _BLOCKED else RejectedError(reason)


def _said(error: APIStatusError) -> str:
    if isinstance(error.body, dict):
        return str(error.body.get("message") or error.body.get("detail") or error.body)
    return error.message


def _asked_wait(error: APIStatusError) -> float | None:
    headers = error.response.headers
    if "retry-after-ms" in headers:
        wait = asked_seconds(headers["retry-after-ms"])
        return None if wait is None else wait / 1000
    return asked_seconds(headers["retry-after"]) if "retry-after" in headers else None

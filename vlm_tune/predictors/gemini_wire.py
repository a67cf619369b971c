"""What Gemini is sent, and what its replies mean: an answer and its tokens, or which kind of failure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vlm_tune.cost import Price, cost_of
from vlm_tune.errors import PredictorError
from vlm_tune.images import EncodedImage
from vlm_tune.predictors.asking import RejectedError, asked_seconds, named
from vlm_tune.predictors.gemini_options import GeminiOptions
from vlm_tune.predictors.remote import Retry
from vlm_tune.predictors.shots import Shot
from vlm_tune.records import Outcome, Prediction, Usage
from vlm_tune.task import NONE, Task

if TYPE_CHECKING:
    from google.genai.errors import APIError
    from google.genai.types import Content, GenerateContentConfig, GenerateContentResponse

__all__ = [
    "AnswerFormat",
    "RejectedError",
    "answer_format",
    "failure",
    "generation_config",
    "outcome_of",
    "prediction_of",
    "request_contents",
    "usage_of",
]

_PASSING = {408, 409, 429, 500, 502, 503, 504}
_OVERLOADED = {429, 503}
_BROKEN = {401, 402, 403, 404}
_NEVER_SENT = {"ConnectError", "ConnectTimeout", "PoolTimeout"}
_REFUSALS = {
    "BLOCKLIST",
    "ESCALATION",
    "IMAGE_PROHIBITED_CONTENT",
    "IMAGE_RECITATION",
    "IMAGE_SAFETY",
    "MODEL_ARMOR",
    "PROHIBITED_CONTENT",
    "RECITATION",
    "SAFETY",
    "SPII",
}


@dataclass(frozen=True)
class AnswerFormat:
    """What the answer is constrained to."""

    mime: str
    """Its media type."""
    schema: Mapping[str, Any]
    """Its shape."""


def answer_format(task: Task) -> AnswerFormat:
    """Return the format of a task's answer: one class, or a JSON list of classes.

    `none` is in the list too, since the prompt asks for it.
    """
    if task.multi_label:
        item = {"type": "STRING", "enum": [*task.classes, NONE]}
        return AnswerFormat("application/json", {"type": "ARRAY", "items": item})
    return AnswerFormat("text/x.enum", {"type": "STRING", "enum": list(task.classes)})


def request_contents(
    image: EncodedImage, task: Task, shots: Sequence[Shot] = (), *, constrained: bool
) -> list[Content]:
    """Return the conversation that is sent: a question and its answer for every shot, then the question.

    Args:
        image: The photo asked about.
        task: The question.
        shots: Photos with their labels, shown first.
        constrained: Whether the answer schema goes along; shots then answer in its format.
    """
    from google.genai import types

    prompt = types.Part(text=task.render())

    def question(photo: EncodedImage) -> types.Content:
        return types.Content(role="user", parts=[types.Part.from_bytes(data=photo.data, mime_type=photo.mime), prompt])

    contents = []
    for photo, label in shots:
        words = json.dumps(list(task.members(label))) if constrained and task.multi_label else label
        contents += [question(photo), types.Content(role="model", parts=[types.Part(text=words)])]
    return [*contents, question(image)]


def generation_config(options: GeminiOptions, task: Task, *, constrained: bool) -> GenerateContentConfig:
    """Return the settings that are sent; `constrained` adds the classes as the answer's schema."""
    from google.genai import types

    wanted, resolution = answer_format(task), options.media_resolution
    thinks = options.thinking_budget is not None or options.thinking_level is not None
    thinking = types.ThinkingConfig(
        thinking_budget=options.thinking_budget,
        thinking_level=types.ThinkingLevel(options.thinking_level.upper()) if options.thinking_level else None,
    )
    return types.GenerateContentConfig(
        temperature=options.temperature,
        seed=options.seed,
        max_output_tokens=options.max_output_tokens,
        thinking_config=thinking if thinks else None,
        media_resolution=types.MediaResolution(f"MEDIA_RESOLUTION_{resolution.upper()}") if resolution else None,
        response_mime_type=wanted.mime if constrained else None,
        response_schema=wanted.schema if constrained else None,
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    )


def prediction_of(
    example_id: str,
    response: GenerateContentResponse,
    task: Task,
    *,
    price: Price | None,
    latency_s: float | None = None,
) -> Prediction:
    """Return the prediction that a reply is, with its tokens, its cost and the model that made it.

    Args:
        example_id: The example asked about.
        response: The reply.
        task: The question.
        price: The price of tokens on the day of the call; None leaves the cost open.
        latency_s: Seconds that the call took, where it was made alone.
    """
    outcome, label, raw, error = outcome_of(response, task)
    usage = usage_of(response)
    return Prediction(
        example_id=example_id,
        outcome=outcome,
        label=label,
        raw=raw,
        error=error,
        latency_s=latency_s,
        usage=usage,
        cost_usd=cost_of(usage, price) if price else None,
        model_version=response.model_version,
    )


def outcome_of(response: GenerateContentResponse, task: Task) -> tuple[Outcome, str | None, str | None, str | None]:
    """Return outcome, label, raw text and the reason why there is no label.

    A cut-off answer is `unparseable` even when its beginning is a class: with classes `crack` and
    `crack deep` the beginning is not the answer.
    """
    blocked = response.prompt_feedback.block_reason if response.prompt_feedback else None
    if blocked is not None:
        return "refused", None, None, f"the prompt was blocked: {blocked.value}"
    if not response.candidates:
        return "unparseable", None, None, "the reply holds no answer"
    candidate = response.candidates[0]
    finish = candidate.finish_reason.value if candidate.finish_reason else "no reason given"
    parts = (candidate.content.parts if candidate.content else None) or []
    text = "".join(part.text for part in parts if part.text and not part.thought)
    if finish in _REFUSALS:
        return "refused", None, text or None, f"the answer was blocked: {finish}"
    if not text.strip() or finish == "MAX_TOKENS":
        thinking = usage_of(response).thinking_tokens
        spent = f" after {thinking} thinking tokens" if thinking else ""
        what = "cut-off" if text.strip() else "empty"
        return "unparseable", None, text or None, f"{what} answer: {finish}{spent}"
    label = _named(text, task)
    if label is None:
        return "unparseable", None, text, "the answer is none of the classes"
    return "answered", label, text, None


def _named(text: str, task: Task) -> str | None:
    """Return the label that a text names: plain words, or a JSON list where that is what was asked for."""
    try:
        items = json.loads(text) if task.multi_label else None
    except ValueError:
        items = None
    return named(items if isinstance(items, list) else text, task)


def usage_of(response: GenerateContentResponse) -> Usage:
    """Return the tokens that the server counted; what it leaves out is 0."""
    counts = response.usage_metadata
    if counts is None:
        return Usage()
    pictures = sum(
        detail.token_count or 0
        for detail in counts.prompt_tokens_details or []
        if detail.modality is not None and detail.modality.value == "IMAGE"
    )
    return Usage(
        input_tokens=counts.prompt_token_count or 0,
        cached_tokens=counts.cached_content_token_count or 0,
        image_tokens=pictures,
        output_tokens=counts.candidates_token_count or 0,
        thinking_tokens=counts.thoughts_token_count or 0,
    )


def failure(error: Exception) -> Exception:
    """Turn what the client raised into what to do: `Retry`, `RejectedError` or `PredictorError`.

    Whatever the client does not name (a timeout, a reset, a reply that is not JSON) may pass.
    """
    from google.genai.errors import APIError

    if not isinstance(error, APIError):
        name = type(error).__name__
        return Retry(f"{name}: {error}" if str(error) else name, sent=name not in _NEVER_SENT)
    reason = f"{error.code} {error.status or ''}: {error.message or 'no message'}"
    if error.code in _PASSING:
        return Retry(reason, asked_s=_asked_wait(error), overloaded=error.code in _OVERLOADED)
    if error.code in _BROKEN or "API_KEY_INVALID" in str(error.details):
        return PredictorError(f"Gemini refuses every call ({reason}); check the key and the model's name")
    return RejectedError(reason)


def _asked_wait(error: APIError) -> float | None:
    """Return the seconds that the server asks to wait: RetryInfo in the body, or Retry-After."""
    body = error.details.get("error", error.details) if isinstance(error.details, Mapping) else {}
    for detail in body.get("details") or []:
        delay = detail.get("retryDelay") if isinstance(detail, Mapping) else None
        if delay is not None:
            return asked_seconds(str(delay).removesuffix("s"))
    headers: Any = getattr(error.response, "headers", None) or {}
    return asked_seconds(headers["retry-after"]) if "retry-after" in headers else None

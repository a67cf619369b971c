"""How an OpenAI-compatible server is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, JsonValue, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from vlm_tune.predictors.remote import RetryPolicy
from vlm_tune.records import Record

__all__ = ["Constraint", "OpenAIOptions"]

Constraint = Literal["choice", "guided_choice", "regex", "json_schema", "none"]
"""How an answer is kept to the classes: vLLM's `structured_outputs`, older vLLM's `guided_choice`, SGLang's
`regex`, OpenAI's `response_format`, or by the prompt alone."""

_OURS = {"model", "messages", "n", "stream", "logprobs", "top_logprobs", "temperature", "seed"}


class OpenAIOptions(Record):
    """How an OpenAI-compatible server is asked; what is None is left to the model's own default and not sent."""

    temperature: float | None = 0.0
    """0 asks for the likeliest answer every time, as local models are asked; some reasoning models take only None."""
    seed: int | None = 0
    """Seed of the sampling."""
    max_output_tokens: PositiveInt | None = None
    """Bound on answer and reasoning together; a tight one leaves no room for the answer."""
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    """How much to reason, for models that do."""
    image_detail: Literal["low", "high", "auto"] | None = None
    """Tokens spent on the photo, where the server lets one choose."""
    constraint: Constraint | Literal["auto"] = "auto"
    """How answers are kept to the classes; `auto` tries which way the server obeys."""
    logprobs: bool = True
    """Whether to ask for log-probabilities where scores can be had from them."""
    extra_body: Mapping[str, JsonValue] = Field(default_factory=dict)
    """Further fields of the request, such as vLLM's `mm_processor_kwargs` or `chat_template_kwargs`."""
    timeout_s: PositiveFloat = 60.0
    """Longest time for one call."""
    concurrency: PositiveInt = 16
    """Most calls in flight; fewer while the server is overloaded."""
    stop_after: NonNegativeInt = 25
    """Examples failing in a row after which the run stops instead of failing all the rest; 0: never."""
    retry: RetryPolicy = RetryPolicy()
    """How often and how long to try again."""

    @field_validator("extra_body")
    @classmethod
    def _not_ours(cls, fields: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
        if taken := sorted(_OURS.intersection(fields)):
            raise ValueError(f"{', '.join(taken)} cannot be set here; the options have names for what may be chosen")
        return fields

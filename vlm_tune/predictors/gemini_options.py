"""How Gemini is asked: the options that can change an answer, and those that cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from vlm_tune.cost import Price
from vlm_tune.predictors.remote import RetryPolicy
from vlm_tune.records import Record

__all__ = ["GeminiOptions"]

_ANSWERS_DO_NOT_DEPEND_ON = {"timeout_s", "concurrency", "stop_after", "max_cost_usd", "prices", "retry"}


class GeminiOptions(Record):
    """How Gemini is asked; what is None is left to the model's own default and not sent."""

    temperature: float | None = 0.0
    """0 asks for the likeliest class every time, as local models are asked."""
    seed: int | None = 0
    """Seed of the sampling."""
    thinking_budget: int | None = None
    """Most thinking tokens, for 2.5 models; 0 switches it off, -1 lets the model choose."""
    thinking_level: Literal["minimal", "low", "medium", "high"] | None = None
    """How much to think, for models from 3 on."""
    media_resolution: Literal["low", "medium", "high"] | None = None
    """Tokens spent on the photo."""
    max_output_tokens: PositiveInt | None = None
    """Bound on answer and thinking together; a tight one leaves no room for the answer."""
    api_version: str = "v1beta"
    """Version of the service's interface."""
    timeout_s: PositiveFloat = 60.0
    """Longest time for one call."""
    concurrency: PositiveInt = 16
    """Most calls in flight; fewer while the server is overloaded."""
    stop_after: NonNegativeInt = 25
    """Examples failing in a row after which the run stops instead of failing all the rest; 0: never."""
    max_cost_usd: PositiveFloat | None = None
    """Most dollars to spend, earlier runs in the same run folder included. The worst case of every call in flight
    is set aside, and of every call that broke off; `max_output_tokens` makes that case smaller."""
    prices: Path | tuple[Price, ...] = ()
    """Prices of your own, which go first: a TOML file like the library's, or records."""
    retry: RetryPolicy = RetryPolicy()
    """How often and how long to try again."""

    @model_validator(mode="after")
    def _one_way_to_think(self) -> GeminiOptions:
        if self.thinking_budget is not None and self.thinking_level is not None:
            raise ValueError("set thinking_budget (2.5 models) or thinking_level (from 3 on), not both")
        return self

    def asked(self) -> str:
        """Return as JSON what can change an answer."""
        return self.model_dump_json(exclude=_ANSWERS_DO_NOT_DEPEND_ON)

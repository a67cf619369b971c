"""Gemini through the real google-genai client, online."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, SecretStr, model_validator

from vlm_tune import images
from vlm_tune._console import notice
from vlm_tune.cost import cost_of, price_of
from vlm_tune.errors import ImageError, PredictorError
from vlm_tune.predictors.gemini_wire import RejectedError, answer_format, failure, outcome_of, usage_of
from vlm_tune.predictors.remote import AdaptiveLimiter, Retry, RetryPolicy, stream, with_retries
from vlm_tune.records import Example, Prediction, Record
from vlm_tune.task import Task

if TYPE_CHECKING:
    from google.genai import Client
    from google.genai.types import GenerateContentConfig, GenerateContentResponse

__all__ = ["Gemini", "GeminiOptions"]

_SERVICE = "https://generativelanguage.googleapis.com"


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
    retry: RetryPolicy = RetryPolicy()
    """How often and how long to try again."""

    @model_validator(mode="after")
    def _one_way_to_think(self) -> GeminiOptions:
        if self.thinking_budget is not None and self.thinking_level is not None:
            raise ValueError("set thinking_budget (2.5 models) or thinking_level (from 3 on), not both")
        return self


class Gemini:
    """A Gemini model, asked the task's prompt about the same image bytes as every other predictor.

    The answer is constrained to the classes, or to a list of them for a multi-label task; where the server refuses
    that, the prompt alone must do, and one line says so. Calls run concurrently, are retried while that may help,
    and each is priced by the tokens that the server counted.

    Args:
        model: Gemini's id, such as `gemini-3-flash-preview`.
        api_key: The key; otherwise `GEMINI_API_KEY` is read. No other variable is.
        base_url: Another server than Google's, such as a proxy.
        options: How to ask.
        name: What reports call it; the model's id by default.

    Raises:
        PredictorError: There is no key.

    Example:
        >>> Gemini("gemini-3-flash-preview", api_key="a secret")
        Gemini('gemini-3-flash-preview')
    """

    def __init__(
        self,
        model: str,
        *,
        api_key: SecretStr | str | None = None,
        base_url: str | None = None,
        options: GeminiOptions | None = None,
        name: str | None = None,
    ) -> None:
        self.model = model
        self.name = name or model
        self.base_url = base_url or _SERVICE
        self.options = options or GeminiOptions()
        key = api_key if api_key is not None else os.environ.get("GEMINI_API_KEY", "")
        self._key = key if isinstance(key, SecretStr) else SecretStr(key)
        if not self._key.get_secret_value().strip():
            raise PredictorError(
                f"{model} needs an API key: set the environment variable GEMINI_API_KEY (one is made at "
                "https://aistudio.google.com/apikey), or pass api_key="
            )

    def __repr__(self) -> str:
        return f"Gemini({self.model!r})"

    @property
    def fingerprint(self) -> str:
        """Changes with the model, the server and every option that can change an answer."""
        asked = self.options.model_dump_json(exclude={"timeout_s", "concurrency", "stop_after", "retry"})
        parts = "\0".join(("gemini", self.model, self.base_url, asked))
        return hashlib.sha256(parts.encode()).hexdigest()[:16]

    def predict(self, examples: Sequence[Example], task: Task) -> Iterator[Prediction]:
        """Yield one prediction per example as answers come in.

        Safety blocks are `refused`; an empty, cut-off or off-list answer is `unparseable`; an example whose
        image cannot be read, or whose calls all failed, is `failed`.

        Raises:
            PredictorError: The key or the model is refused, or the server fails one example after another.
        """
        if not examples:
            return

        @asynccontextmanager
        async def session() -> AsyncIterator[Callable[[Example], Awaitable[Prediction]]]:
            client = self._client()
            try:
                yield _Session(self, client, task).ask
            finally:
                await client.aio.aclose()
                client.close()

        yield from stream(examples, session, in_flight=2 * self.options.concurrency)

    def _client(self) -> Client:
        from google import genai
        from google.genai import types

        # Everything is passed, so that no variable of the environment decides where the photos go.
        return genai.Client(
            api_key=self._key.get_secret_value(),
            vertexai=False,
            http_options=types.HttpOptions(
                base_url=self.base_url,
                api_version=self.options.api_version,
                timeout=round(1000 * self.options.timeout_s),
                retry_options=types.HttpRetryOptions(attempts=1),
            ),
        )

    def hide_key(self, text: str) -> str:
        """Return the text without the key, should a server have echoed it."""
        return text.replace(self._key.get_secret_value(), "***")


class _Session:
    """One `predict`: what its calls share."""

    def __init__(self, gemini: Gemini, client: Client, task: Task) -> None:
        self.gemini = gemini
        self.client = client
        self.task = task
        self.prompt = task.render()
        self.options = gemini.options
        self.limiter = AdaptiveLimiter(most=self.options.concurrency)
        self.constrained: Literal["untried", "works", "refused"] = "untried"
        self.failed_in_a_row = 0
        self.price = price_of(gemini.model, on=datetime.now(UTC).date())
        if self.price is None:
            notice(f"No price is known for {gemini.model}: its cost is left open.")

    async def ask(self, example: Example) -> Prediction:
        """Return the prediction for one example, whatever happens to it."""
        try:
            image = await asyncio.to_thread(images.encode, example.image, max_pixels=self.task.max_pixels)
        except ImageError as error:
            return Prediction(example_id=example.id, outcome="failed", error=str(error))

        async def call() -> Prediction:
            return await self._call(example.id, image)

        try:
            prediction = await with_retries(call, policy=self.options.retry, limiter=self.limiter)
        except (Retry, RejectedError) as error:
            reason = self.gemini.hide_key(str(error))
            prediction = Prediction(example_id=example.id, outcome="failed", error=reason)
        self.failed_in_a_row = self.failed_in_a_row + 1 if prediction.outcome == "failed" else 0
        if self.failed_in_a_row >= self.options.stop_after > 0:
            raise PredictorError(
                f"{self.gemini.model} failed {self.failed_in_a_row} examples in a row, so the run stops; "
                f"what was answered is kept, run again to go on. The last failure: {prediction.error}"
            )
        return prediction

    async def _call(self, example_id: str, image: images.EncodedImage) -> Prediction:
        """Return what one call answered, first with the classes as a schema, without one where refused."""
        start = time.perf_counter()
        constrained = self.constrained != "refused"
        try:
            response = await self._generate(image, constrained=constrained)
            if constrained:
                self.constrained = "works"
        except RejectedError:
            if not constrained or self.constrained == "works":
                raise
            response = await self._generate(image, constrained=False)
            if self.constrained == "untried":
                notice(f"{self.gemini.model} takes no answer schema: the prompt alone asks for a class.")
            self.constrained = "refused"
        outcome, label, raw, error = outcome_of(response, self.task)
        usage = usage_of(response)
        return Prediction(
            example_id=example_id,
            outcome=outcome,
            label=label,
            raw=raw,
            error=error,
            latency_s=time.perf_counter() - start,
            usage=usage,
            cost_usd=cost_of(usage, self.price) if self.price else None,
            model_version=response.model_version,
        )

    async def _generate(self, image: images.EncodedImage, *, constrained: bool) -> GenerateContentResponse:
        from google.genai import types

        photo = types.Part.from_bytes(data=image.data, mime_type=image.mime)
        try:
            async with asyncio.timeout(self.options.timeout_s):
                return await self.client.aio.models.generate_content(
                    model=self.gemini.model,
                    contents=types.Content(role="user", parts=[photo, types.Part(text=self.prompt)]),
                    config=self._config(constrained=constrained),
                )
        except Exception as error:
            # The client's errors carry the request, and with it the key: they end here.
            raise failure(error) from None

    def _config(self, *, constrained: bool) -> GenerateContentConfig:
        from google.genai import types

        options, wanted = self.options, answer_format(self.task)
        thinks = options.thinking_budget is not None or options.thinking_level is not None
        thinking = types.ThinkingConfig(
            thinking_budget=options.thinking_budget,
            thinking_level=types.ThinkingLevel(options.thinking_level.upper()) if options.thinking_level else None,
        )
        resolution = options.media_resolution
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

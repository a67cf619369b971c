"""Any server that speaks OpenAI's chat completions, through the real openai client."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from vlm_tune._console import notice
from vlm_tune._imports import require
from vlm_tune.cost import cost_of, price_of, price_warning
from vlm_tune.errors import PredictorError
from vlm_tune.images import EncodedImage
from vlm_tune.predictors.asking import Asking, RejectedError
from vlm_tune.predictors.openai_options import Constraint, OpenAIOptions
from vlm_tune.predictors.openai_wire import (
    RefusedError,
    constraint_fields,
    failure,
    outcome_of,
    photo_and_words,
    scores_of,
    usage_of,
)
from vlm_tune.predictors.remote import Retry, stream, with_retries
from vlm_tune.records import Example, Prediction
from vlm_tune.task import Task

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types.chat import ChatCompletion

__all__ = ["OpenAICompatible"]

_OPENAI = "api.openai.com"
_NO_KEY = "none"
_TOP = 20
"""Tokens listed at each place: the most that OpenAI gives, and vLLM unless it is told otherwise."""
_PROBE = "Say hello."
_PROBE_CLASSES = ("quartz-71", "basalt-38")
"""Words that nobody says to `_PROBE` unless made to."""
_PROBE_TOKENS = 2048


@dataclass(frozen=True)
class _Manner:
    """What a server turned out to be able to do."""

    constraint: Constraint
    logprobs: bool


class OpenAICompatible:
    """A model behind an OpenAI-compatible server: a GPT-style API, or your own model served by vLLM or SGLang.

    It is asked the task's prompt about the same image bytes as every other predictor. Where the server can keep
    answers to the classes it is made to; since many servers ignore what they do not know, a few words without a
    photo first try which way it obeys, once for a predictor. Where none is, the prompt alone must do, and one line
    says so.

    Scores are the probabilities with which an answer kept to the classes would be each of them. They are given only
    where the server lists the first token of every class and that token decides; see `docs/guides/openai.md`.

    Args:
        base_url: The server, such as `http://localhost:8000/v1`. No variable of the environment changes it.
        model: The model's name there.
        api_key: The key. Without one `OPENAI_API_KEY` is read for api.openai.com, and for no other server.
        options: How to ask.
        name: What reports call it; the model's name by default.

    Raises:
        PredictorError: The address is none, or there is no key for api.openai.com.
        MissingExtraError: The package `openai` is not installed.

    Examples:
        >>> OpenAICompatible("http://localhost:8000/v1", "damage")
        OpenAICompatible('http://localhost:8000/v1', 'damage')
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: SecretStr | str | None = None,
        options: OpenAIOptions | None = None,
        name: str | None = None,
    ) -> None:
        require("openai", extra="openai", purpose="OpenAICompatible")
        self.base_url, self._is_openai = _address(base_url)
        self.model = model
        self.name = name or model
        self.options = options or OpenAIOptions()
        if api_key is None:
            api_key = os.environ.get("OPENAI_API_KEY", "") if self._is_openai else _NO_KEY
        self._key = api_key if isinstance(api_key, SecretStr) else SecretStr(api_key)
        if not self._key.get_secret_value().strip():
            raise PredictorError(
                f"{model} needs an API key: set the environment variable OPENAI_API_KEY (one is made at "
                "https://platform.openai.com/api-keys), or pass api_key="
            )
        self._manners: dict[bool, _Manner] = {}

    def __repr__(self) -> str:
        return f"OpenAICompatible({self.base_url!r}, {self.model!r})"

    @property
    def fingerprint(self) -> str:
        """Changes with the server, the model and every option that can change an answer."""
        asked = self.options.model_dump_json(exclude={"timeout_s", "concurrency", "stop_after", "retry"})
        parts = "\0".join(("openai", self.base_url, self.model, asked))
        return hashlib.sha256(parts.encode()).hexdigest()[:16]

    def predict(self, examples: Sequence[Example], task: Task) -> Iterator[Prediction]:
        """Yield one prediction per example as answers come in.

        A refusal and a filtered answer are `refused`; an empty, cut-off or off-list answer is `unparseable`; an
        example whose image cannot be read, or whose calls all failed, is `failed`.

        Raises:
            PredictorError: The server is not there, refuses the key, the model or an option, or fails one example
                after another.
        """
        if not examples:
            return

        @asynccontextmanager
        async def session() -> AsyncIterator[Callable[[Example], Awaitable[Prediction]]]:
            async with self._client() as client:
                yield await _Session(self, client, task).begin()

        yield from stream(examples, session, in_flight=2 * self.options.concurrency)

    def _client(self) -> AsyncOpenAI:
        from openai import AsyncOpenAI

        key = self._key.get_secret_value()
        client = AsyncOpenAI(
            api_key=key,
            base_url=self.base_url,
            timeout=self.options.timeout_s,
            max_retries=0,
            # Stated, or OPENAI_CUSTOM_HEADERS could send another server a key of its own.
            default_headers={"Authorization": f"Bearer {key}"},
        )
        if not self._is_openai:
            # Read from the environment, and of no concern to another server.
            client.organization = client.project = None
        return client

    def hide_key(self, text: str) -> str:
        """Return the text without the key, should a server have echoed it."""
        key = self._key.get_secret_value()
        return text if key == _NO_KEY else text.replace(key, "***")


class _Session:
    """One `predict`: what its calls share."""

    def __init__(self, predictor: OpenAICompatible, client: AsyncOpenAI, task: Task) -> None:
        self.predictor = predictor
        self.options = predictor.options
        self.client = client
        self.task = task
        self.prompt = task.render()
        self.asking = Asking(predictor.model, task, limits=self.options)
        self.manner = _Manner("none", logprobs=False)
        today = datetime.now(UTC).date()
        self.price = price_of(predictor.model, on=today)
        if warning := price_warning(self.price, predictor.model, on=today):
            notice(warning)

    async def begin(self) -> Callable[[Example], Awaitable[Prediction]]:
        """Find out what the server can do, unless that is known, and return what asks about one example."""
        known = self.predictor._manners
        if self.task.multi_label not in known:
            try:
                known[self.task.multi_label] = await self._probe()
            except Retry as error:
                raise PredictorError(f"{self.predictor.base_url} gives no answer ({error}); is it running?") from None
        self.manner = known[self.task.multi_label]
        return lambda example: self.asking.ask(example, partial(self._call, example.id))

    async def _probe(self) -> _Manner:
        chosen = self.options.constraint
        if chosen == "auto":
            chosen = "none"
            ways: tuple[Constraint, ...] = ("choice", "guided_choice", "regex", "json_schema")
            for way in ways[-1:] if self.predictor._is_openai else ways:
                if await self._obeys(way):
                    chosen = way
                    break
            else:
                notice(f"{self.predictor.model} takes no list of classes: the prompt alone asks for a class.")
        in_plain_words = chosen in ("choice", "guided_choice", "regex") and not self.task.multi_label
        # At any other temperature some servers list what is left after it, and after top-p.
        wanted = self.options.logprobs and in_plain_words and self.options.temperature == 0
        return _Manner(chosen, logprobs=wanted and await self._obeys(chosen, logprobs=True))

    async def _obeys(self, constraint: Constraint, *, logprobs: bool = False) -> bool:
        """Whether the answer to a greeting is a word that only the constraint can have brought about."""
        stones = Task(prompt=_PROBE, classes=_PROBE_CLASSES, multi_label=self.task.multi_label)
        fields = {**self._fields(constraint, stones, logprobs=logprobs), "max_completion_tokens": _PROBE_TOKENS}
        try:
            response = await with_retries(
                lambda: self._complete(_PROBE, fields), policy=self.options.retry, limiter=self.asking.limiter
            )
        except RejectedError:
            return False
        outcome, *_ = outcome_of(response, stones, constraint)
        return outcome == "answered"

    async def _call(self, example_id: str, image: EncodedImage) -> Prediction:
        start = time.perf_counter()
        content = photo_and_words(image, self.prompt, detail=self.options.image_detail)
        constraint, logprobs = self.manner.constraint, self.manner.logprobs
        try:
            response = await self._complete(content, self._fields(constraint, self.task, logprobs=logprobs))
        except RefusedError as error:
            return Prediction(example_id=example_id, outcome="refused", error=f"the prompt was blocked: {error}")
        outcome, label, raw, reason = outcome_of(response, self.task, constraint)
        usage = usage_of(response)
        return Prediction(
            example_id=example_id,
            outcome=outcome,
            label=label,
            scores=scores_of(response, self.task) if logprobs and label is not None else None,
            raw=raw,
            error=reason,
            latency_s=time.perf_counter() - start,
            usage=usage,
            cost_usd=cost_of(usage, self.price) if self.price else None,
            model_version=response.model,
        )

    def _fields(self, constraint: Constraint, task: Task, *, logprobs: bool) -> dict[str, Any]:
        options = self.options
        chosen = {
            "temperature": options.temperature,
            "seed": options.seed,
            "max_completion_tokens": options.max_output_tokens,
            "reasoning_effort": options.reasoning_effort,
            "logprobs": True if logprobs else None,
            "top_logprobs": _TOP if logprobs else None,
        }
        sent = {name: value for name, value in chosen.items() if value is not None}
        return {**sent, **options.extra_body, **constraint_fields(constraint, task)}

    async def _complete(self, content: str | list[dict[str, Any]], fields: dict[str, Any]) -> ChatCompletion:
        from openai.types.chat import ChatCompletion

        message: Any = {"role": "user", "content": content}
        try:
            async with asyncio.timeout(self.options.timeout_s):
                reply: Any = await self.client.chat.completions.create(
                    model=self.predictor.model, messages=[message], extra_body=fields
                )
        except Exception as error:
            # The client's errors carry the request, and with it the key: they end here.
            raise failure(error, server=self.predictor.base_url, hide=self.predictor.hide_key) from None
        if not isinstance(reply, ChatCompletion):
            raise Retry(f"{self.predictor.base_url} replied with something that is no chat completion")
        return reply


def _address(base_url: str) -> tuple[str, bool]:
    """Return the address without a last slash, and whether OpenAI's own key belongs there."""
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise PredictorError(f"base_url is an address such as http://localhost:8000/v1, not {base_url!r}")
    if "@" in parts.netloc or parts.query:
        raise PredictorError(f"base_url for {parts.hostname} has more than an address in it; pass a key as api_key=")
    return base_url.rstrip("/"), parts.scheme == "https" and parts.hostname == _OPENAI

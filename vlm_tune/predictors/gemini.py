"""Gemini through the real google-genai client, online or in batch."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import SecretStr

from vlm_tune.cost import Price, price_of
from vlm_tune.errors import PredictorError
from vlm_tune.predictors.gemini_batch_options import BatchOptions
from vlm_tune.predictors.gemini_estimate import CallEstimate, estimate_calls
from vlm_tune.predictors.gemini_options import GeminiOptions
from vlm_tune.predictors.gemini_session import ask_online
from vlm_tune.predictors.ledger import Ledger
from vlm_tune.predictors.shots import check_shots, shots_note
from vlm_tune.records import Example, Prediction
from vlm_tune.task import Task

if TYPE_CHECKING:
    from google.genai import Client
    from google.genai.types import HttpxAsyncClient

__all__ = ["Gemini"]

_SERVICE = "https://generativelanguage.googleapis.com"


class Gemini:
    """A Gemini model, asked the task's prompt about the same image bytes as every other predictor.

    The answer is constrained to the classes, or to a list of them for a multi-label task; where the server refuses
    that, the prompt alone must do, and one line says so. Online, calls run concurrently and are retried while that
    may help. Each is priced by the tokens that the server counted.

    Args:
        model: Gemini's id, such as `gemini-3-flash-preview`.
        api_key: The key; otherwise `GEMINI_API_KEY` is read. No other variable is.
        base_url: Another server than Google's, such as a proxy.
        options: How to ask.
        shots: Examples with their answers to show before the question, chosen from training: see `few_shot`.
        batch: Ask in batch mode: half the price, an answer within a day; `BatchOptions` say how.
        name: What reports call it; the model's id by default, with the number of shots.

    Attributes:
        ledger: The calls sent, paid and possibly billed: in this object's life or, with a run folder, ever.
        constrained: Whether the model takes the classes as an answer schema; None before the first answer.
        state_dir: Where a run folder keeps what must survive a kill; None without one.

    Raises:
        PredictorError: There is no key.

    Examples:
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
        shots: Sequence[Example] = (),
        batch: bool | BatchOptions = False,
        name: str | None = None,
    ) -> None:
        self.model = model
        self.shots = tuple(shots)
        self.name = name or (f"{model} with {len(self.shots)} shots" if self.shots else model)
        self.base_url = base_url or _SERVICE
        self.options = options or GeminiOptions()
        self.batch = BatchOptions() if batch is True else batch or None
        self.ledger = Ledger()
        self.constrained: bool | None = None
        self.state_dir: Path | None = None
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
        """Changes with the model, the server, the shots and every option that can change an answer."""
        parts = ["gemini", self.model, self.base_url, self.options.asked()]
        parts += [f"{shot.content_hash} {shot.label}" for shot in self.shots]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]

    @property
    def prompt_note(self) -> str:
        """What it is shown besides the task's prompt; empty without shots."""
        return shots_note(self.shots)

    @property
    def possibly_billed(self) -> int:
        """Calls that broke off after they were sent: no answer came, and the server may bill them."""
        return self.ledger.possibly_billed

    def price(self, *, batch: bool = False) -> Price | None:
        """Return today's price of its tokens, online or in batch mode; None where it is not known."""
        return price_of(self.model, on=datetime.now(UTC).date(), batch=batch, own=self.options.prices)

    def with_state(self, folder: Path) -> Self:
        """Return the same predictor with a folder to remember in what was sent, also when it is killed.

        Raises:
            StorageError: What is in the folder cannot be read.
        """
        other = copy.copy(self)
        other.state_dir = folder
        other.ledger = Ledger(folder / "calls.txt")
        return other

    def predict(self, examples: Sequence[Example], task: Task) -> Iterator[Prediction]:
        """Yield one prediction per example as answers come in.

        Safety blocks are `refused`; an empty, cut-off or off-list answer is `unparseable`; an example whose
        image cannot be read, or whose calls all failed, is `failed`.

        Raises:
            PredictorError: The key or the model is refused, the server fails one example after another, a shot
                is among the examples, or `max_cost_usd` is set and no price is known.
            BudgetError: The next call could pass `max_cost_usd`.
            ImageError: A shot cannot be read.
        """
        if not examples:
            return
        check_shots(self.shots, examples)
        if self.batch is not None:
            from vlm_tune.predictors.gemini_batch import predict_in_batch

            yield from predict_in_batch(self, examples, task)
        else:
            yield from ask_online(self, examples, task)

    def estimate(
        self,
        examples: Sequence[Example],
        task: Task,
        *,
        thinking_tokens: int | None = None,
        latency_s: float = 2.0,
    ) -> CallEstimate:
        """Return calls, tokens, dollars and minutes that `predict` will take; nothing is sent.

        Args:
            examples: What to ask about.
            task: The question.
            thinking_tokens: Thinking tokens of a call, where they were measured; otherwise they are guessed.
            latency_s: Seconds that a call takes.

        Examples:
            >>> from vlm_tune.testing import tiny_dataset
            >>> data = tiny_dataset(8)
            >>> gemini = Gemini("gemini-3-flash-preview", api_key="a secret")
            >>> gemini.estimate(data.test, data.task).num_calls
            6
        """
        return estimate_calls(self, examples, task, thinking_tokens=thinking_tokens, latency_s=latency_s)

    def _client(self, http: HttpxAsyncClient | None = None) -> Client:
        """Return Google's client; `http` sends its asynchronous calls."""
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
                httpx_async_client=http,
            ),
        )

    def hide_key(self, text: str) -> str:
        """Return the text without the key, should a server have echoed it."""
        return text.replace(self._key.get_secret_value(), "***")

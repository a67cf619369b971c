"""Asking Gemini online: one call per example, many at the same time."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import requires
from typing import TYPE_CHECKING, Any

from vlm_tune import images
from vlm_tune._console import notice
from vlm_tune.cost import cost_of, price_warning
from vlm_tune.errors import BudgetError, PredictorError
from vlm_tune.predictors.asking import Asking, RejectedError
from vlm_tune.predictors.gemini_tokens import MOST_OUTPUT_TOKENS, most_cost
from vlm_tune.predictors.gemini_wire import failure, generation_config, prediction_of, request_contents
from vlm_tune.predictors.ledger import Call
from vlm_tune.predictors.remote import Retry, stream
from vlm_tune.predictors.shots import Shot, encoded_shots
from vlm_tune.records import Example, Prediction, Usage
from vlm_tune.task import Task

if TYPE_CHECKING:
    from google.genai import Client

    from vlm_tune.predictors.gemini import Gemini

__all__ = ["ask_online"]

_LOOK_AGAIN_S = 0.01
Answered = tuple[Prediction, Call | None]


def ask_online(gemini: Gemini, examples: Sequence[Example], task: Task) -> Generator[Prediction]:
    """Yield one prediction per example as answers come in; see `Gemini.predict`.

    Raises:
        PredictorError: The key or the model is refused, or the server fails one example after another.
        BudgetError: The next call could pass `max_cost_usd`.
        ImageError: A shot cannot be read.
    """
    shots = encoded_shots(gemini.shots, task)

    @asynccontextmanager
    async def session() -> AsyncIterator[Callable[[Example], Awaitable[Answered]]]:
        async with _http() as http:
            client = gemini._client(http)
            try:
                yield _Session(gemini, client, task, shots, len(examples)).ask
            finally:
                client.close()

    answers = stream(examples, session, in_flight=2 * gemini.options.concurrency)
    try:
        for prediction, call in answers:
            yield prediction
            # Whoever asked comes back for the next answer once this one is safe.
            if call is not None:
                gemini.ledger.settle(call, prediction.cost_usd or 0.0)
    finally:
        answers.close()
        gemini.ledger.close()


def _http() -> Any:
    """Return the client that google-genai sends online calls through: of the library that it depends on itself.

    Left alone it takes aiohttp wherever some other package has brought that, and then a call that never left looks
    like one that was sent. A client of our own, and not a transport, keeps proxies of the environment.
    """
    needed = [line for line in requires("google-genai") or () if "extra ==" not in line]
    [library] = {found[0] for line in needed if (found := re.match(r"httpx\d*", line))}
    return import_module(library).AsyncClient(follow_redirects=True, timeout=None)


class _Session:
    """One `predict`: what its calls share."""

    def __init__(self, gemini: Gemini, client: Client, task: Task, shots: Sequence[Shot], num_examples: int) -> None:
        self.gemini = gemini
        self.client = client
        self.task = task
        self.shots = shots
        self.num_left = num_examples
        self.options = gemini.options
        self.ledger = gemini.ledger
        self.asking = Asking(gemini.model, task, limits=gemini.options, hide=gemini.hide_key)
        self.configs = {how: generation_config(self.options, task, constrained=how) for how in (True, False)}
        self.longest_prompt = 0
        self.price = gemini.price()
        if self.price is None and self.options.max_cost_usd is not None:
            raise PredictorError(
                f"no price is known for {gemini.model}, so max_cost_usd cannot be kept; leave it out, or say what "
                "tokens cost with GeminiOptions(prices=...)"
            )
        if warning := price_warning(self.price, gemini.model, on=datetime.now(UTC).date()):
            notice(warning)

    async def ask(self, example: Example) -> Answered:
        """Return the prediction for one example, whatever happens to it, and the call that it came from."""
        calls: list[Call] = []

        async def attempt(image: images.EncodedImage) -> Prediction:
            prediction, call = await self._answer(example.id, image)
            calls.append(call)
            return prediction

        prediction = await self.asking.ask(example, attempt)
        self.num_left -= 1
        return prediction, calls[0] if calls else None

    async def _answer(self, example_id: str, image: images.EncodedImage) -> tuple[Prediction, Call]:
        """Return what one call answered, first with the classes as a schema, without one where refused."""
        constrained = self.gemini.constrained is not False
        try:
            answer = await self._generate(example_id, image, constrained=constrained)
        except RejectedError:
            if not constrained or self.gemini.constrained:
                raise
            answer = await self._generate(example_id, image, constrained=False)
            # Only this request was at fault if another one has got through with a schema meanwhile.
            if self.gemini.constrained is None:
                notice(f"{self.gemini.model} takes no answer schema: the prompt alone asks for a class.")
                self.gemini.constrained = False
        else:
            self.gemini.constrained = constrained
        return answer

    async def _generate(
        self, example_id: str, image: images.EncodedImage, *, constrained: bool
    ) -> tuple[Prediction, Call]:
        """Make one call: noted in the ledger before it is sent, and as broken off where no whole reply comes."""
        contents = request_contents(image, self.task, self.shots, constrained=constrained)
        call = await self._send(image)
        start = time.perf_counter()
        try:
            async with asyncio.timeout(self.options.timeout_s):
                response = await self.client.aio.models.generate_content(
                    model=self.gemini.model, contents=list(contents), config=self.configs[constrained]
                )
        except Exception as error:
            # The client's errors carry the request, and with it the key: they end here.
            signal = failure(error)
            if isinstance(signal, Retry) and signal.sent:
                self.ledger.lose(call)
            else:
                self.ledger.settle(call, paid_usd=0.0)
            raise signal from None
        latency_s = time.perf_counter() - start
        prediction = prediction_of(example_id, response, self.task, price=self.price, latency_s=latency_s)
        self.longest_prompt = max(self.longest_prompt, prediction.usage.input_tokens if prediction.usage else 0)
        return prediction, call

    async def _send(self, image: images.EncodedImage) -> Call:
        """Set aside the most that a call may cost, when there is room for it under `max_cost_usd`."""
        if self.price is None:
            return self.ledger.send(0.0)
        most = most_cost(self.gemini.model, self.options, self.task, image, self.shots, self.price)
        # Should the server count more tokens in a photo than its rules say, what it counted is the better guess.
        counted = Usage(
            input_tokens=self.longest_prompt, output_tokens=self.options.max_output_tokens or MOST_OUTPUT_TOKENS
        )
        most = max(most, cost_of(counted, self.price))
        cap = self.options.max_cost_usd
        while cap is not None and self.ledger.committed_usd + most > cap:
            if not self.ledger.num_pending:
                raise self._out_of_budget(cap, most)
            await asyncio.sleep(_LOOK_AGAIN_S)
        return self.ledger.send(most)

    def _out_of_budget(self, cap: float, most: float) -> BudgetError:
        ledger, bound = self.ledger, self.options.max_output_tokens
        lost = f" and {ledger.possibly_billed} calls possibly billed" if ledger.possibly_billed else ""
        room = "" if bound else f", or bound a call with max_output_tokens (now the model's {MOST_OUTPUT_TOKENS:,})"
        return BudgetError(
            f"{self.gemini.model}: the next call may cost up to ${most:.4f} and could pass max_cost_usd=${cap:g}, with "
            f"${ledger.paid_usd:.4f} paid{lost}; {self.num_left} examples are left. What was answered is kept: raise "
            f"max_cost_usd{room}, and run again",
            spent_usd=ledger.paid_usd,
            num_left=self.num_left,
        )

"""A dry run: calls, tokens, dollars and minutes, before the first call."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import NonNegativeFloat, NonNegativeInt

from vlm_tune import images
from vlm_tune.cost import cost_of
from vlm_tune.errors import ImageError
from vlm_tune.predictors.gemini_options import GeminiOptions
from vlm_tune.predictors.gemini_tokens import (
    IMAGE_TOKENS_SOURCE,
    MOST_OUTPUT_TOKENS,
    answer_tokens,
    image_tokens,
    prompt_tokens,
)
from vlm_tune.records import Example, Money, Record, Usage
from vlm_tune.task import Task

if TYPE_CHECKING:
    from rich.console import RenderableType

    from vlm_tune.predictors.gemini import Gemini

__all__ = ["CallEstimate", "estimate_calls"]

_USUAL_THINKING = 300
_USUAL_LATENCY_S = 2.0


class CallEstimate(Record):
    """What asking about some examples will take, as far as it can be known before."""

    model: str
    """Gemini's id."""
    num_calls: NonNegativeInt
    """Calls, retries not counted."""
    num_unreadable: NonNegativeInt
    """Examples whose image cannot be read: they fail without a call."""
    usage: Usage
    """Tokens of all calls together."""
    cost: Money | None
    """Dollars for them; None where no price is known."""
    most_usd: NonNegativeFloat | None
    """Dollars if every answer were as long as it can be; None where no price is known."""
    minutes: NonNegativeFloat | None
    """Time that the calls take; None in batch mode, which promises a day."""
    assumptions: tuple[str, ...]
    """What is not known before, and was taken instead."""

    def __str__(self) -> str:
        time = "within a day" if self.minutes is None else f"about {max(0.1, self.minutes):.1f} minutes"
        cost = "no known price" if self.cost is None else f"about {self.cost}"
        return f"{self.model}: {self.num_calls:,} calls, {self.usage.input_tokens:,} tokens in, {cost}, {time}"

    def _rich(self) -> RenderableType:
        from rich.table import Table

        usage = self.usage
        rows = {
            "calls": f"{self.num_calls:,}",
            "tokens of photos": f"{usage.image_tokens:,}",
            "tokens of text": f"{usage.input_tokens - usage.image_tokens:,}",
            "tokens of answers": f"{usage.output_tokens:,}",
            "tokens of thinking": f"{usage.thinking_tokens:,}",
            "dollars": "no price is known" if self.cost is None else f"{self.cost}  ({self.cost.basis})",
            "dollars at most": "no price is known" if self.most_usd is None else f"${self.most_usd:.2f}",
            "minutes": "within a day" if self.minutes is None else f"{max(0.1, self.minutes):.1f}",
        }
        if self.num_unreadable:
            rows["unreadable photos"] = f"{self.num_unreadable:,}, not asked about"
        table = Table(title=f"{self.model}: before the first call", title_justify="left", show_header=False)
        for name, value in rows.items():
            table.add_row(name, value)
        table.caption = "\n".join(self.assumptions)
        table.caption_justify = "left"
        return table


def estimate_calls(
    gemini: Gemini,
    examples: Sequence[Example],
    task: Task,
    *,
    thinking_tokens: int | None = None,
    latency_s: float = _USUAL_LATENCY_S,
) -> CallEstimate:
    """Return what asking will take; see `Gemini.estimate`."""
    sizes = [_size(example, task) for example in examples]
    readable = [size for size in sizes if size is not None]
    shown = [size for size in (_size(shot, task) for shot in gemini.shots) if size is not None]
    model, options, batch = gemini.model, gemini.options, gemini.batch is not None
    num = len(readable)
    pictures = sum(image_tokens(model, options, size) for size in readable)
    pictures += num * sum(image_tokens(model, options, size) for size in shown)
    text = prompt_tokens(task.render()) * (1 + len(shown)) + answer_tokens(shot.label for shot in gemini.shots)
    longest = options.max_output_tokens or MOST_OUTPUT_TOKENS
    answer = min(longest, max(answer_tokens([label]) for label in task.classes))
    thinking, taken = _thinking(options, thinking_tokens, at_most=longest - answer)
    usage = Usage(
        input_tokens=pictures + num * text,
        image_tokens=pictures,
        output_tokens=num * answer,
        thinking_tokens=num * thinking,
    )
    price = gemini.price(batch=batch)
    most = Usage(input_tokens=usage.input_tokens, output_tokens=num * longest)
    waves = math.ceil(num / options.concurrency)
    return CallEstimate(
        model=model,
        num_calls=num,
        num_unreadable=len(sizes) - num,
        usage=usage,
        cost=Money(usd=cost_of(usage, price), basis=price.source) if price else None,
        most_usd=cost_of(most, price) if price else None,
        minutes=None if batch else waves * latency_s / 60,
        assumptions=(
            taken,
            f"At most: {longest:,} tokens an answer, thinking included.",
            *(() if batch else (f"Minutes: {latency_s:g} s a call, {options.concurrency} calls at a time.",)),
            f"Photos: {IMAGE_TOKENS_SOURCE}. Text: four bytes a token.",
        ),
    )


def _thinking(options: GeminiOptions, given: int | None, *, at_most: int) -> tuple[int, str]:
    """Return the thinking tokens of a call, and where they are from."""
    if given is not None:
        return min(given, at_most), f"Thinking: {min(given, at_most):,} tokens a call, as measured before."
    if options.thinking_budget == 0:
        return 0, "Thinking: switched off."
    budget = options.thinking_budget or -1
    guess = min(at_most, budget if budget > 0 else _USUAL_THINKING)
    return guess, f"Thinking: {guess:,} tokens a call are a guess; ask about ten examples and pass what they took."


def _size(example: Example, task: Task) -> tuple[int, int] | None:
    """Return width and height of a photo as it is sent, from its header; None where it cannot be read."""
    try:
        found = images.probe(example.image)
    except ImageError:
        return None
    scale = min(1.0, math.sqrt(task.max_pixels / (found.width * found.height)))
    return max(1, round(found.width * scale)), max(1, round(found.height * scale))

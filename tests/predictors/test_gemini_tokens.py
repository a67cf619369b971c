"""Tokens before the call: the published rules, and a bound that no call passes."""

from __future__ import annotations

from datetime import date

import pytest

from vlm_tune.cost import Price
from vlm_tune.images import blank, encode
from vlm_tune.predictors import GeminiOptions
from vlm_tune.predictors.gemini_tokens import answer_tokens, image_tokens, most_cost, prompt_tokens
from vlm_tune.task import Task

TASK = Task(prompt="?", classes=("crack", "dent"))


@pytest.mark.parametrize(
    ("model", "resolution", "size", "tokens"),
    [
        ("gemini-3-flash-preview", None, (32, 32), 1120),
        ("models/gemini-3.5-flash", "low", (4000, 3000), 280),
        ("gemini-3-flash-preview", "medium", (32, 32), 560),
        ("gemini-3-flash-preview", "high", (32, 32), 1120),
        ("gemini-2.5-flash", None, (384, 384), 258),
        ("gemini-2.5-flash", "high", (960, 540), 6 * 258),
        ("gemini-2.5-flash", "low", (960, 540), 64),
        ("models/gemini-2.5-flash", "medium", (960, 540), 256),
    ],
)
def test_the_tokens_of_a_photo(model: str, resolution: str | None, size: tuple[int, int], tokens: int) -> None:
    assert image_tokens(model, GeminiOptions.model_validate({"media_resolution": resolution}), size) == tokens


def test_the_tokens_of_words() -> None:
    assert prompt_tokens("What kind of damage?") == 5
    assert answer_tokens(["dent", "scratch"]) == 3 + 5


def test_the_most_that_a_call_costs() -> None:
    price = Price(
        model="m",
        input_usd_per_million=1.0,
        output_usd_per_million=10.0,
        source="a list",
        checked_on=date(2026, 11, 1),
        valid_from=date(2026, 11, 1),
    )
    photo, num_bytes = encode(blank(32, 32), max_pixels=10_000), len(TASK.render())
    bound = most_cost("gemini-3", GeminiOptions(max_output_tokens=100), TASK, photo, (), price)
    assert bound == pytest.approx((1120 + num_bytes + 10 * 100) / 1e6)
    unbound = most_cost("gemini-3", GeminiOptions(), TASK, photo, (), price)
    assert unbound == pytest.approx((1120 + num_bytes + 10 * 65_536) / 1e6)
    shown = most_cost("gemini-3", GeminiOptions(max_output_tokens=100), TASK, photo, [(photo, "dent")], price)
    assert shown - bound == pytest.approx((1120 + num_bytes + 2 * 4 + 8) / 1e6)

"""A dry run sends nothing, and what it says is what the calls then take."""

from __future__ import annotations

import pytest

from vlm_tune.predictors import CallEstimate, Gemini, GeminiOptions, few_shot
from vlm_tune.predictors.gemini_tokens import answer_tokens
from vlm_tune.records import Example
from vlm_tune.testing import FakeGeminiServer, tiny_dataset

DATA = tiny_dataset(20)


def gemini(model: str = "gemini-2.5-flash-lite", *, batch: bool = False, shots: int = 0, **options: object) -> Gemini:
    chosen = few_shot(DATA.train, shots) if shots else ()
    settings = GeminiOptions.model_validate(options)
    return Gemini(model, api_key="a-key", base_url="http://127.0.0.1:9", options=settings, shots=chosen, batch=batch)


def estimate(predictor: Gemini, **how: float) -> CallEstimate:
    return predictor.estimate(DATA.test, DATA.task, **how)  # type: ignore[arg-type]


def test_the_photos_tokens_are_those_that_the_server_counts() -> None:
    for shots in (0, 3):
        with FakeGeminiServer("red") as server:
            asked = Gemini(
                "gemini-2.5-flash-lite", api_key="a-key", base_url=server.url, shots=gemini(shots=shots).shots
            )
            before = asked.estimate(DATA.test, DATA.task, thinking_tokens=0)
            assert server.requests == []
            found = list(asked.predict(DATA.test, DATA.task))
        assert before.num_calls == len(found) == 15
        assert before.usage.image_tokens == sum(one.usage.image_tokens for one in found if one.usage)
        told, counted = before.usage.input_tokens, sum(one.usage.input_tokens for one in found if one.usage)
        assert told == pytest.approx(counted, rel=0.05)
        assert before.cost is not None
        assert before.cost.usd == pytest.approx(sum(one.cost_usd or 0 for one in found), rel=0.3)


def test_thinking_is_measured_guessed_or_off() -> None:
    assert estimate(gemini(), thinking_tokens=20).usage.thinking_tokens == 15 * 20
    assert estimate(gemini()).usage.thinking_tokens == 15 * 300
    assert estimate(gemini(thinking_budget=0)).usage.thinking_tokens == 0
    assert estimate(gemini(thinking_budget=100)).usage.thinking_tokens == 15 * 100
    assert estimate(gemini(max_output_tokens=50)).usage.thinking_tokens == 15 * (50 - answer_tokens(["green"]))


def test_minutes_follow_concurrency_and_batch_promises_a_day() -> None:
    assert estimate(gemini(concurrency=5), latency_s=4.0).minutes == pytest.approx(3 * 4 / 60)
    online, batch = estimate(gemini()), estimate(gemini(batch=True))
    assert batch.minutes is None
    assert "within a day" in str(batch)
    assert online.cost is not None
    assert batch.cost is not None
    assert batch.cost.usd == pytest.approx(online.cost.usd / 2)


def test_the_worst_case_is_a_bound() -> None:
    tight, loose = estimate(gemini(max_output_tokens=1000)), estimate(gemini())
    assert tight.cost is not None
    assert tight.most_usd is not None
    assert loose.most_usd is not None
    assert tight.cost.usd < tight.most_usd < loose.most_usd


def test_an_unknown_price_is_no_zero(capsys: pytest.CaptureFixture[str]) -> None:
    unknown = estimate(gemini("gemini-99"))
    assert (unknown.cost, unknown.most_usd) == (None, None)
    assert "no known price" in str(unknown)
    unknown.show()
    assert "no price is known" in capsys.readouterr().out


def test_unreadable_photos_are_counted_and_not_asked(capsys: pytest.CaptureFixture[str]) -> None:
    broken = Example(id="broken", image=b"no image", label="red")
    told = gemini().estimate([broken, *DATA.test], DATA.task)
    assert (told.num_calls, told.num_unreadable) == (15, 1)
    told.show()
    shown = capsys.readouterr().out
    assert "1, not asked about" in shown
    assert "third-party quotation" in shown

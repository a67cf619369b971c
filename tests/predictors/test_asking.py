"""The way of one example, and how answers are read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from vlm_tune.errors import PredictorError
from vlm_tune.images import EncodedImage
from vlm_tune.predictors.asking import Asking, RejectedError, asked_seconds, named
from vlm_tune.predictors.openai_options import OpenAIOptions
from vlm_tune.predictors.remote import Retry, RetryPolicy
from vlm_tune.records import Example, Prediction
from vlm_tune.task import Task

TASK = Task(prompt="Which one?", classes=("crack", "dent"))
SEVERAL = Task(prompt="Which?", classes=("crack", "dent"), multi_label=True)
LIMITS = OpenAIOptions(stop_after=3, retry=RetryPolicy(attempts=2, first_delay_s=0.0))


@pytest.fixture
def example(noise_png: Callable[[int, int, int], bytes]) -> Example:
    return Example(id="7.jpg", image=noise_png(8, 8, 0), label="dent")


def asked(example: Example, *replies: Prediction | Exception, num_asked: int = 1) -> list[Prediction]:
    left = iter(replies)

    async def call(image: EncodedImage) -> Prediction:
        assert image.mime == "image/png"
        result = next(left)
        if isinstance(result, Exception):
            raise result
        return result

    async def ask() -> list[Prediction]:
        asking = Asking("the model", TASK, limits=LIMITS, hide=lambda text: text.replace("key", "***"))
        return [await asking.ask(example, call) for _ in range(num_asked)]

    return asyncio.run(ask())


def answer(version: str = "1") -> Prediction:
    return Prediction(example_id="7.jpg", outcome="answered", label="dent", model_version=version)


def test_what_may_pass_is_tried_again(example: Example) -> None:
    assert asked(example, Retry("busy"), answer()) == [answer()]


@pytest.mark.parametrize("signal", [RejectedError("bad key"), Retry("bad key")])
def test_what_does_not_pass_fails_the_example_without_the_key(example: Example, signal: Exception) -> None:
    [failed] = asked(example, signal, signal)
    assert (failed.example_id, failed.outcome, failed.error) == ("7.jpg", "failed", "bad ***")


def test_an_image_that_cannot_be_read_is_not_asked_about() -> None:
    [failed] = asked(Example(id="gone", image=Path("/nowhere/gone.jpg"), label="dent"))
    assert failed.outcome == "failed"
    assert "/nowhere/gone.jpg" in str(failed.error)


def test_too_many_failures_in_a_row_stop_the_run(example: Example) -> None:
    bad = RejectedError("bad")
    assert len(asked(example, bad, bad, answer(), bad, bad, num_asked=5)) == 5
    with pytest.raises(PredictorError, match=r"failed 3 examples in a row.*The last failure: bad"):
        asked(example, bad, bad, bad, num_asked=3)


def test_another_model_behind_the_name_is_reported(example: Example, capsys: pytest.CaptureFixture[str]) -> None:
    asked(example, answer(), answer(), answer("2"), answer("2"), num_asked=4)
    assert capsys.readouterr().err == "the model changed on the way: 1 answered before, now 2.\n"


def test_what_an_answer_names() -> None:
    assert named("Dent.", TASK) == "dent"
    assert [named(value, TASK) for value in (["dent"], 3, None, "grey")] == [None] * 4
    assert named(["dent", "crack"], SEVERAL) == "crack, dent"
    assert named([], SEVERAL) == named(["none"], SEVERAL) == named("none", SEVERAL) == "none"
    assert [named(value, SEVERAL) for value in (["none", "dent"], ["dent", 3], {"a": 1})] == [None] * 3


def test_the_wait_of_a_header() -> None:
    assert asked_seconds("7.5") == 7.5
    assert asked_seconds("-1") == asked_seconds("Thu, 01 Jan 2015 00:00:00 GMT") == 0
    assert asked_seconds("soon") is None

"""What an image costs is measured, at a dated price, and never without its interval."""

from __future__ import annotations

import math
from datetime import date

import numpy as np
import pytest

from tests.evaluation.priced import DAY, RENT
from vlm_tune.cost import Price, cost_of, price_of
from vlm_tune.data import Dataset
from vlm_tune.errors import EvaluationError
from vlm_tune.evaluation import CostModel, Evaluation, Evaluator
from vlm_tune.records import Example, Prediction, Usage
from vlm_tune.statistics import positive_mean
from vlm_tune.task import Task
from vlm_tune.testing import ScriptedPredictor

TASK = Task(prompt="Which one?", classes=("crack", "dent"))


def usage(number: int) -> Usage:
    return Usage(input_tokens=1180, output_tokens=5, thinking_tokens=100 * (number % 4))


def evaluated(
    *,
    priced: bool = True,
    tokens: bool = True,
    latency_s: float | None = None,
    twice: bool = False,
    name: str = "gemini-3-flash-preview",
) -> Evaluation:
    price = price_of("gemini-3-flash-preview", on=DAY)
    assert price is not None

    def answer(example: Example) -> Prediction:
        used = usage(int(example.id))
        return Prediction(
            example_id=example.id,
            outcome="answered",
            label="dent",
            usage=used if tokens else None,
            cost_usd=cost_of(used, price) if priced else None,
            latency_s=None if latency_s is None else latency_s * (0.5 + int(example.id) / 39),
        )

    photos = [Example(id=str(n), image=b"%d" % n, label=TASK.classes[n % 2]) for n in range(40)]
    if twice:
        photos += [Example(id=f"1{n:03d}", image=b"%d" % n, label=TASK.classes[n % 2]) for n in range(40)]
    return Evaluator(Dataset(photos, task=TASK)).run(ScriptedPredictor(answer, name=name))


@pytest.mark.parametrize("twice", [False, True])
def test_an_api_image_costs_its_mean_with_an_interval(twice: bool) -> None:
    cost = CostModel.of_api(evaluated(twice=twice))
    expected = np.array([(1180 * 0.5 + (5 + 100 * (n % 4)) * 3) / 1e6 for n in range(40)])
    assert cost.usd == pytest.approx(expected.mean())
    interval = positive_mean(expected)
    assert (cost.low, cost.high) == pytest.approx((interval.low, interval.high))
    assert cost.n == 40
    assert "$0.5 and $3 per million tokens in and out (ai.google.dev/gemini-api/docs/pricing, quoted by" in cost.basis
    assert "read 2026-07-04); mean of 40 images, Student t with two guards 95% on the log scale" in cost.basis


def test_the_same_tokens_can_be_priced_anew() -> None:
    batch = price_of("gemini-3-flash-preview", on=DAY, batch=True)
    online, cheaper = CostModel.of_api(evaluated()), CostModel.of_api(evaluated(priced=False), price=batch, on=DAY)
    assert cheaper.usd == pytest.approx(online.usd / 2)
    assert "factquire.com" in cheaper.basis
    assert cheaper.warnings == ()
    stale = CostModel.of_api(evaluated(), price=batch, on=date(2027, 6, 1))
    assert "look whether it still holds" in stale.warnings[0]


def test_batch_mode_takes_the_discount_off_a_known_price() -> None:
    asked = evaluated()
    batch = CostModel.of_api(asked, price="gemini-3-flash-preview", batch=True, on=DAY)
    assert batch.usd == pytest.approx(CostModel.of_api(asked).usd / 2)
    assert "gemini-3-flash-preview's price in batch mode, $0.25 and $1.5 per million tokens" in batch.basis
    assert batch.system == "gemini-3-flash-preview"
    own = [price_of("gemini-3-flash-preview", on=DAY) or pytest.fail()]
    assert CostModel.of_api(asked, price=own[0].model, batch=True, own=own, on=DAY) == batch
    for wrong, words in (
        ({"batch": True}, "what batch mode costs follows from a price"),
        ({"price": "gemini-99", "batch": True}, "no price is known for gemini-99 on 2026-11-21; known are gemini-2.5"),
        ({"price": "gpt-6-luna", "batch": True}, "no discount for batch mode is known for gpt-6-luna"),
    ):
        with pytest.raises(EvaluationError, match=words):
            CostModel.of_api(asked, on=DAY, **wrong)
    with pytest.raises(EvaluationError, match="no tokens were counted"):
        CostModel.of_api(evaluated(tokens=False), price="gemini-3-flash-preview", on=DAY)


def test_what_is_free_costs_nothing() -> None:
    free = Price(
        model="ours",
        input_usd_per_million=0,
        output_usd_per_million=0,
        source="our own server",
        checked_on=DAY,
        valid_from=DAY,
    )
    cost = CostModel.of_api(evaluated(), price=free, on=DAY)
    assert (cost.low, cost.usd, cost.high) == (0, 0, 0)
    assert "nothing was paid, so there is no interval" in cost.basis


def test_a_price_that_is_not_ours_is_not_named() -> None:
    assert "at the price when it was asked; mean of 40" in CostModel.of_api(evaluated(name="my gateway")).basis


@pytest.mark.parametrize(("priced", "tokens"), [(False, True), (False, False)])
def test_an_unknown_price_is_no_zero(priced: bool, tokens: bool) -> None:
    with pytest.raises(EvaluationError, match="not known"):
        CostModel.of_api(evaluated(priced=priced, tokens=tokens))


def test_a_gpu_image_costs_its_seconds_at_the_stated_utilisation() -> None:
    cost = CostModel.of_gpu(evaluated(latency_s=0.1), gpu=RENT, utilisation=0.5, on=DAY)
    assert cost.usd == pytest.approx(0.1 * 0.001 / 0.5)
    assert cost.low < cost.usd < cost.high
    assert cost.seconds_per_image == pytest.approx(0.1)
    assert cost.n == 40
    assert "10 images/s of gemini-3-flash-preview (40 images) x $3.6/h" in cost.basis
    assert "busy 50 % of the rented time" in cost.basis
    for share in (50, 0, -0.5, math.nan):
        with pytest.raises(EvaluationError, match="share above 0"):
            CostModel.of_gpu(evaluated(latency_s=0.1), gpu=RENT, utilisation=share)
    with pytest.raises(EvaluationError, match="no times"):
        CostModel.of_gpu(evaluated(), gpu=RENT, utilisation=0.5)
    with pytest.raises(EvaluationError, match="known are A100 at Lambda, "):
        CostModel.of_gpu(evaluated(latency_s=0.1), gpu="T4", utilisation=0.5, on=DAY)


def test_the_images_of_a_batch_count_as_one() -> None:
    every, batches = evaluated(latency_s=0.1), np.repeat([0.1, 0.12, 0.09, 0.11, 0.3], [10, 10, 10, 8, 2])
    place = every.table.schema.get_field_index("latency_s")
    table = every.table.set_column(place, "latency_s", [batches])
    cost = CostModel.of_gpu(Evaluation("batches", TASK.classes, table), gpu=RENT, utilisation=0.5, on=DAY)
    # What was left over for the last batch is in one stretch with the batch before it.
    seconds = positive_mean(batches, groups=np.repeat([0, 1, 2, 3], 10))
    assert cost.usd == pytest.approx(seconds.value * 0.002)
    assert (cost.low, cost.high) == pytest.approx((seconds.low * 0.002, seconds.high * 0.002))
    assert "mean of 4 stretches of the run, Student t" in cost.basis


def test_images_of_one_batch_share_their_time_and_so_have_no_interval() -> None:
    every = evaluated(latency_s=0.1)
    table = every.table.set_column(
        every.table.schema.get_field_index("latency_s"), "latency_s", [[0.1] * every.num_examples]
    )
    cost = CostModel.of_gpu(Evaluation("one batch", TASK.classes, table), gpu=RENT, utilisation=0.5, on=DAY)
    assert cost.low == cost.usd == cost.high
    assert "so there is no interval" in cost.basis

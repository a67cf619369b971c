"""What was measured is multiplied with what is asked for, and never without its interval."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest

from vlm_tune.cost import Cost, GpuPrice, cost_of, price_of
from vlm_tune.data import Dataset
from vlm_tune.errors import EvaluationError, StorageError
from vlm_tune.evaluation import BreakEven, CostModel, Evaluation, Evaluator
from vlm_tune.records import Example, Money, Prediction, Usage
from vlm_tune.task import Task
from vlm_tune.testing import ScriptedPredictor

DAY = date(2026, 11, 21)
TASK = Task(prompt="Which one?", classes=("crack", "dent"))
RENT = GpuPrice(gpu="H100", provider="us", usd_per_hour=3.6, source="books", checked_on=DAY, valid_from=DAY)


def usage(number: int) -> Usage:
    return Usage(input_tokens=1180, output_tokens=5, thinking_tokens=100 * (number % 4))


def evaluated(
    *, priced: bool = True, tokens: bool = True, latency_s: float | None = None, twice: bool = False
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
    return Evaluator(Dataset(photos, task=TASK)).run(ScriptedPredictor(answer))


def test_a_cent_an_image_at_a_million_a_month_is_ten_thousand_dollars() -> None:
    month = CostModel(api=Cost.exact(0.01, basis="the published example")).per_month(1_000_000)
    assert month.api.usd == pytest.approx(10_000)
    assert str(month) == "1,000,000 images a month: API $10,000"
    assert (month.tuned, month.always_on) == (None, None)


@pytest.mark.parametrize("twice", [False, True])
def test_an_api_image_costs_its_mean_with_an_interval(twice: bool) -> None:
    cost = CostModel.of_api(evaluated(twice=twice))
    expected = np.array([(1180 * 0.5 + (5 + 100 * (n % 4)) * 3) / 1e6 for n in range(40)])
    assert cost.usd == pytest.approx(expected.mean())
    assert cost.high - cost.usd == pytest.approx(2.0227 * expected.std(ddof=1) / np.sqrt(40), rel=1e-3)
    assert cost.n == 40
    assert "at the price when it was asked" in cost.basis


def test_the_same_tokens_can_be_priced_anew() -> None:
    batch = price_of("gemini-3-flash-preview", on=DAY, batch=True)
    online, cheaper = CostModel.of_api(evaluated()), CostModel.of_api(evaluated(priced=False), price=batch, on=DAY)
    assert cheaper.usd == pytest.approx(online.usd / 2)
    assert "factquire.com" in cheaper.basis
    assert cheaper.warnings == ()
    stale = CostModel.of_api(evaluated(), price=batch, on=date(2027, 6, 1))
    assert "look whether it still holds" in stale.warnings[0]


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
    assert "10 images/s" in cost.basis
    assert "busy 50% of the rented time" in cost.basis
    with pytest.raises(EvaluationError, match="share above 0"):
        CostModel.of_gpu(evaluated(latency_s=0.1), gpu=RENT, utilisation=50)
    with pytest.raises(EvaluationError, match="no times"):
        CostModel.of_gpu(evaluated(), gpu=RENT, utilisation=0.5)
    with pytest.raises(EvaluationError, match="known are A100 at Lambda, "):
        CostModel.of_gpu(evaluated(latency_s=0.1), gpu="T4", utilisation=0.5, on=DAY)


def test_images_of_one_batch_share_their_time_and_so_have_no_interval() -> None:
    every = evaluated(latency_s=0.1)
    table = every.table.set_column(
        every.table.schema.get_field_index("latency_s"), "latency_s", [[0.1] * every.num_examples]
    )
    cost = CostModel.of_gpu(Evaluation("one batch", TASK.classes, table), gpu=RENT, utilisation=0.5, on=DAY)
    assert cost.low == cost.usd == cost.high
    assert "so there is no interval" in cost.basis


def model(*, api: Cost | None = None) -> CostModel:
    return CostModel(
        api=api or Cost(usd=0.002, low=0.0015, high=0.0025, n=98, basis="api"),
        tuned=CostModel.of_gpu(evaluated(latency_s=0.1), gpu=RENT, utilisation=0.1, on=DAY),
        training=CostModel.of_training(500, gpu=RENT),
    )


def test_training_pays_for_itself_within_a_band() -> None:
    costs = model()
    assert costs.tuned is not None
    assert costs.break_even.images == pytest.approx(0.5 / (0.002 - 0.001))
    assert costs.break_even.low == pytest.approx(0.5 / (0.0025 - costs.tuned.low))
    assert costs.break_even.high == pytest.approx(0.5 / (0.0015 - costs.tuned.high))
    assert model(api=Cost.exact(0.0005, basis="cheap")).break_even.images is None
    unsure = model(api=Cost(usd=0.002, low=0.0005, high=0.003, n=5, basis="few"))
    assert str(unsure.break_even).endswith(", never]")
    with pytest.raises(EvaluationError, match="break-even needs"):
        CostModel(api=Cost.exact(0.01, basis="given")).break_even


def test_a_gpu_rented_all_month_pays_from_a_volume_on_that_it_can_answer() -> None:
    costs = model()
    assert costs.break_even_per_month.images == pytest.approx(730 * 3.6 / 0.002)
    month = costs.per_month(1_000_000)
    assert month.tuned is not None
    assert month.always_on is not None
    assert (month.tuned.usd, month.always_on.usd) == pytest.approx((1000, 730 * 3.6))
    busier = costs.per_month(30_000_000).always_on
    assert busier is not None
    assert busier.usd == pytest.approx(2 * 730 * 3.6)
    assert model(api=Cost.exact(0.00001, basis="cheap")).break_even_per_month.images is None


def test_it_shows_plots_and_comes_back_from_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    costs = model()
    costs.show()
    shown = capsys.readouterr().out
    for words in ("$2,000 [1,500, 2,500]", "busy 10% of the rented time", "Training has paid for itself after 5"):
        assert words in " ".join(shown.split())
    assert costs.frame()["images"].tolist() == [1, 1, 1000, 1000, 1_000_000, 1_000_000]
    assert len(costs.plot().axes[0].lines) == 3
    assert CostModel.load(costs.save(tmp_path / "costs.json")) == costs
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(StorageError, match="not a saved cost model"):
        CostModel.load(tmp_path / "other.json")


def test_never_is_said_and_thousands_are_grouped() -> None:
    assert str(BreakEven(images=None, low=2500.2, high=None, basis="")) == "never [2,501, never]"
    assert isinstance(model().training, Money)

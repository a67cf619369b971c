import math
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tests.training.planning.dimensions import damage
from vlm_tune.cost import gpu_prices
from vlm_tune.data import Dataset
from vlm_tune.training import LoRATrainer, TrainConfig
from vlm_tune.training.planning.gpus import GpuTable, gpu_table
from vlm_tune.training.planning.sizes import Sizes
from vlm_tune.vlm import VLM

DAY = date(2026, 11, 21)
LANGUAGE: dict[str, Any] = {"regions": ("language",)}


def table(config: TrainConfig, sizes: Sizes | None = None) -> GpuTable:
    return gpu_table(sizes or damage(config), config, on=DAY)


def test_every_gpu_with_a_price_has_a_row_and_the_cheapest_comes_first() -> None:
    rows = table(TrainConfig(batch_size=8)).rows
    assert {(row.gpu, row.provider) for row in rows} == {
        (price.gpu, price.provider) for price in gpu_prices() if price.holds(DAY)
    }
    dollars = [row.cost_usd for row in rows]
    assert dollars == sorted(dollars)
    assert all(cost < math.inf for cost in dollars)


def test_each_row_says_training_and_inference_in_every_kind_of_weights() -> None:
    for row in table(TrainConfig()).rows:
        assert [(use.purpose, use.weights) for use in row.uses] == [
            ("training", "bf16"),
            ("training", "int4"),
            ("inference", "bf16"),
            ("inference", "int8"),
            ("inference", "int4"),
        ]
        for use in row.uses:
            assert use.fits == (use.memory_gb <= row.memory_gb)
        trained, quantized = row.uses[:2]
        assert trained.cost_usd == pytest.approx((trained.seconds or 0) / 3600 * row.usd_per_hour)
        assert quantized.seconds > trained.seconds


def test_what_does_not_fit_comes_last_and_says_what_would() -> None:
    # Photos of 16 times the pixels, taken whole.
    config = TrainConfig(micro_batch_size=4, batch_size=4, gradient_checkpointing=False)
    sizes = damage(config)
    rows = table(config, replace(sizes, lengths=sizes.lengths.shrunk(4))).rows
    fitting = [any(use.fits for use in row.uses if use.purpose == "training") for row in rows]
    assert fitting == sorted(fitting, reverse=True)
    assert not fitting[-1]
    last = rows[-1].uses[0]
    assert last.seconds is None
    assert last.cost_usd is None
    assert "what would fit" in last.advice
    assert "micro_batch_size" in last.advice


def test_a_larger_model_needs_a_larger_card() -> None:
    config = TrainConfig(**LANGUAGE)
    sizes = damage(config)
    # Four times the layers: 33 billion parameters.
    larger = replace(sizes, language=sizes.language * 4, parameters=4 * sizes.parameters)
    rows = {row.gpu: row for row in table(config, larger).rows}
    assert rows["H200"].uses[0].fits
    assert not rows["L4"].uses[0].fits
    assert not rows["L4"].uses[2].fits


def test_the_plan_of_a_trainer_has_the_table(tiny_vlm: Path, colours: Dataset) -> None:
    plan = LoRATrainer(VLM(tiny_vlm), TrainConfig(batch_size=4)).plan(colours)
    assert {row.gpu for row in plan.gpus.rows} >= {"A10G", "H200"}
    # GPUs hold the model in half precision, whatever the processor at hand does.
    assert plan.gpus.rows[0].uses[0].weights == "bf16"
    assert all(use.fits for row in plan.gpus.rows for use in row.uses)
    assert plan.estimates.layout.micro_batch_size == 4
    single = LoRATrainer(VLM(tiny_vlm, dtype="float32"), TrainConfig(batch_size=4)).plan(colours)
    assert single.gpus.rows[0].uses[0].weights == "fp32"


def test_show_and_frame(capsys: pytest.CaptureFixture[str]) -> None:
    found = table(TrainConfig(batch_size=8))
    found.show()
    shown = capsys.readouterr().out
    assert "A10G" in shown
    assert "4-bit" in shown
    assert "$" in shown
    frame = found.frame()
    assert len(frame) == 5 * len(found.rows)
    training = frame[(frame["purpose"] == "training") & frame["fits"]]
    assert (training["minutes"] > 0).all()
    assert (training["cost_usd"] > 0).all()

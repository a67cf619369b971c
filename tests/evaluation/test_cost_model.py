"""What was measured is multiplied with what is asked for; what is missing or senseless is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.evaluation.priced import BATCH, ONLINE, RENT, given, model
from vlm_tune.cost import Cost
from vlm_tune.errors import EvaluationError, StorageError
from vlm_tune.evaluation import BreakEven, CostModel
from vlm_tune.plots import figure_to_svg


def test_a_cent_an_image_at_a_million_a_month_is_ten_thousand_dollars() -> None:
    month = CostModel(api=Cost.exact(0.01, basis="the published example")).per_month(1_000_000)
    assert month.api.usd == pytest.approx(10_000)
    assert str(month) == "1,000,000 images a month: API $10,000"
    assert (month.batch, month.by_the_hour, month.all_month, month.gpus) == (None, None, None, None)


def test_training_and_labelling_pay_for_themselves_within_a_band() -> None:
    costs = model()
    assert costs.break_even().images == pytest.approx(0.5 / (0.002 - 0.001))
    assert costs.break_even().low == pytest.approx(0.5 / (0.0025 - 0.0009))
    assert costs.break_even().high == pytest.approx(0.5 / (0.0015 - 0.0011))
    assert "measured on 98 and 98 images; the band holds both costs at the far ends" in costs.break_even().basis
    assert model(api=Cost.exact(0.0005, basis="cheap")).break_even().images is None
    assert str(model(api=Cost(usd=0.002, low=0.0005, high=0.003, basis="")).break_even()).endswith(", never]")
    labelled = model(labelling=CostModel.of_labelling(50, usd_per_image=0.09, source="a bill"), batch=BATCH)
    assert labelled.once.usd == pytest.approx(5)
    assert "50 labels at $0.09 each (a bill)" in labelled.once.basis
    assert labelled.break_even().images == pytest.approx(5000)
    assert labelled.break_even(batch=True).images == pytest.approx(5 / 0.0002)
    assert labelled.break_even_per_month().images == pytest.approx(5000 / 12)
    assert model(months=1).break_even_per_month() == costs.break_even()


def test_what_is_missing_is_asked_for() -> None:
    bare = CostModel(api=Cost.exact(0.01, basis="given"))
    asked: list[tuple[Callable[[], BreakEven], str]] = [
        (bare.break_even, "needs training="),
        (bare.break_even_per_month, "needs tuned="),
        (lambda: model(tuned=None).break_even(), "needs tuned="),
        (lambda: model().break_even_per_month(batch=True), "against batch mode needs batch="),
    ]
    for ask, words in asked:
        with pytest.raises(EvaluationError, match=words):
            ask()


@pytest.mark.parametrize("images", [-1, math.nan, math.inf])
def test_a_number_of_images_is_none_or_more(images: float) -> None:
    with pytest.raises(EvaluationError, match="a number of images is 0 or more"):
        model().per_month(images)  # type: ignore[arg-type]
    with pytest.raises(EvaluationError, match="a number of images is 0 or more"):
        model().frame([images])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="0 or more"):
        ONLINE.times(images)


def test_a_month_without_images_pays_what_is_paid_anyway() -> None:
    month = model().per_month(0)
    assert month.by_the_hour is not None
    assert month.all_month is not None
    assert month.api.usd == 0
    assert month.by_the_hour.usd == pytest.approx(0.5 / 12)
    assert month.gpus == 1
    assert month.all_month.usd == pytest.approx(730 * 3.6 + 0.5 / 12)


@pytest.mark.parametrize("field", ["images_per_month", "months"])
def test_no_volume_and_no_months_are_refused(field: str) -> None:
    with pytest.raises(ValidationError, match="greater than 0"):
        model(**{field: 0})


def test_negative_amounts_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be negative"):
        CostModel.of_labelling(-1, usd_per_image=0.1, source="")
    with pytest.raises(ValueError, match="cannot be negative"):
        CostModel.of_labelling(1, usd_per_image=-0.1, source="")
    with pytest.raises(ValueError, match="cannot be negative"):
        CostModel.of_training(-1, gpu=RENT)
    with pytest.raises(ValidationError):
        Cost.exact(-0.01, basis="")
    with pytest.raises(ValidationError, match="low <= usd <= high"):
        Cost(usd=1, low=2, high=3, basis="")


def test_a_month_costs_what_each_way_costs_and_its_share_of_what_was_spent_once() -> None:
    month = model(batch=BATCH, months=5).per_month(1_000_000)
    assert month.batch is not None
    assert month.by_the_hour is not None
    assert month.all_month is not None
    assert (month.api.usd, month.api.low, month.api.high) == pytest.approx((2000, 1500, 2500))
    assert month.batch.usd == pytest.approx(1200)
    assert month.batch.n == 98
    hourly = month.by_the_hour
    assert (hourly.usd, hourly.low, hourly.high) == pytest.approx((1000.1, 900.1, 1100.1))
    assert "1/5 of 500 s at $3.6/h (H100 at us: books, read 2026-11-21)" in hourly.basis
    assert month.gpus == 1
    assert month.all_month.usd == pytest.approx(730 * 3.6 + 0.1)
    # One GPU answers 2,628,000 images at the stated utilisation; how many it takes is as sure as its speed.
    busier = model(training=None).per_month(5_000_000)
    assert busier.all_month is not None
    assert busier.gpus == 2
    assert (busier.all_month.low, busier.all_month.high) == pytest.approx((2 * 730 * 3.6, 3 * 730 * 3.6))
    assert str(busier).endswith("2 GPUs all month $5,256 [5,256, 7,884]")


def test_whole_gpus_are_cheaper_from_some_number_on_for_good() -> None:
    found = model(training=None).break_even_per_month(whole=True)
    assert found.images == pytest.approx(730 * 3.6 / 0.002)
    assert "each answering up to 2,628,000 images" in found.basis
    assert model(api=Cost.exact(0.00001, basis="cheap")).break_even_per_month(whole=True).images is None
    free = model(tuned=given(usd=0, rent=0), training=None)
    assert free.break_even_per_month(whole=True).images == 0
    assert free.sentence.count("At any number of images tuned is cheaper than gemini.") == 1


def test_it_shows_and_comes_back_from_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    costs = model(batch=BATCH)
    costs.show()
    shown = " ".join(capsys.readouterr().out.split())
    for words in ("[150, 250]", "in batch mode", "busy 10 % of it", "Break-even with its band", "(1 GPU)"):
        assert words in shown, words
    assert "One image with tuned costs $0.00100 [0.000900, 0.00110]: seconds." in shown
    frame = costs.frame([0, 1000])
    assert frame["way"].tolist() == ["api", "batch", "by_the_hour", "all_month"] * 2
    assert frame["images"].tolist() == [0] * 4 + [1000] * 4
    assert (frame["low"] <= frame["usd"]).all()
    assert CostModel.load(costs.save(tmp_path / "costs.json")) == costs
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(StorageError, match="not a saved cost model"):
        CostModel.load(tmp_path / "other.json")


def test_the_figure_has_each_way_and_the_break_evens() -> None:
    words = " ".join(figure_to_svg(model(batch=BATCH).plot()).split())
    for label in (
        "What a month costs: measured on n = 98 images, 95 % bands",
        "gemini in batch mode",
        "tuned, GPUs by the hour",
        "tuned, whole GPUs all month",
        "expected: 100,000 images",
    ):
        assert f">{label}</text>" in words, label
    later = figure_to_svg(model(batch=BATCH, training=CostModel.of_training(5e6, gpu=RENT)).plot())
    assert ">cheaper than online from 416,667</text>" in later
    assert ">cheaper than batch mode from 2,083,333</text>" in later
    only = figure_to_svg(CostModel(api=Cost.exact(0.01, basis="given")).plot())
    assert ">the API</text>" in only
    assert "GPUs" not in only

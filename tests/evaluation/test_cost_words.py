"""The words for whoever pays are always the same, and promise nothing that is not established."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.evaluation.priced import BATCH, model
from vlm_tune.cost import Cost
from vlm_tune.evaluation import BreakEven, CostModel
from vlm_tune.evaluation.cost_words import overtaking
from vlm_tune.evaluation.unit_costs import GpuImageCost
from vlm_tune.records import Money


def test_the_sentence_is_for_whoever_pays() -> None:
    costs = model(batch=BATCH, labelling=CostModel.of_labelling(50, usd_per_image=0.09, source="a bill"))
    assert costs.sentence == (
        "100,000 images a month cost $200 [150, 250] with gemini, $120 [110, 130] with gemini in batch mode, and "
        "$100 [90.42, 110] with tuned on rented GPUs. From about 417 [261, 1,050] images a month on, tuned is cheaper "
        "than gemini. By the best estimates tuned is cheaper than gemini in batch mode from about 2,090 images a month "
        "on, but it may never be: which of the two is cheaper is not established. Training and labelling are included: "
        "$5.00 once, spread over 12 months. GPUs are H100 at us for $3.6 an hour, rented by the hour and busy 10 % of "
        "it; rented all month, 1 is needed, for $2,628. In brackets: 95 % intervals."
    )
    assert "Training is included: $0.50 once, spread over 1 month. Labelling is left out." in model(months=1).sentence
    assert "Training and labelling are left out." in model(training=None).sentence
    alone = CostModel(api=Cost.exact(0.01, basis="given"), images_per_month=1)
    assert alone.sentence == "1 image a month costs $0.0100 with the API."


def test_the_sentence_of_the_guide_is_the_one_that_is_printed() -> None:
    costs = CostModel(
        api=Cost(usd=6.05e-4, low=5.8e-4, high=6.3e-4, n=98, basis="", system="gemini-3-flash-preview"),
        batch=Cost(usd=3.025e-4, low=2.9e-4, high=3.15e-4, n=98, basis="", system="gemini-3-flash-preview"),
        tuned=GpuImageCost(
            usd=2e-4,
            low=1.8e-4,
            high=2.24e-4,
            n=98,
            basis="",
            system="tuned",
            seconds_per_image=1e-4 * 3600 / 4.29,
            usd_per_hour=4.29,
            utilisation=0.5,
            gpu="H100 at Lambda",
        ),
        training=Money(usd=2.145, basis=""),
        labelling=CostModel.of_labelling(417, usd_per_image=0.08, source="our invoice of October 2026"),
    )
    guide = Path(__file__).parents[2].joinpath("docs/guides/costs.md").read_text(encoding="utf-8")
    quoted = " ".join(line[2:] for line in guide.splitlines() if line.startswith("> "))
    assert quoted == costs.sentence


@pytest.mark.parametrize(
    ("images", "low", "high", "words"),
    [
        (None, None, None, "At no number of images is A cheaper than B."),
        (None, 99.5, None, "By the best estimates A is never cheaper than B, but from about 100 images a month on it"),
        (None, 0, None, "but at any number of images it may be: which of the two is cheaper is not established."),
        (1000, 500, None, "By the best estimates A is cheaper than B from about 1,000 images a month on, but it may"),
        (0, 0, None, "By the best estimates A is cheaper than B at any number of images, but it may never be"),
        (0, 0, 0, "At any number of images A is cheaper than B."),
        (1000, 500, 2_004_001, "From about 1,000 [500, 2,010,000] images a month on, A is cheaper than B."),
    ],
)
def test_what_is_not_established_is_said(
    images: float | None, low: float | None, high: float | None, words: str
) -> None:
    assert words in overtaking(BreakEven(images=images, low=low, high=high, basis=""), "A", "B")

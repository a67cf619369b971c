"""What the tests of costs share: two prices of an API, and a tuned model on a rented GPU."""

from __future__ import annotations

from datetime import date

from vlm_tune.cost import Cost, GpuPrice
from vlm_tune.evaluation import CostModel
from vlm_tune.evaluation.unit_costs import GpuImageCost

DAY = date(2026, 11, 21)

RENT = GpuPrice(gpu="H100", provider="us", usd_per_hour=3.6, source="books", checked_on=DAY, valid_from=DAY)

ONLINE = Cost(usd=0.002, low=0.0015, high=0.0025, n=98, basis="tokens", system="gemini")

BATCH = Cost(usd=0.0012, low=0.0011, high=0.0013, n=98, basis="tokens", system="gemini")


def given(seconds: float = 0.1, *, usd: float = 0.001, spread: float = 0.0, rent: float = 3.6) -> GpuImageCost:
    """A tuned image of so many seconds, on a GPU for $3.6 an hour that is busy a tenth of the time."""
    return GpuImageCost(
        usd=usd,
        low=usd * (1 - spread),
        high=usd * (1 + spread),
        n=98,
        basis="seconds",
        system="tuned",
        seconds_per_image=seconds,
        usd_per_hour=rent,
        utilisation=0.1,
        gpu="H100 at us",
    )


def model(**changes: object) -> CostModel:
    known: dict[str, object] = {
        "api": ONLINE,
        "tuned": given(spread=0.1),
        "training": CostModel.of_training(500, gpu=RENT),
        "images_per_month": 100_000,
    }
    return CostModel.model_validate({**known, **changes})

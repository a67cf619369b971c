"""Dollars: dated prices with their sources, what tokens and GPU seconds come to, and what GPUs can do."""

from __future__ import annotations

from vlm_tune.cost.amounts import Cost, cost_of, gpu_cost
from vlm_tune.cost.cards import Card, card_of, cards
from vlm_tune.cost.prices import (
    GpuPrice,
    Price,
    Prices,
    gpu_price_of,
    gpu_prices,
    load_prices,
    price_of,
    price_warning,
    prices,
)

__all__ = [
    "Card",
    "Cost",
    "GpuPrice",
    "Price",
    "Prices",
    "card_of",
    "cards",
    "cost_of",
    "gpu_cost",
    "gpu_price_of",
    "gpu_prices",
    "load_prices",
    "price_of",
    "price_warning",
    "prices",
]

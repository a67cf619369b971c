"""Dollars: dated prices with their sources, and what tokens and GPU seconds come to."""

from __future__ import annotations

from vlm_tune.cost.amounts import Cost, cost_of, gpu_cost
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
    "Cost",
    "GpuPrice",
    "Price",
    "Prices",
    "cost_of",
    "gpu_cost",
    "gpu_price_of",
    "gpu_prices",
    "load_prices",
    "price_of",
    "price_warning",
    "prices",
]

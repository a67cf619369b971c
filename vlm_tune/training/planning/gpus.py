"""Every GPU that has a price, beside one training run: does it fit, how long does it take, what does it cost."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING, Literal

from pydantic import NonNegativeFloat, PositiveFloat

from vlm_tune.cost import GpuPrice, card_of, gpu_prices
from vlm_tune.records import Record
from vlm_tune.training.config import TrainConfig
from vlm_tune.training.planning.estimate import Estimates, device_of, estimate
from vlm_tune.training.planning.memory import Layout, answering
from vlm_tune.training.planning.sizes import Sizes

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType
    from rich.table import Table

__all__ = ["Gpu", "GpuTable", "GpuUse", "duration", "gpu_table"]

Weights = Literal["fp32", "bf16", "int8", "int4"]
"""How the language model's linear layers are stored; `int4` in training is NF4."""

_BITS: dict[Weights, float] = {"fp32": 32, "bf16": 16, "int8": 8, "int4": 4.5}
"""Bits of a weight, the scales of groups of 64 or more included."""


_NAMES: dict[Weights, str] = {"int4": "4-bit base"}


class GpuUse(Record):
    """One thing a GPU could do."""

    purpose: Literal["training", "inference"]
    """Training, or answering about one photo at a time."""
    weights: Weights
    """How the base model's weights are stored."""
    fits: bool
    """Whether the memory is enough."""
    memory_gb: NonNegativeFloat
    """What it needs, in 1e9 bytes."""
    layout: Layout | None = None
    """How a step would be cut into passes; None for inference."""
    seconds: NonNegativeFloat | None = None
    """Time of the training; None where it does not fit."""
    cost_usd: NonNegativeFloat | None = None
    """Rent for that time."""
    advice: str = ""
    """What would make it fit."""


class Gpu(Record):
    """One GPU at one provider."""

    gpu: str
    """The card."""
    provider: str
    """Who rents it out."""
    usd_per_hour: NonNegativeFloat
    """What an hour costs."""
    source: str
    """Who says so, and when it was read."""
    memory_gb: PositiveFloat
    """Its memory, in 1e9 bytes."""
    uses: tuple[GpuUse, ...]
    """Training with each kind of weights, then inference with each kind."""

    @property
    def cost_usd(self) -> float:
        """Dollars of the cheapest training that fits; infinite where none does."""
        return min((use.cost_usd for use in self.uses if use.cost_usd is not None), default=math.inf)


class GpuTable(Record):
    """GPUs, the cheapest for this training first, and those that it does not fit on last."""

    rows: tuple[Gpu, ...]
    """One for each GPU and provider."""

    def _rich(self) -> RenderableType:
        """Draw the table."""
        return self.table()

    def frame(self) -> pd.DataFrame:
        """Return one row for each GPU, provider and use."""
        import pandas as pd

        return pd.DataFrame(
            [
                {
                    "gpu": row.gpu,
                    "provider": row.provider,
                    "usd_per_hour": row.usd_per_hour,
                    "device_gb": row.memory_gb,
                    "purpose": use.purpose,
                    "weights": use.weights,
                    "fits": use.fits,
                    "memory_gb": use.memory_gb,
                    "micro_batch_size": use.layout.micro_batch_size if use.layout else None,
                    "checkpointed": use.layout.checkpointed if use.layout else None,
                    "minutes": None if use.seconds is None else use.seconds / 60,
                    "cost_usd": use.cost_usd,
                    "advice": use.advice,
                }
                for row in self.rows
                for use in row.uses
            ]
        )

    def table(self) -> Table:
        """Return the table as rich draws it."""
        from rich.table import Table

        training, inference = _columns(self.rows)
        headings = [f"train {_NAMES.get(use.weights, use.weights)}" for use in training]
        answers = f"answer {', '.join(use.weights for use in inference)}"
        table = Table("GPU", "rent", *headings, answers, title="GPUs, cheapest first")
        for row in self.rows:
            trains = [_training_cell(use) for use in row.uses if use.purpose == "training"]
            fitting = [
                "yes" if use.fits else f"no ({use.memory_gb:.0f} GB)" for use in row.uses if use.purpose == "inference"
            ]
            name = f"{row.gpu}, {row.memory_gb:.0f} GB"
            rent = f"${row.usd_per_hour:.2f}/h {row.provider}"
            table.add_row(name, rent, *trains, ", ".join(fitting), style="" if row.cost_usd < math.inf else "dim")
        return table


def gpu_table(sizes: Sizes, config: TrainConfig, *, on: date | None = None) -> GpuTable:
    """Return every GPU with a price and known figures, beside one training run.

    Args:
        sizes: Model and data.
        config: The training configuration.
        on: The day whose prices count; None for today.
    """
    day = on or date.today()
    rows = [row for price in gpu_prices() if price.holds(day) and (row := _row(price, sizes, config)) is not None]
    # Where nothing fits, the card that misses least comes first.
    return GpuTable(rows=tuple(sorted(rows, key=lambda row: (row.cost_usd, -row.memory_gb, row.usd_per_hour))))


def _row(price: GpuPrice, sizes: Sizes, config: TrainConfig) -> Gpu | None:
    card = card_of(price.gpu)
    if card is None:
        return None
    device = device_of(card, price)
    whole: Weights = "fp32" if sizes.bytes_per_value == 4 else "bf16"
    training: dict[Weights, Sizes] = {
        whole: replace(sizes, quantized=False),
        "int4": replace(sizes, quantized=True, fused=False),
    }
    uses = [_training(weights, estimate(changed, config, device)) for weights, changed in training.items()]
    for weights in (whole, "int8", "int4"):
        needed = answering(sizes, _BITS[weights]) / 1e9
        uses.append(GpuUse(purpose="inference", weights=weights, fits=needed <= card.memory_gb, memory_gb=needed))
    return Gpu(
        gpu=price.gpu,
        provider=price.provider,
        usd_per_hour=price.usd_per_hour,
        source=price.provenance,
        memory_gb=card.memory_gb,
        uses=tuple(uses),
    )


def _training(weights: Weights, guess: Estimates) -> GpuUse:
    return GpuUse(
        purpose="training",
        weights=weights,
        fits=guess.fits,
        memory_gb=guess.memory_gb,
        layout=guess.layout,
        seconds=guess.seconds if guess.fits else None,
        cost_usd=guess.cost.usd if guess.fits and guess.cost else None,
        advice=guess.advice,
    )


def _columns(rows: tuple[Gpu, ...]) -> tuple[list[GpuUse], list[GpuUse]]:
    uses = rows[0].uses if rows else ()
    split = [[use for use in uses if use.purpose == purpose] for purpose in ("training", "inference")]
    return split[0], split[1]


def _training_cell(use: GpuUse) -> str:
    if use.seconds is None or use.cost_usd is None:
        return f"no: {use.advice.removeprefix('what would fit: ')}"
    again = use.layout.checkpointed if use.layout else 0.0
    recomputed = f", {again:.0%} recomputed" if again else ""
    return f"{duration(use.seconds)}, ${use.cost_usd:.2f}, {use.memory_gb:.0f} GB{recomputed}"


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it.

    Examples:
        >>> [duration(value) for value in (47, 480, 7200)]
        ['47 s', '8 min', '2.0 h']
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

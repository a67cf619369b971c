"""What one image costs, measured: tokens at a dated price, or GPU seconds at a dated rent."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat, PositiveFloat

from vlm_tune._console import notice
from vlm_tune.cost import (
    Cost,
    GpuPrice,
    Price,
    Prices,
    gpu_price_of,
    gpu_prices,
    price_of,
    price_warning,
    prices,
)
from vlm_tune.errors import EvaluationError
from vlm_tune.records import Estimate
from vlm_tune.statistics import positive_mean

if TYPE_CHECKING:
    import pyarrow as pa

    from vlm_tune.evaluation.evaluation import Evaluation

__all__ = ["GpuImageCost", "api_cost", "gpu_image_cost"]

_STRETCHES = 20
"""Parts of a run, of whole batches, whose means are compared: answers of one batch, and of neighbours, are alike."""


class GpuImageCost(Cost):
    """What one image costs on a rented GPU, with what that follows from."""

    seconds_per_image: PositiveFloat
    """Mean time of one image on a GPU that has nothing else to do."""
    usd_per_hour: NonNegativeFloat
    """The GPU's rent."""
    utilisation: float = Field(gt=0, le=1)
    """Share of the rented time in which it answers."""
    gpu: str
    """The card and its provider."""


def api_cost(
    evaluation: Evaluation,
    *,
    price: str | Price | None = None,
    batch: bool = False,
    own: Prices = (),
    on: date | None = None,
) -> Cost:
    """Return what one image cost; see `CostModel.of_api`."""
    name, table, day = evaluation.name, evaluation.table, on or _today()
    rate = _rate(price, name, batch=batch, own=own, on=day)
    spent = _asked(table, "input_tokens")
    if rate is not None and spent.num_rows:
        each, basis = _priced(spent, rate), f"measured tokens of {name} at {_said(rate, batch=batch)}"
    else:
        # Where a server counts no tokens there may still be a bill; an image that occurs again costs nothing then.
        billed = spent if spent.num_rows else _asked(table, "latency_s")
        each = _column(billed, "cost_usd")
        if rate is not None or not billed.num_rows or np.isnan(each).any():
            raise EvaluationError(
                f"{name}: what an image cost is not known, because no price was known when it was asked, or no tokens "
                "were counted; pass price=Price(...), or Cost.exact(dollars, basis=...) instead of the evaluation"
            )
        basis = f"measured tokens of {name}, at {_price_then(evaluation, spent, each)}"
    warned = _told(None if rate is None else price_warning(rate, rate.model, on=day))
    found, method = _mean(each)
    ends = {"usd": found.value, "low": found.low, "high": found.high}
    return Cost(**ends, n=len(each), basis=f"{basis}; {method}", system=name, warnings=warned)


def _rate(price: str | Price | None, name: str, *, batch: bool, own: Prices, on: date) -> Price | None:
    if price is None:
        if batch:
            raise EvaluationError(f"{name}: what batch mode costs follows from a price; pass price='the model' as well")
        return None
    found = price_of(price, on=on, own=own) if isinstance(price, str) else price
    if found is None:
        known = ", ".join(sorted({price.model for price in prices()}))
        raise EvaluationError(
            f"no price is known for {price} on {on}; known are {known}. Pass price=Price(...), or prices of your own "
            "with own="
        )
    if batch and not found.batch_discount:
        raise EvaluationError(
            f"no discount for batch mode is known for {found.model} ({found.provenance}); pass price=Price(...) with "
            "batch_discount="
        )
    return found.in_batch() if batch else found


def _said(price: Price, *, batch: bool) -> str:
    mode = " in batch mode" if batch else ""
    rates = f"${price.input_usd_per_million:g} and ${price.output_usd_per_million:g} per million tokens in and out"
    return f"{price.model}'s price{mode}, {rates} ({price.provenance})"


def _price_then(evaluation: Evaluation, spent: pa.Table, each: NDArray[np.float64]) -> str:
    """Return which price was paid: the known one of this model at which the tokens come to what was paid."""
    names = {evaluation.name, *evaluation.model_versions}
    known = [price for price in prices() if price.model in names] if len(each) == spent.num_rows else []
    for price in known:
        for batch in (False, True) if price.batch_discount else (False,):
            if np.allclose(_priced(spent, price.in_batch() if batch else price), each, rtol=1e-6, atol=0):
                return _said(price.in_batch() if batch else price, batch=batch)
    return "the price when it was asked"


def gpu_image_cost(
    evaluation: Evaluation,
    *,
    gpu: str | GpuPrice,
    utilisation: float,
    provider: str | None = None,
    own: Prices = (),
    on: date | None = None,
) -> GpuImageCost:
    """Return what one image costs; see `CostModel.of_gpu`."""
    if not 0 < utilisation <= 1:
        raise EvaluationError(f"utilisation is a share above 0 and up to 1, not {utilisation}")
    rent = rent_of(gpu, provider=provider, own=own, on=on)
    seconds = _column(_asked(evaluation.table, "latency_s"), "latency_s")
    if not len(seconds) or not np.nanmean(seconds):
        raise EvaluationError(f"{evaluation.name}: no times were measured; Evaluator.run takes them")
    usd_per_second = rent.usd_per_hour / 3600 / utilisation
    found, method = _mean(seconds, _stretches(seconds))
    basis = (
        f"measured {1 / found.value:.3g} images/s of {evaluation.name} ({len(seconds):,} images) x "
        f"${rent.usd_per_hour:g}/h for one {rent.gpu} ({rent.provider}: {rent.provenance}), busy "
        f"{100 * utilisation:.3g} % of the rented time; {method}. On another card than it was measured on, the speed "
        "differs"
    )
    return GpuImageCost(
        usd=found.value * usd_per_second,
        low=found.low * usd_per_second,
        high=found.high * usd_per_second,
        n=len(seconds),
        basis=basis,
        seconds_per_image=found.value,
        usd_per_hour=rent.usd_per_hour,
        utilisation=utilisation,
        gpu=f"{rent.gpu} at {rent.provider}",
        system=evaluation.name,
        warnings=_told(price_warning(rent, rent.gpu, on=on or _today())),
    )


def _stretches(seconds: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return which stretch of the run each image is in; those of one batch have the same time and stay together.

    A batch is in the stretch of its middle image, so that stretches are of about one length.
    """
    _, first, batch, sizes = np.unique(seconds, return_index=True, return_inverse=True, return_counts=True)
    order = np.argsort(first)
    middle = np.cumsum(sizes[order]) - sizes[order] / 2
    stretch = np.empty(len(order), np.int64)
    stretch[order] = middle * min(_STRETCHES, len(order)) / len(seconds)
    return stretch[batch]


def rent_of(gpu: str | GpuPrice, *, provider: str | None = None, own: Prices = (), on: date | None = None) -> GpuPrice:
    """Return what an hour of a GPU costs on a day, today unless told otherwise.

    Raises:
        EvaluationError: It is not known.
    """
    if isinstance(gpu, GpuPrice):
        return gpu
    rent = gpu_price_of(gpu, on=on or _today(), provider=provider, own=own)
    if rent is None:
        known = ", ".join(sorted({f"{price.gpu} at {price.provider}" for price in gpu_prices()}))
        wanted = gpu if provider is None else f"{gpu} at {provider}"
        raise EvaluationError(
            f"no price is known for an hour of {wanted} on {on or _today()}; known are {known}. Pass "
            "gpu=GpuPrice(...), or prices of your own with own="
        )
    return rent


def _today() -> date:
    return datetime.now(UTC).date()


def _told(warning: str | None) -> tuple[str, ...]:
    if warning is None:
        return ()
    notice(warning)
    return (warning,)


def _asked(table: pa.Table, column: str) -> pa.Table:
    return table.filter(table[column].is_valid())


def _column(table: pa.Table, name: str) -> NDArray[np.float64]:
    return np.asarray(table[name].to_numpy(), np.float64)


def _priced(table: pa.Table, price: Price) -> NDArray[np.float64]:
    fresh, cached, answer, thought = (
        _column(table, f"{kind}_tokens") for kind in ("input", "cached", "output", "thinking")
    )
    cached = np.minimum(cached, fresh)
    cached_price = price.input_usd_per_million if price.cached_usd_per_million is None else price.cached_usd_per_million
    prompt = (fresh - cached) * price.input_usd_per_million + cached * cached_price
    return np.asarray((prompt + (answer + thought) * price.output_usd_per_million) / 1e6)


def _mean(values: NDArray[np.float64], stretches: NDArray[np.int64] | None = None) -> tuple[Estimate, str]:
    """Return the mean with its 95 % interval, and in words how that was made."""
    value, number = float(values.mean()), len(values) if stretches is None else len(np.unique(stretches))
    what = "images" if stretches is None else "stretches of the run"
    if number > 1 and value:
        found = positive_mean(values, groups=stretches)
        return found, f"mean of {number} {what}, {found.method}"
    why = f"one of the {what} only" if number < 2 else "nothing was paid"
    return Estimate(value=value, low=value, high=value, n=number, method=""), f"{why}, so there is no interval"

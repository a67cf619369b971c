"""A month's bill by number of images, and the number from which on a tuned model is the cheaper one."""

from __future__ import annotations

import math

from pydantic import NonNegativeFloat, PositiveInt

from vlm_tune.cost import Cost
from vlm_tune.evaluation.unit_costs import GpuImageCost
from vlm_tune.records import Record

__all__ = ["HOURS_A_MONTH", "BreakEven", "MonthlyCost", "all_month", "by_the_hour", "cheaper_for_good", "whole_gpus"]

HOURS_A_MONTH = 730
_SECONDS_A_MONTH = 3600 * HOURS_A_MONTH
_FAR_ENDS = "the band holds both costs at the far ends of their 95 % intervals, so that it covers at least 95 %"


class BreakEven(Record):
    """The number of images from which on the tuned model is cheaper, with its band; None stands for never.

    Examples:
        >>> print(BreakEven(images=2500, low=2100, high=None, basis="..."))
        2,500 images [2,100, never]
    """

    images: NonNegativeFloat | None
    """The number at the best estimates of both costs."""
    low: NonNegativeFloat | None
    """The number when the API is at the dear end of its interval and the GPU at the cheap end."""
    high: NonNegativeFloat | None
    """The number when it is the other way round."""
    basis: str
    """What was divided by what, how many images both costs were measured on, and what the band is."""

    def __str__(self) -> str:
        shown = ["never" if value is None else f"{math.ceil(value):,}" for value in (self.images, self.low, self.high)]
        return f"{shown[0]}{'' if self.images is None else ' images'} [{shown[1]}, {shown[2]}]"


class MonthlyCost(Record):
    """What a month of so many images costs in each way, with a month's share of training and labelling.

    Every interval is that of one image, times the number of images.
    """

    images: NonNegativeFloat
    """Images a month."""
    api: Cost
    """The API's bill."""
    batch: Cost | None = None
    """The API's bill in batch mode; None where its price was not given."""
    by_the_hour: Cost | None = None
    """The tuned model on GPUs that are rented by the hour, at the stated utilisation; None where there is none."""
    all_month: Cost | None = None
    """The tuned model on whole GPUs that are rented all month, as many as the images need at that utilisation."""
    gpus: PositiveInt | None = None
    """How many GPUs are rented all month."""

    def __str__(self) -> str:
        parts = [f"{self.images:,.10g} images a month: API {self.api}"]
        if self.batch is not None:
            parts.append(f"in batch {self.batch}")
        if self.by_the_hour is not None:
            parts.append(f"GPU by the hour {self.by_the_hour}")
        if self.all_month is not None:
            parts.append(f"{self.gpus} GPU{'s' if self.gpus != 1 else ''} all month {self.all_month}")
        return ", ".join(parts)


def whole_gpus(images: float, own: GpuImageCost) -> tuple[int, Cost]:
    """Return how many whole GPUs the images of a month need, and their rent.

    Each answers no longer than the stated share of the month. The ends follow from those of the measured speed.

    Args:
        images: Images a month.
        own: What an image takes.
    """
    rent = HOURS_A_MONTH * own.usd_per_hour
    counts = [_whole(images, seconds, own.utilisation) for seconds in _seconds(own)]
    low, usd, high = (number * rent for number in counts)
    basis = (
        f"{counts[1]:,} x {HOURS_A_MONTH} h of one {own.gpu} at ${own.usd_per_hour:g}/h, each busy at most "
        f"{100 * own.utilisation:.3g} % of the month ({own.basis})"
    )
    cost = Cost(usd=usd, low=low, high=high, n=own.n, basis=basis, system=own.system, warnings=own.warnings)
    return counts[1], cost


def by_the_hour(once: float, api: Cost, own: Cost) -> BreakEven:
    """Return the number of images at which what was spent once has paid for itself, GPU time paid as it is used."""

    def meets(api_usd: float, own_usd: float) -> float | None:
        return once / (api_usd - own_usd) if api_usd > own_usd else None

    return BreakEven(
        images=meets(api.usd, own.usd),
        low=meets(api.high, own.low),
        high=meets(api.low, own.high),
        basis=f"${once:,.2f} / (API image - GPU image), {_measured(api, own)}; {_FAR_ENDS}",
    )


def all_month(once: float, api: Cost, own: GpuImageCost) -> BreakEven:
    """Return the images a month from which on whole GPUs, rented all month, are cheaper at every number."""
    rent = HOURS_A_MONTH * own.usd_per_hour
    fast, usual, slow = (
        _SECONDS_A_MONTH * own.utilisation / seconds if seconds else math.inf for seconds in _seconds(own)
    )
    return BreakEven(
        images=cheaper_for_good(api.usd, rent=rent, capacity=usual, once=once),
        low=cheaper_for_good(api.high, rent=rent, capacity=fast, once=once),
        high=cheaper_for_good(api.low, rent=rent, capacity=slow, once=once),
        basis=(
            f"(whole GPUs at ${rent:,.2f} a month, each answering up to {usual:,.0f} images, and ${once:,.2f}) / API "
            f"image, {_measured(api, own)}; {_FAR_ENDS}"
        ),
    )


def cheaper_for_good(api_usd: float, *, rent: float, capacity: float, once: float) -> float | None:
    """Return from which number of images on whole GPUs are cheaper than an API at every number; None for never.

    The bill of whole GPUs is a staircase: just after a step it may be the dearer one again. With k GPUs it is cheaper
    everywhere if it is so at the first image of the last one: api (k - 1) capacity >= k rent + once.

    Args:
        api_usd: Dollars of one image at the API.
        rent: Dollars of one GPU.
        capacity: Images that one GPU can answer.
        once: Dollars to be paid beside the GPUs.

    Examples:
        >>> cheaper_for_good(0.01, rent=300, capacity=100_000, once=0)
        30000.0
        >>> cheaper_for_good(0.01, rent=800, capacity=100_000, once=0)
        320000.0
        >>> cheaper_for_good(0.01, rent=1_200, capacity=100_000, once=0) is None
        True
    """
    if math.isinf(capacity):
        return (rent + once) / api_usd if api_usd > 0 else None
    saved = api_usd * capacity - rent
    if saved <= 0:
        return None
    # A tie that rounding turned into a little more would cost a whole step.
    gpus = math.ceil((once + api_usd * capacity) / saved - 1e-9) - 1
    return min((gpus * rent + once) / api_usd, gpus * capacity)


def _whole(images: float, seconds: float, utilisation: float) -> int:
    return max(1, math.ceil(images * seconds / (_SECONDS_A_MONTH * utilisation)))


def _seconds(own: GpuImageCost) -> tuple[float, float, float]:
    """Return low end, mean and high end of the seconds an image takes; rent and seconds are in proportion."""
    scale = own.seconds_per_image / own.usd if own.usd else 0.0
    if not scale:
        return (own.seconds_per_image,) * 3
    return own.low * scale, own.seconds_per_image, own.high * scale


def _measured(api: Cost, own: Cost) -> str:
    return f"measured on {api.n:,} and {own.n:,} images" if api.n and own.n else "one of them given, not measured"

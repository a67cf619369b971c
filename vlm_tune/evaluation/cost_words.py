"""What a cost model says in words, for whoever pays."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from vlm_tune.evaluation.monthly_costs import BreakEven

if TYPE_CHECKING:
    from vlm_tune.evaluation.cost_model import CostModel

__all__ = ["month_sentence", "overtaking", "rounded", "spent_once"]


def month_sentence(costs: CostModel) -> str:
    """Return what a month of the expected images costs in each way, and from how many on the tuned model pays."""
    api, tuned = costs.names
    month = costs.per_month(costs.images_per_month)
    ways = [f"{month.api} with {api}"]
    if month.batch is not None:
        ways.append(f"{month.batch} with {api} in batch mode")
    if month.by_the_hour is not None:
        ways.append(f"{month.by_the_hour} with {tuned} on rented GPUs")
    one = costs.images_per_month == 1
    parts = [f"{costs.images_per_month:,} image{'' if one else 's'} a month cost{'s' if one else ''} {_listed(ways)}."]
    if costs.tuned is None:
        return parts[0]
    parts.append(overtaking(costs.break_even_per_month(), tuned, api))
    if costs.batch is not None:
        parts.append(overtaking(costs.break_even_per_month(batch=True), tuned, f"{api} in batch mode"))
    parts.append(spent_once(costs))
    needed = f"{month.gpus} {'is' if month.gpus == 1 else 'are'} needed, for {month.all_month}"
    parts.append(
        f"GPUs are {costs.tuned.gpu} for ${costs.tuned.usd_per_hour:g} an hour, rented by the hour and busy "
        f"{100 * costs.tuned.utilisation:.3g} % of it; rented all month, {needed}."
    )
    return f"{' '.join(parts)} In brackets: 95 % intervals."


def spent_once(costs: CostModel) -> str:
    """Return what of training and labelling is in a month's bill."""
    known = {"training": costs.training, "labelling": costs.labelling}
    given = [name for name, amount in known.items() if amount is not None]
    left = [name for name, amount in known.items() if amount is None]
    parts = []
    if given:
        total = costs.once
        spread = f"spread over {costs.months} month{'' if costs.months == 1 else 's'}"
        parts.append(f"{' and '.join(given).capitalize()} {_is(given)} included: {total} once, {spread}.")
    if left:
        parts.append(f"{' and '.join(left).capitalize()} {_is(left)} left out.")
    return " ".join(parts)


def overtaking(found: BreakEven, tuned: str, api: str) -> str:
    """Return from how many images a month on the tuned model is cheaper, GPUs rented by the hour.

    Examples:
        >>> overtaking(BreakEven(images=2512, low=2100, high=3000, basis=""), "tuned", "the API")
        'From about 2,520 [2,100, 3,000] images a month on, tuned is cheaper than the API.'
    """
    unsure = "which of the two is cheaper is not established"
    if found.images is None:
        if found.low is None:
            return f"At no number of images is {tuned} cheaper than {api}."
        where = _where(found.low)
        return f"By the best estimates {tuned} is never cheaper than {api}, but {where} it may be: {unsure}."
    where = _where(found.images)
    if found.high is None:
        return f"By the best estimates {tuned} is cheaper than {api} {where}, but it may never be: {unsure}."
    if not found.images:
        return f"At any number of images {tuned} is cheaper than {api}."
    band = f"[{rounded(found.low or 0)}, {rounded(found.high)}]"
    return f"From about {rounded(found.images)} {band} images a month on, {tuned} is cheaper than {api}."


def rounded(images: float) -> str:
    """Return a number of images with three digits, rounded up.

    Examples:
        >>> [rounded(value) for value in (0, 7.2, 1234.5, 98_765_432)]
        ['0', '8', '1,240', '98,800,000']
    """
    whole = math.ceil(images)
    step = 10 ** max(0, len(str(whole)) - 3)
    return f"{-(-whole // step) * step:,}"


def _where(images: float) -> str:
    return f"from about {rounded(images)} images a month on" if images else "at any number of images"


def _listed(ways: list[str]) -> str:
    return ways[0] if len(ways) == 1 else f"{', '.join(ways[:-1])}{',' if len(ways) > 2 else ''} and {ways[-1]}"


def _is(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"

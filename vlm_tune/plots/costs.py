"""A figure about money: a month's bill by number of images, with each way to have them answered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from vlm_tune.plots.style import INK, MUTED, RULE, legend_below, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

__all__ = ["CostLine", "monthly_costs"]


class CostLine(NamedTuple):
    """One way to have images answered: its name and look, and a month's dollars at each number of images."""

    label: str
    colour: str
    style: str
    usd: ArrayLike
    low: ArrayLike
    high: ArrayLike


def monthly_costs(
    images: ArrayLike,
    lines: Sequence[CostLine],
    *,
    meets: Sequence[tuple[str, float | None, float | None, float | None]] = (),
    at: float | None = None,
    title: str = "What a month costs, with 95 % bands",
) -> Figure:
    """Draw dollars a month by images a month, both axes logarithmic.

    Args:
        images: Images a month, rising.
        lines: A line for each way, in the order of the legend.
        meets: Break-evens: words, number of images, and low and high end of its band; None stands for never.
        at: The number of images that is expected, drawn as a dotted line.
        title: Heading of the figure.

    Examples:
        >>> api = CostLine("API", "#0072b2", "-", [1, 100], [0.9, 90], [1.1, 110])
        >>> figure = monthly_costs([100, 10_000], [api], at=1_000)
    """
    import numpy as np
    from matplotlib.ticker import FuncFormatter

    figure, axes = new_figure(7.0, 4.4, title)
    places = np.asarray(images, dtype=float)
    for line in lines:
        usd, low, high = (np.asarray(part, dtype=float) for part in (line.usd, line.low, line.high))
        axes.plot(places, usd, color=line.colour, lw=2, ls=line.style, label=plain(line.label, 60))
        axes.fill_between(places, low, high, color=line.colour, alpha=0.2, lw=0)
    if at is not None:
        # The words about break-evens stand below it.
        axes.axvline(at, 0.03 + 0.07 * len(meets), color=MUTED, lw=1, ls=":", label=f"expected: {at:,.0f} images")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.tick_params(which="minor", color=RULE)
    axes.set_xlim(places[0], places[-1])
    for number, found in enumerate(meets):
        _mark(axes, *found, number=number)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: rf"\${value:,.{0 if value >= 1 else 2}f}"))
    axes.grid(color=RULE, lw=0.6)
    axes.set_xlabel("images a month (log scale)", color=MUTED, fontsize=9)
    axes.set_ylabel("US dollars a month (log scale)", color=MUTED, fontsize=9)
    legend_below(figure, axes, columns=2)
    return figure


def _mark(axes: Axes, words: str, images: float | None, low: float | None, high: float | None, *, number: int) -> None:
    """Draw one break-even under the lines: its band as a bar, its number as a mark with words."""
    left, right = axes.get_xlim()
    if not images or not left < images < right:
        return
    height = 0.05 + 0.07 * number
    across = axes.get_xaxis_transform()
    ends = [max(left if low is None else low, left), min(right if high is None else high, right)]
    axes.plot(ends, [height, height], color=MUTED, lw=1.6, transform=across)
    axes.plot([images], [height], "o", color=MUTED, ms=5, transform=across)
    # Words stand where there is more room.
    late = images > math.sqrt(left * right)
    text, place = plain(f"{words} {images:,.0f}", 80), ends[0] if late else ends[1]
    offset, side = (-6, "right") if late else (6, "left")
    axes.annotate(
        text,
        (place, height),
        (offset, 0),
        xycoords=across,
        textcoords="offset points",
        fontsize=8.5,
        color=INK,
        va="center",
        ha=side,
    )

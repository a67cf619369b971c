"""A figure about training sizes: accuracy by number of training images, and where it may go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from vlm_tune.plots.style import COLOURS, INK, MUTED, RULE, colours, new_figure, plain
from vlm_tune.records import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

__all__ = ["CurveBand", "learning_curve"]

_DODGE = 0.04
"""Seeds of one size stand side by side, this share of the size apart."""


class CurveBand(NamedTuple):
    """Middle and ends of a band, at growing sizes."""

    sizes: ArrayLike
    middle: ArrayLike
    low: ArrayLike
    high: ArrayLike


def learning_curve(
    tested: Sequence[tuple[int, Estimate]],
    *,
    trained: Sequence[tuple[int, float]] = (),
    band: CurveBand | None = None,
    chance: float | None = None,
    against: Mapping[str, Estimate] | None = None,
    title: str = "Accuracy by number of training images",
) -> Figure:
    """Draw test accuracy by training size, with 95 % intervals, on a logarithmic axis.

    Args:
        tested: Size and test accuracy of each training.
        trained: Size and accuracy on the training images of each.
        band: What a forecast expects, within the sizes measured and beyond.
        chance: Accuracy of guessing, drawn as a dotted line.
        against: Accuracy of others by name, drawn as lines with their values.
        title: Heading of the figure.

    Examples:
        >>> from vlm_tune.statistics import wilson
        >>> figure = learning_curve([(100, wilson(60, 98)), (200, wilson(70, 98))], chance=1 / 3)
    """
    from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter, StrMethodFormatter

    n_test = tested[0][1].n
    figure, axes = new_figure(7.0, 3.9, f"{title}: n = {n_test:,} test images, 95 % intervals")
    sizes = sorted({size for size, _ in tested})
    if band is not None:
        _draw_band(axes, band, sizes[-1])
    _draw_points(axes, tested)
    if trained:
        places, values = zip(*trained, strict=True)
        axes.plot(places, values, "^", color=MUTED, mfc="white", ms=5, label="on the training images")
    if chance is not None:
        axes.axhline(chance, color=MUTED, lw=1, ls=":", label=f"chance, {100 * chance:.1f} %")
    _draw_others(axes, against or {})
    axes.set_xscale("log")
    farthest = [4 * sizes[-1]] if band is not None else []
    axes.xaxis.set_major_locator(FixedLocator([*sizes, *farthest]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    lowest = min([estimate.low for _, estimate in tested] + ([] if chance is None else [chance]))
    axes.set_ylim(lowest - 0.08, 1.02)
    axes.grid(axis="y", color=RULE, lw=0.6)
    axes.set_xlabel("training images (log scale)", color=MUTED, fontsize=9)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def _draw_points(axes: Axes, tested: Sequence[tuple[int, Estimate]]) -> None:
    label: str | None = "on the test images, one mark for each seed"
    for size in sorted({size for size, _ in tested}):
        estimates = [estimate for there, estimate in tested if there == size]
        for place, estimate in enumerate(estimates):
            x = size * (1 + _DODGE * (place - (len(estimates) - 1) / 2))
            axes.plot([x, x], [estimate.low, estimate.high], color=COLOURS[0], lw=1.2, alpha=0.5)
            axes.plot([x], [estimate.value], "o", color=COLOURS[0], ms=5, label=label)
            label = None


def _draw_band(axes: Axes, band: CurveBand, largest: int) -> None:
    import numpy as np

    sizes, middle, low, high = (np.asarray(part, dtype=float) for part in band)
    axes.fill_between(sizes, low, high, color=COLOURS[0], alpha=0.15, lw=0, label="forecast with 95 % band")
    axes.plot(sizes, middle, color=COLOURS[0], lw=1.8, ls="--")
    axes.axvline(largest, color=RULE, lw=1)
    words = " beyond the sizes measured"
    axes.annotate(words, (largest, 0.02), xycoords=("data", "axes fraction"), fontsize=8, color=INK)


def _draw_others(axes: Axes, against: Mapping[str, Estimate]) -> None:
    colour_of = colours(against)
    for number, (name, estimate) in enumerate(against.items()):
        style = ("-", "-.", (0, (1, 1)))[number % 3]
        label = f"{plain(name, 24)}, {estimate.percent()}"
        axes.axhline(estimate.value, color=colour_of[name], lw=1.6, ls=style, label=label)

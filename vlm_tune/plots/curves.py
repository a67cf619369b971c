"""A figure about training sizes: accuracy by number of training images, and where it may go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from vlm_tune.plots.style import COLOURS, INK, MUTED, RULE, colours, legend_below, new_figure, plain
from vlm_tune.records import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

__all__ = ["TITLE", "CurveBand", "learning_curve"]

_DODGE = 0.04
"""Seeds of one size stand side by side, this share of the size apart."""

_LABELLED = 0.05
"""A size whose place on the axis is nearer than this share of its length to the next one's is not named."""

TITLE = "Accuracy by number of training images"
"""The usual heading."""


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
    fitted_until: int | None = None,
    chance: float | None = None,
    against: Mapping[str, Estimate] | None = None,
    title: str = TITLE,
) -> Figure:
    """Draw test accuracy by training size, with 95 % intervals, on a logarithmic axis.

    Args:
        tested: Size and test accuracy of each training.
        trained: Size and accuracy on the training images of each; the room between the two lines is the gap.
        band: What a forecast expects, within the sizes measured and beyond.
        fitted_until: The largest size that the band knows of, by default the largest of all; points beyond it are
            drawn hollow.
        chance: Accuracy of guessing, drawn as a dotted line.
        against: Accuracy of others by name, drawn as lines with their values.
        title: Heading of the figure.

    Examples:
        >>> from vlm_tune.statistics import wilson
        >>> figure = learning_curve([(100, wilson(60, 98)), (200, wilson(70, 98))], chance=1 / 3)
    """
    from matplotlib.ticker import PercentFormatter

    figure, axes = new_figure(7.0, 4.1, f"{title}: n = {tested[0][1].n:,} test images, 95 % intervals")
    sizes = sorted({size for size, _ in tested})
    known = sizes[-1] if fitted_until is None else fitted_until
    if band is not None:
        # A chance of nearly nothing is drawn where the words would stand.
        _draw_band(axes, band, known, words_at=0.02 if chance is None or chance > 0.06 else 0.06)
    _draw_points(axes, tested, known)
    if trained:
        _draw_line(axes, trained, MUTED, "--")
        places, values = zip(*trained, strict=True)
        axes.plot(places, values, "^", color=MUTED, mfc="white", ms=5, label="on the training images")
    if chance is not None:
        axes.axhline(chance, color=MUTED, lw=1, ls=":", label=f"chance, {100 * chance:.1f} %")
    _draw_others(axes, against or {})
    _scale_sizes(axes, sizes, 4 * known if band is not None else sizes[-1])
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    lowest = min([estimate.low for _, estimate in tested] + ([] if chance is None else [chance]))
    axes.set_ylim(max(lowest - 0.08, -0.02), 1.02)
    axes.grid(axis="y", color=RULE, lw=0.6)
    axes.set_xlabel("training images (log scale)", color=MUTED, fontsize=9)
    legend_below(figure, axes, columns=2)
    return figure


def _draw_points(axes: Axes, tested: Sequence[tuple[int, Estimate]], known: int) -> None:
    _draw_line(axes, [(size, estimate.value) for size, estimate in tested], COLOURS[0], "-")
    labels = {False: "on the test images, one mark for each seed", True: "the same, unknown to the forecast"}
    for size in sorted({size for size, _ in tested}):
        estimates = [estimate for there, estimate in tested if there == size]
        face = "white" if size > known else COLOURS[0]
        for place, estimate in enumerate(estimates):
            x = size * (1 + _DODGE * (place - (len(estimates) - 1) / 2))
            axes.plot([x, x], [estimate.low, estimate.high], color=COLOURS[0], lw=1.2, alpha=0.5)
            label = labels.pop(size > known, None)
            axes.plot([x], [estimate.value], "o", color=COLOURS[0], mfc=face, ms=5, label=label)


def _draw_line(axes: Axes, values: Sequence[tuple[int, float]], colour: str, style: str) -> None:
    """Join the means over the seeds."""
    sizes = sorted({size for size, _ in values})
    at = {size: [value for there, value in values if there == size] for size in sizes}
    axes.plot(sizes, [sum(at[size]) / len(at[size]) for size in sizes], color=colour, lw=1, ls=style, alpha=0.6)


def _draw_band(axes: Axes, band: CurveBand, largest: int, *, words_at: float) -> None:
    import numpy as np

    sizes, middle, low, high = (np.asarray(part, dtype=float) for part in band)
    axes.fill_between(sizes, low, high, color=COLOURS[0], alpha=0.15, lw=0, label="forecast with 95 % band")
    axes.plot(sizes, middle, color=COLOURS[0], lw=1.8, ls="--")
    axes.axvline(largest, color=RULE, lw=1)
    words = " beyond the sizes fitted"
    axes.annotate(words, (largest, words_at), xycoords=("data", "axes fraction"), fontsize=8, color=INK)


def _draw_others(axes: Axes, against: Mapping[str, Estimate]) -> None:
    colour_of = colours(against)
    for number, (name, estimate) in enumerate(against.items()):
        style = ("-", "-.", (0, (1, 1)))[number % 3]
        label = f"{plain(name, 24)}, {estimate.percent()}"
        axes.axhline(estimate.value, color=colour_of[name], lw=1.6, ls=style, label=label)


def _scale_sizes(axes: Axes, sizes: Sequence[int], farthest: int) -> None:
    """Count the x axis in factors, with the sizes measured and the farthest one named as far as there is room."""
    from math import log

    from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

    named: list[int] = []
    room = _LABELLED * max(log(max(farthest, sizes[-1]) / sizes[0]), 1e-9)
    for size in sorted({*sizes, farthest}, reverse=True):
        if not named or log(named[-1] / size) > room:
            named.append(size)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(named))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))

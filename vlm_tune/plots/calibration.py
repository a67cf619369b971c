"""Figures about probabilities: whether they hold, how much they let a model decide, and what a cascade costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlm_tune.plots.style import (
    ALERT,
    COLOURS,
    INK,
    MUTED,
    RULE,
    blank_figure,
    legend_below,
    new_figure,
    plain,
    plain_axes,
)
from vlm_tune.statistics import CalibrationError, wilson

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

__all__ = ["cascade", "reliability", "risk_coverage"]


def reliability(error: CalibrationError, *, title: str = "Reliability") -> Figure:
    """Draw accuracy by confidence with 95 % intervals over the band of a calibrated model, and how many answers.

    Args:
        error: The bins, from `statistics.calibration_error`.
        title: Heading of the figure.

    Examples:
        >>> from vlm_tune.statistics import calibration_error
        >>> figure = reliability(calibration_error([0.9, 0.6, 0.9, 0.7], [1, 0, 1, 1]))
    """
    figure = blank_figure(5.6, 5.6, title)
    above, below = figure.subplots(2, 1, height_ratios=[4, 1], sharex=True)
    for axes in (above, below):
        plain_axes(axes)
    above.plot([0, 1], [0, 1], color=MUTED, lw=1, ls=":")
    for number, found in enumerate(error.bins):
        middle, width = (found.low + found.high) / 2, 0.9 * (found.high - found.low)
        label = "95 % of perfectly calibrated models" if number == 0 else None
        above.bar(middle, found.band[1] - found.band[0], width, found.band[0], color=RULE, label=label)
        interval = wilson(found.right, found.n)
        x = found.confidence
        above.plot([x, x], [interval.low, interval.high], color=COLOURS[0], lw=2.2, solid_capstyle="round")
        label = "right, with 95 % interval" if number == 0 else None
        above.plot([x], [interval.value], "o", color=COLOURS[0], ms=7, label=label)
        below.bar(middle, found.n, width, color=COLOURS[0])
    above.set_ylim(0, 1.02)
    _percent(above, "y")
    above.set_ylabel("right", color=MUTED, fontsize=9)
    below.set_ylabel("answers", color=MUTED, fontsize=9)
    below.set_xlim(0, 1)
    _percent(below, "x")
    below.set_xlabel(f"confidence; n = {error.n:,}", color=MUTED, fontsize=9)
    legend_below(figure, above, columns=2)
    return figure


def risk_coverage(
    alone: ArrayLike,
    accuracy: ArrayLike,
    low: ArrayLike,
    high: ArrayLike,
    *,
    at: float | None = None,
    wanted: float | None = None,
    title: str = "Accuracy of the surest answers",
) -> Figure:
    """Draw accuracy by the share of photos that is decided alone, the surest first.

    Args:
        alone: Shares decided alone, rising.
        accuracy: Accuracy of what is decided alone.
        low: Lower ends of its intervals.
        high: Upper ends.
        at: Share at a threshold, drawn as a line.
        wanted: Accuracy that is wanted, drawn as a dotted line.
        title: Heading of the figure.

    Examples:
        >>> figure = risk_coverage([0.5, 1.0], [1.0, 0.9], [0.8, 0.7], [1.0, 0.97], at=0.5, wanted=0.95)
    """
    import numpy as np

    figure, axes = new_figure(7.0, 3.6, title)
    axes.fill_between(alone, low, high, color=COLOURS[0], alpha=0.2, lw=0, step="mid", label="95 % interval")
    axes.step(alone, accuracy, where="mid", color=COLOURS[0], lw=2, label="accuracy")
    if wanted is not None:
        axes.axhline(wanted, color=MUTED, lw=1, ls=":", label=f"wanted: {wanted:.0%}")
    if at is not None:
        axes.axvline(at, color=ALERT, lw=1.6, ls="--", label=f"threshold: {at:.0%} alone")
    axes.set_xlim(0, 1)
    axes.set_ylim(max(0.0, float(np.min(np.asarray(low)[len(np.asarray(low)) // 10 :])) - 0.05), 1.02)
    _percent(axes, "both")
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc="lower left")
    axes.set_xlabel("decided alone", color=MUTED, fontsize=9)
    axes.set_ylabel("right", color=MUTED, fontsize=9)
    return figure


def cascade(
    x: ArrayLike,
    accuracy: ArrayLike,
    low: ArrayLike,
    high: ArrayLike,
    *,
    at: float,
    names: tuple[str, str],
    usd: float | None = None,
) -> Figure:
    """Draw the accuracy of two systems in a row by how much the second is asked.

    Args:
        x: Share asked, or dollars for a thousand images; from all asked to none.
        accuracy: Accuracy of the cascade.
        low: Lower ends of its intervals.
        high: Upper ends.
        at: Where on x the threshold lies.
        names: The first system and the second.
        usd: Dollars for a thousand images with the second alone, where x is in dollars.

    Examples:
        >>> figure = cascade([1, 0.5, 0], [0.8, 0.9, 0.85], [0.7, 0.8, 0.75], [0.9, 1, 0.95], at=0.4,
        ...     names=("tuned", "Gemini"))
    """
    import numpy as np

    shares, values = np.asarray(x, dtype=float), np.asarray(accuracy, dtype=float)
    figure, axes = new_figure(7.0, 3.6, f"{names[0]} first, {names[1]} for the rest: 95 % band, on these photos")
    axes.fill_between(shares, low, high, color=COLOURS[0], alpha=0.2, lw=0)
    axes.plot(shares, values, color=COLOURS[0], lw=2)
    alone = ((names[1], usd or shares[0], values[0], -8), (names[0], shares[-1], values[-1], 8))
    for name, where, value, offset in alone:
        axes.plot(where, value, "s", color=INK, ms=6)
        side = "right" if offset < 0 else "left"
        note = f"{plain(name, 24)} alone"
        axes.annotate(note, (where, value), (offset, -14), textcoords="offset points", fontsize=9, color=INK, ha=side)
    axes.axvline(at, color=ALERT, lw=1.6, ls="--", label="threshold")
    axes.grid(color=RULE, lw=0.6)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc="lower center")
    _percent(axes, "y")
    if usd is not None:
        axes.set_xlabel("US dollars for a thousand images", color=MUTED, fontsize=9)
    else:
        _percent(axes, "x")
        axes.set_xlabel(f"asked of {plain(names[1], 24)}", color=MUTED, fontsize=9)
    axes.set_ylabel("right", color=MUTED, fontsize=9)
    return figure


def _percent(axes: Axes, which: str) -> None:
    from matplotlib.ticker import PercentFormatter

    if which in ("x", "both"):
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    if which in ("y", "both"):
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.grid(color=RULE, lw=0.6)

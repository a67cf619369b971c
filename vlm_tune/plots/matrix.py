"""Figures about comparing: every pair of several predictors, and what a number of test images can show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vlm_tune.plots.style import COLOURS, INK, MUTED, RULE, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["difference_matrix", "power_curve"]

_BEHIND, _AHEAD = "#d55e00", "#0072b2"
_FULL = 0.4
"""Difference that has the full colour."""
_MOST_OPAQUE = 0.55
"""So much of a colour hides what is below, so that words stay legible on it, on light paper and on dark."""


def difference_matrix(
    names: Sequence[str],
    *,
    values: Sequence[Sequence[float]],
    established: Sequence[Sequence[bool]],
    title: str = "Row less column, points",
) -> Figure:
    """Draw every system less every other: the row's lead in points, framed and bold where it is established.

    Args:
        names: The k systems.
        values: Differences in accuracy as fractions, k x k, row less column.
        established: Whether each is established, k x k.
        title: Heading of the figure.

    Examples:
        >>> figure = difference_matrix(["tuned", "base"], values=[[0, 0.3], [-0.3, 0]],
        ...     established=[[False, True], [True, False]])
    """
    from matplotlib.patches import Rectangle

    side = min(12.0, 1.6 + 0.95 * len(names))
    figure, axes = new_figure(side + 2.4, side, title)
    for row in range(len(names)):
        for column in range(len(names)):
            sure = established[row][column]
            shade = _MOST_OPAQUE * min(1.0, abs(values[row][column]) / _FULL)
            colour = _AHEAD if values[row][column] > 0 else _BEHIND
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=colour, alpha=shade, lw=0))
            text = "" if row == column else f"{100 * values[row][column]:+.1f}"
            weight = "bold" if sure else "normal"
            axes.text(column, row, text, ha="center", va="center", fontsize=10, color=INK, fontweight=weight)
            if sure:
                axes.add_patch(Rectangle((column - 0.46, row - 0.44), 0.92, 0.88, fill=False, edgecolor=INK, lw=1.4))
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    short = [plain(name, 22) for name in names]
    axes.set_xticks(range(len(names)), short, rotation=30, ha="right")
    axes.set_yticks(range(len(names)), short)
    axes.tick_params(length=0)
    axes.set_xlabel("framed: established after Holm's correction", fontsize=9, color=INK)
    axes.spines[:].set_visible(False)
    return figure


def power_curve(
    points: Sequence[tuple[int, float]], *, at: tuple[int, float], goal: float = 0.8, title: str = "Power"
) -> Figure:
    """Draw the probability of establishing a difference by the number of test images.

    Args:
        points: Numbers of images and their power, rising.
        at: The number that is planned, and its power.
        goal: The power that is wanted, drawn as a dotted line.
        title: Heading of the figure.

    Examples:
        >>> figure = power_curve([(50, 0.1), (100, 0.3), (400, 0.9)], at=(100, 0.3))
    """
    from matplotlib.ticker import PercentFormatter

    figure, axes = new_figure(7.0, 3.2, title)
    axes.plot(*zip(*points, strict=True), color=COLOURS[0], lw=2.2)
    axes.plot(*at, "o", color=COLOURS[1], ms=8)
    axes.annotate(
        f"n = {at[0]:,}: {at[1]:.0%}", at, (8, -4), textcoords="offset points", fontsize=9, color=INK, va="top"
    )
    axes.axhline(goal, color=MUTED, lw=1, ls=":")
    axes.set_ylim(0, 1.02)
    axes.set_xlim(0, None)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(color=RULE, lw=0.6)
    axes.set_xlabel("test images", color=MUTED, fontsize=9)
    axes.set_ylabel("power", color=MUTED, fontsize=9)
    return figure

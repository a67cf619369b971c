"""Figures about a sweep: every trial as a line through its settings, and which settings mattered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from vlm_tune.plots.style import COLOURS, INK, MUTED, RULE, new_figure, percent_axis, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Coordinate", "Line", "importance_bars", "parallel_coordinates"]

_ROOM = 0.06
"""Share of the accuracies' span that is left free above and below them."""


class Coordinate(NamedTuple):
    """One upright axis: what it is about, and the words at heights from 0 to 1."""

    name: str
    ticks: Sequence[tuple[float, str]]


class Line(NamedTuple):
    """One trial: its heights on the axes, and how right it was, which ends the line where it is None."""

    heights: Sequence[float]
    accuracy: float | None
    pruned: bool = False
    label: str = ""
    """What the legend calls it; a line without a label is one of many."""
    dashed: bool = False
    """Whether a line with a label is dashed."""


def parallel_coordinates(coordinates: Sequence[Coordinate], lines: Sequence[Line], *, n: int) -> Figure:
    """Draw each trial as a line through its settings to its accuracy on the photos held out.

    The darker a line, the more accurate; lines with a label are drawn on top, in colours and dashes of their own. A
    dotted line was given up, and one that ends in a cross failed.

    Args:
        coordinates: The settings, from left to right.
        lines: The trials.
        n: Photos held out.

    Examples:
        >>> rank = Coordinate("r", [(0.0, "16"), (1.0, "64")])
        >>> figure = parallel_coordinates([rank], [Line([0.0], 0.71), Line([1.0], 0.84, label="winner")], n=60)
    """
    known = [line.accuracy for line in lines if line.accuracy is not None]
    title = f"{len(lines)} trials by setting and accuracy: n = {n:,} photos held out"
    figure, axes = new_figure(max(5.5, min(1.35 * (len(coordinates) + 1), 9.5)), 4.0, title)
    low, high = _span(known)
    for line in sorted(lines, key=lambda line: (bool(line.label), line.accuracy or 0.0)):
        _draw(axes, line, low, high)
    _draw_axes(axes, coordinates, low, high)
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, labelcolor=INK, fontsize=9)
    return figure


def importance_bars(importance: Mapping[str, float], *, num_trials: int) -> Figure:
    """Draw each setting's share in what made trials good, the largest on top.

    Args:
        importance: Setting to its share.
        num_trials: Finished trials that the shares rest on.

    Examples:
        >>> figure = importance_bars({"learning_rate": 0.8, "r": 0.2}, num_trials=12)
    """
    names = sorted(importance, key=lambda name: importance[name])
    title = f"What made trials good: PED-ANOVA importance, {num_trials} finished trials"
    figure, axes = new_figure(6.5, 1.2 + 0.34 * len(names), title)
    values = [importance[name] for name in names]
    axes.barh(range(len(names)), values, color=COLOURS[0], height=0.6)
    for place, value in enumerate(values):
        axes.annotate(f" {100 * value:.0f} %", (value, place), va="center", fontsize=9, color=INK)
    axes.set_yticks(range(len(names)), [plain(name) for name in names])
    axes.set_xlim(0, max(values) * 1.12)
    percent_axis(axes)
    return figure


def _span(accuracies: Sequence[float]) -> tuple[float, float]:
    if not accuracies:
        return 0.0, 1.0
    low, high = min(accuracies), max(accuracies)
    room = max(_ROOM * (high - low), 0.01)
    return max(low - room, 0.0), min(high + room, 1.0)


def _draw(axes: Axes, line: Line, low: float, high: float) -> None:
    heights = list(line.heights)
    share = 0.0
    if line.accuracy is not None:
        share = (line.accuracy - low) / (high - low)
        heights.append(share)
    if line.label:
        colour, dashes = (COLOURS[2], "--") if line.dashed else (COLOURS[1], "-")
        axes.plot(range(len(heights)), heights, dashes, color=colour, lw=2.4, marker="o", ms=4, label=line.label)
        return
    # From faint to full: the best of many stand out without a colour scale.
    strength = 0.15 + 0.65 * share
    dashes = ":" if line.pruned or line.accuracy is None else "-"
    axes.plot(range(len(heights)), heights, dashes, color=COLOURS[0], lw=1.2, alpha=strength)
    if line.accuracy is None:
        axes.plot([len(heights) - 1], heights[-1:], "x", color=INK, ms=6)


def _draw_axes(axes: Axes, coordinates: Sequence[Coordinate], low: float, high: float) -> None:
    last = len(coordinates)
    for place, coordinate in enumerate(coordinates):
        axes.axvline(place, color=RULE, lw=1, zorder=0)
        for height, words in coordinate.ticks:
            axes.annotate(
                plain(words, 20), (place, height), xytext=(4, 3), textcoords="offset points", fontsize=8, color=INK
            )
    axes.axvline(last, color=MUTED, lw=1, zorder=0)
    for step in range(5):
        value = low + (high - low) * step / 4
        axes.annotate(
            f"{100 * value:.1f} %",
            (last, step / 4),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=INK,
        )
    axes.set_xticks(range(last + 1), [*(plain(one.name) for one in coordinates), "accuracy"])
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlim(-0.1, last + 0.35)
    axes.set_ylim(-0.06, 1.1)

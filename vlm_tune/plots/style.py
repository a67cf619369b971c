"""The look of every figure: colours, text, and the way out to PNG and SVG."""

from __future__ import annotations

import io
import textwrap
import zlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "ALERT",
    "COLOURS",
    "INK",
    "MUTED",
    "RULE",
    "blank_figure",
    "colours",
    "figure_to_png",
    "figure_to_svg",
    "legend_below",
    "new_figure",
    "palette",
    "percent_axis",
    "plain",
    "plain_axes",
]

INK, MUTED, RULE = "#1f2328", "#667078", "#d5d9dd"
"""Text, secondary text, and lines that only guide the eye."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#9a4fb0", "#87693c", "#5a87ff", "#007887")
"""Predictors, in the order they are handed out: 3:1 on white and on near-black."""

ALERT = "#d55e00"
"""A line that something lies beyond."""


def palette(name: str) -> str:
    """Return the colour of one predictor: always the same for the same name.

    Examples:
        >>> palette("base") == palette("base")
        True
    """
    return COLOURS[zlib.crc32(name.encode()) % len(COLOURS)]


def colours(names: Iterable[str], *, known: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return a colour for each of several predictors: the known one, its own one, or the next that is free.

    Args:
        names: The predictors.
        known: Colours that some have already.

    Examples:
        >>> len(set(colours(["majority", "base", "tuned"]).values()))
        3
        >>> colours(["base", "tuned"], known={"tuned": "#56b4e9"})["tuned"]
        '#56b4e9'
    """
    names = list(names)
    chosen = {name: colour for name, colour in (known or {}).items() if name in names}
    for name in names:
        first = COLOURS.index(palette(name))
        turns = (COLOURS[(first + step) % len(COLOURS)] for step in range(len(COLOURS)))
        chosen.setdefault(name, next((colour for colour in turns if colour not in chosen.values()), palette(name)))
    return chosen


def blank_figure(width: float, height: float, title: str) -> Figure:
    """Return an empty figure of a size in inches, with its heading at the left."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    figure.suptitle(
        _wrapped(plain(title, 300), int(11 * width)),
        x=0.01,
        ha="left",
        fontsize=10.5,
        color=INK,
        fontweight="bold",
    )
    return figure


def new_figure(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    """Return a figure with one pair of plain axes."""
    figure = blank_figure(width, height, title)
    axes = figure.add_subplot()
    plain_axes(axes)
    return figure, axes


def plain_axes(axes: Axes) -> None:
    """Take away what only decorates a pair of axes."""
    axes.tick_params(colors=MUTED, labelcolor=INK, labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(RULE)
    axes.set_axisbelow(True)


def legend_below(figure: Figure, axes: Axes, *, columns: int) -> None:
    """Put the legend of a pair of axes under the figure, in the colour of text, which a dark page replaces."""
    handles = axes.get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=9, labelcolor=INK)


def percent_axis(axes: Axes) -> None:
    """Count the x axis in percent of 1, with faint lines."""
    from matplotlib.ticker import PercentFormatter

    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(axis="x", color=RULE, lw=0.6)


def plain(text: str, limit: int = 40) -> str:
    """Return one short line that matplotlib draws as it stands: a lone dollar sign would start a formula."""
    line = " ".join(text.split())
    line = line if len(line) <= limit else line[: limit - 1] + "…"
    return line.replace("$", r"\$")


def figure_to_png(figure: Figure, *, dpi: int = 150) -> bytes:
    """Return the figure as PNG bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def figure_to_svg(figure: Figure) -> str:
    """Return the figure as an SVG document with real text; the same data gives the same document."""
    import matplotlib as mpl

    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "vlm-tune"}):
        figure.savefig(buffer, format="svg", metadata=nothing, transparent=True)
    return buffer.getvalue()


def _wrapped(title: str, width: int) -> str:
    """Break a title into lines, but never within `n = 98`."""
    kept = title.replace("n = ", "n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")
    return textwrap.fill(kept, width).replace("\N{NO-BREAK SPACE}", " ")

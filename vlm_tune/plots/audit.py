"""Figures about labels in doubt: who speaks for each label, and who against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from vlm_tune.plots.style import INK, MUTED, RULE, colours, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["weights_of_evidence"]


def weights_of_evidence(
    rows: Sequence[tuple[str, Mapping[str, float]]],
    *,
    title: str = "What speaks for and against each label",
    known: Mapping[str, str] | None = None,
) -> Figure:
    """Draw a bar for each label in doubt: evidence against it to the right, for it to the left, the first on top.

    Args:
        rows: A name for each label, and the weight of each source's evidence in nats, positive against the label.
        title: Heading of the figure.
        known: Colours that sources have elsewhere; the others get what is left.

    Examples:
        >>> figure = weights_of_evidence([("7.jpg: dent, or crack?", {"tuned": 3.1, "the label": -2.9})])
    """
    figure, axes = new_figure(9.0, 1.3 + 0.34 * max(1, len(rows)), title)
    sources = list(dict.fromkeys(source for _, weights in rows for source in weights))
    colour_of = colours(sources, known=known)
    for place, (_, weights) in enumerate(rows):
        ends = {True: 0.0, False: 0.0}
        for source, weight in weights.items():
            side = weight > 0
            axes.barh(place, weight, left=ends[side], height=0.62, color=colour_of[source], edgecolor="white", lw=0.6)
            ends[side] += weight
        axes.plot([sum(weights.values())], [place], "D", color=INK, ms=4.5, zorder=3)
    axes.axvline(0, color=MUTED, lw=1)
    axes.grid(axis="x", color=RULE, lw=0.6)
    axes.set_yticks(range(len(rows)), [plain(name, 60) for name, _ in rows])
    axes.set_ylim(max(1, len(rows)) - 0.4, -0.6)
    axes.set_xlabel("for the label  ←  nats  →  against it (diamond: all together)", fontsize=9, color=MUTED)
    for source in sources:
        axes.barh(0, 0, color=colour_of[source], label=plain(source))
    if sources:
        figure.legend(loc="outside lower center", ncols=3, fontsize=8.5, frameon=False, labelcolor=INK)
    return figure

"""A figure about money: what any number of images costs with each system."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vlm_tune.plots.style import COLOURS, INK, MUTED, RULE, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["cost_lines"]


def cost_lines(
    lines: Sequence[tuple[str, float, float, float, float]],
    *,
    meets: float | None = None,
    title: str = "What images cost, with 95 % bands",
) -> Figure:
    """Draw dollars by number of images, both axes logarithmic.

    Args:
        lines: For each system its name, what it costs once, and what an image costs: best estimate, low, high.
        meets: Number of images at which two of them cost the same.
        title: Heading of the figure.

    Examples:
        >>> figure = cost_lines([("API", 0, 0.01, 0.009, 0.012), ("tuned", 1, 0.001, 0.001, 0.001)], meets=111)
    """
    import numpy as np

    figure, axes = new_figure(7.0, 3.4, title)
    images = np.logspace(0, 7, 200)
    for number, (name, once, usd, low, high) in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(images, once + usd * images, color=colour, lw=2, ls=("-", "--", ":")[number % 3], label=plain(name))
        axes.fill_between(images, once + low * images, once + high * images, color=colour, alpha=0.2, lw=0)
    if meets is not None and meets > 0:
        axes.axvline(meets, color=MUTED, lw=1, ls=":")
        axes.annotate(f"{meets:,.0f}", (meets, 0.02), xycoords=("data", "axes fraction"), fontsize=9, color=INK)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid(color=RULE, lw=0.6)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    axes.set_xlabel("images", color=MUTED, fontsize=9)
    axes.set_ylabel("US dollars", color=MUTED, fontsize=9)
    return figure

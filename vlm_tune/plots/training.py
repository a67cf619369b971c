"""Figures about training and merging: loss by step, modules adapted, and how faithful the merge is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vlm_tune.plots.style import ALERT, COLOURS, INK, MUTED, RULE, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["loss_curve", "modules_hit", "score_differences"]


def loss_curve(
    steps: Sequence[float],
    losses: Sequence[float],
    *,
    validation: tuple[Sequence[float], Sequence[float]] | None = None,
    title: str = "Loss",
) -> Figure:
    """Draw training loss by step: the logged values faint, their running mean on top.

    Args:
        steps: Optimiser steps.
        losses: Training loss at each (cross-entropy in nats per trained token).
        validation: Steps and losses on held-out examples.
        title: Heading of the figure.
    """
    import numpy as np

    figure, axes = new_figure(7.0, 3.0, f"{title} ({len(steps)} logged values)")
    values = np.asarray(losses, dtype=float)
    axes.plot(steps, values, color=COLOURS[0], lw=1, alpha=0.35)
    width = max(1, len(values) // 20)
    smooth = [float(values[max(0, at - width) : at + 1].mean()) for at in range(len(values))]
    axes.plot(steps, smooth, color=COLOURS[0], lw=2, label="training (running mean)")
    if validation is not None:
        axes.plot(validation[0], validation[1], "o-", color=ALERT, lw=1.6, ms=4, label="validation")
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("step", color=MUTED, fontsize=9)
    axes.set_ylabel("nats per token", color=MUTED, fontsize=9)
    return figure


def modules_hit(rows: Sequence[tuple[str, int, int]], *, title: str = "Modules adapted") -> Figure:
    """Draw how many modules of each part of a model an adapter touches.

    Args:
        rows: Name of the part, modules touched, modules there are.
        title: Heading of the figure.

    Example:
        >>> figure = modules_hit([("vision attention", 54, 54), ("language attention", 144, 144)])
    """
    hit, total = sum(row[1] for row in rows), sum(row[2] for row in rows)
    figure, axes = new_figure(7.0, 1.0 + 0.34 * max(1, len(rows)), f"{title}: {hit} of {total}")
    places = range(len(rows))
    axes.barh(places, [row[2] for row in rows], 0.62, color=RULE)
    axes.barh(places, [row[1] for row in rows], 0.62, color=COLOURS[0])
    for place, (_, touched, there) in enumerate(rows):
        axes.text(there, place, f"  {touched} of {there}", va="center", fontsize=9, color=INK)
    axes.set_yticks(places, [plain(row[0]) for row in rows])
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("modules", color=MUTED, fontsize=9)
    return figure


def score_differences(
    *, merged: Sequence[float], base: Sequence[float], title: str = "Distance from the adapter's scores"
) -> Figure:
    """Draw, a probe image at a time, how far the merged and the base model are from the adapter.

    Args:
        merged: Largest difference of a class's log-probability between adapter and merged, in nats.
        base: The same between adapter and base; the effect of training, for scale.
        title: Heading of the figure.

    Example:
        >>> figure = score_differences(merged=[0.001, 0.002], base=[1.5, 0.7])
    """
    figure, axes = new_figure(7.0, 3.0, f"{title} (n = {len(merged)} probe images)")
    order = sorted(range(len(base)), key=base.__getitem__)
    axes.plot([base[at] for at in order], "o", ms=5, color=ALERT, label="base: what training changed")
    axes.plot([merged[at] for at in order], "o", ms=5, color=COLOURS[0], label="merged: what merging changed")
    axes.set_yscale("symlog", linthresh=1e-3)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("probe images, least changed by training first", color=MUTED, fontsize=9)
    axes.set_ylabel("nats (log scale)", color=MUTED, fontsize=9)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    return figure

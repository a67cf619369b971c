"""Figures about training and merging: loss by step, tokens trained, modules adapted, how faithful the merge is."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vlm_tune.plots.style import ALERT, COLOURS, INK, MUTED, RULE, blank_figure, new_figure, plain, plain_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from vlm_tune.records import Estimate

__all__ = ["loss_curve", "modules_hit", "score_differences", "token_spans"]

_TOKENS = {"trained": ("#00694d", "#ffffff"), "image": ("#bfe3f5", INK), "masked": ("#f1f3f5", INK)}
"""Ground and ink of each kind of token."""

_COLUMNS, _LINE, _MONOSPACE = 100, 0.19, 8.6
"""Characters in a line, inches between lines, and the size at which that many characters fill the figure."""


def loss_curve(
    steps: Sequence[float],
    losses: Sequence[float],
    *,
    validation: tuple[Sequence[float], Sequence[float]] | None = None,
    accuracy: Sequence[tuple[float, Estimate]] = (),
    kept: float | None = None,
    title: str = "Loss",
) -> Figure:
    """Draw training loss by step: the logged values faint, their running mean on top; accuracy, if any, below it.

    Args:
        steps: Optimizer steps.
        losses: Training loss at each (cross-entropy in nats per trained token).
        validation: Steps and losses on held-out examples.
        accuracy: Steps and accuracies on held-out examples, drawn with their intervals.
        kept: The step whose state was kept, drawn as a dotted line.
        title: Heading of the figure.

    Examples:
        >>> from vlm_tune.statistics import wilson
        >>> figure = loss_curve([1, 2], [0.9, 0.4], accuracy=[(2, wilson(7, 8))], kept=2)
    """
    import numpy as np
    from matplotlib.ticker import MaxNLocator

    words = f"{title} ({len(steps)} logged values)"
    if accuracy:
        words = f"{title}, and accuracy on {accuracy[-1][1].n} validation examples with 95 % intervals"
    figure, axes, below = _panels(words, two=bool(accuracy))
    values = np.asarray(losses, dtype=float)
    axes.plot(steps, values, color=COLOURS[0], lw=1, alpha=0.35)
    width = max(1, len(values) // 20)
    smooth = [float(values[max(0, at - width) : at + 1].mean()) for at in range(len(values))]
    axes.plot(steps, smooth, color=COLOURS[0], lw=2, label="training (running mean)")
    if validation is not None:
        axes.plot(validation[0], validation[1], "o-", color=ALERT, lw=1.6, ms=4, label="validation")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("nats per token", color=MUTED, fontsize=9)
    if below is not None:
        _draw_accuracy(below, accuracy)
    if kept is not None:
        for panel in filter(None, (axes, below)):
            panel.axvline(
                kept, color=MUTED, lw=1.2, zorder=0, ls=":", label=f"kept: step {kept:g}" if panel is axes else None
            )
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    (below or axes).set_xlabel("step", color=MUTED, fontsize=9)
    return figure


def _panels(title: str, *, two: bool) -> tuple[Figure, Axes, Axes | None]:
    if not two:
        return *new_figure(7.0, 3.0, title), None
    figure = blank_figure(7.0, 4.6, title)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    plain_axes(above)
    plain_axes(below)
    return figure, above, below


def _draw_accuracy(axes: Axes, accuracy: Sequence[tuple[float, Estimate]]) -> None:
    from matplotlib.ticker import PercentFormatter

    steps, estimates = [step for step, _ in accuracy], [estimate for _, estimate in accuracy]
    for step, estimate in accuracy:
        axes.plot([step, step], [estimate.low, estimate.high], color=ALERT, lw=1.6, alpha=0.45)
    axes.plot(steps, [estimate.value for estimate in estimates], "o-", color=ALERT, lw=1.6, ms=4)
    axes.set_ylim(max(0.0, min(one.low for one in estimates) - 0.05), 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.grid(axis="y", color=RULE, lw=0.6)
    axes.set_ylabel("accuracy", color=MUTED, fontsize=9)


def modules_hit(rows: Sequence[tuple[str, int, int]], *, title: str = "Modules adapted") -> Figure:
    """Draw how many modules of each part of a model an adapter touches.

    Args:
        rows: Name of the part, modules touched, modules there are.
        title: Heading of the figure.

    Examples:
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

    Examples:
        >>> figure = score_differences(merged=[0.001, 0.002], base=[1.5, 0.7])
    """
    from matplotlib.ticker import StrMethodFormatter

    figure, axes = new_figure(7.0, 3.0, f"{title} (n = {len(merged)} probe images)")
    order = sorted(range(len(base)), key=base.__getitem__)
    axes.plot([base[at] for at in order], "o", ms=5, color=ALERT, label="base: what training changed")
    axes.plot([merged[at] for at in order], "o", ms=5, color=COLOURS[0], label="merged: what merging changed")
    axes.set_yscale("symlog", linthresh=1e-3)
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("probe images, least changed by training first", color=MUTED, fontsize=9)
    axes.set_ylabel("nats (log scale)", color=MUTED, fontsize=9)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    return figure


def token_spans(spans: Sequence[tuple[str, str]], *, caption: str = "", title: str = "What is trained") -> Figure:
    """Draw a text whose tokens are trained, stand for an image, or are only read.

    Args:
        spans: Kind (`trained`, `image` or `masked`) and text of each piece, in order.
        caption: Written above the text.
        title: Heading of the figure.

    Examples:
        >>> figure = token_spans([("image", "<image x 713>"), ("masked", "What is it?"), ("trained", "dent")])
    """
    from matplotlib.patches import Rectangle

    pieces, rows = _laid_out(spans)
    # One line for the caption, one left blank, one for the legend; above them the heading.
    lines, heading = rows + 3, 0.36
    height = heading + _LINE * lines
    figure = blank_figure(7.4, height, title)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0.01, 0.0, 0.98, 1 - heading / height))
    axes.set_xlim(0, _COLUMNS)
    axes.set_ylim(lines, 0)
    axes.axis("off")
    axes.text(0, 0.45, plain(caption, 90), color=MUTED, va="center", fontsize=9)
    for row, column, kind, text in [*pieces, *_legend(rows + 1)]:
        ground, ink = _TOKENS[kind]
        axes.add_patch(Rectangle((column, row + 1.04), len(text), 0.92, facecolor=ground, edgecolor="none"))
        words = text.replace("$", r"\$")
        axes.text(column, row + 1.5, words, color=ink, va="center", family="monospace", fontsize=_MONOSPACE)
    return figure


def _laid_out(spans: Sequence[tuple[str, str]]) -> tuple[list[tuple[int, int, str, str]], int]:
    """Return rows, columns, kinds and texts of pieces that fit into lines, and the number of lines."""
    pieces, row, column = [], 0, 0
    for kind, text in spans:
        for place, line in enumerate(text.replace("\t", " ").split("\n")):
            if place:
                row, column = row + 1, 0
            while line:
                if column == _COLUMNS:
                    row, column = row + 1, 0
                part, line = line[: _COLUMNS - column], line[_COLUMNS - column :]
                pieces.append((row, column, kind, part))
                column += len(part)
    return pieces, row + 1


def _legend(row: int) -> list[tuple[int, int, str, str]]:
    words = {"trained": " trained ", "image": " image, not trained ", "masked": " read, not trained "}
    starts = itertools.accumulate((len(text) + 2 for text in words.values()), initial=0)
    return [(row, start, kind, text) for start, (kind, text) in zip(starts, words.items(), strict=False)]

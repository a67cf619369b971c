"""Figures about predictors: how good each is, where it errs, and two of them on the same examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vlm_tune.plots.style import COLOURS, INK, MUTED, RULE, colours, legend_below, new_figure, percent_axis, plain
from vlm_tune.records import Estimate
from vlm_tune.statistics import ClassScores, tango

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

__all__ = ["accuracy_forest", "class_scores", "confusion", "paired_bar"]

_SHADES = ("#ffffff", "#0072b2")
_MOST_CLASSES_WITH_COUNTS = 24


def accuracy_forest(
    rows: Sequence[tuple[str, Estimate]], *, chance: float | None = None, title: str = "Accuracy"
) -> Figure:
    """Draw one line per system: its accuracy and interval, the first row on top.

    Args:
        rows: Name and estimate of each system.
        chance: Accuracy of guessing, drawn as a dotted line.
        title: Heading of the figure.

    Examples:
        >>> from vlm_tune.statistics import wilson
        >>> figure = accuracy_forest([("base", wilson(53, 98)), ("tuned", wilson(87, 98))], chance=1 / 3)
    """
    figure, axes = new_figure(7.0, 1.1 + 0.5 * max(1, len(rows)), title)
    colour_of = colours(name for name, _ in rows)
    for place, (name, estimate) in enumerate(rows):
        axes.plot(
            [estimate.low, estimate.high],
            [place, place],
            color=colour_of[name],
            lw=2.2,
            solid_capstyle="round",
        )
        axes.plot([estimate.value], [place], "o", color=colour_of[name], ms=7)
        note = f"{estimate.percent()}  n = {estimate.n}"
        axes.text(1.03, place, note, va="center", fontsize=9, color=INK, transform=axes.get_yaxis_transform())
    if chance is not None:
        axes.axvline(chance, color=MUTED, lw=1, ls=":")
        axes.text(chance, -0.62, "chance", ha="center", fontsize=8, color=MUTED)
    axes.set_yticks(range(len(rows)), [plain(name) for name, _ in rows])
    axes.set_ylim(max(1, len(rows)) - 0.4, -0.75)
    axes.set_xlim(0, 1)
    percent_axis(axes)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure


def confusion(
    matrix: ArrayLike, classes: Sequence[str], *, title: str = "Confusion", accuracy: Estimate | None = None
) -> Figure:
    """Draw truth against answer: counts in the cells, shade by share of the row.

    Args:
        matrix: Counts, C x (C + 1); row = truth, column = answer, the last column = no answer.
        classes: The C class names.
        title: Heading of the figure.
        accuracy: Printed under the heading.

    Raises:
        ValueError: The matrix does not have C rows and C + 1 columns.
    """
    import numpy as np
    from matplotlib.colors import LinearSegmentedColormap

    counts = np.asarray(matrix)
    if counts.shape != (len(classes), len(classes) + 1):
        raise ValueError(f"{len(classes)} classes need {len(classes)} x {len(classes) + 1} counts, got {counts.shape}")
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    subtitle = f"{accuracy.percent()}, n = {accuracy.n}" if accuracy else f"n = {counts.sum()}"
    side = min(12.0, max(3.4, 1.2 + 0.72 * len(classes)))
    figure, axes = new_figure(side + 1.2, side + 0.5, f"{title}: {subtitle}")
    axes.imshow(share, cmap=LinearSegmentedColormap.from_list("share", _SHADES), vmin=0, vmax=1, aspect="equal")
    if len(classes) <= _MOST_CLASSES_WITH_COUNTS:
        for (row, column), count in np.ndenumerate(counts):
            ink = "#ffffff" if share[row, column] > 0.55 else INK if count else RULE
            axes.text(column, row, str(count), ha="center", va="center", fontsize=10, color=ink)
    names = [plain(name, 18) for name in classes]
    crowded = len(classes) > 4 or max(map(len, names)) > 9
    tilt = 45 if crowded else 0
    axes.set_xticks(range(len(classes) + 1), [*names, "no answer"], rotation=tilt, ha="right" if crowded else "center")
    axes.set_yticks(range(len(classes)), names)
    axes.set_xlabel("answer", color=MUTED, fontsize=9)
    axes.set_ylabel("truth", color=MUTED, fontsize=9)
    axes.tick_params(length=0, labelsize=9 if len(classes) <= _MOST_CLASSES_WITH_COUNTS else 5)
    return figure


def class_scores(rows: Sequence[tuple[str, ClassScores]], *, title: str = "F1 of each class") -> Figure:
    """Draw one line per class: its F1 and interval, and beside it precision and recall; the first row on top.

    Args:
        rows: Name and scores of each class; classes that never occur and are never answered have no line.
        title: Heading of the figure.

    Examples:
        >>> from vlm_tune.statistics import f1_scores
        >>> scores = f1_scores([[1, 1], [1, 0]], [[1, 0], [1, 0]])
        >>> figure = class_scores(list(zip(["crack", "dent"], scores.per_class)))
    """
    figure, axes = new_figure(7.0, 1.5 + 0.4 * max(1, len(rows)), title)
    marks = (("precision", "<", MUTED), ("recall", ">", MUTED), ("f1", "o", COLOURS[0]))
    for place, (_, scores) in enumerate(rows):
        if not scores.f1.n:
            continue
        axes.plot([scores.f1.low, scores.f1.high], [place, place], color=COLOURS[0], lw=2.2, solid_capstyle="round")
        for name, shape, colour in marks:
            estimate: Estimate = getattr(scores, name)
            axes.plot([estimate.value] * (estimate.n > 0), [place] * (estimate.n > 0), shape, color=colour, ms=6)
        note = f"{scores.f1.percent()}  n = {scores.recall.n}"
        axes.text(1.03, place, note, va="center", fontsize=9, color=INK, transform=axes.get_yaxis_transform())
    axes.set_yticks(range(len(rows)), [plain(name, 24) for name, _ in rows])
    axes.set_ylim(max(1, len(rows)) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    percent_axis(axes)
    for name, shape, colour in reversed(marks):
        axes.plot([], [], shape, color=colour, ms=6, label="F1" if name == "f1" else name)
    legend_below(figure, axes, columns=3)
    return figure


def paired_bar(
    *,
    wins: int,
    losses: int,
    both_right: int,
    both_wrong: int,
    candidate: str = "candidate",
    reference: str = "reference",
) -> Figure:
    """Draw two systems on the same examples as one bar, with the difference and its Tango interval above.

    Args:
        wins: Examples that only the candidate got right.
        losses: Examples that only the reference got right.
        both_right: Examples that both got right.
        both_wrong: Examples that both got wrong.
        candidate: Name of the candidate.
        reference: Name of the reference.

    Examples:
        >>> figure = paired_bar(wins=10, losses=4, both_right=77, both_wrong=7)
    """
    n = wins + losses + both_right + both_wrong
    colour_of = colours([candidate, reference])
    title = f"{candidate} against {reference}: {tango(wins, losses, n).points()}, n = {n}"
    figure, axes = new_figure(7.0, 1.9, title)
    parts = (
        ("both right", both_right, "#c9d1d8"),
        (f"only {plain(candidate, 24)}", wins, colour_of[candidate]),
        (f"only {plain(reference, 24)}", losses, colour_of[reference]),
        ("both wrong", both_wrong, "#8b949e"),
    )
    start = 0
    for label, count, colour in parts:
        axes.barh([0], [count], left=start, color=colour, edgecolor="white", label=f"{label}: {count}")
        start += count
    axes.set_xlim(0, max(n, 1))
    axes.set_axis_off()
    legend_below(figure, axes, columns=2)
    return figure

"""How comparisons look in a terminal and in a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlm_tune.evaluation.comparing.ratios import known_cost_ratio
from vlm_tune.evaluation.comparing.wording import WORDS, p_words

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

    from vlm_tune.evaluation.comparing.matrix import ComparisonMatrix
    from vlm_tune.evaluation.comparison import Comparison
    from vlm_tune.records import Estimate

__all__ = ["comparison_display", "matrix_display"]

_MOST_CLASSES = 12


def comparison_display(comparison: Comparison) -> Group:
    """Return the two by two counts, the classes, and below them the verdict and what else was measured."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    candidate, reference = comparison.candidate.name, comparison.reference.name
    table = Table(title=f"{candidate} against {reference}", title_justify="left")
    table.add_column("")
    table.add_column(f"{reference} right", justify="right")
    table.add_column(f"{reference} wrong", justify="right")
    table.add_row(f"{candidate} right", str(comparison.both_right), f"{comparison.wins} wins")
    table.add_row(f"{candidate} wrong", f"{comparison.losses} losses", str(comparison.both_wrong))
    return Group(table, *_classes(comparison), Text("\n".join(_lines(comparison))))


def _classes(comparison: Comparison) -> list[Table]:
    """Return the classes that differ most, if any."""
    from rich.table import Table

    deltas = sorted(comparison.class_deltas, key=lambda delta: (delta.adjusted_p, -abs(delta.counts.difference.value)))
    deltas = [delta for delta in deltas if delta.counts.wins or delta.counts.losses]
    if not deltas:
        return []
    left_out = f", the first {_MOST_CLASSES} of {len(deltas)}" if len(deltas) > _MOST_CLASSES else ""
    table = Table("class", title=f"Difference on each class{left_out}", title_justify="left")
    for name in ("wins", "losses", "difference, points", "after Holm", "n"):
        table.add_column(name, justify="right")
    for delta in deltas[:_MOST_CLASSES]:
        counts = delta.counts
        numbers = (str(counts.wins), str(counts.losses), counts.difference.points().replace(" points", ""))
        table.add_row(delta.label, *numbers, p_words(delta.adjusted_p), str(counts.n))
    return [table]


def _lines(comparison: Comparison) -> list[str]:
    lines = [
        f"{comparison.candidate.name}: {comparison.candidate_accuracy.percent()}; "
        f"{comparison.reference.name}: {comparison.reference_accuracy.percent()} (n={comparison.n})",
        comparison.sentence,
    ]
    if comparison.noise is not None:
        lines.append(comparison.noise.sentence)
    if (brier := comparison.brier_difference) is not None:
        ends = f"[{brier.low:+.3f}, {brier.high:+.3f}] (n={brier.n})"
        lines.append(f"Brier score, candidate less reference: {brier.value:+.3f} {ends}; below 0 is better.")
    if (speed := comparison.speed_ratio) is not None:
        lines.append(f"One answer: {_times(speed, 'as fast')}.")
    if (cost := known_cost_ratio(comparison)) is not None:
        lines.append(f"One image: {_times(cost, 'as dear')}.")
    if comparison.clustered:
        independent = comparison.n / comparison.counts.design_effect
        lines.append(f"Some examples belong together; they say as much as {independent:.0f} independent ones.")
    if comparison.n_missing:
        lines.append(f"{comparison.n_missing} examples are left out: a side failed on them.")
    if not comparison.same_task:
        lines.append("The two were not asked in the same words.")
    return lines


def _times(ratio: Estimate, what: str) -> str:
    return f"{ratio.value:.3g} [{ratio.low:.3g}, {ratio.high:.3g}] times {what} (n={ratio.n})"


def matrix_display(matrix: ComparisonMatrix) -> Group:
    """Return the differences of all pairs, rows less columns, with the sentence below."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    names = matrix.names
    # A column is headed by the number of its system: names of many would leave no room for what they head.
    table = Table("", "", title=f"Row less column, points; n = {matrix.n}", title_justify="left")
    for head in ("accuracy", *map(str, range(2, len(names) + 1))):
        table.add_column(head, justify="right")
    for row, name in enumerate(names):
        cells = [""] * row
        for other in names[row + 1 :]:
            cell = matrix.cell(name, other)
            cells.append(f"{100 * cell.difference.value:+.1f}, {p_words(cell.adjusted_p)}\n{WORDS[cell.verdict]}")
        table.add_row(str(row + 1), name, matrix.accuracies[name].percent(), *cells[: len(names) - 1])
    return Group(table, Text(matrix.sentence))

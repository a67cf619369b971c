"""What stands beside a head-to-head: probabilities, speed, cost, run-to-run noise, and the classes one by one."""

from __future__ import annotations

from collections.abc import Iterator

from vlm_tune.evaluation import Comparison
from vlm_tune.evaluation.comparing.ratios import known_cost_ratio
from vlm_tune.evaluation.comparing.wording import WORDS
from vlm_tune.records import Estimate
from vlm_tune.report.blocks import Cell, Table
from vlm_tune.report.words import count, p_value

__all__ = ["by_class", "measured_beside"]

_MOST_CLASSES = 25


def measured_beside(comparison: Comparison) -> Iterator[tuple[str, str]]:
    """Yield what else was measured of two systems, as far as it was, each with its interval."""
    if comparison.clustered:
        independent = comparison.n / comparison.counts.design_effect
        yield "Photos that belong together", f"they say as much as {count(round(independent))} independent ones"
    if (brier := comparison.brier_difference) is not None:
        yield (
            "Brier score, below 0 is better",
            f"{brier.value:+.3f} [{brier.low:+.3f}, {brier.high:+.3f}] (n = {count(brier.n)})",
        )
    if (speed := comparison.speed_ratio) is not None:
        yield "One answer", f"{_times(speed)} times as fast (n = {count(speed.n)})"
    if (cost := known_cost_ratio(comparison)) is not None:
        yield "One photo", f"{_times(cost)} times as dear (n = {count(cost.n)})"
    if (noise := comparison.noise) is not None:
        yield f"Two runs of {noise.name}", f"another answer on {noise.flipped.percent()}"
        yield "Accuracy, second run less first", noise.difference.points()
    if comparison.n_missing:
        yield "Left out: one side failed", count(comparison.n_missing)
    if not comparison.same_task:
        yield "Caution", "the two were not asked in the same words"


def by_class(comparison: Comparison) -> list[Table]:
    """Return the difference on each class on which the two differ, the surest first; nothing where they never do."""
    differ = [one for one in comparison.class_deltas if one.counts.wins or one.counts.losses]
    differ.sort(key=lambda one: (one.adjusted_p, -abs(one.counts.difference.value)))
    rows: list[list[str | Cell]] = []
    for one in differ[:_MOST_CLASSES]:
        counts, faint = one.counts, one.verdict == "not_established"
        cells = [
            count(counts.n),
            count(counts.wins),
            count(counts.losses),
            counts.difference.points().replace(" points", ""),
            p_value(one.adjusted_p),
            WORDS[one.verdict],
        ]
        rows.append([one.label, *(Cell(text, faint=faint) for text in cells)])
    columns = ["Class", "Photos", "Wins", "Losses", "Difference, points", "p after Holm", "Verdict"]
    of = f"the first {_MOST_CLASSES} of {count(len(differ))}" if len(differ) > _MOST_CLASSES else "where they differ"
    note = f"Holm's correction for {count(len(comparison.class_deltas))} classes. Grey: not established."
    table = Table(f"Class by class, {of}", columns, rows, note=note, numeric=True, sortable=len(rows) > 2)
    return [table] if rows else []


def _times(ratio: Estimate) -> str:
    return f"{ratio.value:.3g} [{ratio.low:.3g}, {ratio.high:.3g}]"

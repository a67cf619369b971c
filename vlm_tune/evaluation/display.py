"""Evaluations and comparisons shown in a terminal or a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Group

    from vlm_tune.evaluation.evaluation import Evaluation
    from vlm_tune.records import Estimate

__all__ = ["evaluation_display"]


def evaluation_display(evaluation: Evaluation) -> Group:
    """Return the accuracy, how well each class is found, and below it what else a reader must know."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    title = f"{evaluation.name}: {evaluation.measure} {evaluation.headline}"
    table = Table(title=title, title_justify="left")
    table.add_column("class")
    if evaluation.multi_label:
        for name in ("precision, %", "recall, %", "F1, %"):
            table.add_column(name, justify="right")
    else:
        table.add_column("recall", justify="right")
        table.add_column("95 % interval", justify="right")
    table.add_column("examples", justify="right")
    for label, scores in evaluation.class_scores().items():
        n = scores.recall.n
        if evaluation.multi_label:
            cells = [_short(one) for one in (scores.precision, scores.recall, scores.f1)]
        else:
            cells = [f"{scores.recall.value:.1%}", f"[{scores.recall.low:.1%}, {scores.recall.high:.1%}]"]
        table.add_row(label, *(cells if n else "-" * len(cells)), str(n), style="dim" if n < 10 else "")
    lines = [f"micro F1 {evaluation.micro_f1}; macro F1 {evaluation.macro_f1}"] if evaluation.multi_label else []
    return Group(table, *map(Text, lines), Text("; ".join(_remarks(evaluation)), style="dim"))


def _short(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.0f} [{100 * estimate.low:.0f}, {100 * estimate.high:.0f}]" if estimate.n else "-"


def _remarks(evaluation: Evaluation) -> list[str]:
    outcomes = evaluation.outcomes
    remarks = [f"{count} {outcome}" for outcome, count in outcomes.items() if count]
    if evaluation.wall_s is not None:
        remarks.append(f"{evaluation.wall_s:.1f} s")
    if evaluation.cost_usd is not None:
        remarks.append(f"${evaluation.cost_usd:.4f}")
    if evaluation.possibly_billed:
        remarks.append(f"possibly billed: {evaluation.possibly_billed} calls that broke off")
    versions = evaluation.model_versions
    if len(versions) > 1:
        remarks.append(f"the model changed on the way: {', '.join(versions)}")
    return remarks

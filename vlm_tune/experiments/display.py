"""A learning curve shown in a terminal or a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlm_tune.errors import ForecastError

if TYPE_CHECKING:
    from rich.console import Group

    from vlm_tune.experiments.curve import LearningCurve
    from vlm_tune.experiments.points import CurvePoint

__all__ = ["curve_display"]


def curve_display(curve: LearningCurve) -> Group:
    """Return a row for each size, and the forecasts below or the reason that there are none."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"Learning curve, {curve.n_test} test images, 95 % intervals", title_justify="left")
    for column in ("images", "seeds", "test accuracy", "over the seeds", "training", "cost"):
        table.add_column(column, justify="right")
    for size in curve.sizes:
        points = [point for point in curve.points if point.size == size]
        table.add_row(f"{size:,}", str(len(points)), curve.accuracy_at(size).percent(), *_cells(points))
    return Group(table, *map(Text, _lines(curve)))


def _cells(points: list[CurvePoint]) -> list[str]:
    accuracies = [100 * point.accuracy.value for point in points]
    trained = [point.train_accuracy.value for point in points if point.train_accuracy]
    dollars = [point.cost.usd for point in points if point.cost]
    return [
        f"{min(accuracies):.1f} to {max(accuracies):.1f}" if len(points) > 1 else "-",
        f"{100 * sum(trained) / len(trained):.1f} %" if trained else "-",
        f"${sum(dollars):.2f}" if dollars else "-",
    ]


def _lines(curve: LearningCurve) -> list[str]:
    largest = curve.sizes[-1]
    try:
        found = [curve.forecast(times * largest) for times in (2, 4)]
        value = curve.marginal_value(largest)
    except ForecastError as error:
        return [f"No forecast: {error}."]
    return [*(one.sentence for one in found), value.sentence, *found[0].remarks]

"""A learning curve shown in a terminal or a notebook, as a table of pandas, and as a figure."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from vlm_tune.cost.amounts import dollars
from vlm_tune.errors import ForecastError
from vlm_tune.records import Estimate

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from rich.console import Group
    from rich.table import Table

    from vlm_tune.experiments.curve import LearningCurve
    from vlm_tune.experiments.points import CurvePoint

__all__ = ["curve_display", "curve_figure", "curve_frame", "growth_of", "sentences"]

_SHORTEST = 1 / 4
"""A step between two sizes that is shorter, in doublings, says nothing about a doubling."""


def curve_display(curve: LearningCurve) -> Group:
    """Return a row for each size, what lies behind it, and the forecasts below or the reason that there are none."""
    from rich.console import Group
    from rich.text import Text

    return Group(_table(curve), _behind(curve), *map(Text, sentences(curve)))


def curve_frame(curve: LearningCurve) -> pd.DataFrame:
    """Return a row for each point."""
    import pandas as pd

    rows = []
    for point in sorted(curve.points, key=lambda point: (point.size, point.seed)):
        accuracy, train = point.accuracy, point.train_accuracy
        rows.append(
            {
                "size": point.size,
                "seed": point.seed,
                "right": point.right,
                "n_test": point.n_test,
                "accuracy": accuracy.value,
                "low": accuracy.low,
                "high": accuracy.high,
                "train_accuracy": None if train is None else train.value,
                "n_train": None if train is None else train.n,
                "gap": point.gap,
                "cost_usd": None if point.cost is None else point.cost.usd,
                "seconds": point.seconds,
            }
        )
    return pd.DataFrame(rows)


def curve_figure(curve: LearningCurve, *, against: Mapping[str, Estimate], until: int | None) -> Figure:
    """Return the figure of a curve; see `LearningCurve.plot`."""
    from vlm_tune.plots.curves import TITLE, learning_curve

    fitted = curve if until is None else curve.until(until)
    return learning_curve(
        [(point.size, point.accuracy) for point in curve.points],
        trained=[(point.size, point.train_accuracy.value) for point in curve.points if point.train_accuracy],
        band=fitted.band(),
        fitted_until=fitted.sizes[-1],
        chance=curve.chance,
        against=against,
        title=f"{curve.name} by number of training images" if curve.name else TITLE,
    )


def growth_of(curve: LearningCurve, size: int) -> Estimate | None:
    """Return the growth per doubling up to a size from the one before; None where it cannot be told."""
    before = {high: low for low, high in pairwise(curve.sizes)}.get(size)
    if before is None or np.log2(size / before) < _SHORTEST:
        return None
    try:
        return curve.growth(before, size)
    except ForecastError:
        # One seed only; the sentences say so.
        return None


def sentences(curve: LearningCurve) -> list[str]:
    """Return in words what is missing, how fast the accuracy grew, and what more images would bring or why not."""
    lines = [f"Missing: {point.sentence}." for point in curve.failed]
    largest = curve.sizes[-1]
    try:
        if largest >= 2 * curve.sizes[0]:
            growth = curve.growth()
            lines.append(f"From {curve.sizes[0]:,} to {largest:,} images, a doubling brought {growth.points()}.")
        found = [curve.forecast(times * largest) for times in (2, 4)]
        value = curve.marginal_value(largest)
    except ForecastError as error:
        return [*lines, f"No forecast: {error}."]
    return [*lines, *(one.sentence for one in found), value.sentence, *found[0].remarks]


def _table(curve: LearningCurve) -> Table:
    from rich.table import Table
    from rich.text import Text

    name = f" of {curve.name}" if curve.name else ""
    title = Text(f"Learning curve{name}, {curve.n_test:,} test images, 95 % intervals")
    table = Table(title=title, title_justify="left")
    for column in ("images", "seeds", "test accuracy", "over the seeds", "time\neach", "cost\neach"):
        table.add_column(column, justify="right")
    for size in curve.sizes:
        points = [point for point in curve.points if point.size == size]
        table.add_row(f"{size:,}", str(len(points)), curve.accuracy_at(size).percent(), *_cells(points))
    return table


def _behind(curve: LearningCurve) -> Table:
    from rich.table import Table

    table = Table(title="Generalisation gap, and points gained per doubling", title_justify="left")
    for column in ("images", "training accuracy", "gap", "per doubling"):
        table.add_column(column, justify="right")
    for size in curve.sizes:
        trained = [point.train_accuracy for point in curve.points if point.size == size and point.train_accuracy]
        mean = sum(one.value for one in trained) / len(trained) if trained else 0.0
        known = f"{100 * mean:.1f} % (n={trained[0].n:,})" if trained else "-"
        table.add_row(f"{size:,}", known, _points(curve.gap_at(size)), _points(growth_of(curve, size)))
    return table


def _cells(points: list[CurvePoint]) -> list[str]:
    accuracies = [100 * point.accuracy.value for point in points]
    seconds = [point.seconds for point in points if point.seconds is not None]
    paid = [point.cost.usd for point in points if point.cost]
    return [
        f"{min(accuracies):.1f} to {max(accuracies):.1f}" if len(points) > 1 else "-",
        f"{sum(seconds) / len(seconds):.3g} s" if seconds else "-",
        dollars(sum(paid) / len(paid)) if paid else "-",
    ]


def _points(estimate: Estimate | None) -> str:
    return "-" if estimate is None else estimate.points().replace(" points", "")

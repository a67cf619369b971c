"""A cost model as tables and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from vlm_tune.evaluation.cost_model import VOLUMES, CostModel

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Group

__all__ = ["break_even_table", "drawn", "month_table", "shown", "sources"]


def month_table(costs: CostModel, volumes: Sequence[int] = VOLUMES) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows of a month's bill: a row for each number of images, the expected one among them."""
    api, tuned = costs.names
    headings = ["images a month", api]
    if costs.batch is not None:
        headings.append("in batch mode")
    if costs.tuned is not None:
        headings += [f"{tuned}, GPUs by the hour", "whole GPUs all month"]
    rows = []
    for images in sorted({*volumes, costs.images_per_month}):
        month = costs.per_month(images)
        row = [str(cost) for cost in (month.api, month.batch, month.by_the_hour) if cost is not None]
        if month.all_month is not None:
            row.append(f"{month.all_month} ({month.gpus} GPU{'' if month.gpus == 1 else 's'})")
        rows.append([f"{images:,}", *row])
    return headings, rows


def break_even_table(costs: CostModel) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows of the break-evens with their bands: a row for each way to ask the API."""
    headings = ["cheaper than", "GPUs by the hour, a month", "whole GPUs all month, a month"]
    if costs.training is not None:
        headings.append("spent once is paid for, in all")
    rows = []
    for batch in (False, True) if costs.batch is not None else (False,):
        found = [costs.break_even_per_month(batch=batch), costs.break_even_per_month(batch=batch, whole=True)]
        if costs.training is not None:
            found.append(costs.break_even(batch=batch))
        rows.append([f"{costs.names[0]}{' in batch mode' if batch else ''}", *map(str, found)])
    return headings, rows


def sources(costs: CostModel) -> list[str]:
    """Return where each figure comes from: measurement, number of images, price with its date, and method."""
    api, tuned = costs.names
    each = ((api, costs.api), (f"{api} in batch mode", costs.batch), (tuned, costs.tuned))
    lines = [f"One image with {name} costs {cost}: {cost.basis}." for name, cost in each if cost is not None]
    once = (("Training", costs.training), ("Labelling", costs.labelling))
    return [*lines, *(f"{name}, once: {amount} ({amount.basis})." for name, amount in once if amount is not None)]


def shown(costs: CostModel) -> Group:
    """Return the sentence, the table of a month's bill, the break-evens and the sources, for a terminal."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    def drawn_up(title: str, headings: list[str], rows: list[list[str]]) -> Table:
        table = Table(title=title, title_justify="left")
        for heading in headings:
            table.add_column(Text(heading), justify="right", overflow="fold")
        for row in rows:
            # The interval gets a line of its own, or a narrow terminal would break it anywhere.
            table.add_row(*(Text(cell.replace(" [", "\n[").replace(" (", "\n(")) for cell in row))
        return table

    tables = [drawn_up("What a month costs, 95 % intervals", *month_table(costs))]
    if costs.tuned is not None:
        tables.append(drawn_up("Break-even with its band", *break_even_table(costs)))
    warned = [Text(f"Warning: {warning}", style="yellow") for warning in costs.warnings]
    return Group(Text(costs.sentence, style="bold"), *tables, *map(Text, sources(costs)), *warned)


def drawn(costs: CostModel, colours: Mapping[str, str] | None = None) -> Figure:
    """Return the figure of a month's bill.

    Args:
        costs: The model.
        colours: Colour of each system by name, where they have one already.
    """
    from vlm_tune import plots
    from vlm_tune.plots.costs import CostLine, monthly_costs

    api, tuned = costs.names
    colour_of = {**plots.colours((api, tuned)), **(colours or {})}
    images = np.geomspace(min(100, costs.images_per_month), max(3e7, 3 * costs.images_per_month), 200)
    months = [costs.per_month(number) for number in images]
    ways = (
        ("api", api, api, "-"),
        ("batch", f"{api} in batch mode", api, "--"),
        ("by_the_hour", f"{tuned}, GPUs by the hour", tuned, "-"),
        ("all_month", f"{tuned}, whole GPUs all month", tuned, ":"),
    )
    lines = []
    for field, label, system, style in ways:
        each = [getattr(month, field) for month in months]
        if each[0] is not None:
            usd, low, high = ([getattr(cost, end) for cost in each] for end in ("usd", "low", "high"))
            lines.append(CostLine(label, colour_of[system], style, usd, low, high))
    meets = []
    if costs.tuned is not None:
        meets.append(("cheaper than online from", costs.break_even_per_month()))
    if costs.tuned is not None and costs.batch is not None:
        meets.append(("cheaper than batch mode from", costs.break_even_per_month(batch=True)))
    marks = [(words, one.images, one.low, one.high) for words, one in meets]
    return monthly_costs(images, lines, meets=marks, at=costs.images_per_month, title=_heading(costs))


def _heading(costs: CostModel) -> str:
    measured = [f"n = {cost.n:,} images" for cost in (costs.api, costs.tuned) if cost is not None and cost.n]
    seen = f": measured on {' and '.join(dict.fromkeys(measured))}, 95 % bands" if measured else ""
    return f"What a month costs{seen}"

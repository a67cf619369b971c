"""The section about money: a month's bill by number of images, and from how many on the tuned model pays."""

from __future__ import annotations

from vlm_tune.evaluation import CostModel
from vlm_tune.evaluation.cost_display import break_even_table, drawn, month_table, sources
from vlm_tune.report.blocks import Block, Cell, Chart, Note, Section, Table
from vlm_tune.report.charts import inline_svg
from vlm_tune.report.context import Context
from vlm_tune.report.sections import section

__all__: list[str] = []

_BAND = (
    "The band holds both costs at the far ends of their 95 % intervals, so that it covers at least 95 %. Whole GPUs "
    "are cheaper at every number from there on."
)


@section.register
def _(costs: CostModel, context: Context) -> Section:
    anchor = context.anchor("costs")
    label = "Dollars a month by images a month, with each way to have them answered"
    blocks: list[Block] = [
        Chart(inline_svg(drawn(costs, _colours(costs, context)), prefix=anchor, label=label)),
        _table("What a month costs", *month_table(costs), note="95 % intervals."),
    ]
    if costs.tuned is not None:
        blocks.append(_table("Break-even with its band, images", *break_even_table(costs), note=_BAND))
    blocks += [*map(Note, sources(costs)), *(Note(f"Caution: {warning}") for warning in costs.warnings)]
    return Section(
        anchor=anchor,
        title="What it costs at scale",
        blocks=blocks,
        rank=43,
        lead=costs.sentence,
        short="Costs",
        key=anchor.replace("-", "_"),
        data=_data(costs),
    )


def _table(caption: str, headings: list[str], rows: list[list[str]], *, note: str) -> Table:
    return Table(caption, headings, [[first, *map(Cell, others)] for first, *others in rows], note=note, numeric=True)


def _colours(costs: CostModel, context: Context) -> dict[str, str]:
    """Return the colours that the scoreboard gave to the two systems, as far as it has them."""
    colours = context.colours
    return {system.name: colours[system.number] for system in context.scoreboard if system.name in costs.names}


def _data(costs: CostModel) -> dict[str, object]:
    found: dict[str, object] = {"sentence": costs.sentence, **costs.model_dump(mode="json")}
    found["per_month"] = costs.frame().astype(object).where(lambda frame: frame.notna(), None).to_dict("records")
    if costs.tuned is not None:
        found["break_even_per_month"] = costs.break_even_per_month().model_dump(mode="json")
        found["break_even_per_month_whole"] = costs.break_even_per_month(whole=True).model_dump(mode="json")
    return found

"""Sections about several systems at once and about probabilities: the matrix, calibration, thresholds, cascades."""

from __future__ import annotations

from typing import Any

from vlm_tune.evaluation import Calibration, Cascade, ComparisonMatrix, RiskCoverage
from vlm_tune.evaluation.comparing.wording import WORDS
from vlm_tune.report.blocks import Block, Cell, Chart, Facts, Note, Section, System, Table
from vlm_tune.report.charts import inline_svg
from vlm_tune.report.context import Context
from vlm_tune.report.sections import section
from vlm_tune.report.words import count, p_value, percent

__all__: list[str] = []

_WANTED = (0.9, 0.95, 0.99)
_TENTHS = 10


@section.register
def _(matrix: ComparisonMatrix, context: Context) -> Section:
    anchor = context.anchor("matrix")
    systems = [context.system(one) for one in matrix.evaluations]
    rows: list[list[str | Cell]] = []
    for name in matrix.names:
        row: list[str | Cell] = [name, Cell(matrix.accuracies[name].percent())]
        for other in matrix.names:
            if name == other:
                row.append(Cell("·", faint=True))
                continue
            cell = matrix.cell(name, other)
            words = f"{WORDS[cell.verdict]}, {p_value(cell.adjusted_p)}"
            faint = cell.verdict == "not_established"
            row.append(Cell(f"{100 * cell.difference.value:+.1f}", faint=faint, below=words))
        rows.append(row)
    columns: list[str | System] = ["Row less column, points", "Accuracy", *systems]
    note = "Exact McNemar tests with Holm's correction, never surer than Cochran's Q. Grey: not established."
    label = "Differences in accuracy of all pairs of systems; the table below has the numbers"
    blocks: list[Block] = [
        Facts([("Cochran's Q", f"{matrix.q:.2f}, {p_value(matrix.p_value)}"), ("Photos", count(matrix.n))]),
        Chart(inline_svg(matrix.plot(), prefix=anchor, label=label)),
        Table("Every pair", columns, rows, note=note),
    ]
    title = f"All {count(len(systems))} systems, each with each"
    data = matrix.to_dict()
    key = _key("matrix", anchor)
    return Section(anchor, title, blocks, rank=30, lead=matrix.sentence, short="All pairs", key=key, data=data)


@section.register
def _(calibration: Calibration, context: Context) -> Section:
    anchor = context.anchor("calibration")
    system = context.system(calibration.evaluation)
    error, brier = calibration.error, calibration.brier
    facts = [
        ("Calibration error", f"{error.value:.3f}"),
        ("Of a perfectly calibrated model", f"{error.expected:.3f}, 95 % below {error.high:.3f}"),
        ("Brier score", f"{brier.value:.3f} [{brier.low:.3f}, {brier.high:.3f}]"),
        ("If its probabilities were true", f"{calibration.expected_brier:.3f}, {p_value(calibration.p_value)}"),
    ]
    if calibration.temperature is not None:
        facts.append(("Temperature, fitted on other photos", str(calibration.temperature)))
    if calibration.n_without:
        facts.append(("Left out: no probability", count(calibration.n_without)))
    rows: list[list[str | Cell]] = [
        [
            f"{percent(row['from'])} to {percent(row['to'])}",
            *(Cell(text) for text in (count(int(row["n"])), percent(row["confidence"], 1))),
            Cell(f"{percent(row['accuracy'], 1)} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"),
            Cell(f"{100 * row['band_low']:.1f} to {100 * row['band_high']:.1f}"),
        ]
        for row in calibration.frame().to_dict("records")
    ]
    columns = ["Confidence", "Answers", "Sure", "Right", "If calibrated, %"]
    label = f"Reliability diagram of {system.name}; the table below has the numbers"
    blocks: list[Block] = [
        Facts(facts),
        Chart(inline_svg(calibration.plot(), prefix=anchor, label=label, colour=context.colours[system.number])),
        Table("Right by confidence, with 95 % intervals", columns, rows, numeric=True),
    ]
    title = f"Is {system.name} right as often as it says?"
    data, key = calibration.to_dict(), _key("calibration", anchor)
    return Section(anchor, title, blocks, rank=42, lead=calibration.sentence, short="Calibration", key=key, data=data)


@section.register
def _(found: RiskCoverage, context: Context) -> Section:
    anchor = context.anchor("alone")
    system = context.system(found.evaluation)
    frame = found.frame()
    near = [int((frame["alone"] - tenth / _TENTHS).abs().argmin()) for tenth in range(1, _TENTHS + 1)]
    surest = frame.iloc[sorted(set(near))].to_dict("records")
    rows: list[list[str | Cell]] = [
        [
            percent(row["alone"]),
            Cell(f"{row['confidence']:.4g}"),
            Cell(f"{percent(row['accuracy'], 1)} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"),
        ]
        for row in surest
    ]
    thresholds = [found.threshold_for(accuracy=wanted) for wanted in _WANTED]
    label = f"Accuracy of the surest answers of {system.name}; the table below has the numbers"
    blocks: list[Block] = [
        Chart(inline_svg(found.plot(), prefix=anchor, label=label, colour=context.colours[system.number])),
        Table("The surest answers", ["Decided alone", "From confidence", "Right"], rows, numeric=True),
        *(Note(one.sentence) for one in thresholds),
    ]
    lead = "A threshold holds for new photos when it is chosen on photos that are not those of the scoreboard."
    data: dict[str, Any] = {
        "name": found.evaluation.name,
        "surest": surest,
        "thresholds": [one.model_dump(mode="json") for one in thresholds],
    }
    title = f"What {system.name} can decide alone"
    key = _key("risk_coverage", anchor)
    return Section(anchor, title, blocks, rank=43, lead=lead, short="Decided alone", key=key, data=data)


@section.register
def _(cascade: Cascade, context: Context) -> Section:
    anchor = context.anchor("cascade")
    first, second = (context.system(one) for one in (cascade.first, cascade.second))
    cost = cascade.cost
    each = ["–" if one is None else str(one.times(1000)) for one in (cascade.first_cost, cost, cascade.second_cost)]
    rows: list[list[str | Cell]] = [
        [f"{first.name} alone", Cell(cascade.first.headline), Cell("0 %"), Cell(each[0])],
        ["Both in a row", Cell(cascade.evaluation.headline), Cell(cascade.asked.percent()), Cell(each[1])],
        [f"{second.name} alone", Cell(cascade.second.headline), Cell("100 %"), Cell(each[2])],
    ]
    columns = ["", f"{cascade.first.measure.capitalize()}", f"Asked of {second.name}", "A thousand images"]
    label = f"Accuracy of {first.name} with {second.name} for the rest; the table has the numbers"
    blocks: list[Block] = [
        Table("Two systems in a row", columns, rows, numeric=True),
        Chart(inline_svg(cascade.plot(), prefix=anchor, label=label, colour=context.colours[first.number])),
        Note(cascade.threshold.sentence),
    ]
    title = f"{first.name} first, {second.name} for the rest"
    data, key = cascade.to_dict(), _key("cascade", anchor)
    return Section(anchor, title, blocks, rank=44, lead=cascade.sentence, short="Cascade", key=key, data=data)


def _key(name: str, anchor: str) -> str:
    """Return what report.json calls a section: the name, with the number that its anchor has."""
    _, _, number = anchor.partition("-")
    return f"{name}_{number}" if number else name

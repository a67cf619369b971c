"""The section about a learning curve: what more training images brought, and what more of them would bring."""

from __future__ import annotations

from vlm_tune.errors import ForecastError
from vlm_tune.experiments import LearningCurve
from vlm_tune.experiments.display import growth_of, sentences
from vlm_tune.experiments.points import images_tested
from vlm_tune.records import Estimate
from vlm_tune.report.blocks import Block, Cell, Chart, Note, Section, Table
from vlm_tune.report.charts import inline_svg
from vlm_tune.report.context import Context
from vlm_tune.report.sections import section
from vlm_tune.report.words import count, duration, money, percent

__all__: list[str] = []


@section.register
def _(curve: LearningCurve, context: Context) -> Section:
    anchor = context.anchor("curve")
    others = _others(curve, context)
    figure = curve.plot(against=others)
    blocks: list[Block] = [
        Chart(inline_svg(figure, prefix=anchor, label="Accuracy by number of training images, with its forecast")),
        _sizes(curve),
        *map(Note, [*sentences(curve), *_to_reach(curve, others)]),
    ]
    trainings = len(curve.points)
    return Section(
        anchor=anchor,
        title=f"How much data is enough: {curve.name}" if curve.name else "How much data is enough",
        blocks=blocks,
        rank=40,
        lead=f"{count(trainings)} trainings on growing parts of the training photos, each asked about the same "
        f"{count(curve.n_test)} test photos.",
        short="Learning curve",
        key=f"learning_{anchor}".replace("-", "_"),
        data=_data(curve),
    )


def _others(curve: LearningCurve, context: Context) -> dict[str, Estimate]:
    """Return the accuracy of the scoreboard's systems that were asked about the curve's test photos."""
    tested = curve.points[0].test_set
    return {
        system.name: evaluation.accuracy
        for system, evaluation in zip(context.scoreboard, context.evaluations, strict=True)
        if tested is not None and evaluation.coverage >= evaluation.min_coverage and images_tested(evaluation) == tested
    }


def _to_reach(curve: LearningCurve, others: dict[str, Estimate]) -> list[str]:
    """Return how many images it takes to be right as often as each other system; nothing where no forecast is made."""
    reachable = {name: one for name, one in others.items() if one.value > 0}
    try:
        found = {name: curve.images_needed(one.value) for name, one in reachable.items()}
    except ForecastError:
        return []
    return [f"As often right as {name}: {needed.sentence}" for name, needed in found.items()]


def _sizes(curve: LearningCurve) -> Table:
    rows: list[list[str | Cell]] = []
    for size in curve.sizes:
        points = [point for point in curve.points if point.size == size]
        trained = [point.train_accuracy.value for point in points if point.train_accuracy]
        seconds = [point.seconds for point in points if point.seconds is not None]
        dollars = [point.cost.usd for point in points if point.cost]
        cells = [
            count(len(points)),
            curve.accuracy_at(size).percent(),
            percent(_mean(trained), 1),
            _points(curve.gap_at(size)),
            _points(growth_of(curve, size)),
            duration(_mean(seconds)),
            money(_mean(dollars)),
        ]
        rows.append([count(size), *map(Cell, cells)])
    columns = ["Training photos", "Seeds", "Test accuracy", "Training accuracy", "Gap", "Per doubling", "Time", "Cost"]
    note = (
        "Means over the seeds; the gap is training less test accuracy, in points; per doubling: points gained from the "
        "size before; time and cost of one training."
    )
    return Table("Accuracy by number of training photos", columns, rows, note=note, numeric=True)


def _data(curve: LearningCurve) -> dict[str, object]:
    found: dict[str, object] = curve.model_dump(mode="json", exclude={"points": {"__all__": {"rightness"}}})
    try:
        found["forecasts"] = [curve.forecast(n * curve.sizes[-1]).model_dump(mode="json") for n in (2, 4)]
    except ForecastError as error:
        found["forecasts"], found["no_forecast"] = [], str(error)
    return found


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _points(estimate: Estimate | None) -> str:
    return "–" if estimate is None else estimate.points().replace(" points", "")

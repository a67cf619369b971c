"""The section about a sweep: every trial, what mattered, and whether the winner is better than the start."""

from __future__ import annotations

from vlm_tune.experiments import SweepResult
from vlm_tune.experiments.sweep_display import GIVEN_UP, SCALES, columns_of, ranked, row_of
from vlm_tune.experiments.trials import said
from vlm_tune.report.blocks import Block, Cell, Chart, Facts, Note, Section, Table
from vlm_tune.report.charts import inline_svg
from vlm_tune.report.context import Context, last_part
from vlm_tune.report.sections import section
from vlm_tune.report.words import count, duration, money

__all__: list[str] = []


@section.register
def _(result: SweepResult, context: Context) -> Section:
    anchor = context.anchor("sweep")
    blocks: list[Block] = [
        Note(result.sentence),
        Facts(_facts(result)),
        Chart(inline_svg(result.plot(), prefix=anchor, label="Trials by setting and accuracy; the table has the same")),
        _trials(result),
        *(Note(trial.sentence) for trial in result.trials if trial.state == "failed"),
    ]
    if result.importance:
        label = "Share of each setting in what made trials good"
        blocks.append(Chart(inline_svg(result.plot_importance(), prefix=f"{anchor}-shares", label=label)))
    if result.confirmation is not None:
        blocks.append(_seeds(result))
    trials = f"{count(len(result.trials))} trials of {last_part(result.model)}"
    return Section(
        anchor=anchor,
        title="Search for better settings",
        lead=f"{trials}, judged on {result.held_out}. The test photos were not looked at.",
        blocks=blocks,
        short="Sweep",
        rank=42,
        key="sweep",
        data=_data(result),
    )


def _facts(result: SweepResult) -> list[tuple[str, str]]:
    states = [trial.state for trial in result.trials]
    seconds = sum(trial.seconds or 0.0 for trial in result.trials)
    dollars = [trial.cost.usd for trial in result.trials if trial.cost]
    facts = [
        ("Trials finished", count(states.count("finished"))),
        ("Given up half-way", count(states.count("pruned"))),
        ("Failed", count(states.count("failed"))),
        ("Training time, all trials", duration(seconds)),
        ("Cost, all trials", money(sum(dollars)) if dollars else "–"),
    ]
    if result.finished:
        best = result.best
        facts += [
            ("Best", f"trial {best.number}: {said(best.values)}"),
            ("Its accuracy where it was chosen", str(best.accuracy.percent() if best.accuracy else "–")),
            ("To expect of it on other photos", f"{result.expected.percent()}{_or_less(result)}"),
        ]
    if result.confirmation is not None:
        again = result.confirmation
        facts += [
            ("Winner less start, other seeds", again.difference.points()),
            ("The same, its choice allowed for", again.allowing_for_choice.points()),
            ("Better than the start", {"better": "yes", "worse": "no, worse"}.get(again.verdict, "not established")),
        ]
    return facts


def _or_less(result: SweepResult) -> str:
    # Each trial's epoch was chosen by the same photos, which no resampling of the trials sees.
    return ", or less" if result.start.config.keep == "best" else ""


def _trials(result: SweepResult) -> Table:
    rows: list[list[str | Cell]] = []
    for trial in ranked(result.trials):
        first, *others = row_of(result, trial)
        rows.append([first, *(Cell(cell, faint=trial.state != "finished") for cell in others)])
    note = f"{SCALES} {GIVEN_UP} 95 % intervals over the photos held out."
    return Table("Trials, the best first", columns_of(result), rows, note=note, numeric=True)


def _seeds(result: SweepResult) -> Table:
    again = result.confirmation
    assert again is not None
    rows: list[list[str | Cell]] = [
        [f"seed {seed}", Cell(winner.accuracy.percent()), Cell(start.accuracy.percent())]
        for seed, winner, start in zip(again.seeds, again.winner, again.start, strict=True)
    ]
    rows.append(
        ["mean", Cell(f"{100 * again.winner_accuracy:.1f} %"), Cell(f"{100 * again.start_accuracy:.1f} %")],
    )
    return Table("Trained again with other seeds", ["", "Winner", "Starting configuration"], rows, numeric=True)


def _data(result: SweepResult) -> dict[str, object]:
    data: dict[str, object] = result.model_dump(
        mode="json", exclude={"run_dir": True, "adapter": True, "trials": {"__all__": {"score"}}, "confirmation": True}
    )
    data["sentence"] = result.sentence
    data["model"] = last_part(result.model)
    if result.finished:
        data["best"], data["expected"] = result.best.number, result.expected.model_dump(mode="json")
    if result.confirmation is not None:
        again = result.confirmation
        data["confirmation"] = {
            "seeds": again.seeds,
            "verdict": again.verdict,
            "difference": again.difference.model_dump(mode="json"),
            "allowing_for_choice": again.allowing_for_choice.model_dump(mode="json"),
            "winner": [one.accuracy.model_dump(mode="json") for one in again.winner],
            "start": [one.accuracy.model_dump(mode="json") for one in again.start],
            "sentence": again.sentence,
        }
    return data

"""Sections that every report has: the scoreboard and where systems err."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import compress
from typing import Literal, cast

from vlm_tune.evaluation import CostModel, Evaluation
from vlm_tune.records import Estimate
from vlm_tune.report.blocks import (
    Block,
    Cell,
    Confusion,
    Confusions,
    Figure,
    Note,
    Score,
    Scoreboard,
    Section,
    System,
    Table,
)
from vlm_tune.report.context import Context
from vlm_tune.report.words import count, duration, money, percent
from vlm_tune.training import Adapter

__all__ = ["confusions", "scoreboard", "trainings"]

_MOST_CLASSES_IN_A_MATRIX = 14
_MOST_CLASSES_IN_A_TABLE = 25
_MOST_CONFUSIONS = 25
_FEW = 10


def scoreboard(context: Context, results: Iterable[object] = ()) -> Section:
    """Return the accuracy of every system, what it took, and how well it finds every class.

    Args:
        context: What all sections share.
        results: What else is in the report; an `Adapter` says how long a system was trained, a `CostModel` what
            that cost.
    """
    trained = dict(trainings(context, results))
    scores = _without_empty([_score(context.systems[at], one) for at, one in enumerate(context.evaluations)])
    if trained:
        none = Figure("Training", "–")
        scores = [replace(one, columns=[*one.columns, trained.get(one.system.number, none)]) for one in scores]
    chance = max(one.chance for one in context.evaluations)
    blocks: list[Block] = [Scoreboard(scores, chance, context.evaluations[0].measure)]
    blocks += [Note(f"{one.name}: {line}.") for one in context.evaluations for line in _cautions(one)]
    if several := _several(context):
        blocks.append(_f1(context))
    blocks.append(_by_class(context, "f1" if several else "recall"))
    sizes = {one.num_examples for one in context.evaluations}
    photos = f"the same {count(sizes.pop())}" if len(sizes) == 1 else "their"
    lead = f"Every system was asked about {photos} photos. Answers that name no class count as wrong."
    if several:
        lead = f"{lead} Several classes may apply; an exact match names all that do and no other."
    return Section(context.anchor("scoreboard"), "Scoreboard", blocks, rank=10, lead=lead)


def _score(system: System, one: Evaluation) -> Score:
    answered = one.num_examples - one.outcomes["failed"]
    cost, speed = one.cost_usd, one.throughput
    each = 1000 * cost / answered if cost is not None and answered else None
    columns = [
        Figure("Coverage", f"{count(answered)} of {count(one.num_examples)}", one.coverage),
        Figure("Time", duration(one.wall_s), one.wall_s),
        Figure("Photos/s", "–" if speed is None else count(round(speed)) if speed >= 10 else f"{speed:.2g}", speed),
        Figure("Cost", money(cost), cost),
        Figure("Cost per 1,000", money(each), each),
    ]
    estimate = one.accuracy if one.coverage >= one.min_coverage else None
    return Score(system, estimate, one.accuracy_bounds, columns)


def _without_empty(scores: Sequence[Score]) -> list[Score]:
    """Leave out the columns in which no system has a figure."""
    told = [
        any(figure.value is not None for figure in column)
        for column in zip(*(one.columns for one in scores), strict=True)
    ]
    return [replace(one, columns=list(compress(one.columns, told))) for one in scores]


def trainings(context: Context, results: Iterable[object]) -> Iterator[tuple[int, Figure]]:
    """Yield the numbers of the systems that were trained, with the time that took and what it cost."""
    results = list(results)
    paid = [one.training.usd for one in results if isinstance(one, CostModel) and one.training is not None]
    for adapter in (one for one in results if isinstance(one, Adapter)):
        seconds = adapter.training.seconds
        words = duration(seconds) + (f", {money(paid[0])}" if len(paid) == 1 else "")
        for system, one in zip(context.scoreboard, context.evaluations, strict=True):
            if one.name == adapter.name:
                yield system.number, Figure("Training", words, seconds)


def _cautions(one: Evaluation) -> list[str]:
    outcomes, lines = one.outcomes, []
    if wrong := outcomes["unparseable"] + outcomes["refused"]:
        lines.append(
            f"{count(wrong)} answers name no class ({count(outcomes['unparseable'])} other words, "
            f"{count(outcomes['refused'])} refusals) and count as wrong"
        )
    if outcomes["failed"]:
        lines.append(f"{count(outcomes['failed'])} photos got no answer and are left out")
    if one.possibly_billed:
        lines.append(
            f"{count(one.possibly_billed)} calls broke off after they were sent: they are possibly billed, and not "
            "in the cost"
        )
    if len(one.model_versions) > 1:
        lines.append(f"the model changed on the way: {', '.join(one.model_versions)}")
    return lines


def _several(context: Context) -> bool:
    return any(one.multi_label for one in context.evaluations)


def _f1(context: Context) -> Table:
    rows: list[list[str | Cell]] = [
        [context.systems[at].name, _share(one.micro_f1, digits=1), _share(one.macro_f1, digits=1)]
        for at, one in enumerate(context.evaluations)
    ]
    note = "Micro: all decisions together, frequent classes count more. Macro: every class counts the same."
    return Table(
        "F1 over all classes, with 95 % intervals", ["System", "Micro F1", "Macro F1"], rows, note, numeric=True
    )


def _by_class(context: Context, measure: Literal["recall", "f1"]) -> Table:
    classes = list(dict.fromkeys(label for one in context.evaluations for label in one.classes))
    scores = [one.class_scores() for one in context.evaluations]
    found = [{label: cast(Estimate, getattr(of[label], measure)) for label in of} for of in scores]
    note = ""
    if len(classes) > _MOST_CLASSES_IN_A_TABLE:
        note = f"{_MOST_CLASSES_IN_A_TABLE} of {count(len(classes))} classes, the most different first."
        classes = sorted(classes, key=lambda label: -_spread(label, found))[:_MOST_CLASSES_IN_A_TABLE]
    rows: list[list[str | Cell]] = []
    for label in classes:
        n = max((of[label].recall.n for of in scores if label in of), default=0)
        rows.append([f"{label} (n = {count(n)})", *(_share(of.get(label), few=n < _FEW) for of in found)])
    if any(isinstance(cell, Cell) and cell.faint for row in rows for cell in row):
        note = f"{note} Grey: fewer than {_FEW} photos, too few to rank systems on.".strip()
    columns: list[str | System] = ["Class", *context.scoreboard]
    sortable = len(rows) > 2
    if measure == "f1":
        caption = "F1 per class: how well its photos, and only they, were named, with 95 % intervals"
    else:
        caption = "Recall per class: right answers among its photos, with 95 % intervals"
    return Table(caption, columns, rows, note, sortable=sortable)


def _share(estimate: Estimate | None, *, few: bool = False, digits: int = 0) -> Cell:
    if estimate is None or not estimate.n:
        return Cell("–", faint=True)
    low, high = (f"{100 * end:.{digits}f}" for end in (estimate.low, estimate.high))
    return Cell(f"{percent(estimate.value, digits)} [{low}, {high}]", faint=few)


def _spread(label: str, recalls: Sequence[Mapping[str, Estimate]]) -> float:
    values = [of[label].value for of in recalls if label in of and of[label].n]
    return max(values) - min(values) if values else -1.0


def confusions(context: Context) -> Section:
    """Return the confusion matrices; with many classes, the most frequent confusions instead.

    Where several classes may apply, none is mistaken for another: what was missed and added of each is counted.
    """
    if _several(context):
        lead = "For each class: photos on which it was missed, and photos on which it was named and is not there."
        return Section(context.anchor("errors"), "Where they err", [_missed_and_added(context)], rank=40, lead=lead)
    classes = context.evaluations[0].classes
    same = all(one.classes == classes for one in context.evaluations)
    if same and len(classes) <= _MOST_CLASSES_IN_A_MATRIX:
        matrices = [
            Confusion(context.systems[at], one.headline, one.confusion().tolist())
            for at, one in enumerate(context.evaluations)
        ]
        block: Block = Confusions(classes, matrices)
        lead = "Photos by true class and answer; the shade is the share of the row. A count leads to its photos."
    else:
        block = _most_frequent(context)
        lead = "The most frequent confusions, all systems together."
    return Section(context.anchor("errors"), "Where they err", [block], rank=40, lead=lead)


def _missed_and_added(context: Context) -> Table:
    classes = list(dict.fromkeys(label for one in context.evaluations for label in one.classes))
    counts = [dict(zip(one.classes, one.class_counts().tolist(), strict=True)) for one in context.evaluations]
    errors = {label: sum(of[label][1][0] + of[label][0][1] for of in counts if label in of) for label in classes}
    worst = sorted(classes, key=lambda label: -errors[label])[:_MOST_CONFUSIONS]
    rows: list[list[str | Cell]] = []
    for label in worst:
        cells = []
        for of in counts:
            (_, added), (missed, _) = of.get(label, ((0, 0), (0, 0)))
            cells.append(Cell(f"{count(missed)} missed, {count(added)} added", faint=not (missed + added)))
        rows.append([label, *cells])
    return Table("Mistakes per class", ["Class", *context.scoreboard], rows, numeric=True)


def _most_frequent(context: Context) -> Table:
    import numpy as np

    found: dict[tuple[str, str], dict[int, int]] = {}
    for number, one in enumerate(context.evaluations):
        answers = [*one.classes, "no answer"]
        counts = one.confusion()
        for truth, answer in np.argwhere(counts):
            if truth != answer:
                key = one.classes[truth], answers[answer]
                found.setdefault(key, {})[number] = int(counts[truth, answer])
    worst = sorted(found.items(), key=lambda item: -sum(item[1].values()))[:_MOST_CONFUSIONS]
    systems = context.scoreboard
    rows: list[list[str | Cell]] = [
        [
            f"{truth} → {answer}",
            *(Cell(str(by.get(system.number, 0)), faint=system.number not in by) for system in systems),
        ]
        for (truth, answer), by in worst
    ]
    return Table("Truth → answer", ["Confusion", *systems], rows, numeric=True)

"""Sections that every report has: the scoreboard, errors, every answer, provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, cast

from vlm_tune.evaluation import Evaluation
from vlm_tune.records import Estimate
from vlm_tune.report.blocks import (
    AnswerRow,
    Answers,
    Block,
    Cell,
    Confusion,
    Confusions,
    Note,
    Quote,
    Score,
    Scoreboard,
    Section,
    System,
    Table,
)
from vlm_tune.report.context import Context
from vlm_tune.report.words import count, duration, money, percent

__all__ = ["answers", "confusions", "provenance", "scoreboard"]

_MOST_CLASSES_IN_A_MATRIX = 14
_MOST_CLASSES_IN_A_TABLE = 25
_MOST_CONFUSIONS = 25
_MOST_ROWS = 200
_FEW = 10


def scoreboard(context: Context) -> Section:
    """Return the accuracy of every system, and how well it finds every class."""
    scores = [_score(context.systems[at], one) for at, one in enumerate(context.evaluations)]
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
    return Score(
        system=system,
        estimate=one.accuracy if one.coverage >= one.min_coverage else None,
        bounds=one.accuracy_bounds,
        coverage=f"{count(answered)} of {count(one.num_examples)}",
        time=duration(one.wall_s),
        speed="–" if speed is None else f"{speed:,.0f}" if speed >= 10 else f"{speed:.2g}",
        cost=money(cost),
        cost_per_1000=money(1000 * cost / answered if cost is not None and answered else None),
    )


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
    note = f"Grey: fewer than {_FEW} photos, too few to rank systems on."
    if len(classes) > _MOST_CLASSES_IN_A_TABLE:
        note = f"{_MOST_CLASSES_IN_A_TABLE} of {count(len(classes))} classes, the most different first. {note}"
        classes = sorted(classes, key=lambda label: -_spread(label, found))[:_MOST_CLASSES_IN_A_TABLE]
    rows: list[list[str | Cell]] = []
    for label in classes:
        n = max((of[label].recall.n for of in scores if label in of), default=0)
        rows.append([f"{label} (n = {count(n)})", *(_share(of.get(label), few=n < _FEW) for of in found)])
    columns: list[str | System] = ["Class", *context.scoreboard]
    if measure == "f1":
        caption = "F1 per class: how well its photos, and only they, were named, with 95 % intervals"
    else:
        caption = "Recall per class: right answers among its photos, with 95 % intervals"
    return Table(caption, columns, rows, note)


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


def answers(context: Context) -> Section:
    """Return what every system said about every photo, or about the first few hundred."""
    classes = context.evaluations[0].classes
    places = {label: place for place, label in enumerate(classes)}
    every = list(context.example_ids())
    if len(every) > _MOST_ROWS:
        every.sort(key=lambda example_id: not _disputed(context, example_id))
    rows = []
    for example_id in every[:_MOST_ROWS]:
        said = [context.answer(system, example_id) for system in context.scoreboard]
        truth = context.truth(example_id)
        given = [answer for answer in said if answer is not None]
        rows.append(AnswerRow(example_id, truth, places.get(truth, -1), context.photo(example_id), given))
    systems = context.scoreboard
    block = Answers(systems, classes, rows, left_out=len(every) - len(rows))
    return Section(context.anchor("answers"), "Every answer", [block], rank=80)


def _disputed(context: Context, example_id: str) -> bool:
    said = (context.answer(system, example_id) for system in context.scoreboard)
    return len({answer.text for answer in said if answer is not None}) > 1


def _questions(context: Context) -> list[Quote]:
    """Return every prompt that was used, with the systems that got it and what they were shown besides."""
    asked: dict[str, list[str]] = {}
    for system, one in zip(context.scoreboard, context.evaluations, strict=True):
        if one.task is not None:
            prompt = "\n\n".join(filter(None, (one.prompt_note, one.task.render())))
            asked.setdefault(prompt, []).append(system.name)
    if len(asked) == 1:
        return [Quote("The question, as every system got it", prompt) for prompt in asked]
    return [Quote(f"The question, as {', '.join(names)} got it", prompt) for prompt, names in asked.items()]


def provenance(context: Context, packages: Mapping[str, str], machine: Mapping[str, str]) -> Section:
    """Return what would be needed to do it again: the question, fingerprints, versions and the machine."""
    blocks: list[Block] = [*_questions(context)]
    rows = [
        [
            context.systems[at].name,
            one.predictor_fingerprint or "–",
            ", ".join(one.model_versions) or "–",
            one.dataset_fingerprint[:16] or "–",
            one.task.fingerprint if one.task else "–",
        ]
        for at, one in enumerate(context.evaluations)
    ]
    columns = ["System", "Fingerprint", "Model version", "Dataset", "Task"]
    blocks.append(Table("What was evaluated on what", columns, rows))
    written = [[name, version] for name, version in {**machine, **packages}.items()]
    blocks.append(Table("What this report was written with", ["Machine and packages", ""], written))
    lead = "Equal fingerprints mean equal weights and settings, equal data, the same question."
    return Section(context.anchor("provenance"), "Provenance", blocks, rank=90, lead=lead)

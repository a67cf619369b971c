"""The sections about labels in doubt, and about what people ruled on them."""

from __future__ import annotations

from vlm_tune.audit import LabelAudit, Rescored
from vlm_tune.plots.audit import weights_of_evidence
from vlm_tune.records import Estimate
from vlm_tune.report.blocks import Block, Cell, Chart, Facts, Gallery, Note, Section, Table
from vlm_tune.report.charts import inline_svg
from vlm_tune.report.context import Context
from vlm_tune.report.sections import section
from vlm_tune.report.words import count

__all__: list[str] = []

_MOST_LISTED = 30
_MOST_DRAWN = 12


@section.register
def _(audit: LabelAudit, context: Context) -> Section:
    anchor = context.anchor("labels")
    suspects = audit.suspects[:_MOST_LISTED]
    facts = [
        ("Photos audited", count(len(audit.ranking))),
        ("Labels more likely wrong than right", count(len(audit.suspects))),
        ("Wrong labels to expect", count(round(audit.expected_wrong))),
        ("Photos that nobody doubts", count(len(audit.agreed))),
    ]
    blocks: list[Block] = [Facts(facts)]
    if suspects:
        rows: list[list[str | Cell]] = [
            [one.example_id, one.label, one.suggestion, f"{100 * one.suspicion:.0f} %", one.reason] for one in suspects
        ]
        columns = ["Photo", "Label", "Rather", "Wrong", "Why"]
        left_out = len(audit.suspects) - len(suspects)
        note = f"{count(left_out)} more are in the audit." if left_out else ""
        drawn = [(f"{one.example_id}: {one.label}, or {one.suggestion}?", one.evidence) for one in suspects]
        known_colours = {system.name: context.colours[system.number] for system in context.systems}
        figure = weights_of_evidence(drawn[:_MOST_DRAWN], known=known_colours)
        label = "Weights of the evidence for and against the labels in doubt"
        known = [
            (f"{one.label}, or {one.suggestion}?", context.photos.get(one.example_id, audit.images.get(one.example_id)))
            for one in suspects
        ]
        blocks += [
            Gallery([(words, photo) for words, photo in known if photo is not None]),
            Table("The most suspicious labels", columns, rows, note=note),
            Chart(inline_svg(figure, prefix=anchor, label=label)),
        ]
    data = {
        "num_photos": len(audit.ranking),
        "expected_wrong": audit.expected_wrong,
        "suspects": [
            {**one.model_dump(mode="json"), "suspicion": one.suspicion, "reason": one.reason} for one in audit.suspects
        ],
    }
    lead = "Candidates for people to look at, never verdicts: systems err together."
    return Section(anchor, "Labels in doubt", blocks, rank=46, lead=lead, key="label_audit", data=data)


@section.register
def _(rescored: Rescored, context: Context) -> Section:
    anchor = context.anchor("rulings")
    systems: list[list[str | Cell]] = [
        [context.system(old).name, Cell(old.headline), Cell(new.headline)]
        for old, new in zip(rescored.before, rescored.after, strict=True)
    ]
    blocks: list[Block] = [
        Facts([("Labels put right", count(len(rescored.rulings.labels))), *_wrong(rescored)]),
        Table("Accuracy", ["System", "Labels as they were", "As ruled"], systems),
        *(Note(change.sentence) for change in rescored.changes),
    ]
    data = {
        "rulings": rescored.rulings.model_dump(mode="json"),
        "sentence": rescored.sentence,
        "before": [one.to_dict() for one in rescored.before],
        "after": [one.to_dict() for one in rescored.after],
        "changes": [
            {"before": one.before.to_dict(), "after": one.after.to_dict(), "sentence": one.sentence}
            for one in rescored.changes
        ],
    }
    title = "With the labels put right"
    return Section(anchor, title, blocks, rank=47, lead=rescored.rulings.sentence, key="rescored", data=data)


def _wrong(rescored: Rescored) -> list[tuple[str, str]]:
    shares: dict[str, Estimate] = {
        "Suspects with a wrong label": rescored.rulings.wrong_suspects,
        "Controls with a wrong label": rescored.rulings.wrong_controls,
    }
    return [(what, f"{share.percent()} (n = {share.n})") for what, share in shares.items() if share.n]

"""The section about photos that are in two splits."""

from __future__ import annotations

import base64

from vlm_tune import plots
from vlm_tune.leakage import LeakageReport, LeakPair
from vlm_tune.leakage.report import TIERS
from vlm_tune.report.blocks import Block, Chart, Facts, Note, Pair, Pairs, Section, Side
from vlm_tune.report.charts import inline_svg
from vlm_tune.report.context import Context
from vlm_tune.report.sections import section
from vlm_tune.report.words import count

__all__: list[str] = []

_MOST_PAIRS = 60
_MOST_OTHERS = 6


@section.register
def _(report: LeakageReport, context: Context) -> Section:
    anchor = context.anchor("leakage")
    others = [pair for pair in report.pairs if not pair.is_leak]
    facts = [(tier.replace("_", " ").capitalize(), f"{count(number)}") for tier, number in report.counts().items()]
    facts += [
        ("Pairs compared, all there are", count(report.num_compared)),
        ("Of these verified by their pixels", count(report.num_verified)),
        ("Shortlist made by", report.embedder),
    ]
    if report.conflicts:
        facts.append(("Copies with different labels", count(len(report.conflicts))))
    if report.unreadable:
        facts.append(("Photos that cannot be read", count(len(report.unreadable))))
    figure = plots.similarity_histogram(
        report.nearest,
        null=report.null,
        cut=report.cut,
        title="Nearest training photo of each evaluation photo",
    )
    label = "Histogram of the similarity of evaluation photos to their nearest training photo"
    blocks: list[Block] = [
        Facts(facts),
        Chart(inline_svg(figure, prefix=anchor, label=label)),
        Note(f"{report.cut_reason[:1].upper()}{report.cut_reason[1:]}."),
        _pairs(report, report.leaks[:_MOST_PAIRS], context, left_out=len(report.leaks[_MOST_PAIRS:])),
    ]
    if others:
        blocks.append(Note("Alike, but no copies: these stay where they are."))
        blocks.append(_pairs(report, others[:_MOST_OTHERS], context, left_out=len(others[_MOST_OTHERS:])))
    kept_out = {"thumbnails", "null", "nearest", "unreadable"}
    data = {**report.model_dump(mode="json", exclude=kept_out), "unreadable": list(report.unreadable)}
    return Section(anchor, "Leakage", blocks, rank=48, lead=_lead(report, context), key="leakage", data=data)


def _lead(report: LeakageReport, context: Context) -> str:
    leaked = report.leaked_ids
    if not leaked:
        return "No evaluation photo has a copy in training."
    still_there = sum(example_id in set(context.example_ids()) for example_id in leaked)
    after = f"{count(still_there)} of them are still" if still_there else "none of them is"
    was = "photo has a copy" if len(leaked) == 1 else "photos have a copy"
    return f"{count(len(leaked))} evaluation {was} in another split; {after} among the test photos of this page."


def _pairs(
    report: LeakageReport, pairs: tuple[LeakPair, ...] | list[LeakPair], context: Context, *, left_out: int
) -> Pairs:
    def side(example_id: str, split: str, label: str) -> Side:
        uri = report.thumbnails.get(example_id)
        small = base64.b64decode(uri.partition(",")[2]) if uri else context.source(example_id)
        return Side(split, example_id, label, context.photos.get(example_id, small))

    shown = [
        Pair(
            tier=pair.tier,
            meaning=TIERS[pair.tier],
            evidence=f"Similarity {pair.similarity:.3f}, {pair.explanation}.",
            conflict=pair.is_conflict,
            sides=(side(pair.a_id, pair.a_split, pair.a_label), side(pair.b_id, pair.b_split, pair.b_label)),
        )
        for pair in pairs
    ]
    return Pairs(shown, left_out)

"""The section about photos that are in two splits, and the one about what they did to the result."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence

from vlm_tune import plots
from vlm_tune.errors import EvaluationError
from vlm_tune.evaluation.inflation import Gap, Inflation, leakage_inflation
from vlm_tune.leakage import LeakageReport, LeakPair
from vlm_tune.leakage.outline import Points, overlay
from vlm_tune.leakage.pairs import TIERS
from vlm_tune.report.blocks import Block, Chart, Facts, Note, Photo, Section, Table
from vlm_tune.report.charts import inline_svg
from vlm_tune.report.context import Context
from vlm_tune.report.pairs import Pair, Pairs, Side
from vlm_tune.report.sections import section
from vlm_tune.report.words import count

__all__: list[str] = []

_MOST_PAIRS = 60
_MOST_OTHERS = 6


@section.register
def _(report: LeakageReport, context: Context) -> Section:
    anchor = context.anchor("leakage")
    figure = plots.similarity_histogram(
        report.nearest,
        null=report.null,
        cut=report.cut,
        title="Nearest training photo of each evaluation photo",
    )
    label = "Histogram of the similarity of evaluation photos to their nearest training photo"
    blocks: list[Block] = [
        *([Note(f"Caution: {report.warning}.")] if report.warning else []),
        Facts(_facts(report)),
        Chart(inline_svg(figure, prefix=anchor, label=label)),
        Note(f"{report.cut_reason[:1].upper()}{report.cut_reason[1:]}."),
    ]
    others = [pair for pair in report.pairs if not pair.is_leak]
    # Conflicts first: a copy with another label is an error in the data whatever becomes of the leak.
    leaks = sorted(report.leaks, key=lambda pair: not pair.is_conflict)
    chosen = [*leaks[:_MOST_PAIRS], *others[:_MOST_OTHERS]]
    if chosen:
        left_out = len(leaks) + len(others) - len(chosen)
        blocks.append(Pairs(f"{anchor}-pairs", [_pair(report, pair, context) for pair in chosen], left_out))
    if report.leaks:
        blocks.append(_remedies(report))
        blocks += _damage(report, context)
    kept_out = {"thumbnails", "null", "nearest", "unreadable", "places", "identical"}
    data = {
        **report.model_dump(mode="json", exclude=kept_out),
        "leaked_ids": list(report.leaked_ids),
        "unreadable": list(report.unreadable),
    }
    return Section(anchor, "Leakage", blocks, rank=48, lead=_lead(report, context), key="leakage", data=data)


@section.register
def _(result: Inflation, context: Context) -> Section:
    gaps = [result.tuned, *([result.reference] if result.reference else [])]
    title = "What leakage is worth"
    data = {**result.model_dump(mode="json"), "sentence": result.sentence}
    blocks = [_gaps(gaps)]
    return Section(
        context.anchor("inflation"), title, blocks, rank=49, lead=result.sentence, key="inflation", data=data
    )


def _facts(report: LeakageReport) -> list[tuple[str, str]]:
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
    return facts


def _lead(report: LeakageReport, context: Context) -> str:
    leaked = report.leaked_ids
    if not leaked:
        return "No evaluation photo has a copy in training."
    known = set(context.example_ids())
    still_there = sum(example_id in known for example_id in leaked)
    after = f"{count(still_there)} of them are still" if still_there else "none of them is"
    by_key = any(pair.rule == "group" for pair in report.leaks)
    what = "a copy or its group" if by_key else "a copy" if report.threshold is None else "a photo above the threshold"
    was = f"photo has {what}" if len(leaked) == 1 else f"photos have {what}"
    return f"{count(len(leaked))} evaluation {was} in another split; {after} among the test photos of this page."


def _pair(report: LeakageReport, pair: LeakPair, context: Context) -> Pair:
    photos = [_photo(report, name, context) for name in (pair.a_id, pair.b_id)]
    outlines, laid = ("", ""), ""
    # What is merely alike has no overlap, only the least bad alignment.
    lying = overlay(pair) if pair.tier != "similar_only" else None
    if lying is not None and photos[0] is not None and photos[1] is not None:
        outlines = _points(lying.first, photos[0]), _points(lying.second, photos[1])
        laid = _matrix(lying.matrix, photos[0], photos[1])
    known = ((pair.a_id, pair.a_split, pair.a_label), (pair.b_id, pair.b_split, pair.b_label))
    first, second = (
        Side(split or "", name, label, photo, outline)
        for (name, split, label), photo, outline in zip(known, photos, outlines, strict=True)
    )
    return Pair(
        tier=pair.tier,
        meaning=TIERS[pair.tier],
        evidence=f"Similarity {pair.similarity:.3f}, {pair.explanation}.",
        conflict=pair.is_conflict,
        sides=(first, second),
        laid=laid,
    )


def _photo(report: LeakageReport, example_id: str, context: Context) -> Photo | None:
    uri = report.thumbnails.get(example_id)
    small = base64.b64decode(uri.partition(",")[2]) if uri else context.source(example_id)
    return context.photos.get(example_id, small)


def _points(corners: Points, photo: Photo) -> str:
    return " ".join(f"{x * photo.width:.1f},{y * photo.height:.1f}" for x, y in corners)


def _matrix(shares: Points, first: Photo, second: Photo) -> str:
    """An SVG matrix from thumbnail to thumbnail, from one in shares of width and height."""
    (a, c, e), (b, d, f) = shares
    w, h, width, height = first.width, first.height, second.width, second.height
    values = (a * width / w, b * height / w, c * width / h, d * height / h, e * width, f * height)
    return " ".join(f"{value:.4f}" for value in values)


def _remedies(report: LeakageReport) -> Table:
    rows = [(one.strategy, one.sentence) for one in report.proposals]
    return Table("What can be done: resolve(data, strategy)", ("Strategy", "What it does"), rows)


def _damage(report: LeakageReport, context: Context) -> Iterator[Block]:
    """Every system on leaked and on clean photos, where the test split still has both."""
    gaps: list[Gap] = []
    for system, evaluation in zip(context.scoreboard, context.evaluations, strict=True):
        try:
            gap = leakage_inflation(evaluation, report.leaked_ids).tuned
        except EvaluationError:
            continue
        gaps.append(gap.model_copy(update={"name": system.name}))
    if gaps:
        few = min(gaps[0].leaked.n, gaps[0].clean.n)
        enough = "" if few >= 10 else f" Not enough photos to tell: {few} on one side."
        note = "A system that gains more on leaked photos than those that never saw the training split knows copies."
        yield _gaps(gaps, note=f"{note}{enough}")


def _gaps(gaps: Sequence[Gap], *, note: str = "") -> Table:
    rows = [
        (
            gap.name,
            f"{gap.leaked.percent()} (n={gap.leaked.n})",
            f"{gap.clean.percent()} (n={gap.clean.n})",
            gap.difference.points(),
        )
        for gap in gaps
    ]
    columns = ("System", "On leaked photos", "On clean photos", "Difference")
    return Table("Leaked against clean test photos", columns, rows, note=note, numeric=True)

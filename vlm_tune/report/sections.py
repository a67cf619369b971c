"""From a result to its section: one function for each type, chosen by `section`."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import singledispatch
from itertools import zip_longest

from vlm_tune.evaluation import Comparison, Tag, Verdict
from vlm_tune.profiling import ImageTokens, Profile, Quantiles
from vlm_tune.report.blocks import Block, Cell, Duel, Facts, Gallery, PairCard, Section, Table
from vlm_tune.report.context import Context
from vlm_tune.report.duels import by_class, measured_beside
from vlm_tune.report.words import about, count, p_value

__all__ = ["headline", "section", "unknown"]

_ORDER: tuple[Tag, ...] = ("candidate_only", "reference_only", "both_wrong", "both_right")
_MOST_CARDS = 200
_MOST_CLASSES_WITH_SAMPLES = 12


@singledispatch
def section(result: object, context: Context) -> Section:
    """Return the section of one result.

    Args:
        result: Anything that `Report` lists. Other types can be added with `section.register`.
        context: What all sections share.

    Raises:
        TypeError: There is no section for this type.
    """
    raise unknown(result)


def unknown(result: object) -> TypeError:
    """Return the error for a result that no section is about."""
    known = ", ".join(sorted(kind.__name__ for kind in section.registry if kind is not object))
    return TypeError(f"a report has no section for {type(result).__name__}; it has some for {known}")


def headline(comparison: Comparison) -> str:
    """Return a comparison's verdict as one short sentence for readers in a hurry."""
    difference = comparison.difference
    ends = sorted(100 * (end if difference.value > 0 else -end) for end in (difference.low, difference.high))
    gap = f"{100 * abs(difference.value):.1f} points [{ends[0]:.1f}, {ends[1]:.1f}]"
    who, rival = comparison.candidate.name, comparison.reference.name
    photos = f"on {count(comparison.n)} photos"
    verb = "leads" if difference.value > 0 else "trails"
    margin = f"{100 * comparison.margin:g} points"
    open_end = f"{who} {verb} {rival} by {gap} {photos}, which is not established."
    sentences: Mapping[Verdict, str] = {
        "better": f"{who} beats {rival} by {gap} {photos}.",
        "worse": f"{who} loses to {rival} by {gap} {photos}.",
        "equivalent": f"{who} and {rival} are equivalent: within {margin} {photos}.",
        "not_established": open_end
        if difference.value
        else f"{who} and {rival} are level {photos}; which one is better is not established.",
    }
    return sentences[comparison.verdict]


@section.register
def _(comparison: Comparison, context: Context) -> Section:
    number = sum(known.startswith("against") for known in context.anchors)
    anchor = context.anchor("against")
    candidate, reference = context.system(comparison.candidate), context.system(comparison.reference)
    cards, left_out = _cards(comparison, context)
    needed = comparison.images_needed
    test = "Exact McNemar test, by group" if comparison.clustered else "Exact McNemar test"
    facts = [
        (candidate.name, comparison.candidate_accuracy.percent()),
        (reference.name, comparison.reference_accuracy.percent()),
        (test, p_value(comparison.p_value)),
        ("Mid-p, beside it", p_value(comparison.mid_p_value)),
        ("Photos for 80 % power", "no number is enough" if needed is None else f"about {about(needed)}"),
        *measured_beside(comparison),
    ]
    duel = Duel(
        anchor=f"{anchor}-photos",
        candidate=candidate,
        reference=reference,
        verdict=comparison.verdict,
        sentence=comparison.sentence,
        counts={
            "candidate_only": comparison.wins,
            "reference_only": comparison.losses,
            "both_wrong": comparison.both_wrong,
            "both_right": comparison.both_right,
        },
        difference=comparison.difference,
        margin=comparison.margin,
        facts=facts,
        cards=cards,
        left_out=left_out,
        open=number == 0,
    )
    title = f"{candidate.name} against {reference.name}"
    blocks: list[Block] = [duel, *by_class(comparison)]
    return Section(anchor, title, blocks, short=f"Against {reference.name}", rank=20 + number)


def _cards(comparison: Comparison, context: Context) -> tuple[list[PairCard], int]:
    """Return a card for each photo, disagreements first, and how many there was no room for."""
    systems = [context.system(comparison.candidate), context.system(comparison.reference)]
    by_tag: dict[str, list[str]] = {tag: [] for tag in _ORDER}
    for example_id, tag in comparison.tags.items():
        by_tag[tag].append(example_id)
    # Wins and losses take turns, so that neither fills the page where there is no room for all.
    disputed = zip_longest(by_tag["candidate_only"], by_tag["reference_only"])
    wanted = [example_id for both in disputed for example_id in both if example_id is not None]
    wanted += by_tag["both_wrong"] + by_tag["both_right"]
    cards: list[PairCard] = []
    for example_id in wanted:
        if len(cards) == _MOST_CARDS or context.crowded_out(example_id):
            break
        said = [context.answer(system, example_id) for system in systems]
        answers = [answer for answer in said if answer is not None]
        truth = comparison.candidate.truths[example_id]
        tag = comparison.tags[example_id]
        cards.append(PairCard(tag, example_id, truth, context.photo(example_id), answers))
    cards.sort(key=lambda card: list(by_tag).index(card.tag))
    return cards, len(wanted) - len(cards)


@section.register
def _(profile: Profile, context: Context) -> Section:
    splits = list(profile.counts)
    # Photos without a class have a row too, where several classes may apply.
    labels = list(profile.counts["all"])
    rows: list[list[str | Cell]] = [
        [label, *(Cell(count(of[label])) for of in profile.counts.values())] for label in labels
    ]
    rows.append(["all examples", *(Cell(count(profile.sizes[name])) for name in splits)])
    facts = [
        ("Examples", count(profile.num_examples)),
        ("Groups", count(profile.num_groups) if profile.num_groups else "none given"),
        ("Largest class over smallest", f"{profile.imbalance:.2f}"),
        ("Width in pixels", _spread(profile.width)),
        ("Height in pixels", _spread(profile.height)),
        ("Formats", ", ".join(f"{count(number)} {name}" for name, number in profile.formats.items()) or "–"),
        ("Shrunk to the image budget", count(profile.num_shrunk)),
        *((f"Image tokens, {family}", _tokens(spent)) for family, spent in profile.image_tokens.items()),
        *((tag.replace("_", " ").capitalize(), count(len(ids))) for tag, ids in profile.tags.items() if ids),
    ]
    blocks: list[Block] = [Facts(facts), Table("Examples per class", ["Class", *splits], rows, numeric=True)]
    if len(profile.classes) <= _MOST_CLASSES_WITH_SAMPLES:
        samples = [
            (
                sample.label,
                context.photos.get(sample.example_id, base64.b64decode(sample.thumbnail.partition(",")[2])),
            )
            for sample in sorted(profile.samples, key=lambda sample: labels.index(sample.label))
        ]
        blocks.append(Gallery([(label, photo) for label, photo in samples if photo is not None]))
    data = profile.model_dump(mode="json", exclude={"samples", "photos"})
    return Section(
        context.anchor("data"),
        "The data",
        blocks,
        lead="Before anything was trained or moved.",
        rank=45,
        key="profile",
        data=data,
    )


def _tokens(spent: ImageTokens) -> str:
    refused = f", {count(spent.num_refused)} refused" if spent.num_refused else ""
    return f"{count(spent.total)} in all, {_spread(spent.each)} a photo{refused}"


def _spread(quantiles: Quantiles | None) -> str:
    if quantiles is None:
        return "–"
    if quantiles.minimum == quantiles.maximum:
        return f"{quantiles.median:.0f}"
    return f"{quantiles.minimum:.0f} to {quantiles.maximum:.0f}, median {quantiles.median:.0f}"

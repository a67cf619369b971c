"""The measured recalls and false calls as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from leakage.peers import Peer, peers
from leakage.transformations import FAMILIES, SINGLES
from leakage.trial import CNN_RULE, FIXED_RULE, Clean, Outcome
from vlm_tune.leakage import LeakPair
from vlm_tune.statistics import wilson

__all__ = ["clean_table", "flagged_list", "methods_table", "missed_list", "recall_table"]

POOLED = {one.name for one in SINGLES if one.pooled}
SMALL = {"cifar100"}
"""Sets of 32-pixel images, which the pool leaves out."""


def recall_table(outcomes: Sequence[Outcome], sources: Sequence[str]) -> str:
    """Recall of each transformation on each set: verified leaks (in the shortlist, proved where tried)."""
    head = f"| transformation | {' | '.join(sources)} |"
    lines = [head, "|---" * (len(sources) + 1) + "|"]
    for single in SINGLES:
        here = [it for it in outcomes if it.kind == single.name]
        lines.append(_row(single.name + ("" if single.pooled else " (not pooled)"), here, sources, _three))
    pooled = [it for it in outcomes if it.kind in POOLED]
    lines.append(_row("**all pooled singles**", pooled, sources, _with_interval))
    pairs = [it for it in outcomes if it.kind == "pairs"]
    for family in FAMILIES:
        names = {one.name for one in FAMILIES[family]}
        here = [it for it in pairs if names & set(it.steps)]
        lines.append(_row(f"pairs with {family}", here, sources, _three))
    lines.append(_row("**all pairs**", pairs, sources, _with_interval))
    lines.append(_row("singles, called a leak of any photo", pooled, sources, _called))
    lines.append(_row("pairs, called a leak of any photo", pairs, sources, _called))
    lines += ["", *(_pool(title, them) for title, them in (("singles", pooled), ("pairs", pairs)))]
    return "\n".join(lines)


def methods_table(outcomes: Sequence[Outcome], cleans: Sequence[Clean], sources: Sequence[str], own: str) -> str:
    """Each rule's recall on the pooled singles and pairs, and what it says about photos nobody planted."""
    heads = [f"{name}: singles, pairs; clean called leaked, to another class" for name in sources]
    lines = [
        f"| rule | {' | '.join(heads)} |",
        "|---" * (len(sources) + 1) + "|",
    ]
    rules: list[tuple[str, Callable[[Outcome], bool] | None]] = [(own, lambda it: it.found)]
    rules += [(name, _by_rule(name)) for name in (FIXED_RULE, CNN_RULE)]
    rules += [(peer.name, _by_rule(peer.name)) if isinstance(peer, Peer) else (peer, None) for peer in peers()]
    for name, says in rules:
        cells = [_method_cell(name, says, outcomes, cleans, source) for source in sources]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def clean_table(cleans: Sequence[Clean]) -> str:
    """What the checker says about each set as it is."""
    lines = [
        "| set | train | test | called leaked | to a photo of another class | same when labels are shuffled |",
        "|---|---|---|---|---|---|",
    ]
    for it in cleans:
        flagged, wrong = (_interval(count, it.num_test) for count in it.flagged)
        same = "yes" if it.same_when_shuffled else "**NO**"
        lines.append(f"| {it.source} | {it.num_train} | {it.num_test} | {flagged} | {wrong} | {same} |")
    return "\n".join(lines)


def flagged_list(cleans: Sequence[Clean], *, longest: int) -> str:
    """The pairs behind the clean table, those of two classes first."""
    lines = []
    for it in cleans:
        pairs = sorted(it.report.leaks, key=lambda pair: pair.a_label == pair.b_label)
        lines.append(f"{it.source}: {len(pairs)} pairs")
        lines += [f"  {_sentence(pair)}" for pair in pairs[:longest]]
    return "\n".join(lines)


def missed_list(outcomes: Iterable[Outcome]) -> str:
    """Every planted copy that was not found, and why, as tab-separated lines."""
    lines = ["set\tkind\tpart\toriginal\tsteps\twhy"]
    for it in outcomes:
        if not it.found:
            why = "proof" if it.shortlisted else "shortlist" if it.proved else "both"
            lines.append(f"{it.source}\t{it.kind}\t{it.part}\t{it.original}\t{' + '.join(it.steps)}\t{why}")
    return "\n".join(lines)


def _row(
    name: str, outcomes: Sequence[Outcome], sources: Sequence[str], cell: Callable[[Sequence[Outcome]], str]
) -> str:
    cells = [cell([it for it in outcomes if it.source == source]) for source in sources]
    return f"| {name} | {' | '.join(cells)} |"


def _three(outcomes: Sequence[Outcome]) -> str:
    if not outcomes:
        return ""
    found, listed, proved = (
        100 * sum(values) / len(outcomes)
        for values in zip(*((it.found, it.shortlisted, it.proved) for it in outcomes), strict=True)
    )
    return f"{found:.1f} ({listed:.1f}, {proved:.1f})"


def _with_interval(outcomes: Sequence[Outcome]) -> str:
    if not outcomes:
        return ""
    listed, proved = (sum(values) for values in zip(*((it.shortlisted, it.proved) for it in outcomes), strict=True))
    found = _interval(sum(it.found for it in outcomes), len(outcomes))
    return f"**{found}** ({100 * listed / len(outcomes):.1f}, {100 * proved / len(outcomes):.1f})"


def _called(outcomes: Sequence[Outcome]) -> str:
    return _interval(sum(it.called for it in outcomes), len(outcomes)) if outcomes else ""


def _pool(title: str, outcomes: Sequence[Outcome]) -> str:
    large = [it for it in outcomes if it.source not in SMALL]
    return f"All {title}, sets of 32-pixel images apart: {_interval(sum(it.found for it in large), len(large))}"


def _interval(count: int, total: int) -> str:
    it = wilson(count, total)
    return f"{100 * it.value:.1f} % [{100 * it.low:.1f}, {100 * it.high:.1f}] of {total}"


def _by_rule(name: str) -> Callable[[Outcome], bool]:
    return lambda it: it.peers[name]


def _method_cell(
    name: str,
    says: Callable[[Outcome], bool] | None,
    outcomes: Sequence[Outcome],
    cleans: Sequence[Clean],
    source: str,
) -> str:
    if says is None:
        return "not installed"
    parts = []
    for kinds in (POOLED, {"pairs"}):
        here = [says(it) for it in outcomes if it.source == source and it.kind in kinds]
        parts.append(f"{100 * sum(here) / len(here):.1f} %" if here else "")
    shares = [
        f"{100 * count / it.num_test:.1f} %"
        for it in cleans
        if it.source == source
        for count in it.peers.get(name, it.flagged)
    ]
    return f"{', '.join(parts)}; {', '.join(shares)}"


def _sentence(pair: LeakPair) -> str:
    labels = "same class" if pair.a_label == pair.b_label else f"{pair.a_label} / {pair.b_label}"
    return f"{pair.a_id} ~ {pair.b_id} ({labels}; likeness {pair.similarity:.2f}): {pair.explanation}"

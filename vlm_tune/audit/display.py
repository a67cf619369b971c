"""Audits, rulings and what they change, shown in a terminal or a notebook, and as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Group

    from vlm_tune.audit.audit import LabelAudit
    from vlm_tune.audit.rescoring import Rescored
    from vlm_tune.audit.rulings import Rulings

__all__ = ["audit_display", "audit_frame", "rescored_display", "rulings_display"]

_MOST = 20


def audit_display(audit: LabelAudit) -> Group:
    """Return the first of the ranking, and what it is worth."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    title = f"{len(audit.suspects):,} of {len(audit.ranking):,} labels are in doubt: candidates, no verdicts"
    table = Table("photo", "label", "rather", title=title, title_justify="left")
    table.add_column("wrong", justify="right")
    table.add_column("why")
    for one in audit.ranking[: min(_MOST, max(5, len(audit.suspects)))]:
        words = (Text(one.example_id), Text(one.label), Text(one.suggestion), _share(one.suspicion), Text(one.reason))
        table.add_row(*words)
    lines = [
        f"The evidence makes one expect {audit.expected_wrong:.0f} wrong labels. audit.review(path) lets you rule."
    ]
    if audit.unreadable:
        lines.append(f"{len(audit.unreadable):,} photos cannot be read and were left out.")
    return Group(table, *(Text(line, style="dim") for line in lines))


def _share(suspicion: float) -> str:
    return "over 99%" if suspicion > 0.99 else f"{suspicion:.0%}"


def audit_frame(audit: LabelAudit) -> pd.DataFrame:
    """Return a row for each photo: what speaks for its label and against it."""
    import pandas as pd

    names = list(dict.fromkeys(name for one in audit.ranking for name in one.evidence))
    rows = [
        {
            "example_id": one.example_id,
            "label": one.label,
            "suggestion": one.suggestion,
            "suspicion": one.suspicion,
            "log_odds": one.log_odds,
            "agreed": one.agreed,
            "vote_margin": one.vote_margin,
            "copies": ", ".join(sorted(set(one.copies.values()))),
            **{f"{name}: answer": one.answers.get(name) for name in names if name in one.answers},
            **{f"{name}: evidence": one.evidence[name] for name in names if name in one.evidence},
        }
        for one in audit.ranking
    ]
    return pd.DataFrame(rows)


def rulings_display(rulings: Rulings) -> Group:
    """Return how many labels were ruled wrong among suspects and controls."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table("photos", title="What was ruled", title_justify="left")
    for column in ("shown", "ruled on", "wrong label", "95 % interval"):
        table.add_column(column, justify="right")
    ruled = {one.example_id for one in rulings.rulings}
    sheet = rulings.sheet
    for name, ids, share in (
        ("suspects", sheet.suspects, rulings.wrong_suspects),
        ("controls", sheet.controls, rulings.wrong_controls),
    ):
        ends = f"{share.low:.1%} to {share.high:.1%}" if share.n else "-"
        table.add_row(name, f"{len(ids)}", f"{len(ruled.intersection(ids))}", f"{round(share.value * share.n)}", ends)
    return Group(table, Text(rulings.sentence))


def rescored_display(rescored: Rescored) -> Group:
    """Return every accuracy and every verdict, before and after."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    title = f"{len(rescored.rulings.labels)} labels put right"
    systems = Table("system", "labels as they were", "as ruled", title=title, title_justify="left")
    for old, new in zip(rescored.before, rescored.after, strict=True):
        systems.add_row(Text(old.name), old.headline, new.headline)
    verdicts = Table("candidate", "reference", "before", "after")
    for one in rescored.changes:
        sides = (one.before, one.after)
        words = [f"{side.verdict.replace('_', ' ')}, {side.difference.points()}" for side in sides]
        names = Text(one.before.candidate.name), Text(one.before.reference.name)
        verdicts.add_row(*names, words[0], Text(words[1], style="bold" if one.changed else ""))
    return Group(systems, *([verdicts] if rescored.changes else []), Text(rescored.sentence))

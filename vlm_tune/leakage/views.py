"""A leakage report for the eye: tables for the terminal, a figure with the pairs side by side."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

from PIL import Image

from vlm_tune.leakage.pairs import COPIES, TIERS, LeakPair
from vlm_tune.plots import similarity_histogram
from vlm_tune.plots.style import ALERT, INK, MUTED, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import RenderableType

    from vlm_tune.leakage.report import LeakageReport

__all__ = ["figure", "headline", "table"]


def headline(report: LeakageReport) -> str:
    """Return the finding in one sentence."""
    compared = f"({report.num_compared:,} pairs compared)"
    num_tests = len(report.leaked_test_ids)
    others = len(report.leaked_ids) - num_tests
    also = f" and {others:,} validation photos" if others else ""
    if not report.leaked_ids:
        return f"No leaks: no evaluation photo is a copy {compared}"
    if report.threshold is not None:
        proved = {name for pair in report.leaks if pair.is_copy for name in report.side(pair, "a")}
        what = f"have a training photo at {report.threshold:g} or more; pixels prove {len(proved):,} of them copies"
        return f"{num_tests:,} test photos{also} {what} {compared}"
    by_key = {name for pair in report.leaks if pair.rule == "group" for name in report.side(pair, "a")}
    copies = {name for pair in report.leaks if pair.is_copy for name in report.side(pair, "a")}
    if not by_key - copies:
        return f"{num_tests:,} test photos{also} are copies {compared}"
    how = f"{len(copies):,} are copies, {len(by_key - copies):,} more have their group there"
    return f"{num_tests:,} test photos{also} leak: {how} {compared}"


def table(report: LeakageReport, *, max_rows: int) -> RenderableType:
    """Return the tiers, the strongest pairs, what can be done, and what could not be read."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    tiers = Table("tier", title=headline(report), title_justify="left")
    tiers.add_column("pairs", justify="right")
    tiers.add_column("meaning")
    for tier, count in report.counts().items():
        tiers.add_row(tier, f"{count:,}", TIERS[tier], style="bold" if tier in COPIES else "")
    pairs = Table("evaluation photo,\nand its copy", "like-\nness", "evidence", show_lines=True)
    pairs.columns[0].overflow = "fold"
    for pair in report.pairs[:max_rows]:
        cells = (f"{pair.a_id}\n{pair.b_id}", f"{pair.similarity:.2f}", _evidence(pair))
        pairs.add_row(*map(Text, cells), style="" if pair.is_leak else "dim")
    remedies = Table("resolve(data, ...)", "what it does")
    for proposal in report.proposals if report.leaks else ():
        remedies.add_row(f'"{proposal.strategy}"', Text(proposal.sentence), style="dim" if proposal.problem else "")
    parts: list[RenderableType] = [tiers, *([pairs] if report.pairs else []), *([remedies] if report.leaks else [])]
    return Group(*parts, *map(Text, _notes(report, max_rows)))


def _notes(report: LeakageReport, max_rows: int) -> list[str]:
    cut = report.cut_reason[:1].upper() + report.cut_reason[1:]
    notes = [f"Warning: {report.warning}."] if report.warning else []
    notes.append(f"Embedder: {report.embedder}; {report.num_verified:,} pairs verified by pixels. {cut}.")
    if len(report.pairs) > max_rows:
        notes.append(f"{len(report.pairs) - max_rows:,} more pairs in frame().")
    notes += [f"{len(report.conflicts):,} pairs of copies have different labels."] if report.conflicts else []
    broken = [f"Not readable: {reason}" for reason in report.unreadable.values()]
    if len(broken) > max_rows:
        broken = [*broken[:max_rows], f"and {len(broken) - max_rows:,} more that cannot be read."]
    return notes + broken


def figure(report: LeakageReport, *, max_pairs: int) -> Figure:
    """Return the histogram of similarities with the cut, and below it the first pairs, two to a row."""
    drawn = similarity_histogram(report.nearest, null=report.null, cut=report.cut)
    known = report.thumbnails
    pairs = [pair for pair in report.pairs if pair.a_id in known and pair.b_id in known][:max_pairs]
    if not pairs:
        return drawn
    rows = -(-len(pairs) // 2)
    width, height = drawn.get_size_inches()
    drawn.set_size_inches(width, height + 1.75 * rows)
    grid = drawn.add_gridspec(rows + 1, 4, height_ratios=[height, *[1.75] * rows])
    drawn.axes[0].set_subplotspec(grid[0, :])
    for place, pair in enumerate(pairs):
        for side, (name, split) in enumerate(((pair.a_id, pair.a_split), (pair.b_id, pair.b_split))):
            axes = drawn.add_subplot(grid[1 + place // 2, 2 * (place % 2) + side])
            axes.imshow(_picture(known[name]))
            axes.set_axis_off()
            text = f"{split}: {plain(name.rsplit('/', 1)[-1], 22)}"
            text += f"\n{pair.tier.replace('_', ' ')} {pair.similarity:.2f}" if side == 0 else f"\n{pair.b_label}"
            axes.set_title(text, fontsize=7, color=ALERT if pair.is_conflict else INK if pair.is_leak else MUTED)
    return drawn


def _evidence(pair: LeakPair) -> str:
    conflict = f" (labels differ: {pair.a_label}, {pair.b_label})" if pair.is_conflict else ""
    return f"{pair.tier.replace('_', ' ')}: {pair.explanation}{conflict}"


def _picture(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")

"""A profile in the terminal and as a figure."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from PIL import Image

from vlm_tune import images
from vlm_tune.profiling.records import CopyGroup
from vlm_tune.profiling.result import ALL, NUM_SAMPLES, SAMPLE_SIZE, Profile
from vlm_tune.profiling.tags import TAGS

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Group
    from rich.table import Table

__all__ = ["figure", "table"]

_MAX_CLASSES = 30
_MAX_LISTED = 10
_MAX_NAMED = 3
_ROW = 0.76
_NAMES = {
    "qwen3_vl": "Qwen3-VL",
    "qwen2_5_vl": "Qwen2.5-VL",
    "lfm2_vl": "LFM2-VL",
    "gemma3": "Gemma 3",
    "gemma4": "Gemma 4",
    "internvl": "InternVL",
}


def table(profile: Profile) -> Group:
    """Return the counts, the facts, what deserves a look, and the files that do not decode."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    facts = Table.grid(padding=(0, 2))
    for name, value in _facts(profile):
        facts.add_row(Text(name, style="bold"), Text(value))
    parts: list[Table] = [_counts(profile), facts]
    if any(profile.tags.values()):
        tags = Table("worth a look", "photos", "why", "such as", box=None, padding=(0, 2, 0, 0), header_style="bold")
        tags.columns[1].justify = "right"
        for tag, ids in profile.tags.items():
            if ids:
                tags.add_row(tag.replace("_", " "), f"{len(ids):,}", TAGS[tag], Text(_some(ids), style="dim"))
        parts.append(tags)
    if profile.conflicts:
        conflicts = Table("copies with different labels", "labels")
        for group in profile.conflicts[:_MAX_LISTED]:
            conflicts.add_row(Text(_some(group.ids)), Text(_some(tuple(dict.fromkeys(group.labels)))))
        _and_more(conflicts, len(profile.conflicts))
        parts.append(conflicts)
    if profile.unreadable:
        broken = Table("does not decode", "why")
        for file in profile.unreadable[:_MAX_LISTED]:
            broken.add_row(Text(file.example_id), Text(file.reason))
        _and_more(broken, len(profile.unreadable))
        parts.append(broken)
    return Group(*parts)


def _counts(profile: Profile) -> Table:
    from rich.table import Table
    from rich.text import Text

    found = Table("class", title=f"{profile.num_examples:,} photos", title_justify="left", show_footer=True)
    found.columns[0].footer = "photos"
    for name in profile.counts:
        found.add_column(name, justify="right", footer=f"{profile.sizes.get(name, 0):,}")
    of_all = profile.counts[ALL]
    # A hundred rows would push everything else off the screen: the ends say how even it is.
    labels = sorted(of_all, key=lambda label: -of_all[label]) if len(of_all) > _MAX_CLASSES else list(of_all)
    half = _MAX_CLASSES // 2
    left_out = len(labels) - 2 * half if len(labels) > _MAX_CLASSES else 0
    for place, label in enumerate(labels):
        if left_out and place == half:
            found.add_row(Text(f"… {left_out} more …", style="dim"), *([""] * len(profile.counts)))
        if not left_out or place < half or place >= len(labels) - half:
            found.add_row(Text(label), *(f"{of[label]:,}" for of in profile.counts.values()))
    return found


def _facts(profile: Profile) -> Iterator[tuple[str, str]]:
    yield "balance", f"largest class {profile.imbalance:.1f} times the smallest"
    if empty := [label for label in profile.classes if not profile.counts[ALL][label]]:
        yield "no example", _some(tuple(empty), limit=_MAX_LISTED)
    if profile.num_groups:
        yield "groups", f"{profile.num_groups:,}"
    for name, size in (("width", profile.width), ("height", profile.height)):
        if size is not None:
            yield name, f"{size.minimum:g} to {size.maximum:g} pixels, median {size.median:g}"
    yield "formats", ", ".join(f"{count:,} {name}" for name, count in profile.formats.items()) or "none"
    if profile.num_shrunk:
        yield "over the pixel budget", f"{profile.num_shrunk:,}, shrunk for every predictor"
    for family, tokens in profile.image_tokens.items():
        if tokens.each is not None:
            spread = f"{tokens.each.minimum:g} to {tokens.each.maximum:g}, median {tokens.each.median:g}"
            refused = f"; refuses {tokens.num_refused}, too long" if tokens.num_refused else ""
            yield f"tokens of {_NAMES.get(family, family)}", f"{spread} a photo, {tokens.total:,} in all{refused}"
    yield "copies", _copies(profile.copies)
    yield "unreadable", f"{len(profile.unreadable):,}"


def _copies(groups: tuple[CopyGroup, ...] | None) -> str:
    if groups is None:
        return "not looked for"
    if not groups:
        return "none"
    kinds = Counter("identical" if group.kind == "identical" else "near" for group in groups)
    said = " and ".join(f"{count:,} {kind}" for kind, count in kinds.items())
    leaks = sum(group.is_leak for group in groups)
    across = f", {leaks:,} across splits: run LeakageChecker" if leaks else ""
    many = f"{len(groups):,} groups" if len(groups) > 1 else "one group"
    return f"{sum(len(group.ids) for group in groups):,} photos in {many} ({said}){across}"


def _some(names: tuple[str, ...], *, limit: int = _MAX_NAMED) -> str:
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more:,} more" if more > 0 else "")


def _and_more(rows: Table, total: int) -> None:
    if (more := total - _MAX_LISTED) > 0:
        rows.add_row(f"and {more:,} more", "")


def figure(profile: Profile) -> Figure:
    """Return a row for each class: sample photos, and how many examples each split has."""
    from vlm_tune.plots.style import COLOURS, new_figure, plain

    labels = list(profile.counts[ALL])
    rows = len(labels)
    centres = [row + 0.5 for row in range(rows)]
    title = f"{profile.num_examples:,} photos, {len(profile.classes)} classes"
    drawn, axes = new_figure(9.0, 1.0 + _ROW * rows, title)
    # One unit is one photo, so that the bars, scaled to end at three, stay beside their photos.
    axes.imshow(_montage(profile, labels), extent=(0, NUM_SAMPLES, rows, 0))
    unit = 3 / max(profile.counts[ALL].values())
    left = [NUM_SAMPLES + 0.3] * rows
    for turn, (name, of) in enumerate(_by_split(profile).items()):
        sizes = [of[label] for label in labels]
        lengths = [size * unit for size in sizes]
        axes.barh(centres, lengths, 0.4, left, color=COLOURS[turn], label=f"{name} n = {sum(sizes)}")
        left = [start + length for start, length in zip(left, lengths, strict=True)]
    for centre, end, label in zip(centres, left, labels, strict=True):
        axes.text(end, centre, f" {profile.counts[ALL][label]}", va="center", fontsize=8)
    axes.set_xlim(0, NUM_SAMPLES + 4)
    axes.set_ylim(rows, 0)
    axes.set_anchor("N")
    axes.set_xticks([])
    axes.set_yticks(centres, [plain(label, 24) for label in labels])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=4)
    return drawn


def _by_split(profile: Profile) -> dict[str, Mapping[str, int]]:
    """Return the counts of each split, with what is in none under its own name."""
    parts = {name: of for name, of in profile.counts.items() if name != ALL}
    totals = profile.counts[ALL]
    rest = {label: total - sum(of[label] for of in parts.values()) for label, total in totals.items()}
    return {**parts, "no split": rest} if any(rest.values()) else parts


def _montage(profile: Profile, labels: list[str]) -> Image.Image:
    montage = Image.new("RGB", (NUM_SAMPLES * SAMPLE_SIZE, len(labels) * SAMPLE_SIZE), "white")
    columns: Counter[str] = Counter()
    for sample in profile.samples:
        photo = images.decode(base64.b64decode(sample.thumbnail.partition(",")[2]), name=sample.example_id)
        # A photo of 32 pixels would be a speck.
        times = max(1, (SAMPLE_SIZE - 4) // max(photo.size))
        photo = photo.resize((photo.width * times, photo.height * times), Image.Resampling.NEAREST)
        photo.thumbnail((SAMPLE_SIZE - 4, SAMPLE_SIZE - 4))
        x = columns[sample.label] * SAMPLE_SIZE + (SAMPLE_SIZE - photo.width) // 2
        y = labels.index(sample.label) * SAMPLE_SIZE + (SAMPLE_SIZE - photo.height) // 2
        montage.paste(photo, (x, y))
        columns[sample.label] += 1
    return montage

"""The table of `inference_speed.py`, as Markdown, from the rows that it measured; and who is not in it, and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

Row = dict[str, Any]
NAMES = {
    "generate-1": "generate, batch 1",
    "generate-16": "generate, batch 16",
    "generate-16-ahead": "generate, batch 16, prepared ahead",
    "stock": "one pass, first tokens, batch 16",
    "stock-ahead": "one pass, first tokens, batch 16, prepared ahead",
    "labels": "one pass per label, batch 16",
    "vllm": "vLLM",
    "ours": "**vlm-tune**",
    "ours-3": "**vlm-tune**, 3 beginnings likely",
    "ours-1": "**vlm-tune**, 1 beginning likely",
}
LIKELY = {"ours": None, "ours-3": 3, "ours-1": 1}
"""How many first tokens are likely to a contender's model; None where it is what random weights make it."""
PEERS = ("generate-16", "generate-1", "stock")
"""Whom the last columns compare with."""
HEAD = (
    "| job | contender | did | whole job, s | images/s | first use, s (photos) | peak GB (reserved) "
    "| least arithmetic, s | share of it | x generate-16 | x generate-1 | x one pass |"
)
VLLM, VLLM_ASKS = "vLLM 0.33.0", {"torch": "==2.14.0", "torchvision": "==0.29.0", "transformers": "<5.21.0,>=5.16.1"}
"""The newest release of November 2026, and what it asks for, as far as it matters here."""


def markdown(rows: Sequence[Row]) -> str:
    """Return the table and what belongs under it; of rows about the same the last counts."""
    latest = list({(row["job"], row["contender"], row["images"]): row for row in rows}.values())
    lines = [HEAD, "|---|---|" + "---:|" * (HEAD.count("|") - 3), *(_line(row, latest) for row in latest)]
    return "\n".join([*lines, "", *_notes(latest)])


def not_run(rows: Sequence[Row]) -> str:
    """Return a line about vLLM where it is not in the table."""
    from packaging.specifiers import SpecifierSet

    if not rows or any(row["contender"] == "vllm" for row in rows):
        return ""
    found = {name: version.split("+")[0] for name, version in rows[-1]["packages"].items() if name in VLLM_ASKS}
    wrong = [name for name, version in found.items() if version not in SpecifierSet(VLLM_ASKS[name])]
    asks = ", ".join(f"{name}{VLLM_ASKS[name]}" for name in wrong)
    have = ", ".join(f"{name} {found[name]}" for name in wrong)
    return f"- {VLLM}: not run, because " + (f"it asks for {asks}, and here are {have}." if wrong else "it is missing.")


def _line(row: Row, rows: Sequence[Row]) -> str:
    cells = [row["job"], NAMES[row["contender"]]]
    if "error" in row:
        return f"| {' | '.join(cells)} | does not finish: {row['error'].splitlines()[0][:100]} |" + " |" * 9
    did = f"{row['images_done']:,} of {row['images']:,}"
    if "labels_done" in row:
        did += f", {row['labels_done']} of {row['classes']} labels"
    whole = f"{row['whole_s']:,.2f}"
    if "evaluator_s" in row:
        whole += f" ({row['evaluator_s']:,.2f} through `Evaluator`)"
    cells += [did, whole, f"{row['images'] / row['whole_s']:,.1f}", f"{row['first_use_s']:.1f} ({row['first_images']})"]
    cells += [f"{row['peak_gb']:.1f} ({row['reserved_gb']:.1f})" if row["peak_gb"] else "not seen"]
    cells += [f"{row['floor_s']:.2f}"]
    cells += [f"{row['floor_s'] / row['whole_s']:.0%}", *(_ratio(row, rows, peer) for peer in PEERS)]
    return f"| {' | '.join(cells)} |"


def _ratio(row: Row, rows: Sequence[Row], contender: str) -> str:
    for other in rows:
        if other["contender"] == contender and other["job"] == row["job"] and "whole_s" in other:
            return f"{row['images'] / row['whole_s'] / (other['images'] / other['whole_s']):.2f}"
    return ""


def _notes(rows: Sequence[Row]) -> list[str]:
    last = rows[-1]
    versions = ", ".join(f"{name} {version}" for name, version in last["packages"].items())
    where = f"{last['gpu']}, {last['cores']} cores; {versions}"
    notes = [f"{where}; matrix products at {_range(row['tflops'] for row in rows)} TFLOP/s."]
    for job in dict.fromkeys(row["job"] for row in rows):
        notes += _job_notes([row for row in rows if row["job"] == job])
    return notes


def _job_notes(rows: Sequence[Row]) -> list[str]:
    row, done = rows[-1], [row for row in rows if "whole_s" in row]
    decode, cut = row["decoded_per_s"], row["prepared_per_s"]
    lines = [
        f"- {row['job']}: {row['tokens']} prompt tokens, {row['image_tokens']} of them for a photo's {row['patches']} "
        f"patches; {row['classes']} labels of {_range(row['label_tokens'])} tokens with the end of the turn, which "
        f"begin with {row['first_tokens']} different ones. All cores decode {decode:,.0f} photos/s "
        f"({row['images'] / decode:.2f} s), and with the processor's part {cut:,.0f}/s ({row['images'] / cut:.2f} s)."
    ]
    loads = [row["load_s"] for row in done if row["load_s"]]
    parts = [f"load {_range(loads)} s"] if loads else []
    if written := [row["new_tokens"] for row in done if row.get("new_tokens")]:
        classes = sum(row["parsed"] for row in done if row.get("new_tokens"))
        parts.append(f"generate writes {_range(written)} tokens, which were a class {classes} times")
    for ours in (row for row in done if row["contender"] in LIKELY):
        photos = "a photo" if ours["compared"] == 1 else f"{ours['compared']} photos"
        runs = ", ".join(f"{run:.2f}" for run in ours["runs_s"])
        parts += [
            f"{NAMES[ours['contender']].replace('*', '')} took {runs} s",
            f"its scores differ from one stock pass per label by {ours['difference']:.1e} nats at most, on {photos}",
        ]
    return [*lines, f"  {'; '.join(parts)}."] if parts else lines


def _range(values: Iterable[float]) -> str:
    ordered = sorted(values)
    texts = [f"{value:.1f}".removesuffix(".0") if value < 100 else f"{value:.0f}" for value in ordered]
    return " to ".join(dict.fromkeys((texts[0], texts[-1]))) if texts else "no"

"""The table of `train_speed.py`, as Markdown, from the rows that it measured; and who is not in it, and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

Row = dict[str, Any]
NAMES = {"defaults": "TRL, its defaults", "careful": "TRL, set with care", "ours": "**vlm-tune**"}
HEAD = (
    "| job | batch | contender | samples/s | whole job, s | first step after, s | peak GB (reserved) "
    "| least arithmetic, s | share of it | x TRL's defaults | x TRL with care |"
)
PINS = {
    "Unsloth 2026.10.9": {"torch": "<2.15", "transformers": "<=5.17.0", "trl": "<=1.15.0", "datasets": "<5.0.0"},
    "ms-swift 4.6.0": {"transformers": "<5.20.0", "trl": "<1.0", "peft": "<0.21", "datasets": "<4.8.5"},
    "LLaMA-Factory 0.9.5": {"transformers": "<=5.6.0", "trl": "<=0.24.0", "peft": "<=0.18.1", "accelerate": "<=1.11.0"},
    "axolotl 0.19.0": {"transformers": "==5.16.1", "trl": "==1.9.0", "peft": "==0.20.0", "accelerate": "==1.13.0"},
}
"""What the newest releases of November 2026 ask for, as far as it matters here."""
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")
"""Whose versions each row names."""
WHAT = ("job", "photos", "form", "batch", "contender", "setting", "limit_gib", "tokens")
"""What a row is about."""


def markdown(rows: Sequence[Row]) -> str:
    """Return the table and what belongs under it; of rows about the same the last counts."""
    latest = {tuple(row.get(key) for key in WHAT): row for row in rows}
    timed = sorted((row for row in latest.values() if row["job"] != "curves"), key=_order)
    curves = [row for row in latest.values() if row["job"] == "curves"]
    parts = []
    if timed:
        lines = [HEAD, "|---|" + "---:|" * (HEAD.count("|") - 2)]
        parts.append("\n".join([*lines, *(_line(row, timed) for row in timed)]))
        parts.append("\n".join(_notes(timed)))
    for photos, form in dict.fromkeys((row["photos"], row["form"]) for row in curves):
        same = [row for row in curves if (row["photos"], row["form"]) == (photos, form)]
        parts.append(_curve(f"{photos} {form}", same))
    return "\n\n".join(parts)


def _order(row: Row) -> tuple[Any, ...]:
    contender = list(NAMES).index(row["contender"])
    return row["job"] != "headline", row["form"], row["limit_gib"] or 0, row["batch"], contender


def _line(row: Row, rows: Sequence[Row]) -> str:
    name = row["job"] + (f" {row['form']}" if row["job"] == "headline" else "")
    name += f", {row['limit_gib']:g} GiB" if row["limit_gib"] else ""
    setting = f", {row['setting']}" if row.get("setting") else ""
    cells = [name, str(row["batch"]), NAMES[row["contender"]] + setting]
    if "error" in row:
        return f"| {' | '.join(cells)} | does not finish: {row['error'].splitlines()[0][:100]} |" + " |" * 7
    cells += [f"{row['samples_per_s']:.1f}", f"{row['whole_s']:,.1f}", f"{row['start_s']:.1f}"]
    cells += [f"{row['peak_gb']:.1f} ({row['reserved_gb']:.1f})", f"{row['floor_s']:.1f}"]
    cells += [f"{row['floor_s'] / row['whole_s']:.0%}", *(_ratio(row, rows, peer) for peer in ("defaults", "careful"))]
    return f"| {' | '.join(cells)} |"


def _ratio(row: Row, rows: Sequence[Row], contender: str) -> str:
    # The defaults of TRL have a batch size of their own in `cifar`; elsewhere the same batch is compared.
    same = [
        other
        for other in rows
        if other["contender"] == contender
        and "whole_s" in other
        and all(other[key] == row[key] for key in ("job", "form", "limit_gib", "tokens"))
        and (row["job"] == "cifar" or other["batch"] == row["batch"])
    ]
    return f"{same[0]['whole_s'] / row['whole_s']:.2f}" if same else ""


def _notes(rows: Sequence[Row]) -> list[str]:
    last, done = rows[-1], [row for row in rows if "error" not in row]
    versions = ", ".join(f"{name} {version}" for name, version in last["packages"].items())
    notes = [
        f"{last['gpu']}; {versions}; matrix products at {_range(row['tflops'] for row in rows)} TFLOP/s; "
        f"beside the reserved memory CUDA itself holds {_range(row['context_gb'] for row in rows)} GB."
    ]
    for job, form in dict.fromkeys((row["job"], row["form"]) for row in done):
        same = [row for row in done if (row["job"], row["form"]) == (job, form)]
        trained = " or ".join(f"{count / 1e6:.1f}" for count in sorted({row["trained"] for row in same}))
        parts = [f"{_range(row['tokens'] for row in same)} tokens a sample", f"{trained} M trained"]
        for contender in dict.fromkeys(row["contender"] for row in same):
            shares = _range(100 * row["share_done"] for row in same if row["contender"] == contender)
            parts.append(f"{NAMES[contender].strip('*')} did {shares} %")
        notes.append(f"- {job} {form}: {', '.join(parts)}.")
    if not done:
        return notes
    plans = [row["plan_s"] for row in done if "plan_s" in row]
    parts = [f"imports {_range(row['import_s'] for row in rows)} s", f"load {_range(row['load_s'] for row in done)} s"]
    parts += [f"plan {_range(plans)} s"] if plans else []
    return [*notes, f"- Before the clock starts: {', '.join(parts)}."]


def _range(values: Iterable[float]) -> str:
    ordered = sorted(values)
    texts = [f"{value:.1f}".removesuffix(".0") if value < 100 else f"{value:.0f}" for value in ordered]
    return " to ".join(dict.fromkeys((texts[0], texts[-1])))


def _curve(name: str, rows: Sequence[Row]) -> str:
    losses = {row["contender"]: row["losses"] for row in rows if "losses" in row}
    if set(losses) != {"careful", "ours"}:
        return f"Losses, {name}: only {', '.join(losses) or 'nobody'} has finished."
    pairs = list(zip(losses["careful"], losses["ours"], strict=False))
    lines = [f"Losses on the same eight photos at every step, {name}:", ""]
    lines += ["| step | TRL | vlm-tune | difference |", "|---|---:|---:|---:|"]
    lines += [f"| {n} | {a:.5f} | {b:.5f} | {b - a:+.1e} |" for n, (a, b) in enumerate(pairs, start=1)]
    return "\n".join([*lines, "", f"Largest difference: {max(abs(a - b) for a, b in pairs):.1e} nats a token."])


def not_run(rows: Sequence[Row]) -> str:
    """Return a line about every other library whose own pins do not allow what the rows were measured with."""
    from packaging.specifiers import SpecifierSet

    lines, found = [], rows[-1]["packages"] if rows else {}
    for peer, pins in PINS.items():
        wrong = [name for name in pins if name in found and found[name].split("+")[0] not in SpecifierSet(pins[name])]
        asks = ", ".join(f"{name}{pins[name]}" for name in wrong)
        have = ", ".join(f"{name} {found[name]}" for name in wrong)
        because = f"it asks for {asks}, and here are {have}" if wrong else "nobody installed it"
        lines.append(f"- {peer}: not run, because {because}.")
    return "\n".join(lines)

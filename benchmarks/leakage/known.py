"""Copies that are known without planting: a folder made of them, and tiles that share a number."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vlm_tune import Dataset, LeakageChecker, LeakageReport, Task
from vlm_tune.embedding import PixelEmbedder
from vlm_tune.records import Example

__all__ = ["near_duplicates", "tile_groups"]

NEAR = 250
"""Photos of one tile, taken one after the other, have numbers at most so far apart."""


def near_duplicates(data: Path) -> str:
    """Check the changed copies in `near_duplicates` against the photos they were made from."""
    root = data / "near_duplicates"
    base = sorted((root / "base_images").iterdir())
    changed = [path for folder in ("mixed_images", "formats_images", ".") for path in sorted((root / folder).iterdir())]
    changed = [path for path in changed if path.is_file() and "ukbench" in path.name]
    examples = [
        Example(id=path.relative_to(root).as_posix(), image=path, label="ab"[number == 0])
        for number, path in enumerate((*base, *changed))
    ]
    splits = {it.id: "train" if "base_images" in it.id else "test" for it in examples}
    data_set = Dataset(examples, task=Task(prompt="Which?", classes=("a", "b")), splits=splits)
    report = LeakageChecker(PixelEmbedder()).check(data_set)
    lines = []
    for example in (it for it in examples if splits[it.id] == "test"):
        said = [pair for pair in report.leaks if example.id in report.side(pair, "a")]
        right = [pair for pair in said if _number(pair.a_id) == _number(pair.b_id)]
        if example.id in report.unreadable:
            lines.append(f"- {example.id}: cannot be read")
        elif right:
            lines.append(f"- {example.id}: {right[0].tier} of its original, {right[0].explanation}")
        else:
            lines.append(f"- {example.id}: **not found**")
        lines += [f"  - **wrongly** called {pair.tier} of {pair.b_id}" for pair in said if pair not in right]
    return "\n".join(lines)


def tile_groups(report: LeakageReport, train: Sequence[str], test: Sequence[str]) -> str:
    """Say how many leaks between tiles are between photos whose numbers tell that they show one tile."""
    near = [abs(_tile(pair.a_id) - _tile(pair.b_id)) <= NEAR for pair in report.leaks]
    mixed = [it for pair, it in zip(report.leaks, near, strict=True) if pair.a_label != pair.b_label]
    series = [_series(pair.a_id) == _series(pair.b_id) for pair in report.leaks]
    apart = np.array([_tile(it) for it in test])[:, None] - np.array([_tile(it) for it in train])[None]
    return (
        f"Of {len(near)} leaked pairs of tiles {sum(near)} have `num` at most {NEAR} apart, which "
        f"{np.mean(np.abs(apart) <= NEAR):.2%} of all pairs have; "
        f"of the {len(mixed)} between two classes, {sum(mixed)}. "
        f"{sum(series)} are within one `exp` series: a series is an exposure setting, not a tile."
    )


def _number(name: str) -> str:
    found = re.search(r"ukbench(\d+)", name)
    return found[1] if found else ""


def _tile(name: str) -> int:
    return int(name.rsplit("_", 1)[1].split(".")[0])


def _series(name: str) -> str:
    return name.split("/")[1].split("_")[0]

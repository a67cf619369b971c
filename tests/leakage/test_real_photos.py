"""The check as a whole on real photos: what leaks by itself is found, with its overlap."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlm_tune import Dataset, LeakageChecker, Task
from vlm_tune.embedding import PixelEmbedder
from vlm_tune.records import Example

STEEL = {
    ("rolled-in_scale_62", "rolled-in_scale_63"): 0.58,
    ("crazing_206", "crazing_207"): 0.60,
    ("pitted_surface_55", "pitted_surface_56"): 0.35,
    ("pitted_surface_18", "pitted_surface_20"): 0.43,
    ("scratches_24", "scratches_294"): 0.62,
}
"""Neighbours cut from one strip, and one place turned by a quarter; and how much of each the other shows."""


def _kind(name: str) -> str:
    return name.rsplit("_", 1)[0]


@pytest.mark.data
def test_known_neighbours_of_the_steel_set_are_found_across_a_split(test_data: Path) -> None:
    folder = test_data / "neu_det"
    firsts, seconds = {first for first, _ in STEEL}, {second for _, second in STEEL}
    others = [path.stem for kind in sorted(folder.iterdir()) for path in sorted(kind.glob("*.jpg"))[::9]]
    names = dict.fromkeys((*firsts, *seconds, *others))
    examples = [Example(id=it, image=folder / _kind(it) / f"{it}.jpg", label=_kind(it)) for it in names]
    task = Task(prompt="Which defect?", classes=tuple(sorted({_kind(it) for it in names})))
    splits = {it: "test" if it in firsts else "train" for it in names}
    report = LeakageChecker(PixelEmbedder()).check(Dataset(examples, task=task, splits=splits))
    found = {(pair.a_id, pair.b_id): pair for pair in report.leaks}
    assert set(STEEL) <= set(found)
    assert all(pair.a_label == pair.b_label for pair in report.leaks)
    for pair, overlap in STEEL.items():
        assert found[pair].evidence["overlap"] == pytest.approx([overlap, overlap], abs=0.02)
    assert abs(found["scratches_24", "scratches_294"].evidence["rotation_deg"]) == pytest.approx(90, abs=0.5)

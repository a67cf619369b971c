"""Two evaluations share a file and come back as they were."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlm_tune.errors import StorageError
from vlm_tune.evaluation import Evaluation
from vlm_tune.evaluation.sides import load_sides, save_sides

TRUTH = {"1": "dent", "2": "crack"}


def side(name: str, **changed: str) -> Evaluation:
    return Evaluation.from_answers(name, truth=TRUTH, answers=TRUTH | changed, classes=["crack", "dent"])


def test_both_sides_and_what_is_about_them_come_back(tmp_path: Path) -> None:
    sides = {"left": side("one"), "right": side("two")}
    path = save_sides(tmp_path / "both.parquet", sides, kind="pair", about={"margin": 0.1})
    loaded, about = load_sides(path, ("left", "right"), kind="pair")
    assert about == {"margin": 0.1}
    for name, evaluation in sides.items():
        assert loaded[name].table.equals(evaluation.table)
        assert loaded[name].about() == evaluation.about()


def test_another_kind_is_refused(tmp_path: Path) -> None:
    path = save_sides(tmp_path / "both.parquet", {"left": side("one")}, kind="pair", about={})
    with pytest.raises(StorageError, match="not a saved trio"):
        load_sides(path, ("left",), kind="trio")

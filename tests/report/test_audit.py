"""The sections about labels in doubt: suspects with their evidence, and what the rulings change."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.report.conftest import Page
from vlm_tune.audit import LabelAudit, Ruling, Rulings
from vlm_tune.evaluation import Evaluation
from vlm_tune.report import Report

CLASSES = ("crack", "dent", "<script>scratch</script>")


def test_suspects_and_rulings_are_shown_and_escaped(read: Callable[[Path], Page], tmp_path: Path) -> None:
    truth = {f"{at:02d}.jpg": CLASSES[at % 3] for at in range(60)}
    said = truth | {"02.jpg": "dent"}
    names = ("base", "tuned")
    systems = [Evaluation.from_answers(name, truth=truth, answers=said, classes=CLASSES) for name in names]
    audit = LabelAudit(systems)
    sheet = audit.sheet(suspects=1, controls=2)
    ruling = Ruling(example_id="02.jpg", label=CLASSES[2], ruling="relabel", new_label="dent")
    rescored = audit.rescore(Rulings(sheet=sheet, rulings=(ruling,)))
    path = Report(systems, sections=[audit, rescored]).save(tmp_path / "report.html")
    page = read(path)
    assert "Labels in doubt" in page.words
    assert "<script>scratch</script>, or dent?" in page.words or "2 of 2 disagree" in page.words
    assert "With the labels put right" in page.words
    assert "<script>scratch" not in path.read_text(encoding="utf-8")
    data = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert data["label_audit"]["suspects"][0]["example_id"] == "02.jpg"
    assert data["rescored"]["rulings"]["rulings"][0]["new_label"] == "dent"
    assert data["rescored"]["after"][0]["accuracy"]["value"] == 1.0


def test_an_audit_without_suspects_says_so(read: Callable[[Path], Page], tmp_path: Path) -> None:
    truth = {f"{at:02d}.jpg": CLASSES[at % 3] for at in range(30)}
    system = Evaluation.from_answers("base", truth=truth, answers=truth, classes=CLASSES)
    page = read(Report([system], sections=[LabelAudit([system])]).save(tmp_path / "report.html"))
    assert "Photos that nobody doubts" in page.words
    assert "The most suspicious labels" not in page.words

"""The scoreboard says what training took; the merge says what took long."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vlm_tune.cost import Cost
from vlm_tune.evaluation import CostModel, Evaluation
from vlm_tune.records import Money
from vlm_tune.report import Report

Read = Callable[[Path], Any]
Three = tuple[Evaluation, Evaluation, Evaluation]


def test_training_is_on_the_scoreboard_and_the_merge_says_what_took_long(
    damage: Three, trained: list[object], tmp_path: Path, read: Read
) -> None:
    page = read(Report(damage, sections=trained).save(tmp_path / "report.html"))
    heads = [found["data-label"] for found in page.all("td") if "data-label" in found]
    assert heads[:7] == ["Accuracy", "Coverage", "Time", "Photos/s", "Cost", "per 1,000", "Training"]
    values = [found["data-value"] for found in page.all("td") if found.get("data-label") == "Training"]
    assert values == ["", "", "492.0"]
    for words in ("8 min 12 s", "Written in11.0 s", "Proved in58.0 s", "Time in all1 min 11 s"):
        assert words in page.words
    costs = CostModel(api=Cost.exact(0.01, basis="a bill"), training=Money(usd=0.55, basis="H100 by the hour"))
    page = read(Report(damage, sections=[*trained, costs]).save(tmp_path / "report.html"))
    assert "8 min 12 s, $0.55" in page.words

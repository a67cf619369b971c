"""The sweep's section: every trial, both scales, the verdict; and what a hostile reason may not do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.experiments.test_sweep_result import result_of, trial
from vlm_tune.evaluation import Evaluation
from vlm_tune.experiments import Confirmation
from vlm_tune.report import Report

Three = tuple[Evaluation, Evaluation, Evaluation]


def test_the_section_has_every_trial_and_the_verdict(
    damage: Three, tmp_path: Path, read: Callable[[Path], Any]
) -> None:
    winner, start = trial(2, right=45, r="64", use_rslora="yes"), trial(0, right=40)
    assert winner.score is not None and start.score is not None and winner.accuracy is not None
    again = Confirmation(
        seeds=(1, 2, 3),
        winner=(winner.score,) * 3,
        start=(start.score,) * 3,
        num_compared=3,
        chosen_at=winner.accuracy,
        fresh=False,
    )
    pruned = trial(3, state="pruned", right=20)
    result = result_of(start, trial(1, state="failed"), winner, pruned, confirmation=again)
    page = read(Report(damage, sections=[result]).save(tmp_path / "report.html"))
    for words in (
        "Search for better settings",
        "4 trials of Qwen3-VL-8B, judged on 50 photos of the validation split. The test photos were not looked at.",
        result.sentence,
        "cuda:0 ran out of <memory>",
        "290.0 % [78.6, 95.7]64160.252*",
        "340.0 % [27.6, 53.8]1616",
        "1 of 2",
        "winner: trial 2",
        "2 finished trials",
        "Better than the startnot established",
        "seed 290.0 % [78.6, 95.7]80.0 % [67.0, 88.8]",
    ):
        assert words in page.words, words
    data = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["sweep"]
    assert data["best"] == 2
    assert data["confirmation"]["verdict"] == "not_established"
    assert data["confirmation"]["sentence"] == again.sentence
    assert "run_dir" not in data and "score" not in data["trials"][0]


def test_a_sweep_in_which_nothing_was_finished_is_a_section_too(
    damage: Three, tmp_path: Path, read: Callable[[Path], Any]
) -> None:
    result = result_of(trial(0, state="failed")).model_copy(update={"importance": {}, "adapter": None})
    page = read(Report(damage, sections=[result]).save(tmp_path / "report.html"))
    assert "None of 1 trials was finished." in page.words

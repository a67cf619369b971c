"""The pipeline step: it says nothing, and what it hands back can be stored."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

import vlm_tune as vt
from tests.drawn import draw_some
from vlm_tune import demo
from vlm_tune.testing import ScriptedPredictor

SCRIPT = Path(__file__).parents[2] / "examples" / "embed_in_a_pipeline.py"


@pytest.fixture(scope="module")
def step() -> Any:
    spec = importlib.util.spec_from_file_location("embed_in_a_pipeline", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    draw_some(tmp_path / "photos", num_train=30, num_test=0, num_twins=0, flat=True, side=64)
    return tmp_path / "photos"


def test_a_decision_comes_back_and_nothing_is_printed(
    step: Any, photos: Path, small_demo_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rival = ScriptedPredictor(lambda example: "dent", name="the rival")
    config = vt.TrainConfig(epochs=1, learning_rate=3e-3)
    decision = step.tune_and_judge(
        photos, demo.task(), model=small_demo_model, rival=rival, run_dir=tmp_path / "run", config=config
    )
    assert decision.verdict in ("better", "worse", "equivalent", "not_established")
    assert decision.accuracy.n == decision.comparison["n"] > 0
    assert len(decision.mistakes) == decision.comparison["losses"]
    assert all(row["reference_label"] == row["truth"] != row["candidate_label"] for row in decision.mistakes)
    assert step.Decision.model_validate_json(decision.model_dump_json()) == decision

    found = step.answer(decision.model, demo.task(), sorted(photos.rglob("*.jpg"))[:3])
    assert [one.outcome for one in found] == ["answered"] * 3
    assert capfd.readouterr() == ("", "")


def test_an_error_is_a_decision_too(step: Any, tmp_path: Path, small_demo_model: Path) -> None:
    rival = ScriptedPredictor(lambda example: "dent", name="the rival")
    decision = step.tune_and_judge(
        tmp_path / "nothing", demo.task(), model=small_demo_model, rival=rival, run_dir=tmp_path / "run"
    )
    assert (decision.verdict, decision.model) == ("failed", None)
    assert "DataError" in decision.reason and "nothing" in decision.reason

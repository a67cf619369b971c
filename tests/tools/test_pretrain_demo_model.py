"""The script that pretrains the demo's model: it runs, and what it writes is a model like any other."""

from __future__ import annotations

from pathlib import Path

import vlm_tune as vt
from tests.processes import run
from vlm_tune.testing import tiny_dataset

SCRIPT = Path(__file__).parents[2] / "tools/pretrain_demo_model.py"


def test_a_few_steps_leave_a_model_that_answers(tmp_path: Path) -> None:
    options = ["--tiny", "--steps", "2", "--batch", "8", "--workers", "0", "--eval-pictures", "16"]
    done = run(SCRIPT, *options, "--out", tmp_path / "model")
    assert done.status == 0, done.err
    data = tiny_dataset()
    answers = list(vt.VLM(tmp_path / "model").predict(list(data), data.task))
    assert {answer.outcome for answer in answers} == {"answered"}
    assert "synthetic" in (tmp_path / "model/README.md").read_text()


def test_the_embedded_model_is_small_and_whole() -> None:
    folder = vt.demo.model_path()
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 8 * 2**20
    assert vt.VLM(folder).config.model_type == "qwen3_vl"


def test_the_script_shares_no_code_with_the_photos() -> None:
    for path in SCRIPT.parent.rglob("*.py"):
        assert "vlm_tune" not in "".join(
            line for line in path.read_text().splitlines() if line.startswith(("import", "from"))
        )

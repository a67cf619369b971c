"""The command line: thin, with one-message errors."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.drawn import draw_some
from tests.processes import Ran, run
from vlm_tune import __version__, demo
from vlm_tune.cli import _typed
from vlm_tune.evaluation import Evaluation


def vlm_tune(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vlm_tune", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def vlm_tune_forked(*arguments: str, cwd: Path) -> Ran:
    """The same in a process that has torch imported already, which these commands need."""
    return run("-m", "vlm_tune", *arguments, cwd=cwd)


def test_version() -> None:
    assert vlm_tune("--version").stdout.strip() == __version__


@pytest.mark.parametrize("command", ["demo", "run", "check", "plan", "fit", "evaluate", "compare", "report", "doctor"])
def test_every_command_explains_itself(command: str) -> None:
    done = vlm_tune(command, "--help")
    assert done.returncode == 0
    assert "Usage" in done.stdout


def test_a_missing_recipe_is_one_message(tmp_path: Path) -> None:
    done = vlm_tune("run", "nowhere.yaml", cwd=tmp_path)
    assert done.returncode == 1
    assert "nowhere.yaml does not exist" in done.stderr
    assert "Traceback" not in done.stderr


def test_compare_and_report_read_saved_evaluations(tmp_path: Path) -> None:
    truth = {str(i): "ab"[i % 2] for i in range(40)}
    for name, right in (("good", 36), ("poor", 20)):
        answers = {key: label if int(key) < right else "ba"["ab".index(label)] for key, label in truth.items()}
        evaluation = Evaluation.from_answers(name, truth=truth, answers=answers, classes=("a", "b"))
        evaluation.save(tmp_path / f"{name}.parquet")
    compared = vlm_tune("compare", "good.parquet", "poor.parquet", cwd=tmp_path)
    assert compared.returncode == 0, compared.stderr
    assert "better" in compared.stdout
    reported = vlm_tune("report", "poor.parquet", "good.parquet", "--out", "both.html", cwd=tmp_path)
    assert reported.returncode == 0, reported.stderr
    assert reported.stdout.strip().endswith("both.html")
    assert (tmp_path / "both.html").stat().st_size > 1000


def test_the_command_that_a_report_names_writes_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", "a-secret-key")
    truth = {str(i): "ab"[i % 2] for i in range(8)}
    sides = ["base model.parquet", "it's tuned.parquet"]
    for name in sides:
        evaluation = Evaluation.from_answers(Path(name).stem, truth=truth, answers=truth, classes=("a", "b"))
        evaluation.save(tmp_path / name)
    vlm_tune("report", *sides, "--out", "the page.html", cwd=tmp_path)
    page, numbers = tmp_path / "the page.html", tmp_path / "the page.json"
    command = json.loads(numbers.read_text())["provenance"]["command"]
    assert command == "vlm-tune report 'base model.parquet' 'it'\"'\"'s tuned.parquet' --out 'the page.html'"
    assert "a-secret-key" not in page.read_text() + numbers.read_text()
    page.unlink()
    done = vlm_tune(*shlex.split(command)[1:], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert page.exists()


def test_the_command_of_several_processes_begins_with_their_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _typed("run", Path("my recipe.yaml")) == "vlm-tune run 'my recipe.yaml'"
    for name, value in {"RANK": "0", "WORLD_SIZE": "4", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    assert _typed("run", "recipe.yaml") == "torchrun --nproc-per-node 4 -m vlm_tune run recipe.yaml"


def test_plan_lists_every_gpu_with_a_price(tmp_path: Path) -> None:
    draw_some(tmp_path / "photos", num_train=12, num_test=6, num_twins=0, flat=False)
    (tmp_path / "recipe.yaml").write_text(
        f"task: {{prompt: 'Which damage?', classes: [crack, dent, scratch]}}\n"
        f"data: {{folder: photos}}\nmodel: {demo.model_path()}\nrun_dir: runs/damage\n"
    )
    done = vlm_tune_forked("plan", "recipe.yaml", cwd=tmp_path)
    assert done.status == 0, done.err
    for words in ("layers adapted", "passes", "A10G", "H200", "4-bit"):
        assert words in done.out

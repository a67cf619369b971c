"""The merged folder, served by stock transformers in another process, answers like the local model."""

from __future__ import annotations

import runpy
import shlex
import sys
from pathlib import Path

import pytest

from tests.serving.conftest import STOCK, free_port, get, serving
from vlm_tune.data import Dataset
from vlm_tune.evaluation import Evaluator, ServingParity, serving_parity
from vlm_tune.predictors import OpenAICompatible, OpenAIOptions
from vlm_tune.serving import serving_check
from vlm_tune.training import Adapter
from vlm_tune.vlm import VLM

EXAMPLE = Path(__file__).parents[2] / "examples" / "serve_and_check.py"


def same_words(parity: ServingParity) -> bool:
    sides = [[(answer.raw or "").strip() for answer in side.predictions] for side in (parity.local, parity.served)]
    return sides[0] == sides[1]


def test_lfm2_vl_answers_the_same_where_vlm_tune_is_not_imported(
    lfm2_adapter: Adapter, unseen: Dataset, tmp_path: Path
) -> None:
    merged = lfm2_adapter.path.parent / "merged"
    command = serving_check(merged, name="colours").raise_if_failed().command("vllm")
    local = VLM(merged, answer="generate", name="local")
    with serving(command.argv, tmp_path) as url:
        free = OpenAICompatible(url, command.model, options=OpenAIOptions(constraint="none"), name="served")
        kept = OpenAICompatible(url, command.model, name="served, kept to the classes")
        parity = serving_parity(local, free, unseen, run_dir=tmp_path / "runs")
        scored = serving_parity(VLM(merged, name="scored"), kept, unseen, run_dir=tmp_path / "runs")
        assert get(url.replace("/v1", "/imported")) == []
    assert same_words(parity)
    assert parity.agreement.value == scored.agreement.value == 1.0
    # The answers mean something: they are right where the base's are not.
    assert parity.served.accuracy.value > 0.9
    assert Evaluator(unseen).run(VLM(lfm2_adapter.base.model)).accuracy.value < 0.7


def run_example(merged: Path, unseen: Dataset, folder: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    for example in unseen:
        path = folder / "photos" / f"{example.id}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(example.read())
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), str(merged), "photos", *options])
    runpy.run_path(str(EXAMPLE), run_name="__main__")


def test_the_example_serves_qwen3_vl_and_finds_the_same_answers(
    qwen3_adapter: Adapter,
    unseen: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    port = free_port()
    program = shlex.join([sys.executable, "-I", str(STOCK)])
    options = ("--program", program, "--port", str(port), "--answer", "generate")
    run_example(qwen3_adapter.path.parent / "merged", unseen, tmp_path, monkeypatch, *options)
    parity = ServingParity.load(tmp_path / "runs/serving/parity.parquet")
    assert same_words(parity)
    assert parity.agreement.value == 1.0
    assert parity.served.accuracy.value > 0.9
    assert "answers like" in capsys.readouterr().out
    with pytest.raises(OSError, match="refused"):
        get(f"http://127.0.0.1:{port}/health")


def test_the_example_says_why_a_server_did_not_start(
    qwen3_adapter: Adapter, unseen: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = shlex.join([sys.executable, "-c", "raise SystemExit('no GPU here')"])
    with pytest.raises(SystemExit, match=r"(?s)ended with status 1.*no GPU here") as caught:
        run_example(qwen3_adapter.path.parent / "merged", unseen, tmp_path, monkeypatch, "--program", program)
    assert "server.log" in str(caught.value)


def test_the_example_says_plainly_that_no_server_is_installed(
    qwen3_adapter: Adapter,
    unseen: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit, match="neither vLLM nor SGLang is installed here"):
        run_example(qwen3_adapter.path.parent / "merged", unseen, tmp_path, monkeypatch)
    assert "vllm serve" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()

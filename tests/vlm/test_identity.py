from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vlm_tune.vlm import identity
from vlm_tune.vlm.identity import folder_digest


@pytest.fixture
def folder(tiny_qwen3_vl: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_qwen3_vl, tmp_path / "model"))


def test_a_copy_is_the_same_model(tiny_qwen3_vl: Path, folder: Path) -> None:
    (folder / "merge_report.json").write_text("{}")
    (folder / "README.md").write_text("A copy.")
    assert folder_digest(folder) == folder_digest(tiny_qwen3_vl)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "chat_template.jinja", "processor_config.json"])
def test_every_file_that_changes_answers_counts(folder: Path, file: str) -> None:
    before = folder_digest(folder)
    (folder / file).write_text((folder / file).read_text() + "\n")
    assert folder_digest(folder) != before


@pytest.mark.parametrize("whole_file", [2**30, 0], ids=["whole", "sampled"])
def test_changed_weights_are_another_model(folder: Path, whole_file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_WHOLE_FILE", whole_file)
    before = folder_digest(folder)
    assert folder_digest(folder) == before
    weights = load_file(folder / "model.safetensors")
    name = "model.language_model.layers.1.self_attn.q_proj.weight"
    weights[name] = weights[name] + torch.finfo(torch.bfloat16).eps * weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert folder_digest(folder) != before

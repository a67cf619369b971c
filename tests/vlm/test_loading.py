from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2Config
from transformers.utils import logging

from vlm_tune.errors import ModelError
from vlm_tune.vlm import VLM
from vlm_tune.vlm.loading import model_folder, pick_device, pick_dtype


@pytest.fixture
def folder(tiny_qwen3_vl: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_qwen3_vl, tmp_path / "model"))


def test_ids_and_folders_are_told_apart(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert model_folder("Qwen/Qwen3-VL-8B-Instruct") is None
    assert model_folder(folder) == folder
    monkeypatch.chdir(folder.parent)
    assert model_folder("model") == Path("model")


@pytest.mark.parametrize("missing", ["/no/such/folder", "runs/damage/merged", "./merged", Path("merged")])
def test_a_folder_that_does_not_exist(missing: str | Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        VLM(missing)


def test_a_file_an_empty_folder_and_an_adapter_are_no_models(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is a file"):
        VLM(folder / "config.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"no config\.json"):
        VLM(tmp_path / "empty")
    (tmp_path / "empty" / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"adapter.*Adapter\.load"):
        VLM(tmp_path / "empty")


def test_pickled_or_missing_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="no weights"):
        VLM(folder)
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match="pickled"):
        VLM(folder)


def test_a_text_model_is_refused_before_its_weights_are_read(folder: Path) -> None:
    Qwen2Config().save_pretrained(folder)
    with pytest.raises(ModelError, match="'qwen2' model, which does not answer questions about images"):
        VLM(folder).fingerprint


@pytest.mark.parametrize("text", ["not json", "{}", json.dumps({"model_type": "unheard_of"})])
def test_a_config_that_transformers_cannot_use(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelError, match="cannot read the model in"):
        VLM(folder).config


def test_an_id_that_cannot_be_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"'nobody/nothing' is no folder here.*check the spelling"):
        VLM("nobody/nothing").load()


def test_missing_tensors_are_not_filled_with_noise(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    lost = "model.language_model.layers.1.self_attn.q_proj.weight"
    del weights[lost]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"1 tensors are missing.*{lost}"):
        VLM(folder).load()


def test_truncated_weights_are_an_error(folder: Path) -> None:
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ModelError, match="cannot read the model in"):
        VLM(folder).load()


def test_a_folder_without_a_processor_is_an_error(folder: Path) -> None:
    for name in ("processor_config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(ModelError):
        VLM(folder).load()


def test_device_and_type_are_chosen_sensibly(folder: Path) -> None:
    assert pick_device("cpu") == "cpu"
    assert pick_device("auto") in ("cpu", "cuda", "mps")
    with pytest.raises(ModelError, match="'abacus' cannot be used"):
        pick_device("abacus")
    config = VLM(folder).config
    config.dtype = torch.float32
    assert pick_dtype("cpu", config) == "float32"
    assert pick_dtype("cuda", config) == "bfloat16"
    config.dtype = torch.float16
    assert pick_dtype("cuda", config) == "float16"


def test_loading_is_silent_and_leaves_the_progress_bars_as_they_were(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert logging.is_progress_bar_enabled()
    VLM(folder, device="cpu").load()
    assert logging.is_progress_bar_enabled()
    assert "Loading weights" not in capsys.readouterr().err

"""Training adapters on four-bit weights, and merging them into the weights as they are stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file

import vlm_tune as vt
from vlm_tune.errors import AdapterError, ModelError
from vlm_tune.training.attach import fresh
from vlm_tune.training.merging import probe
from vlm_tune.training.merging.merge import MergeReport
from vlm_tune.vlm import VLM, Resident, loading

CONFIG = vt.TrainConfig(r=4, lora_alpha=16, learning_rate=0.02, epochs=1)


@pytest.fixture(scope="module", params=["qwen3_vl", "lfm2_vl"])
def base(request: pytest.FixtureRequest) -> VLM:
    return VLM(request.getfixturevalue(f"bold_{request.param}"), device="cpu", quantization="nf4")


@pytest.fixture(scope="module")
def adapter(base: VLM, colours: vt.Dataset, tmp_path_factory: pytest.TempPathFactory) -> vt.Adapter:
    before = {name: tensor.clone() for name, tensor in base.load().model.state_dict().items()}
    adapter = vt.LoRATrainer(base, CONFIG).fit(colours, run_dir=tmp_path_factory.mktemp("run"))
    after = base.load().model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    return adapter


def test_training_learns(adapter: vt.Adapter) -> None:
    assert adapter.training.final_loss < 0.9 * adapter.training.losses[0]


def test_adapters_are_trained_in_float32(adapter: vt.Adapter) -> None:
    # Told that the base is quantised, TRL rounds them to bfloat16.
    tensors = load_file(adapter.path / "adapter_model.safetensors").values()
    assert not any(torch.equal(tensor, tensor.bfloat16().float()) for tensor in tensors)


def test_adapters_come_off_and_may_be_put_on_again(base: VLM) -> None:
    resident = base.load()
    quantised = {name for name, module in resident.model.named_modules() if isinstance(module, Linear4bit)}
    pattern = resident.family.target_modules(CONFIG.regions, CONFIG.kinds)
    for _ in range(2):
        with resident.adapted(fresh(CONFIG, pattern)) as wrapped:
            layers = [module for module in wrapped.modules() if isinstance(module, BaseTunerLayer)]
            assert any(isinstance(layer.get_base_layer(), Linear4bit) for layer in layers)
        assert not any(isinstance(module, BaseTunerLayer) for module in resident.model.modules())
        assert quantised == {n for n, module in resident.model.named_modules() if isinstance(module, Linear4bit)}


def test_the_card_says_what_it_was_trained_on(adapter: vt.Adapter) -> None:
    assert adapter.card.base.quantization == "nf4"
    assert adapter.card.base.source.endswith("+nf4")
    loaded = vt.Adapter.load(adapter.path)
    assert loaded.base.quantization == "nf4"
    assert loaded.name == f"{adapter.base.name}-lora"
    with pytest.raises(AdapterError, match=r"trained on .*\+nf4"):
        vt.Adapter.load(adapter.path, base=adapter.base.unquantized())


@pytest.fixture(scope="module")
def merged(adapter: vt.Adapter, tmp_path_factory: pytest.TempPathFactory) -> VLM:
    return adapter.merge(tmp_path_factory.mktemp("merged") / "model")


def test_the_merged_model_is_the_unquantised_base_and_the_adapter(adapter: vt.Adapter, merged: VLM) -> None:
    assert merged.quantization is None
    assert merged.name == f"{adapter.base.unquantized().name}-tuned"
    assert adapter.base.folder is not None
    assert merged.folder is not None
    before, after = (load_file(folder / "model.safetensors") for folder in (adapter.base.folder, merged.folder))
    lora = load_file(adapter.path / "adapter_model.safetensors")
    for name, value in before.items():
        key = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{key}.lora_A.weight" in lora:
            delta = lora[f"{key}.lora_B.weight"].double() @ lora[f"{key}.lora_A.weight"].double()
            value = (value.double() + adapter.config.scale * delta).to(value.dtype)
        assert torch.equal(after[name], value), name


def test_the_proof_is_against_the_unquantised_base_and_the_shift_is_reported(
    adapter: vt.Adapter, merged: VLM, colours: vt.Dataset
) -> None:
    assert merged.folder is not None
    report = MergeReport.load(merged.folder)
    assert report.base_quantization == "nf4"
    assert report.max_score_difference < 1e-3
    assert report.trained_agreement is not None
    assert report.trained_agreement.n == len(report.answers)
    # Many times more than the merge itself is off by, and no reason to refuse it.
    assert report.quantization_shift is not None
    assert report.quantization_shift > 10 * report.max_score_difference
    asked = [example for example in colours if example.id in {answer.example_id for answer in report.answers}]
    trained = {prediction.example_id: prediction.label for prediction in adapter.predict(asked, colours.task)}
    assert {answer.example_id: answer.trained for answer in report.answers} == trained


def test_the_merge_says_where_it_went(adapter: vt.Adapter, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapter.merge(tmp_path / "model", probe=[])
    said = " ".join(capsys.readouterr().err.split())
    assert "trained on nf4 weights and merged into the unquantised ones" in said
    report = MergeReport.load(tmp_path / "model")
    assert (report.base_quantization, report.trained_agreement, report.quantization_shift) == ("nf4", None, None)
    report.show()
    assert "the unquantised base (trained on nf4)" in capsys.readouterr().out


def test_where_the_stored_weights_are_too_large_for_the_gpu_the_cpu_takes_them(
    bold_qwen3_vl: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def crowded(*args: Any, **kwargs: Any) -> Resident:
        raise ModelError("it does not fit") from torch.OutOfMemoryError("out of memory")

    model = VLM(bold_qwen3_vl)
    model.unload()
    assert probe._where_it_fits(model) is model
    model.unload()
    monkeypatch.setattr(loading, "read_model", crowded)
    found = probe._where_it_fits(model)
    assert (found.folder, found.device, found.dtype) == (model.folder, "cpu", "bfloat16")
    assert "does not fit the memory" in " ".join(capsys.readouterr().err.split())


def test_any_other_reason_why_they_cannot_be_loaded_is_told(
    bold_qwen3_vl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **kwargs: Any) -> Resident:
        raise ModelError("the weights are incomplete")

    model = VLM(bold_qwen3_vl)
    model.unload()
    monkeypatch.setattr(loading, "read_model", broken)
    with pytest.raises(ModelError, match="incomplete"):
        probe._where_it_fits(model)


def test_the_gate_takes_a_quantised_base(bold_qwen3_vl: Path, colours: vt.Dataset) -> None:
    base = VLM(bold_qwen3_vl, device="cpu", quantization="nf4")
    report = vt.LoRATrainer(base, CONFIG).overfit(colours, num_examples=3, max_steps=2)
    assert len(report.losses) == 2

"""Four-bit weights: which they are, what they answer, and that no run changes them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit

from vlm_tune import _imports
from vlm_tune.errors import MissingExtraError, ModelError
from vlm_tune.families import linear_names
from vlm_tune.records import Example
from vlm_tune.task import Task
from vlm_tune.vlm import VLM, quantization
from vlm_tune.vlm.scoring import reference_scores, score_labels

TASK = Task(prompt="What is it?", classes=("crack", "dent", "scratch"))


@pytest.fixture
def nf4(tiny_vlm: Path) -> VLM:
    return VLM(tiny_vlm, device="cpu", quantization="nf4")


def test_all_linear_layers_of_the_language_model_are_quantised_and_no_others(nf4: VLM) -> None:
    model = nf4.load().model
    found = {name for name, module in model.named_modules() if isinstance(module, Linear4bit)}
    assert found == {name for name in linear_names(model) if name.startswith("model.language_model.")}
    assert any("mlp" in name or "feed_forward" in name for name in found)
    assert all(model.get_submodule(name).weight.dtype == torch.uint8 for name in found)
    whole = [p for name, p in model.named_parameters() if name.removesuffix(".weight") not in found]
    assert {parameter.dtype for parameter in whole} == {torch.float32}


def test_they_are_nf4_with_quantised_scales_and_compute_in_the_models_type(tiny_vlm: Path) -> None:
    model = VLM(tiny_vlm, device="cpu", dtype="bfloat16", quantization="nf4").load().model
    layer = next(module for module in model.modules() if isinstance(module, Linear4bit))
    assert layer.weight.quant_state.quant_type == "nf4"
    assert layer.weight.quant_state.nested
    assert layer.compute_dtype == torch.bfloat16


def test_the_answers_are_those_of_the_weights_that_the_four_bits_stand_for(
    nf4: VLM, noise_png: Callable[..., bytes]
) -> None:
    photos = [noise_png(40, 60, seed) for seed in range(2)]
    resident = nf4.load()
    found = score_labels(resident.model, resident.processor, photos, TASK)
    layers = {name: module for name, module in resident.model.named_modules() if isinstance(module, Linear4bit)}
    meant = {name: dequantize_4bit(layer.weight.data, layer.weight.quant_state) for name, layer in layers.items()}
    stored = nf4.unquantized().load()
    assert (found - score_labels(stored.model, stored.processor, photos, TASK)).abs().max() > 1e-3
    for name, weight in meant.items():
        layer = stored.model.get_submodule(name)
        assert not torch.equal(weight, layer.weight)
        layer.weight.copy_(weight)
    expected = reference_scores(stored.model, stored.processor, photos, TASK)
    nf4.unquantized().unload()
    assert torch.allclose(found, expected, atol=1e-4)


def test_answering_leaves_the_weights_as_they_are(nf4: VLM, noise_png: Callable[..., bytes]) -> None:
    # bitsandbytes would reorder them on some processors, and compute in another type from then on.
    before = {name: tensor.clone() for name, tensor in nf4.load().model.state_dict().items()}
    example = Example(id="0", image=noise_png(40, 60, 0), label="dent")
    first = [prediction.scores for prediction in nf4.predict([example], TASK)]
    assert [prediction.scores for prediction in nf4.predict([example], TASK)] == first
    layers = [module for module in nf4.load().model.modules() if isinstance(module, Linear4bit)]
    # Asking for the state would put the order right again.
    assert not any(getattr(layer.weight.quant_state, "packing_format_for_cpu", False) for layer in layers)
    after = nf4.load().model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_a_quantised_model_is_another_model(tiny_qwen3_vl: Path) -> None:
    nf4, plain = VLM(tiny_qwen3_vl, device="cpu", quantization="nf4"), VLM(tiny_qwen3_vl, device="cpu")
    assert (nf4.name, plain.name) == ("tiny-qwen3-vl-nf4", "tiny-qwen3-vl")
    assert nf4.source == f"{plain.source}+nf4"
    assert nf4.fingerprint != plain.fingerprint
    assert "quantization='nf4'" in repr(nf4)
    assert nf4.load() is not plain.load()
    assert plain.load().quantization is None
    assert nf4.load().quantization == "nf4"


def test_unquantized_keeps_everything_else(tiny_qwen3_vl: Path) -> None:
    settings = {"device": "cpu", "dtype": "bfloat16", "answer": "generate", "batch_size": 3}
    plain = VLM(tiny_qwen3_vl, quantization="nf4", **settings).unquantized()  # type: ignore[arg-type]
    assert {name: getattr(plain, name) for name in settings} == settings
    assert plain.name == "tiny-qwen3-vl"
    assert plain.fingerprint == VLM(tiny_qwen3_vl, **settings).fingerprint  # type: ignore[arg-type]
    assert plain.unquantized() is plain
    assert VLM(tiny_qwen3_vl, quantization="nf4", name="mine").unquantized().name == "mine"


def test_an_unknown_quantization_is_refused(tiny_qwen3_vl: Path) -> None:
    with pytest.raises(ModelError, match="'nf4' or None, got 'int3'"):
        VLM(tiny_qwen3_vl, quantization="int3")  # type: ignore[arg-type]


def test_a_checkpoint_that_is_quantised_already_is_refused(nf4: VLM, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(nf4.model, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "fp8"}}))
    with pytest.raises(ModelError, match="quantised already"):
        VLM(folder, device="cpu", quantization="nf4").load()


def test_a_missing_package_is_named_with_the_line_that_installs_it(nf4: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(_imports, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r'pip install "vlm-tune\[quant\]"'):
        nf4.load()


def test_the_language_model_is_found_wherever_it_is(tiny_vlm: Path) -> None:
    kept = quantization.kept(VLM(tiny_vlm).skeleton())
    assert kept[0] == "lm_head"
    assert "model.language_model" not in kept
    assert {"model.visual", "model.vision_tower"} & set(kept)

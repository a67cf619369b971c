"""Weights in eight and four bits: which they are, what they answer, and that no run changes them."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from transformers import BitsAndBytesConfig, PreTrainedConfig, PreTrainedModel
from transformers.quantizers.quantizers_utils import should_convert_module

from tests.families.architectures import PUBLISHED, published
from vlm_tune import _imports
from vlm_tune.errors import AdapterError, MissingExtraError, ModelError
from vlm_tune.families import family_in, linear_names
from vlm_tune.records import Example
from vlm_tune.task import Task
from vlm_tune.vlm import VLM, quantization
from vlm_tune.vlm.scoring import reference_scores, score_labels

TASK = Task(prompt="What is it?", classes=("crack", "dent", "scratch"))


@pytest.fixture
def nf4(tiny_vlm: Path) -> VLM:
    return VLM(tiny_vlm, device="cpu", quantization="nf4")


@pytest.fixture
def int8(tiny_vlm: Path) -> VLM:
    return VLM(tiny_vlm, device="cpu", quantization="int8")


@pytest.mark.parametrize(
    ("quantization", "layer", "packed"), [("int8", Linear8bitLt, torch.int8), ("nf4", Linear4bit, torch.uint8)]
)
def test_all_linear_layers_of_the_language_model_are_quantised_and_no_others(
    tiny_vlm: Path, quantization: quantization.Quantization, layer: type, packed: torch.dtype
) -> None:
    model = VLM(tiny_vlm, device="cpu", quantization=quantization).load().model
    found = {name for name, module in model.named_modules() if isinstance(module, layer)}
    assert found == {name for name in linear_names(model) if name.startswith("model.language_model.")}
    assert any("mlp" in name or "feed_forward" in name for name in found)
    assert all(model.get_submodule(name).weight.dtype == packed for name in found)
    whole = [p for name, p in model.named_parameters() if name.removesuffix(".weight") not in found]
    assert {parameter.dtype for parameter in whole} == {torch.float32}


def test_int8_weights_are_the_stored_ones_rounded_to_a_step_of_their_row(int8: VLM) -> None:
    model, stored = int8.load().model, int8.unquantized().skeleton()
    assert isinstance(stored, PreTrainedModel)
    layers = {name: module for name, module in model.named_modules() if isinstance(module, Linear8bitLt)}
    rounded = {name: (layer.weight.CB.float(), layer.weight.SCB[:, None] / 127) for name, layer in layers.items()}
    whole = int8.unquantized().load().model
    for name, (steps, step) in rounded.items():
        weight = whole.get_submodule(name).weight
        # The scale is taken of the weights in float16.
        assert ((steps * step - weight).abs() <= 0.51 * step + 1e-3 * weight.abs()).all(), name
        assert not torch.equal(steps * step, weight)


def test_int8_answers_are_near_the_unquantised_ones(int8: VLM, noise_png: Callable[..., bytes]) -> None:
    examples = [Example(id=str(seed), image=noise_png(40, 60, seed), label="dent") for seed in range(3)]
    found = {one.example_id: one.scores for one in int8.predict(examples, TASK)}
    for one in int8.unquantized().predict(examples, TASK):
        scores = found[one.example_id]
        assert scores is not None
        assert one.scores is not None
        assert 1e-5 < max(abs(scores[label] - one.scores[label]) for label in TASK.classes) < 0.2


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


@pytest.mark.parametrize("how", ["int8", "nf4"])
def test_a_quantised_model_is_another_model(tiny_qwen3_vl: Path, how: quantization.Quantization) -> None:
    quantised, plain = VLM(tiny_qwen3_vl, device="cpu", quantization=how), VLM(tiny_qwen3_vl, device="cpu")
    assert (quantised.name, plain.name) == (f"tiny-qwen3-vl-{how}", "tiny-qwen3-vl")
    assert quantised.source == f"{plain.source}+{how}"
    assert quantised.fingerprint != plain.fingerprint
    assert f"quantization={how!r}" in repr(quantised)
    assert quantised.load() is not plain.load()
    assert (plain.load().quantization, plain.stored_quantization) == (None, None)
    assert (quantised.load().quantization, quantised.stored_quantization) == (how, None)


def test_unquantized_keeps_everything_else(tiny_qwen3_vl: Path) -> None:
    settings = {"device": "cpu", "dtype": "bfloat16", "answer": "generate", "batch_size": 3}
    plain = VLM(tiny_qwen3_vl, quantization="nf4", **settings).unquantized()  # type: ignore[arg-type]
    assert {name: getattr(plain, name) for name in settings} == settings
    assert plain.name == "tiny-qwen3-vl"
    assert plain.fingerprint == VLM(tiny_qwen3_vl, **settings).fingerprint  # type: ignore[arg-type]
    assert plain.unquantized() is plain
    assert VLM(tiny_qwen3_vl, quantization="nf4", name="mine").unquantized().name == "mine"


def test_an_unknown_quantization_is_refused(tiny_qwen3_vl: Path) -> None:
    with pytest.raises(ModelError, match="'int8', 'nf4' or None, got 'int3'"):
        VLM(tiny_qwen3_vl, quantization="int3")  # type: ignore[arg-type]


def test_a_checkpoint_that_is_quantised_already_is_refused(nf4: VLM, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(nf4.model, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "fp8"}}))
    with pytest.raises(ModelError, match=r"quantised already \(fp8\)"):
        VLM(folder, device="cpu", quantization="nf4").load()
    with pytest.raises(ModelError, match="is in fp8 already"):
        VLM(folder, device="cpu").export(tmp_path / "export", quantization="nf4")


def test_a_missing_package_is_named_with_the_line_that_installs_it(nf4: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(_imports, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r'pip install "vlm-tune\[quant\]"'):
        nf4.load()


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (None, None),
        ({"quant_method": "fp8"}, "fp8"),
        (BitsAndBytesConfig(load_in_8bit=True), "int8"),
        (BitsAndBytesConfig(load_in_8bit=True).to_dict(), "int8"),
        (BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4").to_dict(), "nf4"),
        (BitsAndBytesConfig(load_in_4bit=True), "fp4"),
    ],
)
def test_a_configuration_says_how_its_weights_are_stored(given: object, found: str | None) -> None:
    config = PreTrainedConfig()
    if given is not None:
        config.quantization_config = given
    assert quantization.stored(config) == found
    computing = quantization.computing_in(config, "float32")
    assert quantization.stored(computing) == found
    if found in ("nf4", "fp4"):
        assert computing.quantization_config["bnb_4bit_compute_dtype"] == "float32"
        assert config.quantization_config is given


def test_a_device_that_bitsandbytes_cannot_use_is_named() -> None:
    with pytest.raises(ModelError, match=r"cannot use meta, only .*cpu"):
        quantization.require("nf4", "meta")


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_of_every_family_the_language_models_layers_are_quantised_and_no_others(name: str) -> None:
    model = published(name)
    kept, family = quantization.kept(model), family_in(model)
    names = linear_names(model)
    quantised = {name for name in names if should_convert_module(name, kept)}
    assert quantised == {name for name in names if (family.part_of(name) or ("",))[0] == "language"}
    assert len(quantised) > 10
    assert len(set(kept)) == len(kept) < len(names)
    assert any("lm_head" in each for each in kept)
    assert any("vis" in each for each in kept)


def test_no_adapter_is_put_on_int8(int8: VLM) -> None:
    with pytest.raises(AdapterError, match=r'"int8" is for answers; train on the unquantised model'):
        int8.check_takes_adapters()
    with pytest.raises(AdapterError, match="int8"), int8.load().adapted(lambda model: model):
        pass


def test_what_bitsandbytes_asks_for_as_it_is_imported_is_not_heard() -> None:
    code = "from vlm_tune.vlm.quantization import hush; hush(); import bitsandbytes"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr == ""


def test_nothing_is_heard_of_answers_in_int8_and_of_adapters(
    int8: VLM, noise_png: Callable[..., bytes], caplog: pytest.LogCaptureFixture
) -> None:
    logs = [logging.getLogger(f"bitsandbytes.{name}") for name in ("backends.cpu.ops", "autograd._functions")]
    for log in logs:
        log.filters.clear()
    assert next(iter(int8.predict([Example(id="0", image=noise_png(40, 60, 0), label="dent")], TASK))).label
    for log in logs:
        log.filters.clear()
    with int8.unquantized().load().adapted(lambda model: model):
        logs[0].warning("Failed to load CPU gemm_4bit_forward from somewhere: %s", "no such package")
    assert caplog.messages == []


def test_what_else_it_logs_is_heard(caplog: pytest.LogCaptureFixture) -> None:
    quantization.hush()
    quantization.hush()
    log = logging.getLogger("bitsandbytes.autograd._functions")
    log.warning("MatMul8bitLt: inputs will be cast from %s to float16 during quantization", torch.bfloat16)
    log.warning("something is wrong")
    assert caplog.messages == ["something is wrong"]
    assert len(log.filters) == 1

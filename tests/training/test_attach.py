import copy
import logging
import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file
from transformers.utils import logging as transformers_logging

from vlm_tune.errors import AdapterError
from vlm_tune.families import family_in
from vlm_tune.task import Task
from vlm_tune.training import TrainConfig
from vlm_tune.training.attach import fresh, saved, undisturbed
from vlm_tune.vlm import VLM
from vlm_tune.vlm.scoring import score_labels

TASK = Task(prompt="What is it?", classes=("crack", "dent", "scratch"))
CONFIG = TrainConfig(r=4)


FORMS = {
    "plain": CONFIG,
    "rslora": TrainConfig(r=4, use_rslora=True),
    "dora": TrainConfig(r=4, use_dora=True),
    "in full": TrainConfig(
        r=4, regions=("vision", "language"), kinds=("attention", "mlp"), modules_to_save=("merger", "norm1")
    ),
    "everything": TrainConfig(
        r=4, use_rslora=True, use_dora=True, regions=("language",), modules_to_save=("model.visual",)
    ),
}


def targets(base: VLM, config: TrainConfig = CONFIG) -> str:
    return family_in(base.skeleton()).target_modules(config.regions, config.kinds)


def shaken(wrapped: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Move everything that is trained, and return it."""
    generator = torch.Generator().manual_seed(7)
    trained = {name: p for name, p in wrapped.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for parameter in trained.values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return {name: p.detach().clone() for name, p in trained.items()}


def test_fresh_adapters_are_float32_seeded_and_change_nothing(tiny_vlm: Path) -> None:
    base = VLM(tiny_vlm, dtype="bfloat16")
    resident = base.load()
    states = []
    for _ in range(2):
        with resident.adapted(fresh(CONFIG, targets(base))) as wrapped:
            lora = {name: p.detach().clone() for name, p in wrapped.named_parameters() if ".lora_" in name}
            assert {p.dtype for p in lora.values()} == {torch.float32}
            assert all(not p.any() for name, p in lora.items() if ".lora_B." in name)
            states.append(lora)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_wrapping_leaves_the_random_generator_alone(tiny_qwen3_vl: Path) -> None:
    base = VLM(tiny_qwen3_vl)
    resident, state = base.load(), torch.get_rng_state()
    with resident.adapted(fresh(CONFIG, targets(base))):
        pass
    assert torch.equal(torch.get_rng_state(), state)


def test_a_saved_adapter_comes_back(tiny_vlm: Path, tmp_path: Path) -> None:
    base = VLM(tiny_vlm)
    resident = base.load()
    with resident.adapted(fresh(CONFIG, targets(base))) as wrapped:
        for name, parameter in wrapped.named_parameters():
            if ".lora_B." in name:
                torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(len(name)))
        before = {name: p.detach().clone() for name, p in wrapped.named_parameters()}
        wrapped.save_pretrained(str(tmp_path), save_embedding_layers=False)
    with resident.adapted(saved(tmp_path)) as wrapped:
        after = dict(wrapped.named_parameters())
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("form", "dtype"), [*((form, "float32") for form in FORMS), ("dora", "bfloat16"), ("everything", "bfloat16")]
)
def test_every_form_is_trained_saved_and_taken_off(
    form: str, dtype: str, tiny_qwen3_vl: Path, tmp_path: Path, noise_png: Callable[..., bytes]
) -> None:
    config = FORMS[form]
    base = VLM(tiny_qwen3_vl, dtype=dtype, device="cpu")
    resident, photos = base.load(), [noise_png(48, 48)]
    weights = {name: tensor.clone() for name, tensor in resident.model.state_dict().items()}
    modules = {name: id(module) for name, module in resident.model.named_modules()}

    def scores() -> torch.Tensor:
        return score_labels(resident.model, resident.processor, photos, TASK)

    untouched = scores()
    with resident.adapted(fresh(config, targets(base, config))) as wrapped:
        assert all(p.dtype == torch.float32 for p in wrapped.parameters() if p.requires_grad)
        # Nothing is changed yet: B is 0, DoRA's magnitudes are the weights' own, and the copies are equal.
        assert torch.allclose(scores(), untouched, atol=1e-4 if dtype == "float32" else 0.2)
        trained = shaken(wrapped)
        moved = scores()
        assert not torch.allclose(moved, untouched, atol=1e-2)
        wrapped.save_pretrained(str(tmp_path), save_embedding_layers=False)
    assert torch.equal(scores(), untouched)
    with resident.adapted(saved(tmp_path)) as wrapped:
        assert wrapped.active_peft_config.use_rslora == config.use_rslora
        assert all(torch.equal(p, trained[name]) for name, p in wrapped.named_parameters() if name in trained)
        assert trained.keys() <= dict(wrapped.named_parameters()).keys()
        assert torch.equal(scores(), moved)
    after = resident.model.state_dict()
    assert after.keys() == weights.keys()
    assert all(torch.equal(after[name], weights[name]) and after[name].dtype == weights[name].dtype for name in after)
    assert {name: id(module) for name, module in resident.model.named_modules()} == modules
    assert not any(parameter.requires_grad for parameter in resident.model.parameters())


def test_rslora_scales_by_the_root_of_the_rank(tiny_qwen3_vl: Path) -> None:
    base = VLM(tiny_qwen3_vl)
    for config, scale in ((CONFIG, 16 / 4), (FORMS["rslora"], 16 / 2)):
        with base.load().adapted(fresh(config, targets(base))) as wrapped:
            scalings = {m.scaling["default"] for m in wrapped.modules() if isinstance(m, BaseTunerLayer)}
            assert scalings == {scale} == {config.scale}


def test_a_saved_module_must_be_whole(tiny_qwen3_vl: Path, tmp_path: Path) -> None:
    base, config = VLM(tiny_qwen3_vl), FORMS["in full"]
    resident = base.load()
    with resident.adapted(fresh(config, targets(base, config))) as wrapped:
        wrapped.save_pretrained(str(tmp_path), save_embedding_layers=False)
    weights = load_file(tmp_path / "adapter_model.safetensors")
    (norm,) = [name for name in weights if name.endswith("merger.norm.weight") and "deepstack" not in name]
    del weights[norm]
    save_file(weights, tmp_path / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match=r"has no tensor .*merger\.norm\.weight"), resident.adapted(saved(tmp_path)):
        pass
    assert not any("modules_to_save" in name for name in resident.model.state_dict())


def test_a_module_that_is_not_there_leaves_nothing_behind(tiny_qwen3_vl: Path) -> None:
    base, config = VLM(tiny_qwen3_vl), TrainConfig(r=4, modules_to_save=("aligner",))
    resident = base.load()
    with (
        pytest.raises(AdapterError, match=r"'aligner', which is no module; there are .*model\.visual\.merger"),
        resident.adapted(fresh(config, targets(base))),
    ):
        pass
    assert not hasattr(resident.model, "peft_config")
    assert not resident.adapted_now


@pytest.mark.parametrize("change", ["missing", "surplus", "shape", "no file"])
def test_a_saved_adapter_must_fit(tiny_qwen3_vl: Path, tmp_path: Path, change: str) -> None:
    base = VLM(tiny_qwen3_vl)
    resident = base.load()
    with resident.adapted(fresh(CONFIG, targets(base))) as wrapped:
        wrapped.save_pretrained(str(tmp_path), save_embedding_layers=False)
    file = tmp_path / "adapter_model.safetensors"
    weights = load_file(file)
    first = next(iter(weights))
    if change == "missing":
        del weights[first]
    elif change == "surplus":
        weights["base_model.model.model.language_model.layers.9.self_attn.q_proj.lora_A.weight"] = torch.zeros(4, 32)
    elif change == "shape":
        weights[first] = torch.zeros(3, 3)
    save_file(weights, file)
    if change == "no file":
        file.unlink()
    with pytest.raises(AdapterError, match=str(tmp_path)), resident.adapted(saved(tmp_path)):
        pass
    assert not hasattr(resident.model, "peft_config")


def test_undisturbed_puts_everything_back(tiny_qwen3_vl: Path) -> None:
    model = VLM(tiny_qwen3_vl).load().model
    config, attributes = copy.deepcopy(model.config.to_dict()), dict(vars(model))
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    verbosity, handlers = transformers_logging.get_verbosity(), list(logging.getLogger().handlers)
    environment = dict(os.environ)
    with pytest.raises(ValueError, match="stop"), undisturbed(model):
        model.config.get_text_config().pad_token_id = 99
        model.generation_config.eos_token_id = [1, 2]
        model.forward = lambda: None
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        raise ValueError("stop")
    assert model.config.to_dict() == config
    assert dict(vars(model)).keys() == attributes.keys()
    assert random.getstate() == states[0]
    assert (np.random.get_state()[1] == states[1]).all()
    assert torch.equal(torch.get_rng_state(), states[2])
    assert transformers_logging.get_verbosity() == verbosity
    assert logging.getLogger().handlers == handlers
    assert dict(os.environ) == environment

import copy
import logging
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.utils import logging as transformers_logging

from vlm_tune.errors import AdapterError
from vlm_tune.families import family_of
from vlm_tune.training import TrainConfig
from vlm_tune.training.attach import fresh, saved, undisturbed
from vlm_tune.vlm import VLM

CONFIG = TrainConfig(r=4)


def targets(base: VLM) -> str:
    return family_of(base.config).target_modules(CONFIG.regions, CONFIG.kinds)


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

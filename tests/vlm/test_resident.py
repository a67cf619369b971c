from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from vlm_tune.errors import ModelError
from vlm_tune.records import Example
from vlm_tune.task import Task
from vlm_tune.vlm import VLM
from vlm_tune.vlm.answering import answers
from vlm_tune.vlm.scoring import score_labels

TASK = Task(prompt="What is it?", classes=("crack", "dent", "scratch"))
CHECKPOINTING = (
    "activation_checkpointing_enable"
    if hasattr(PreTrainedModel, "activation_checkpointing_enable")
    else "gradient_checkpointing_enable"
)


def with_lora(vlm: VLM) -> Callable[[PreTrainedModel], PeftModel]:
    family = vlm.load().family
    target = family.target_modules(["vision", "projector", "language"], ["attention"])
    return lambda model: get_peft_model(
        model, LoraConfig(r=4, lora_alpha=64, target_modules=target, init_lora_weights=False)
    )


def num_hooks(model: PreTrainedModel) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def state(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_adapters_come_and_go_and_the_base_is_bit_for_bit_the_same(
    tiny_vlm: Path, noise_png: Callable[..., bytes]
) -> None:
    vlm = VLM(tiny_vlm, device="cpu")
    resident = vlm.load()
    photos = [noise_png(48, 48)]
    before, scores = state(resident.model), score_labels(resident.model, resident.processor, photos, TASK)
    settings = resident.model.config.to_dict(), resident.model.generation_config.to_dict()
    hooks = num_hooks(resident.model)

    with resident.adapted(with_lora(vlm)) as peft_model:
        peft_model.train()
        resident.model.enable_input_require_grads()
        resident.model.enable_input_require_grads()
        getattr(resident.model, CHECKPOINTING)()
        assert num_hooks(resident.model) > hooks
        resident.model.config.use_cache = False
        resident.model.config.get_text_config().pad_token_id = 9
        resident.model.generation_config.eos_token_id = [9]
        wrapped = score_labels(peft_model, resident.processor, photos, TASK)
        assert torch.equal(score_labels(resident.model, resident.processor, photos, TASK), wrapped)
        assert not torch.allclose(wrapped, scores, atol=1e-2)

    after = state(resident.model)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(score_labels(resident.model, resident.processor, photos, TASK), scores)
    assert not resident.model.training
    assert not any(parameter.requires_grad for parameter in resident.model.parameters())
    assert not any(getattr(module, "gradient_checkpointing", False) for module in resident.model.modules())
    assert num_hooks(resident.model) == hooks
    assert (resident.model.config.to_dict(), resident.model.generation_config.to_dict()) == settings
    with resident.adapted(with_lora(vlm)):  # again, and without PEFT's warning about a second adapter
        pass


def test_an_error_or_ctrl_c_inside_takes_the_adapter_off(tiny_qwen3_vl: Path) -> None:
    vlm = VLM(tiny_qwen3_vl, device="cpu")
    resident = vlm.load()
    before = state(resident.model)
    for error in (KeyboardInterrupt, RuntimeError):
        with pytest.raises(error), resident.adapted(with_lora(vlm)):
            raise error
        assert state(resident.model).keys() == before.keys()
        assert not resident.adapted_now

    def half_way(model: PreTrainedModel) -> PeftModel:
        with_lora(vlm)(model)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), resident.adapted(half_way):
        pass
    assert state(resident.model).keys() == before.keys()


def test_while_an_adapter_is_on_nobody_gets_wrong_answers(
    tiny_qwen3_vl: Path, tiny_lfm2_vl: Path, noise_png: Callable[..., bytes]
) -> None:
    vlm = VLM(tiny_qwen3_vl, device="cpu")
    resident = vlm.load()
    example = Example(id="1", image=noise_png(32, 32), label="dent")
    with resident.adapted(with_lora(vlm)):
        assert len(list(answers(resident, [example], TASK))) == 1
        with pytest.raises(ModelError, match="an adapter is on"):
            list(vlm.predict([example], TASK))
        with pytest.raises(ModelError, match="already carries an adapter"), resident.adapted(with_lora(vlm)):
            pass
        with pytest.raises(ModelError, match="in use with an adapter"):
            VLM(tiny_lfm2_vl, device="cpu").load()
        with pytest.raises(ModelError, match="in use with an adapter"):
            vlm.unload()
    assert vlm.load() is resident


def test_one_model_is_resident(tiny_qwen3_vl: Path, tiny_lfm2_vl: Path) -> None:
    first = VLM(tiny_qwen3_vl, device="cpu")
    weights = weakref.ref(first.load().model)
    assert VLM(tiny_qwen3_vl, device="cpu", answer="generate").load() is first.load()
    second = VLM(tiny_lfm2_vl, device="cpu")
    second.load()
    gc.collect()
    assert weights() is None
    first.unload()  # not its weights: nothing happens
    assert second.load() is second.load()
    weights = weakref.ref(second.load().model)
    second.unload()
    gc.collect()
    assert weights() is None


def test_another_type_is_another_model(tiny_qwen3_vl: Path) -> None:
    whole = VLM(tiny_qwen3_vl, device="cpu").load()
    half = VLM(tiny_qwen3_vl, device="cpu", dtype="bfloat16").load()
    assert (whole.dtype, half.dtype) == (torch.float32, torch.bfloat16)

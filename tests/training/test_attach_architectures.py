"""Adapters on every architecture: everywhere they are asked for, alive, and gone afterwards."""

from __future__ import annotations

import pytest
import torch

from tests.families.tiny import TINY, photo, tiny_model
from vlm_tune.families import family_in, linear_names
from vlm_tune.training import TrainConfig
from vlm_tune.training.attach import fresh
from vlm_tune.training.proving.checks import GradientLiveness
from vlm_tune.vlm.resident import Resident


@pytest.mark.parametrize("name", TINY)
def test_adapters_are_alive_everywhere_and_leave_nothing_behind(name: str) -> None:
    model = tiny_model(name)
    family = family_in(model)
    assert family.registered == (name != "llava")
    coverage = family.require(linear_names(model), family.regions, family.kinds)
    weights = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    inputs = photo(model)
    with torch.no_grad():
        before = model(**inputs).logits
    config = TrainConfig(r=2, regions=family.regions, kinds=family.kinds)
    resident = Resident(model=model, processor=None, device=model.device, dtype=model.dtype)
    with resident.adapted(fresh(config, family.target_modules(config.regions, config.kinds))) as wrapped:
        wrapped.train()
        wrapped(**inputs).loss.backward()
        alive = [key for key, p in wrapped.named_parameters() if ".lora_B." in key]
        assert len(alive) == sum(len(part.hit) for part in coverage.values())
        GradientLiveness(resident.family).check(wrapped.named_parameters(), last=True)
    after = model.state_dict()
    assert after.keys() == weights.keys()
    assert all(torch.equal(after[key], weights[key]) for key in weights)
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, before)


def test_gemmas_projector_moves_when_it_is_trained_in_full() -> None:
    model = tiny_model("gemma3")
    family, inputs = family_in(model), photo(model)
    config = TrainConfig(r=2, regions=("language",), modules_to_save=("multi_modal_projector",))
    resident = Resident(model=model, processor=None, device=model.device, dtype=model.dtype)
    own = model.model.multi_modal_projector
    with resident.adapted(fresh(config, family.target_modules(config.regions, config.kinds))) as wrapped:
        wrapped(**inputs).loss.backward()
        (moved,) = [p for key, p in wrapped.named_parameters() if key.endswith("default.mm_input_projection_weight")]
        assert moved.grad is not None and moved.grad.abs().sum() > 0
    assert model.model.multi_modal_projector is own
    assert own.mm_input_projection_weight.grad is None

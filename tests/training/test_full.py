from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.families.architectures import gemma3_4b, skeleton_of
from tests.models import lfm2_vl_config, qwen3_vl_config
from vlm_tune.errors import AdapterError
from vlm_tune.families import FAMILIES
from vlm_tune.training import TrainConfig
from vlm_tune.training.attach import fresh
from vlm_tune.training.full import modules_in_full
from vlm_tune.vlm import VLM

LANGUAGE = FAMILIES["qwen3_vl"].target_modules(["language"], ["attention"])


@pytest.fixture(scope="module")
def qwen() -> torch.nn.Module:
    return skeleton_of(qwen3_vl_config())


def test_names_are_ends_of_names_in_whole_words(qwen: torch.nn.Module) -> None:
    assert modules_in_full(qwen, ["merger"], target_modules=LANGUAGE) == ("model.visual.merger",)
    mergers = modules_in_full(qwen, ["merger.norm", "0.norm"], target_modules=LANGUAGE)
    assert mergers == ("model.visual.merger.norm", "model.visual.deepstack_merger_list.0.norm")
    norms = modules_in_full(qwen, ["norm1"], target_modules=LANGUAGE)
    assert norms == tuple(f"model.visual.blocks.{n}.norm1" for n in range(3))
    assert modules_in_full(qwen, [], target_modules=LANGUAGE) == ()


def test_a_module_inside_another_is_not_listed(qwen: torch.nn.Module) -> None:
    assert modules_in_full(qwen, ["merger.norm", "merger"], target_modules=LANGUAGE) == ("model.visual.merger",)


def test_a_name_of_nothing_lists_what_there_is(qwen: torch.nn.Module) -> None:
    with pytest.raises(AdapterError, match=r"'projector', which is no module; there are .*model\.visual\.merger, "):
        modules_in_full(qwen, ["projector"], target_modules=LANGUAGE)
    # A list of modules is not called, so that no copy could take its place.
    with pytest.raises(AdapterError, match="'deepstack_merger_list', which is no module") as caught:
        modules_in_full(qwen, ["deepstack_merger_list"], target_modules=LANGUAGE)
    assert "blocks" not in str(caught.value)


def test_adapters_inside_and_shared_weights_are_refused(qwen: torch.nn.Module) -> None:
    with pytest.raises(AdapterError, match=r"language_model would be trained in full and get adapters too.*q_proj"):
        modules_in_full(qwen, ["language_model"], target_modules=LANGUAGE)
    with pytest.raises(AdapterError, match=r"lm_head shares its weights with .*embed_tokens.*part them"):
        modules_in_full(qwen, ["lm_head"], target_modules=LANGUAGE)
    lfm2 = skeleton_of(lfm2_vl_config())
    assert modules_in_full(lfm2, ["multi_modal_projector"], target_modules="none") == ("model.multi_modal_projector",)


def test_quantised_weights_are_refused(qwen: torch.nn.Module) -> None:
    model = skeleton_of(qwen3_vl_config())
    merger = model.get_submodule("model.visual.merger.linear_fc1")
    merger.weight = torch.nn.Parameter(torch.zeros(8, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(AdapterError, match="merger has quantised weights"):
        modules_in_full(model, ["merger"], target_modules=LANGUAGE)


def test_gemmas_bare_projector_can_be_trained_in_full() -> None:
    targets = FAMILIES["gemma3"].target_modules(["vision", "language"], ["attention"])
    found = modules_in_full(skeleton_of(gemma3_4b()), ["multi_modal_projector"], target_modules=targets)
    assert found == ("model.multi_modal_projector",)


def test_the_copies_are_float32_and_nothing_around_them_notices(tiny_qwen3_vl: Path) -> None:
    base = VLM(tiny_qwen3_vl, dtype="bfloat16", device="cpu")
    resident = base.load()
    config = TrainConfig(r=2, regions=("language",), modules_to_save=("merger", "embed_tokens", "norm1"))
    merger = resident.model.model.visual.merger
    x = torch.randn(8, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
    before = merger(x)
    with pytest.raises(AdapterError, match="shares its weights"), resident.adapted(fresh(config, LANGUAGE)):
        pass
    config = TrainConfig(r=2, regions=("language",), modules_to_save=("merger", "pos_embed", "norm1"))
    with resident.adapted(fresh(config, LANGUAGE)) as wrapped:
        full = {name: p for name, p in wrapped.named_parameters() if ".modules_to_save." in name}
        assert {p.dtype for p in full.values()} == {torch.float32}
        assert all(p.requires_grad for p in full.values())
        output = resident.model.model.visual.merger(x)
        assert output.dtype == torch.bfloat16
        assert torch.allclose(output.float(), before.float(), rtol=0.02, atol=0.02)
        assert resident.model.model.visual.pos_embed(torch.tensor([1])).dtype == torch.bfloat16
        output.float().sum().backward()
        assert all(p.grad is not None for name, p in full.items() if ".merger." in name)
    assert resident.model.model.visual.merger is merger
    assert merger(x).dtype == torch.bfloat16
    assert torch.equal(merger(x), before)
    assert not merger._forward_hooks and not merger._forward_pre_hooks

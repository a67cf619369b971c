from pathlib import Path

import pytest
import torch

from vlm_tune.training import TrainConfig
from vlm_tune.training.attach import fresh
from vlm_tune.training.proving.movement import movement
from vlm_tune.vlm import VLM


def moved(wrapped: torch.nn.Module, *, skip: str = "nothing") -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if parameter.requires_grad and skip not in name:
                parameter.add_(0.01 * torch.randn_like(parameter))


def by_hand(wrapped: torch.nn.Module, region: str) -> list[float]:
    """Ratios from what PEFT itself would merge."""
    ratios = []
    for name, module in wrapped.named_modules():
        if hasattr(module, "merge") and hasattr(module, "get_delta_weight") and region in name:
            before = module.get_base_layer().weight.detach().clone()
            module.merge(safe_merge=True)
            ratios.append(float((module.get_base_layer().weight.detach() - before).norm() / before.norm()))
            module.get_base_layer().weight.data.copy_(before)
            module.merged_adapters.clear()
    return ratios


@pytest.mark.parametrize("dora", [False, True])
def test_it_is_the_norm_of_what_merging_adds(tiny_vlm: Path, dora: bool) -> None:
    resident = VLM(tiny_vlm).load()
    config = TrainConfig(r=4, lora_alpha=16, use_dora=dora)
    targets = resident.family.target_modules(config.regions, config.kinds)
    with resident.adapted(fresh(config, targets)) as wrapped:
        moved(wrapped)
        found = {one.region: one for one in movement(wrapped, resident.family)}
        ratios = by_hand(wrapped, "language_model")
    assert set(found) == {"vision", "projector", "language"}
    language = found["language"]
    assert language.moved and language.num_layers == len(ratios) > 1
    assert language.mean == pytest.approx(sum(ratios) / len(ratios), rel=1e-3)
    assert language.least == pytest.approx(min(ratios), rel=1e-3)


def test_a_region_that_did_not_move_is_told(tiny_qwen3_vl: Path, capsys: pytest.CaptureFixture[str]) -> None:
    resident = VLM(tiny_qwen3_vl).load()
    config = TrainConfig(r=4)
    targets = resident.family.target_modules(config.regions, config.kinds)
    with resident.adapted(fresh(config, targets)) as wrapped:
        moved(wrapped, skip="visual.blocks")
        found = {one.region: one for one in movement(wrapped, resident.family)}
    assert found["vision"].mean == found["vision"].least == 0.0
    assert [one.region for one in found.values() if not one.moved] == ["vision"]
    told = capsys.readouterr().err
    assert told.count("did not move") == 1 and "The vision layers" in told


def test_modules_trained_in_full_move_too(tiny_qwen3_vl: Path) -> None:
    resident = VLM(tiny_qwen3_vl).load()
    config = TrainConfig(r=4, regions=("language",), modules_to_save=("visual.merger",))
    targets = resident.family.target_modules(config.regions, config.kinds)
    with resident.adapted(fresh(config, targets)) as wrapped:
        before = {name: p.detach().clone() for name, p in wrapped.named_parameters() if ".modules_to_save." in name}
        moved(wrapped)
        changes = [p.detach() - before[name] for name, p in wrapped.named_parameters() if name in before]
        found = {one.region: one for one in movement(wrapped, resident.family)}

    def norm(tensors: list[torch.Tensor]) -> float:
        return float(torch.cat([tensor.flatten() for tensor in tensors]).norm())

    assert found["in full"].num_layers == 1
    assert found["in full"].mean == pytest.approx(norm(changes) / norm(list(before.values())), rel=1e-4)

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vlm_tune.training import TrainConfig
from vlm_tune.training.attach import fresh
from vlm_tune.training.running.optimizer import parameter_groups
from vlm_tune.vlm import VLM

REGIONS = ("vision", "projector", "language")


def groups_of(folder: Path, config: TrainConfig) -> dict[tuple[float, float], set[str]]:
    """Learning rate and weight decay of each group, and the names of its parameters."""
    resident = VLM(folder, device="cpu").load()
    targets = resident.family.target_modules(config.regions, config.kinds)
    with resident.adapted(fresh(config, targets)) as wrapped:
        names = {id(parameter): name for name, parameter in wrapped.named_parameters()}
        groups = parameter_groups(wrapped, resident.family, config)
        found = {
            (group["lr"], group["weight_decay"]): {names[id(parameter)] for parameter in group["params"]}
            for group in groups
        }
        assert len(found) == len(groups)
        trained = {name for name, parameter in wrapped.named_parameters() if parameter.requires_grad}
        assert set.union(*found.values()) == trained
        assert sum(len(group["params"]) for group in groups) == len(trained)
        torch.optim.AdamW(groups)
    return found


def test_without_region_rates_there_is_one_group(tiny_vlm: Path) -> None:
    found = groups_of(tiny_vlm, TrainConfig(r=2, weight_decay=0.1))
    assert list(found) == [(2e-4, 0.1)]


def test_regions_have_their_own_rates(tiny_qwen3_vl: Path) -> None:
    rates = {"vision": 1e-5, "projector": 1e-3}
    found = groups_of(tiny_qwen3_vl, TrainConfig(r=2, learning_rate=1e-4, region_learning_rates=rates))
    assert {rate for rate, _ in found} == {1e-5, 1e-3, 1e-4}
    vision, projector, language = (found[rate, 0.0] for rate in (1e-5, 1e-3, 1e-4))
    assert all(".visual.blocks." in name for name in vision) and len(vision) == 2 * 6
    assert all("merger" in name for name in projector) and len(projector) == 2 * 6
    assert all(".language_model." in name for name in language) and len(language) == 2 * 12


def test_vectors_are_not_decayed(tiny_lfm2_vl: Path) -> None:
    config = TrainConfig(r=2, use_dora=True, weight_decay=0.1, regions=("language",), modules_to_save=("linear_1",))
    found = groups_of(tiny_lfm2_vl, config)
    decayed, spared = found[2e-4, 0.1], found[2e-4, 0.0]
    assert all(".lora_A." in name or ".lora_B." in name or name.endswith("linear_1.modules_to_save.default.weight")
               for name in decayed)  # fmt: skip
    assert len([name for name in spared if "lora_magnitude_vector" in name]) == len(decayed) // 2
    assert any(name.endswith("linear_1.modules_to_save.default.bias") for name in spared)


def test_modules_trained_in_full_take_the_common_rate(tiny_lfm2_vl: Path) -> None:
    config = TrainConfig(
        r=2,
        regions=("language",),
        learning_rate=1e-4,
        region_learning_rates={"language": 1e-3},
        modules_to_save=("multi_modal_projector",),
    )
    found = groups_of(tiny_lfm2_vl, config)
    assert all(".lora_" in name for name in found[1e-3, 0.0])
    assert found[1e-4, 0.0] and all("multi_modal_projector" in name for name in found[1e-4, 0.0])


def test_the_groups_keep_their_order(tiny_qwen3_vl: Path) -> None:
    # A checkpoint names parameters by their place.
    config = TrainConfig(r=2, region_learning_rates={"vision": 1e-5, "language": 1e-4})
    assert list(groups_of(tiny_qwen3_vl, config)) == list(groups_of(tiny_qwen3_vl, config))
    assert pytest.approx(2e-4) in [rate for rate, _ in groups_of(tiny_qwen3_vl, config)]

from __future__ import annotations

import pytest

from tests.families.architectures import published
from vlm_tune.errors import AdapterError
from vlm_tune.families import family_in
from vlm_tune.training import TrainConfig
from vlm_tune.training.planning.parts import full_rows, plan_rows, spelled_scale


def parameters(config: TrainConfig) -> int:
    skeleton = published("qwen3_vl_8b")
    return sum(row.parameters for row in plan_rows(skeleton, family_in(skeleton), config))


def test_parameters_of_the_published_recipes() -> None:
    # q, k, v, o: 61 M; with the mlp, 175 M.
    assert parameters(TrainConfig(regions=("language",))) == 36 * 64 * 2 * (2 * 4096 + 4096 + 1024)
    mlp = 36 * 64 * 3 * (4096 + 12288)
    both = TrainConfig(regions=("language",), kinds=("attention", "mlp"))
    assert parameters(both) == parameters(TrainConfig(regions=("language",))) + mlp
    assert round(parameters(both) / 1e6) == 175


def test_dora_adds_a_magnitude_for_every_output() -> None:
    plain = TrainConfig(regions=("language",))
    dora = TrainConfig(regions=("language",), use_dora=True)
    assert parameters(dora) - parameters(plain) == 36 * (4096 + 1024 + 1024 + 4096)


def test_parts_that_this_model_lacks_have_no_row() -> None:
    skeleton = published("gemma3_4b")
    rows = plan_rows(skeleton, family_in(skeleton), TrainConfig(regions=("vision", "language")))
    assert {row.region for row in rows} == {"vision", "language"}
    assert all(row.share == pytest.approx(row.parameters / 4.3e9, rel=1e-3) for row in rows)


def test_modules_in_full_are_counted_whole() -> None:
    skeleton = published("lfm2_vl_3b")
    (row,) = full_rows(skeleton, ["multi_modal_projector"], target_modules="none")
    own = sum(p.numel() for p in skeleton.get_submodule("model.multi_modal_projector").parameters())
    assert (row.name, row.parameters) == ("model.multi_modal_projector", own)
    with pytest.raises(AdapterError, match="'aligner', which is no module"):
        full_rows(skeleton, ["aligner"], target_modules="none")


def test_the_scale_is_spelled_out() -> None:
    assert spelled_scale(TrainConfig(r=8, lora_alpha=16)) == "alpha / r = 16 / 8 = 2"
    assert spelled_scale(TrainConfig(r=4, lora_alpha=1, use_rslora=True)) == "alpha / sqrt(r) = 1 / sqrt(4) = 0.5"

import shutil
from pathlib import Path

import pytest
from safetensors.torch import save_file
from transformers import Lfm2VlConfig, PreTrainedConfig, Qwen3VLConfig

from vlm_tune.data import Dataset
from vlm_tune.errors import AdapterError, ModelError
from vlm_tune.training import AdapterPlan, LoRATrainer, TrainConfig
from vlm_tune.vlm import VLM


def only_configured(config: PreTrainedConfig, processor_of: Path, folder: Path) -> VLM:
    """A model of true dimensions without any weights: planning must not miss them."""
    shutil.copytree(processor_of, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    config.save_pretrained(folder)
    save_file({}, folder / "model.safetensors")
    return VLM(folder, name=folder.name)


@pytest.fixture(scope="module")
def qwen_8b(tiny_qwen3_vl: Path, tmp_path_factory: pytest.TempPathFactory) -> VLM:
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": 151936,
            "hidden_size": 4096,
            "intermediate_size": 12288,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
        },
        vision_config={
            "depth": 27,
            "hidden_size": 1152,
            "num_heads": 16,
            "intermediate_size": 4304,
            "out_hidden_size": 4096,
            "num_position_embeddings": 2304,
            "deepstack_visual_indexes": [8, 16, 24],
        },
        tie_word_embeddings=False,
    )
    return only_configured(config, tiny_qwen3_vl, tmp_path_factory.mktemp("true") / "qwen")


@pytest.fixture(scope="module")
def lfm_3b(tiny_lfm2_vl: Path, tmp_path_factory: pytest.TempPathFactory) -> VLM:
    attention = {2, 6, 10, 14, 17, 21, 24, 27}
    config = Lfm2VlConfig(
        text_config={
            "vocab_size": 65536,
            "hidden_size": 2048,
            "intermediate_size": 10752,
            "block_auto_adjust_ff_dim": False,
            "num_hidden_layers": 30,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "layer_types": ["full_attention" if layer in attention else "conv" for layer in range(30)],
        },
        vision_config={
            "model_type": "siglip2_vision_model",
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "num_hidden_layers": 27,
            "num_attention_heads": 16,
            "num_patches": 256,
            "patch_size": 16,
            "vision_use_head": False,
        },
        projector_hidden_size=2560,
    )
    return only_configured(config, tiny_lfm2_vl, tmp_path_factory.mktemp("true") / "lfm")


def hits(plan: AdapterPlan) -> dict[tuple[str, str], tuple[int, int]]:
    return {(row.region, row.kind): (row.hit, row.total) for row in plan.rows}


def test_qwen3_vl_8b_at_its_true_dimensions(qwen_8b: VLM, colours: Dataset) -> None:
    plan = LoRATrainer(qwen_8b, TrainConfig()).plan(colours, device="H200")
    assert hits(plan) == {
        ("vision", "attention"): (54, 54),
        ("vision", "mlp"): (0, 54),
        ("projector", "attention"): (8, 8),
        ("language", "attention"): (144, 144),
        ("language", "mlp"): (0, 108),
    }
    assert plan.total_parameters == pytest.approx(8.767e9, rel=1e-3)
    assert plan.trained_parameters == pytest.approx(77.9e6, rel=1e-3)
    assert plan.trained_share == pytest.approx(0.00889, rel=1e-2)
    assert plan.estimates.weights_gb == pytest.approx(17.53, rel=1e-2)
    assert plan.estimates.device == "NVIDIA H200 (asked for)"


def test_qwen3_vl_8b_language_only(qwen_8b: VLM, colours: Dataset) -> None:
    plan = LoRATrainer(qwen_8b, TrainConfig(regions=("language",))).plan(colours, device="H200")
    assert plan.trained_parameters == pytest.approx(61.3e6, rel=1e-3)
    assert hits(plan)["vision", "attention"] == (0, 54)


def test_lfm2_vl_3b_at_its_true_dimensions(lfm_3b: VLM, colours: Dataset) -> None:
    config = TrainConfig(kinds=("attention", "mlp", "conv"))
    plan = LoRATrainer(lfm_3b, config).plan(colours, device="H200")
    assert hits(plan) == {
        ("vision", "attention"): (108, 108),
        ("vision", "mlp"): (54, 54),
        ("projector", "attention"): (2, 2),
        ("language", "attention"): (32, 32),
        ("language", "mlp"): (90, 90),
        ("language", "conv"): (44, 44),
    }
    attention = LoRATrainer(lfm_3b, TrainConfig(regions=("language",))).plan(colours, device="H200")
    assert attention.trained_parameters == pytest.approx(6.8e6, rel=1e-2)


def test_a_kind_that_is_nowhere_lists_what_is_there(tiny_qwen3_vl: Path, colours: Dataset) -> None:
    with pytest.raises(AdapterError, match=r"conv would adapt nothing.*language: mlp"):
        LoRATrainer(VLM(tiny_qwen3_vl), TrainConfig(kinds=("attention", "conv"))).plan(colours)


def test_a_region_without_the_kind_is_refused(tiny_lfm2_vl: Path, colours: Dataset) -> None:
    config = TrainConfig(regions=("vision", "language"), kinds=("conv",))
    with pytest.raises(AdapterError, match="vision"):
        LoRATrainer(VLM(tiny_lfm2_vl), config).plan(colours)


def test_an_unknown_architecture_is_refused(tmp_path: Path, tiny_qwen3_vl: Path, colours: Dataset) -> None:
    from transformers import LlavaConfig

    base = only_configured(LlavaConfig(), tiny_qwen3_vl, tmp_path / "llava")
    with pytest.raises(ModelError, match=r"llava.*qwen3_vl"):
        LoRATrainer(base).plan(colours)


def test_the_plan_is_what_is_trained(tiny_vlm: Path, colours: Dataset) -> None:
    from vlm_tune.training.attach import fresh

    config = TrainConfig(r=4)
    base = VLM(tiny_vlm)
    plan = LoRATrainer(base, config).plan(colours)
    with base.load().adapted(fresh(config, plan.target_modules)) as wrapped:
        trained = [name for name, parameter in wrapped.named_parameters() if parameter.requires_grad]
        assert wrapped.get_nb_trainable_parameters() == (
            plan.trained_parameters,
            plan.trained_parameters + plan.total_parameters,
        )
    assert len(trained) == 2 * sum(row.hit for row in plan.rows)


def test_show_frame_plot(tiny_qwen3_vl: Path, colours: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    plan = LoRATrainer(VLM(tiny_qwen3_vl)).plan(colours)
    plan.show()
    shown = capsys.readouterr().out
    assert "projector" in shown and "memory" in shown and "steps" in shown
    assert list(plan.frame()["hit"]) == [row.hit for row in plan.rows]
    assert plan.plot().axes

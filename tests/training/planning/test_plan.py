import shutil
from pathlib import Path

import pytest
from safetensors.torch import save_file
from transformers import LlavaConfig, PreTrainedConfig

from tests.families.architectures import gemma3_4b, lfm2_vl_3b, qwen3_vl_8b
from vlm_tune.data import Dataset
from vlm_tune.errors import AdapterError
from vlm_tune.training import AdapterPlan, LoRATrainer, TrainConfig
from vlm_tune.training.attach import fresh
from vlm_tune.vlm import VLM


def only_configured(config: PreTrainedConfig, processor_of: Path, folder: Path) -> VLM:
    """A model of true dimensions without any weights: planning must not miss them."""
    shutil.copytree(processor_of, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    config.save_pretrained(folder)
    save_file({}, folder / "model.safetensors")
    return VLM(folder, name=folder.name)


@pytest.fixture(scope="module")
def qwen_8b(tiny_qwen3_vl: Path, tmp_path_factory: pytest.TempPathFactory) -> VLM:
    return only_configured(qwen3_vl_8b(), tiny_qwen3_vl, tmp_path_factory.mktemp("true") / "qwen")


@pytest.fixture(scope="module")
def lfm_3b(tiny_lfm2_vl: Path, tmp_path_factory: pytest.TempPathFactory) -> VLM:
    return only_configured(lfm2_vl_3b(), tiny_lfm2_vl, tmp_path_factory.mktemp("true") / "lfm")


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


def test_an_architecture_found_by_looking_is_said_to_be(
    tmp_path: Path, tiny_qwen3_vl: Path, colours: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    base = only_configured(LlavaConfig(), tiny_qwen3_vl, tmp_path / "llava")
    plan = LoRATrainer(base).plan(colours, device="H200")
    assert (plan.family, plan.registered) == ("llava", False)
    # Its features are those of the last block but one.
    last = [f"model.vision_tower.encoder.layers.23.{name}" for name in ("self_attn.q_proj", "mlp.fc1")]
    assert {*last, "lm_head"} < set(plan.left_out)
    assert len(plan.left_out) == 7
    assert hits(plan) == {
        ("vision", "attention"): (92, 92),
        ("vision", "mlp"): (0, 46),
        ("projector", "attention"): (2, 2),
        ("language", "attention"): (128, 128),
        ("language", "mlp"): (0, 96),
    }
    plan.show()
    shown = " ".join(capsys.readouterr().out.split())
    assert "llava is not in the registry: these layers were found by looking. Never adapted: " in shown


def test_a_registered_architecture_needs_no_such_words(lfm_3b: VLM, colours: Dataset) -> None:
    plan = LoRATrainer(lfm_3b).plan(colours, device="H200")
    assert plan.registered
    assert plan.left_out == ("model.vision_tower.embeddings.patch_embedding", "lm_head")


def test_what_an_architecture_lacks_is_left_out_by_name(tmp_path: Path, tiny_qwen3_vl: Path, colours: Dataset) -> None:
    base = only_configured(gemma3_4b(), tiny_qwen3_vl, tmp_path / "gemma")
    with pytest.raises(AdapterError, match="projector would adapt nothing in gemma3"):
        LoRATrainer(base).plan(colours, device="H200")
    config = TrainConfig(regions=("vision", "language"), modules_to_save=("multi_modal_projector",))
    plan = LoRATrainer(base, config).plan(colours, device="H200")
    (full,) = plan.in_full
    assert (full.name, full.parameters) == ("model.multi_modal_projector", 1152 * 2560 + 1152)


@pytest.mark.parametrize(
    ("config", "spelled"),
    [
        (TrainConfig(r=4), "LoRA r 4, scale alpha / r = 16 / 4 = 4"),
        (TrainConfig(r=4, use_rslora=True), "LoRA r 4, scale alpha / sqrt(r) = 16 / sqrt(4) = 8"),
        (TrainConfig(r=4, use_dora=True, kinds=("attention", "mlp")), "DoRA r 4, scale alpha / r = 16 / 4 = 4"),
        (
            TrainConfig(r=4, use_dora=True, regions=("language",), modules_to_save=("norm1", "visual.pos_embed")),
            "DoRA r 4, scale alpha / r = 16 / 4 = 4",
        ),
    ],
)
def test_the_plan_is_what_is_trained(config: TrainConfig, spelled: str, tiny_qwen3_vl: Path, colours: Dataset) -> None:
    base = VLM(tiny_qwen3_vl)
    plan = LoRATrainer(base, config).plan(colours)
    assert plan.method == spelled
    with base.load().adapted(fresh(config, plan.target_modules)) as wrapped:
        trained = {name: parameter for name, parameter in wrapped.named_parameters() if parameter.requires_grad}
        assert sum(parameter.numel() for parameter in trained.values()) == plan.trained_parameters
        assert wrapped.get_nb_trainable_parameters() == (
            plan.trained_parameters,
            plan.trained_parameters + plan.total_parameters,
        )
    adapters = [name for name in trained if ".lora_" in name]
    assert len(adapters) == (3 if config.use_dora else 2) * sum(row.hit for row in plan.rows)
    assert sum(row.parameters for row in plan.in_full) == sum(
        parameter.numel() for name, parameter in trained.items() if ".modules_to_save." in name
    )


def test_the_plan_of_lfm2_vl_is_what_is_trained(tiny_lfm2_vl: Path, colours: Dataset) -> None:
    base, config = VLM(tiny_lfm2_vl), TrainConfig(r=4, kinds=("attention", "mlp", "conv"))
    plan = LoRATrainer(base, config).plan(colours)
    with base.load().adapted(fresh(config, plan.target_modules)) as wrapped:
        assert wrapped.get_nb_trainable_parameters()[0] == plan.trained_parameters


def test_modules_in_full_are_in_table_and_frame(
    tiny_lfm2_vl: Path, colours: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    config = TrainConfig(r=4, regions=("language",), modules_to_save=("multi_modal_projector",))
    plan = LoRATrainer(VLM(tiny_lfm2_vl), config).plan(colours)
    plan.show()
    shown = " ".join(capsys.readouterr().out.split())
    assert "in full" in shown and "scale alpha / r = 16 / 4 = 4" in shown
    frame = plan.frame()
    assert list(frame.query("kind == 'in full'")["region"]) == ["model.multi_modal_projector"]
    assert frame["parameters"].sum() == plan.trained_parameters


def test_show_frame_plot(tiny_qwen3_vl: Path, colours: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    plan = LoRATrainer(VLM(tiny_qwen3_vl)).plan(colours)
    plan.show()
    shown = capsys.readouterr().out
    assert "projector" in shown and "memory" in shown and "steps" in shown
    assert list(plan.frame()["hit"]) == [row.hit for row in plan.rows]
    assert plan.plot().axes

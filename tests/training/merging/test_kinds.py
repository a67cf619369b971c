"""Kinds of adapter: what is taken, and by what name all else is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
from peft import LoraConfig

from vlm_tune.errors import MergeError
from vlm_tune.training.merging.kinds import check_kind, scale

HERE = Path("runs/adapter")


def settings(**changes: Any) -> dict[str, Any]:
    """What PEFT writes beside a LoRA adapter, with changes."""
    return {**LoraConfig(target_modules="q_proj", task_type="CAUSAL_LM").to_dict(), **changes}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_rslora": True, "lora_dropout": 0.1},
        {"use_dora": True, "modules_to_save": ["merger"]},
        {"rank_pattern": {"q": 2}, "alpha_pattern": {"q": 2}},
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": "eva", "eva_config": {"rho": 2.0}},
        # PEFT sets it so when it turns PiSSA, OLoRA, CorDA or LoRA-GA into plain LoRA.
        {"init_lora_weights": True, "corda_config": {"verbose": False}},
    ],
)
def test_kinds_that_are_merged(changes: dict[str, Any]) -> None:
    check_kind(settings(**changes), HERE)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"fan_in_fan_out": True}, "transposed weights"),
        ({"bias": "all"}, r"trained biases \(bias\)"),
        ({"bias": "lora_only"}, r"trained biases \(bias\)"),
        ({"lora_bias": True}, "biases of its own"),
        ({"trainable_token_indices": [1]}, "single trained tokens"),
        ({"target_parameters": ["experts"]}, "updates of bare parameters"),
        ({"alora_invocation_tokens": [3, 4]}, "for some tokens only"),
        ({"layer_replication": [[0, 2]]}, "repeated layers"),
        ({"use_qalora": True}, "use_qalora"),
        ({"arrow_config": {"top_k": 2}}, "arrow_config"),
        ({"kasa_config": {"beta": 1}, "bias": "all"}, "bias.* and kasa_config"),
        ({"something_new": True}, "with something_new, which"),
        ({"init_lora_weights": "pissa"}, "'pissa', which changes the base's.*path_initial_model"),
        ({"init_lora_weights": "pissa_niter_16"}, "pissa_niter_16"),
        ({"init_lora_weights": "olora"}, "olora"),
        ({"init_lora_weights": "corda"}, "corda"),
        ({"init_lora_weights": "loftq"}, "loftq"),
        ({"init_lora_weights": "mica"}, "mica"),
    ],
)
def test_kinds_that_are_refused_by_name(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(MergeError, match=reason):
        check_kind(settings(**changes), HERE)


@pytest.mark.parametrize(
    "kind", ["LoHaConfig", "LoKrConfig", "IA3Config", "AdaLoraConfig", "PromptTuningConfig", "OFTConfig"]
)
def test_other_adapters_than_lora_are_refused_by_name(kind: str, tmp_path: Path) -> None:
    more: dict[str, Any] = {"num_virtual_tokens": 2} if "Prompt" in kind else {"target_modules": ["q"]}
    more |= {"feedforward_modules": []} if kind == "IA3Config" else {}
    more |= {"total_step": 10} if kind == "AdaLoraConfig" else {}
    config = getattr(peft, kind)(**more)
    with pytest.raises(MergeError, match=f"of the kind {config.peft_type.value}, and LoRA"):
        check_kind(config.to_dict(), HERE)


def test_a_pattern_fits_the_end_of_a_name_from_a_dot_on() -> None:
    given = settings(r=8, lora_alpha=16, rank_pattern={"proj": 2, r"1\.out_proj": 4}, alpha_pattern={"out_proj": 12})
    assert scale(given, "layers.0.proj", 2) == 8
    assert scale(given, "layers.0.out_proj", 8) == 1.5
    assert scale(given, "layers.1.out_proj", 4) == 3
    with pytest.raises(MergeError, match="of rank 8, and the adapter's settings say 4"):
        scale(given, "layers.1.out_proj", 8)
